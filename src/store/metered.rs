//! Measures a store from outside: how long each operation takes and how it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{Counter, Histogram, counter, histogram};

use super::log::{LogBounds, LogEntry, LogRange};
use super::watch::{Told, Watcher};
use super::{CommitOutcome, Load, Page, RegistryChange, RegistryState, Store, StoreDescription, StoreError};
use crate::domain::name::{EntityKey, EntityType, FeatureServiceName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{Commit, EntityRecords};
use crate::domain::time::Timestamp;
use crate::monitor::{Performance, Tally};

/// A store that is measured.
pub struct Metered {
    store: Arc<dyn Store>,
    load: Meter,
    commit: Meter,
    delete: Meter,
    list: Meter,
    provenance: Meter,
    registry: Meter,
    jobs: Meter,
    serving_log: Meter,
    ping: Meter,
}

struct Meter {
    operation: &'static str,
    performance: Arc<Performance>,
    seconds: Histogram,
}

impl Meter {
    fn new(operation: &'static str, performance: &Arc<Performance>) -> Self {
        Self {
            operation,
            performance: performance.clone(),
            seconds: histogram!("feature_store_store_operation_duration_seconds", "operation" => operation),
        }
    }

    fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Unavailable(_) | StoreError::Interrupted(_) | StoreError::Timeout => {
                self.performance.count(Tally::StoreFailures, 1);
            }
            StoreError::Crowded | StoreError::Corrupt { .. } | StoreError::Internal(_) => {}
        }
        let kind = error.kind();
        let errors: Counter =
            counter!("feature_store_store_errors_total", "operation" => self.operation, "kind" => kind);
        errors.increment(1);
    }

    async fn measure<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = work.await;
        self.seconds.record(started.elapsed().as_secs_f64());
        if let Err(error) = &result {
            self.failed(error);
        }
        result
    }
}

impl Metered {
    pub fn new(store: Arc<dyn Store>, performance: &Arc<Performance>) -> Self {
        let meter = |operation| Meter::new(operation, performance);
        Self {
            store,
            load: meter("load"),
            commit: meter("commit"),
            delete: meter("delete"),
            list: meter("list"),
            provenance: meter("provenance"),
            registry: meter("registry"),
            jobs: meter("jobs"),
            serving_log: meter("serving_log"),
            ping: meter("ping"),
        }
    }
}

#[async_trait]
impl Store for Metered {
    async fn load(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        self.load.measure(self.store.load(loads)).await
    }

    fn recall(&self, load: &Load<'_>) -> Option<EntityRecords> {
        self.store.recall(load)
    }

    async fn commit(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        let started = Instant::now();
        let results = self.store.commit(commits).await;
        self.commit.seconds.record(started.elapsed().as_secs_f64());
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            self.commit.failed(error);
        }
        results
    }

    async fn delete_entities(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError> {
        self.delete.measure(self.store.delete_entities(entities)).await
    }

    async fn list(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.list.measure(self.store.list(entity_type, cursor, limit)).await
    }

    async fn intern(
        &self,
        provenance: &Provenance,
        until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError> {
        self.provenance.measure(self.store.intern(provenance, until)).await
    }

    async fn provenance(&self, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, StoreError> {
        self.provenance.measure(self.store.provenance(ids)).await
    }

    async fn registry(&self) -> Result<RegistryState, StoreError> {
        self.registry.measure(self.store.registry()).await
    }

    async fn registry_revision(&self) -> Result<u64, StoreError> {
        self.registry.measure(self.store.registry_revision()).await
    }

    async fn change_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError> {
        self.registry.measure(self.store.change_registry(change)).await
    }

    async fn archive(&self, entity_type: &EntityType) -> Result<Vec<(u32, String)>, StoreError> {
        self.registry.measure(self.store.archive(entity_type)).await
    }

    async fn put_job(&self, id: &str, note: &str) -> Result<(), StoreError> {
        self.jobs.measure(self.store.put_job(id, note)).await
    }

    async fn jobs(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.jobs.measure(self.store.jobs()).await
    }

    async fn delete_jobs(&self, ids: &[String]) -> Result<(), StoreError> {
        self.jobs.measure(self.store.delete_jobs(ids)).await
    }

    async fn append_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError> {
        self.serving_log.measure(self.store.append_log(log, entries, bounds)).await
    }

    async fn read_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.serving_log.measure(self.store.read_log(log, range, limit)).await
    }

    async fn delete_log(&self, log: &FeatureServiceName) -> Result<(), StoreError> {
        self.serving_log.measure(self.store.delete_log(log)).await
    }

    async fn reap(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.delete.measure(self.store.reap(now)).await
    }

    fn watch(&self, watcher: Arc<dyn Watcher>, vouch_every: Duration) -> Told {
        self.store.watch(watcher, vouch_every)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ping.measure(self.store.ping()).await
    }

    async fn describe(&self) -> Result<StoreDescription, StoreError> {
        self.store.describe().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
