//! Many entities in one call.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use indexmap::IndexMap;
use serde::Deserialize;

use super::App;
use super::answer::age;
use super::extract::{JsonBody, NoCache, RawMembers, Text, Unconditional};
use super::features::{Include, ReadFeaturesResponse, context, origin, retracted, when};
use super::problem::{ChangeProblems, Problem, RowProblem};
use super::render;
use super::schemas::{EntityIdsByType, FeaturesOfRow};
use super::tables::{TableBytes, accepted};
use super::values::{ByFeature, FeatureValue, ValueMetadata};
use crate::domain::draft::Outcome;
use crate::domain::name::{EntityId, EntityType, FeatureServiceRef};
use crate::domain::record::Version;
use crate::domain::time::{Span, Timestamp, Ttl};
use crate::domain::unique;
use crate::domain::value::Value;
use crate::domain::view::Status;
use crate::logs;
use crate::service::export::table;
use crate::service::frame::Beside;
use crate::service::read::{BatchRead, ReadOptions};
use crate::service::rows::Row;
use crate::service::selection::BatchSelection;
use crate::table::Format;
use crate::table::write::{WriteError, Writer};

/// Which features of which entities to read.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"entities": {"product": ["1", "2"]}, "features": ["product.price"], "include": ["metadata"], "layout": "rows"}))]
pub struct ReadBatchRequest<'a> {
    /// Entity ids by entity type.
    #[serde(deserialize_with = "unique::map")]
    #[schema(value_type = EntityIdsByType)]
    entities: IndexMap<EntityType, Vec<EntityId>>,
    /// Features as `product.price`, or `price` where only one entity type is read.
    #[serde(default)]
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<String>>)]
    features: Option<Vec<Text<'a>>>,
    /// A feature service, as `ranking` or `ranking@2`, instead of features.
    #[serde(default)]
    #[schema(value_type = Option<FeatureServiceRef>)]
    feature_service: Option<String>,
    #[serde(default)]
    include: Vec<Include>,
    #[serde(default)]
    layout: Layout,
    /// What was true at that time, by event time.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    as_of: Option<Timestamp>,
    /// With `as_of`: what was true as far as was known then, with what was retracted since.
    #[serde(default)]
    include_retracted: bool,
    /// How old by event time a value may be; goes before the schema's `max_age`.
    #[serde(default)]
    max_age: Option<Span>,
    /// Values for features that are computed when they are read.
    #[serde(default, borrow)]
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    context: RawMembers<'a>,
}

/// How the answer of a batch read is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One object an entity.
    #[default]
    Rows,
    /// By entity type, one array a feature: a DataFrame as it is, and smaller.
    Columns,
}

/// An answer in rows, in the order asked for.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
pub struct RowsResponse<'a> {
    results: Vec<ReadFeaturesResponse<'a>>,
}

/// The answers of one entity type, in columns.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
pub struct ColumnsOfType<'a> {
    /// As asked for, duplicates included.
    #[schema(value_type = Vec<String>)]
    entity_ids: Vec<&'a str>,
    versions: Vec<Version>,
    /// One array a feature, in the order of the entity ids.
    #[schema(value_type = BTreeMap<String, Vec<FeatureValue>>)]
    features: ByFeature<'a, Vec<&'a Value>>,
    /// Only of features that are not `present` somewhere.
    #[schema(value_type = BTreeMap<String, Vec<Status>>)]
    statuses: ByFeature<'a, Vec<Status>>,
    #[schema(value_type = Option<BTreeMap<String, Vec<Option<ValueMetadata>>>>)]
    metadata: Option<ByFeature<'a, Vec<Option<ValueMetadata<'a>>>>>,
}

/// The answer of a batch read, in the layout asked for.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the two forms of the answer, for the OpenAPI document")]
#[serde(untagged)]
pub enum ReadBatchResponse<'a> {
    Rows(RowsResponse<'a>),
    Columns(BTreeMap<String, ColumnsOfType<'a>>),
}

/// Read features of many entities
///
/// One call, several entity types. Results come in the order asked for, duplicates included; an
/// unknown entity has version 0 and the status `not_found` everywhere. With `Accept:
/// application/vnd.apache.arrow.stream` entities of one type are answered as a table: `entity_id`, the
/// features and, where `include` has `metadata`, their event timestamps and statuses.
#[utoipa::path(
    post, path = "/v1/features/read",
    operation_id = "get_features_batch", tag = "features",
    params(("Cache-Control" = Option<String>, Header, description = "`no-cache`: the store itself answers, and no copy of what it has", example = "no-cache")),
    request_body = inline(ReadBatchRequest),
    responses((status = 200, description = "The features, in rows or columns", content(
        (inline(ReadBatchResponse) = "application/json"),
        (TableBytes = "application/vnd.apache.arrow.stream"),
    ), headers(("Age" = u64, description = "Only where the store cannot be reached (`stale_if_error`): seconds since this was true for certain"))), ChangeProblems)
)]
pub async fn get_features_batch(
    State(app): State<App>,
    NoCache(no_cache): NoCache,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request: ReadBatchRequest<'_> = body.parse()?;
    let arrow = accepted(&headers) == Some(Format::Arrow);
    if arrow && request.entities.len() > 1 {
        let detail = "an Arrow answer is one table, of one entity type: ask for the others by themselves";
        return Err(Problem::invalid(detail));
    }
    let features = match (request.features, request.feature_service) {
        (Some(features), None) => BatchSelection::Names(features),
        (None, Some(service)) => BatchSelection::FeatureService(FeatureServiceRef::parse(&service)?),
        _ => return Err(Problem::invalid("give either features or feature_service")),
    };
    let metadata = request.include.contains(&Include::Metadata);
    let when = when(request.as_of, None)?;
    let retracted = retracted(request.include_retracted, request.as_of.is_some())?;
    let context = context(request.context)?;
    let request_id = matches!(features, BatchSelection::FeatureService(_)).then(|| logs::request_id().into());
    let options =
        ReadOptions { when, retracted, max_age: request.max_age, metadata, context, no_cache, request_id };
    let read = app.store.read_batch(BatchRead { entities: request.entities, features, options }).await?;
    if arrow && let [of_type] = read.answer.as_slice() {
        let beside = Beside { event_timestamp: metadata, status: metadata };
        return arrow_table(&table(of_type, beside)?);
    }
    let body = match request.layout {
        Layout::Rows => render::rows(&read, metadata)?,
        Layout::Columns => render::columns(&read, metadata)?,
    };
    Ok((age(read.stale), body).into_response())
}

/// An answer as an Arrow stream.
fn arrow_table(table: &arrow_array::RecordBatch) -> Result<Response, Problem> {
    let write = || -> Result<Vec<u8>, WriteError> {
        let mut writer = Writer::new(Format::Arrow, &table.schema())?;
        let rows = writer.push(table)?;
        Ok([rows, writer.finish()?].concat())
    };
    let bytes = write().map_err(|error| {
        tracing::error!(%error, "an answer could not be written as Arrow");
        Problem::internal()
    })?;
    let media_type = HeaderValue::from_static(Format::Arrow.media_type());
    Ok(([(header::CONTENT_TYPE, media_type)], bytes).into_response())
}

/// Rows to write, all of one entity type.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"entity_type": "product", "source": "catalogue-sync", "run_id": "2026-01-02", "atomic": false,
    "rows": [{"entity_id": "1", "features": {"price": 1.5}, "event_timestamp": "2026-01-02T03:04:05Z"}]}))]
pub struct WriteBatchRequest<'a> {
    entity_type: EntityType,
    #[serde(borrow)]
    rows: Vec<WriteBatchRow<'a>>,
    /// Whether one bad row refuses all of them before anything is stored.
    #[serde(default)]
    atomic: bool,
    /// The ttl of rows that have none of their own.
    #[serde(default)]
    ttl: Option<Ttl>,
    #[serde(default)]
    #[schema(max_length = 1024)]
    source: Option<String>,
    #[serde(default)]
    #[schema(max_length = 1024)]
    run_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Features to write to one entity of a batch.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteBatchRow<'a> {
    entity_id: EntityId,
    #[serde(borrow)]
    #[schema(value_type = FeaturesOfRow)]
    features: RawMembers<'a>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    event_timestamp: Option<Timestamp>,
    #[serde(default)]
    ttl: Option<Ttl>,
}

// `render` writes it.
/// What became of a batch of rows.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
#[schema(example = json!({"written": 1, "rejected": 1, "results": [
    {"entity_id": "1", "version": 4, "outcomes": {"price": "applied"}},
    {"entity_id": "2", "error": {"code": "validation_failed", "detail": "price: must be at least 0",
        "errors": [{"feature": "price", "code": "below_minimum", "message": "must be at least 0"}]}}]}))]
pub struct WriteBatchResponse<'a> {
    /// How many rows were accepted.
    written: usize,
    rejected: usize,
    /// In the order of the rows.
    results: Vec<WriteBatchResult<'a>>,
}

/// What became of one row: its version and outcomes, or its error.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
pub struct WriteBatchResult<'a> {
    entity_id: &'a str,
    version: Option<Version>,
    #[schema(value_type = Option<BTreeMap<String, Outcome>>)]
    outcomes: Option<ByFeature<'a, Outcome>>,
    error: Option<RowProblem>,
}

/// Write features of many entities
///
/// Each row stands alone and has a result of its own, unless `atomic` asks for all rows to be
/// checked before any is stored.
#[utoipa::path(
    post, path = "/v1/features/write",
    operation_id = "write_features_batch", tag = "features",
    request_body = inline(WriteBatchRequest),
    responses((status = 200, description = "What became of each row", body = inline(WriteBatchResponse)), ChangeProblems)
)]
pub async fn write_features_batch(
    State(app): State<App>,
    _: Unconditional,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request: WriteBatchRequest<'_> = body.parse()?;
    let origin = origin(request.source, request.run_id, request.metadata)?;
    let ids: Vec<EntityId> = request.rows.iter().map(|row| row.entity_id.clone()).collect();
    let rows = request.rows.into_iter().map(|row| Row {
        entity_id: row.entity_id,
        features: row.features.0,
        event_timestamp: row.event_timestamp,
        ttl: row.ttl.or(request.ttl),
    });
    let results =
        app.store.write_batch(&request.entity_type, rows.collect(), &origin, request.atomic).await?;
    Ok(render::written_rows(&ids, results)?.into_response())
}
