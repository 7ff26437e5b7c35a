//! What must hold for any sequence of writes in any order of arrival, against a naive model that
//! remembers everything.

mod undo;

use proptest::prelude::*;

use super::compiled::{CompiledEntityType, Defaults};
use super::draft::{Draft, FeatureEvent, Intent, NeedsHistory, Outcome, Stamp};
use super::name::{EntityId, EntityKey, EntityType, FeatureName};
use super::provenance::ProvenanceId;
use super::record::{CurrentChange, EntityRecords, FeatureRecords, Head, Version};
use super::schema::{EntityTypeSchema, FeatureSchema, RegisteredEntityType};
use super::time::{Span, Timestamp, Ttl};
use super::value::{TypeName, Value};
use super::view::{self, Retracted, Status};

const FEATURES: [&str; 3] = ["a", "b", "c"];
const START: i64 = 1_750_000_000_000;

/// One feature of a generated write: which feature, event time, value (`None` stands for null).
type Event = (usize, i64, Option<i64>);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START + seconds * 1000).unwrap()
}

fn names() -> Vec<FeatureName> {
    FEATURES.iter().map(|name| FeatureName::parse(name).unwrap()).collect()
}

fn schema() -> CompiledEntityType {
    let features = names().into_iter().map(|name| (name, FeatureSchema::of_type(TypeName::Int64, None)));
    let registered = RegisteredEntityType {
        entity_type: EntityType::parse("thing").unwrap(),
        schema_version: 1,
        created_at: at(0),
        updated_at: at(0),
        schema: EntityTypeSchema { features: features.collect(), ..Default::default() },
    };
    let defaults =
        Defaults { ttl: Ttl::Never, embedding_ttl: Ttl::Never, versioning: true, max_versions: 10 };
    CompiledEntityType::compile(registered, &defaults, None).unwrap()
}

/// An entity in memory, which carries out commits as a store does.
struct Entity {
    head: Option<Head>,
    features: Vec<FeatureRecords>,
    clock: i64,
    history_limit: usize,
}

impl Entity {
    fn new(history_limit: usize) -> Self {
        let empty = FeatureRecords { current: None, history: Some(Vec::new()) };
        Self { head: None, features: vec![empty; FEATURES.len()], clock: 1000, history_limit }
    }

    fn version(&self) -> Version {
        self.head.map_or(0, |head| head.version)
    }

    /// As a store without having been asked for the history, unless `history`.
    fn load(&self, history: bool) -> EntityRecords {
        let mut features = self.features.clone();
        if !history {
            features.iter_mut().for_each(|records| records.history = None);
        }
        EntityRecords { head: self.head, features }
    }

    fn write(&mut self, events: &[FeatureEvent]) -> Vec<Outcome> {
        self.write_as(events, ProvenanceId(1))
    }

    fn write_as(&mut self, events: &[FeatureEvent], provenance: ProvenanceId) -> Vec<Outcome> {
        self.clock += 1;
        let stamp = Stamp { now: at(self.clock), provenance };
        let entity = Self::key();
        let mut draft = Draft::new(entity.clone(), &names(), self.load(false), stamp.now);
        let mut outcomes = draft.write(events, &stamp);
        if let Err(NeedsHistory(_)) = outcomes {
            draft = Draft::new(entity, &names(), self.load(true), stamp.now);
            outcomes = draft.write(events, &stamp);
        }
        self.carry_out(draft);
        outcomes.unwrap()
    }

    fn key() -> EntityKey {
        EntityKey::new(EntityType::parse("thing").unwrap(), EntityId::parse("1").unwrap())
    }

    /// Says whether there was anything to do.
    fn carry_out(&mut self, draft: Draft) -> bool {
        let Some(commit) = draft.into_commit(Span::from_secs(1)) else { return false };
        assert_eq!(commit.expected, self.head);
        self.head = Some(commit.head);
        for change in commit.changes {
            let index = FEATURES.iter().position(|name| *name == change.feature.as_str()).unwrap();
            let records = &mut self.features[index];
            match change.current {
                CurrentChange::Set(current) => records.current = Some(current),
                CurrentChange::Keep => {}
                CurrentChange::Erase => {
                    *records = FeatureRecords { current: None, history: Some(Vec::new()) }
                }
            }
            let history = records.history.as_mut().unwrap();
            if change.rewrites_history {
                history.clear();
            }
            history.extend(change.superseded);
            history.sort_by_key(|record| std::cmp::Reverse(record.order()));
            history.truncate(change.history_limit);
        }
        true
    }

    fn events(&self, write: &[Event]) -> Vec<FeatureEvent> {
        let mut events: Vec<FeatureEvent> = Vec::new();
        for (feature, seconds, value) in write {
            let feature = FeatureName::parse(FEATURES[*feature]).unwrap();
            if events.iter().all(|event| event.feature != feature) {
                events.push(FeatureEvent {
                    feature,
                    value: Some(value.map_or(Value::Null, Value::Int64)),
                    event_timestamp: Some(at(*seconds)),
                    ttl: Ttl::Never,
                    history_limit: self.history_limit,
                    intent: Intent::Event,
                });
            }
        }
        events
    }

    fn served(&self) -> Vec<Value> {
        let schema = schema();
        let served = schema.features.values().zip(&self.features).map(|(feature, records)| {
            view::at_present(feature, records.current.clone(), at(self.clock), None).value
        });
        served.collect()
    }
}

/// Every distinct event of a feature in the order of its arrival.
#[derive(Default, Clone)]
struct Model {
    events: [Vec<(Timestamp, Value, Version)>; FEATURES.len()],
}

impl Model {
    fn accept(&mut self, events: &[FeatureEvent], version: Version) {
        for event in events {
            let known = &mut self.events[FEATURES.iter().position(|f| *f == event.feature.as_str()).unwrap()];
            let value = event.value.clone().unwrap();
            if !known.iter().any(|(time, other, _)| Some(*time) == event.event_timestamp && *other == value) {
                known.push((event.event_timestamp.unwrap(), value, version));
            }
        }
    }

    /// The newest event at or before `at` that was known at `version`; of equal times the last.
    fn as_of(&self, feature: usize, at: Timestamp, version: Version) -> Option<&Value> {
        let known = self.events[feature].iter().filter(|(time, _, v)| *time <= at && *v <= version);
        known.max_by_key(|(time, _, _)| *time).map(|(_, value, _)| value)
    }
}

fn writes() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let event = (0..FEATURES.len(), 0i64..12, proptest::option::weighted(0.9, 0i64..4));
    proptest::collection::vec(proptest::collection::vec(event, 1..4), 1..24)
}

/// Writes everything with an unbounded history and remembers it in the model.
fn play(writes: &[Vec<Event>]) -> (Entity, Model) {
    let mut entity = Entity::new(usize::MAX);
    let mut model = Model::default();
    for write in writes {
        let events = entity.events(write);
        entity.write(&events);
        model.accept(&events, entity.version());
    }
    (entity, model)
}

fn value_of(answer: view::Answer) -> Option<Value> {
    (answer.status != Status::NotFound).then_some(answer.value)
}

proptest! {
    #[test]
    fn the_greatest_event_time_is_served_and_of_ties_the_last_written(writes in writes()) {
        let (entity, model) = play(&writes);
        for (feature, records) in entity.features.iter().enumerate() {
            let served = records.current.as_ref().and_then(|current| current.record.value.as_ref());
            prop_assert_eq!(served, model.as_of(feature, at(999), Version::MAX));
        }
    }

    #[test]
    fn every_accepted_write_takes_the_next_version_and_a_replay_takes_none(writes in writes()) {
        let mut entity = Entity::new(usize::MAX);
        for write in &writes {
            let before = entity.version();
            let outcomes = entity.write(&entity.events(write));
            let stored = outcomes.iter().any(|outcome| *outcome != Outcome::Unchanged);
            prop_assert_eq!(entity.version(), before + u64::from(stored));
        }
        let (version, served) = (entity.version(), entity.served());
        for write in &writes {
            let outcomes = entity.write(&entity.events(write));
            prop_assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Unchanged));
        }
        prop_assert_eq!(entity.version(), version);
        prop_assert_eq!(entity.served(), served);
    }

    #[test]
    fn history_and_current_are_everything_accepted(writes in writes()) {
        let (entity, model) = play(&writes);
        for (records, expected) in entity.features.iter().zip(&model.events) {
            let mut kept: Vec<_> = records
                .newest_first()
                .map(|record| (record.event_timestamp, record.version, record.value.clone().unwrap()))
                .collect();
            let mut expected: Vec<_> =
                expected.iter().map(|(time, value, version)| (*time, *version, value.clone())).collect();
            kept.sort_by_key(|(time, version, _)| (*time, *version));
            expected.sort_by_key(|(time, version, _)| (*time, *version));
            prop_assert_eq!(kept, expected);
        }
    }

    #[test]
    fn trimming_keeps_the_newest_events(writes in writes(), limit in 0usize..4) {
        // One value per event time: whether a correction was trimmed is not in question here.
        let mut entity = Entity::new(limit);
        let mut model = Model::default();
        for write in &writes {
            let unambiguous: Vec<Event> = write.iter().map(|(f, time, _)| (*f, *time, Some(*time))).collect();
            let events = entity.events(&unambiguous);
            entity.write(&events);
            model.accept(&events, entity.version());
        }
        for (records, expected) in entity.features.iter().zip(&model.events) {
            let kept: Vec<Timestamp> = records.newest_first().map(|record| record.event_timestamp).collect();
            let mut expected: Vec<Timestamp> = expected.iter().map(|(time, _, _)| *time).collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            expected.truncate(limit + 1);
            prop_assert_eq!(kept, expected);
        }
    }

    #[test]
    fn the_past_is_what_a_naive_model_says(writes in writes(), seconds in -1i64..14) {
        let (entity, model) = play(&writes);
        for (index, feature) in schema().features.values().enumerate() {
            let answer = view::as_of(feature, &entity.features[index], at(seconds), None, Retracted::Hidden);
            prop_assert_eq!(value_of(answer), model.as_of(index, at(seconds), Version::MAX).cloned());
        }
    }

    #[test]
    fn a_version_reads_as_it_stood(writes in writes()) {
        let (entity, model) = play(&writes);
        for version in 1..=entity.version() {
            for (index, feature) in schema().features.values().enumerate() {
                let answer = view::at_version(feature, &entity.features[index], version).unwrap();
                prop_assert_eq!(value_of(answer), model.as_of(index, at(999), version).cloned());
            }
        }
    }

    #[test]
    fn a_trimmed_version_is_never_answered_wrongly(writes in writes(), limit in 0usize..3) {
        let mut trimmed = Entity::new(limit);
        let mut whole = Entity::new(usize::MAX);
        for write in &writes {
            let unambiguous: Vec<Event> = write.iter().map(|(f, time, _)| (*f, *time, Some(*time))).collect();
            let events = trimmed.events(&unambiguous);
            let newest = events.iter().all(|event| {
                let index = FEATURES.iter().position(|f| *f == event.feature.as_str()).unwrap();
                let current = &whole.features[index].current;
                current.as_ref().is_none_or(|c| Some(c.record.event_timestamp) < event.event_timestamp)
            });
            // Late events may be dropped by the trimmed one alone, and versions then part ways.
            if newest {
                trimmed.write(&events);
                let events = whole.events(&unambiguous);
                whole.write(&events);
            }
        }
        for version in 1..=whole.version() {
            for (index, feature) in schema().features.values().enumerate() {
                let truth = view::at_version(feature, &whole.features[index], version).unwrap();
                if let Ok(answer) = view::at_version(feature, &trimmed.features[index], version) {
                    prop_assert_eq!(answer.value, truth.value);
                }
            }
        }
    }

    #[test]
    fn a_rollback_reads_as_the_version_it_went_back_to(writes in writes(), target in any::<prop::sample::Index>()) {
        let (mut entity, _) = play(&writes);
        let target = 1 + target.index(entity.version() as usize) as Version;
        let then: Vec<_> = entity
            .features
            .iter()
            .map(|records| view::record_at_version(records, target).unwrap().and_then(|r| r.value.clone()))
            .collect();
        let before = entity.version();
        let events: Vec<FeatureEvent> = names()
            .into_iter()
            .zip(&then)
            .map(|(feature, value)| FeatureEvent {
                feature,
                value: value.clone(),
                event_timestamp: None,
                ttl: Ttl::Never,
                history_limit: usize::MAX,
                intent: Intent::Act,
            })
            .collect();
        let outcomes = entity.write(&events);
        let changed = outcomes.contains(&Outcome::Applied);
        prop_assert_eq!(entity.version(), before + u64::from(changed));
        for (records, then) in entity.features.iter().zip(then) {
            prop_assert_eq!(records.current.as_ref().and_then(|current| current.record.value.clone()), then);
        }
        // It is itself a version, and can be rolled back.
        for (index, feature) in schema().features.values().enumerate() {
            prop_assert!(view::at_version(feature, &entity.features[index], before).is_ok());
        }
    }
}

#[test]
fn a_repeated_event_renews_its_expiry_only_while_it_is_served() {
    let ttl = |seconds| Ttl::After(Span::from_secs(seconds));
    let mut entity = Entity::new(10);
    let expires_at = |entity: &Entity| entity.features[0].current.as_ref().unwrap().expires_at;
    let mut events = entity.events(&[(0, 1, Some(1))]);
    events[0].ttl = ttl(20);
    entity.write(&events);
    events[0].ttl = ttl(30);
    assert_eq!(entity.write(&events), [Outcome::Unchanged]);
    assert_eq!(expires_at(&entity), Some(at(entity.clock) + Span::from_secs(30)));
    let mut newer = entity.events(&[(0, 2, Some(2))]);
    newer[0].ttl = ttl(40);
    entity.write(&newer);
    let served_until = expires_at(&entity);
    assert_eq!(served_until, Some(at(entity.clock) + Span::from_secs(40)));
    events[0].ttl = ttl(90);
    assert_eq!(entity.write(&events), [Outcome::Unchanged]);
    assert_eq!(expires_at(&entity), served_until);
}

#[test]
fn a_deleted_feature_keeps_its_history() {
    let mut entity = Entity::new(10);
    entity.write(&entity.events(&[(0, 1, Some(1))]));
    let mut delete = entity.events(&[(0, 0, None)]);
    delete[0].value = None;
    delete[0].event_timestamp = None;
    delete[0].intent = Intent::Act;
    assert_eq!(entity.write(&delete), [Outcome::Applied]);
    assert_eq!(entity.version(), 2);
    let schema = schema();
    let feature = &schema.features[0];
    let records = &entity.features[0];
    assert_eq!(view::at_present(feature, records.current.clone(), at(5000), None).status, Status::NotFound);
    assert_eq!(view::as_of(feature, records, at(5), None, Retracted::Hidden).value, Value::Int64(1));
    // Deleting it again, or what was never there, changes nothing.
    assert_eq!(entity.write(&delete), [Outcome::Unchanged]);
    delete[0].feature = FeatureName::parse("b").unwrap();
    assert_eq!(entity.write(&delete), [Outcome::Unchanged]);
    assert_eq!(entity.version(), 2);
}

#[test]
fn writes_without_a_time_follow_one_another_even_within_a_millisecond() {
    let mut entity = Entity::new(10);
    for value in [1, 2, 1, 1] {
        entity.clock = 2000;
        let mut events = entity.events(&[(0, 0, Some(value))]);
        events[0].event_timestamp = None;
        assert_eq!(entity.write(&events), [Outcome::Applied]);
        assert_eq!(entity.served()[0], Value::Int64(value));
    }
    assert_eq!(entity.version(), 4);
}
