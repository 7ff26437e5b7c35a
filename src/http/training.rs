//! Training sets: point-in-time joins.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::App;
use super::extract::{AnyBody, Query};
use super::features::retracted;
use super::problem::{Code, Problem, TableProblems};
use super::schemas::ColumnByEntityType;
use super::tables::{
    BrokenOff, FormatName, IncludeColumn, TableBytes, beside, beside_of_query, streamed, wanted,
};
use super::values::FeatureValue;
use crate::domain::name::{EntityType, FeatureServiceRef};
use crate::domain::time::Span;
use crate::domain::unique;
use crate::service::selection::{BatchSelection, split_names};
use crate::service::training::{TrainingRequest, TrainingSet};
use crate::table::read::{ReadError, Source};
use crate::table::write::{WriteError, Writer, json_members};
use crate::table::{Format, json_columns, read};

/// A spine, and the features to join to it.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "spine": {"columns": {"product_id": ["1", "1"],
        "event_timestamp": ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"], "label": [0, 1]}},
    "entity_columns": {"product": "product_id"}, "timestamp_column": "event_timestamp",
    "features": ["product.price"]
}))]
pub struct TrainingSetRequest<'a> {
    /// The rows that features are wanted for.
    #[serde(borrow)]
    spine: JsonSpine<'a>,
    /// The column that holds the ids of each entity type. A type that is not here has its ids in a
    /// column of its own name with `_id` behind it.
    #[serde(default, deserialize_with = "unique::map")]
    #[schema(value_type = ColumnByEntityType)]
    entity_columns: IndexMap<EntityType, String>,
    /// The column that holds the time of each row (default `event_timestamp`).
    #[serde(default)]
    timestamp_column: Option<String>,
    /// Features as `product.price`, or `price` where `entity_columns` names one entity type.
    #[serde(default)]
    features: Option<Vec<String>>,
    /// A feature service, as `ranking` or `ranking@2`, instead of features.
    #[serde(default)]
    #[schema(value_type = Option<FeatureServiceRef>)]
    feature_service: Option<String>,
    /// How old by event time a value may be at the time of its row; goes before the schema's `max_age`.
    #[serde(default)]
    max_age: Option<Span>,
    /// Values that were retracted, too, as if their run had not been undone.
    #[serde(default)]
    include_retracted: bool,
    /// Columns beside each feature's values.
    #[serde(default)]
    include: Vec<IncludeColumn>,
    /// The format of the answer; what `Accept` asks for, if not given, else JSON.
    #[serde(default)]
    format: Option<FormatName>,
}

/// A spine in columns of equal length.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSpine<'a> {
    #[serde(borrow, deserialize_with = "unique::map")]
    #[schema(value_type = BTreeMap<String, Vec<FeatureValue>>)]
    columns: IndexMap<Cow<'a, str>, Vec<&'a RawValue>>,
}

/// What goes with a spine that is the body itself.
#[derive(Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct TrainingSetQuery {
    /// The column that holds the ids of each entity type, separated by commas, as in
    /// `product:product_id,user:buyer`. Only for a spine that is the body itself, as all that follows.
    #[param(
        example = "product:product_id",
        pattern = "^[A-Za-z_][A-Za-z0-9_]{0,127}:[^,:]+(,[A-Za-z_][A-Za-z0-9_]{0,127}:[^,:]+)*$"
    )]
    entity_columns: Option<String>,
    /// The column that holds the time of each row (default `event_timestamp`).
    timestamp_column: Option<String>,
    /// Features as `product.price`, separated by commas.
    #[param(example = "product.price")]
    features: Option<String>,
    /// A feature service, as `ranking` or `ranking@2`, instead of features.
    #[param(value_type = Option<FeatureServiceRef>, example = "ranking@2")]
    feature_service: Option<String>,
    /// How old by event time a value may be at the time of its row; goes before the schema's `max_age`.
    max_age: Option<Span>,
    /// Values that were retracted, too, as if their run had not been undone.
    include_retracted: bool,
    /// `event_timestamp`, `status` or both, separated by a comma: columns beside each feature's values.
    #[param(
        example = "event_timestamp,status",
        pattern = "^(event_timestamp|status)(,(event_timestamp|status))*$"
    )]
    include: Option<String>,
    /// The format of the answer; what `Accept` asks for, if not given, else JSON.
    format: Option<FormatName>,
}

/// A training set in columns.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
#[schema(example = json!({"columns": {"product_id": ["1", "1"],
    "event_timestamp": ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"], "label": [0, 1],
    "product.price": [9.5, null]}}))]
pub struct TrainingSetResponse {
    /// The spine's columns, then the features in the order asked for.
    columns: std::collections::BTreeMap<String, Vec<FeatureValue>>,
}

/// Join features to a spine, point in time
///
/// Each row gets, for each feature, the value that was true at the row's time: the newest event at or
/// before it, unless that was older than `max_age` then. Never one of the future. A Parquet, Arrow, CSV
/// or NDJSON spine is the body itself, and the rest are query parameters.
#[utoipa::path(
    post, path = "/v1/features/training-set",
    operation_id = "get_training_set", tag = "training",
    params(TrainingSetQuery),
    request_body(content(
        (inline(TrainingSetRequest) = "application/json"),
        (TableBytes = "application/vnd.apache.parquet"),
        (TableBytes = "application/vnd.apache.arrow.stream"),
        (TableBytes = "text/csv"),
        (TableBytes = "application/x-ndjson"),
    )),
    responses((status = 200, description = "The spine with the features beside it", content(
        (inline(TrainingSetResponse) = "application/json"),
        (TableBytes = "application/vnd.apache.parquet"),
        (TableBytes = "application/vnd.apache.arrow.stream"),
        (TableBytes = "text/csv"),
        (TableBytes = "application/x-ndjson"),
    )), TableProblems)
)]
pub async fn get_training_set(
    State(app): State<App>,
    Query(query): Query<TrainingSetQuery>,
    headers: HeaderMap,
    body: AnyBody,
) -> Result<Response, Problem> {
    let (request, format) = match body.format() {
        Some(Format::Json) => of_document(&body, query, &headers)?,
        Some(format) => of_table(format, body, query, &headers).await?,
        None => {
            let detail = "the body must come with Content-Type: application/json, or that of the spine: application/vnd.apache.parquet, application/vnd.apache.arrow.stream, text/csv, application/x-ndjson";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidRequest, detail));
        }
    };
    let set = app.store.training_set(request).await?;
    answer(Arc::new(set), format)
}

fn of_document(
    body: &AnyBody,
    query: TrainingSetQuery,
    headers: &HeaderMap,
) -> Result<(TrainingRequest, Format), Problem> {
    let TrainingSetQuery {
        entity_columns: None,
        timestamp_column: None,
        features: None,
        feature_service: None,
        max_age: None,
        include_retracted: false,
        include: None,
        format,
    } = query
    else {
        return Err(Problem::invalid(
            "with a JSON body only format is a query parameter: the rest goes into the body",
        ));
    };
    let request: TrainingSetRequest<'_> = body.parse()?;
    let columns: Vec<_> = request.spine.columns.into_iter().collect();
    let spine = json_columns::table(&columns).map_err(|is| Problem::invalid(format!("spine: {is}")))?;
    let format = wanted(request.format.or(format), headers)?;
    let request = TrainingRequest {
        spine,
        entity_columns: request.entity_columns,
        timestamp_column: request.timestamp_column.unwrap_or_else(default_time),
        features: features(request.features, request.feature_service.as_deref())?,
        max_age: request.max_age,
        retracted: retracted(request.include_retracted, true)?,
        beside: beside(&request.include),
    };
    Ok((request, format))
}

async fn of_table(
    format: Format,
    body: AnyBody,
    query: TrainingSetQuery,
    headers: &HeaderMap,
) -> Result<(TrainingRequest, Format), Problem> {
    let wanted = wanted(query.format, headers)?;
    let mut entity_columns = IndexMap::new();
    for pair in query.entity_columns.iter().flat_map(|pairs| pairs.split(',')) {
        let Some((entity_type, column)) = pair.split_once(':') else {
            let detail = format!("entity_columns: write {pair:?} as entity_type:column");
            return Err(Problem::invalid(detail));
        };
        entity_columns.insert(EntityType::parse(entity_type.trim())?, column.trim().to_owned());
    }
    let names = query
        .features
        .as_deref()
        .map(split_names)
        .transpose()?
        .map(|names| names.into_iter().map(str::to_owned).collect());
    let features = features(names, query.feature_service.as_deref())?;
    let bytes = body.into_bytes();
    let spine = tokio::task::spawn_blocking(move || read::whole(format, Source::Bytes(bytes), usize::MAX));
    let spine = spine.await.map_err(|_| Problem::internal())?.map_err(|error| match error {
        ReadError::Source(_) | ReadError::Malformed(_) => {
            Problem::invalid(format!("the spine cannot be read as {}: {error}", format.name()))
        }
    })?;
    let request = TrainingRequest {
        spine,
        entity_columns,
        timestamp_column: query.timestamp_column.unwrap_or_else(default_time),
        features,
        max_age: query.max_age,
        retracted: retracted(query.include_retracted, true)?,
        beside: beside_of_query(query.include.as_deref())?,
    };
    Ok((request, wanted))
}

fn default_time() -> String {
    "event_timestamp".to_owned()
}

fn features(names: Option<Vec<String>>, service: Option<&str>) -> Result<BatchSelection, Problem> {
    match (names, service) {
        (Some(names), None) => Ok(BatchSelection::Names(names)),
        (None, Some(service)) => Ok(BatchSelection::FeatureService(FeatureServiceRef::parse(service)?)),
        _ => Err(Problem::invalid("give either features or feature_service")),
    }
}

fn answer(set: Arc<TrainingSet>, format: Format) -> Result<Response, Problem> {
    if format == Format::Json {
        return Ok(streamed(format, "training-set", columns(set)));
    }
    // What the spine brings may be of a kind that a format does not have.
    let unwritable = |error: WriteError| {
        Problem::invalid(format!("the spine cannot be answered as {}: {error}", format.name()))
    };
    let writer = Writer::new(format, set.schema()).map_err(unwritable)?;
    Ok(streamed(format, "training-set", batches(set, writer)))
}

/// The set in rows.
fn batches(set: Arc<TrainingSet>, writer: Writer) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    let parts = set.parts();
    futures::stream::try_unfold(Some((parts, writer)), move |state| {
        let set = set.clone();
        async move {
            let Some((mut parts, mut writer)) = state else { return Ok(None) };
            let Some(rows) = parts.next() else {
                let bytes = writer.finish().map_err(|error| BrokenOff::because(&error))?;
                return Ok(Some((bytes, None)));
            };
            let write = tokio::task::spawn_blocking(move || {
                let batch = set.batch(rows).map_err(|error| BrokenOff::because(&error))?;
                let bytes = writer.push(&batch).map_err(|error| BrokenOff::because(&error))?;
                Ok((bytes, writer))
            });
            let (bytes, writer) = write.await.map_err(|error| BrokenOff::because(&error))??;
            Ok(Some((bytes, Some((parts, writer)))))
        }
    })
}

/// The set in columns, as JSON.
fn columns(set: Arc<TrainingSet>) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    let names =
        set.schema().fields().iter().map(|field| serde_json::Value::from(field.name().as_str()).to_string());
    let mut names: Vec<String> = names.collect();
    let mut pieces = vec![Piece::Text("{\"columns\":{".to_owned())];
    for (column, name) in names.drain(..).enumerate() {
        let comma = if column > 0 { "," } else { "" };
        pieces.push(Piece::Text(format!("{comma}{name}:[")));
        for (part, rows) in set.parts().enumerate() {
            if part > 0 {
                pieces.push(Piece::Text(",".to_owned()));
            }
            pieces.push(Piece::Cells(column, rows));
        }
        pieces.push(Piece::Text("]".to_owned()));
    }
    pieces.push(Piece::Text("}}\n".to_owned()));
    futures::stream::iter(pieces).then(move |piece| {
        let set = set.clone();
        async move {
            match piece {
                Piece::Text(text) => Ok(text.into()),
                Piece::Cells(column, rows) => {
                    let write = tokio::task::spawn_blocking(move || {
                        let cells = set.column(column, rows).map_err(|error| BrokenOff::because(&error))?;
                        json_members(set.schema().field(column), &cells)
                            .map_err(|error| BrokenOff::because(&error))
                    });
                    write.await.map_err(|error| BrokenOff::because(&error))?.map(Bytes::from)
                }
            }
        }
    })
}

/// A piece of a JSON document.
enum Piece {
    Text(String),
    /// So many values of a column.
    Cells(usize, std::ops::Range<usize>),
}
