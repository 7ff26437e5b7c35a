//! How fast the server answers, and how fresh its features are.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::App;
use super::answer::Json;
use super::extract::Path;
use super::problem::{Code, Problem, ReadProblems};
use crate::domain::name::{EntityType, FeatureName};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::Status;
use crate::monitor::freshness::{FeatureRecorder, Reads};
use crate::monitor::latency::Distribution;
use crate::monitor::report::Window;
use crate::monitor::{Performance, Tally};
use crate::service::principal::may_use;

/// The windows that are reported, in minutes.
const WINDOWS: [u32; 3] = [1, 5, 60];
const NO_CACHE: &str = "no cache was asked in this window";

/// How the server has done lately.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PerformanceResponse {
    /// Share of the entities read in the last hour that a cache answered; null where no cache was asked.
    #[schema(required, minimum = 0, maximum = 1)]
    cache_hit_rate: Option<f64>,
    /// Why there is no hit rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_hit_rate_reason: Option<&'static str>,
    /// Mean time of a retrieval in the last hour, in milliseconds; null where there was none.
    #[schema(required, minimum = 0)]
    average_computation_time: Option<f64>,
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// Nothing before this is counted: the process started then.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The last 1, 5 and 60 minutes.
    windows: Vec<PerformanceWindow>,
    /// By entity type, in the order of their names; those beyond `metrics_max_entity_types` as `other`.
    entity_types: Vec<TypePerformance>,
}

/// How the reads and writes of an entity type did.
#[derive(Serialize, utoipa::ToSchema)]
pub struct TypePerformance {
    entity_type: String,
    windows: Vec<TypeWindow>,
}

/// A window of time.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PerformanceWindow {
    #[serde(flatten)]
    of_types: TypeWindow,
    /// Requests under `/v1`.
    requests: u64,
    requests_per_second: f64,
    /// Of those, answered with 500 or more.
    server_errors: u64,
    /// Operations for which the store could not be reached, or did not answer in time.
    store_failures: u64,
    /// Null where no cache was asked.
    #[schema(required, minimum = 0, maximum = 1)]
    cache_hit_rate: Option<f64>,
}

/// A window of time, as far as it is known by entity type.
#[derive(Serialize, utoipa::ToSchema)]
pub struct TypeWindow {
    /// Its length.
    minutes: u32,
    /// How much of it the process has lived, and rates are counted by.
    seconds: f64,
    /// Requests that read features, one or many; a batch counts for each of its entity types.
    retrieval: LatencySummary,
    /// Requests that write or compute features, one or many.
    write: LatencySummary,
    features_read: u64,
    features_read_per_second: f64,
    features_written: u64,
    features_written_per_second: f64,
    /// Values that were refused.
    validation_errors: u64,
}

/// How long requests took, in milliseconds; null where there were none. Quantiles are exact to 2%.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LatencySummary {
    count: u64,
    per_second: f64,
    #[schema(required, minimum = 0)]
    mean_ms: Option<f64>,
    #[schema(required, minimum = 0)]
    p50_ms: Option<f64>,
    #[schema(required, minimum = 0)]
    p95_ms: Option<f64>,
    #[schema(required, minimum = 0)]
    p99_ms: Option<f64>,
}

fn per_second(count: u64, seconds: f64) -> f64 {
    // The first moments would make any count look like a storm.
    count as f64 / seconds.max(1.0)
}

impl LatencySummary {
    fn new(of: &Distribution, seconds: f64) -> Self {
        let millis = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
        Self {
            count: of.count(),
            per_second: per_second(of.count(), seconds),
            mean_ms: millis(of.mean()),
            p50_ms: millis(of.quantile(0.5)),
            p95_ms: millis(of.quantile(0.95)),
            p99_ms: millis(of.quantile(0.99)),
        }
    }
}

impl TypeWindow {
    fn new(minutes: u32, window: &Window) -> Self {
        let count = |tally| window.tallies.of(tally);
        let rate = |tally| per_second(count(tally), window.seconds);
        Self {
            minutes,
            seconds: window.seconds,
            retrieval: LatencySummary::new(&window.retrieval, window.seconds),
            write: LatencySummary::new(&window.write, window.seconds),
            features_read: count(Tally::FeaturesRead),
            features_read_per_second: rate(Tally::FeaturesRead),
            features_written: count(Tally::FeaturesWritten),
            features_written_per_second: rate(Tally::FeaturesWritten),
            validation_errors: count(Tally::ValidationErrors),
        }
    }
}

impl PerformanceWindow {
    fn new(minutes: u32, window: &Window) -> Self {
        let requests = window.tallies.of(Tally::Requests);
        Self {
            of_types: TypeWindow::new(minutes, window),
            requests,
            requests_per_second: per_second(requests, window.seconds),
            server_errors: window.tallies.of(Tally::ServerErrors),
            store_failures: window.tallies.of(Tally::StoreFailures),
            cache_hit_rate: window.cache_hit_rate(),
        }
    }
}

/// Get performance metrics
///
/// What this process has measured in the last 1, 5 and 60 minutes, in steps of five seconds. Other
/// servers of the same store have figures of their own; `/metrics` is for putting them together.
#[utoipa::path(get, path = "/v1/performance", operation_id = "get_performance_metrics", tag = "health",
    responses((status = 200, description = "How the server has done lately", body = PerformanceResponse), ReadProblems))]
pub async fn get_performance_metrics(State(app): State<App>) -> Result<Json<PerformanceResponse>, Problem> {
    let performance = recorded(&app)?;
    let now = app.store.now();
    let whole = WINDOWS.map(|minutes| performance.window(now, minutes * 60));
    let hour = &whole[WINDOWS.len() - 1];
    let by_type = performance.windows_by_type(now, &WINDOWS.map(|minutes| minutes * 60));
    // A key that is limited to some entity types learns nothing of the others.
    let visible =
        by_type.into_iter().filter(|(name, _)| EntityType::parse(name).is_ok_and(|name| may_use(&name)));
    let entity_types = visible.map(|(entity_type, windows)| TypePerformance {
        entity_type,
        windows: WINDOWS
            .iter()
            .zip(&windows)
            .map(|(minutes, window)| TypeWindow::new(*minutes, window))
            .collect(),
    });
    Ok(Json(PerformanceResponse {
        cache_hit_rate: hour.cache_hit_rate(),
        cache_hit_rate_reason: hour.cache_hit_rate().is_none().then_some(NO_CACHE),
        average_computation_time: hour.retrieval.mean().map(|seconds| seconds * 1000.0),
        now,
        since: performance.since,
        windows: WINDOWS
            .iter()
            .zip(&whole)
            .map(|(minutes, window)| PerformanceWindow::new(*minutes, window))
            .collect(),
        entity_types: entity_types.collect(),
    }))
}

/// How fresh the features of an entity type are.
#[derive(Serialize, utoipa::ToSchema)]
pub struct FreshnessResponse {
    entity_type: EntityType,
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// Only what this process has written or read since then is known.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// In the order of the schema.
    features: Vec<FeatureFreshness>,
}

/// How fresh a feature is.
#[derive(Serialize, utoipa::ToSchema)]
pub struct FeatureFreshness {
    feature: FeatureName,
    /// False where `metrics_max_features` leaves no room for it: nothing is known then.
    watched: bool,
    /// Of the newest value, of any entity, that this process wrote or read; null where it has seen none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    newest_event_timestamp: Option<Timestamp>,
    /// How long ago that is.
    #[schema(required)]
    age_seconds: Option<f64>,
    /// The schema's `max_age`.
    #[schema(required, value_type = Option<String>)]
    max_age: Option<Span>,
    /// Whether even the newest value is older than `max_age`; null where either is not known.
    #[schema(required)]
    stale: Option<bool>,
    /// When this process last stored a new value; null where it never did.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_written_at: Option<Timestamp>,
    /// Values that this process stored.
    values_written: u64,
    /// How reads of the present ended in the last 1, 5 and 60 minutes.
    reads: Vec<ReadShares>,
}

/// How reads of a feature ended; shares are null where there were none.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ReadShares {
    /// The window, of whole minutes, the present one included.
    minutes: u32,
    count: u64,
    #[schema(required, minimum = 0, maximum = 1)]
    present: Option<f64>,
    #[schema(required, minimum = 0, maximum = 1)]
    null: Option<f64>,
    #[schema(required, minimum = 0, maximum = 1)]
    not_found: Option<f64>,
    #[schema(required, minimum = 0, maximum = 1)]
    expired: Option<f64>,
    #[schema(required, minimum = 0, maximum = 1)]
    defaulted: Option<f64>,
}

impl ReadShares {
    fn new(minutes: u32, reads: &Reads) -> Self {
        Self {
            minutes,
            count: reads.total(),
            present: reads.share(Status::Present),
            null: reads.share(Status::Null),
            not_found: reads.share(Status::NotFound),
            expired: reads.share(Status::Expired),
            defaulted: reads.share(Status::Defaulted),
        }
    }
}

impl FeatureFreshness {
    fn new(
        feature: FeatureName,
        max_age: Option<Span>,
        of: Option<&FeatureRecorder>,
        now: Timestamp,
    ) -> Self {
        let seen = of.map(FeatureRecorder::seen);
        let newest = seen.and_then(|seen| seen.newest_event);
        let reads = |minutes: &u32| {
            let reads = of.map_or_else(Reads::default, |of| of.reads(now, minutes * 60));
            ReadShares::new(*minutes, &reads)
        };
        Self {
            feature,
            watched: of.is_some(),
            newest_event_timestamp: newest,
            age_seconds: newest.map(|newest| now.seconds_since(newest)),
            max_age,
            stale: newest.zip(max_age).map(|(newest, max_age)| newest + max_age < now),
            last_written_at: seen.and_then(|seen| seen.newest_write),
            values_written: seen.map_or(0, |seen| seen.written),
            reads: WINDOWS.iter().map(reads).collect(),
        }
    }
}

/// Get the freshness of features
///
/// For every feature of an entity type, the age of its newest value and how reads of it end: a
/// pipeline that died shows in both. It rests on what this process has written and read since it
/// started, and not on a search of the store.
#[utoipa::path(
    get, path = "/v1/entity-types/{entity_type}/freshness",
    operation_id = "get_freshness", tag = "health",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product")),
    responses((status = 200, description = "The freshness of each feature", body = FreshnessResponse), ReadProblems)
)]
pub async fn get_freshness(
    State(app): State<App>,
    Path(name): Path<EntityType>,
) -> Result<Json<FreshnessResponse>, Problem> {
    let performance = recorded(&app)?;
    let entity_type = app.store.registry().entity_type(&name).await?;
    let table = performance.features_of(&performance.of_type(&name), &entity_type);
    let now = app.store.now();
    let features = entity_type.features.values().enumerate().map(|(place, feature)| {
        let recorder = table.as_ref().and_then(|table| table.by_place.get(place)?.as_deref());
        FeatureFreshness::new(feature.name.clone(), feature.max_age, recorder, now)
    });
    Ok(Json(FreshnessResponse {
        features: features.collect(),
        entity_type: name,
        now,
        since: performance.since,
    }))
}

/// What was recorded up to now.
fn recorded(app: &App) -> Result<&Performance, Problem> {
    app.store.settle_performance();
    app.store.performance().map(AsRef::as_ref).ok_or_else(monitoring_is_off)
}

pub fn monitoring_is_off() -> Problem {
    let detail = "monitoring is off (enable_monitoring)";
    Problem::new(StatusCode::NOT_FOUND, Code::InvalidRequest, detail)
}
