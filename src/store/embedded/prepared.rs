//! A commit with its records encoded. Encoding is the caller's work, not the one writer's.

use std::collections::BTreeMap;

use super::entity::LARGE;
use super::history;
use super::key;
use crate::domain::envelope::{encode_current, encode_superseded};
use crate::domain::record::{Commit, CurrentChange, FeatureChange, Head, Version};
use crate::domain::time::Timestamp;

pub struct PreparedCommit {
    pub entity: Vec<u8>,
    pub expected: Option<Head>,
    pub head: Head,
    pub changes: Vec<PreparedChange>,
    /// What is superseded by features that keep a history, but for what is kept alone: keys and rows.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub retain_until: Option<Timestamp>,
}

pub struct PreparedChange {
    pub feature: String,
    /// Its key, where something of it is kept by itself.
    pub key: Vec<u8>,
    pub current: PreparedCurrent,
    /// What is superseded and is kept alone: keys and envelopes.
    pub alone: Vec<(Vec<u8>, Vec<u8>)>,
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
        let mut rows = BTreeMap::new();
        let changes = commit.changes.iter();
        let changes =
            changes.map(|change| PreparedChange::new(&entity, change, created_at, &mut rows)).collect();
        let shared = key::feature(&entity, "");
        let row = |((time, version), row)| (key::superseded(&shared, time, version), row);
        Self {
            expected: commit.expected,
            head: commit.head,
            changes,
            rows: rows.into_iter().map(row).collect(),
            retain_until: commit.retain_until,
            entity,
        }
    }
}

/// By event time and version.
type Rows = BTreeMap<(Timestamp, Version), Vec<u8>>;

impl PreparedChange {
    pub fn keeps_history(&self) -> bool {
        self.history_limit > 0 && !matches!(self.current, PreparedCurrent::Erase)
    }

    fn new(entity: &[u8], change: &FeatureChange, created_at: Timestamp, rows: &mut Rows) -> Self {
        let key = key::feature(entity, change.feature.as_str());
        let current = match &change.current {
            CurrentChange::Keep => PreparedCurrent::Keep,
            CurrentChange::Erase => PreparedCurrent::Erase,
            CurrentChange::Set(current) => match encode_current(current, created_at) {
                envelope if envelope.len() > LARGE => PreparedCurrent::Large(envelope),
                envelope => PreparedCurrent::Small(envelope),
            },
        };
        let keeps_history = change.history_limit > 0 && change.current != CurrentChange::Erase;
        let mut alone = Vec::new();
        for record in change.superseded.iter().filter(|_| keeps_history) {
            let envelope = encode_superseded(record);
            if history::is_short(&envelope) {
                let row = rows.entry(record.order()).or_default();
                history::put_part(row, change.feature.as_str(), &envelope);
            } else {
                let (time, version) = record.order();
                alone.push((key::superseded(&key, time, version), envelope));
            }
        }
        Self {
            feature: change.feature.as_str().to_owned(),
            current,
            alone,
            rewrites_history: change.rewrites_history,
            history_limit: change.history_limit,
            retain_until: change.retain_until,
            key,
        }
    }
}
