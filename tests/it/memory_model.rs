//! A model of a store, as small as the promise: a random walk of writes must leave a store and the
//! model with the same records.

use std::collections::BTreeMap;

use feature_store::domain::draft::{Draft, FeatureEvent, Intent, NeedsHistory, Stamp};
use feature_store::domain::name::{EntityKey, FeatureName};
use feature_store::domain::provenance::ProvenanceId;
use feature_store::domain::record::{
    Commit, CurrentChange, EntityRecords, FeatureChange, FeatureRecords, Head, Retraction, UndoAct,
};
use feature_store::domain::time::{Span, Timestamp, Ttl};
use feature_store::domain::value::{FeatureType, Value};
use feature_store::store::CommitOutcome;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::store_contract::{Shared, entity, feature, fresh_type, later, load, now};

const WALKS: usize = 16;
const STEPS: usize = 30;
const FEATURES: [(&str, FeatureType); 4] = [
    ("n", FeatureType::Int64),
    ("text", FeatureType::String),
    ("v", FeatureType::Embedding { dimension: 80 }),
    ("m", FeatureType::Float64),
];

/// One entity, as the trait's docs have it.
#[derive(Default)]
struct Model {
    head: Option<Head>,
    features: BTreeMap<FeatureName, FeatureRecords>,
}

impl Model {
    fn commit(&mut self, commit: &Commit) -> CommitOutcome {
        if self.head != commit.expected {
            return CommitOutcome::Conflict;
        }
        self.head = Some(commit.head);
        for change in &commit.changes {
            let records = self.features.entry(change.feature.clone()).or_default();
            let history = records.history.get_or_insert_default();
            if change.rewrites_history {
                history.clear();
            }
            history.extend(change.superseded.iter().cloned());
            history.sort_by_key(|record| std::cmp::Reverse(record.order()));
            history.truncate(change.history_limit);
            match &change.current {
                CurrentChange::Keep => {}
                CurrentChange::Set(current) => records.current = Some(current.clone()),
                CurrentChange::Erase => *records = FeatureRecords::default(),
            }
        }
        CommitOutcome::Committed
    }

    fn load(&self, history: bool) -> EntityRecords {
        let features = FEATURES.iter().map(|(name, _)| {
            let mut records = self.features.get(&feature(name)).cloned().unwrap_or_default();
            records.history = history.then(|| records.history.unwrap_or_default());
            records
        });
        EntityRecords { head: self.head, features: features.collect() }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Which feature, which value (0 deletes), how long ago in seconds.
    Write {
        events: Vec<(usize, u8, i64)>,
        history_limit: usize,
        intent: Intent,
    },
    /// Everything that happens now to these features, as most pipelines write.
    Together {
        events: Vec<(usize, u8)>,
        history_limit: usize,
    },
    Erase(usize),
    /// Mark every other superseded record of a feature.
    Mark {
        of: usize,
        history_limit: usize,
    },
    Delete,
    /// Commit what was committed before once more.
    Repeat,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let events = proptest::collection::btree_map(0..FEATURES.len(), (0u8..6, 0i64..8), 1..5)
        .prop_map(|events| events.into_iter().map(|(at, (value, ago))| (at, value, ago)).collect());
    let limit = prop_oneof![5 => Just(3usize), 1 => 0usize..6];
    let intent = prop_oneof![6 => Just(Intent::Event), 1 => Just(Intent::Act)];
    let write = (events, limit, intent).prop_map(|(events, history_limit, intent)| Step::Write {
        events,
        history_limit,
        intent,
    });
    let which = prop_oneof![3 => Just(vec![0, 3]), 1 => Just(vec![0, 1, 2, 3])];
    let together = (which, 2u8..6, prop_oneof![4 => Just(3usize), 1 => 1usize..4]);
    let together = together.prop_map(|(which, value, history_limit)| Step::Together {
        events: which.into_iter().map(|of| (of, value)).collect(),
        history_limit,
    });
    let step = prop_oneof![
        12 => write,
        20 => together,
        1 => (0..FEATURES.len()).prop_map(Step::Erase),
        2 => (0..FEATURES.len(), 0usize..6).prop_map(|(of, history_limit)| Step::Mark { of, history_limit }),
        1 => Just(Step::Delete),
        2 => Just(Step::Repeat),
    ];
    proptest::collection::vec(step, STEPS)
}

fn value(of: usize, number: u8) -> Option<Value> {
    let size = usize::from(number);
    Some(match (of, number) {
        (_, 0) => return None,
        (_, 1) => Value::Null,
        (0, _) => Value::Int64(number.into()),
        // Below and above what stores take for small.
        (1, _) => Value::String("x".repeat(size * size * 20).into()),
        (3, _) => Value::Float64(f64::from(number) / 8.0),
        _ => Value::Embedding(vec![f32::from(number); 80].into()),
    })
}

pub async fn follow(store: Shared) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..WALKS {
        let walk = steps().new_tree(&mut runner).expect("steps can be made").current();
        follow_walk(&store, &walk).await;
    }
}

async fn follow_walk(store: &Shared, walk: &[Step]) {
    let key = entity(&fresh_type(), "walker");
    let mut model = Model::default();
    let mut last = None;
    let start = now();
    for (step, at) in walk.iter().zip(1..) {
        // Time moves on with every step, as nobody waits here.
        let now = later(start, at * 10);
        let commit = match step {
            Step::Delete => {
                let was_there = model.head.is_some();
                model = Model::default();
                let deleted = store.delete_entities(std::slice::from_ref(&key)).await;
                assert_eq!(deleted, Ok(vec![was_there]));
                None
            }
            Step::Repeat => last.clone(),
            Step::Erase(at) => {
                let mut draft = draft(store, &model, &key, now, true).await;
                draft.erase(&[feature(FEATURES[*at].0)]);
                draft.into_commit(Span::from_secs(3600))
            }
            Step::Together { events, history_limit } => {
                let events = events.iter().map(|(of, number)| FeatureEvent {
                    feature: feature(FEATURES[*of].0),
                    value: value(*of, *number),
                    event_timestamp: None,
                    ttl: Ttl::After(Span::from_secs(3600)),
                    history_limit: *history_limit,
                    intent: Intent::Event,
                });
                write(store, &model, &key, now, &events.collect::<Vec<_>>()).await
            }
            Step::Mark { of, history_limit } => {
                model.head.map(|head| mark(&model, &key, head, now, feature(FEATURES[*of].0), *history_limit))
            }
            Step::Write { events, history_limit, intent } => {
                let events = events.iter().map(|(of, number, ago)| FeatureEvent {
                    feature: feature(FEATURES[*of].0),
                    value: value(*of, *number),
                    event_timestamp: (*intent == Intent::Event).then(|| later(start, -ago * 1000)),
                    ttl: if *number > 2 {
                        Ttl::After(Span::from_secs(3600 * u32::from(*number)))
                    } else {
                        Ttl::Never
                    },
                    history_limit: *history_limit,
                    intent: *intent,
                });
                write(store, &model, &key, now, &events.collect::<Vec<_>>()).await
            }
        };
        if let Some(commit) = commit {
            let expected = model.commit(&commit);
            let outcomes = store.commit(std::slice::from_ref(&commit)).await;
            assert_eq!(outcomes, [Ok(expected)], "step {at} of {walk:#?}");
            last = Some(commit);
        }
        for history in [false, true] {
            let loaded = load(store, &key, &FEATURES, history).await;
            assert!(
                loaded == model.load(history),
                "after step {at} of {walk:#?}\nthe store has {loaded:#?}\nnot {:#?}",
                model.load(history)
            );
        }
    }
}

fn mark(
    model: &Model,
    key: &EntityKey,
    head: Head,
    now: Timestamp,
    feature: FeatureName,
    history_limit: usize,
) -> Commit {
    let next = Head { version: head.version + 1, ..head };
    let mut history = model.features.get(&feature).and_then(|of| of.history.clone()).unwrap_or_default();
    for record in history.iter_mut().step_by(2) {
        let undone = UndoAct { version: next.version, at: now, provenance: ProvenanceId(8) };
        record.retraction = Some(Box::new(Retraction { undone, reinstated: None }));
    }
    let change = FeatureChange {
        feature,
        current: CurrentChange::Keep,
        superseded: history,
        rewrites_history: true,
        history_limit,
        retain_until: None,
    };
    Commit {
        entity: key.clone(),
        expected: Some(head),
        head: next,
        changes: vec![change],
        retain_until: None,
    }
}

async fn draft(store: &Shared, model: &Model, key: &EntityKey, now: Timestamp, history: bool) -> Draft {
    let loaded = load(store, key, &FEATURES, history).await;
    assert_eq!(loaded, model.load(history));
    let names = FEATURES.map(|(name, _)| feature(name));
    Draft::new(key.clone(), &names, loaded, now)
}

async fn write(
    store: &Shared,
    model: &Model,
    key: &EntityKey,
    now: Timestamp,
    events: &[FeatureEvent],
) -> Option<Commit> {
    let stamp = Stamp { now, provenance: ProvenanceId(7) };
    let mut drafted = draft(store, model, key, now, false).await;
    if let Err(NeedsHistory(_)) = drafted.write(events, &stamp) {
        drafted = draft(store, model, key, now, true).await;
        drafted.write(events, &stamp).expect("all of the history is known");
    }
    drafted.into_commit(Span::from_secs(7 * 24 * 3600))
}
