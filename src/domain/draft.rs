//! What a write does to an entity. This is the one place where events are ordered, versions given,
//! values superseded and expiries set; both stores carry out what is decided here.

pub mod undo;

use serde::{Deserialize, Serialize};

use super::compiled::ByName;
use super::name::{EntityKey, FeatureName};
use super::provenance::ProvenanceId;
use super::record::{Commit, Current, CurrentChange, EntityRecords, FeatureChange, Head, Record, Version};
use super::time::{Span, Timestamp, Ttl};
use super::value::Value;

/// What became of one feature of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is the served value now.
    Applied,
    /// This very event was known already; its expiry was renewed where it is the served one.
    Unchanged,
    /// An event newer than this one is served; this one went into the history.
    Late,
    /// It could not be computed, and its schema says to do without: it has no value now.
    Skipped,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Late => "late",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a value is written, which decides how it stands to the events that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Something that happened in the world, possibly seen before.
    Event,
    /// An act of the store's user: a rollback or a delete. It takes effect now, whatever is there,
    /// and is never taken for a repetition of a superseded event.
    Act,
    /// Derived from what the entity holds now, as of the given time: it replaces what is there
    /// unless it is the same value of the same time.
    Derived,
}

/// One feature of one write, checked and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureEvent {
    pub feature: FeatureName,
    /// `None` deletes the feature.
    pub value: Option<Value>,
    /// `None`: now, as the writer did not say.
    pub event_timestamp: Option<Timestamp>,
    /// How long it is kept, from when it is written.
    pub ttl: Ttl,
    /// So many superseded records are kept.
    pub history_limit: usize,
    pub intent: Intent,
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub now: Timestamp,
    pub provenance: ProvenanceId,
}

/// The history of these features is needed to decide; load it and start again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsHistory(pub Vec<FeatureName>);

/// An entity being written: what was loaded of it and what has been decided since. Several writes
/// may go into one draft; each that stores something takes a version of its own.
#[derive(Clone, Debug)]
pub struct Draft {
    entity: EntityKey,
    base: Option<Head>,
    version: Version,
    slots: ByName<Slot>,
    now: Timestamp,
}

#[derive(Clone, Debug)]
struct Slot {
    current: Option<Current>,
    /// What is known to be in the history, `None` where it was not loaded. Includes `superseded`.
    history: Option<Vec<Record>>,
    superseded: Vec<Record>,
    /// Whether `history` has other marks than what is stored.
    remarked: bool,
    history_limit: usize,
    touched: Touched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touched {
    No,
    HistoryOnly,
    Current,
    Erased,
}

impl Draft {
    /// Starts from what a store loaded: `loaded.features` are those of `names`, in that order.
    pub fn new(entity: EntityKey, names: &[FeatureName], loaded: EntityRecords, now: Timestamp) -> Self {
        let slots = names.iter().cloned().zip(loaded.features).map(|(name, records)| {
            // A feature that has no current record has no history either.
            let history = if records.current.is_none() { Some(Vec::new()) } else { records.history };
            let slot = Slot {
                current: records.current,
                history,
                superseded: Vec::new(),
                remarked: false,
                history_limit: 0,
                touched: Touched::No,
            };
            (name, slot)
        });
        Self {
            entity,
            base: loaded.head,
            version: loaded.head.map_or(0, |head| head.version),
            slots: slots.collect(),
            now,
        }
    }

    /// The entity's version with all that was drafted; 0 where there is nothing.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The value that would be served of a feature that was loaded, expiry aside.
    pub fn value(&self, feature: &FeatureName) -> Option<&Value> {
        self.slots.get(feature)?.current.as_ref()?.record.value.as_ref()
    }

    /// The value that would be served then.
    pub fn value_at(&self, feature: &FeatureName, now: Timestamp) -> Option<&Value> {
        let current = self.slots.get(feature)?.current.as_ref()?;
        current.record.value.as_ref().filter(|_| current.expires_at.is_none_or(|at| now < at))
    }

    /// When the value that would be served became true.
    pub fn event_timestamp(&self, feature: &FeatureName) -> Option<Timestamp> {
        Some(self.slots.get(feature)?.current.as_ref()?.record.event_timestamp)
    }

    /// Whether a feature that was loaded would have a value, null or not.
    pub fn has(&self, feature: &FeatureName) -> bool {
        self.value(feature).is_some()
    }

    /// Drafts one write; the outcomes are in the order of `events`, which name each feature once
    /// and only features that were loaded. After an error the draft is half-written and must be
    /// dropped.
    pub fn write(&mut self, events: &[FeatureEvent], stamp: &Stamp) -> Result<Vec<Outcome>, NeedsHistory> {
        self.write_version(events, self.version + 1, stamp)
    }

    /// Drafts more of the version that the last [`Self::write`] made, or where that stored nothing,
    /// of the next one: `before` is the version before that write.
    pub fn write_along(
        &mut self,
        events: &[FeatureEvent],
        before: Version,
        stamp: &Stamp,
    ) -> Result<Vec<Outcome>, NeedsHistory> {
        self.write_version(events, before + 1, stamp)
    }

    fn write_version(
        &mut self,
        events: &[FeatureEvent],
        next: Version,
        stamp: &Stamp,
    ) -> Result<Vec<Outcome>, NeedsHistory> {
        // An entity is as old as its first values, whenever the draft began.
        self.now = stamp.now;
        let mut stored = false;
        let mut unknown = Vec::new();
        let outcomes = events.iter().map(|event| {
            let Some(slot) = self.slots.get_mut(&event.feature) else {
                unknown.push(event.feature.clone());
                return Outcome::Unchanged;
            };
            slot.history_limit = event.history_limit;
            let event_timestamp = slot.event_timestamp(event, stamp.now);
            let at = Place { event_timestamp, version: next, stamp: *stamp };
            match slot.decide(event, event_timestamp) {
                Decision::NeedsHistory => {
                    unknown.push(event.feature.clone());
                    Outcome::Unchanged
                }
                Decision::Repeated { renew } => {
                    if renew {
                        slot.renew(event.ttl.expires_at(stamp.now));
                    }
                    Outcome::Unchanged
                }
                Decision::Apply => {
                    slot.apply(event.value.clone(), event.ttl.expires_at(stamp.now), at);
                    stored = true;
                    Outcome::Applied
                }
                Decision::Late { keep } => {
                    if keep {
                        slot.keep_late(event.value.clone(), at);
                        stored = true;
                    }
                    Outcome::Late
                }
            }
        });
        let outcomes: Vec<Outcome> = outcomes.collect();
        if !unknown.is_empty() {
            return Err(NeedsHistory(unknown));
        }
        if stored {
            self.version = next;
        }
        Ok(outcomes)
    }

    /// Drafts the removal of features with their history, as one version; nothing may be drafted
    /// of them after it. The answer says which of them were there.
    pub fn erase(&mut self, features: &[FeatureName]) -> Vec<bool> {
        let erased: Vec<bool> = features
            .iter()
            .map(|feature| match self.slots.get_mut(feature) {
                Some(slot) if slot.current.is_some() => {
                    slot.current = None;
                    slot.history = Some(Vec::new());
                    slot.superseded.clear();
                    slot.touched = Touched::Erased;
                    true
                }
                _ => false,
            })
            .collect();
        if erased.contains(&true) {
            self.version += 1;
        }
        erased
    }

    /// What a store must do, or `None` where nothing changes. Superseded values outlive the expiry
    /// of the served one by `history_ttl`.
    pub fn into_commit(self, history_ttl: Span) -> Option<Commit> {
        let now = self.now;
        let changes: Vec<FeatureChange> = self
            .slots
            .into_iter()
            .filter(|(_, slot)| slot.touched != Touched::No)
            .map(|(feature, slot)| slot.into_change(feature, now, history_ttl))
            .collect();
        if changes.is_empty() {
            return None;
        }
        // `None` is for ever, so the longest is not simply the maximum.
        let forever = changes.iter().any(|change| change.retain_until.is_none());
        let latest = changes.iter().filter_map(|change| change.retain_until).max();
        let created_at = self.base.map_or(now, |base| base.created_at);
        Some(Commit {
            entity: self.entity,
            expected: self.base,
            head: Head { version: self.version, created_at },
            changes,
            retain_until: if forever { None } else { latest },
        })
    }
}

enum Decision {
    NeedsHistory,
    Repeated { renew: bool },
    Apply,
    Late { keep: bool },
}

impl Slot {
    /// When the event takes place. One without a time of its own takes place now, and so after
    /// what was written a moment ago within the same millisecond. An act takes effect even where
    /// the served event lies in the future, as the allowed clock skew lets it.
    fn event_timestamp(&self, event: &FeatureEvent, now: Timestamp) -> Timestamp {
        let served = self.current.as_ref().map(|current| current.record.event_timestamp);
        match (event.event_timestamp, served) {
            (Some(given), Some(served)) if event.intent == Intent::Derived => given.max(served),
            (Some(given), _) => given,
            (None, Some(served)) if served >= now => {
                if event.intent != Intent::Event || served.as_millis() == now.as_millis() {
                    served.next()
                } else {
                    now
                }
            }
            (None, _) => now,
        }
    }

    fn decide(&self, event: &FeatureEvent, event_timestamp: Timestamp) -> Decision {
        let value = event.value.as_ref();
        let Some(current) = &self.current else {
            let nothing_to_delete = value.is_none();
            return if nothing_to_delete { Decision::Repeated { renew: false } } else { Decision::Apply };
        };
        let same = match event.intent {
            Intent::Event => None,
            Intent::Act => Some(current.record.holds(value)),
            Intent::Derived => Some(
                current.record.is_event(value, event_timestamp)
                    || (value.is_none() && current.record.value.is_none()),
            ),
        };
        match same {
            Some(true) => return Decision::Repeated { renew: true },
            Some(false) => return Decision::Apply,
            None => {}
        }
        if event_timestamp > current.record.event_timestamp {
            return Decision::Apply;
        }
        if current.record.is_event(value, event_timestamp) {
            return Decision::Repeated { renew: true };
        }
        // A correction or a late event, unless it is the repetition of one: only the history tells.
        let history = match &self.history {
            Some(history) => history.as_slice(),
            None if self.history_limit == 0 => &[],
            None => return Decision::NeedsHistory,
        };
        // What was retracted does not stand in the way of the same event from a run that was mended.
        let mut known = history.iter().filter(|record| !record.is_retracted());
        if known.any(|record| record.is_event(value, event_timestamp)) {
            return Decision::Repeated { renew: false };
        }
        if event_timestamp == current.record.event_timestamp {
            return Decision::Apply;
        }
        // Where the history is full of newer events, this one would be trimmed at once.
        let newer = history.iter().filter(|record| record.event_timestamp > event_timestamp).count();
        Decision::Late { keep: newer < self.history_limit }
    }

    fn renew(&mut self, expires_at: Option<Timestamp>) {
        if let Some(current) = &mut self.current
            && current.expires_at != expires_at
        {
            current.expires_at = expires_at;
            self.touch(Touched::Current);
        }
    }

    fn apply(&mut self, value: Option<Value>, expires_at: Option<Timestamp>, at: Place) {
        let earlier = self.current.take();
        let first_version = earlier.as_ref().map_or(at.version, |earlier| earlier.first_version);
        if let Some(earlier) = earlier {
            self.supersede(earlier.record);
        }
        self.current = Some(Current { record: at.record(value), expires_at, first_version });
        self.touch(Touched::Current);
    }

    fn keep_late(&mut self, value: Option<Value>, at: Place) {
        self.supersede(at.record(value));
        self.touch(Touched::HistoryOnly);
    }

    fn supersede(&mut self, record: Record) {
        if let Some(history) = &mut self.history {
            insert_trimmed(history, record.clone(), self.history_limit);
        }
        insert_trimmed(&mut self.superseded, record, self.history_limit);
    }

    fn touch(&mut self, by: Touched) {
        debug_assert_ne!(self.touched, Touched::Erased, "an erasure is the last act of a draft");
        if self.touched != Touched::Current {
            self.touched = by;
        }
    }

    fn into_change(mut self, feature: FeatureName, now: Timestamp, history_ttl: Span) -> FeatureChange {
        let expires_at = match &self.current {
            Some(current) => current.expires_at,
            None => Some(now),
        };
        if self.remarked {
            self.superseded = self.history.take().unwrap_or_default();
        }
        let current = match (self.touched, self.current) {
            (Touched::Current, Some(current)) => CurrentChange::Set(current),
            (Touched::Erased, _) => CurrentChange::Erase,
            _ => CurrentChange::Keep,
        };
        FeatureChange {
            feature,
            current,
            superseded: self.superseded,
            rewrites_history: self.remarked,
            history_limit: self.history_limit,
            retain_until: expires_at.map(|at| at.max(now) + history_ttl),
        }
    }
}

/// Where a value stands among the others of its feature.
#[derive(Clone, Copy)]
struct Place {
    event_timestamp: Timestamp,
    version: Version,
    stamp: Stamp,
}

impl Place {
    fn record(self, value: Option<Value>) -> Record {
        Record {
            value,
            event_timestamp: self.event_timestamp,
            written_at: self.stamp.now,
            version: self.version,
            provenance: self.stamp.provenance,
            retraction: None,
        }
    }
}

/// Keeps `records` newest event first and at most `limit` long.
fn insert_trimmed(records: &mut Vec<Record>, record: Record, limit: usize) {
    let at = records.partition_point(|other| other.order() > record.order());
    records.insert(at, record);
    records.truncate(limit);
}
