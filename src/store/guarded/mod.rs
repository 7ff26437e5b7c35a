//! Stands before a store and keeps trouble there from becoming trouble here: every call ends in
//! time, what is safe to repeat is repeated within a [`budget`], and a [`circuit`] refuses at once
//! while the store is known to be down, instead of letting requests pile up. What requests begin with,
//! loads, are kept to a [`limit`] where the store has more to do than it can.
//!
//! Reads and writes have a circuit each: a server that is full, or that was made a replica, refuses
//! writes and goes on to answer reads.
//!
//! **What is repeated.** Reads, where the store could not be reached or the connection broke.
//! Writes, where nothing was carried out ([`StoreError::Unavailable`]), or where to do it twice is
//! to do it once: interning, notes of jobs. A commit that *may* have been carried out is not
//! repeated here, although the head would keep it from being stored twice: the answer would be a
//! conflict with itself, and a write with `If-Match` would be refused over its own success. The
//! client is told that it may send the write again, which finds its event there or not there. Nor
//! is anything repeated after a timeout: asking a slow store twice makes it slower.

mod budget;
mod circuit;
mod limit;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::timeout_at;

use self::budget::Budget;
use self::circuit::{Admission, Circuit, Ended};
use self::limit::Limit;
use super::log::{LogBounds, LogEntry, LogRange};
use super::watch::{Told, Watcher};
use super::{CommitOutcome, Load, Page, RegistryChange, RegistryState, Store, StoreDescription, StoreError};
use crate::domain::name::{EntityKey, EntityType, FeatureServiceName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{Commit, EntityRecords};
use crate::domain::time::Timestamp;

/// The pause before the first retry, about; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How a store is guarded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A call is given up after so long, retries included.
    pub timeout: Duration,
    /// So often a call is repeated at most.
    pub retries: u32,
    /// So many failures without an answer in between open a circuit; 0: none ever opens.
    pub failures_to_open: u32,
}

/// A store that is guarded.
pub struct Guarded {
    store: Arc<dyn Store>,
    options: Options,
    reads: Breaker,
    writes: Breaker,
    loads: Crowd,
    calls: AtomicU64,
    budget: Mutex<Budget>,
    retries: Counter,
}

/// A circuit that many calls use at the same time.
struct Breaker {
    operations: &'static str,
    /// Nothing is wrong: spares every call the lock while that is so.
    calm: AtomicBool,
    circuit: Mutex<Circuit>,
    open: Gauge,
    refused: Counter,
}

/// A call's way through a breaker; tells it where nobody waited for the end.
struct Pass<'a> {
    breaker: &'a Breaker,
    admission: Admission,
    is_settled: bool,
}

impl Breaker {
    fn new(operations: &'static str, failures_to_open: u32) -> Self {
        let open = gauge!("feature_store_store_circuit_open", "operations" => operations);
        open.set(0.0);
        Self {
            operations,
            calm: AtomicBool::new(true),
            circuit: Mutex::new(Circuit::new(failures_to_open)),
            open,
            refused: counter!("feature_store_store_refused_total", "operations" => operations),
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        // Nothing panics while it holds the lock, and the state would be whole if it did.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self) -> Result<Pass<'_>, StoreError> {
        let admission = match self.calm.load(Ordering::Relaxed) {
            true => Admission::Call,
            false => self.circuit().admit(Instant::now()),
        };
        match admission {
            Admission::Call | Admission::Probe => Ok(Pass { breaker: self, admission, is_settled: false }),
            Admission::Refused => {
                self.refused.increment(1);
                Err(StoreError::Unavailable(format!("it is known to be down for {}", self.operations)))
            }
        }
    }

    fn ended(&self, admission: Admission, ended: Ended) {
        if ended != Ended::Failed && self.calm.load(Ordering::Relaxed) {
            return;
        }
        let mut circuit = self.circuit();
        let was_open = circuit.is_open();
        circuit.ended(admission, ended, Instant::now());
        self.calm.store(circuit.is_calm(), Ordering::Relaxed);
        let is_open = circuit.is_open();
        if is_open != was_open {
            self.open.set(if is_open { 1.0 } else { 0.0 });
            match is_open {
                true => tracing::warn!(operations = self.operations, "the store is down: refusing at once"),
                false => tracing::info!(operations = self.operations, "the store answers again"),
            }
        }
    }
}

impl Pass<'_> {
    fn settle(mut self, ended: Ended) {
        self.is_settled = true;
        self.breaker.ended(self.admission, ended);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.breaker.ended(self.admission, Ended::Abandoned);
        }
    }
}

/// The calls of one kind that are under way.
struct Crowd {
    limit: Mutex<Limit>,
}

/// A call's place among them, however it ends.
struct Place<'a> {
    crowd: &'a Crowd,
    began: Instant,
}

impl Crowd {
    fn limit(&self) -> MutexGuard<'_, Limit> {
        // As with the circuit.
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<Place<'_>, StoreError> {
        match self.limit().begin() {
            true => Ok(Place { crowd: self, began: Instant::now() }),
            false => Err(StoreError::Crowded),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.crowd.limit().end(now - self.began, now);
    }
}

/// What may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Done twice is done once.
    Always,
    /// Only where nothing was carried out.
    IfUndone,
}

impl Repeat {
    fn allows(self, error: &StoreError) -> bool {
        match error {
            StoreError::Unavailable(_) => true,
            StoreError::Interrupted(_) => self == Self::Always,
            StoreError::Timeout
            | StoreError::Crowded
            | StoreError::Corrupt { .. }
            | StoreError::Internal(_) => false,
        }
    }
}

/// A kind of call.
#[derive(Clone, Copy, Debug)]
struct Call {
    repeat: Repeat,
    /// Whether the store may answer from memory, which is no sign that it can be reached.
    from_memory: bool,
}

impl Call {
    /// A read, or a write that done twice is done once.
    const REPEATABLE: Self = Self { repeat: Repeat::Always, from_memory: false };
    const ONCE: Self = Self { repeat: Repeat::IfUndone, from_memory: false };
    /// What is interned is remembered by writers and readers alike.
    const PROVENANCE: Self = Self { repeat: Repeat::Always, from_memory: true };
}

fn ended<T>(result: &Result<T, StoreError>) -> Ended {
    match result {
        Ok(_) | Err(StoreError::Crowded | StoreError::Corrupt { .. } | StoreError::Internal(_)) => {
            Ended::Answered
        }
        Err(StoreError::Unavailable(_) | StoreError::Interrupted(_) | StoreError::Timeout) => Ended::Failed,
    }
}

impl Guarded {
    pub fn new(store: Arc<dyn Store>, options: Options) -> Self {
        Self {
            store,
            options,
            reads: Breaker::new("reads", options.failures_to_open),
            writes: Breaker::new("writes", options.failures_to_open),
            loads: Crowd { limit: Mutex::new(Limit::new(Instant::now())) },
            calls: AtomicU64::new(0),
            budget: Mutex::new(Budget::new(Instant::now())),
            retries: counter!("feature_store_store_retries_total"),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    /// Pauses before the retry after `attempt`; false where there is to be none.
    async fn pause(&self, attempt: u32, deadline: Instant) -> bool {
        // Between half and all of it, so that what failed together does not come back together.
        let pause = FIRST_PAUSE * (1 << attempt.min(10));
        let pause = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        if attempt >= self.options.retries || Instant::now() + pause >= deadline {
            return false;
        }
        let in_budget = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.take(self.calls.load(Ordering::Relaxed), Instant::now())
        };
        if in_budget {
            self.retries.increment(1);
            tokio::time::sleep(pause).await;
        }
        in_budget
    }

    /// Makes one call, again where that is allowed and affordable.
    async fn call<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        breaker: &Breaker,
        kind: Call,
        call: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let deadline = self.deadline();
        let mut attempt = 0;
        loop {
            let pass = breaker.admit()?;
            let result = timeout_at(deadline.into(), call()).await.unwrap_or(Err(StoreError::Timeout));
            match ended(&result) {
                // Proves nothing: whoever comes next finds out.
                Ended::Answered if kind.from_memory => drop(pass),
                ended => pass.settle(ended),
            }
            match result {
                Err(error) if kind.repeat.allows(&error) => {
                    if !self.pause(attempt, deadline).await {
                        return Err(error);
                    }
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Asks past the circuit, which hears of the answer.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let pass = Pass { breaker: &self.reads, admission: Admission::Call, is_settled: false };
        let result = timeout_at(self.deadline().into(), call).await.unwrap_or(Err(StoreError::Timeout));
        pass.settle(ended(&result));
        result
    }

    /// One attempt to commit, timed and noted.
    async fn commit_once(
        &self,
        commits: &[Commit],
        deadline: Instant,
    ) -> Vec<Result<CommitOutcome, StoreError>> {
        let all = |error: StoreError| vec![Err(error); commits.len()];
        let pass = match self.writes.admit() {
            Ok(pass) => pass,
            Err(error) => return all(error),
        };
        let attempt = timeout_at(deadline.into(), self.store.commit(commits));
        let results = attempt.await.unwrap_or_else(|_| all(StoreError::Timeout));
        // A part of a cluster that fails must not silence the rest of it.
        let failed = !results.is_empty() && results.iter().all(|result| ended(result) == Ended::Failed);
        pass.settle(if failed { Ended::Failed } else { Ended::Answered });
        results
    }
}

#[async_trait]
impl Store for Guarded {
    async fn load(&self, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, StoreError> {
        let _place = self.loads.enter()?;
        self.call(&self.reads, Call::REPEATABLE, || self.store.load(loads)).await
    }

    fn recall(&self, load: &Load<'_>) -> Option<EntityRecords> {
        self.store.recall(load)
    }

    async fn commit(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let deadline = self.deadline();
        let mut results = self.commit_once(commits, deadline).await;
        let mut attempt = 0;
        loop {
            let may_repeat =
                |result: &Result<_, _>| result.as_ref().is_err_and(|error| Repeat::IfUndone.allows(error));
            let undone: Vec<usize> =
                (0..results.len()).filter(|index| may_repeat(&results[*index])).collect();
            if undone.is_empty() || !self.pause(attempt, deadline).await {
                return results;
            }
            attempt += 1;
            let again: Vec<Commit> = undone.iter().map(|index| commits[*index].clone()).collect();
            let outcomes = self.commit_once(&again, deadline).await;
            for (index, outcome) in undone.into_iter().zip(outcomes) {
                results[index] = outcome;
            }
        }
    }

    async fn delete_entities(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError> {
        self.call(&self.writes, Call::ONCE, || self.store.delete_entities(entities)).await
    }

    async fn list(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.call(&self.reads, Call::REPEATABLE, || self.store.list(entity_type, cursor, limit)).await
    }

    async fn intern(
        &self,
        provenance: &Provenance,
        until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError> {
        self.call(&self.writes, Call::PROVENANCE, || self.store.intern(provenance, until)).await
    }

    async fn provenance(&self, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, StoreError> {
        self.call(&self.reads, Call::PROVENANCE, || self.store.provenance(ids)).await
    }

    async fn registry(&self) -> Result<RegistryState, StoreError> {
        self.call(&self.reads, Call::REPEATABLE, || self.store.registry()).await
    }

    async fn registry_revision(&self) -> Result<u64, StoreError> {
        self.call(&self.reads, Call::REPEATABLE, || self.store.registry_revision()).await
    }

    async fn change_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError> {
        self.call(&self.writes, Call::ONCE, || self.store.change_registry(change)).await
    }

    async fn archive(&self, entity_type: &EntityType) -> Result<Vec<(u32, String)>, StoreError> {
        self.call(&self.reads, Call::REPEATABLE, || self.store.archive(entity_type)).await
    }

    async fn put_job(&self, id: &str, note: &str) -> Result<(), StoreError> {
        self.call(&self.writes, Call::REPEATABLE, || self.store.put_job(id, note)).await
    }

    async fn jobs(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.call(&self.reads, Call::REPEATABLE, || self.store.jobs()).await
    }

    async fn delete_jobs(&self, ids: &[String]) -> Result<(), StoreError> {
        self.call(&self.writes, Call::REPEATABLE, || self.store.delete_jobs(ids)).await
    }

    async fn append_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError> {
        self.call(&self.writes, Call::REPEATABLE, || self.store.append_log(log, entries, bounds)).await
    }

    async fn read_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.call(&self.reads, Call::REPEATABLE, || self.store.read_log(log, range, limit)).await
    }

    async fn delete_log(&self, log: &FeatureServiceName) -> Result<(), StoreError> {
        self.call(&self.writes, Call::REPEATABLE, || self.store.delete_log(log)).await
    }

    /// Nobody waits for it, and it may be long.
    async fn reap(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.store.reap(now).await
    }

    fn watch(&self, watcher: Arc<dyn Watcher>, vouch_every: Duration) -> Told {
        self.store.watch(watcher, vouch_every)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask(self.store.ping()).await
    }

    async fn describe(&self) -> Result<StoreDescription, StoreError> {
        self.ask(self.store.describe()).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
