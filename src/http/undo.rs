//! Undoing what a run wrote.

use axum::extract::State;
use serde::Deserialize;

use super::App;
use super::extract::{JsonBody, Path};
use super::features::origin;
use super::jobs::Accepted;
use super::problem::{ChangeProblems, Problem};
use crate::domain::draft::undo::WithoutPast;
use crate::domain::name::{EntityType, FeatureName};
use crate::domain::provenance::RunNote;
use crate::domain::time::Timestamp;
use crate::service::undo::UndoRequest;
use crate::service::write::Origin;

/// Which run to undo: what was written under this `run_id`, this `source`, or both.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"run_id": "2026-01-02", "source": "catalogue-sync", "dry_run": true, "reason": "prices in cents"}))]
pub struct UndoRunRequest {
    #[serde(default)]
    #[schema(max_length = 1024)]
    run_id: Option<String>,
    /// Without a `run_id` it needs `written_from`.
    #[serde(default)]
    #[schema(max_length = 1024)]
    source: Option<String>,
    /// Only what the store accepted (`written_at`) at or after this time.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    written_from: Option<Timestamp>,
    /// Only what the store accepted at or before this time; now, if not given or later.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    written_to: Option<Timestamp>,
    /// Only these features and what is computed from them; all, if not given.
    #[serde(default)]
    #[schema(value_type = Option<Vec<FeatureName>>)]
    features: Option<Vec<String>>,
    /// What becomes of values whose predecessors are not kept.
    #[serde(default)]
    #[schema(inline)]
    not_restorable: NotRestorable,
    /// Only count and show samples of what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Kept with the versions that this makes and with what it retracts.
    #[serde(default)]
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// What becomes of a value of the run whose predecessor is not kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotRestorable {
    /// It stays as it is, and is counted.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
}

/// Undo a run
///
/// A job that goes through all entities of the type. Features whose served value came from the run go
/// back to the newest event before it, as a version of their own; where something newer was written, it
/// stays. Values of the run in the history are marked as retracted: reads of the past and training sets
/// no longer see them, lineage does. `undo` of the job has counts and samples; with `dry_run` nothing is
/// changed. To undo the undo, undo the run whose `run_id` is the job's `id`.
#[utoipa::path(
    post, path = "/v1/entity-types/{entity_type}/rollback",
    operation_id = "undo_run", tag = "history",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product")),
    request_body = inline(UndoRunRequest),
    responses(Accepted, ChangeProblems)
)]
pub async fn undo_run(
    State(app): State<App>,
    Path(name): Path<EntityType>,
    body: JsonBody,
) -> Result<Accepted, Problem> {
    let request: UndoRunRequest = body.parse()?;
    let now = app.store.now();
    let Origin { run_id, source, .. } = origin(request.source, request.run_id, None)?;
    let written_to = request.written_to.map_or(now, |to| to.min(now));
    let wrong = match (&run_id, &source, request.written_from) {
        (None, None, _) => Some("say which run: give run_id, source or both"),
        (None, Some(_), None) => Some("a source without a run_id needs a window of time: give written_from"),
        (_, _, Some(from)) if from > written_to => {
            Some("written_from lies after written_to, or in the future")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(Problem::invalid(wrong));
    }
    let run = RunNote { run_id, source, written_from: request.written_from, written_to };
    if request.reason.as_ref().is_some_and(|reason| reason.len() > 1024) {
        return Err(Problem::invalid("reason has more than 1024 bytes"));
    }
    let undo = UndoRequest {
        run,
        features: request.features,
        without_past: match request.not_restorable {
            NotRestorable::Keep => WithoutPast::Keep,
            NotRestorable::Delete => WithoutPast::Delete,
        },
        reason: request.reason,
        dry_run: request.dry_run,
    };
    Ok(Accepted(app.store.start_undo(&name, undo).await?))
}
