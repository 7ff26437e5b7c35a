//! The embedded store: the contract, and what only a directory can do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use feature_store::domain::name::EntityKey;
use feature_store::domain::provenance::{Kind, Provenance};
use feature_store::domain::record::{Commit, Current, CurrentChange, FeatureChange, Head};
use feature_store::domain::time::{Span, Timestamp};
use feature_store::domain::value::{FeatureType, Value};
use feature_store::store::embedded::{EmbeddedStore, OpenError, Options};
use feature_store::store::{CommitOutcome, Document, DocumentKind, RegistryChange, Store, StoreError};
use futures::future::join_all;
use tempfile::TempDir;

use crate::store_contract::{
    Shared, committed, current, entity, feature, fresh_type, later, load, now, record,
};

crate::contract_tests!(crate::embedded_store::fresh);

/// A store in a directory that lives as long as this.
pub struct Fixture {
    store: Shared,
    _directory: TempDir,
}

impl Fixture {
    pub fn store(&self) -> Shared {
        self.store.clone()
    }
}

pub async fn fresh() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory can be made");
    Fixture { store: Arc::new(open(directory.path())), _directory: directory }
}

fn open(directory: &Path) -> EmbeddedStore {
    EmbeddedStore::open(directory, &Options::default()).expect("the store opens")
}

fn data_file(directory: &Path) -> std::path::PathBuf {
    directory.join("feature-store.redb")
}

fn write(key: &EntityKey, expected: Option<Head>, value: i64, retain_until: Option<Timestamp>) -> Commit {
    let version = expected.map_or(1, |head| head.version + 1);
    let created_at = expected.map_or_else(now, |head| head.created_at);
    let mut current = current(Some(Value::Int64(value)), now(), version);
    current.expires_at = None;
    let change = FeatureChange {
        feature: feature("n"),
        superseded: if version > 1 { vec![record(None, now(), version - 1)] } else { Vec::new() },
        rewrites_history: false,
        current: CurrentChange::Set(current),
        history_limit: 9,
        retain_until,
    };
    let head = Head { version, created_at };
    Commit { entity: key.clone(), expected, head, changes: vec![change], retain_until }
}

async fn value_of(store: &Shared, key: &EntityKey) -> Option<Value> {
    let loaded = load(store, key, &[("n", FeatureType::Int64)], true).await;
    loaded.features[0].current.as_ref().and_then(|current: &Current| current.record.value.clone())
}

fn provenance(run: &str) -> Provenance {
    Provenance {
        kind: Kind::Write,
        source: Some("test".to_owned()),
        run_id: Some(run.to_owned()),
        actor: None,
        metadata: serde_json::Map::new(),
        schema_version: 1,
        rollback: None,
    }
}

// Opening.

#[tokio::test]
async fn a_second_open_is_refused_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = EmbeddedStore::open(directory.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&directory.path().display().to_string()), "{message}");
    assert!(message.contains("in use by another process: stop that process"), "{message}");
    first.ping().await.unwrap();
    drop(first);
    open(directory.path());
}

#[tokio::test]
async fn everything_is_there_after_closing_and_after_dropping() {
    let directory = tempfile::tempdir().unwrap();
    let entity_type = fresh_type();
    let key = entity(&entity_type, "1");
    let long = Value::String("long".repeat(1000).into());
    let mut head = None;
    let mut id = None;
    for round in 0..4_i64 {
        let store: Shared = Arc::new(open(directory.path()));
        assert_eq!(store.registry_revision().await, Ok(round as u64));
        let known = store.intern(&provenance("run"), None).await.unwrap();
        assert_eq!(*id.get_or_insert(known), known);
        if round > 0 {
            assert_eq!(value_of(&store, &key).await, Some(Value::Int64(round - 1)));
            let asked = [("n", FeatureType::Int64), ("long", FeatureType::String)];
            let loaded = load(&store, &key, &asked, true).await;
            assert_eq!(loaded.head, head);
            assert_eq!(loaded.features[0].history.as_ref().unwrap().len() as i64, round - 1);
            assert_eq!(loaded.features[1].current.as_ref().unwrap().record.value, Some(long.clone()));
            assert_eq!(store.provenance(&[known]).await, Ok(vec![Some(provenance("run"))]));
            assert_eq!(store.registry().await.unwrap().documents.len(), 1);
            assert_eq!(store.archive(&entity_type).await.unwrap().len() as i64, round);
        }
        let mut commit = write(&key, head, round, None);
        commit.changes.push(FeatureChange {
            feature: feature("long"),
            current: CurrentChange::Set(current(Some(long.clone()), now(), commit.head.version)),
            superseded: Vec::new(),
            rewrites_history: false,
            history_limit: 0,
            retain_until: None,
        });
        head = Some(commit.head);
        committed(&store, commit).await;
        let change = RegistryChange {
            expected_revision: round as u64,
            put: vec![Document {
                kind: DocumentKind::EntityType,
                name: entity_type.to_string(),
                body: "{}".to_owned(),
            }],
            archive: vec![(entity_type.clone(), round as u32, "{}".to_owned())],
            ..RegistryChange::default()
        };
        assert_eq!(store.change_registry(&change).await, Ok(Some(round as u64 + 1)));
        if round % 2 == 0 {
            store.close().await;
            // The lock is gone although the store is not.
            open(directory.path());
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(open(directory.path()));
    let entity_type = fresh_type();
    for n in 0..50 {
        committed(&store, write(&entity(&entity_type, &n.to_string()), None, n, None)).await;
    }
    // The bytes as a killed process leaves them: never closed.
    let after = tempfile::tempdir().unwrap();
    fs::copy(data_file(directory.path()), data_file(after.path())).unwrap();
    let after_crash: Shared = Arc::new(open(after.path()));
    for n in 0..50 {
        let key = entity(&entity_type, &n.to_string());
        assert_eq!(value_of(&after_crash, &key).await, Some(Value::Int64(n)));
    }
    committed(&after_crash, write(&entity(&entity_type, "more"), None, 1, None)).await;
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |path: &Path| EmbeddedStore::open(path, &Options::default()).unwrap_err();

    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refused(&path);
        assert!(matches!(error, OpenError::NotADirectory(_)), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }

    let nested = directory.path().join("made/on/the/way");
    drop(open(&nested));
    assert!(data_file(&nested).exists());

    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(data_file(&foreign), "this is no data file at all ".repeat(1000)).unwrap();
    let error = refused(&foreign);
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[tokio::test]
async fn another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let refused_with = |format: u64| {
        in_tables(directory.path(), |transaction| {
            let meta = redb::TableDefinition::<&str, u64>::new("meta");
            transaction.open_table(meta).unwrap().insert("format", format).unwrap();
        });
        EmbeddedStore::open(directory.path(), &Options::default()).unwrap_err()
    };
    let error = refused_with(7);
    assert!(matches!(error, OpenError::NewerFormat { found: 7, .. }), "{error:?}");
    assert!(error.to_string().contains("written by a newer version"), "{error}");
    let error = refused_with(1);
    assert!(matches!(error, OpenError::OlderFormat { found: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("written by an earlier version"), "{error}");
}

/// Changes the file of a closed store behind its back.
fn in_tables(directory: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(data_file(directory)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[tokio::test]
async fn damaged_files_are_errors_and_not_panics() {
    let directory = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(open(directory.path()));
    let entity_type = fresh_type();
    let keys: Vec<_> = (0..200).map(|n| entity(&entity_type, &n.to_string())).collect();
    let commits: Vec<_> = keys.iter().map(|key| write(key, None, 1, None)).collect();
    assert!(store.commit(&commits).await.iter().all(Result::is_ok));
    drop(store);
    let whole = fs::read(data_file(directory.path())).unwrap();
    let mut opened = 0;
    for n in 0..60 {
        let mut bytes = whole.clone();
        match n % 3 {
            0 => bytes.truncate(whole.len() * (n + 1) / 70),
            1 => bytes[n * 37 % 320] ^= 0x55,
            _ => {
                let at = whole.len() * n / 60;
                let end = (at + 2000).min(whole.len());
                bytes[at..end].fill(0xa5);
            }
        }
        fs::write(data_file(directory.path()), bytes).unwrap();
        match EmbeddedStore::open(directory.path(), &Options::default()) {
            Err(error) => assert!(!matches!(error, OpenError::InUse(_)), "{error}"),
            Ok(store) => {
                opened += 1;
                let key = keys[n].clone();
                let features = [(feature("n"), FeatureType::Int64)];
                // On a task of its own, as a server has it.
                let _ = tokio::spawn(async move {
                    let load =
                        feature_store::store::Load { entity: &key, features: &features, history: true };
                    let _ = store.load(&[load]).await;
                    let _ = store.commit(&[write(&key, None, 1, None)]).await;
                })
                .await;
            }
        }
    }
    assert!(opened < 60, "no damage was ever seen");
}

#[tokio::test]
async fn unreadable_bytes_are_named_and_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let entity_type = fresh_type();
    let (good, bad, torn) =
        (entity(&entity_type, "good"), entity(&entity_type, "bad"), entity(&entity_type, "torn"));
    {
        let store: Shared = Arc::new(open(directory.path()));
        for key in [&good, &bad, &torn] {
            let until = Some(later(now(), 3_600_000));
            let first = write(key, None, 1, until);
            let head = first.head;
            committed(&store, first).await;
            committed(&store, write(key, Some(head), 2, until)).await;
        }
    }
    in_tables(directory.path(), |transaction| {
        let entities = redb::TableDefinition::<&[u8], &[u8]>::new("entities");
        let mut entities = transaction.open_table(entities).unwrap();
        entities.insert(format!("{entity_type}\0bad").as_bytes(), &b"\xff nonsense"[..]).unwrap();
        let history = redb::TableDefinition::<&[u8], &[u8]>::new("history");
        let mut history = transaction.open_table(history).unwrap();
        let prefix = format!("{entity_type}\0torn\0\0");
        history
            .insert([prefix.as_bytes(), &[0x80; 16]].concat().as_slice(), &b"\x01n\x02\xff\xff"[..])
            .unwrap();
    });
    let store: Shared = Arc::new(open(directory.path()));
    let features = [(feature("n"), FeatureType::Int64)];
    let load_of = |key| feature_store::store::Load { entity: key, features: &features, history: true };
    for (key, wrong) in [(&bad, ""), (&torn, "n")] {
        let error = store.load(&[load_of(&good), load_of(key)]).await.unwrap_err();
        let StoreError::Corrupt { key: named, field, .. } = &error else { panic!("{error:?}") };
        assert_eq!((named.as_str(), field.as_str()), (key.to_string().as_str(), wrong));
    }
    // A commit of it fails alone, and deleting it helps.
    let outcomes = store.commit(&[write(&bad, None, 1, None), write(&good, None, 1, None)]).await;
    assert!(matches!(outcomes[0], Err(StoreError::Corrupt { .. })), "{outcomes:?}");
    assert_eq!(outcomes[1], Ok(CommitOutcome::Conflict));
    assert!(store.reap(now() + Span::from_secs(7200)).await.is_ok());
    assert_eq!(store.delete_entities(&[bad.clone(), torn.clone()]).await, Ok(vec![true, false]));
    committed(&store, write(&bad, None, 5, None)).await;
    assert_eq!(value_of(&store, &bad).await, Some(Value::Int64(5)));
}

// Writing.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_are_grouped_and_all_durable() {
    let directory = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(open(directory.path()));
    let entity_type = fresh_type();
    let tasks = (0..64).map(|task| {
        let (store, key) = (store.clone(), entity(&entity_type, &task.to_string()));
        tokio::spawn(async move {
            let mut head = None;
            for n in 0..10 {
                let commit = write(&key, head, n, None);
                head = Some(commit.head);
                committed(&store, commit).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    drop(store);
    let groups = in_file(directory.path(), "groups");
    assert!(groups < 640, "640 commits took {groups} transactions");
    let store: Shared = Arc::new(open(directory.path()));
    for task in 0..64 {
        let key = entity(&entity_type, &task.to_string());
        let loaded = load(&store, &key, &[("n", FeatureType::Int64)], true).await;
        assert_eq!(loaded.head.unwrap().version, 10);
        let history = loaded.features[0].history.as_ref().unwrap();
        let versions: BTreeSet<_> = history.iter().map(|record| record.version).collect();
        assert_eq!(versions, (1..10).collect());
    }
}

fn in_file(directory: &Path, number: &str) -> u64 {
    use redb::{ReadableDatabase, ReadableTable};
    let database = redb::Database::open(data_file(directory)).unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let meta = database.begin_read().unwrap().open_table(meta).unwrap();
    ReadableTable::get(&meta, number).unwrap().map_or(0, |number| number.value())
}

#[tokio::test]
async fn commits_of_one_entity_in_one_group_see_each_other() {
    let fixture = fresh().await;
    let store = fixture.store();
    let key = entity(&fresh_type(), "1");
    let first = write(&key, None, 1, None);
    let second = write(&key, Some(first.head), 2, None);
    let outcomes = store.commit(&[first.clone(), first, second.clone(), second]).await;
    use CommitOutcome::{Committed, Conflict};
    assert_eq!(outcomes, [Ok(Committed), Ok(Conflict), Ok(Committed), Ok(Conflict)]);
    assert_eq!(value_of(&store, &key).await, Some(Value::Int64(2)));
}

#[tokio::test]
async fn what_is_queued_is_finished_before_the_store_closes() {
    let directory = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(open(directory.path()));
    let entity_type = fresh_type();
    let writes = (0..100).map(|n| {
        let (store, key) = (store.clone(), entity(&entity_type, &n.to_string()));
        async move { store.commit(&[write(&key, None, n, None)]).await.remove(0) }
    });
    // All are queued, in this order, before the first is waited for.
    let (outcomes, ()) = tokio::join!(join_all(writes), store.close());
    let reopened: Shared = Arc::new(open(directory.path()));
    for (n, outcome) in (0..).zip(outcomes) {
        assert_eq!(outcome, Ok(CommitOutcome::Committed));
        let key = entity(&entity_type, &n.to_string());
        assert_eq!(value_of(&reopened, &key).await, Some(Value::Int64(n)));
    }
}

// Retention.

#[tokio::test]
async fn the_reaper_frees_what_has_passed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(open(directory.path()));
    let entity_type = fresh_type();
    let start = now();
    let hour = |n: i64| Some(later(start, n * 3_600_000));
    let of = |id: &str| entity(&entity_type, id);
    for (id, retain_until) in [("one", hour(1)), ("two", hour(2)), ("ever", None)] {
        committed(&store, write(&of(id), None, 1, retain_until)).await;
    }
    assert_eq!(store.reap(start).await, Ok(0));

    // A retention is lengthened, never shortened.
    let lengthen = |key: EntityKey, retain_until| {
        let store = store.clone();
        async move {
            let head = load(&store, &key, &[], false).await.head;
            committed(&store, write(&key, head, 2, retain_until)).await;
        }
    };
    lengthen(of("two"), hour(1)).await;
    lengthen(of("ever"), hour(1)).await;
    committed(&store, write(&of("longer"), None, 1, hour(1))).await;
    lengthen(of("longer"), hour(5)).await;

    let listed = || async {
        let page = store.list(&entity_type, None, 100).await.unwrap().unwrap();
        page.entity_ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()
    };
    let at = |n: i64| later(start, n * 3_600_000 + 1);
    // Two histories whose hour has come: of "two" and "ever".
    assert_eq!(store.reap(at(1)).await, Ok(3));
    assert_eq!(listed().await, ["ever", "longer", "two"]);
    let loaded = load(&store, &of("two"), &[("n", FeatureType::Int64)], true).await;
    assert_eq!(loaded.features[0].history, Some(Vec::new()));
    assert!(loaded.features[0].current.is_some());
    assert_eq!(store.reap(at(1)).await, Ok(0), "what was put back is not looked at again");
    assert_eq!(store.reap(at(2)).await, Ok(1));
    assert_eq!(store.reap(at(4)).await, Ok(0));
    let loaded = load(&store, &of("longer"), &[("n", FeatureType::Int64)], true).await;
    assert_eq!(loaded.features[0].history.as_ref().unwrap().len(), 1);
    assert_eq!(store.reap(at(5)).await, Ok(1));
    assert_eq!(listed().await, ["ever"]);
    assert_eq!(store.reap(later(start, 1_000 * 3_600_000)).await, Ok(0));

    // What went leaves nothing behind, and one of its name starts anew.
    committed(&store, write(&of("one"), None, 7, hour(2))).await;
    let loaded = load(&store, &of("one"), &[("n", FeatureType::Int64)], true).await;
    assert_eq!(loaded.features[0].history, Some(Vec::new()));
    drop(store);
    for table in ["large", "history"] {
        assert_eq!(rows(directory.path(), table), 0, "{table}");
    }
}

fn rows(directory: &Path, table: &str) -> u64 {
    use redb::{ReadableDatabase, ReadableTableMetadata};
    let database = redb::Database::open(data_file(directory)).unwrap();
    let table = redb::TableDefinition::<&[u8], &[u8]>::new(table);
    database.begin_read().unwrap().open_table(table).unwrap().len().unwrap()
}

#[tokio::test]
async fn the_reaper_works_in_parts() {
    let fixture = fresh().await;
    let store = fixture.store();
    let entity_type = fresh_type();
    let until = Some(later(now(), 1000));
    let commits: Vec<_> =
        (0..2500).map(|n| write(&entity(&entity_type, &n.to_string()), None, 1, until)).collect();
    assert!(store.commit(&commits).await.iter().all(Result::is_ok));
    let mut parts = Vec::new();
    loop {
        match store.reap(later(now(), 60_000)).await.unwrap() {
            0 => break,
            freed => parts.push(freed),
        }
    }
    assert_eq!(parts.iter().sum::<usize>(), 2500);
    assert!(parts.iter().all(|part| *part <= 1000), "{parts:?}");
}

#[tokio::test]
async fn provenance_is_kept_as_long_as_asked_and_ids_are_not_given_twice() {
    let fixture = fresh().await;
    let store = fixture.store();
    let start = now();
    let hour = |n: i64| Some(later(start, n * 3_600_000));
    let at = |n: i64| later(start, n * 3_600_000 + 1);
    let short = store.intern(&provenance("short"), hour(1)).await.unwrap();
    let long = store.intern(&provenance("long"), hour(1)).await.unwrap();
    assert_eq!(store.intern(&provenance("long"), hour(10)).await, Ok(long));
    assert_eq!(store.intern(&provenance("long"), hour(2)).await, Ok(long));
    let ever = store.intern(&provenance("ever"), hour(1)).await.unwrap();
    assert_eq!(store.intern(&provenance("ever"), None).await, Ok(ever));

    assert_eq!(store.reap(at(1)).await, Ok(1));
    let kept = store.provenance(&[short, long, ever]).await.unwrap();
    assert_eq!(kept, [None, Some(provenance("long")), Some(provenance("ever"))]);
    let again = store.intern(&provenance("short"), hour(3)).await.unwrap();
    assert!(![short, long, ever].contains(&again), "an id was given twice");
    assert_eq!(store.reap(at(9)).await, Ok(1), "the new one");
    // The retention of the longer one may have been lengthened a little further than asked.
    assert_eq!(store.reap(at(20)).await, Ok(1));
    assert_eq!(store.provenance(&[long, ever]).await.unwrap(), [None, Some(provenance("ever"))]);
}

#[tokio::test]
async fn it_says_where_it_is_and_how_large() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let described = store.describe().await.unwrap();
    assert_eq!(described.backend, "embedded");
    assert_eq!(described.location, directory.path().display().to_string());
    assert_eq!(described.used_bytes, Some(fs::metadata(data_file(directory.path())).unwrap().len()));
}
