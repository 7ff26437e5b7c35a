//! What is known of each feature: how new its newest value is, and how its reads end. A pipeline
//! that died shows in both.

use foldhash::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};

use super::ring::{Merge, Ring};
use crate::domain::compiled::{CompiledFeature, SharedEntityType};
use crate::domain::name::FeatureName;
use crate::domain::time::Timestamp;
use crate::domain::view::Status;

const STATUSES: usize = Status::ALL.len();
/// The past of a feature's reads is kept by the minute.
const SLOT_SECONDS: u32 = 60;
const REACH_SECONDS: u32 = 3600;
const UNKNOWN: i64 = i64::MIN;

/// Reads of a feature by [`Status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads(pub [u64; STATUSES]);

impl Merge for Reads {
    fn merge(&mut self, other: Self) {
        self.add(other);
    }
}

impl Reads {
    pub fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn of(&self, status: Status) -> u64 {
        self.0[status as usize]
    }

    /// The part of the reads that ended so; `None` where there were none.
    pub fn share(&self, status: Status) -> Option<f64> {
        let total = self.total();
        (total > 0).then(|| self.of(status) as f64 / total as f64)
    }
}

/// What this process has seen of a feature.
pub struct FeatureRecorder {
    reads: [AtomicU64; STATUSES],
    written: AtomicU64,
    /// Event time in milliseconds.
    newest_event: AtomicI64,
    newest_write: AtomicI64,
    past: Mutex<Past>,
    series: [Counter; STATUSES],
    labels: [(&'static str, String); 2],
    newest_gauge: OnceLock<Gauge>,
    max_age_gauge: OnceLock<Gauge>,
}

struct Past {
    settled: Reads,
    ring: Ring<Reads>,
}

/// What is known of a feature.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Of the newest value that was written to or read from this process.
    pub newest_event: Option<Timestamp>,
    /// When this process last stored a value of it.
    pub newest_write: Option<Timestamp>,
    /// Values written by this process.
    pub written: u64,
}

impl FeatureRecorder {
    fn new(entity_type: &str, feature: &str) -> Self {
        let labels = [("entity_type", entity_type.to_owned()), ("feature", feature.to_owned())];
        let reads = |status: Status| {
            let [entity_type, feature] = labels.clone();
            let labels = [entity_type, feature, ("status", status.as_str().to_owned())];
            counter!("feature_store_feature_reads_total", &labels)
        };
        Self {
            reads: Default::default(),
            written: AtomicU64::new(0),
            newest_event: AtomicI64::new(UNKNOWN),
            newest_write: AtomicI64::new(UNKNOWN),
            past: Mutex::new(Past {
                settled: Reads::default(),
                ring: Ring::new(SLOT_SECONDS, REACH_SECONDS),
            }),
            series: Status::ALL.map(reads),
            labels,
            newest_gauge: OnceLock::new(),
            max_age_gauge: OnceLock::new(),
        }
    }

    /// Counts reads of the present; `newest` is the newest event among them.
    pub fn read(&self, reads: &Reads, newest: Option<Timestamp>) {
        for (counter, count) in self.reads.iter().zip(reads.0) {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
        if let Some(newest) = newest {
            raise(&self.newest_event, newest);
        }
    }

    /// Counts reads of values that were there; as [`Self::read`] otherwise.
    pub fn read_present(&self, reads: u64, newest: Option<Timestamp>) {
        self.reads[Status::Present as usize].fetch_add(reads, Ordering::Relaxed);
        if let Some(newest) = newest {
            raise(&self.newest_event, newest);
        }
    }

    /// Counts a value that is served from now on.
    pub fn wrote(&self, event: Timestamp, now: Timestamp) {
        self.written.fetch_add(1, Ordering::Relaxed);
        raise(&self.newest_event, event);
        raise(&self.newest_write, now);
    }

    pub fn seen(&self) -> Seen {
        Seen {
            newest_event: known(&self.newest_event),
            newest_write: known(&self.newest_write),
            written: self.written.load(Ordering::Relaxed),
        }
    }

    /// The reads of the last seconds, of which the last minute is not over.
    pub fn reads(&self, now: Timestamp, seconds: u32) -> Reads {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = Reads::default();
        past.ring.last(now, seconds).for_each(|reads| sum.add(*reads));
        sum
    }

    fn settle(&self, feature: Option<&CompiledFeature>, now: Timestamp) {
        let reads = Reads(std::array::from_fn(|at| self.reads[at].load(Ordering::Relaxed)));
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Reads(std::array::from_fn(|at| reads.0[at].wrapping_sub(past.settled.0[at])));
        if new.total() > 0 {
            past.settled = reads;
            past.ring.add(now, new);
            for (counter, count) in self.series.iter().zip(new.0) {
                counter.increment(count);
            }
        }
        // A feature that is gone from the schema is no longer late.
        let (newest, max_age) = match feature {
            Some(feature) => (known(&self.newest_event), feature.max_age),
            None => (None, None),
        };
        let newest_gauge = || gauge!("feature_store_feature_newest_event_timestamp_seconds", &self.labels);
        set(&self.newest_gauge, newest.map(|at| at.as_millis() as f64 / 1000.0), newest_gauge);
        let max_age_gauge = || gauge!("feature_store_feature_max_age_seconds", &self.labels);
        set(&self.max_age_gauge, max_age.map(|age| age.as_duration().as_secs_f64()), max_age_gauge);
    }
}

/// A gauge appears with its first value; what is not known any more is no number.
fn set(gauge: &OnceLock<Gauge>, value: Option<f64>, make: impl FnOnce() -> Gauge) {
    match value {
        Some(value) => gauge.get_or_init(make).set(value),
        None => gauge.get().into_iter().for_each(|gauge| gauge.set(f64::NAN)),
    }
}

fn raise(to: &AtomicI64, at: Timestamp) {
    let millis = at.as_millis();
    if to.load(Ordering::Relaxed) < millis {
        to.fetch_max(millis, Ordering::Relaxed);
    }
}

fn known(at: &AtomicI64) -> Option<Timestamp> {
    Some(at.load(Ordering::Relaxed)).filter(|millis| *millis != UNKNOWN).and_then(Timestamp::from_millis)
}

/// The recorders of an entity type's features, in the order of one schema.
pub struct FeatureTable {
    pub schema: SharedEntityType,
    /// By place in the schema; `None` beyond the limit.
    pub by_place: Vec<Option<Arc<FeatureRecorder>>>,
}

impl FeatureTable {
    /// A feature keeps its recorder from schema to schema; new ones are made while `admit` says so.
    pub(super) fn build(
        schema: &SharedEntityType,
        known: &mut HashMap<FeatureName, Arc<FeatureRecorder>>,
        admit: impl Fn() -> bool,
    ) -> Self {
        let recorder = |name: &FeatureName| {
            if let Some(known) = known.get(name) {
                return Some(known.clone());
            }
            admit().then(|| {
                let recorder = Arc::new(FeatureRecorder::new(schema.name().as_str(), name.as_str()));
                known.insert(name.clone(), recorder.clone());
                recorder
            })
        };
        let by_place = schema.features.keys().map(recorder).collect();
        Self { schema: schema.clone(), by_place }
    }

    pub fn of(&self, feature: &FeatureName) -> Option<&Arc<FeatureRecorder>> {
        self.by_place.get(self.schema.features.get_index_of(feature)?)?.as_ref()
    }
}

/// Settles every feature that was ever seen, by the schema in force.
pub(super) fn settle(
    known: &HashMap<FeatureName, Arc<FeatureRecorder>>,
    schema: Option<&SharedEntityType>,
    now: Timestamp,
) {
    for (name, recorder) in known {
        recorder.settle(schema.and_then(|schema| schema.features.get(name)), now);
    }
}
