//! Exports: the features of many entities as a table of any format, streamed.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;

use super::App;
use super::extract::{JsonBody, Path, Query};
use super::features::retracted;
use super::jobs::{Accepted, prefers_async};
use super::problem::{Problem, ReadProblems, TableProblems};
use super::schemas::FeatureNames;
use super::tables::{
    BrokenOff, FormatName, IncludeColumn, TableAnswer, beside, beside_of_query, streamed, wanted,
};
use crate::domain::name::{EntityId, EntityType, FeatureServiceRef};
use crate::domain::time::{Span, Timestamp};
use crate::service::export::{Batches, ExportRequest};
use crate::service::frame::Beside;
use crate::service::selection::{Selection, split_names};
use crate::table::Format;
use crate::table::write::Writer;

/// What to export.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"entity_type": "product", "features": ["price"], "format": "parquet"}))]
pub struct ExportFeaturesRequest {
    entity_type: EntityType,
    /// These entities; all of the type, if not given. One that the store has nothing of has no row.
    #[serde(default)]
    entity_ids: Option<Vec<EntityId>>,
    /// Features, as `price` or `product.price`; all of the schema, if not given.
    #[serde(default)]
    features: Option<Vec<String>>,
    /// A feature service, as `ranking` or `ranking@2`, instead of features: those of this entity type.
    #[serde(default)]
    #[schema(value_type = Option<FeatureServiceRef>)]
    feature_service: Option<String>,
    /// What was true at that time, by event time.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    as_of: Option<Timestamp>,
    /// With `as_of` or `history`: the past with what was retracted.
    #[serde(default)]
    include_retracted: bool,
    /// How old by event time a value may be; goes before the schema's `max_age`.
    #[serde(default)]
    max_age: Option<Span>,
    /// A row for every version that is kept, with the columns `event_timestamp`, `written_at` and
    /// `version`, instead of one row for every entity.
    #[serde(default)]
    history: bool,
    /// Columns beside each feature's values.
    #[serde(default)]
    include: Vec<IncludeColumn>,
    /// The order of the rows; the store's own, if not given.
    #[serde(default)]
    order: Option<Order>,
    /// The format of the answer; what `Accept` asks for, if not given, else JSON.
    #[serde(default)]
    format: Option<FormatName>,
    /// Whether to answer with a job at once, which makes a file that is fetched with
    /// `get_job_result`. The header `Prefer: respond-async` does the same. Only on servers that keep
    /// exports (`export_dir`).
    #[serde(default, rename = "async")]
    in_background: bool,
}

/// The order of an export's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// By entity id, for which the server has to gather all ids first.
    EntityId,
}

/// Export features as a table
///
/// Columns: `entity_id`, then the features in the order asked for. The answer is streamed, however
/// large it is; where it fails on the way the transfer is broken off.
#[utoipa::path(
    post, path = "/v1/features/export",
    operation_id = "export_features", tag = "training",
    params(("Prefer" = Option<String>, Header, description = "`respond-async`: as `async` in the body", example = "respond-async")),
    request_body = inline(ExportFeaturesRequest),
    responses(TableAnswer, Accepted, TableProblems)
)]
pub async fn export_features(
    State(app): State<App>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request: ExportFeaturesRequest = body.parse()?;
    let format = wanted(request.format, &headers)?;
    let selection = selection(&request.entity_type, request.features, request.feature_service.as_deref())?;
    let in_background = request.in_background || prefers_async(&headers);
    let request = ExportRequest {
        entity_type: request.entity_type,
        entity_ids: request.entity_ids,
        selection,
        retracted: retracted(request.include_retracted, request.history || request.as_of.is_some())?,
        as_of: request.as_of,
        max_age: request.max_age,
        history: request.history,
        beside: beside(&request.include),
        ordered: request.order == Some(Order::EntityId),
    };
    if in_background {
        return Ok(Accepted(app.store.export_to_file(request, format).await?).into_response());
    }
    answer(&app, request, format).await
}

/// What to export of an entity type.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// The format of the answer; what `Accept` asks for, if not given, else JSON.
    format: Option<FormatName>,
    /// Feature names, separated by commas; all features of the schema, if not given.
    #[param(value_type = Option<FeatureNames>, example = "name,price")]
    features: Option<String>,
    /// A feature service, as `ranking` or `ranking@2`, instead of features: those of this entity type.
    #[param(value_type = Option<FeatureServiceRef>, example = "ranking@2")]
    feature_service: Option<String>,
    /// What was true at that time, by event time.
    #[param(value_type = Option<String>, format = DateTime)]
    as_of: Option<Timestamp>,
    /// With `as_of` or `history`: the past with what was retracted.
    #[serde(default)]
    include_retracted: bool,
    /// How old by event time a value may be; goes before the schema's `max_age`.
    max_age: Option<Span>,
    /// A row for every version that is kept instead of one for every entity.
    #[serde(default)]
    history: bool,
    /// `event_timestamp`, `status` or both, separated by a comma: columns beside each feature's values.
    #[param(
        example = "event_timestamp,status",
        pattern = "^(event_timestamp|status)(,(event_timestamp|status))*$"
    )]
    include: Option<String>,
    /// The order of the rows; the store's own, if not given.
    order: Option<Order>,
}

/// Export an entity type as a table
///
/// As `export_features`, with an address that other programs can open:
/// `pandas.read_parquet("http://localhost:8080/v1/entity-types/product/export?format=parquet")`.
#[utoipa::path(
    get, path = "/v1/entity-types/{entity_type}/export",
    operation_id = "export_entity_type", tag = "training",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product"), ExportQuery),
    responses(TableAnswer, (status = 406, description = "Accept names no format of tables.", body = Problem, content_type = "application/problem+json"), ReadProblems)
)]
pub async fn export_entity_type(
    State(app): State<App>,
    Path(entity_type): Path<EntityType>,
    Query(query): Query<ExportQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = wanted(query.format, &headers)?;
    let features = query
        .features
        .as_deref()
        .map(split_names)
        .transpose()?
        .map(|names| names.into_iter().map(str::to_owned).collect());
    let beside: Beside = beside_of_query(query.include.as_deref())?;
    let request = ExportRequest {
        selection: selection(&entity_type, features, query.feature_service.as_deref())?,
        entity_type,
        entity_ids: None,
        retracted: retracted(query.include_retracted, query.history || query.as_of.is_some())?,
        as_of: query.as_of,
        max_age: query.max_age,
        history: query.history,
        beside,
        ordered: query.order == Some(Order::EntityId),
    };
    answer(&app, request, format).await
}

fn selection(
    entity_type: &EntityType,
    features: Option<Vec<String>>,
    feature_service: Option<&str>,
) -> Result<Selection, Problem> {
    match (features, feature_service) {
        (None, None) => Ok(Selection::All),
        (None, Some(service)) => Ok(Selection::FeatureService(FeatureServiceRef::parse(service)?)),
        (Some(_), Some(_)) => Err(Problem::invalid("features and feature_service exclude each other")),
        (Some(features), None) => {
            let own = |name: String| match name.split_once('.') {
                None => Ok(name),
                Some((of, name)) if of == entity_type.as_str() => Ok(name.to_owned()),
                Some(_) => Err(Problem::invalid(format!("features: {name} is none of {entity_type}"))),
            };
            Ok(Selection::Names(features.into_iter().map(own).collect::<Result<_, _>>()?))
        }
    }
}

async fn answer(app: &App, request: ExportRequest, format: Format) -> Result<Response, Problem> {
    let (name, ordered) = (request.entity_type.to_string(), request.ordered);
    send(app.store.export(request).await?, format, &name, ordered).await
}

/// Sends a table while it is made. Where its first rows are `slow` to come, nobody waits for them.
pub async fn send(
    mut table: impl Batches,
    format: Format,
    name: &str,
    slow: bool,
) -> Result<Response, Problem> {
    let writer = Writer::new(format, table.schema()).map_err(|error| unwritable(&error))?;
    // With the first rows at hand most of what may fail has not, while a status can still say so. Ids
    // in order take a walk over all of them, which may take longer than a client waits for a head.
    let first = if slow { None } else { Some(table.next().await?) };
    Ok(streamed(format, name, stream(table, writer, first)))
}

fn unwritable(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "an export cannot be written");
    Problem::internal()
}

/// The pieces of an export. Nothing is loaded before the client has taken what was sent, and nothing
/// more once it has gone.
fn stream(
    export: impl Batches,
    writer: Writer,
    first: Option<Option<arrow_array::RecordBatch>>,
) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    futures::stream::try_unfold(Some((export, writer, first)), |state| async move {
        let Some((mut export, mut writer, loaded)) = state else { return Ok(None) };
        let batch = match loaded {
            Some(batch) => batch,
            None => export.next().await.map_err(|error| BrokenOff::because(&error))?,
        };
        let Some(batch) = batch else {
            let bytes = writer.finish().map_err(|error| BrokenOff::because(&error))?;
            return Ok(Some((bytes, None)));
        };
        // The next rows are loaded while these are written.
        let write = tokio::task::spawn_blocking(move || (writer.push(&batch), writer));
        let (written, next) = tokio::join!(write, export.next());
        let (bytes, writer) = written.map_err(|error| BrokenOff::because(&error))?;
        let bytes = bytes.map_err(|error| BrokenOff::because(&error))?;
        let next = next.map_err(|error| BrokenOff::because(&error))?;
        Ok(Some((bytes, Some((export, writer, Some(next))))))
    })
}
