//! The store on Redis: one server, Sentinel or Cluster.
//!
//! ```text
//! fs:{product:123}            hash: a field per feature, and the head in the field @
//! fs:{product:123}:large      hash: embeddings and long texts
//! fs:{product:123}:v          list: what writes of several features superseded, a row each
//! fs:{product:123}:v:price    sorted set: other superseded records of a feature, by event time (µs)
//! fs:{provenance}:…           next (counter), digest:<digest> → id, <id> → record
//! fs:log:{ranking}            sorted set: what a feature service served, by time
//! fs:{registry}:…             revision, entity_types, feature_services, schema_versions:<type>
//! ```
//! In the order data flows: [`connect`] makes [`link`]s from a URL; `keys` names things; `load` reads,
//! guided by the `widths` of entities; `commit`, `delete`, `list`, `provenance` and `registry` write
//! through `batch`, which runs the `script`s. Loads and commits that come together go together by way of
//! `gather`, commits as `several` in one run, each `packed` into one argument; `recall` spares writes the
//! load. `rows` are the shape of a history; `reply` and `errors` take apart what comes back. [`tracking`]
//! hears of changes.

mod batch;
mod commit;
mod connect;
mod delete;
mod describe;
mod errors;
mod gather;
mod jobs;
mod keys;
mod link;
mod list;
mod load;
mod log;
mod packed;
mod provenance;
mod recall;
mod registry;
mod reply;
mod rows;
mod script;
mod several;
mod tracking;
mod widths;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use self::batch::Replication;
use self::connect::Links;
pub use self::connect::RedisConfig;
use self::gather::Gathered;
use self::keys::Keys;
use self::load::Loads;
use self::provenance::Memory;
use self::recall::Recall;
use self::script::Scripts;
use self::several::Commits;
use self::tracking::Tracking;
use self::widths::Widths;
use crate::domain::name::{EntityKey, EntityType, FeatureServiceName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{Commit, EntityRecords};
use crate::domain::time::Timestamp;
use crate::store::log::{LogBounds, LogEntry, LogRange};
use crate::store::watch::{Told, Watcher, Watchers};
use crate::store::{
    CommitOutcome, Load, Page, RegistryChange, RegistryState, Store, StoreDescription, StoreError,
};

/// A store on Redis 6.2 or later.
pub struct RedisStore {
    links: Arc<Links>,
    config: RedisConfig,
    watchers: Arc<Watchers>,
    tracking: OnceLock<Tracking>,
    keys: Keys,
    scripts: Arc<Scripts>,
    replication: Replication,
    memory: Memory,
    widths: Widths,
    recall: Recall,
    loads: Arc<Gathered<Loads>>,
    commits: Arc<Gathered<Commits>>,
}

impl RedisStore {
    /// `redis`, `redis-cluster` or `redis-sentinel`.
    pub fn backend(&self) -> &'static str {
        self.links.topology.backend()
    }

    /// Connects, in the background if it takes longer than the connect timeout: Redis being down
    /// is no error here. Until it is up, everything fails as [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// [`StoreError::Internal`] for a configuration that can never work, without its secrets.
    pub async fn connect(config: RedisConfig) -> Result<Self, StoreError> {
        let Some(keys) = Keys::new(&config.key_prefix) else {
            let prefix = &config.key_prefix;
            return Err(StoreError::Internal(format!(
                "the key prefix {prefix:?} may hold letters, digits and _-.:/ only"
            )));
        };
        let links = Arc::new(Links::connect(&config).await?);
        let scripts = Arc::new(Scripts::new());
        // Half, so that the answer "not enough replicas" still comes in time.
        let replication = Replication { replicas: config.wait_replicas, timeout: config.command_timeout / 2 };
        let (of_loads, of_commits) = (links.clone(), links.clone());
        Ok(Self {
            loads: Gathered::new(Loads(of_loads), config.command_timeout),
            commits: Gathered::new(
                Commits { links: of_commits, replication, scripts: scripts.clone() },
                config.command_timeout,
            ),
            widths: Widths::default(),
            recall: Recall::default(),
            links,
            watchers: Arc::default(),
            tracking: OnceLock::new(),
            keys,
            scripts,
            replication,
            memory: Memory::default(),
            config,
        })
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn load(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        self.load_all(loads).await
    }

    fn recall(&self, load: &Load<'_>) -> Option<EntityRecords> {
        self.recall.recall(self.links.generation(), load)
    }

    async fn commit(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        let generation = self.links.generation();
        let results = self.commit_all(commits).await;
        for (commit, result) in commits.iter().zip(&results) {
            match result {
                Ok(CommitOutcome::Committed) => self.recall.committed(generation, commit),
                Ok(CommitOutcome::Conflict) => self.recall.overtaken(commit),
                Err(_) => self.recall.forget(&commit.entity),
            }
            // A failed one too, which may have been carried out all the same.
            self.watchers.changed(&commit.entity);
        }
        results
    }

    async fn delete_entities(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError> {
        let results = self.delete_all(entities).await;
        for entity in entities {
            self.recall.forget(entity);
            self.watchers.changed(entity);
        }
        results
    }

    async fn list(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.list_page(entity_type, cursor, limit).await
    }

    async fn intern(
        &self,
        provenance: &Provenance,
        until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError> {
        self.intern_one(provenance, until).await
    }

    async fn provenance(&self, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, StoreError> {
        self.provenance_of(ids).await
    }

    async fn registry(&self) -> Result<RegistryState, StoreError> {
        self.read_registry().await
    }

    async fn registry_revision(&self) -> Result<u64, StoreError> {
        self.read_revision().await
    }

    async fn change_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError> {
        self.write_registry(change).await
    }

    async fn archive(&self, entity_type: &EntityType) -> Result<Vec<(u32, String)>, StoreError> {
        self.read_archive(entity_type).await
    }

    /// Redis expires keys by itself.
    async fn reap(&self, _now: Timestamp) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn put_job(&self, id: &str, note: &str) -> Result<(), StoreError> {
        self.write_job(id, note).await
    }

    async fn jobs(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.read_jobs().await
    }

    async fn delete_jobs(&self, ids: &[String]) -> Result<(), StoreError> {
        self.remove_jobs(ids).await
    }

    async fn append_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError> {
        self.write_log(log, entries, bounds).await
    }

    async fn read_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.entries_of_log(log, range, limit).await
    }

    async fn delete_log(&self, log: &FeatureServiceName) -> Result<(), StoreError> {
        self.remove_log(log).await
    }

    /// The server tells, on a connection of its own: see [`tracking`].
    fn watch(&self, watcher: Arc<dyn Watcher>, vouch_every: Duration) -> Told {
        self.watchers.add(watcher);
        let start = || {
            let (links, watchers) = (self.links.clone(), self.watchers.clone());
            Tracking::start(&self.config, self.keys.clone(), links, watchers, vouch_every)
        };
        self.tracking.get_or_init(start);
        Told::Soon
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ping_all().await
    }

    async fn describe(&self) -> Result<StoreDescription, StoreError> {
        self.describe_all().await
    }

    async fn close(&self) {
        if let Some(tracking) = self.tracking.get() {
            tracking.close().await;
        }
        self.links.close().await;
    }
}
