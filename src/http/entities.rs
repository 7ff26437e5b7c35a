//! Entities as a whole: list their ids, delete one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::{EntityPath, Path, Query, Unconditional};
use super::problem::{ChangeProblems, Problem, ReadProblems};
use crate::domain::name::{EntityId, EntityKey, EntityType};

/// Which part of a listing is wanted.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// At most so many ids (default 100).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A page of entity ids.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(example = json!({"entity_type": "product", "entity_ids": ["1", "2"], "next_cursor": null}))]
pub struct ListEntitiesResponse {
    entity_type: String,
    /// In the store's own order.
    entity_ids: Vec<String>,
    /// Where the next page starts; null after the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List the ids of an entity type
///
/// Every entity that is there during the whole walk appears at least once.
#[utoipa::path(
    get, path = "/v1/entities/{entity_type}",
    operation_id = "list_entities", tag = "entities",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product"), ListQuery),
    responses((status = 200, description = "A page of ids", body = inline(ListEntitiesResponse)), ReadProblems)
)]
pub async fn list_entities(
    State(app): State<App>,
    Path(entity_type): Path<EntityType>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListEntitiesResponse>, Problem> {
    let most = app.store.settings().limits.max_page_size;
    let limit = query.limit.unwrap_or(most.min(100));
    let page = app.store.list_entities(&entity_type, query.cursor.as_deref(), limit).await?;
    Ok(Json(ListEntitiesResponse {
        entity_type: entity_type.to_string(),
        entity_ids: page.entity_ids.iter().map(ToString::to_string).collect(),
        next_cursor: page.next_cursor,
    }))
}

/// Delete an entity with its history
///
/// Nothing of it can be brought back.
#[utoipa::path(
    delete, path = "/v1/entities/{entity_type}/{entity_id}",
    operation_id = "delete_entity", tag = "entities",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
    ),
    responses((status = 204, description = "Deleted"), ChangeProblems)
)]
pub async fn delete_entity(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    _: Unconditional,
) -> Result<Response, Problem> {
    app.store.delete_entity(&EntityKey::from(path)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
