//! Long work: started by one request, watched by others, outliving them all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::error::ServiceError;
use super::principal::{self, on_behalf};
use super::undo_report::UndoReport;
use crate::clock::Clock;
use crate::domain::name::EntityType;
use crate::domain::time::{Span, Timestamp};
use crate::store::{Store, StoreError};

/// So many jobs of one process run at the same time; further ones wait.
const CONCURRENT_JOBS: usize = 2;
/// So often a running job says that it lives, and looks whether it was cancelled elsewhere.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A job that has not said so for this long runs no more.
const DEAD_AFTER: Span = Span::from_secs(10);
const KEPT_FOR: Span = Span::from_secs(7 * 86_400);
const KEPT_JOBS: usize = 1000;
/// So many errors of a job are kept as samples.
const ERROR_SAMPLES: usize = 20;
const CANCEL_SUFFIX: &str = ":cancel";

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waiting for others to end.
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    /// Its server ended before it did.
    Interrupted,
}

impl JobState {
    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Interrupted => true,
        }
    }
}

/// Long work and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    #[schema(example = "6f1c9a7e2b3d4c5f")]
    pub id: String,
    /// What it does: `recompute`, …
    #[schema(example = "recompute")]
    pub kind: String,
    /// What it does it to.
    #[schema(example = "product")]
    pub subject: String,
    pub state: JobState,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub finished_at: Option<Timestamp>,
    /// When it was last seen at work.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Entities or rows done.
    pub processed: u64,
    pub changed: u64,
    pub failed: u64,
    /// Processed a second, since it started.
    pub rate: u64,
    /// Some of what failed.
    pub errors: Vec<String>,
    /// Why it failed as a whole.
    #[schema(required)]
    pub error: Option<String>,
    /// Of a job that undoes a run: what it did so far, or would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoReport>,
}

/// A job as the store keeps it.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Which process runs it.
    owner: String,
    job: Job,
}

/// What a job reports while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    id: String,
    started_at: OnceLock<Timestamp>,
    processed: AtomicU64,
    changed: AtomicU64,
    failed: AtomicU64,
    errors: Mutex<Vec<String>>,
    undo: Mutex<Option<UndoReport>>,
    cancelled: AtomicBool,
}

impl Progress {
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn processed(&self) {
        self.processed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn changed(&self) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how far it is where that is counted elsewhere.
    pub fn set(&self, processed: u64, changed: u64, failed: u64) {
        self.processed.store(processed, Ordering::Relaxed);
        self.changed.store(changed, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// Counts something that failed; the first few are kept as samples.
    pub fn failed(&self, what: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.sample(what);
    }

    /// Keeps what was wrong with something that failed, if it is among the first few.
    pub fn sample(&self, what: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < ERROR_SAMPLES {
            errors.push(what);
        }
    }

    /// Adds to the report of a job that undoes a run.
    pub fn report_undo(&self, add: impl FnOnce(&mut UndoReport)) {
        add(self.undo.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }

    /// Whether it is to stop at the next good place.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The jobs of this process, and the notes of all.
pub struct Jobs {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    owner: String,
    /// Whether nobody else can run jobs on this store.
    alone: bool,
    running: Mutex<HashMap<String, Arc<Progress>>>,
    turns: Semaphore,
}

impl Jobs {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, alone: bool) -> Self {
        let owner = format!("{:016x}", rand::random::<u64>());
        Self { store, clock, owner, alone, running: Mutex::default(), turns: Semaphore::new(CONCURRENT_JOBS) }
    }

    /// Starts `work` in the background; the answer is the job as it starts.
    pub async fn start<F>(
        self: &Arc<Self>,
        kind: &str,
        subject: &str,
        work: impl FnOnce(Arc<Progress>) -> F + Send + 'static,
    ) -> Result<Job, ServiceError>
    where
        F: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        self.prune().await?;
        let now = self.clock.now();
        let job = Job {
            id: format!("{:016x}", rand::random::<u64>()),
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            state: JobState::Queued,
            created_at: now,
            started_at: None,
            finished_at: None,
            updated_at: now,
            processed: 0,
            changed: 0,
            failed: 0,
            rate: 0,
            errors: Vec::new(),
            error: None,
            undo: None,
        };
        self.save(&job).await?;
        let progress = Arc::new(Progress { id: job.id.clone(), ..Progress::default() });
        self.with_running(|running| running.insert(job.id.clone(), progress.clone()));
        let run = self.clone().run(job.clone(), progress.clone(), work(progress));
        tokio::spawn(on_behalf(principal::current(), run));
        Ok(job)
    }

    async fn run(
        self: Arc<Self>,
        mut job: Job,
        progress: Arc<Progress>,
        work: impl Future<Output = Result<(), ServiceError>> + Send,
    ) {
        let turn_and_work = async {
            // The semaphore is never closed.
            let Ok(_turn) = self.turns.acquire().await else { return Ok(()) };
            if progress.is_cancelled() {
                return Ok(());
            }
            let _ = progress.started_at.set(self.clock.now());
            work.await
        };
        tokio::pin!(turn_and_work);
        let result = loop {
            tokio::select! {
                ended = &mut turn_and_work => break ended,
                () = tokio::time::sleep(HEARTBEAT) => self.beat(&mut job, &progress).await,
            }
        };
        self.take_counts(&mut job, &progress);
        job.finished_at = Some(job.updated_at);
        job.state = match &result {
            Ok(()) if progress.is_cancelled() => JobState::Cancelled,
            Ok(()) => JobState::Succeeded,
            Err(_) => JobState::Failed,
        };
        if let Err(error) = result {
            tracing::warn!(job = job.id, %error, "a job failed");
            job.error = Some(match error {
                ServiceError::Store(_) | ServiceError::Internal(_) => "the store failed".to_owned(),
                error => error.to_string(),
            });
        }
        // What ends must be seen to end: try for a while, even though the store be down.
        for attempt in 0..60u32 {
            if self.save(&job).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100) * (attempt + 1)).await;
        }
        let _ = self.store.delete_jobs(&[format!("{}{CANCEL_SUFFIX}", job.id)]).await;
        self.with_running(|running| running.remove(&job.id));
    }

    async fn beat(&self, job: &mut Job, progress: &Progress) {
        self.take_counts(job, progress);
        // A heartbeat that is lost is no harm: the next one comes.
        let _ = self.save(job).await;
        let cancel = format!("{}{CANCEL_SUFFIX}", job.id);
        if let Ok(notes) = self.store.jobs().await
            && notes.iter().any(|(id, _)| *id == cancel)
        {
            progress.cancelled.store(true, Ordering::Relaxed);
        }
    }

    fn take_counts(&self, job: &mut Job, progress: &Progress) {
        job.updated_at = self.clock.now();
        job.started_at = progress.started_at.get().copied();
        if job.started_at.is_some() {
            job.state = JobState::Running;
        }
        job.processed = progress.processed.load(Ordering::Relaxed);
        job.changed = progress.changed.load(Ordering::Relaxed);
        job.failed = progress.failed.load(Ordering::Relaxed);
        job.errors.clone_from(&progress.errors.lock().unwrap_or_else(PoisonError::into_inner));
        job.undo.clone_from(&progress.undo.lock().unwrap_or_else(PoisonError::into_inner));
        let seconds = job.started_at.map_or(0.0, |at| job.updated_at.seconds_since(at));
        job.rate = (job.processed as f64 / seconds.max(0.001)) as u64;
    }

    /// The jobs that whoever asks may see, the newest first.
    pub async fn list(&self) -> Result<Vec<Job>, ServiceError> {
        let jobs = self.all().await?;
        Ok(jobs.into_iter().filter(|job| may_see(&job.subject)).collect())
    }

    pub(super) async fn all(&self) -> Result<Vec<Job>, ServiceError> {
        let now = self.clock.now();
        let mut jobs = Vec::new();
        for (id, note) in self.store.jobs().await? {
            if id.ends_with(CANCEL_SUFFIX) {
                continue;
            }
            let Note { owner, mut job } = serde_json::from_str(&note).map_err(|error| {
                ServiceError::Store(StoreError::Corrupt {
                    key: "jobs".to_owned(),
                    field: id,
                    reason: error.to_string(),
                })
            })?;
            let mine = owner == self.owner;
            let lost = !mine && (self.alone || job.updated_at + DEAD_AFTER < now);
            if !job.state.is_over() && lost {
                job.state = JobState::Interrupted;
            }
            if let Some(progress) = self.with_running(|running| running.get(&job.id).cloned())
                && !job.state.is_over()
            {
                self.take_counts(&mut job, &progress);
            }
            jobs.push(job);
        }
        jobs.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        Ok(jobs)
    }

    pub async fn get(&self, id: &str) -> Result<Job, ServiceError> {
        let found = self.list().await?.into_iter().find(|job| job.id == id);
        found.ok_or_else(|| ServiceError::NotFound { what: "job", name: id.chars().take(64).collect() })
    }

    /// Asks a job to stop at the next good place; what it has done stays done.
    pub async fn cancel(&self, id: &str) -> Result<Job, ServiceError> {
        let job = self.get(id).await?;
        if !job.state.is_over() {
            match self.with_running(|running| running.get(id).cloned()) {
                Some(progress) => progress.cancelled.store(true, Ordering::Relaxed),
                None => self.store.put_job(&format!("{id}{CANCEL_SUFFIX}"), "{}").await?,
            }
        }
        Ok(job)
    }

    /// Forgets old jobs that are over, so that the list stays short.
    async fn prune(&self) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let over = self.all().await?.into_iter().filter(|job| job.state.is_over()).enumerate();
        let old = over.filter(|(place, job)| *place >= KEPT_JOBS || job.updated_at + KEPT_FOR < now);
        let ids: Vec<String> = old.map(|(_, job)| job.id).collect();
        Ok(self.store.delete_jobs(&ids).await?)
    }

    async fn save(&self, job: &Job) -> Result<(), ServiceError> {
        let note = Note { owner: self.owner.clone(), job: job.clone() };
        let note = serde_json::to_string(&note).map_err(|error| ServiceError::Internal(error.to_string()))?;
        Ok(self.store.put_job(&job.id, &note).await?)
    }

    fn with_running<T>(&self, act: impl FnOnce(&mut HashMap<String, Arc<Progress>>) -> T) -> T {
        act(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether whoever asks may see a job on `subject`. One on something else than an entity type is for
/// those alone who may see all of them.
fn may_see(subject: &str) -> bool {
    principal::current().is_none_or(|principal| {
        principal.entity_types.is_none()
            || EntityType::parse(subject).is_ok_and(|entity_type| principal.may_use(&entity_type))
    })
}
