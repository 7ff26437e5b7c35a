//! The near cache: entities that were read lately, kept in this process and kept true.
//!
//! A read is answered from here if the entity and the features asked for are here, and nothing was
//! changed since ([`Watcher`]). Everything else is loaded from the store, once for all who want it
//! at the same time, and kept unless it was changed meanwhile ([`flights`]). What is not there is
//! kept as well, as an entity of version 0. Expiry is judged by the reader, as ever.
//!
//! A store that tells of changes [`Told::Soon`] vouches several times within `max_lag` that all is
//! told. Without that the cache stands aside, so that no answer is older than `max_lag` whatever
//! the network does.

mod entry;
mod flights;
mod stats;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Weighter};

pub use self::entry::{Entry, Fields, Slots};
use self::flights::{Flight, Flights, Lead, Turn};
pub use self::stats::CacheStats;
use self::stats::{CountEvictions, Counts};
use super::watch::{Told, Watcher};
use super::{Load, Store, StoreError};
use crate::clock::Clock;
use crate::domain::name::EntityKey;
use crate::domain::time::{Span, Timestamp};

/// How a cache is to be.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// About so much memory is used at most.
    pub bytes: u64,
    /// How long ago the store may have vouched last.
    pub max_lag: Duration,
    /// For so long what was true last is kept for an outage; `None`: not at all.
    pub stale_if_error: Option<Span>,
}

/// Features of an entity that are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub entity: &'a EntityKey,
    pub fields: &'a Fields,
}

/// An entity, and where the features that were wanted are in it.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Arc<Entry>,
    pub slots: Slots,
    /// Whether the store was asked for it, by this very call.
    pub loaded: bool,
}

/// The cache of one store.
pub struct NearCache {
    entries: Entries,
    flights: Arc<Flights>,
    /// Lists of features, so that entities with the same ones share one.
    unions: Mutex<HashSet<Fields>>,
    config: CacheConfig,
    clock: Arc<dyn Clock>,
    told: OnceLock<Told>,
    born: Instant,
    /// Nanoseconds from `born` to the time up to which the store has vouched; 0 while it is lost.
    in_step: AtomicU64,
    trust: Mutex<Trust>,
    counts: Arc<Counts>,
}

type Entries = Cache<EntityKey, Arc<Entry>, ByWeight, DefaultHashBuilder, CountEvictions>;

/// How far the copies can be trusted, and what is left where they cannot.
#[derive(Debug)]
struct Trust {
    /// Since when nothing can be trusted.
    lost_at: Option<Instant>,
    /// What was true when the store vouched last, for an outage.
    aside: HashMap<EntityKey, Arc<Entry>>,
    vouched_at: Option<Timestamp>,
    bypassed: Duration,
}

#[derive(Clone, Copy, Debug)]
struct ByWeight;

impl Weighter<EntityKey, Arc<Entry>> for ByWeight {
    fn weight(&self, _: &EntityKey, entry: &Arc<Entry>) -> u64 {
        entry.weight()
    }
}

/// An entity by its names; hashed as the key is.
#[derive(Hash)]
struct Named<'a>(&'a str, &'a str);

impl Equivalent<EntityKey> for Named<'_> {
    fn equivalent(&self, key: &EntityKey) -> bool {
        key.entity_id.as_str() == self.1 && key.entity_type.as_str() == self.0
    }
}

impl fmt::Debug for NearCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache").field("config", &self.config).field("stats", &self.stats()).finish()
    }
}

impl Watcher for NearCache {
    fn changed(&self, entity_type: &str, entity_id: &str) {
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
        self.flights.forget(entity_type, entity_id, || {
            self.entries.remove(&Named(entity_type, entity_id));
        });
    }

    fn lost(&self) {
        let mut trust = self.trust();
        if self.in_step.swap(0, Ordering::AcqRel) == 0 {
            return;
        }
        trust.lost_at = Some(Instant::now());
        self.flights.forget_all();
        if self.config.stale_if_error.is_some() {
            trust.aside = self.entries.drain().collect();
        } else {
            self.entries.clear();
        }
    }

    fn in_step(&self, at: Instant) {
        let mut trust = self.trust();
        let now = Instant::now();
        let step = at.saturating_duration_since(self.born).max(Duration::from_nanos(1));
        let before = Duration::from_nanos(self.in_step.load(Ordering::Acquire));
        let bypassed = match trust.lost_at.take() {
            Some(lost_at) => {
                // Whatever was put here in between: nobody was told of its changes.
                self.flights.forget_all();
                self.entries.clear();
                trust.aside = HashMap::new();
                now - lost_at
            }
            None => (now - self.born).saturating_sub(before + self.config.max_lag),
        };
        trust.bypassed += bypassed;
        let ago = (now - at).as_millis() as i64;
        trust.vouched_at = Timestamp::from_millis(self.clock.now().as_millis() - ago);
        self.in_step.store(step.as_nanos() as u64, Ordering::Release);
    }
}

impl NearCache {
    /// A cache of `store`, to which all changes must be made and from which all reads must be
    /// answered that go through it.
    pub fn new(store: &dyn Store, config: CacheConfig, clock: Arc<dyn Clock>) -> Arc<Self> {
        let counts = Arc::new(Counts::default());
        // Ten scalars and their records take about so much.
        let items = (config.bytes / 2048).max(1) as usize;
        let evictions = CountEvictions(counts.clone());
        let born = Instant::now();
        let cache = Arc::new(Self {
            entries: Cache::with(items, config.bytes, ByWeight, DefaultHashBuilder::default(), evictions),
            flights: Arc::default(),
            unions: Mutex::default(),
            config,
            clock,
            told: OnceLock::new(),
            born,
            in_step: AtomicU64::new(0),
            trust: Mutex::new(Trust {
                lost_at: Some(born),
                aside: HashMap::new(),
                vouched_at: None,
                bypassed: Duration::ZERO,
            }),
            counts,
        });
        // Vouching may take a while, and one time may be missed.
        let told = store.watch(cache.clone(), config.max_lag / 4);
        // It is set here alone.
        let _ = cache.told.set(told);
        cache
    }

    /// Whether what is here may be served now.
    pub fn is_coherent(&self) -> bool {
        match self.told.get() {
            Some(Told::AtOnce) => true,
            Some(Told::Soon) => {
                let step = Duration::from_nanos(self.in_step.load(Ordering::Acquire));
                !step.is_zero() && self.born.elapsed() <= step + self.config.max_lag
            }
            None => false,
        }
    }

    /// An entity, if it is here with these features and may be served; nothing is counted.
    pub fn peek(&self, entity_type: &str, entity_id: &str, fields: &Fields) -> Option<Found> {
        let entry = self.entries.get(&Named(entity_type, entity_id)).filter(|_| self.is_coherent())?;
        Finder::default().find(entry, fields)
    }

    /// Counts an entity that was answered by way of [`Self::peek`].
    pub fn count_hit(&self) {
        Counts::add(&self.counts.hits, 1);
    }

    /// Reads entities, in the order wanted: from here, or from the store in one round trip.
    pub async fn read(&self, store: &dyn Store, wanted: &[Wanted<'_>]) -> Result<Vec<Found>, StoreError> {
        if !self.is_coherent() {
            Counts::add(&self.counts.misses, wanted.len());
            return load(store, wanted).await;
        }
        let mut finder = Finder::default();
        let mut found: Vec<Option<Found>> = Vec::with_capacity(wanted.len());
        let mut missing = 0;
        for wanted in wanted {
            let entry = self.entries.get(wanted.entity);
            let hit = entry.and_then(|entry| finder.find(entry, wanted.fields));
            missing += usize::from(hit.is_none());
            found.push(hit);
        }
        Counts::add(&self.counts.hits, wanted.len() - missing);
        if missing > 0 {
            Counts::add(&self.counts.misses, missing);
            self.fill(store, wanted, &mut found, &mut finder).await?;
        }
        let complete: Option<Vec<Found>> = found.into_iter().collect();
        complete.ok_or_else(|| StoreError::Internal("a read left an entity out".to_owned()))
    }

    /// Loads what is not found yet, or waits for those who do.
    async fn fill(
        &self,
        store: &dyn Store,
        wanted: &[Wanted<'_>],
        found: &mut [Option<Found>],
        finder: &mut Finder,
    ) -> Result<(), StoreError> {
        let mut leads: Vec<(usize, Lead)> = Vec::new();
        let mut waits: Vec<(usize, Arc<Flight>)> = Vec::new();
        for (index, wanted) in wanted.iter().enumerate().filter(|(index, _)| found[*index].is_none()) {
            let fields = self.fields_to_load(wanted);
            match self.flights.join(wanted.entity, &fields) {
                Turn::Lead(lead) => leads.push((index, lead)),
                Turn::Wait(flight) => waits.push((index, flight)),
            }
        }
        let flights: Vec<Arc<Flight>> = leads.iter().map(|(_, lead)| lead.flight.clone()).collect();
        let loaded = load_flights(store, &flights).await;
        let mut failure = loaded.as_ref().err().cloned();
        let mut loaded = loaded.into_iter().flatten();
        for (index, lead) in leads {
            let outcome = match loaded.next() {
                Some(outcome) => outcome,
                None => Err(failure.clone().unwrap_or_else(|| internal("a load went missing"))),
            };
            match &outcome {
                Ok(entry) => {
                    let here = finder.find(entry.clone(), wanted[index].fields);
                    found[index] = here.map(|found| Found { loaded: true, ..found });
                }
                Err(error) => failure = Some(error.clone()),
            }
            lead.land(outcome, |entry| self.entries.insert(wanted[index].entity.clone(), entry.clone()));
        }
        if let Some(error) = failure {
            return Err(error);
        }
        for (index, flight) in waits {
            let entry = match flight.outcome().await {
                Some(outcome) => outcome?,
                // Whoever was to load it was cancelled.
                None => {
                    let alone = load(store, std::slice::from_ref(&wanted[index])).await?;
                    found[index] = alone.into_iter().next();
                    continue;
                }
            };
            found[index] = finder.find(entry, wanted[index].fields);
        }
        Ok(())
    }

    /// What is wanted, and what is here already: those who want different features of one entity
    /// shall not take it from each other.
    fn fields_to_load(&self, wanted: &Wanted<'_>) -> Fields {
        let Some(known) = self.entries.peek(wanted.entity) else { return wanted.fields.clone() };
        let is_new = |(name, _): &&(_, _)| !wanted.fields.iter().any(|(other, _)| other == name);
        let union: Vec<_> =
            wanted.fields.iter().chain(known.fields().iter().filter(is_new)).cloned().collect();
        if union.len() == wanted.fields.len() {
            return wanted.fields.clone();
        }
        const UNIONS: usize = 1024;
        let mut unions = self.unions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = unions.get(union.as_slice()) {
            return known.clone();
        }
        if unions.len() >= UNIONS {
            unions.retain(|fields| Arc::strong_count(fields) > 1);
        }
        let union = Fields::from(union);
        if unions.len() < UNIONS {
            unions.insert(union.clone());
        }
        union
    }

    /// What was true last of all of these, and how long ago that was: for when the store cannot be
    /// reached. `None` where that is not wanted any more, or one of them was not here.
    pub fn stale(&self, wanted: &[Wanted<'_>]) -> Option<(Vec<Found>, Span)> {
        let longest = self.config.stale_if_error?;
        let trust = self.trust();
        let age = self.clock.now().micros_since(trust.vouched_at?).max(0) / 1000;
        let age = Span::from_millis((age as u64).max(1)).filter(|age| *age <= longest)?;
        let mut finder = Finder::default();
        let found = wanted.iter().map(|wanted| {
            let entry = trust.aside.get(wanted.entity).cloned().or_else(|| self.entries.peek(wanted.entity));
            finder.find(entry?, wanted.fields)
        });
        let found = found.collect::<Option<Vec<Found>>>()?;
        Counts::add(&self.counts.stale, found.len());
        Some((found, age))
    }

    pub fn stats(&self) -> CacheStats {
        let trust = self.trust();
        let now = Instant::now();
        let is_coherent = self.is_coherent();
        let since = match (self.told.get(), trust.lost_at) {
            (Some(Told::AtOnce), _) => Duration::ZERO,
            (_, Some(lost_at)) => now - lost_at,
            (_, None) => {
                let step = Duration::from_nanos(self.in_step.load(Ordering::Acquire));
                (now - self.born).saturating_sub(step + self.config.max_lag)
            }
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            is_coherent,
            hits: count(&self.counts.hits),
            misses: count(&self.counts.misses),
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            capacity_bytes: self.entries.capacity(),
            evictions: count(&self.counts.evictions),
            invalidations: count(&self.counts.invalidations),
            bypass_seconds: (trust.bypassed + since).as_secs_f64(),
            stale: count(&self.counts.stale),
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        // Nothing panics while it holds the lock.
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads entities from the store in one round trip.
pub async fn load(store: &dyn Store, wanted: &[Wanted<'_>]) -> Result<Vec<Found>, StoreError> {
    let loads: Vec<Load<'_>> = wanted
        .iter()
        .map(|Wanted { entity, fields }| Load { entity, features: fields, history: false })
        .collect();
    let loaded = store.load(&loads).await?;
    let found = wanted.iter().zip(loaded).map(|(wanted, records)| {
        let entry = Entry::new(wanted.entity, wanted.fields.clone(), records)?;
        Ok(Found { entry: Arc::new(entry), slots: Slots::Same, loaded: true })
    });
    found.collect()
}

async fn load_flights(
    store: &dyn Store,
    flights: &[Arc<Flight>],
) -> Result<Vec<Result<Arc<Entry>, StoreError>>, StoreError> {
    if flights.is_empty() {
        return Ok(Vec::new());
    }
    let loads: Vec<Load<'_>> = flights
        .iter()
        .map(|flight| Load { entity: &flight.entity, features: &flight.fields, history: false })
        .collect();
    let loaded = store.load(&loads).await?;
    let entry = |(flight, records): (&Arc<Flight>, _)| {
        Entry::new(&flight.entity, flight.fields.clone(), records).map(Arc::new)
    };
    Ok(flights.iter().zip(loaded).map(entry).collect())
}

fn internal(text: &str) -> StoreError {
    StoreError::Internal(text.to_owned())
}

/// Finds features in entries, most of which have the same ones.
#[derive(Default)]
struct Finder(Option<(Fields, Fields, Slots)>);

impl Finder {
    /// `None` where the entry does not have all of them.
    fn find(&mut self, entry: Arc<Entry>, fields: &Fields) -> Option<Found> {
        if Arc::ptr_eq(entry.fields(), fields) {
            return Some(Found { entry, slots: Slots::Same, loaded: false });
        }
        if let Some((of, wanted, slots)) = &self.0
            && Arc::ptr_eq(of, entry.fields())
            && Arc::ptr_eq(wanted, fields)
        {
            return Some(Found { entry, slots: slots.clone(), loaded: false });
        }
        let slots = entry.locate(fields)?;
        self.0 = Some((entry.fields().clone(), fields.clone(), slots.clone()));
        Some(Found { entry, slots, loaded: false })
    }
}
