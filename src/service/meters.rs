//! What the use cases count. The handles are made once, so that counting is one atomic addition.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use metrics::{Counter, counter, gauge};

use super::answer::TypeAnswer;
use crate::domain::compiled::SharedEntityType;
use crate::domain::draft::Outcome;
use crate::domain::name::{EntityType, FeatureName};
use crate::domain::time::Timestamp;
use crate::domain::view::Status;
use crate::domain::violation::Violation;
use crate::monitor::freshness::Reads;
use crate::monitor::performance::{Timed, Types};
use crate::monitor::{Kind, Performance, Tally};
use crate::store::cache::CacheStats;

pub struct Meters {
    reads: [Counter; Status::ALL.len()],
    writes: [Counter; 4],
    conflicts: Counter,
    /// What was published last.
    cached: Mutex<CacheStats>,
    /// `None`: monitoring is off.
    performance: Option<Arc<Performance>>,
}

impl Meters {
    pub fn new(performance: Option<Arc<Performance>>) -> Self {
        let write = |outcome: Outcome| counter!("feature_store_features_written_total", "outcome" => outcome.as_str());
        Self {
            reads: Status::ALL
                .map(|status| counter!("feature_store_features_read_total", "status" => status.as_str())),
            writes: [Outcome::Applied, Outcome::Unchanged, Outcome::Late, Outcome::Skipped].map(write),
            conflicts: counter!("feature_store_commit_conflicts_total"),
            cached: Mutex::default(),
            performance,
        }
    }

    /// Publishes what a cache says of itself.
    pub fn cached(&self, stats: &CacheStats) {
        let mut before = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(performance) = &self.performance {
            performance.count(Tally::CacheHits, stats.hits - before.hits);
            performance.count(Tally::CacheMisses, stats.misses - before.misses);
        }
        for (name, now, before) in [
            ("feature_store_cache_hits_total", stats.hits, before.hits),
            ("feature_store_cache_misses_total", stats.misses, before.misses),
            ("feature_store_cache_evictions_total", stats.evictions, before.evictions),
            ("feature_store_cache_invalidations_total", stats.invalidations, before.invalidations),
            ("feature_store_cache_stale_total", stats.stale, before.stale),
        ] {
            counter!(name).increment(now - before);
        }
        gauge!("feature_store_cache_entries").set(stats.entries as f64);
        gauge!("feature_store_cache_bytes").set(stats.bytes as f64);
        gauge!("feature_store_cache_coherent").set(if stats.is_coherent { 1.0 } else { 0.0 });
        gauge!("feature_store_cache_bypass_seconds").set(stats.bypass_seconds);
        *before = *stats;
    }

    pub fn performance(&self) -> Option<&Arc<Performance>> {
        self.performance.as_ref()
    }

    /// Records how long a request of one entity type took, when the answer is dropped.
    pub fn timed(&self, kind: Kind, started: Instant, entity_type: &EntityType) -> Option<Timed<'_>> {
        let performance = self.performance.as_deref()?;
        Some(performance.timed(kind, started, Types::One(performance.of_type(entity_type))))
    }

    /// As [`Self::timed`], of several entity types.
    pub fn timed_batch<'a>(
        &self,
        kind: Kind,
        started: Instant,
        entity_types: impl Iterator<Item = &'a EntityType>,
    ) -> Option<Timed<'_>> {
        let performance = self.performance.as_deref()?;
        let types = entity_types.map(|name| performance.of_type(name)).collect();
        Some(performance.timed(kind, started, Types::Many(types)))
    }

    /// Counts the features of a read; those of the present say how fresh their features are.
    pub fn read(&self, read: &TypeAnswer, present: bool) {
        let columns = &read.columns;
        let recorder = self.performance.as_ref().map(|of| (of, of.of_type(columns.entity_type.name())));
        let fresh = recorder.as_ref().filter(|_| present);
        let table = fresh.and_then(|(of, recorder)| of.features_of(recorder, &columns.entity_type));
        let feature = |place: &usize| table.as_ref()?.by_place.get(*place)?.as_ref();
        let mut sum = Reads::default();
        let rest: Vec<usize> = (0..read.len()).filter(|row| read.members(*row).is_none()).collect();
        let present = (read.len() - rest.len()) as u64;
        if rest.is_empty() {
            // As nearly all reads are.
            sum.0[Status::Present as usize] = present * columns.width() as u64;
            let has_news = read.has_news();
            for (column, place) in columns.places().iter().enumerate() {
                if let Some(feature) = feature(place) {
                    let newest = if has_news { read.newest_event(column) } else { None };
                    feature.read_present(present, newest);
                }
            }
        } else {
            for (column, place) in columns.places().iter().enumerate() {
                let mut reads = Reads::default();
                reads.0[Status::Present as usize] = present;
                for row in &rest {
                    reads.0[read.status(*row, column) as usize] += 1;
                }
                sum.add(reads);
                if let Some(feature) = feature(place) {
                    feature.read(&reads, read.newest_event(column));
                }
            }
        }
        for (counter, count) in self.reads.iter().zip(sum.0).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
        if let Some((performance, recorder)) = &recorder {
            performance.count(Tally::FeaturesRead, sum.total());
            recorder.count(Tally::FeaturesRead, sum.total());
        }
    }

    /// Counts the features of a write. `event` is when new data took place; `None` where there are
    /// none, as when features are deleted or rolled back.
    pub fn wrote(
        &self,
        entity_type: &SharedEntityType,
        outcomes: &[(FeatureName, Outcome)],
        event: Option<Timestamp>,
        now: Timestamp,
    ) {
        for (_, outcome) in outcomes {
            self.writes[*outcome as usize].increment(1);
        }
        let Some(performance) = &self.performance else { return };
        let recorder = performance.of_type(entity_type.name());
        performance.count(Tally::FeaturesWritten, outcomes.len() as u64);
        recorder.count(Tally::FeaturesWritten, outcomes.len() as u64);
        let table = performance.features_of(&recorder, entity_type);
        let (Some(event), Some(table)) = (event, table) else { return };
        for (name, _) in outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Applied) {
            if let Some(feature) = table.of(name) {
                feature.wrote(event, now);
            }
        }
    }

    /// Counts a commit that has to be decided anew.
    pub fn conflict(&self) {
        self.conflicts.increment(1);
    }

    /// Counts refused values by what is wrong with them; the codes are a closed list. An entity
    /// type that is not registered has no count of its own.
    pub fn refused(&self, entity_type: Option<&EntityType>, violations: &[Violation]) {
        for violation in violations {
            counter!("feature_store_validation_errors_total", "code" => violation.code.as_str()).increment(1);
        }
        if let Some(performance) = &self.performance {
            performance.count(Tally::ValidationErrors, violations.len() as u64);
            if let Some(entity_type) = entity_type {
                performance.of_type(entity_type).count(Tally::ValidationErrors, violations.len() as u64);
            }
        }
    }
}
