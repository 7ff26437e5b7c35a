//! What every store promises, as `Store` says it. Each case takes a store that may hold anything,
//! works on entity types of its own, and relies on nothing but the trait's docs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use feature_store::domain::name::{EntityId, EntityKey, EntityType, FeatureName, FeatureServiceName};
use feature_store::domain::provenance::{Kind, Provenance, ProvenanceId, RollbackNote};
use feature_store::domain::record::{
    Commit, Current, CurrentChange, EntityRecords, FeatureChange, FeatureRecords, Head, Record, Retraction,
    UndoAct,
};
use feature_store::domain::time::{Span, Timestamp};
use feature_store::domain::value::{FeatureType, Value};
use feature_store::store::log::{LogBounds, LogEntry, LogRange};
use feature_store::store::{
    CommitOutcome, Document, DocumentKind, Load, RegistryChange, RegistryState, Store, StoreError,
};
use futures::future::join_all;

pub type Shared = Arc<dyn Store>;

/// Defines tests that run every case of the contract.
///
/// `contract_tests!(fixture)` makes a test of each case; `fixture().await` gives what holds the
/// store, and keeps its server or directory, as `fixture.store()`. `contract_tests!(on server,
/// as test)` runs all of them one after another in one test, on one server that takes a while to
/// start, each under a key prefix of its own.
#[macro_export]
macro_rules! contract_tests {
    (on $server:expr, as $test:ident) => {
        $crate::contract_tests!(@list @on ($server) ($test));
    };
    ($fixture:path) => {
        $crate::contract_tests!(@list @each ($fixture));
    };
    (@list $($how:tt)*) => {
        $crate::contract_tests!($($how)* :
            nothing_loads_as_nothing
            values_of_every_type_survive
            what_is_asked_for_comes_in_that_order
            values_move_between_small_and_large
            a_head_that_does_not_fit_conflicts
            a_conflict_leaves_the_rest_of_its_batch_alone
            a_large_batch_is_stored_whole
            history_is_in_event_order_and_trimmed
            history_is_of_the_features_asked_for
            a_history_limit_of_zero_clears
            a_history_is_rewritten_as_a_whole
            ancient_and_far_event_times_are_exact
            an_erased_feature_is_gone_with_its_history
            a_deleted_entity_starts_anew
            listing_is_complete_and_exact
            listing_knows_types_apart
            an_unreadable_cursor_is_none
            equal_provenance_has_one_id
            provenance_is_interned_by_many_at_once
            the_registry_changes_as_a_whole
            the_registry_refuses_stale_changes
            the_archive_is_in_numeric_order
            a_log_is_in_order_bounded_and_removed_as_a_whole
            no_increment_is_lost
            it_describes_itself_and_answers_pings
            it_does_as_the_model_does
            a_closed_store_is_unavailable
        );
    };
    (@each ($fixture:path) : $($case:ident)*) => {
        mod contract {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = $fixture().await;
                    $crate::store_contract::$case(fixture.store()).await;
                }
            )*
        }
    };
    (@on ($server:expr) ($test:ident) : $($case:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let server = $server;
            $(
                println!("{}", stringify!($case));
                $crate::store_contract::$case($crate::redis_contract::fresh_store(&server.url()).await).await;
            )*
        }
    };
}

// What the cases are made of.

/// Now, in whole milliseconds, as records have it.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    Timestamp::from_millis(since.as_millis() as i64).expect("the clock is before the year 9999")
}

pub fn later(time: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis() + millis).expect("in range")
}

fn hours(count: u32) -> Span {
    Span::from_secs(count * 3600)
}

/// An entity type that no other case and no other run uses.
pub fn fresh_type() -> EntityType {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let run = SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970").as_nanos();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    EntityType::parse(&format!("t{run}_{}_{next}", std::process::id())).expect("an identifier")
}

pub fn entity(entity_type: &EntityType, id: &str) -> EntityKey {
    EntityKey::new(entity_type.clone(), EntityId::parse(id).expect("an id"))
}

fn fresh_entity() -> EntityKey {
    entity(&fresh_type(), "1")
}

pub fn feature(name: &str) -> FeatureName {
    FeatureName::parse(name).expect("a name")
}

pub fn record(value: Option<Value>, event_timestamp: Timestamp, version: u64) -> Record {
    Record {
        value,
        event_timestamp,
        written_at: now(),
        version,
        provenance: ProvenanceId(1),
        retraction: None,
    }
}

pub fn current(value: Option<Value>, event_timestamp: Timestamp, version: u64) -> Current {
    let record = record(value, event_timestamp, version);
    let expires_at = Some(record.written_at + hours(1));
    Current { record, expires_at, first_version: version }
}

fn set(name: &str, current: Current) -> FeatureChange {
    FeatureChange {
        feature: feature(name),
        retain_until: current.expires_at.map(|at| at + hours(24)),
        current: CurrentChange::Set(current),
        superseded: Vec::new(),
        rewrites_history: false,
        history_limit: 9,
    }
}

/// A change of the history alone.
fn superseding(name: &str, superseded: Vec<Record>, history_limit: usize) -> FeatureChange {
    FeatureChange {
        feature: feature(name),
        current: CurrentChange::Keep,
        superseded,
        rewrites_history: false,
        history_limit,
        retain_until: Some(now() + hours(24)),
    }
}

fn commit(entity: &EntityKey, expected: Option<Head>, head: Head, changes: Vec<FeatureChange>) -> Commit {
    Commit { entity: entity.clone(), expected, head, changes, retain_until: Some(now() + hours(25)) }
}

fn head(version: u64) -> Head {
    Head { version, created_at: Timestamp::from_millis(1_767_323_045_678).expect("in range") }
}

pub async fn committed(store: &Shared, commit: Commit) {
    assert_eq!(outcome(store, commit).await, CommitOutcome::Committed);
}

async fn outcome(store: &Shared, commit: Commit) -> CommitOutcome {
    let mut outcomes = store.commit(&[commit]).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).expect("a commit is carried out or conflicts")
}

/// Loads features of one entity. The type says where to look, and is that of the value.
pub async fn load(
    store: &Shared,
    entity: &EntityKey,
    names: &[(&str, FeatureType)],
    history: bool,
) -> EntityRecords {
    let features: Vec<_> = names.iter().map(|(name, of)| (feature(name), *of)).collect();
    let loads = [Load { entity, features: &features, history }];
    let mut records = store.load(&loads).await.expect("loading works");
    assert_eq!(records.len(), 1);
    let records = records.remove(0);
    assert_eq!(records.features.len(), names.len());
    records
}

async fn load_int(store: &Shared, entity: &EntityKey, name: &str) -> (Option<Head>, FeatureRecords) {
    let mut records = load(store, entity, &[(name, FeatureType::Int64)], true).await;
    (records.head, records.features.remove(0))
}

fn embedding(dimension: u32) -> Value {
    Value::Embedding((0..dimension).map(|n| (n as f32).sin()).collect())
}

fn absent(history: bool) -> FeatureRecords {
    FeatureRecords { current: None, history: history.then(Vec::new) }
}

// The cases: entities.

pub async fn nothing_loads_as_nothing(store: Shared) {
    let entity = fresh_entity();
    for history in [false, true] {
        let names = [("a", FeatureType::Int64), ("b", FeatureType::Embedding { dimension: 3 })];
        let records = load(&store, &entity, &names, history).await;
        assert_eq!(records.head, None);
        assert_eq!(records.features, vec![absent(history); 2]);
    }
    assert_eq!(store.load(&[]).await, Ok(Vec::new()));
    assert_eq!(store.commit(&[]).await, Vec::new());
    assert_eq!(store.delete_entities(&[]).await, Ok(Vec::new()));
    assert_eq!(store.provenance(&[]).await, Ok(Vec::new()));
    let loaded = load(&store, &entity, &[], true).await;
    assert_eq!(loaded, EntityRecords { head: None, features: Vec::new() });
}

pub async fn values_of_every_type_survive(store: Shared) {
    let entity = fresh_entity();
    let text = |text: &str| Value::String(text.into());
    let now = now();
    let micros = Timestamp::from_micros(now.as_micros() + 123).expect("in range");
    let values = [
        ("null_int", FeatureType::Int64, Some(Value::Null)),
        ("null_embedding", FeatureType::Embedding { dimension: 4 }, Some(Value::Null)),
        ("deleted", FeatureType::Int64, None),
        ("deleted_embedding", FeatureType::Embedding { dimension: 4 }, None),
        ("yes", FeatureType::Boolean, Some(Value::Boolean(true))),
        ("no", FeatureType::Boolean, Some(Value::Boolean(false))),
        ("smallest", FeatureType::Int64, Some(Value::Int64(i64::MIN))),
        ("largest", FeatureType::Int64, Some(Value::Int64(i64::MAX))),
        ("third", FeatureType::Float64, Some(Value::Float64(1.0 / 3.0))),
        ("huge", FeatureType::Float64, Some(Value::Float64(f64::MAX))),
        ("minus_zero", FeatureType::Float64, Some(Value::Float64(-0.0))),
        ("empty", FeatureType::String, Some(text(""))),
        ("word", FeatureType::String, Some(text("zażółć \0 \r\n 日本 🦀"))),
        ("long", FeatureType::String, Some(text(&"long text ".repeat(105_000)))),
        ("instant", FeatureType::Timestamp, Some(Value::Timestamp(micros))),
        ("tiny", FeatureType::Embedding { dimension: 1 }, Some(embedding(1))),
        ("vector", FeatureType::Embedding { dimension: 384 }, Some(embedding(384))),
        ("big_vector", FeatureType::Embedding { dimension: 4096 }, Some(embedding(4096))),
        ("json", FeatureType::Json, Some(Value::Json(r#"{"a":[1,2.5,null],"b":"ü"}"#.into()))),
        ("long_json", FeatureType::Json, Some(Value::Json(format!("[{}0]", "1,".repeat(5000)).into()))),
    ];
    let mut changes = Vec::new();
    let mut expected = Vec::new();
    for (at, (name, _, value)) in values.iter().enumerate() {
        let mut current = current(value.clone(), later(now, -(at as i64) * 1000), 1);
        // Never, at a whole second and in milliseconds.
        current.expires_at = [None, current.expires_at, Some(later(now, 3_600_123))][at % 3];
        expected.push(FeatureRecords { current: Some(current.clone()), history: Some(Vec::new()) });
        changes.push(set(name, current));
    }
    let mut first = commit(&entity, None, head(1), changes);
    first.retain_until = None;
    committed(&store, first).await;
    let names: Vec<_> = values.iter().map(|(name, of, _)| (*name, *of)).collect();
    let loaded = load(&store, &entity, &names, true).await;
    assert_eq!(loaded.head, Some(head(1)));
    for (expected, (loaded, (name, _, _))) in expected.iter().zip(loaded.features.iter().zip(&values)) {
        assert!(loaded == expected, "{name} changed");
    }
    let Some(Value::Float64(zero)) = loaded.features[10].current.as_ref().unwrap().record.value else {
        panic!("a float stays one");
    };
    assert!(zero.is_sign_negative(), "minus zero lost its sign");

    // The same values, superseded.
    let superseded = values.iter().zip(&expected).map(|((name, _, _), records)| FeatureChange {
        current: CurrentChange::Set(current(Some(Value::Null), later(now, 1), 2)),
        superseded: vec![records.current.as_ref().unwrap().record.clone()],
        ..superseding(name, Vec::new(), 9)
    });
    committed(&store, commit(&entity, Some(head(1)), head(2), superseded.collect())).await;
    let loaded = load(&store, &entity, &names, true).await;
    for (expected, (loaded, (name, _, _))) in expected.iter().zip(loaded.features.iter().zip(&values)) {
        let was = expected.current.as_ref().unwrap().record.clone();
        assert!(loaded.history == Some(vec![was]), "the history of {name} changed");
        assert_eq!(loaded.current.as_ref().unwrap().record.value, Some(Value::Null), "{name}");
    }
}

pub async fn what_is_asked_for_comes_in_that_order(store: Shared) {
    let entity_type = fresh_type();
    let (one, two) = (entity(&entity_type, "1"), entity(&entity_type, "2"));
    let values = |base: i64| {
        ["a", "b", "c"]
            .into_iter()
            .zip(base..)
            .map(|(name, n)| set(name, current(Some(Value::Int64(n)), now(), 1)))
    };
    committed(&store, commit(&one, None, head(1), values(10).collect())).await;
    committed(&store, commit(&two, None, head(1), values(20).collect())).await;
    let named =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| (feature(name), FeatureType::Int64)).collect() };
    let (first, second, third) = (named(&["c", "nope", "a"]), named(&["b"]), named(&[]));
    let missing = entity(&entity_type, "3");
    let loads = [
        Load { entity: &two, features: &first, history: false },
        Load { entity: &missing, features: &first, history: false },
        Load { entity: &one, features: &second, history: true },
        Load { entity: &one, features: &third, history: false },
        Load { entity: &two, features: &first, history: false },
    ];
    let loaded = store.load(&loads).await.expect("loading works");
    let ints = |records: &EntityRecords| -> Vec<Option<i64>> {
        let value = |records: &FeatureRecords| match records.current.as_ref()?.record.value {
            Some(Value::Int64(n)) => Some(n),
            _ => panic!("an integer stays one"),
        };
        records.features.iter().map(value).collect()
    };
    assert_eq!(
        loaded.iter().map(ints).collect::<Vec<_>>(),
        [
            vec![Some(22), None, Some(20)],
            vec![None, None, None],
            vec![Some(11)],
            vec![],
            vec![Some(22), None, Some(20)],
        ]
    );
    let heads: Vec<_> = loaded.iter().map(|records| records.head).collect();
    assert_eq!(heads, [Some(head(1)), None, Some(head(1)), Some(head(1)), Some(head(1))]);
    assert_eq!(loaded[0].features[0].history, None);
    assert_eq!(loaded[2].features[0].history, Some(Vec::new()));
}

pub async fn values_move_between_small_and_large(store: Shared) {
    let entity = fresh_entity();
    let small = Value::String("small".into());
    let large = Value::String("large".repeat(1000).into());
    let edges = (0..600).step_by(60).map(|length| Value::String("x".repeat(length).into()));
    let values =
        [small.clone(), large.clone(), large.clone(), small.clone(), large, small].into_iter().chain(edges);
    let mut expected = None;
    for (version, value) in (1..).zip(values) {
        let written = current(Some(value), now(), version);
        let change = set("text", written.clone());
        committed(&store, commit(&entity, expected, head(version), vec![change])).await;
        expected = Some(head(version));
        let loaded = load(&store, &entity, &[("text", FeatureType::String)], true).await;
        assert_eq!(loaded.features[0].current, Some(written));
    }
}

pub async fn a_head_that_does_not_fit_conflicts(store: Shared) {
    let entity = fresh_entity();
    let version = |version: u64| {
        let written = current(Some(Value::Int64(version as i64)), now(), version);
        let mut change = set("n", written);
        change.superseded = vec![record(Some(Value::Int64(-1)), now(), version)];
        vec![change, set(&format!("only_{version}"), current(Some(Value::Null), now(), version))]
    };
    let reborn = |head: Head| Head { created_at: later(head.created_at, 1), ..head };

    assert_eq!(
        outcome(&store, commit(&entity, Some(head(1)), head(2), version(2))).await,
        CommitOutcome::Conflict,
        "an entity that is not there is at no version"
    );
    let (found, records) = load_int(&store, &entity, "n").await;
    assert_eq!((found, records), (None, absent(true)));

    committed(&store, commit(&entity, None, head(1), version(1))).await;
    committed(&store, commit(&entity, Some(head(1)), head(2), version(2))).await;
    let before = load_int(&store, &entity, "n").await;
    assert_eq!(before.0, Some(head(2)));
    for expected in [None, Some(head(1)), Some(head(3)), Some(reborn(head(2)))] {
        assert_eq!(
            outcome(&store, commit(&entity, expected, head(3), version(3))).await,
            CommitOutcome::Conflict,
            "{expected:?}"
        );
    }
    assert_eq!(load_int(&store, &entity, "n").await, before, "a conflict stores nothing");
    assert_eq!(load_int(&store, &entity, "only_3").await.1, absent(true));
    committed(&store, commit(&entity, Some(head(2)), head(3), version(3))).await;
    assert_eq!(load_int(&store, &entity, "n").await.0, Some(head(3)));

    // A renewed expiry alone keeps the version.
    let renewed = Current { expires_at: None, ..current(Some(Value::Int64(3)), now(), 3) };
    let mut renewal = set("n", renewed.clone());
    renewal.retain_until = None;
    committed(&store, commit(&entity, Some(head(3)), head(3), vec![renewal])).await;
    assert_eq!(load_int(&store, &entity, "n").await.1.current, Some(renewed));
}

pub async fn a_conflict_leaves_the_rest_of_its_batch_alone(store: Shared) {
    let entity_type = fresh_type();
    let write = |id: &str, expected: Option<Head>| {
        let change = set("n", current(Some(Value::Int64(1)), now(), 1));
        commit(&entity(&entity_type, id), expected, head(1), vec![change])
    };
    committed(&store, write("taken", None)).await;
    let batch = [write("a", None), write("taken", None), write("b", Some(head(7))), write("c", None)];
    use CommitOutcome::{Committed, Conflict};
    assert_eq!(store.commit(&batch).await, [Ok(Committed), Ok(Conflict), Ok(Conflict), Ok(Committed)]);
    for (id, there) in [("a", true), ("taken", true), ("b", false), ("c", true)] {
        let (found, _) = load_int(&store, &entity(&entity_type, id), "n").await;
        assert_eq!(found.is_some(), there, "{id}");
    }
}

pub async fn a_large_batch_is_stored_whole(store: Shared) {
    let entity_type = fresh_type();
    let entities: Vec<_> = (0..1500).map(|n| entity(&entity_type, &format!("row {n}"))).collect();
    let commits: Vec<_> = entities
        .iter()
        .zip(0..)
        .map(|(entity, n)| {
            let values = [Value::Int64(n), embedding(32)];
            let changes = ["n", "v"].into_iter().zip(values);
            let changes = changes.map(|(name, value)| set(name, current(Some(value), now(), 1)));
            commit(entity, None, head(1), changes.collect())
        })
        .collect();
    assert!(store.commit(&commits).await.iter().all(|outcome| *outcome == Ok(CommitOutcome::Committed)));
    let features =
        [(feature("v"), FeatureType::Embedding { dimension: 32 }), (feature("n"), FeatureType::Int64)];
    let loads: Vec<_> =
        entities.iter().map(|entity| Load { entity, features: &features, history: true }).collect();
    let loaded = store.load(&loads).await.expect("loading works");
    assert_eq!(loaded.len(), entities.len());
    for (records, n) in loaded.iter().zip(0..) {
        let value = |at: usize| records.features[at].current.as_ref().unwrap().record.value.clone();
        assert_eq!((value(0), value(1)), (Some(embedding(32)), Some(Value::Int64(n))));
    }
    let deleted = store.delete_entities(&entities).await.expect("deleting works");
    assert_eq!(deleted, vec![true; entities.len()]);
    assert_eq!(store.delete_entities(&entities[..3]).await, Ok(vec![false; 3]));
}

// History.

/// Writes a history of integers, each an (event offset in milliseconds, version), in one commit.
async fn write_history(store: &Shared, entity: &EntityKey, now: Timestamp, of: &[(i64, u64)], limit: usize) {
    let superseded = of
        .iter()
        .map(|(offset, version)| record(Some(Value::Int64(*version as i64)), later(now, *offset), *version));
    let newest = of.iter().map(|(_, version)| *version).max().unwrap_or(0) + 1;
    let mut change = set("n", current(Some(Value::Int64(0)), later(now, 1), newest));
    change.superseded = superseded.collect();
    change.history_limit = limit;
    committed(store, commit(entity, None, head(newest), vec![change])).await;
}

fn versions(history: Option<Vec<Record>>) -> Vec<u64> {
    history.expect("it was asked for").iter().map(|record| record.version).collect()
}

pub async fn history_is_in_event_order_and_trimmed(store: Shared) {
    // Several superseded at once, out of order; of equal times the lower version goes first.
    let entity = fresh_entity();
    let now = now();
    let of = [(-50, 3), (-10, 1), (-50, 300), (-50, 2), (-90, 9), (-20, 70_000)];
    write_history(&store, &entity, now, &of, 4).await;
    let (found, records) = load_int(&store, &entity, "n").await;
    assert_eq!(versions(records.history.clone()), [1, 70_000, 300, 3]);
    for record in records.history.iter().flatten() {
        assert_eq!(record.value, Some(Value::Int64(record.version as i64)));
    }

    // One at a time, each a newer version; a late event is put where it belongs.
    let mut expected = found;
    for (version, offset) in (70_002..).zip([-15, -5, -200, -5]) {
        let superseded = vec![record(Some(Value::Boolean(true)), later(now, offset), version)];
        let head = head(version);
        let change = superseding("n", superseded, 4);
        committed(&store, commit(&entity, expected, head, vec![change])).await;
        expected = Some(head);
    }
    let (_, records) = load_int(&store, &entity, "n").await;
    let history = records.history.unwrap();
    assert_eq!(history.len(), 4);
    assert!(history.is_sorted_by(|a, b| a.order() > b.order()), "{history:?}");
    let kept: Vec<_> = history.iter().map(|record| record.version).collect();
    assert_eq!(kept[..2], [70_005, 70_003], "the later written of equal events stands first");
    assert!(!kept.contains(&70_004), "the oldest event is trimmed first");
    assert_eq!(records.current.unwrap().record.value, Some(Value::Int64(0)), "a late event is not served");

    // A smaller limit cuts what is there, a larger one brings nothing back.
    for (limit, left) in [(2, 2), (10, 2)] {
        let head = Head { version: expected.unwrap().version + 1, ..expected.unwrap() };
        committed(&store, commit(&entity, expected, head, vec![superseding("n", Vec::new(), limit)])).await;
        expected = Some(head);
        let (_, records) = load_int(&store, &entity, "n").await;
        assert_eq!(versions(records.history), kept[..left]);
    }
}

pub async fn history_is_of_the_features_asked_for(store: Shared) {
    let entity = fresh_entity();
    let now = now();
    let names = ["n", "n_", "n2", "na"];
    let changes = names.iter().zip(1..).map(|(name, at)| {
        let mut change = set(name, current(Some(Value::Int64(0)), now, 9));
        change.superseded = vec![record(Some(Value::Int64(at)), later(now, -at), at as u64)];
        change
    });
    committed(&store, commit(&entity, None, head(9), changes.collect())).await;
    for (name, at) in names.iter().zip(1..) {
        let (_, records) = load_int(&store, &entity, name).await;
        let history = records.history.unwrap();
        assert_eq!(history.len(), 1, "{name}");
        assert_eq!(history[0].value, Some(Value::Int64(at)));
        assert_eq!(history[0].event_timestamp, later(now, -at));
    }
    let asked = [("na", FeatureType::Int64), ("nothing", FeatureType::Int64), ("n", FeatureType::Int64)];
    let loaded = load(&store, &entity, &asked, true).await;
    let histories = loaded.features.into_iter().map(|records| versions(records.history));
    assert_eq!(histories.collect::<Vec<_>>(), [vec![4], vec![], vec![1]]);
}

pub async fn a_history_is_rewritten_as_a_whole(store: Shared) {
    let entity = fresh_entity();
    let now = now();
    write_history(&store, &entity, now, &[(-30, 1), (-20, 2), (-20, 3), (-10, 4)], 9).await;
    let (found, before) = load_int(&store, &entity, "n").await;
    let undone = UndoAct { version: 6, at: later(now, 5), provenance: ProvenanceId(77) };
    let reinstated = UndoAct { version: 9, at: later(now, 8), provenance: ProvenanceId(78) };
    let mut history = before.history.clone().unwrap();
    history[1].retraction = Some(Box::new(Retraction { undone, reinstated: None }));
    history[3].retraction = Some(Box::new(Retraction { undone, reinstated: Some(reinstated) }));
    history.insert(0, record(Some(Value::Int64(5)), now, 5));
    let rewriting = |limit| FeatureChange {
        rewrites_history: true,
        // A retention is never shortened, though all of it be written anew.
        retain_until: Some(later(now, 1)),
        ..superseding("n", history.clone(), limit)
    };
    let next = |version| Head { version, ..found.unwrap() };
    // Nothing of it where the head is another.
    let stale = commit(&entity, Some(next(3)), next(9), vec![rewriting(9)]);
    assert_eq!(outcome(&store, stale).await, CommitOutcome::Conflict);
    assert_eq!(load_int(&store, &entity, "n").await, (found, before.clone()));

    committed(&store, commit(&entity, found, next(6), vec![rewriting(9)])).await;
    let (_, records) = load_int(&store, &entity, "n").await;
    assert_eq!(records, FeatureRecords { current: before.current.clone(), history: Some(history.clone()) });
    committed(&store, commit(&entity, Some(next(6)), next(7), vec![rewriting(2)])).await;
    let (_, records) = load_int(&store, &entity, "n").await;
    assert_eq!(records.history, Some(history[..2].to_vec()), "the oldest events are trimmed");
    // The store of what comes after is as ever.
    let more = vec![record(Some(Value::Int64(7)), later(now, 1), 7)];
    committed(&store, commit(&entity, Some(next(7)), next(8), vec![superseding("n", more, 9)])).await;
    assert_eq!(versions(load_int(&store, &entity, "n").await.1.history), [7, 5, history[1].version]);
}

pub async fn a_history_limit_of_zero_clears(store: Shared) {
    let entity = fresh_entity();
    write_history(&store, &entity, now(), &[(-3, 1), (-2, 2)], 9).await;
    let found = load_int(&store, &entity, "n").await.0;
    let next = Head { version: 4, ..head(3) };
    let superseded = vec![record(Some(Value::Int64(3)), now(), 3)];
    committed(&store, commit(&entity, found, next, vec![superseding("n", superseded, 0)])).await;
    let (_, records) = load_int(&store, &entity, "n").await;
    assert!(records.current.is_some());
    assert_eq!(records.history, Some(Vec::new()));
    let last = Head { version: 5, ..head(3) };
    let superseded = vec![record(Some(Value::Int64(5)), now(), 5)];
    committed(&store, commit(&entity, Some(next), last, vec![superseding("n", superseded, 1)])).await;
    assert_eq!(versions(load_int(&store, &entity, "n").await.1.history), [5]);
}

pub async fn ancient_and_far_event_times_are_exact(store: Shared) {
    let entity = fresh_entity();
    let times = [
        "0000-01-01T00:00:00Z",
        "1000-02-03T04:05:06.000007Z",
        "1000-02-03T04:05:06.000008Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "2026-01-02T03:04:05.678901Z",
        "9999-12-30T21:59:59.999998Z",
        "9999-12-30T21:59:59.999999Z",
    ];
    let times: Vec<_> = times.iter().map(|text| Timestamp::parse(text).expect("a time")).collect();
    // Versions against the order of time, so that only the time can order them.
    let superseded: Vec<_> = times
        .iter()
        .zip((1..=8).rev())
        .map(|(time, version)| record(Some(Value::Int64(version as i64)), *time, version))
        .collect();
    let mut change = set("n", current(None, times[1], 9));
    change.superseded = superseded.clone();
    committed(&store, commit(&entity, None, head(9), vec![change])).await;
    let (_, records) = load_int(&store, &entity, "n").await;
    assert_eq!(records.current.unwrap().record.event_timestamp, times[1]);
    assert_eq!(records.history, Some(superseded.into_iter().rev().collect::<Vec<_>>()));
}

pub async fn an_erased_feature_is_gone_with_its_history(store: Shared) {
    let entity = fresh_entity();
    let now = now();
    let mut changes = Vec::new();
    for (name, value) in [("n", Value::Int64(1)), ("v", embedding(300)), ("kept", Value::Int64(1))] {
        let mut change = set(name, current(Some(value.clone()), now, 2));
        change.superseded = vec![record(Some(value), later(now, -1), 1)];
        changes.push(change);
    }
    committed(&store, commit(&entity, None, head(2), changes)).await;
    let erase =
        |name: &str| FeatureChange { current: CurrentChange::Erase, ..superseding(name, Vec::new(), 9) };
    committed(&store, commit(&entity, Some(head(2)), head(3), vec![erase("n"), erase("v")])).await;
    let of = FeatureType::Embedding { dimension: 300 };
    let asked = [("n", FeatureType::Int64), ("v", of), ("kept", FeatureType::Int64)];
    let loaded = load(&store, &entity, &asked, true).await;
    assert_eq!(loaded.head, Some(head(3)));
    assert_eq!(loaded.features[..2], [absent(true), absent(true)]);
    assert_eq!(versions(loaded.features[2].history.clone()), [1]);

    // Written anew, they have no past; the entity goes on.
    let changes = vec![
        set("n", current(Some(Value::Int64(4)), now, 4)),
        set("v", current(Some(embedding(300)), now, 4)),
    ];
    committed(&store, commit(&entity, Some(head(3)), head(4), changes)).await;
    let loaded = load(&store, &entity, &asked, true).await;
    for records in &loaded.features[..2] {
        assert_eq!(records.current.as_ref().unwrap().record.version, 4);
        assert_eq!(records.history, Some(Vec::new()));
    }

    // An entity without any feature is still at its version.
    let changes = asked.iter().map(|(name, _)| erase(name)).collect();
    committed(&store, commit(&entity, Some(head(4)), head(5), changes)).await;
    assert_eq!(load_int(&store, &entity, "n").await, (Some(head(5)), absent(true)));
    let change = set("n", current(Some(Value::Int64(6)), now, 6));
    committed(&store, commit(&entity, Some(head(5)), head(6), vec![change])).await;
}

pub async fn a_deleted_entity_starts_anew(store: Shared) {
    let entity_type = fresh_type();
    let (one, two) = (entity(&entity_type, "1"), entity(&entity_type, "12"));
    let now = now();
    let of = FeatureType::Embedding { dimension: 300 };
    for key in [&one, &two] {
        let mut changes = Vec::new();
        for value in [("n", Value::Int64(1)), ("v", embedding(300))] {
            let mut change = set(value.0, current(Some(value.1.clone()), now, 2));
            change.superseded = vec![record(Some(value.1), later(now, -1), 1)];
            changes.push(change);
        }
        committed(&store, commit(key, None, head(2), changes)).await;
    }
    let missing = entity(&entity_type, "missing");
    let asked = [missing.clone(), one.clone(), missing.clone()];
    assert_eq!(store.delete_entities(&asked).await, Ok(vec![false, true, false]));
    let names = [("n", FeatureType::Int64), ("v", of)];
    let loaded = load(&store, &one, &names, true).await;
    assert_eq!((loaded.head, loaded.features), (None, vec![absent(true), absent(true)]));
    let other = load(&store, &two, &names, true).await;
    assert_eq!(other.head, Some(head(2)), "another id that begins the same is left alone");
    assert_eq!(versions(other.features[1].history.clone()), [1]);

    let anew = Head { version: 1, created_at: later(head(1).created_at, 5000) };
    let stale = commit(&one, Some(head(2)), head(3), vec![set("n", current(None, now, 3))]);
    assert_eq!(outcome(&store, stale).await, CommitOutcome::Conflict);
    let change = set("n", current(Some(Value::Int64(7)), now, 1));
    committed(&store, commit(&one, None, anew, vec![change])).await;
    let loaded = load(&store, &one, &names, true).await;
    assert_eq!(loaded.head, Some(anew));
    assert_eq!(loaded.features[0].current.as_ref().unwrap().record.value, Some(Value::Int64(7)));
    assert_eq!(loaded.features[0].history, Some(Vec::new()), "its old history is gone");
    assert_eq!(loaded.features[1], absent(true));
    // Nor does the old history come back with the first record of a new one.
    let superseded = vec![record(Some(Value::Int64(7)), later(now, 1), 1)];
    let next = Head { version: 2, ..anew };
    committed(&store, commit(&one, Some(anew), next, vec![superseding("n", superseded, 9)])).await;
    assert_eq!(versions(load_int(&store, &one, "n").await.1.history), [1]);
}

// Listing.

async fn exists(store: &Shared, keys: &[EntityKey]) {
    for part in keys.chunks(200) {
        let change = || vec![set("n", current(Some(Value::Int64(1)), now(), 1))];
        let commits: Vec<_> = part.iter().map(|key| commit(key, None, head(1), change())).collect();
        for outcome in store.commit(&commits).await {
            assert_eq!(outcome, Ok(CommitOutcome::Committed));
        }
    }
}

async fn walk(store: &Shared, entity_type: &EntityType, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..100_000 {
        let page = store.list(entity_type, cursor.as_deref(), limit).await.expect("listing works");
        let page = page.expect("a cursor that was just given can be read");
        assert!(page.entity_ids.len() <= limit, "{} ids on a page of {limit}", page.entity_ids.len());
        ids.extend(page.entity_ids.iter().map(|id| id.as_str().to_owned()));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return ids,
        }
    }
    panic!("the walk does not end");
}

pub async fn listing_is_complete_and_exact(store: Shared) {
    let entity_type = fresh_type();
    let mut ids: BTreeSet<String> = (0..500).map(|n| format!("id-{n}")).collect();
    let odd = [
        "}",
        "{",
        ":",
        "{}",
        "}{",
        "a:b",
        "a}b",
        "{a}:large",
        "a:v:n",
        " ",
        "  ",
        " a ",
        "\\",
        "\\\\",
        "*",
        "?",
        "[",
        "]",
        "[a-z]",
        "a*",
        "a?",
        "a\\*",
        "日本語",
        "é",
        "e\u{301}",
        "🦀",
        "\u{a0}",
        "%",
        "%00",
        "/",
        "../..",
        "\"",
        "'",
        "id-1}",
        "id-1:large",
        "id",
        "ID-1",
        "-1",
        "0",
        "00",
    ];
    ids.extend(odd.iter().map(|id| (*id).to_owned()));
    ids.insert("x".repeat(256));
    ids.insert("x".repeat(255));
    ids.insert("日".repeat(85));
    let keys: Vec<_> = ids.iter().map(|id| entity(&entity_type, id)).collect();
    exists(&store, &keys).await;
    for limit in [1, 7, 100, 10_000] {
        let listed = walk(&store, &entity_type, limit).await;
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), ids, "pages of {limit}");
    }
    // Each can be read and deleted by what was listed.
    for id in odd {
        assert_eq!(load_int(&store, &entity(&entity_type, id), "n").await.0, Some(head(1)), "{id:?}");
    }
    let gone: Vec<_> = odd.iter().map(|id| entity(&entity_type, id)).collect();
    assert_eq!(store.delete_entities(&gone).await, Ok(vec![true; gone.len()]));
    let left: BTreeSet<_> = walk(&store, &entity_type, 100).await.into_iter().collect();
    assert_eq!(left.len(), ids.len() - odd.len());
    assert!(odd.iter().all(|id| !left.contains(*id)));
}

pub async fn listing_knows_types_apart(store: Shared) {
    let base = fresh_type();
    let longer = EntityType::parse(&format!("{base}_x")).expect("an identifier");
    let shorter = EntityType::parse(&base.as_str()[..base.as_str().len() - 1]).expect("an identifier");
    let keys = [entity(&base, "1"), entity(&base, "_x"), entity(&longer, "2"), entity(&longer, "_x:3")];
    exists(&store, &keys).await;
    let listed = |of: Vec<String>| of.into_iter().collect::<BTreeSet<_>>();
    let expected = |ids: [&str; 2]| ids.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(listed(walk(&store, &base, 10).await), expected(["1", "_x"]));
    assert_eq!(listed(walk(&store, &longer, 10).await), expected(["2", "_x:3"]));
    assert_eq!(walk(&store, &shorter, 10).await, Vec::<String>::new());
    assert_eq!(walk(&store, &fresh_type(), 1).await, Vec::<String>::new());
}

pub async fn an_unreadable_cursor_is_none(store: Shared) {
    let entity_type = fresh_type();
    exists(&store, &[entity(&entity_type, "1")]).await;
    let long = "z".repeat(5000);
    for cursor in ["", " ", "not a cursor!", "ü", "-", "\0", "zz:zz:zz", "{}", long.as_str()] {
        assert_eq!(store.list(&entity_type, Some(cursor), 10).await, Ok(None), "{cursor:?}");
    }
}

// Provenance.

fn provenance(run: &str) -> Provenance {
    let metadata = serde_json::json!({"rows": 3, "nested": {"b": [1, null], "a": "ü"}, "at": 1.5});
    let serde_json::Value::Object(metadata) = metadata else { panic!("an object was written") };
    Provenance {
        kind: Kind::Rollback,
        source: Some("catalogue-sync".to_owned()),
        run_id: Some(run.to_owned()),
        actor: None,
        metadata,
        schema_version: 2,
        rollback: Some(RollbackNote {
            run: None,
            to_version: Some(3),
            to_timestamp: Some(now()),
            reason: Some("it was wrong".to_owned()),
        }),
    }
}

fn bare(run: &str) -> Provenance {
    Provenance {
        kind: Kind::Write,
        source: None,
        run_id: Some(run.to_owned()),
        actor: None,
        metadata: serde_json::Map::new(),
        schema_version: 1,
        rollback: None,
    }
}

pub async fn equal_provenance_has_one_id(store: Shared) {
    let run = fresh_type().to_string();
    let until = Some(now() + hours(2));
    let first = provenance(&run);
    let id = store.intern(&first, until).await.expect("interning works");
    for until in [until, Some(now() + hours(1)), Some(now() + hours(30)), None, until] {
        assert_eq!(store.intern(&first, until).await, Ok(id));
    }
    // Equal, with its metadata in another order.
    let mut same = first.clone();
    same.metadata = first.metadata.iter().rev().map(|(k, v)| (k.clone(), v.clone())).collect();
    let nested = serde_json::json!({"a": "ü", "b": [1, null]});
    same.metadata.insert("nested".to_owned(), nested);
    assert_eq!(same, first);
    assert_eq!(store.intern(&same, until).await, Ok(id));

    let mut others = vec![bare(&run), Provenance { source: None, ..first.clone() }];
    others.push(Provenance { actor: Some("me".to_owned()), ..first.clone() });
    others.push(Provenance { schema_version: 3, ..first.clone() });
    others.push(Provenance { kind: Kind::Write, ..first.clone() });
    others.push(Provenance { rollback: None, ..first.clone() });
    let mut number = first.clone();
    number.metadata.insert("rows".to_owned(), "3".into());
    others.push(number);
    let mut ids = vec![id];
    for other in &others {
        ids.push(store.intern(other, until).await.expect("interning works"));
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "different records, different ids");

    let unknown = ProvenanceId(u64::MAX);
    let asked = [ids[2], unknown, ids[0], ids[1], ids[0]];
    let expected = [Some(&others[1]), None, Some(&first), Some(&others[0]), Some(&first)];
    let found = store.provenance(&asked).await.expect("reading works");
    assert_eq!(found.iter().map(Option::as_ref).collect::<Vec<_>>(), expected);
}

pub async fn provenance_is_interned_by_many_at_once(store: Shared) {
    let run = fresh_type();
    let tasks = (0..32).map(|task| {
        let (store, run) = (store.clone(), run.clone());
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..8 {
                // In another order in every task.
                let n = (n + task) % 8;
                let id = store.intern(&bare(&format!("{run} {n}")), Some(now() + hours(1))).await;
                ids.push((n, id.expect("interning works")));
            }
            ids.sort_unstable();
            ids
        })
    });
    let of_tasks = join_all(tasks).await;
    let of_tasks: Vec<_> = of_tasks.into_iter().map(|ids| ids.expect("no panic")).collect();
    assert!(of_tasks.iter().all(|ids| *ids == of_tasks[0]), "equal records have equal ids");
    let ids: BTreeSet<_> = of_tasks[0].iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.len(), 8);
    for (n, id) in &of_tasks[0] {
        assert_eq!(store.provenance(&[*id]).await, Ok(vec![Some(bare(&format!("{run} {n}")))]));
    }
}

// The registry. Other tests may change it at the same time where a store is shared: these retry,
// and look only at names of their own.

async fn change_registry(store: &Shared, change: RegistryChange) -> u64 {
    for _ in 0..1000 {
        let expected_revision = store.registry_revision().await.expect("it can be read");
        let change = RegistryChange { expected_revision, ..change.clone() };
        if let Some(revision) = store.change_registry(&change).await.expect("it can be changed") {
            assert_eq!(revision, expected_revision + 1);
            return revision;
        }
    }
    panic!("no change of the registry goes through");
}

fn document(kind: DocumentKind, name: &str, body: &str) -> Document {
    Document { kind, name: name.to_owned(), body: body.to_owned() }
}

fn documents_of(state: &RegistryState, name: &str) -> Vec<(DocumentKind, String)> {
    let own = state.documents.iter().filter(|document| document.name == name);
    let mut own: Vec<_> = own.map(|document| (document.kind, document.body.clone())).collect();
    own.sort_by_key(|(kind, _)| *kind == DocumentKind::FeatureService);
    own
}

pub async fn the_registry_changes_as_a_whole(store: Shared) {
    use DocumentKind::{EntityType as Type, FeatureService as Service};
    let entity_type = fresh_type();
    let name = entity_type.as_str();
    let other = format!("{name}-2");
    let long = format!("{{\"description\":\"{}\"}}", "ü ".repeat(50_000));
    let put = vec![
        document(Type, name, "{\"a\":1}"),
        document(Service, name, "{\"b\":2}"),
        document(Service, &other, &long),
    ];
    let archive = vec![(entity_type.clone(), 1, "{\"v\":1}".to_owned())];
    let first = change_registry(&store, RegistryChange { put, archive, ..RegistryChange::default() }).await;
    let state = store.registry().await.expect("it can be read");
    assert!(state.revision >= first);
    let body = |text: &str| text.to_owned();
    assert_eq!(documents_of(&state, name), [(Type, body("{\"a\":1}")), (Service, body("{\"b\":2}"))]);
    assert_eq!(documents_of(&state, &other), [(Service, long)]);
    assert_eq!(store.archive(&entity_type).await, Ok(vec![(1, body("{\"v\":1}"))]));

    let change = RegistryChange {
        put: vec![document(Type, name, "{\"a\":3}")],
        delete: vec![(Service, name.to_owned()), (Service, "never_there".to_owned())],
        ..RegistryChange::default()
    };
    assert!(change_registry(&store, change).await > first);
    let state = store.registry().await.expect("it can be read");
    assert_eq!(documents_of(&state, name), [(Type, body("{\"a\":3}"))]);
    assert_eq!(documents_of(&state, &other).len(), 1);

    let delete = vec![(Type, name.to_owned()), (Service, other.clone())];
    let last = change_registry(&store, RegistryChange { delete, ..RegistryChange::default() }).await;
    let state = store.registry().await.expect("it can be read");
    assert_eq!(documents_of(&state, name), []);
    assert_eq!(documents_of(&state, &other), []);
    assert!(store.registry_revision().await.expect("it can be read") >= last);
}

pub async fn the_registry_refuses_stale_changes(store: Shared) {
    let entity_type = fresh_type();
    let name = entity_type.as_str();
    let put = |body: &str| RegistryChange {
        put: vec![document(DocumentKind::EntityType, name, body)],
        archive: vec![(entity_type.clone(), 1, body.to_owned())],
        ..RegistryChange::default()
    };
    let revision = change_registry(&store, put("first")).await;
    for expected_revision in [revision - 1, revision + 1_000_000, u64::MAX >> 12] {
        let change = RegistryChange {
            expected_revision,
            delete: vec![(DocumentKind::EntityType, name.to_owned())],
            drop_archive: vec![entity_type.clone()],
            ..put("second")
        };
        assert_eq!(store.change_registry(&change).await, Ok(None), "{expected_revision}");
    }
    let state = store.registry().await.expect("it can be read");
    let first = (DocumentKind::EntityType, "first".to_owned());
    assert_eq!(documents_of(&state, name), [first], "a refused change changes nothing");
    assert_eq!(store.archive(&entity_type).await, Ok(vec![(1, "first".to_owned())]));

    // Of many changes of one revision one is made.
    let tasks = (0..16).map(|task| {
        let (store, change) = (store.clone(), put(&task.to_string()));
        tokio::spawn(async move { change_registry(&store, change).await })
    });
    let revisions = join_all(tasks).await;
    let revisions: BTreeSet<_> = revisions.into_iter().map(|revision| revision.expect("no panic")).collect();
    assert_eq!(revisions.len(), 16, "each change has a revision of its own");
}

pub async fn the_archive_is_in_numeric_order(store: Shared) {
    let base = fresh_type();
    let longer = EntityType::parse(&format!("{base}_x")).expect("an identifier");
    let versions = [10, 2, 1, 100, 9, 4_000_000_000];
    for version in versions {
        let archive = vec![
            (base.clone(), version, format!("of {version}")),
            (longer.clone(), version, "other".to_owned()),
        ];
        change_registry(&store, RegistryChange { archive, ..RegistryChange::default() }).await;
    }
    let archived = store.archive(&base).await.expect("it can be read");
    let expected = [1, 2, 9, 10, 100, 4_000_000_000_u32];
    assert_eq!(archived, expected.map(|version| (version, format!("of {version}"))));
    let drop_archive = vec![base.clone()];
    change_registry(&store, RegistryChange { drop_archive, ..RegistryChange::default() }).await;
    assert_eq!(store.archive(&base).await, Ok(Vec::new()));
    assert_eq!(store.archive(&longer).await.map(|versions| versions.len()), Ok(6));
    assert_eq!(store.archive(&fresh_type()).await, Ok(Vec::new()));
}

// Contention, and the store as a whole.

pub async fn a_log_is_in_order_bounded_and_removed_as_a_whole(store: Shared) {
    let name = |suffix: &str| FeatureServiceName::parse(&format!("{}{suffix}", fresh_type())).unwrap();
    let (log, other) = (name("a"), name("b"));
    let start = now();
    let entry = |seconds: i64, id: u64| LogEntry {
        at: later(start, seconds * 1000),
        id,
        body: format!("{seconds} {id}\0\r\n").into(),
    };
    let bounds = |since: i64, most: usize| LogBounds {
        since: later(start, since * 1000),
        until: later(start, 3_600_000),
        most,
    };
    let range = |from: i64, to: i64, skip: usize| LogRange {
        from: later(start, from * 1000),
        to: later(start, to * 1000),
        skip,
    };
    let read = async |range: LogRange, limit: usize| store.read_log(&log, range, limit).await.unwrap();
    assert_eq!(read(range(0, 100, 0), 10).await, []);
    store.delete_log(&log).await.unwrap();
    let given = [entry(3, 1), entry(1, u64::MAX), entry(2, 7), entry(2, 5)];
    store.append_log(&log, &given, bounds(0, 100)).await.unwrap();
    store.append_log(&other, &[entry(2, 1)], bounds(0, 100)).await.unwrap();
    // The same again is there once.
    store.append_log(&log, &given[..2], bounds(0, 100)).await.unwrap();
    let all = [entry(1, u64::MAX), entry(2, 5), entry(2, 7), entry(3, 1)];
    assert_eq!(read(range(0, 100, 0), 10).await, all);
    assert_eq!(read(range(2, 3, 0), 10).await, all[1..3]);
    assert_eq!(read(range(2, 100, 1), 10).await, all[2..]);
    assert_eq!(read(range(0, 100, 0), 2).await, all[..2]);
    assert_eq!(read(range(3, 1, 0), 10).await, []);
    store.append_log(&log, &[entry(4, 1)], bounds(2, 100)).await.unwrap();
    assert_eq!(read(range(0, 100, 0), 10).await, [&all[1..], &[entry(4, 1)]].concat());
    store.append_log(&log, &[entry(5, 1)], bounds(2, 2)).await.unwrap();
    assert_eq!(read(range(0, 100, 0), 10).await, [entry(4, 1), entry(5, 1)]);
    store.delete_log(&log).await.unwrap();
    assert_eq!(read(range(0, 100, 0), 10).await, []);
    assert_eq!(store.read_log(&other, range(0, 100, 0), 10).await.unwrap(), [entry(2, 1)]);
}

pub async fn no_increment_is_lost(store: Shared) {
    const TASKS: u64 = 32;
    const EACH: u64 = 4;
    let entity = fresh_entity();
    let tasks = (0..TASKS).map(|_| {
        let (store, entity) = (store.clone(), entity.clone());
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for _ in 0..EACH {
                versions.push(increment(&store, &entity).await);
            }
            versions
        })
    });
    let mut versions = BTreeSet::new();
    for of_task in join_all(tasks).await {
        versions.extend(of_task.expect("no panic"));
    }
    assert_eq!(versions, (1..=TASKS * EACH).collect(), "every increment has a version of its own");
    let (found, records) = load_int(&store, &entity, "n").await;
    assert_eq!(found.map(|head| head.version), Some(TASKS * EACH));
    assert_eq!(records.current.unwrap().record.value, Some(Value::Int64((TASKS * EACH) as i64)));
}

async fn increment(store: &Shared, entity: &EntityKey) -> u64 {
    for _ in 0..100_000 {
        let loaded = load(store, entity, &[("n", FeatureType::Int64)], false).await;
        let value = match &loaded.features[0].current {
            None => 0,
            Some(current) => match current.record.value {
                Some(Value::Int64(n)) => n,
                _ => panic!("an integer stays one"),
            },
        };
        let version = loaded.head.map_or(1, |head| head.version + 1);
        let created_at = loaded.head.map_or_else(now, |head| head.created_at);
        let mut change = set("n", current(Some(Value::Int64(value + 1)), now(), version));
        change.superseded = loaded.features[0].current.iter().map(|current| current.record.clone()).collect();
        let commit = commit(entity, loaded.head, Head { version, created_at }, vec![change]);
        if outcome(store, commit).await == CommitOutcome::Committed {
            return version;
        }
    }
    panic!("no increment goes through");
}

pub async fn it_describes_itself_and_answers_pings(store: Shared) {
    store.ping().await.expect("it is there");
    let described = store.describe().await.expect("it knows itself");
    assert!(["embedded", "redis", "redis-cluster", "redis-sentinel"].contains(&described.backend));
    assert!(!described.location.is_empty());
    store.reap(now()).await.expect("nothing of note is due");
}

pub async fn it_does_as_the_model_does(store: Shared) {
    crate::memory_model::follow(store).await;
}

pub async fn a_closed_store_is_unavailable(store: Shared) {
    let entity = fresh_entity();
    let change = || vec![set("n", current(Some(Value::Int64(1)), now(), 1))];
    committed(&store, commit(&entity, None, head(1), change())).await;
    store.close().await;
    let unavailable = |error: StoreError| assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    unavailable(store.ping().await.unwrap_err());
    unavailable(store.registry_revision().await.unwrap_err());
    unavailable(store.intern(&bare("after"), None).await.unwrap_err());
    unavailable(store.delete_entities(std::slice::from_ref(&entity)).await.unwrap_err());
    let features = [(feature("n"), FeatureType::Int64)];
    let loads = [Load { entity: &entity, features: &features, history: false }];
    unavailable(store.load(&loads).await.unwrap_err());
    let mut outcomes = store.commit(&[commit(&entity, Some(head(1)), head(2), change())]).await;
    assert_eq!(outcomes.len(), 1);
    unavailable(outcomes.remove(0).unwrap_err());
    // Closing again does nothing.
    store.close().await;
}
