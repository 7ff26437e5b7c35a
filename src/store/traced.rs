//! A store whose calls are parts of traces. Only there where anything is traced.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::log::{LogBounds, LogEntry, LogRange};
use super::watch::{Told, Watcher};
use super::{CommitOutcome, Load, Page, RegistryChange, RegistryState, Store, StoreDescription, StoreError};
use crate::domain::name::{EntityKey, EntityType, FeatureServiceName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{Commit, EntityRecords};
use crate::domain::time::Timestamp;
use crate::trace::{self, Span};

/// A store that is traced.
pub struct Traced {
    store: Arc<dyn Store>,
    backend: &'static str,
}

impl Traced {
    pub fn new(store: Arc<dyn Store>, backend: &'static str) -> Self {
        Self { store, backend }
    }

    /// A span of one call; `count` is of entities or other things that it is about.
    fn span(&self, name: &'static str, count: usize) -> Span {
        let span = trace::call(name);
        span.set("db.system.name", || self.backend);
        span.set("feature_store.count", || i64::try_from(count).unwrap_or(i64::MAX));
        span
    }

    async fn trace<T>(
        &self,
        name: &'static str,
        count: usize,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let span = self.span(name, count);
        let result = work.await;
        if let Err(error) = &result {
            span.fail(error.kind());
        }
        result
    }
}

#[async_trait]
impl Store for Traced {
    async fn load(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        self.trace("store.load", loads.len(), self.store.load(loads)).await
    }

    fn recall(&self, load: &Load<'_>) -> Option<EntityRecords> {
        self.store.recall(load)
    }

    async fn commit(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        let span = self.span("store.commit", commits.len());
        let results = self.store.commit(commits).await;
        if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
            span.fail(error.kind());
        }
        results
    }

    async fn delete_entities(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError> {
        self.trace("store.delete", entities.len(), self.store.delete_entities(entities)).await
    }

    async fn list(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.trace("store.list", limit, self.store.list(entity_type, cursor, limit)).await
    }

    async fn intern(
        &self,
        provenance: &Provenance,
        until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError> {
        self.trace("store.intern", 1, self.store.intern(provenance, until)).await
    }

    async fn provenance(&self, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, StoreError> {
        self.trace("store.provenance", ids.len(), self.store.provenance(ids)).await
    }

    async fn registry(&self) -> Result<RegistryState, StoreError> {
        self.trace("store.registry", 1, self.store.registry()).await
    }

    async fn registry_revision(&self) -> Result<u64, StoreError> {
        self.trace("store.registry_revision", 1, self.store.registry_revision()).await
    }

    async fn change_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError> {
        let count = change.put.len() + change.delete.len();
        self.trace("store.change_registry", count, self.store.change_registry(change)).await
    }

    async fn archive(&self, entity_type: &EntityType) -> Result<Vec<(u32, String)>, StoreError> {
        self.trace("store.archive", 1, self.store.archive(entity_type)).await
    }

    async fn put_job(&self, id: &str, note: &str) -> Result<(), StoreError> {
        self.trace("store.put_job", 1, self.store.put_job(id, note)).await
    }

    async fn jobs(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.trace("store.jobs", 1, self.store.jobs()).await
    }

    async fn delete_jobs(&self, ids: &[String]) -> Result<(), StoreError> {
        self.trace("store.delete_jobs", ids.len(), self.store.delete_jobs(ids)).await
    }

    async fn append_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError> {
        let appended = self.store.append_log(log, entries, bounds);
        self.trace("store.append_log", entries.len(), appended).await
    }

    async fn read_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.trace("store.read_log", limit, self.store.read_log(log, range, limit)).await
    }

    async fn delete_log(&self, log: &FeatureServiceName) -> Result<(), StoreError> {
        self.trace("store.delete_log", 1, self.store.delete_log(log)).await
    }

    async fn reap(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.store.reap(now).await
    }

    fn watch(&self, watcher: Arc<dyn Watcher>, vouch_every: Duration) -> Told {
        self.store.watch(watcher, vouch_every)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.trace("store.ping", 1, self.store.ping()).await
    }

    async fn describe(&self) -> Result<StoreDescription, StoreError> {
        self.trace("store.describe", 1, self.store.describe()).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
