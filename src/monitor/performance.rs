//! What is recorded while requests are answered.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::HashMap;
use metrics::{Histogram, histogram};

use super::Cardinality;
use super::freshness::{self, FeatureRecorder, FeatureTable};
use super::latency::{Latencies, Sparse};
use super::ring::{Merge, Ring};
use crate::domain::compiled::SharedEntityType;
use crate::domain::name::{EntityType, FeatureName};
use crate::domain::time::Timestamp;

const SLOT_SECONDS: u32 = 5;
const REACH_SECONDS: u32 = 3600;
/// The label of everything that has none of its own.
const OTHER: &str = "other";

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Retrieval,
    Write,
}

/// What is counted in windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    FeaturesRead,
    /// Of every outcome.
    FeaturesWritten,
    ValidationErrors,
    /// Under `/v1`.
    Requests,
    /// Of those, answered with 500 or more.
    ServerErrors,
    /// The store could not be reached, or did not answer in time.
    StoreFailures,
    CacheHits,
    CacheMisses,
}

const TALLIES: usize = Tally::CacheMisses as usize + 1;

/// What was counted in a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tallies([u64; TALLIES]);

impl Tallies {
    pub fn of(&self, tally: Tally) -> u64 {
        self.0[tally as usize]
    }
}

#[derive(Default)]
struct Recorder {
    retrieval: Latencies,
    write: Latencies,
    tallies: [AtomicU64; TALLIES],
}

impl Recorder {
    fn latencies(&self, kind: Kind) -> &Latencies {
        match kind {
            Kind::Retrieval => &self.retrieval,
            Kind::Write => &self.write,
        }
    }

    fn count(&self, tally: Tally, count: u64) {
        self.tallies[tally as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn take(&self) -> Sample {
        let tallies = std::array::from_fn(|at| self.tallies[at].swap(0, Ordering::Relaxed));
        Sample { retrieval: self.retrieval.take(), write: self.write.take(), tallies: Tallies(tallies) }
    }
}

/// What was recorded in one slot of time.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub retrieval: Sparse,
    pub write: Sparse,
    pub tallies: Tallies,
}

impl Sample {
    fn is_empty(&self) -> bool {
        self.retrieval.is_empty() && self.write.is_empty() && self.tallies.0.iter().all(|count| *count == 0)
    }
}

impl Merge for Tallies {
    fn merge(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

impl Merge for Sample {
    fn merge(&mut self, other: Self) {
        self.retrieval.add(other.retrieval);
        self.write.add(other.write);
        self.tallies.merge(other.tallies);
    }
}

/// A recorder and the windows that it is settled into.
struct Recorded {
    now: Recorder,
    past: Mutex<Ring<Sample>>,
}

impl Default for Recorded {
    fn default() -> Self {
        Self { now: Recorder::default(), past: Mutex::new(Ring::new(SLOT_SECONDS, REACH_SECONDS)) }
    }
}

impl Recorded {
    fn settle(&self, now: Timestamp) {
        let sample = self.now.take();
        if !sample.is_empty() {
            lock(&self.past).add(now, sample);
        }
    }
}

/// What is recorded of one entity type.
pub struct TypeRecorder {
    recorded: Recorded,
    seconds: [Histogram; 2],
    features: Mutex<HashMap<FeatureName, Arc<FeatureRecorder>>>,
    table: ArcSwapOption<FeatureTable>,
}

impl TypeRecorder {
    fn new(label: &str) -> Self {
        let entity_type = || [("entity_type", label.to_owned())];
        Self {
            recorded: Recorded::default(),
            seconds: [
                histogram!("feature_store_retrieval_duration_seconds", &entity_type()),
                histogram!("feature_store_write_duration_seconds", &entity_type()),
            ],
            features: Mutex::default(),
            table: ArcSwapOption::empty(),
        }
    }

    pub fn count(&self, tally: Tally, count: u64) {
        self.recorded.now.count(tally, count);
    }
}

/// What the server records of itself.
pub struct Performance {
    pub since: Timestamp,
    cardinality: Cardinality,
    total: Recorded,
    types: ArcSwap<HashMap<EntityType, Arc<TypeRecorder>>>,
    /// For the entity types beyond the limit.
    other: Arc<TypeRecorder>,
    /// Held while a type is added.
    adding: Mutex<()>,
    features: AtomicUsize,
}

impl Performance {
    pub fn new(since: Timestamp, cardinality: Cardinality) -> Self {
        Self {
            since,
            cardinality,
            total: Recorded::default(),
            types: ArcSwap::default(),
            other: Arc::new(TypeRecorder::new(OTHER)),
            adding: Mutex::default(),
            features: AtomicUsize::new(0),
        }
    }

    /// The recorder of an entity type, which must be one that is registered.
    pub fn of_type(&self, name: &EntityType) -> Arc<TypeRecorder> {
        if let Some(known) = self.types.load().get(name) {
            return known.clone();
        }
        let _adding = lock(&self.adding);
        let types = self.types.load_full();
        if let Some(known) = types.get(name) {
            return known.clone();
        }
        if types.len() >= self.cardinality.entity_types {
            return self.other.clone();
        }
        let recorder = Arc::new(TypeRecorder::new(name.as_str()));
        let mut types = HashMap::clone(&types);
        types.insert(name.clone(), recorder.clone());
        self.types.store(Arc::new(types));
        recorder
    }

    /// The recorder of an entity type, if it was read or written before.
    pub fn known_type(&self, name: &EntityType) -> Option<Arc<TypeRecorder>> {
        self.types.load().get(name).cloned()
    }

    /// The recorders of an entity type's features, by the schema that a request works with; `None`
    /// for a type beyond the limit.
    pub fn features_of(
        &self,
        recorder: &Arc<TypeRecorder>,
        schema: &SharedEntityType,
    ) -> Option<Arc<FeatureTable>> {
        if let Some(table) = recorder.table.load_full()
            && Arc::ptr_eq(&table.schema, schema)
        {
            return Some(table);
        }
        if Arc::ptr_eq(recorder, &self.other) {
            return None;
        }
        let admit = || {
            let more = |count: usize| (count < self.cardinality.features).then_some(count + 1);
            self.features.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        let table = Arc::new(FeatureTable::build(schema, &mut lock(&recorder.features), admit));
        recorder.table.store(Some(table.clone()));
        Some(table)
    }

    pub fn count(&self, tally: Tally, count: u64) {
        self.total.now.count(tally, count);
    }

    /// Records how long something took when the answer is dropped, finished or cancelled.
    pub fn timed(&self, kind: Kind, started: Instant, types: Types) -> Timed<'_> {
        Timed { performance: self, kind, started, types }
    }

    /// Moves what was recorded into the windows. `schema` knows the entity types in force.
    pub fn settle(&self, now: Timestamp, schema: impl Fn(&EntityType) -> Option<SharedEntityType>) {
        self.total.settle(now);
        self.other.recorded.settle(now);
        for (name, recorder) in &**self.types.load() {
            recorder.recorded.settle(now);
            freshness::settle(&lock(&recorder.features), schema(name).as_ref(), now);
        }
    }

    /// Calls `each` with the samples of a window.
    pub(super) fn last(&self, of: Of<'_>, now: Timestamp, seconds: u32, each: impl FnMut(&Sample)) {
        let recorded = match of {
            Of::Total => &self.total,
            Of::Type(recorder) => &recorder.recorded,
        };
        lock(&recorded.past).last(now, seconds).for_each(each);
    }

    /// The entity types that were read or written, by name; those beyond the limit as `other`.
    pub(super) fn types(&self) -> Vec<(String, Arc<TypeRecorder>)> {
        let types = self.types.load();
        let mut all: Vec<_> = types.iter().map(|(name, of)| (name.to_string(), of.clone())).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if types.len() >= self.cardinality.entity_types {
            all.push((OTHER.to_owned(), self.other.clone()));
        }
        all
    }
}

/// Of what a window is asked for.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    Total,
    Type(&'a TypeRecorder),
}

/// The entity types that a request speaks of: nearly always one.
pub enum Types {
    One(Arc<TypeRecorder>),
    Many(Vec<Arc<TypeRecorder>>),
}

/// Something that takes time, until it is dropped.
pub struct Timed<'a> {
    performance: &'a Performance,
    kind: Kind,
    started: Instant,
    types: Types,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        self.performance.total.now.latencies(self.kind).record(elapsed);
        let types = match &self.types {
            Types::One(one) => std::slice::from_ref(one),
            Types::Many(many) => many,
        };
        for of in types {
            of.recorded.now.latencies(self.kind).record(elapsed);
            of.seconds[self.kind as usize].record(elapsed.as_secs_f64());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
