//! Entity types and their schemas.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::{Document, Path, Query};
use super::problem::{ChangeProblems, Problem, ReadProblems};
use crate::domain::name::EntityType;
use crate::domain::schema::{EntityTypeSchema, RegisteredEntityType, SchemaDiff};
use crate::service::principal::may_use;

/// Every entity type.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListEntityTypesResponse {
    /// In the order of their names.
    entity_types: Vec<RegisteredEntityType>,
}

/// List entity types
#[utoipa::path(
    get, path = "/v1/entity-types",
    operation_id = "list_entity_types", tag = "registry",
    responses((status = 200, description = "Every entity type with its schema", body = inline(ListEntityTypesResponse)), ReadProblems)
)]
pub async fn list_entity_types(State(app): State<App>) -> Result<Json<ListEntityTypesResponse>, Problem> {
    app.store.registry().refresh().await?;
    let snapshot = app.store.registry().snapshot();
    let visible = snapshot.entity_types().into_iter().filter(|entity_type| may_use(entity_type.name()));
    let entity_types = visible.map(|entity_type| entity_type.registered.clone());
    Ok(Json(ListEntityTypesResponse { entity_types: entity_types.collect() }))
}

/// Get the schema of an entity type
#[utoipa::path(
    get, path = "/v1/entity-types/{entity_type}",
    operation_id = "get_entity_type", tag = "registry",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product")),
    responses((status = 200, description = "The schema", body = RegisteredEntityType), ReadProblems)
)]
pub async fn get_entity_type(
    State(app): State<App>,
    Path(name): Path<EntityType>,
) -> Result<Response, Problem> {
    app.store.registry().refresh().await?;
    let entity_type = app.store.registry().entity_type(&name).await?;
    Ok(Json(&entity_type.registered).into_response())
}

/// Whether to really put it.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutQuery {
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
}

/// What putting a schema changed, or would change.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PutEntityTypeResponse<'a> {
    /// The schema version now (with `dry_run`: that it would have).
    schema_version: u32,
    dry_run: bool,
    /// Whether the entity type is new.
    created: bool,
    /// How the schema differs from the one before.
    changes: SchemaDiff,
    #[schema(value_type = RegisteredEntityType)]
    entity_type: &'a RegisteredEntityType,
}

/// Put the schema of an entity type
///
/// The whole document, as JSON or as YAML. A change that would make stored values unreadable is a
/// conflict; each accepted change is a schema version.
#[utoipa::path(
    put, path = "/v1/entity-types/{entity_type}",
    operation_id = "put_entity_type", tag = "registry",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product"), PutQuery),
    request_body(content((EntityTypeSchema = "application/json"), (EntityTypeSchema = "application/yaml"))),
    responses(
        (status = 200, description = "Changed, or unchanged", body = inline(PutEntityTypeResponse)),
        (status = 201, description = "Created", body = inline(PutEntityTypeResponse)),
        ChangeProblems,
    )
)]
pub async fn put_entity_type(
    State(app): State<App>,
    Path(name): Path<EntityType>,
    Query(query): Query<PutQuery>,
    Document(schema): Document<EntityTypeSchema>,
) -> Result<Response, Problem> {
    let put = app.store.registry().put_entity_type(&name, schema, query.dry_run).await?;
    let status = if put.created && !query.dry_run { StatusCode::CREATED } else { StatusCode::OK };
    let body = PutEntityTypeResponse {
        schema_version: put.document.registered.schema_version,
        dry_run: query.dry_run,
        created: put.created,
        changes: put.diff,
        entity_type: &put.document.registered,
    };
    let mut response = Json(body).into_response();
    *response.status_mut() = status;
    Ok(response)
}

/// What else is to go.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteEntityTypeQuery {
    /// Delete its entities with it; otherwise they must be gone already.
    #[serde(default)]
    cascade: bool,
}

/// Delete an entity type
#[utoipa::path(
    delete, path = "/v1/entity-types/{entity_type}",
    operation_id = "delete_entity_type", tag = "registry",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product"), DeleteEntityTypeQuery),
    responses((status = 204, description = "Deleted"), ChangeProblems)
)]
pub async fn delete_entity_type(
    State(app): State<App>,
    Path(name): Path<EntityType>,
    Query(query): Query<DeleteEntityTypeQuery>,
) -> Result<Response, Problem> {
    app.store.delete_entity_type(&name, query.cascade).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Every schema version of an entity type.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListSchemaVersionsResponse {
    /// Oldest first.
    schema_versions: Vec<RegisteredEntityType>,
}

/// List the schema versions of an entity type
#[utoipa::path(
    get, path = "/v1/entity-types/{entity_type}/schema-versions",
    operation_id = "list_schema_versions", tag = "registry",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product")),
    responses((status = 200, description = "Every version of the schema", body = inline(ListSchemaVersionsResponse)), ReadProblems)
)]
pub async fn list_schema_versions(
    State(app): State<App>,
    Path(name): Path<EntityType>,
) -> Result<Json<ListSchemaVersionsResponse>, Problem> {
    let schema_versions = app.store.registry().schema_versions(&name).await?;
    Ok(Json(ListSchemaVersionsResponse { schema_versions }))
}
