//! What this process wrote last, so that the next write of an entity need not load it first.
//!
//! Another process may have written the entity since, so nobody is answered from here: a write that was
//! decided on it counts only if the commit finds that the entity's head is still the one remembered, and
//! is decided anew on what is loaded otherwise. Heads tell an entity from one that was deleted and
//! written anew, but not from one whose server lost its last writes and was given as many others: so
//! everything is forgotten when a connection breaks.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::record::{Commit, Current, CurrentChange, EntityRecords, FeatureRecords, Head};
use crate::domain::value::Value;
use crate::store::Load;

/// About so much memory is used at most.
const BYTES: u64 = 16 << 20;
/// An entity of more than this is not remembered.
const LARGE: usize = 16 << 10;

pub(super) struct Recall(Cache<EntityKey, Arc<Written>, ByBytes, foldhash::fast::RandomState>);

struct Written {
    generation: u64,
    head: Head,
    features: Vec<Remembered>,
}

type Remembered = (FeatureName, Option<Current>);

#[derive(Clone)]
struct ByBytes;

impl Weighter<EntityKey, Arc<Written>> for ByBytes {
    fn weight(&self, entity: &EntityKey, written: &Arc<Written>) -> u64 {
        (entity.entity_id.as_str().len() + 128 + written.bytes()) as u64
    }
}

impl Written {
    fn bytes(&self) -> usize {
        let heap = |current: &Current| match &current.record.value {
            Some(Value::String(text) | Value::Json(text)) => text.len(),
            Some(Value::Embedding(numbers)) => numbers.len() * 4,
            _ => 0,
        };
        let values: usize =
            self.features.iter().filter_map(|(_, current)| Some(heap(current.as_ref()?))).sum();
        size_of_val(self.features.as_slice()) + values
    }
}

/// Where a feature is, most often at `guess`.
fn position(features: &[Remembered], feature: &FeatureName, guess: usize) -> Option<usize> {
    match features.get(guess) {
        Some((name, _)) if name == feature => Some(guess),
        _ => features.iter().position(|(name, _)| name == feature),
    }
}

impl Default for Recall {
    fn default() -> Self {
        Self(Cache::with(4096, BYTES, ByBytes, foldhash::fast::RandomState::default(), Default::default()))
    }
}

impl Recall {
    /// What was written last of these features, unless one of them is not among it.
    pub fn recall(&self, generation: u64, load: &Load<'_>) -> Option<EntityRecords> {
        if load.history {
            return None;
        }
        let written = self.0.get(load.entity).filter(|written| written.generation == generation)?;
        let mut features = Vec::with_capacity(load.features.len());
        for (guess, (name, _)) in load.features.iter().enumerate() {
            let place = position(&written.features, name, guess)?;
            features.push(FeatureRecords { current: written.features[place].1.clone(), history: None });
        }
        Some(EntityRecords { head: Some(written.head), features })
    }

    /// A commit that was carried out; `generation` is that of before.
    pub fn committed(&self, generation: u64, commit: &Commit) {
        let before = commit.expected.and_then(|expected| {
            let written = self.0.get(&commit.entity)?;
            (written.generation == generation && written.head == expected).then_some(written)
        });
        let mut features = Vec::with_capacity(commit.changes.len());
        for change in &commit.changes {
            let current = match &change.current {
                CurrentChange::Keep => continue,
                CurrentChange::Set(current) => Some(current.clone()),
                CurrentChange::Erase => None,
            };
            features.push((change.feature.clone(), current));
        }
        let changed = features.len();
        let known = before.iter().flat_map(|before| before.features.iter().enumerate());
        for (guess, (feature, current)) in known {
            if position(&features[..changed], feature, guess).is_none() {
                features.push((feature.clone(), current.clone()));
            }
        }
        let written = Written { generation, head: commit.head, features };
        if written.bytes() <= LARGE {
            self.0.insert(commit.entity.clone(), Arc::new(written));
        } else {
            self.forget(&commit.entity);
        }
    }

    /// A commit that found another head. What is remembered may be newer: this process may have been the
    /// one who was faster.
    pub fn overtaken(&self, commit: &Commit) {
        if self.0.peek(&commit.entity).is_some_and(|written| Some(written.head) == commit.expected) {
            self.forget(&commit.entity);
        }
    }

    pub fn forget(&self, entity: &EntityKey) {
        self.0.remove(entity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::{EntityId, EntityType};
    use crate::domain::provenance::ProvenanceId;
    use crate::domain::record::{FeatureChange, Record};
    use crate::domain::time::Timestamp;
    use crate::domain::value::FeatureType;

    fn entity() -> EntityKey {
        EntityKey::new(EntityType::parse("product").unwrap(), EntityId::parse("1").unwrap())
    }

    fn name(name: &str) -> FeatureName {
        FeatureName::parse(name).unwrap()
    }

    fn current(value: i64, version: u64) -> Current {
        let at = Timestamp::from_millis(1000 + version as i64).unwrap();
        let record = Record {
            value: Some(Value::Int64(value)),
            event_timestamp: at,
            written_at: at,
            version,
            provenance: ProvenanceId(1),
            retraction: None,
        };
        Current { record, expires_at: None, first_version: 1 }
    }

    fn head(version: u64) -> Head {
        Head { version, created_at: Timestamp::from_millis(1000).unwrap() }
    }

    fn commit(version: u64, changes: Vec<(&str, CurrentChange)>) -> Commit {
        let change = |(feature, current)| FeatureChange {
            feature: name(feature),
            current,
            superseded: Vec::new(),
            rewrites_history: false,
            history_limit: 1,
            retain_until: None,
        };
        Commit {
            entity: entity(),
            expected: (version > 1).then(|| head(version - 1)),
            head: head(version),
            changes: changes.into_iter().map(change).collect(),
            retain_until: None,
        }
    }

    fn recalled(recall: &Recall, generation: u64, features: &[&str]) -> Option<(u64, Vec<Option<Current>>)> {
        let features: Vec<_> = features.iter().map(|feature| (name(feature), FeatureType::Int64)).collect();
        let records =
            recall.recall(generation, &Load { entity: &entity(), features: &features, history: false })?;
        Some((records.head?.version, records.features.into_iter().map(|records| records.current).collect()))
    }

    #[test]
    fn commits_add_up_as_long_as_none_is_missed() {
        let recall = Recall::default();
        assert_eq!(recalled(&recall, 0, &["a"]), None);
        let set = |value, version| CurrentChange::Set(current(value, version));
        recall.committed(0, &commit(1, vec![("a", set(1, 1)), ("b", set(2, 1))]));
        recall.committed(0, &commit(2, vec![("b", set(3, 2)), ("a", CurrentChange::Keep)]));
        assert_eq!(
            recalled(&recall, 0, &["b", "a"]),
            Some((2, vec![Some(current(3, 2)), Some(current(1, 1))]))
        );
        assert_eq!(recalled(&recall, 0, &["a", "c"]), None, "of c nothing is known");
        recall.committed(0, &commit(3, vec![("a", CurrentChange::Erase)]));
        assert_eq!(recalled(&recall, 0, &["a", "b"]), Some((3, vec![None, Some(current(3, 2))])));
        // Somebody else made version 4.
        recall.committed(0, &commit(5, vec![("b", set(5, 5))]));
        assert_eq!(recalled(&recall, 0, &["b"]), Some((5, vec![Some(current(5, 5))])));
        assert_eq!(recalled(&recall, 0, &["a"]), None);
        recall.forget(&entity());
        assert_eq!(recalled(&recall, 0, &["b"]), None);
    }

    #[test]
    fn another_connection_remembers_nothing() {
        let recall = Recall::default();
        recall.committed(3, &commit(1, vec![("a", CurrentChange::Set(current(1, 1)))]));
        assert!(recalled(&recall, 3, &["a"]).is_some());
        assert_eq!(recalled(&recall, 4, &["a"]), None);
        recall.committed(4, &commit(2, vec![("b", CurrentChange::Set(current(2, 2)))]));
        assert_eq!(recalled(&recall, 4, &["a", "b"]), None);
        assert!(recalled(&recall, 4, &["b"]).is_some());
    }

    #[test]
    fn history_and_large_entities_are_not_remembered() {
        let recall = Recall::default();
        let mut large = current(1, 1);
        large.record.value = Some(Value::String("x".repeat(LARGE).into()));
        recall.committed(0, &commit(1, vec![("a", CurrentChange::Set(large))]));
        assert_eq!(recalled(&recall, 0, &["a"]), None);
        recall.committed(0, &commit(1, vec![("a", CurrentChange::Set(current(1, 1)))]));
        let features = [(name("a"), FeatureType::Int64)];
        let load = Load { entity: &entity(), features: &features, history: true };
        assert_eq!(recall.recall(0, &load), None);
    }
}
