//! Importing a table: rows of one entity type in any format, however many.
//!
//! A thread of its own takes the bytes apart into batches. The rows of a batch go to *lanes* by
//! their entity, so that lanes work at the same time while the rows of one entity keep their order
//! and never meet each other in the store. Everything between is bounded: where the store is slow,
//! the lanes fill, and then no more is read.

mod mapping;
mod tally;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::mapping::Mapped;
pub use self::tally::{Counts, Rejection, Report, Tally};
use super::FeatureStore;
use super::error::{ServiceError, StoreError};
use super::jobs::Progress;
use super::principal::{self, on_behalf};
use super::write::Origin;
use crate::domain::name::EntityType;
use crate::domain::provenance::Kind;
use crate::domain::time::{Timestamp, Ttl};
use crate::domain::violation::{Violation, ViolationCode};
use crate::table::Format;
use crate::table::given::Unit;
use crate::table::read::{self, ReadError, Source};

/// Rows that are read at a time; each lane writes its share of them as one batch.
const READ_ROWS: usize = 2048;
const LANES: usize = 4;
/// So many imports of one process work at the same time; further ones wait, unread.
pub(super) const CONCURRENT_IMPORTS: usize = 4;
/// So often rows are tried again where the store cannot take them for the moment.
const ATTEMPTS: u32 = 8;

/// What to import, and how its columns are to be read.
#[derive(Clone, Debug)]
pub struct Import {
    pub entity_type: EntityType,
    pub id_column: String,
    /// `None`: `event_timestamp`, where there is such a column.
    pub timestamp_column: Option<String>,
    /// What times that are whole numbers count.
    pub timestamp_unit: Option<Unit>,
    /// Columns and the features that they are, in place of all columns under their own names.
    pub columns: Option<Vec<(String, String)>>,
    /// What a null cell does.
    pub nulls: Nulls,
    /// Whether a float that is not a number is a null cell; it is refused otherwise.
    pub nan_is_null: bool,
    pub ttl: Option<Ttl>,
    pub origin: Origin,
    /// So many rejected rows are listed.
    pub max_rejections: usize,
}

impl Import {
    /// What its rows are counted with.
    pub fn tally(&self) -> Tally {
        Tally::new(self.max_rejections)
    }
}

/// What a null cell does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nulls {
    /// Nothing: the feature stays as it is.
    #[default]
    Skip,
    /// It is written as null.
    Write,
}

/// An import that ended early. What the report counts is stored.
#[derive(Debug)]
pub struct ImportFailed {
    pub report: Report,
    pub error: ImportError,
}

/// Why an import ended early.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// It was cancelled as a job.
    #[error("the import was cancelled")]
    Cancelled,
}

impl FeatureStore {
    /// Imports a table, and counts its rows in `tally` while it does. Rows that do not fit are rejected each on its own; the rows before a place
    /// where the table cannot be read are stored.
    ///
    /// Rows without a time take place at the start of the import. So rows may be written again
    /// after an error of which nobody knows what it left behind.
    pub async fn import(
        self: &Arc<Self>,
        import: Import,
        format: Format,
        source: Source,
        tally: &Arc<Tally>,
        progress: Option<&Progress>,
    ) -> Result<Report, ImportFailed> {
        let result = match self.imports.acquire().await {
            Ok(_turn) => self.run_import(import, format, source, tally, progress).await,
            Err(closed) => Err(ServiceError::Internal(closed.to_string()).into()),
        };
        let report = tally.report();
        match result {
            Ok(()) => Ok(report),
            Err(error) => Err(ImportFailed { report, error }),
        }
    }

    async fn run_import(
        self: &Arc<Self>,
        import: Import,
        format: Format,
        source: Source,
        tally: &Arc<Tally>,
        progress: Option<&Progress>,
    ) -> Result<(), ImportError> {
        let import = Arc::new(import);
        let started = self.clock.now();
        let mut lanes = Lanes::start(self, &import, tally);
        let mut batches = read_in_background(format, source);
        let mut failed = None;
        let mut next = 0;
        while let Some(batch) = batches.recv().await {
            let counted = tally.counts();
            if let Some(progress) = progress {
                progress.set(counted.rows, counted.written + counted.late, counted.rejected);
                if progress.is_cancelled() {
                    failed = Some(ImportError::Cancelled);
                    break;
                }
            }
            let mapped = match batch {
                Ok(batch) => {
                    let first = next;
                    next += batch.num_rows() as u64;
                    self.map_batch(&import, batch, first, started, tally).await
                }
                Err(error) => Err(error.into()),
            };
            match mapped {
                Ok(mapped) => {
                    if !lanes.send(mapped).await {
                        break;
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // What the lanes have is finished in any case.
        let finished = lanes.finish().await;
        if let Some(progress) = progress {
            let counted = tally.counts();
            progress.set(counted.rows, counted.written + counted.late, counted.rejected);
            tally.report().rejections.iter().for_each(|rejection| progress.sample(rejection.to_string()));
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(finished?),
        }
    }

    /// Writes rows of a batch; again and again where the store cannot take them for the moment.
    async fn write_lane(
        &self,
        import: &Import,
        batch: &Mapped,
        rows: Vec<usize>,
        tally: &Tally,
    ) -> Result<(), ServiceError> {
        let mut left = rows;
        let mut attempt = 0;
        loop {
            let (rows, given): (Vec<usize>, Vec<_>) =
                left.iter().filter_map(|row| Some((*row, batch.row(*row, import, tally)?))).unzip();
            let written =
                self.write_rows(&import.entity_type, given, &import.origin, Kind::Import, false).await;
            let error = match written {
                Ok(results) => {
                    let mut again = Vec::new();
                    let mut error = None;
                    for (row, result) in rows.into_iter().zip(results) {
                        match result {
                            Ok(written) => tally.wrote(&written),
                            Err(ServiceError::ValidationFailed(violations)) => {
                                tally.reject(batch.number(row), batch.id(row), violations);
                            }
                            Err(other) => {
                                again.push(row);
                                error = Some(other);
                            }
                        }
                    }
                    left = again;
                    error
                }
                Err(ServiceError::ValidationFailed(violations)) => {
                    for row in rows {
                        tally.reject(batch.number(row), batch.id(row), violations.clone());
                    }
                    None
                }
                Err(error) => {
                    left = rows;
                    Some(error)
                }
            };
            match error {
                None => return Ok(()),
                Some(error) if !passes(&error) || attempt == ATTEMPTS => return Err(error),
                Some(error) => {
                    tracing::debug!(%error, attempt, "an import waits for the store");
                    tokio::time::sleep(Duration::from_millis(50) * 2u32.pow(attempt.min(6))).await;
                    attempt += 1;
                }
            }
        }
    }
}

/// Whether an error may be gone a moment later.
fn passes(error: &ServiceError) -> bool {
    matches!(
        error,
        ServiceError::Store(
            StoreError::Unavailable(_)
                | StoreError::Interrupted(_)
                | StoreError::Timeout
                | StoreError::Crowded
        ) | ServiceError::Contention
            | ServiceError::Unavailable(_)
    )
}

/// Reads on a thread of its own, a few batches ahead.
fn read_in_background(format: Format, source: Source) -> mpsc::Receiver<Result<RecordBatch, ReadError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let batches = match read::batches(format, source, READ_ROWS) {
            Ok(batches) => batches,
            Err(error) => {
                // An error is an import that nobody waits for any more; so below.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        };
        // A table without rows can have the wrong columns, too.
        let mut empty = batches.schema().cloned().map(|schema| Ok(RecordBatch::new_empty(schema)));
        for batch in batches {
            empty = None;
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
        if let Some(empty) = empty {
            let _ = sender.blocking_send(empty);
        }
    });
    receiver
}

/// Writers that work at the same time; ended when dropped.
struct Lanes {
    senders: Vec<mpsc::Sender<(Arc<Mapped>, Vec<usize>)>>,
    writers: JoinSet<Result<(), ServiceError>>,
    hasher: std::hash::RandomState,
}

impl Lanes {
    fn start(store: &Arc<FeatureStore>, import: &Arc<Import>, tally: &Arc<Tally>) -> Self {
        let mut writers = JoinSet::new();
        let senders = (0..LANES).map(|_| {
            let (sender, mut receiver) = mpsc::channel::<(Arc<Mapped>, Vec<usize>)>(1);
            let (store, import, tally) = (store.clone(), import.clone(), tally.clone());
            let work = async move {
                while let Some((batch, rows)) = receiver.recv().await {
                    store.write_lane(&import, &batch, rows, &tally).await?;
                }
                Ok(())
            };
            writers.spawn(on_behalf(principal::current(), work));
            sender
        });
        let senders = senders.collect();
        Self { senders, writers, hasher: std::hash::RandomState::new() }
    }

    /// Gives every row to the lane of its entity; `false` where a lane has ended with an error.
    async fn send(&mut self, batch: Mapped) -> bool {
        let mut shares: [Vec<usize>; LANES] = std::array::from_fn(|_| Vec::new());
        for row in batch.rows() {
            let mut hasher = self.hasher.build_hasher();
            hasher.write(batch.id(row).unwrap_or_default().as_bytes());
            shares[hasher.finish() as usize % LANES].push(row);
        }
        let batch = Arc::new(batch);
        for (sender, rows) in self.senders.iter().zip(shares) {
            if !rows.is_empty() && sender.send((batch.clone(), rows)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits until everything is written; the first error of a lane.
    async fn finish(mut self) -> Result<(), ServiceError> {
        self.senders.clear();
        let mut result = Ok(());
        while let Some(ended) = self.writers.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())));
            result = result.and(ended);
        }
        result
    }
}

fn wrong(message: String) -> ImportError {
    ServiceError::ValidationFailed(vec![Violation::new(ViolationCode::InvalidValue, message)]).into()
}

/// A row's time where the row has none.
#[derive(Clone, Copy)]
enum Untimed {
    /// It takes place when the import started.
    At(Timestamp),
    Rejected,
}
