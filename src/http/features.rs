//! Features of one entity: write, read, delete.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::App;
use super::answer::{ETag, age};
use super::extract::{EntityPath, IfMatch, JsonBody, NoCache, Path, Query, RawMembers};
use super::problem::{ChangeProblems, Problem, ReadProblems};
use super::render;
use super::schemas::{FeatureNames, FeaturesToWrite, VersionMatch, VersionNumber};
use super::values::{ByFeature, FeatureValue, ValueMetadata};
use crate::domain::draft::Outcome;
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureServiceRef};
use crate::domain::record::Version;
use crate::domain::time::{Span, Timestamp, Ttl};
use crate::domain::value::{FeatureType, Value};
use crate::domain::view::{Retracted, Status};
use crate::logs;
use crate::service::columns::Named;
use crate::service::read::{ReadOptions, When};
use crate::service::rows::Row;
use crate::service::selection::{Selection, split_names};
use crate::service::write::{Origin, Written};

/// Features to write to one entity.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "features": {"name": "iPhone 15", "price": 999.99},
    "event_timestamp": "2026-01-02T03:04:05Z", "ttl": "1h",
    "source": "catalogue-sync", "run_id": "2026-01-02", "metadata": {}
}))]
pub struct WriteFeaturesRequest<'a> {
    #[serde(borrow)]
    #[schema(value_type = FeaturesToWrite)]
    features: RawMembers<'a>,
    /// When the values were true in the world; now, if not given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    event_timestamp: Option<Timestamp>,
    /// How long these values are served; goes before every other ttl.
    #[serde(default)]
    ttl: Option<Ttl>,
    /// The system or pipeline that writes.
    #[serde(default)]
    #[schema(max_length = 1024)]
    source: Option<String>,
    /// The run of that pipeline.
    #[serde(default)]
    #[schema(max_length = 1024)]
    run_id: Option<String>,
    /// Anything worth noting of this write.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

const MAX_ORIGIN_BYTES: usize = 1024;
const MAX_METADATA_BYTES: usize = 16 << 10;

/// The origin of a write, if it is short enough to be kept with every version.
pub fn origin(
    source: Option<String>,
    run_id: Option<String>,
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
) -> Result<Origin, Problem> {
    for (name, text) in [("source", &source), ("run_id", &run_id)] {
        if text.as_ref().is_some_and(|text| text.len() > MAX_ORIGIN_BYTES) {
            return Err(Problem::invalid(format!("{name} has more than {MAX_ORIGIN_BYTES} bytes")));
        }
    }
    let metadata = metadata.unwrap_or_default();
    let size = if metadata.is_empty() {
        0
    } else {
        serde_json::to_string(&metadata).map_or(usize::MAX, |t| t.len())
    };
    if size > MAX_METADATA_BYTES {
        return Err(Problem::invalid(format!("metadata has more than {MAX_METADATA_BYTES} bytes")));
    }
    Ok(Origin { source, run_id, actor: None, metadata })
}

// `render` writes it.
/// What became of a write of one entity.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
#[schema(example = json!({"entity_type": "product", "entity_id": "123", "version": 7,
    "outcomes": {"name": "unchanged", "price": "applied"}}))]
pub struct WriteFeaturesResponse<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    /// The entity's version now.
    version: Version,
    #[schema(value_type = BTreeMap<String, Outcome>)]
    outcomes: ByFeature<'a, Outcome>,
}

/// The answer to a write, with the entity's version as its `ETag`.
pub fn written(entity: &EntityKey, written: &Written) -> Response {
    render::written(entity, written).map(|body| (ETag(written.version), body)).into_response()
}

/// Write features of one entity
///
/// All of them are stored, as one version, or none is and the answer lists everything that is
/// wrong. A newer event timestamp replaces the served value (`applied`), an older one goes into the
/// history (`late`), and the same event again changes nothing (`unchanged`).
#[utoipa::path(
    post, path = "/v1/entities/{entity_type}/{entity_id}/features",
    operation_id = "write_features", tag = "features",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("If-Match" = Option<VersionMatch>, Header, description = "Write only if the entity is at this version, as in \"7\" (\"0\": not there yet), or * (is there)", example = "\"7\""),
    ),
    request_body = inline(WriteFeaturesRequest),
    responses((status = 200, description = "Stored", body = inline(WriteFeaturesResponse), headers(("ETag" = String, description = "The entity's version in quotes"))), ChangeProblems)
)]
pub async fn write_features(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    IfMatch(precondition): IfMatch,
    body: JsonBody,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let request: WriteFeaturesRequest<'_> = body.parse()?;
    let origin = origin(request.source, request.run_id, request.metadata)?;
    let row = Row {
        entity_id: entity.entity_id.clone(),
        features: request.features.0,
        event_timestamp: request.event_timestamp,
        ttl: request.ttl,
    };
    let outcome = app.store.write_features(&entity, row, &origin, precondition).await?;
    Ok(written(&entity, &outcome))
}

/// How to read one entity.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadFeaturesQuery {
    /// Feature names, separated by commas; all features of the schema, if not given.
    #[param(value_type = Option<FeatureNames>, example = "name,price")]
    names: Option<String>,
    /// A feature service, as `ranking` or `ranking@2`, instead of names.
    #[param(value_type = Option<FeatureServiceRef>, example = "ranking@2")]
    feature_service: Option<String>,
    /// `metadata` adds where and when each value comes from.
    include: Option<Include>,
    /// What was true at that time, by event time.
    #[param(value_type = Option<String>, format = DateTime)]
    as_of: Option<Timestamp>,
    /// With `as_of`: what was true as far as was known then, with what was retracted since.
    #[serde(default)]
    #[param(required = false)]
    include_retracted: bool,
    /// The entity as it stood at that version.
    #[param(value_type = Option<VersionNumber>)]
    version: Option<Version>,
    /// How old by event time a value may be; goes before the schema's `max_age`.
    max_age: Option<Span>,
    /// Values for features that are computed when they are read, as a JSON object.
    #[param(example = json!("{\"hour\": 12}"))]
    context: Option<String>,
}

/// Named values of a request, each of the type that its JSON shows.
pub fn context(members: RawMembers<'_>) -> Result<Named, Problem> {
    let values = members.0.into_iter().map(|(name, given)| {
        let feature_type = given.infer_type().unwrap_or(FeatureType::Json);
        let value = given
            .to_value(feature_type)
            .map_err(|error| Problem::invalid(format!("context: {name}: {error}")))?;
        Ok((Arc::from(name), value))
    });
    values.collect()
}

/// What an answer is to hold besides values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    Metadata,
}

/// The time that a read speaks of, from its two parameters.
pub fn when(as_of: Option<Timestamp>, version: Option<Version>) -> Result<When, Problem> {
    match (as_of, version) {
        (None, None) => Ok(When::Now),
        (Some(at), None) => Ok(When::AsOf(at)),
        (None, Some(version)) => Ok(When::Version(version)),
        (Some(_), Some(_)) => Err(Problem::invalid("as_of and version exclude each other")),
    }
}

/// Whether a look into the past sees what was retracted.
pub fn retracted(include: bool, is_past: bool) -> Result<Retracted, Problem> {
    match (include, is_past) {
        (false, _) => Ok(Retracted::Hidden),
        (true, true) => Ok(Retracted::Shown),
        (true, false) => Err(Problem::invalid(
            "include_retracted speaks of the past: it goes with as_of (an export: or history)",
        )),
    }
}

// `render` writes it.
/// Features of one entity.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the form of the answer, for the OpenAPI document")]
#[schema(example = json!({"entity_type": "product", "entity_id": "123", "version": 7,
    "features": {"name": "iPhone 15", "price": 999.99, "stock": null}, "statuses": {"stock": "expired"}}))]
pub struct ReadFeaturesResponse<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    /// The entity's version; 0 where the store has nothing of it.
    version: Version,
    /// Every feature asked for, in that order.
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    features: ByFeature<'a, &'a Value>,
    /// Why a feature is what it is, where that is not `present`.
    #[schema(value_type = BTreeMap<String, Status>)]
    statuses: ByFeature<'a, Status>,
    /// With `include=metadata`, for every feature that a record is behind.
    #[schema(value_type = Option<BTreeMap<String, ValueMetadata>>)]
    metadata: Option<ByFeature<'a, ValueMetadata<'a>>>,
}

/// Read features of one entity
///
/// Every feature asked for is answered, and `statuses` says why where a value is not simply there.
#[utoipa::path(
    get, path = "/v1/entities/{entity_type}/{entity_id}/features",
    operation_id = "get_features", tag = "features",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("Cache-Control" = Option<String>, Header, description = "`no-cache`: the store itself answers, and no copy of what it has", example = "no-cache"),
        ReadFeaturesQuery,
    ),
    responses((status = 200, description = "The features", body = inline(ReadFeaturesResponse), headers(("ETag" = String, description = "The entity's version in quotes"), ("Age" = u64, description = "Only where the store cannot be reached (`stale_if_error`): seconds since this was true for certain"))), ReadProblems)
)]
pub async fn get_features(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    Query(query): Query<ReadFeaturesQuery>,
    NoCache(no_cache): NoCache,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let selection = match (&query.names, &query.feature_service) {
        (None, None) => Selection::All,
        (Some(names), None) => Selection::Listed(names.as_str()),
        (None, Some(service)) => Selection::FeatureService(FeatureServiceRef::parse(service)?),
        (Some(_), Some(_)) => return Err(Problem::invalid("names and feature_service exclude each other")),
    };
    let metadata = query.include == Some(Include::Metadata);
    let when = when(query.as_of, query.version)?;
    let retracted = retracted(query.include_retracted, query.as_of.is_some())?;
    let context = match &query.context {
        None => Vec::new(),
        Some(text) => {
            let members = serde_json::from_str(text);
            context(
                members.map_err(|error| Problem::invalid(format!("context: not a JSON object: {error}")))?,
            )?
        }
    };
    let request_id = query.feature_service.as_ref().map(|_| logs::request_id().into());
    let options =
        ReadOptions { when, retracted, max_age: query.max_age, metadata, context, no_cache, request_id };
    read(&app, &entity, &selection, options).await
}

/// What [`get_features`] answers where nothing is asked for but names, or all features.
pub async fn read_plain(app: &App, entity: EntityKey, names: Option<String>) -> Result<Response, Problem> {
    let selection = names.map_or(Selection::All, Selection::Listed);
    read(app, &entity, &selection, ReadOptions::default()).await
}

async fn read<S: AsRef<str>>(
    app: &App,
    entity: &EntityKey,
    selection: &Selection<S>,
    options: ReadOptions,
) -> Result<Response, Problem> {
    let (when, metadata) = (options.when, options.metadata);
    let read = app.store.read_features(entity, selection, options).await?;
    let body = render::row(&read, metadata)?;
    let version = read.answer.heads().next().map(|(_, version)| version);
    // The version of a past read is none that a write could ask for.
    let tag = version.filter(|_| when == When::Now).map(ETag);
    Ok((tag, age(read.stale), body).into_response())
}

/// Which features to delete.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteFeaturesQuery {
    /// Feature names, separated by commas.
    #[param(value_type = FeatureNames, example = "name,price")]
    names: String,
    /// Erase their history too, so that nothing of them can be brought back.
    #[serde(default)]
    history: bool,
}

/// Delete some features of one entity
///
/// The deletion is a version: the history stays, and a rollback brings the values back. With
/// `history=true` everything of these features is erased.
#[utoipa::path(
    delete, path = "/v1/entities/{entity_type}/{entity_id}/features",
    operation_id = "delete_features", tag = "features",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("If-Match" = Option<VersionMatch>, Header, description = "Delete only if the entity is at this version, as in \"7\"", example = "\"7\""),
        DeleteFeaturesQuery,
    ),
    responses((status = 200, description = "Deleted; `unchanged` where a feature was not there", body = inline(WriteFeaturesResponse)), ChangeProblems)
)]
pub async fn delete_features(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    Query(query): Query<DeleteFeaturesQuery>,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let names = split_names(&query.names)?;
    let outcome = if query.history {
        app.store.erase_features(&entity, names, &Origin::default(), precondition).await?
    } else {
        app.store.delete_features(&entity, names, &Origin::default(), precondition).await?
    };
    Ok(written(&entity, &outcome))
}
