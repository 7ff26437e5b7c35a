//! What is stored of a feature: its current value, and the values that it superseded.

use super::name::{EntityKey, FeatureName};
use super::provenance::ProvenanceId;
use super::time::Timestamp;
use super::value::Value;

/// A number per entity: every accepted write takes the next one, from 1.
pub type Version = u64;

/// One accepted value of one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `None`: the feature was deleted at that event.
    pub value: Option<Value>,
    /// When the value was true in the world.
    pub event_timestamp: Timestamp,
    /// When the store accepted it, in whole milliseconds.
    pub written_at: Timestamp,
    pub version: Version,
    pub provenance: ProvenanceId,
    /// Only of superseded records: that its run was undone, the last time it was.
    pub retraction: Option<Box<Retraction>>,
}

/// The mark of a record whose run was undone: the past is told without it. Of a record that was
/// retracted, reinstated and retracted again only the last is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retraction {
    pub undone: UndoAct,
    /// Since when it stands again, where the undo was itself undone.
    pub reinstated: Option<UndoAct>,
}

/// Which undo did something to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoAct {
    /// The entity's version that it made.
    pub version: Version,
    /// When that was, in whole milliseconds.
    pub at: Timestamp,
    /// Who undid, and why.
    pub provenance: ProvenanceId,
}

impl Record {
    /// Event time decides which of two records is served; of equal ones the later written.
    pub fn order(&self) -> (Timestamp, Version) {
        (self.event_timestamp, self.version)
    }

    /// Whether `value` at `event_timestamp` is the very event that this record keeps.
    pub fn is_event(&self, value: Option<&Value>, event_timestamp: Timestamp) -> bool {
        self.event_timestamp == event_timestamp && self.holds(value)
    }

    /// Whether it is retracted, and was not reinstated.
    pub fn is_retracted(&self) -> bool {
        self.retraction.as_ref().is_some_and(|retraction| retraction.reinstated.is_none())
    }

    /// Whether the entity knew of it at `version`, and held it for true.
    pub fn stands_at(&self, version: Version) -> bool {
        let retracted = self.retraction.as_ref().is_some_and(|retraction| {
            retraction.undone.version <= version
                && retraction.reinstated.is_none_or(|again| version < again.version)
        });
        self.version <= version && !retracted
    }

    pub fn holds(&self, value: Option<&Value>) -> bool {
        match (&self.value, value) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same_as(b),
            _ => false,
        }
    }
}

/// The record that is served now.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    pub record: Record,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// The version in which the feature was first written. A version between this one and the
    /// oldest that is kept was trimmed, rather than never there.
    pub first_version: Version,
}

/// What an entity as a whole is at: the token of every compare-and-commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub version: Version,
    /// When the entity was first written, in whole milliseconds. Tells an entity apart from one of
    /// the same name that was deleted and written anew, up to the same version.
    pub created_at: Timestamp,
}

/// The features of one entity that were asked of a store, as it has them.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityRecords {
    /// `None`: the store has nothing of this entity.
    pub head: Option<Head>,
    /// As many as were asked for, in that order.
    pub features: Vec<FeatureRecords>,
}

/// One feature of one entity, as the store has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureRecords {
    pub current: Option<Current>,
    /// The superseded records, newest event first; `None` where they were not asked for.
    pub history: Option<Vec<Record>>,
}

impl FeatureRecords {
    /// Every record that is here, the current one first and the rest newest event first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Record> {
        let current = self.current.iter().map(|current| &current.record);
        current.chain(self.history.iter().flatten())
    }
}

/// What one write does to one entity, for a store to carry out as a whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub entity: EntityKey,
    /// What the entity must still be at; `None`: it must not exist.
    pub expected: Option<Head>,
    pub head: Head,
    pub changes: Vec<FeatureChange>,
    /// Until when the entity is kept; `None`: for ever. A store never shortens what it has.
    pub retain_until: Option<Timestamp>,
}

/// What one write does to one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureChange {
    pub feature: FeatureName,
    pub current: CurrentChange,
    /// Records that go into the history.
    pub superseded: Vec<Record>,
    /// Whether these are the whole history, in place of what is there.
    pub rewrites_history: bool,
    /// So many superseded records are kept: those with the newest events.
    pub history_limit: usize,
    /// Until when the feature's history is kept; `None`: for ever.
    pub retain_until: Option<Timestamp>,
}

/// What becomes of the served value.
#[derive(Clone, Debug, PartialEq)]
pub enum CurrentChange {
    Keep,
    Set(Current),
    /// Take the feature out, its history too.
    Erase,
}
