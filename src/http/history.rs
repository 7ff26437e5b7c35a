//! Looking back: versions, differences, lineage.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::{EntityPath, Path, Query};
use super::features::ReadFeaturesResponse;
use super::problem::{Problem, ReadProblems};
use super::render;
use super::schemas::VersionNumber;
use super::values::{ByFeature, FeatureValue, RetractionNote, VersionedValue, by_feature};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::provenance::Provenance;
use crate::domain::record::{Record, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::{TypeName, Value};
use crate::domain::view::Retracted;
use crate::service::answer::ProvenanceMap;
use crate::service::read::{ReadOptions, When};
use crate::service::selection::Selection;

/// Which versions are wanted.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VersionsQuery {
    /// Only versions below this one: `next_before` of the page before.
    #[param(value_type = Option<VersionNumber>)]
    before: Option<Version>,
    /// At most so many versions (default 100).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The versions of an entity, newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListVersionsResponse<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    /// The entity's version now.
    current_version: Version,
    /// Those that something is still kept of.
    versions: Vec<VersionSummary<'a>>,
    /// Where the next page starts; null after the last.
    #[schema(required)]
    next_before: Option<Version>,
}

/// What one version wrote.
#[derive(Serialize, utoipa::ToSchema)]
pub struct VersionSummary<'a> {
    version: Version,
    #[schema(value_type = String, format = DateTime)]
    written_at: Timestamp,
    /// What it wrote, as far as that is kept; null for a deletion.
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    features: ByFeature<'a, &'a Value>,
    #[schema(value_type = BTreeMap<String, String>)]
    event_timestamps: ByFeature<'a, Timestamp>,
    /// Which of them were retracted, where any were: their run was undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, RetractionNote>>)]
    retracted: Option<ByFeature<'a, RetractionNote<'a>>>,
    /// Null where the record of it is no longer kept.
    #[schema(value_type = Option<Provenance>, required)]
    provenance: Option<&'a Provenance>,
}

impl<'a> VersionSummary<'a> {
    /// `None` where nothing is kept of it.
    fn of(
        version: Version,
        features: &'a [(FeatureName, Record)],
        provenance: &'a ProvenanceMap,
    ) -> Option<Self> {
        let (_, any) = features.first()?;
        let retracted =
            features.iter().filter_map(|(name, r)| Some((name, RetractionNote::of(r, provenance)?)));
        let retracted = by_feature(retracted);
        Some(Self {
            version,
            written_at: any.written_at,
            features: by_feature(
                features.iter().map(|(name, r)| (name, r.value.as_ref().unwrap_or(&Value::Null))),
            ),
            event_timestamps: by_feature(features.iter().map(|(name, r)| (name, r.event_timestamp))),
            retracted: (!retracted.0.is_empty()).then_some(retracted),
            provenance: provenance.get(&any.provenance),
        })
    }
}

/// List the versions of an entity
///
/// Newest first, each with what it wrote and who wrote it. A version that no value is kept of any
/// more (see `max_versions`) is left out.
#[utoipa::path(
    get, path = "/v1/entities/{entity_type}/{entity_id}/versions",
    operation_id = "list_versions", tag = "history",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        VersionsQuery,
    ),
    responses((status = 200, description = "The versions", body = inline(ListVersionsResponse)), ReadProblems)
)]
pub async fn list_versions(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    Query(query): Query<VersionsQuery>,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let most = app.store.settings().limits.max_page_size;
    let limit = query.limit.unwrap_or(most.min(100));
    if !(1..=most).contains(&limit) {
        return Err(Problem::invalid(format!("limit must be from 1 to {most}")));
    }
    if query.before.is_some_and(|before| !VersionNumber::RANGE.contains(&before)) {
        return Err(Problem::invalid("before must be a version: a whole number from 1"));
    }
    let versions = app.store.versions(&entity, query.before, limit).await?;
    let summaries: Vec<_> = versions
        .entries
        .iter()
        .filter_map(|entry| VersionSummary::of(entry.version, &entry.features, &versions.provenance))
        .collect();
    let last = summaries.last().map(|summary| summary.version);
    Ok(Json(ListVersionsResponse {
        entity_type: entity.entity_type.as_str(),
        entity_id: entity.entity_id.as_str(),
        current_version: versions.current,
        versions: summaries,
        next_before: last.filter(|_| versions.more),
    })
    .into_response())
}

/// A version of an entity, in the path.
#[derive(Deserialize)]
pub struct VersionPath {
    entity_type: EntityType,
    entity_id: EntityId,
    version: Version,
}

/// Read an entity as it stood at a version
///
/// Every feature of the schema, as it was served then; neither ttl nor max_age play a part.
#[utoipa::path(
    get, path = "/v1/entities/{entity_type}/{entity_id}/versions/{version}",
    operation_id = "get_version", tag = "history",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("version" = VersionNumber, Path, description = "The version", example = 3),
    ),
    responses((status = 200, description = "The entity at that version", body = inline(ReadFeaturesResponse)), ReadProblems)
)]
pub async fn get_version(State(app): State<App>, Path(path): Path<VersionPath>) -> Result<Response, Problem> {
    let entity = EntityKey::new(path.entity_type, path.entity_id);
    let options = ReadOptions {
        when: When::Version(path.version),
        retracted: Retracted::Hidden,
        max_age: None,
        metadata: true,
        context: Vec::new(),
        no_cache: false,
        request_id: None,
    };
    let read = app.store.read_features(&entity, &Selection::<&str>::All, options).await?;
    Ok(render::row(&read, true)?.into_response())
}

/// Which versions to compare.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The earlier version.
    #[param(value_type = VersionNumber, example = 1)]
    from: Version,
    /// The later version.
    #[param(value_type = VersionNumber, example = 2)]
    to: Version,
}

/// How an entity differs between two versions.
#[derive(Serialize, utoipa::ToSchema)]
pub struct DiffResponse<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    from: Version,
    to: Version,
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    added: ByFeature<'a, &'a Value>,
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    removed: ByFeature<'a, &'a Value>,
    #[schema(value_type = BTreeMap<String, BeforeAfter>)]
    changed: ByFeature<'a, BeforeAfter<'a>>,
}

/// A value before and after.
#[derive(Serialize, utoipa::ToSchema)]
pub struct BeforeAfter<'a> {
    #[schema(value_type = FeatureValue)]
    pub from: &'a Value,
    #[schema(value_type = FeatureValue)]
    pub to: &'a Value,
}

/// Compare two versions of an entity
#[utoipa::path(
    get, path = "/v1/entities/{entity_type}/{entity_id}/diff",
    operation_id = "diff_versions", tag = "history",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        DiffQuery,
    ),
    responses((status = 200, description = "What was added, removed and changed", body = inline(DiffResponse)), ReadProblems)
)]
pub async fn diff_versions(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    Query(query): Query<DiffQuery>,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let diff = app.store.diff(&entity, query.from, query.to).await?;
    Ok(Json(DiffResponse {
        entity_type: entity.entity_type.as_str(),
        entity_id: entity.entity_id.as_str(),
        from: query.from,
        to: query.to,
        added: by_feature(diff.added.iter().map(|(name, value)| (name, value))),
        removed: by_feature(diff.removed.iter().map(|(name, value)| (name, value))),
        changed: by_feature(diff.changed.iter().map(|(name, from, to)| (name, BeforeAfter { from, to }))),
    })
    .into_response())
}

/// A feature of an entity, in the path.
#[derive(Deserialize)]
pub struct FeaturePath {
    entity_type: EntityType,
    entity_id: EntityId,
    feature: FeatureName,
}

/// Where a feature's values came from, and who reads it.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LineageResponse<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    feature: &'a str,
    #[serde(rename = "type")]
    type_name: TypeName,
    schema_version: u32,
    /// Null where the feature was never written.
    #[schema(value_type = Option<VersionedValue>, required)]
    current: Option<VersionedValue<'a>>,
    /// The superseded values, newest event first.
    history: Vec<VersionedValue<'a>>,
    /// Null where the current value was not computed.
    #[schema(required)]
    computed_from: Option<ComputedFromResponse<'a>>,
    used_by: UsedBy<'a>,
}

/// What a value was computed from.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ComputedFromResponse<'a> {
    function: &'a str,
    /// Null where the schema of that time is no longer known.
    #[schema(required)]
    function_hash: Option<&'a str>,
    #[schema(required)]
    schema_version: Option<u32>,
    inputs: Vec<InputVersion>,
    /// Inputs that were given for the computation and not kept.
    #[schema(value_type = Vec<String>)]
    raw_inputs: &'a [String],
}

/// An input and the version it had.
#[derive(Serialize, utoipa::ToSchema)]
pub struct InputVersion {
    #[schema(example = "product.cost")]
    feature: String,
    /// Null where it had no value, or its history no longer reaches back that far.
    #[schema(required)]
    version: Option<Version>,
}

/// What depends on a feature.
#[derive(Serialize, utoipa::ToSchema)]
pub struct UsedBy<'a> {
    /// Computed features, as `product.price_range`.
    features: Vec<String>,
    /// Feature services that read it, each version by itself, as `ranking@2`.
    #[schema(value_type = Vec<String>)]
    feature_services: &'a [String],
}

/// Get the lineage of a feature
///
/// Its versions with values, event times and provenance, and what depends on it.
#[utoipa::path(
    get, path = "/v1/entities/{entity_type}/{entity_id}/features/{feature}/lineage",
    operation_id = "get_feature_lineage", tag = "history",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("feature" = FeatureName, Path, description = "The feature", example = "price"),
    ),
    responses((status = 200, description = "The lineage", body = inline(LineageResponse)), ReadProblems)
)]
pub async fn get_feature_lineage(
    State(app): State<App>,
    Path(path): Path<FeaturePath>,
) -> Result<Response, Problem> {
    let entity = EntityKey::new(path.entity_type, path.entity_id);
    let lineage = app.store.lineage(&entity, &path.feature).await?;
    let read = |value: Value| value.widened_to(lineage.feature_type);
    let shown = |record: &Record| VersionedValue::of(record, read, &lineage.provenance);
    Ok(Json(LineageResponse {
        entity_type: entity.entity_type.as_str(),
        entity_id: entity.entity_id.as_str(),
        feature: path.feature.as_str(),
        type_name: lineage.feature_type.name(),
        schema_version: lineage.entity_type.registered.schema_version,
        current: lineage.current.as_ref().map(shown),
        history: lineage.history.iter().map(shown).collect(),
        computed_from: lineage.computed_from.as_ref().map(|from| ComputedFromResponse {
            function: &from.function,
            function_hash: from.function_hash.as_deref(),
            schema_version: from.schema_version,
            inputs: from
                .inputs
                .iter()
                .map(|(feature, version)| InputVersion { feature: feature.to_string(), version: *version })
                .collect(),
            raw_inputs: &from.raw_inputs,
        }),
        used_by: UsedBy {
            features: lineage.used_by_features.iter().map(ToString::to_string).collect(),
            feature_services: &lineage.used_by_services,
        },
    })
    .into_response())
}
