//! Long work: watched, cancelled.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::Path;
use super::problem::{ChangeProblems, Problem, ReadProblems};
use crate::service::jobs::Job;

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
