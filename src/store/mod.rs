//! Where records, provenance and registry documents are kept: one trait, two stores.
//!
//! A store decides nothing about events, versions or expiry. It loads the records that the rules
//! in [`crate::domain`] ask for, and carries out a [`Commit`] as a whole if the entity is still
//! what was loaded.

pub mod cache;
pub mod embedded;
pub mod guarded;
pub mod log;
pub mod metered;
pub mod redis;
pub mod traced;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use self::log::{LogBounds, LogEntry, LogRange};
use self::watch::{Told, Watcher};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName, FeatureServiceName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{Commit, EntityRecords, Head};
use crate::domain::time::Timestamp;
use crate::domain::value::FeatureType;

/// Which features of which entity to load.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    pub entity: &'a EntityKey,
    /// Names with the types the schema gives them, which tell a store where to look.
    pub features: &'a [(FeatureName, FeatureType)],
    /// Whether the superseded records are wanted too.
    pub history: bool,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The store has all of it, as durably as it was told to.
    Committed,
    /// The entity is no longer what was loaded; nothing was stored. Load again and decide anew.
    Conflict,
}

/// A part of the ids of one entity type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entity_ids: Vec<EntityId>,
    /// Where the next page starts; `None` after the last.
    pub next_cursor: Option<String>,
}

/// What a registry document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    EntityType,
    FeatureService,
}

/// A document of the registry, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub kind: DocumentKind,
    pub name: String,
    pub body: String,
}

/// Everything that is in force in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryState {
    /// Grows with every change; 0 for an empty registry.
    pub revision: u64,
    pub documents: Vec<Document>,
}

/// A change of the registry, carried out as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryChange {
    /// The revision that the change was decided on.
    pub expected_revision: u64,
    pub put: Vec<Document>,
    pub delete: Vec<(DocumentKind, String)>,
    /// Schema versions to keep for reference: entity type, version, document as JSON.
    pub archive: Vec<(EntityType, u32, String)>,
    /// Entity types whose archived schema versions are to go.
    pub drop_archive: Vec<EntityType>,
}

/// What a store says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDescription {
    /// `embedded`, `redis`, `redis-cluster` or `redis-sentinel`.
    pub backend: &'static str,
    /// Where it is, without credentials.
    pub location: String,
    /// The server's own version, where there is a server.
    pub server_version: Option<String>,
    /// The server's role: `master`, `slave`.
    pub role: Option<String>,
    pub used_bytes: Option<u64>,
    /// `None`: no limit.
    pub max_bytes: Option<u64>,
    /// Redis's `maxmemory-policy`.
    pub eviction_policy: Option<String>,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, or refusing to work (loading, read-only, out of memory, shutting down).
    /// Nothing was carried out.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The connection broke, or the answer fell short, while the call was under way. A commit may
    /// have been carried out or not.
    #[error("the store was lost while it was asked: {0}")]
    Interrupted(String),
    /// It did not answer in time. A commit may have been carried out or not.
    #[error("the store did not answer in time")]
    Timeout,
    /// It has more to do than it can. It was not asked.
    #[error("the store has more to do than it can")]
    Crowded,
    /// What is stored under a key cannot be read.
    #[error("the store holds something unreadable under {key:?}, field {field:?}: {reason}")]
    Corrupt { key: String, field: String, reason: String },
    /// A bug or an answer that the store's protocol does not allow.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// What kind it is, as metrics and traces call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Interrupted(_) => "interrupted",
            Self::Timeout => "timeout",
            Self::Crowded => "crowded",
            Self::Corrupt { .. } => "corrupt",
            Self::Internal(_) => "internal",
        }
    }
}

/// A place that keeps records, provenance and the registry.
///
/// All methods may be called at the same time from many tasks. Times in arguments are the
/// caller's clock; a store that frees memory by its own clock (Redis) must agree with it roughly.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Loads parts of many entities in one round trip, in the order of `loads`. An entity that is
    /// not there has no head and no records. What has expired but is still there is loaded as it
    /// is: expiry is judged by the reader.
    async fn load(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError>;

    /// What the store remembers to have last written of an entity, without asking: good for deciding
    /// a commit, which finds out whether it is still so, and for nothing else.
    fn recall(&self, _load: &Load<'_>) -> Option<EntityRecords> {
        None
    }

    /// Carries out commits of *different* entities in one round trip where the store allows, each
    /// atomically and on its own: one that conflicts or fails leaves the others alone. When an
    /// item is `Ok(Committed)`, it is durable to the degree the store was configured for.
    ///
    /// A commit conflicts unless the entity's head equals `expected`, compared with both its
    /// members. The history of a feature is cut to `history_limit` records, those with the
    /// greatest (event time, version); 0 removes it. A retention is only ever lengthened: the
    /// entity's by `Commit::retain_until`, a feature's history by `FeatureChange::retain_until`.
    async fn commit(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>>;

    /// Removes entities with everything that is stored of them; says which were there.
    async fn delete_entities(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError>;

    /// Lists entity ids in the store's own order, at most `limit` (from 1) a page; a page may be
    /// shorter, even empty, while there is a `next_cursor`. An entity that is there during the
    /// whole walk appears at least once. An unreadable cursor is `Ok(None)`.
    async fn list(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError>;

    /// The id under which `provenance` is kept, at least until `until` (`None`: for ever). Equal
    /// records have equal ids while they are kept; ids are never given twice.
    async fn intern(
        &self,
        provenance: &Provenance,
        until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError>;

    /// The records of these ids, in that order; `None` for one that is not kept (any more).
    async fn provenance(&self, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, StoreError>;

    /// The whole registry, consistent with its revision.
    async fn registry(&self) -> Result<RegistryState, StoreError>;

    /// The registry's revision alone, for a cheap look whether anything changed.
    async fn registry_revision(&self) -> Result<u64, StoreError>;

    /// Changes the registry if it is still at the expected revision, and gives the new revision
    /// (expected + 1); `None` if it is not.
    async fn change_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError>;

    /// The archived schema versions of an entity type, oldest first.
    async fn archive(&self, entity_type: &EntityType) -> Result<Vec<(u32, String)>, StoreError>;

    /// Keeps the note of a job under its id, in place of an earlier one.
    async fn put_job(&self, id: &str, note: &str) -> Result<(), StoreError>;

    /// The notes of all jobs with their ids, in no order.
    async fn jobs(&self) -> Result<Vec<(String, String)>, StoreError>;

    /// Forgets jobs; ids that are not there are no error.
    async fn delete_jobs(&self, ids: &[String]) -> Result<(), StoreError>;

    /// Appends to the log of what a feature service served, and lets go of what is past its bounds. An
    /// entry that is there already, by time and id, is not appended twice.
    async fn append_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError>;

    /// The first entries of a part of a log, at most `limit`, in the order of time and id.
    async fn read_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError>;

    /// Removes a log; one that is not there is no error.
    async fn delete_log(&self, log: &FeatureServiceName) -> Result<(), StoreError>;

    /// Frees what no longer has to be kept at `now`, a bounded amount a call; says how many
    /// entities, histories and provenance records went. A store that does this by itself has
    /// nothing to do.
    async fn reap(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Tells `watcher` of every change of an entity from now on, whoever makes it: see [`Told`].
    /// Of changes that are under way when this is called it may or may not tell. Where it has to
    /// vouch for having told everything it does so about every `vouch_every`. Call it within the
    /// runtime that the store is used in.
    fn watch(&self, watcher: Arc<dyn Watcher>, vouch_every: Duration) -> Told;

    /// Asks the store for a sign of life. For an embedded store: that it can read and write.
    async fn ping(&self) -> Result<(), StoreError>;

    async fn describe(&self) -> Result<StoreDescription, StoreError>;

    /// Finishes what is under way and closes the store. Calls after this fail as unavailable.
    async fn close(&self);
}

/// A store that copies itself while it is in use, for want of anybody else who could.
pub trait Backup: Send + Sync + 'static {
    /// Everything as it is at one moment, which is not before this call, in pieces. After an error
    /// there are no more. A receiver that takes nothing for a minute is taken to have gone.
    fn backup(&self) -> mpsc::Receiver<Result<Bytes, StoreError>>;
}

/// The head as both stores write it: `version`, a colon, the time of creation in milliseconds.
pub(crate) fn head_text(head: &Head) -> String {
    format!("{}:{}", head.version, head.created_at.as_millis())
}

/// Reads what [`head_text`] wrote.
pub(crate) fn parse_head(text: &[u8]) -> Option<Head> {
    let (version, millis) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let created_at = Timestamp::from_millis(millis.parse().ok()?)?;
    Some(Head { version: version.parse().ok().filter(|version| *version > 0)?, created_at })
}
