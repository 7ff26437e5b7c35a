//! Long work: watched, cancelled.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::App;
use super::answer::Json;
use super::extract::Path;
use super::problem::{ChangeProblems, Problem, ReadProblems};
use super::tables::{BrokenOff, TableAnswer, streamed};
use crate::service::export_file::ExportFile;
use crate::service::jobs::Job;

/// So many bytes of a file are sent at a time.
const PIECE: usize = 256 << 10;

/// Whether whoever asks would rather have a job than wait. RFC 7240.
pub fn prefers_async(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split(',')).any(|preference| {
        preference.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async")
    })
}

/// The answer of whoever started a job.
#[derive(utoipa::IntoResponses)]
#[response(
    status = 202, description = "The job, which has been started",
    headers(("Location" = String, description = "Where to ask for the job")),
    example = json!({"id": "6f1c9a7e2b3d4c5f", "kind": "import", "subject": "product", "state": "queued",
        "created_at": "2026-01-02T03:04:05Z", "started_at": null, "finished_at": null,
        "updated_at": "2026-01-02T03:04:05Z", "processed": 0, "changed": 0, "failed": 0, "rate": 0,
        "errors": [], "error": null})
)]
pub struct Accepted(pub Job);

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let Self(job) = self;
        let location = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
        (StatusCode::ACCEPTED, location, Json(job)).into_response()
    }
}

/// Jobs, the newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListJobsResponse {
    jobs: Vec<Job>,
}

/// List jobs
///
/// The newest first, of all servers on this store. Those that are over are kept for a week.
#[utoipa::path(
    get, path = "/v1/jobs",
    operation_id = "list_jobs", tag = "jobs",
    responses((status = 200, description = "The jobs", body = inline(ListJobsResponse)), ReadProblems)
)]
pub async fn list_jobs(State(app): State<App>) -> Result<Json<ListJobsResponse>, Problem> {
    Ok(Json(ListJobsResponse { jobs: app.store.jobs().list().await? }))
}

/// A job, in the path.
#[derive(Deserialize)]
pub struct JobPath {
    id: String,
}

/// Get a job
///
/// How far it is, or how it ended.
#[utoipa::path(
    get, path = "/v1/jobs/{id}",
    operation_id = "get_job", tag = "jobs",
    params(("id" = String, Path, description = "The job", example = "6f1c9a7e2b3d4c5f")),
    responses((status = 200, description = "The job", body = Job), ReadProblems)
)]
pub async fn get_job(State(app): State<App>, Path(path): Path<JobPath>) -> Result<Json<Job>, Problem> {
    Ok(Json(app.store.jobs().get(&path.id).await?))
}

/// Get what a job made
///
/// The table of an export that was asked for as a file. It is there once the job has succeeded, on
/// the server that ran it, for as long as `export_retention` says.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/result",
    operation_id = "get_job_result", tag = "jobs",
    params(("id" = String, Path, description = "The job", example = "6f1c9a7e2b3d4c5f")),
    responses(TableAnswer, ReadProblems)
)]
pub async fn get_job_result(State(app): State<App>, Path(path): Path<JobPath>) -> Result<Response, Problem> {
    let ExportFile { file, bytes, format, subject } = app.store.export_file(&path.id).await?;
    let pieces = futures::stream::try_unfold(File::from_std(file), |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let taken = file.read_buf(&mut piece).await.map_err(|error| BrokenOff::because(&error))?;
        Ok((taken > 0).then(|| (piece.freeze(), file)))
    });
    let mut response = streamed(format, &subject, pieces);
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    Ok(response)
}

/// Cancel a job
///
/// It stops at the next good place; what it has done stays done. A job that is over stays as it is.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel",
    operation_id = "cancel_job", tag = "jobs",
    params(("id" = String, Path, description = "The job", example = "6f1c9a7e2b3d4c5f")),
    responses((status = 200, description = "The job as it was when it was asked to stop", body = Job), ChangeProblems)
)]
pub async fn cancel_job(State(app): State<App>, Path(path): Path<JobPath>) -> Result<Json<Job>, Problem> {
    Ok(Json(app.store.jobs().cancel(&path.id).await?))
}
