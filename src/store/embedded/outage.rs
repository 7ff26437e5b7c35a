//! What happens when the disk fails: a file whose writes fail on demand, below the real store.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};

use super::open::Place;
use super::{EmbeddedStore, Options};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::provenance::ProvenanceId;
use crate::domain::record::{Commit, Current, CurrentChange, FeatureChange, Head, Record};
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::store::{CommitOutcome, Load, Store, StoreError};

#[derive(Debug, Default)]
struct Disk {
    /// Writing fails, as on a full disk.
    full: AtomicBool,
    /// Reading fails.
    unreadable: AtomicBool,
    /// That many syncs from now, one fails after it has done its work.
    failing_sync: AtomicU64,
    opened: AtomicU64,
}

#[derive(Debug)]
struct FailingFile {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl FailingFile {
    fn check(&self, fails: &AtomicBool) -> io::Result<()> {
        if fails.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for FailingFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.check(&self.disk.unreadable)?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check(&self.disk.full)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()?;
        let counted =
            self.disk.failing_sync.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if counted == Ok(1) { Err(io::Error::other("the cable was pulled")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check(&self.disk.full)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

fn open_on(disk: &Arc<Disk>, directory: &Path) -> EmbeddedStore {
    let disk = disk.clone();
    // No cache, so that reads go to the disk.
    let options = Options { cache_bytes: 0 };
    let place = Place::opened_by(directory, &options, move |path, cache_bytes| {
        disk.opened.fetch_add(1, Ordering::SeqCst);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let file = FailingFile { file: FileBackend::new(file)?, disk: disk.clone() };
        Database::builder().set_cache_size(cache_bytes).create_with_backend(file)
    });
    EmbeddedStore::open_place(place.unwrap()).unwrap()
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(EntityType::parse("product").unwrap(), EntityId::parse(id).unwrap())
}

/// The first write of an entity.
fn write(id: &str, value: Value) -> Commit {
    let time = Timestamp::from_millis(1_767_323_045_678).unwrap();
    let record = Record {
        value: Some(value),
        event_timestamp: time,
        written_at: time,
        version: 1,
        provenance: ProvenanceId(1),
        retraction: None,
    };
    let change = FeatureChange {
        feature: FeatureName::parse("n").unwrap(),
        current: CurrentChange::Set(Current { record, expires_at: None, first_version: 1 }),
        superseded: Vec::new(),
        rewrites_history: false,
        history_limit: 9,
        retain_until: None,
    };
    let head = Head { version: 1, created_at: time };
    Commit { entity: key(id), expected: None, head, changes: vec![change], retain_until: None }
}

async fn commit(store: &EmbeddedStore, commit: Commit) -> Result<CommitOutcome, StoreError> {
    store.commit(&[commit]).await.remove(0)
}

async fn is_there(store: &EmbeddedStore, id: &str) -> Result<bool, StoreError> {
    let features = [(FeatureName::parse("n").unwrap(), FeatureType::Int64)];
    let entity = key(id);
    let loaded = store.load(&[Load { entity: &entity, features: &features, history: true }]).await?;
    assert_eq!(loaded[0].head.is_some(), loaded[0].features[0].current.is_some(), "half of it is there");
    Ok(loaded[0].head.is_some())
}

#[tokio::test]
async fn a_full_disk_refuses_writes_stores_nothing_of_them_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let store = open_on(&disk, directory.path());
    commit(&store, write("before", Value::Int64(1))).await.unwrap();
    store.ping().await.unwrap();

    disk.full.store(true, Ordering::SeqCst);
    for n in 0..3 {
        let batch =
            [write("small", Value::Int64(n)), write("large", Value::String("x".repeat(100_000).into()))];
        for outcome in store.commit(&batch).await {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        }
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }

    disk.full.store(false, Ordering::SeqCst);
    store.ping().await.unwrap();
    assert_eq!(is_there(&store, "before").await, Ok(true));
    for id in ["small", "large"] {
        assert_eq!(is_there(&store, id).await, Ok(false), "{id}");
        assert_eq!(commit(&store, write(id, Value::Int64(2))).await, Ok(CommitOutcome::Committed));
    }
    drop(store);
    let store = EmbeddedStore::open(directory.path(), &Options::default()).unwrap();
    for id in ["before", "small", "large"] {
        assert_eq!(is_there(&store, id).await, Ok(true), "{id}");
    }
}

#[tokio::test]
async fn an_unreadable_disk_passes_too() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let store = open_on(&disk, directory.path());
    commit(&store, write("before", Value::Int64(1))).await.unwrap();
    disk.unreadable.store(true, Ordering::SeqCst);
    assert!(matches!(is_there(&store, "before").await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    disk.unreadable.store(false, Ordering::SeqCst);
    // The writer opens the file again in its own time; whatever passes through it waits for that.
    commit(&store, write("after", Value::Int64(1))).await.unwrap();
    assert_eq!(is_there(&store, "before").await, Ok(true));
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_write_whose_sync_failed_is_answered_by_what_became_of_it() {
    for syncs in 1..6 {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let store = open_on(&disk, directory.path());
        commit(&store, write("before", Value::Int64(1))).await.unwrap();
        let opened = disk.opened.load(Ordering::SeqCst);
        disk.failing_sync.store(syncs, Ordering::SeqCst);
        let mut outcomes = Vec::new();
        for n in 0..6 {
            outcomes.push(commit(&store, write(&n.to_string(), Value::Int64(n))).await);
        }
        assert!(disk.opened.load(Ordering::SeqCst) > opened, "no sync failed");
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let there = is_there(&store, &n.to_string()).await.unwrap();
            assert_eq!(outcome.is_ok(), there, "write {n} of sync {syncs}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_panicking_job_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_on(&Arc::new(Disk::default()), directory.path());
    let outcome = store.writer.run(|_| -> Result<(), super::fault::Fault> { panic!("on purpose") }).await;
    assert!(matches!(outcome, Err(StoreError::Internal(_))), "{outcome:?}");
    assert_eq!(commit(&store, write("after", Value::Int64(1))).await, Ok(CommitOutcome::Committed));
}
