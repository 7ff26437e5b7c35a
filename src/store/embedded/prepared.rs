//! A commit with its records encoded. Encoding is the caller's work, not the one writer's.

use super::entity::LARGE;
use super::key;
use crate::domain::envelope::{encode_current, encode_superseded};
use crate::domain::record::{Commit, CurrentChange, FeatureChange, Head};
use crate::domain::time::Timestamp;

pub struct PreparedCommit {
    pub entity: Vec<u8>,
    pub expected: Option<Head>,
    pub head: Head,
    pub changes: Vec<PreparedChange>,
    pub retain_until: Option<Timestamp>,
}

pub struct PreparedChange {
    pub feature: String,
    /// Its key, where something of it is kept by itself.
    pub key: Vec<u8>,
    pub current: PreparedCurrent,
    /// Keys and envelopes.
    pub superseded: Vec<(Vec<u8>, Vec<u8>)>,
    pub rewrites_history: bool,
    pub history_limit: usize,
    pub retain_until: Option<Timestamp>,
}

pub enum PreparedCurrent {
    Keep,
    Small(Vec<u8>),
    Large(Vec<u8>),
    Erase,
}

impl PreparedCommit {
    pub fn new(commit: &Commit) -> Self {
        let entity = key::entity(&commit.entity);
        let created_at = commit.head.created_at;
        let changes = commit.changes.iter().map(|change| PreparedChange::new(&entity, change, created_at));
        Self {
            expected: commit.expected,
            head: commit.head,
            changes: changes.collect(),
            retain_until: commit.retain_until,
            entity,
        }
    }
}

impl PreparedChange {
    fn new(entity: &[u8], change: &FeatureChange, created_at: Timestamp) -> Self {
        let key = key::feature(entity, change.feature.as_str());
        let current = match &change.current {
            CurrentChange::Keep => PreparedCurrent::Keep,
            CurrentChange::Erase => PreparedCurrent::Erase,
            CurrentChange::Set(current) => match encode_current(current, created_at) {
                envelope if envelope.len() > LARGE => PreparedCurrent::Large(envelope),
                envelope => PreparedCurrent::Small(envelope),
            },
        };
        let superseded = change.superseded.iter();
        Self {
            feature: change.feature.as_str().to_owned(),
            current,
            superseded: superseded
                .map(|record| (key::superseded(&key, record), encode_superseded(record)))
                .collect(),
            rewrites_history: change.rewrites_history,
            history_limit: change.history_limit,
            retain_until: change.retain_until,
            key,
        }
    }
}
