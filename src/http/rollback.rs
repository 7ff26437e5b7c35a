//! Going back to a version or a time.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::{EntityPath, IfMatch, JsonBody, Path};
use super::features::{WriteFeaturesResponse, written};
use super::history::BeforeAfter;
use super::problem::{ChangeProblems, Problem};
use super::schemas::{VersionMatch, VersionNumber};
use super::values::{ByFeature, by_feature};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::record::Version;
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::service::rollback::{Rollback, RollbackTarget};
use crate::service::write::Origin;

/// Where to go back to: a version, or a time.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"to_version": 3, "features": ["price"], "dry_run": false, "reason": "bad price feed"}))]
pub struct RollbackRequest {
    #[serde(default, deserialize_with = "crate::domain::whole::optional")]
    #[schema(value_type = Option<VersionNumber>)]
    to_version: Option<Version>,
    /// By event time.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    to_timestamp: Option<Timestamp>,
    /// Only these features; the whole entity, if not given.
    #[serde(default)]
    #[schema(value_type = Option<Vec<FeatureName>>)]
    features: Option<Vec<String>>,
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
    /// Kept with the version.
    #[serde(default)]
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// What a rollback would change.
#[derive(Serialize, utoipa::ToSchema)]
pub struct RollbackPlan<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    /// The entity's version now.
    version: Version,
    dry_run: bool,
    /// Only of features that would change; null where a feature is not there.
    #[schema(value_type = BTreeMap<String, BeforeAfter>)]
    changes: ByFeature<'a, BeforeAfter<'a>>,
}

/// What a rollback did, or would do.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the two forms of the answer, for the OpenAPI document")]
#[serde(untagged)]
pub enum RollbackResponse<'a> {
    Done(WriteFeaturesResponse<'a>),
    Planned(RollbackPlan<'a>),
}

/// Roll an entity back
///
/// Nothing is erased: the old values are written anew as a version of their own, with event time
/// now, so that a rollback can itself be rolled back. Features that were not there then are deleted
/// by that version.
#[utoipa::path(
    post, path = "/v1/entities/{entity_type}/{entity_id}/rollback",
    operation_id = "rollback_entity", tag = "history",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("If-Match" = Option<VersionMatch>, Header, description = "Roll back only if the entity is at this version, as in \"7\"", example = "\"7\""),
    ),
    request_body = inline(RollbackRequest),
    responses((status = 200, description = "Rolled back, as a write; with `dry_run` what would change", body = inline(RollbackResponse)), ChangeProblems)
)]
pub async fn rollback_entity(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    IfMatch(precondition): IfMatch,
    body: JsonBody,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let request: RollbackRequest = body.parse()?;
    let target = match (request.to_version, request.to_timestamp) {
        (Some(version), None) => RollbackTarget::Version(version),
        (None, Some(at)) => RollbackTarget::Timestamp(at),
        _ => return Err(Problem::invalid("give either to_version or to_timestamp")),
    };
    if request.reason.as_ref().is_some_and(|reason| reason.len() > 1024) {
        return Err(Problem::invalid("reason has more than 1024 bytes"));
    }
    let rollback = Rollback { target, features: request.features, reason: request.reason };
    if !request.dry_run {
        let outcome = app.store.rollback(&entity, &rollback, &Origin::default(), precondition).await?;
        return Ok(written(&entity, &outcome));
    }
    let (version, planned) = app.store.plan_rollback(&entity, &rollback, precondition).await?;
    let changes = planned.iter().map(|change| {
        let from = change.from.as_ref().unwrap_or(&Value::Null);
        (&change.feature, BeforeAfter { from, to: change.to.as_ref().unwrap_or(&Value::Null) })
    });
    Ok(Json(RollbackPlan {
        entity_type: entity.entity_type.as_str(),
        entity_id: entity.entity_id.as_str(),
        version,
        dry_run: true,
        changes: by_feature(changes),
    })
    .into_response())
}
