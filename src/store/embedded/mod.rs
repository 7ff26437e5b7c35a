//! The store in a data directory: one file, written by one thread, read by any.
//!
//! In the order a commit travels: [`prepared`] encodes it on the caller's thread, the [`writer`]
//! groups it with whatever else is queued into one durable transaction over the [`tables`], and
//! [`commit`] compares and carries it out there. An [`entity`] is one value of one table, so that
//! one look-up answers a read of any number of small features ([`read`]).

mod backup;
mod commit;
mod entity;
mod fault;
mod history;
mod jobs;
mod key;
mod log;
mod open;
mod prepared;
mod provenance;
mod read;
mod reap;
mod registry;
mod tables;
mod writer;

#[cfg(test)]
mod outage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub use self::backup::{RestoreError, restore, verify};
use self::open::Place;
pub use self::open::{OpenError, Options};
use self::prepared::PreparedCommit;
use self::tables::Tables;
use self::writer::{Writer, job};
use super::log::{LogBounds, LogEntry, LogRange};
use super::watch::{Told, Watcher};
use super::{
    Backup, CommitOutcome, Load, Page, RegistryChange, RegistryState, Store, StoreDescription, StoreError,
};
use crate::domain::name::{EntityKey, EntityType, FeatureServiceName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{Commit, EntityRecords};
use crate::domain::time::Timestamp;

/// A store that needs nothing but a directory of its own.
///
/// What is answered as committed has been fsynced. One process at a time holds the directory.
/// After a failed write (a full disk, say) the file is closed and opened again, which undoes what
/// was under way; until that succeeds, calls fail as unavailable.
#[derive(Debug)]
pub struct EmbeddedStore {
    writer: Writer,
}

impl EmbeddedStore {
    /// Opens the store in `data_dir`, and creates both where they are not there yet. Blocks: after
    /// a crash in the middle of writing, the file is checked first, at more than half a GiB a
    /// second from memory and at the disk's speed otherwise.
    pub fn open(data_dir: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::open_place(Place::in_directory(data_dir, options)?)
    }

    fn open_place(place: Place) -> Result<Self, OpenError> {
        Ok(Self { writer: Writer::start(place)? })
    }

    /// Runs `read` here or, where it is long, on a thread that may block. Short reads are answered
    /// from the page cache in microseconds: handing them over would cost more than they do.
    async fn read<T: Send + 'static>(
        &self,
        long: bool,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, fault::Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !long {
            return self.writer.read(read);
        }
        let reader = self.writer.reader();
        let outcome = tokio::task::spawn_blocking(move || reader.read(read)).await;
        outcome.unwrap_or_else(|error| Err(StoreError::Internal(error.to_string())))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn load(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        if !read::is_long(loads) {
            return self.writer.read(|transaction| read::load(transaction, loads));
        }
        let owned = read::OwnedLoads::new(loads);
        self.read(true, move |transaction| owned.load(transaction)).await
    }

    async fn commit(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        let (jobs, replies): (Vec<_>, Vec<_>) = commits
            .iter()
            .map(|commit| {
                let prepared = PreparedCommit::new(commit);
                job(move |tables: &mut Tables| commit::apply(tables, &prepared))
            })
            .unzip();
        self.writer.submit(jobs).await;
        futures::future::join_all(replies.into_iter().map(writer::answer)).await
    }

    async fn delete_entities(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError> {
        let keys: Vec<_> = entities.iter().map(key::entity).collect();
        self.writer.run(move |tables| keys.iter().map(|key| commit::delete(tables, key)).collect()).await
    }

    async fn list(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let entity_type = entity_type.clone();
        let after = match cursor.map(read::parse_cursor) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Ok(None),
        };
        self.read(limit > read::LONG, move |transaction| {
            read::list(transaction, &entity_type, after.as_ref(), limit).map(Some)
        })
        .await
    }

    async fn intern(
        &self,
        provenance: &Provenance,
        until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError> {
        let entry = provenance::Entry::new(provenance, until)?;
        if let Some(id) = self.writer.read(|transaction| provenance::find(transaction, &entry))? {
            return Ok(id);
        }
        self.writer.run(move |tables| provenance::keep(tables, &entry)).await
    }

    async fn provenance(&self, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, StoreError> {
        let ids = ids.to_vec();
        self.read(ids.len() > read::LONG, move |transaction| provenance::load(transaction, &ids)).await
    }

    async fn registry(&self) -> Result<RegistryState, StoreError> {
        self.writer.read(registry::load)
    }

    async fn registry_revision(&self) -> Result<u64, StoreError> {
        self.writer.read(registry::revision)
    }

    async fn change_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError> {
        let change = change.clone();
        self.writer.run(move |tables| registry::change(tables, &change)).await
    }

    async fn archive(&self, entity_type: &EntityType) -> Result<Vec<(u32, String)>, StoreError> {
        self.writer.read(|transaction| registry::archive(transaction, entity_type))
    }

    async fn put_job(&self, id: &str, note: &str) -> Result<(), StoreError> {
        let (id, note) = (id.to_owned(), note.to_owned());
        self.writer.run(move |tables| jobs::put(tables, &id, &note)).await
    }

    async fn jobs(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.writer.read(jobs::load)
    }

    async fn delete_jobs(&self, ids: &[String]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.writer.run(move |tables| jobs::delete(tables, &ids)).await
    }

    async fn append_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError> {
        let (log, entries) = (log.clone(), entries.to_vec());
        self.writer.run(move |tables| log::append(tables, log.as_str(), &entries, bounds)).await
    }

    async fn read_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let log = log.clone();
        self.read(true, move |transaction| log::read(transaction, log.as_str(), range, limit)).await
    }

    async fn delete_log(&self, log: &FeatureServiceName) -> Result<(), StoreError> {
        let log = log.clone();
        self.writer.run(move |tables| log::delete(tables, log.as_str())).await
    }

    /// Also makes a checkpoint where something was written since the last, so that a store which
    /// is not written to all the time opens at once after a crash.
    async fn reap(&self, now: Timestamp) -> Result<usize, StoreError> {
        let is_due = self.writer.read(|transaction| reap::is_due(transaction, now))?;
        if !is_due && !self.writer.wants_checkpoint() {
            return Ok(0);
        }
        self.writer
            .run(move |tables| {
                tables.checkpoint();
                reap::reap(tables, now)
            })
            .await
    }

    /// The writer's thread tells, after a group is durable and before it answers for it.
    fn watch(&self, watcher: Arc<dyn Watcher>, _: Duration) -> Told {
        self.writer.watchers().add(watcher);
        Told::AtOnce
    }

    /// Sends a job through the writer, and reads. Where the last write failed, the writer writes
    /// before any job, to find out whether it can again; otherwise this costs no write.
    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.run(|_| Ok(())).await?;
        self.writer.read(registry::revision).map(drop)
    }

    async fn describe(&self) -> Result<StoreDescription, StoreError> {
        Ok(StoreDescription {
            backend: "embedded",
            location: self.writer.location(),
            used_bytes: self.writer.file_bytes()?,
            ..StoreDescription::default()
        })
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}

/// So many pieces of a backup wait to be taken.
const PIECES: usize = 4;

impl Backup for EmbeddedStore {
    fn backup(&self) -> mpsc::Receiver<Result<Bytes, StoreError>> {
        let (pieces, receiver) = mpsc::channel(PIECES);
        let reader = self.writer.reader();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = reader.read(|transaction| backup::write(transaction, &pieces)) {
                // Whoever asked may be the one who has gone.
                let _ = pieces.blocking_send(Err(error));
            }
        });
        receiver
    }
}
