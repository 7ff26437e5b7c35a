//! The one thread that writes.
//!
//! It takes everything that is queued, runs it in one transaction and commits that durably, so
//! that many writers share one fsync. Meanwhile the next group gathers.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};

use super::fault::Fault;
use super::key;
use super::open::{OpenError, Place};
use super::tables::{META, Tables, meta};
use crate::store::StoreError;
use crate::store::watch::Watchers;

/// So many submissions wait at most; further ones wait to be queued.
const QUEUE: usize = 1024;
/// A group takes no further submission once it has so many jobs: those who wait for its commit
/// must not wait for everybody.
const GROUP: usize = 1024;

/// A part of a group. It may run twice, where the transaction of its first run was given up.
pub trait Job: Send {
    fn run(&mut self, tables: &mut Tables) -> Result<(), Fault>;
    /// Answers: with the outcome of the last run, or with `failure`.
    fn finish(self: Box<Self>, failure: Option<StoreError>);
}

pub type Reply<T> = oneshot::Receiver<Result<T, StoreError>>;

struct Task<T, W> {
    work: W,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

/// A job that does `work`, and where its outcome will arrive.
pub fn job<T: Send + 'static>(
    work: impl FnMut(&mut Tables) -> Result<T, Fault> + Send + 'static,
) -> (Box<dyn Job>, Reply<T>) {
    let (reply, receiver) = oneshot::channel();
    (Box::new(Task { work, outcome: None, reply }), receiver)
}

impl<T: Send, W: FnMut(&mut Tables) -> Result<T, Fault> + Send> Job for Task<T, W> {
    fn run(&mut self, tables: &mut Tables) -> Result<(), Fault> {
        self.outcome = match (self.work)(tables) {
            Ok(value) => Some(Ok(value)),
            Err(Fault::Refused(error)) => Some(Err(error)),
            Err(fault @ (Fault::Engine(_) | Fault::Unsure(_))) => return Err(fault),
        };
        Ok(())
    }

    fn finish(self: Box<Self>, failure: Option<StoreError>) {
        let unrun = || Err(StoreError::Internal("a job was answered before it ran".to_owned()));
        let outcome = failure.map(Err).or(self.outcome).unwrap_or_else(unrun);
        // Whoever asked may have given up waiting.
        let _ = self.reply.send(outcome);
    }
}

/// Waits for the outcome of a job.
pub async fn answer<T>(reply: Reply<T>) -> Result<T, StoreError> {
    reply.await.unwrap_or_else(|_| Err(closed()))
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

enum Message {
    Jobs(Vec<Box<dyn Job>>),
    Close(oneshot::Sender<()>),
}

/// What readers and the writer's thread have in common.
#[derive(Debug)]
struct Shared {
    file: RwLock<State>,
    /// The engine refuses to go on until the file is opened again.
    broken: AtomicBool,
    /// The writer was asked to do that.
    asked: AtomicBool,
    /// The last write failed.
    failing: AtomicBool,
    /// Something was committed since the last checkpoint.
    unchecked: AtomicBool,
    watchers: Watchers,
}

#[derive(Debug)]
enum State {
    Open(Database),
    /// After a failure, until it can be opened again; why it could not be.
    Reopening(String),
    Closed,
}

impl Shared {
    // Nothing panics while it holds the lock, and the state would be whole if it did.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.file.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.file.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_read(&self) -> Result<ReadTransaction, Fault> {
        match &*self.state() {
            State::Open(database) => Ok(database.begin_read()?),
            State::Reopening(reason) => Err(Fault::Refused(StoreError::Unavailable(reason.clone()))),
            State::Closed => Err(Fault::Refused(closed())),
        }
    }
}

/// Reads, on whatever thread it is used.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
}

impl Reader {
    pub fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        // The engine may panic on pages that were damaged behind its back.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            self.shared.begin_read().and_then(|transaction| read(&transaction))
        }));
        let panicked =
            |_| Err(Fault::Refused(StoreError::Internal("a read of the data file panicked".to_owned())));
        outcome.unwrap_or_else(panicked).map_err(|fault| {
            if fault.needs_reopening() {
                self.shared.broken.store(true, Ordering::Release);
            }
            self.ask_to_reopen();
            fault.into_store_error()
        })
    }
}

impl Reader {
    /// Has the writer's thread open the file again where that is needed.
    fn ask_to_reopen(&self) {
        let shared = &self.shared;
        if shared.broken.load(Ordering::Acquire) && !shared.asked.swap(true, Ordering::AcqRel) {
            // Any message makes the writer look; with a full queue it is about to.
            let _ = self.queue.try_send(Message::Jobs(Vec::new()));
        }
    }
}

/// The queue, and the thread at its end. Dropping it does what [`Writer::close`] does: fields are
/// dropped in order, the thread ends when nobody can send to it any more, and is waited for.
#[derive(Debug)]
pub struct Writer {
    reader: Reader,
    directory: PathBuf,
    file: PathBuf,
    _thread: JoinOnDrop,
}

#[derive(Debug)]
struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // It catches panics, and there is nobody left to tell of one.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Opens the file and starts the thread.
    pub fn start(place: Place) -> Result<Self, OpenError> {
        let database = place.open()?;
        let shared = Arc::new(Shared {
            file: RwLock::new(State::Open(database)),
            broken: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            unchecked: AtomicBool::new(false),
            watchers: Watchers::default(),
        });
        let (queue, messages) = mpsc::channel(QUEUE);
        let (directory, file) = (place.directory.clone(), place.file.clone());
        let mut work = Work { place, shared: shared.clone() };
        let thread = thread::Builder::new().name("embedded-writer".to_owned());
        let thread = thread.spawn(move || work.run(messages)).map_err(|error| OpenError::Other {
            path: directory.clone(),
            reason: format!("no thread to write with: {error}"),
        })?;
        Ok(Self { reader: Reader { shared, queue }, directory, file, _thread: JoinOnDrop(Some(thread)) })
    }

    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    pub fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.reader.read(read)
    }

    /// Queues jobs for one group. Where the store is closed they are dropped, which
    /// [`answer`] reports.
    pub async fn submit(&self, jobs: Vec<Box<dyn Job>>) {
        if !jobs.is_empty() {
            let _ = self.reader.queue.send(Message::Jobs(jobs)).await;
        }
    }

    /// Queues one job and waits for its outcome.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tables) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, reply) = job(work);
        self.submit(vec![job]).await;
        answer(reply).await
    }

    pub fn watchers(&self) -> &Watchers {
        &self.reader.shared.watchers
    }

    /// Whether a crash now would have the next open check the whole file.
    pub fn wants_checkpoint(&self) -> bool {
        self.reader.shared.unchecked.load(Ordering::Acquire)
    }

    pub fn location(&self) -> String {
        self.directory.display().to_string()
    }

    pub fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        if matches!(*self.reader.shared.state(), State::Closed) {
            return Err(closed());
        }
        match std::fs::metadata(&self.file) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }

    /// Carries out what is queued and releases the file.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.reader.queue.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// The thread's own.
struct Work {
    place: Place,
    shared: Arc<Shared>,
}

impl Work {
    fn run(&mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            let mut jobs = Vec::new();
            let mut closing = Vec::new();
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Jobs(more) => jobs.extend(more),
                    Message::Close(done) => closing.push(done),
                }
                let is_full = jobs.len() >= GROUP || !closing.is_empty();
                next = if is_full { None } else { messages.try_recv().ok() };
            }
            self.commit_group(jobs);
            if !closing.is_empty() {
                // What was queued behind the close is dropped, and so reported as closed.
                messages.close();
                self.close();
                drop(messages);
                for done in closing {
                    let _ = done.send(());
                }
                return;
            }
        }
        self.close();
    }

    fn close(&self) {
        let state = std::mem::replace(&mut *self.shared.state_mut(), State::Closed);
        if let State::Open(database) = state
            && let Err(error) = database.close()
        {
            tracing::warn!(%error, "the data file was not closed in order and will be checked when it is opened");
        }
    }

    fn commit_group(&self, mut jobs: Vec<Box<dyn Job>>) {
        let failure = match self.attempt(&mut jobs) {
            Ok(()) => None,
            // A page of the file that cannot be read fails whoever needs it, and nobody else.
            Err(fault) if jobs.len() > 1 && !fault.needs_reopening() => {
                for job in jobs {
                    let mut alone = vec![job];
                    let failure = self.attempt(&mut alone).err();
                    finish(alone, failure);
                }
                return;
            }
            Err(fault) => Some(fault),
        };
        finish(jobs, failure);
    }

    /// Runs `jobs` in one transaction: all of it is durable when this is `Ok`, nothing is stored
    /// otherwise.
    fn attempt(&self, jobs: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        let was_failing = self.shared.failing.load(Ordering::Acquire);
        if was_failing && !jobs.is_empty() {
            // Finds out whether writing works again, at the cost of nothing but itself: should
            // `jobs` fail after it, the file need not be checked as a whole to be opened again.
            let (checkpoint, _) = job(|tables| {
                tables.checkpoint();
                Ok(())
            });
            self.attempt_once(&mut [checkpoint])?;
        }
        self.attempt_once(jobs)
    }

    fn attempt_once(&self, jobs: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        let mut touched = Vec::new();
        let outcome = self.attempt_untold(jobs, &mut touched);
        // After a failure too, which may have made it durable all the same.
        for (entity_type, entity_id) in touched.iter().filter_map(|entity| key::names(entity)) {
            self.shared.watchers.tell(|watcher| watcher.changed(entity_type, entity_id));
        }
        outcome
    }

    /// `touched` becomes the keys of the entities that may have been changed.
    fn attempt_untold(&self, jobs: &mut [Box<dyn Job>], touched: &mut Vec<Vec<u8>>) -> Result<(), Fault> {
        self.reopen_if_broken()?;
        let mut group = None;
        let attempt = AssertUnwindSafe(|| self.transact(jobs, &mut group, touched));
        let outcome = panic::catch_unwind(attempt).unwrap_or_else(|_| {
            self.shared.broken.store(true, Ordering::Release);
            Err(Fault::Refused(StoreError::Internal("the writer panicked".to_owned())))
        });
        if !jobs.is_empty() {
            self.shared.failing.store(outcome.is_err(), Ordering::Release);
        }
        let Err(fault) = outcome else {
            return Ok(());
        };
        tracing::error!(error = ?fault, "a group of writes failed");
        if fault.needs_reopening() {
            self.shared.broken.store(true, Ordering::Release);
        }
        let reopened = self.reopen_if_broken();
        let Some(group) = group else { return Err(fault) };
        // What failed while it was being made durable may have become so.
        match reopened.and_then(|()| self.last_group()) {
            Ok(last) if last == group => Ok(()),
            Ok(_) => Err(fault),
            Err(_) => Err(Fault::Unsure(fault.into_store_error().to_string())),
        }
    }

    /// `group` becomes the number of the group once it is being committed, and `touched` the keys of
    /// the entities in it.
    fn transact(
        &self,
        jobs: &mut [Box<dyn Job>],
        group: &mut Option<u64>,
        touched: &mut Vec<Vec<u8>>,
    ) -> Result<(), Fault> {
        let mut transaction = match &*self.shared.state() {
            State::Open(database) => database.begin_write()?,
            State::Reopening(_) | State::Closed => return Err(Fault::Refused(closed())),
        };
        let mut tables = Tables::open(&transaction)?;
        for job in jobs {
            job.run(&mut tables)?;
        }
        if !tables.changed {
            drop(tables);
            return Ok(transaction.abort()?);
        }
        let number = tables.number(meta::GROUPS)? + 1;
        tables.set_number(meta::GROUPS, number)?;
        let is_checkpoint = tables.checkpoint;
        *touched = std::mem::take(&mut tables.touched);
        drop(tables);
        transaction.set_quick_repair(is_checkpoint);
        *group = Some(number);
        transaction.commit()?;
        self.shared.unchecked.store(!is_checkpoint, Ordering::Release);
        Ok(())
    }

    fn last_group(&self) -> Result<u64, Fault> {
        let meta = self.shared.begin_read()?.open_table(META)?;
        Ok(meta.get(meta::GROUPS)?.map_or(0, |number| number.value()))
    }

    /// The engine takes no more writes after a failed one, and no more reads after a failed read,
    /// until the file is opened again, which rolls back what was under way.
    fn reopen_if_broken(&self) -> Result<(), Fault> {
        self.shared.asked.store(false, Ordering::Release);
        if !self.shared.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let reopening = State::Reopening("the data file is being opened again".to_owned());
        // Not dropped under the lock: closing waits for the reads that are under way.
        let before = std::mem::replace(&mut *self.shared.state_mut(), reopening);
        drop(before);
        match self.place.open() {
            Ok(database) => {
                *self.shared.state_mut() = State::Open(database);
                self.shared.broken.store(false, Ordering::Release);
                tracing::info!("the data file was opened again after a failure");
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                *self.shared.state_mut() = State::Reopening(reason.clone());
                Err(Fault::Refused(StoreError::Unavailable(reason)))
            }
        }
    }
}

fn finish(jobs: Vec<Box<dyn Job>>, failure: Option<Fault>) {
    let failure = failure.map(Fault::into_store_error);
    for job in jobs {
        job.finish(failure.clone());
    }
}
