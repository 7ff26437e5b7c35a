//! What models got: of feature services that ask for it, a share of the reads is kept as it was
//! answered, for training sets that cannot skew.
//!
//! A read only passes on what it has answered anyway, into a queue of bounded size. Where that is full
//! the read is not kept, and counted as such: reads never wait for their log. A task takes what is
//! queued, writes it as [`entry`] says, and appends it to the store in groups. [`export`] makes tables
//! of it.

mod entry;
pub mod export;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::FeatureStore;
use super::answer::{ReadAnswer, TypeAnswer};
use super::error::ServiceError;
use crate::domain::feature_service::ServingLogSpec;
use crate::domain::name::{FeatureServiceName, FeatureServiceRef};
use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::log::{LogBounds, LogEntry};

/// So many answers of single features wait at most.
const ROOM: usize = 200_000;
/// So many reads wait at most.
const QUEUE: usize = 4096;
/// So many reads are appended together at most.
const GROUP: usize = 256;
/// How long a group gathers.
const LINGER: Duration = Duration::from_millis(20);
/// A read that takes more bytes is not kept.
const MAX_ENTRY_BYTES: usize = 1 << 20;

const READS: &str = "feature_store_serving_log_reads_total";

/// The way of reads into their logs.
pub struct ServingLog {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    full: Counter,
}

enum Message {
    Read(Box<Read>),
    /// Answered when everything before it is in the store, or lost.
    Flush(oneshot::Sender<()>),
}

/// A read that is to be kept.
struct Read {
    service: FeatureServiceName,
    spec: ServingLogSpec,
    version: u32,
    /// When that version was made: tells it from one of a service that was deleted and put anew.
    version_created_at: Timestamp,
    served_at: Timestamp,
    request_id: Box<str>,
    types: Vec<TypeAnswer>,
    _room: OwnedSemaphorePermit,
}

impl ServingLog {
    /// Call it within the runtime that the store is used in.
    pub fn start(store: Arc<dyn Store>) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let outcome = |outcome: &'static str| {
            let counter = counter!(READS, "outcome" => outcome);
            counter.increment(0);
            counter
        };
        let keeper = Keeper {
            store,
            kept: outcome("kept"),
            too_large: outcome("too_large"),
            failed: outcome("store_failed"),
        };
        tokio::spawn(keeper.run(messages));
        Self { queue, room: Arc::new(Semaphore::new(ROOM)), full: outcome("queue_full") }
    }

    fn offer(&self, read: impl FnOnce(OwnedSemaphorePermit) -> Read, answers: usize) {
        let room = u32::try_from(answers)
            .ok()
            .and_then(|answers| self.room.clone().try_acquire_many_owned(answers).ok());
        let sent = room.and_then(|room| self.queue.try_send(Message::Read(Box::new(read(room)))).ok());
        if sent.is_none() {
            self.full.increment(1);
        }
    }

    /// Waits until what was served before is in the store, or lost.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

impl FeatureStore {
    /// Keeps what a feature service was answered, if its log asks for it and this read is drawn.
    pub(super) fn log_served<T>(
        &self,
        reference: &FeatureServiceRef,
        request_id: Option<&str>,
        read: &ReadAnswer<T>,
        types: &[TypeAnswer],
    ) {
        let snapshot = self.registry.snapshot();
        let Some(service) = snapshot.feature_service(&reference.name) else { return };
        // Whether to keep a log is for the latest version to say, of the others too.
        let Some(spec) = service.version(None).and_then(|latest| latest.spec.serving_log.as_ref()) else {
            return;
        };
        let Some(version) = service.version(reference.version) else { return };
        if !spec.sample_rate.draws(rand::random()) {
            return;
        }
        let answers = types.iter().map(|of_type| of_type.len() * of_type.columns.names().len()).sum();
        let keep = |room| Read {
            service: service.name.clone(),
            spec: spec.clone(),
            version: version.version,
            version_created_at: version.created_at,
            served_at: read.now,
            request_id: request_id.unwrap_or_default().into(),
            types: types.to_vec(),
            _room: room,
        };
        self.serving_log.offer(keep, answers);
    }

    /// Deletes a feature service with what was served by it.
    pub async fn delete_feature_service(&self, name: &FeatureServiceName) -> Result<(), ServiceError> {
        self.registry.delete_feature_service(name).await?;
        self.serving_log.flush().await;
        Ok(self.store.delete_log(name).await?)
    }
}

/// The end of the queue.
struct Keeper {
    store: Arc<dyn Store>,
    kept: Counter,
    too_large: Counter,
    failed: Counter,
}

type Groups = HashMap<FeatureServiceName, (ServingLogSpec, Vec<LogEntry>)>;

impl Keeper {
    async fn run(self, mut messages: mpsc::Receiver<Message>) {
        while let Some(first) = messages.recv().await {
            let mut groups = Groups::new();
            let mut flushed = Vec::new();
            if matches!(first, Message::Read(_)) {
                tokio::time::sleep(LINGER).await;
            }
            let mut next = Some(first);
            let mut reads = 0;
            while let Some(message) = next {
                match message {
                    Message::Read(read) => {
                        reads += 1;
                        self.gather(*read, &mut groups);
                    }
                    Message::Flush(done) => flushed.push(done),
                }
                next = if reads < GROUP && flushed.is_empty() { messages.try_recv().ok() } else { None };
            }
            for (service, (spec, entries)) in groups {
                self.append(&service, &spec, &entries).await;
            }
            flushed.into_iter().for_each(|done| {
                // Whoever waited may have given up.
                let _ = done.send(());
            });
        }
    }

    fn gather(&self, read: Read, groups: &mut Groups) {
        let body = match entry::encode(&read) {
            Ok(body) if body.len() <= MAX_ENTRY_BYTES => body,
            Ok(_) => return self.too_large.increment(1),
            Err(error) => {
                tracing::error!(%error, "what was served cannot be written down");
                return self.failed.increment(1);
            }
        };
        let entry = LogEntry { at: read.served_at, id: rand::random(), body: body.into() };
        let group = groups.entry(read.service).or_insert_with(|| (read.spec.clone(), Vec::new()));
        group.0 = read.spec;
        group.1.push(entry);
    }

    async fn append(&self, service: &FeatureServiceName, spec: &ServingLogSpec, entries: &[LogEntry]) {
        let Some(newest) = entries.iter().map(|entry| entry.at).max() else { return };
        let since = newest.as_micros() - spec.ttl.as_micros();
        let bounds = LogBounds {
            since: Timestamp::from_micros(since).unwrap_or(Timestamp::MIN),
            until: newest + spec.ttl,
            most: spec.max_reads as usize,
        };
        let count = entries.len() as u64;
        match self.store.append_log(service, entries, bounds).await {
            Ok(()) => self.kept.increment(count),
            Err(error) => {
                tracing::warn!(%error, %service, count, "what was served is not kept");
                self.failed.increment(count);
            }
        }
    }
}
