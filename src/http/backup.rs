//! Backups of the embedded store.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::{Problem, ReadProblems};

/// Back up the embedded store
///
/// Everything as it is at one moment, with all that was acknowledged before the request, while
/// reading and writing go on. `feature-store restore` makes a data directory of it, and refuses a
/// copy that was cut off. One backup at a time; 400 where the store is Redis, which makes its own.
#[utoipa::path(
    post, path = "/v1/admin/backup",
    operation_id = "create_backup", tag = "meta",
    responses(
        (status = 200, description = "The backup", body = Vec<u8>, content_type = "application/octet-stream"),
        ReadProblems
    )
)]
pub async fn create_backup(State(app): State<App>) -> Result<Response, Problem> {
    let backup = app.store.backup().await?;
    let name = format!("attachment; filename=\"feature-store-{}.backup\"", app.store.now().as_millis());
    let pieces = futures::stream::unfold(backup, |mut backup| async move {
        let piece = backup.next().await?;
        if let Err(error) = &piece {
            tracing::warn!(%error, "a backup was not finished");
        }
        Some((piece, backup))
    });
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(futures::StreamExt::fuse(pieces))).into_response())
}
