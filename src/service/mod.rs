//! The use cases. They check what was asked against the registry, load what the rules need, let
//! [`crate::domain`] decide and have a [`Store`] carry it out.

pub mod answer;
pub mod at_hand;
pub mod backup;
pub mod batch;
pub mod columns;
pub mod compile;
pub mod compute;
pub mod embeddings;
pub mod entities;
pub mod error;
pub mod export;
pub mod export_file;
pub mod frame;
pub mod history;
pub mod import;
pub mod jobs;
mod lane;
mod locks;
pub mod meters;
pub mod principal;
pub mod read;
pub mod registry;
pub mod rollback;
pub mod rows;
pub mod selection;
pub mod serving_log;
pub mod snapshot;
mod spine;
pub mod training;
pub mod undo;
pub mod undo_report;
mod walk;
pub mod watch;
pub mod write;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::domain::compiled::Defaults;
use crate::domain::time::{Span, Timestamp};
use crate::monitor::Performance;
pub use crate::store::StoreDescription;
use crate::store::cache::{CacheConfig, CacheStats, NearCache};
use crate::store::{Backup, Store, StoreError};

use self::backup::Backups;
use self::embeddings::EmbeddingProvider;
use self::error::ServiceError;
use self::export_file::ExportFiles;
use self::jobs::Jobs;
use self::locks::EntityLocks;
use self::meters::Meters;
use self::registry::Registry;
use self::selection::Resolved;
use self::serving_log::ServingLog;

/// What the use cases need of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub defaults: Defaults,
    /// Whether unknown features and entity types are registered with inferred types.
    pub auto_register: bool,
    pub max_clock_skew: Span,
    pub history_ttl: Span,
    /// Whether no other process uses the store.
    pub exclusive_store: bool,
    pub limits: Limits,
    /// `None`: every read is answered by the store.
    pub cache: Option<CacheConfig>,
}

/// How much one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a batch write, or entities of a batch read.
    pub max_batch_size: usize,
    /// Features of one write, one read or one feature service.
    pub max_features: usize,
    /// Entity ids on one page of a listing.
    pub max_page_size: usize,
}

/// The feature store: every use case is a method, in the file of its noun.
pub struct FeatureStore {
    store: Arc<dyn Store>,
    cache: Option<Arc<NearCache>>,
    clock: Arc<dyn Clock>,
    registry: Registry,
    resolved: Resolved,
    settings: Settings,
    locks: EntityLocks,
    meters: Meters,
    embedding_provider: Arc<dyn EmbeddingProvider>,
    jobs: Arc<Jobs>,
    /// The turns of imports.
    imports: Semaphore,
    /// `None`: the store is copied by others.
    backups: Option<Backups>,
    serving_log: ServingLog,
    /// `None`: exports are not kept.
    export_files: Option<ExportFiles>,
}

impl FeatureStore {
    /// Call it within the runtime that the store is used in.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        embedding_provider: Arc<dyn EmbeddingProvider>,
        performance: Option<Arc<Performance>>,
    ) -> Self {
        let registry = Registry::new(store.clone(), clock.clone(), settings.defaults);
        let (locks, meters) = (EntityLocks::default(), Meters::new(performance));
        let jobs = Arc::new(Jobs::new(store.clone(), clock.clone(), settings.exclusive_store));
        let cache = settings.cache.map(|config| NearCache::new(&*store, config, clock.clone()));
        let serving_log = ServingLog::start(store.clone());
        let imports = Semaphore::new(import::CONCURRENT_IMPORTS);
        Self {
            store,
            cache,
            clock,
            registry,
            resolved: Resolved::default(),
            settings,
            locks,
            meters,
            embedding_provider,
            jobs,
            imports,
            backups: None,
            serving_log,
            export_files: None,
        }
    }

    /// With a store that can be asked for a copy.
    pub fn with_backup(mut self, store: Arc<dyn Backup>) -> Self {
        self.backups = Some(Backups::new(store));
        self
    }

    /// With a place where exports are kept as files.
    pub fn with_export_files(mut self, files: ExportFiles) -> Self {
        self.export_files = Some(files);
        self
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// What is recorded of the server; `None` where monitoring is off.
    pub fn performance(&self) -> Option<&Arc<Performance>> {
        self.meters.performance()
    }

    /// Moves what was recorded into its windows, as of now.
    pub fn settle_performance(&self) {
        if let Some(stats) = self.cache_stats() {
            self.meters.cached(&stats);
        }
        if let Some(performance) = self.performance() {
            let snapshot = self.registry.snapshot();
            performance.settle(self.clock.now(), |name| snapshot.entity_type(name).cloned());
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How the near cache does; `None` where there is none.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(|cache| cache.stats())
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    /// What the store says of itself.
    pub async fn describe_store(&self) -> Result<StoreDescription, StoreError> {
        self.store.describe().await
    }

    /// Frees what has expired, where the store does not do so by itself, and the files of exports.
    pub async fn reap(&self) -> Result<usize, ServiceError> {
        let swept = self.sweep_exports().await;
        Ok(self.store.reap(self.clock.now()).await? + swept?)
    }

    /// Finishes what is under way and closes the store.
    pub async fn close(&self) {
        self.serving_log.flush().await;
        self.store.close().await;
    }
}
