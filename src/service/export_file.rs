//! Exports that are kept as files, for those who asked for one and come back for it.
//!
//! A file is named by its job. Until it is whole it has another name, which nobody is given. It goes
//! with its job, or after the retention; what a server left behind half-written goes when its job is
//! seen to be over.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FeatureStore;
use super::error::ServiceError;
use super::export::{Batches, Export, ExportRequest};
use super::jobs::{Job, JobState, Progress};
use crate::domain::time::Span;
use crate::table::Format;
use crate::table::write::Writer;

/// What the kind of these jobs is.
const KIND: &str = "export";
const UNFINISHED: &str = "unfinished";

/// Where exports are kept.
#[derive(Clone, Debug)]
pub struct ExportFiles {
    pub dir: PathBuf,
    /// How long after its end.
    pub retention: Span,
    /// What all of them together may take.
    pub max_bytes: u64,
}

/// A finished export.
#[derive(Debug)]
pub struct ExportFile {
    pub file: File,
    pub bytes: u64,
    pub format: Format,
    /// The entity type.
    pub subject: String,
}

impl FeatureStore {
    /// Exports to a file in a job. What is wrong with the request is found before the job begins.
    pub async fn export_to_file(
        self: &Arc<Self>,
        request: ExportRequest,
        format: Format,
    ) -> Result<Job, ServiceError> {
        let files = self.export_files()?.clone();
        let subject = request.entity_type.to_string();
        let export = self.export(request).await?;
        let work = move |progress: Arc<Progress>| async move {
            let path = files.dir.join(format!("{}.{}.{UNFINISHED}", progress.id(), format.name()));
            let written = write(export, format, &path, &files, &progress).await;
            if !matches!(written, Ok(Ended::Whole)) {
                // An error is a file that is not there.
                let _ = fs::remove_file(&path);
            }
            written.map(drop)
        };
        self.jobs.start(KIND, &subject, work).await
    }

    /// The file of a job that whoever asks may see.
    pub async fn export_file(&self, id: &str) -> Result<ExportFile, ServiceError> {
        let job = self.jobs.get(id).await?;
        let missing = |why: &str| ServiceError::NotFound {
            what: "result",
            name: format!("of the job {}: {why}", job.id),
        };
        if job.kind != KIND {
            return Err(missing("it makes no file"));
        }
        match job.state {
            JobState::Succeeded => {}
            JobState::Queued | JobState::Running => return Err(missing("it has not ended yet")),
            JobState::Failed | JobState::Cancelled | JobState::Interrupted => {
                return Err(missing("it did not come to its end"));
            }
        }
        let dir = &self.export_files()?.dir;
        let named = |format: Format| (dir.join(format!("{}.{}", job.id, format.name())), format);
        let found = Format::ALL
            .map(named)
            .into_iter()
            .find_map(|(path, format)| Some((File::open(path).ok()?, format)));
        let (file, format) =
            found.ok_or_else(|| missing("its file is no longer here, or on another server"))?;
        let bytes = file.metadata().map_err(|error| cannot("read", &error))?.len();
        Ok(ExportFile { file, bytes, format, subject: job.subject })
    }

    fn export_files(&self) -> Result<&ExportFiles, ServiceError> {
        self.export_files.as_ref().ok_or_else(|| {
            let message = "this server keeps no exports: it has no export_dir; ask for one without async";
            ServiceError::InvalidRequest(message.to_owned())
        })
    }

    /// Removes files whose time has come; says how many.
    pub(super) async fn sweep_exports(&self) -> Result<usize, ServiceError> {
        let Some(files) = &self.export_files else { return Ok(0) };
        let found = list(&files.dir).map_err(|error| cannot("list", &error))?;
        if found.is_empty() {
            return Ok(0);
        }
        // Listed before the jobs: a file that is new by now has its job in the list.
        let jobs: HashMap<String, Job> =
            self.jobs.all().await?.into_iter().map(|job| (job.id.clone(), job)).collect();
        let now = self.clock.now();
        let mut removed = 0;
        for Kept { path, job, is_whole } in found {
            let is_wanted = jobs.get(&job).is_some_and(|job| match is_whole {
                true => job.updated_at + files.retention > now,
                false => !job.state.is_over(),
            });
            if !is_wanted && fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// How the writing of a file ended.
enum Ended {
    Whole,
    Cancelled,
}

async fn write(
    mut export: Export,
    format: Format,
    path: &Path,
    files: &ExportFiles,
    progress: &Progress,
) -> Result<Ended, ServiceError> {
    let writer =
        Writer::new(format, export.schema()).map_err(|error| ServiceError::Internal(error.to_string()))?;
    let file = File::create_new(path).map_err(|error| cannot("write", &error))?;
    let others: u64 = list(&files.dir)
        .map_err(|error| cannot("list", &error))?
        .iter()
        .filter_map(|kept| Some(fs::metadata(&kept.path).ok()?.len()))
        .sum();
    let mut output = Output { writer, file, left: files.max_bytes.saturating_sub(others) };
    let mut rows = 0;
    while let Some(batch) = export.next().await? {
        if progress.is_cancelled() {
            return Ok(Ended::Cancelled);
        }
        rows += batch.num_rows() as u64;
        output = blocking(move || {
            let bytes =
                output.writer.push(&batch).map_err(|error| ServiceError::Internal(error.to_string()))?;
            output.put(&bytes)?;
            Ok(output)
        })
        .await?;
        progress.set(rows, 0, 0);
    }
    let whole = path.with_extension("");
    let path = path.to_owned();
    blocking(move || {
        let Output { writer, file, left } = output;
        let bytes = writer.finish().map_err(|error| ServiceError::Internal(error.to_string()))?;
        put(&file, &bytes, left)?;
        file.sync_all().map_err(|error| cannot("write", &error))?;
        fs::rename(&path, &whole).map_err(|error| cannot("name", &error))
    })
    .await?;
    Ok(Ended::Whole)
}

struct Output {
    writer: Writer,
    file: File,
    /// So many bytes may still come.
    left: u64,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        self.left = put(&self.file, bytes, self.left)?;
        Ok(())
    }
}

fn put(mut file: &File, bytes: &[u8], left: u64) -> Result<u64, ServiceError> {
    let Some(left) = left.checked_sub(bytes.len() as u64) else {
        let message = "the exports on this server would take more than max_export_bytes allows";
        return Err(ServiceError::TooLarge(message.to_owned()));
    };
    file.write_all(bytes).map_err(|error| cannot("write", &error))?;
    Ok(left)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())))
}

/// A file of ours.
struct Kept {
    path: PathBuf,
    job: String,
    is_whole: bool,
}

/// The files that are named as exports are; whatever else is in the directory is left alone.
fn list(dir: &Path) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let (whole, is_whole) = match name.strip_suffix(&format!(".{UNFINISHED}")) {
            Some(whole) => (whole, false),
            None => (name, true),
        };
        let Some((job, ending)) = whole.split_once('.') else { continue };
        let is_id = job.len() == 16 && job.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id && Format::from_name(ending).is_some() {
            let job = job.to_owned();
            found.push(Kept { path, job, is_whole });
        }
    }
    Ok(found)
}

/// A disk that is full or gone is nothing that a client could do something about.
fn cannot(what: &str, error: &io::Error) -> ServiceError {
    tracing::error!(%error, "a file of an export: cannot {what}");
    ServiceError::Unavailable(format!("the server cannot {what} the file of an export: {}", error.kind()))
}
