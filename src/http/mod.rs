//! The HTTP API: handlers take a request apart, call one use case, and answer. One file a noun,
//! with its routes' request and response types beside them.

mod access;
mod alerts;
mod answer;
mod audit;
mod backlog;
mod backup;
mod batch;
mod compress;
mod compute;
mod direct;
mod document;
mod edge;
mod entities;
mod entity_types;
mod entrance;
mod examples;
mod export;
mod extract;
mod feature_services;
mod features;
mod gate;
mod health;
mod history;
mod import;
mod import_told;
mod jobs;
mod meters;
mod objects;
mod performance;
mod problem;
mod query;
mod render;
mod rollback;
mod schemas;
mod serving_log;
mod slow_body;
mod spec;
mod tables;
mod training;
mod undo;
mod upload;
mod values;

pub use extract::read_document;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::cors::CorsLayer;
use utoipa_axum::routes;

use crate::domain::time::Timestamp;
use crate::monitor::webhook::Webhook;
use crate::service::FeatureStore;
use crate::service::watch::Watch;

use self::access::{Access, Routes};
use self::compress::CompressIfAsked;
use self::direct::DirectReads;
use self::gate::Gate;

pub use audit::Audit;
pub use edge::fresh_id;
pub use entrance::Entrance;
pub use gate::Admittance;
pub use health::Lifecycle;
pub use upload::UploadLimits;

/// What every handler may use.
#[derive(Clone)]
pub struct App(Arc<AppParts>);

/// The parts of an [`App`].
pub struct AppParts {
    pub store: Arc<FeatureStore>,
    /// `embedded`, `redis`, `redis-cluster` or `redis-sentinel`.
    pub backend: &'static str,
    pub lifecycle: Lifecycle,
    pub started_at: Timestamp,
    pub readiness_timeout: Duration,
    pub uploads: UploadLimits,
    /// `None`: monitoring is off.
    pub metrics: Option<PrometheusHandle>,
    /// Whether metrics have an address of their own, and are not served with the API.
    pub metrics_apart: bool,
    /// `None`: monitoring is off.
    pub watch: Option<Arc<Watch>>,
    /// `None`: nobody is told of alerts.
    pub webhook: Option<Arc<Webhook>>,
}

impl App {
    pub fn new(parts: AppParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for App {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.0
    }
}

/// How requests are bounded.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    pub max_body_bytes: usize,
    pub timeout: Duration,
    /// How long a client may send nothing of its body.
    pub stall_timeout: Duration,
}

/// Who is let in, and what is noted of them.
pub struct Doors {
    pub admittance: Admittance,
    pub audit: Audit,
    pub cors_origins: Vec<HeaderValue>,
}

/// Every route with its part of the OpenAPI document and with what a request needs to be let in:
/// there is no other way to add one.
fn routes() -> Routes {
    use Access::{Admin, Docs, Metrics, Probe, Read, Write};
    Routes::new(spec::base())
        .add(Read, routes!(features::get_features))
        .add(Write, routes!(features::write_features, features::delete_features))
        .add(Read, routes!(batch::get_features_batch))
        .add(Write, routes!(batch::write_features_batch))
        .add(Read, routes!(training::get_training_set))
        .add(Read, routes!(export::export_features))
        .add(Read, routes!(export::export_entity_type))
        .add(Write, routes!(import::import_features))
        .add(Read, routes!(entities::list_entities))
        .add(Write, routes!(entities::delete_entity))
        .add(Read, routes!(history::list_versions))
        .add(Read, routes!(history::get_version))
        .add(Read, routes!(history::diff_versions))
        .add(Read, routes!(history::get_feature_lineage))
        .add(Write, routes!(rollback::rollback_entity))
        .add(Admin, routes!(undo::undo_run))
        .add(Write, routes!(compute::compute_features))
        .add(Admin, routes!(compute::recompute_features))
        .add(Read, routes!(compute::get_graph))
        .add(Read, routes!(jobs::list_jobs))
        .add(Read, routes!(jobs::get_job))
        .add(Read, routes!(jobs::get_job_result))
        .add(Write, routes!(jobs::cancel_job))
        .add(Read, routes!(entity_types::list_entity_types))
        .add(Read, routes!(entity_types::get_entity_type))
        .add(Admin, routes!(entity_types::put_entity_type, entity_types::delete_entity_type))
        .add(Read, routes!(entity_types::list_schema_versions))
        .add(Read, routes!(feature_services::list_feature_services))
        .add(Read, routes!(feature_services::get_feature_service))
        .add(Read, routes!(serving_log::export_serving_log))
        .add(Admin, routes!(feature_services::put_feature_service, feature_services::delete_feature_service))
        .add(Probe, routes!(health::check_liveness))
        .add(Probe, routes!(health::check_readiness))
        .add(Probe, routes!(health::check_startup))
        .add(Read, routes!(health::get_health))
        .add(Read, routes!(performance::get_performance_metrics))
        .add(Read, routes!(performance::get_freshness))
        .add(Read, routes!(alerts::list_alerts))
        .add(Admin, routes!(backup::create_backup))
        .add(Metrics, routes!(spec::get_metrics))
        .add(Docs, routes!(spec::get_openapi))
}

/// The OpenAPI document of this build, as committed in `openapi/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    document::finish(routes().into_openapi())
}

/// Metrics and probes alone, for an address of their own.
pub fn metrics_router(app: App) -> Router {
    let metrics = axum::routing::get(spec::get_metrics_apart);
    probes().route("/metrics", metrics).with_state(app)
}

fn probes() -> Router<App> {
    use axum::routing::get;
    Router::new()
        .route("/livez", get(health::check_liveness))
        .route("/readyz", get(health::check_readiness))
        .route("/startupz", get(health::check_startup))
}

/// What answers requests.
pub struct Routers {
    /// The whole application.
    pub all: Entrance,
    /// Probes, and a refusal of everything else: for connections that are too many.
    pub overloaded: Entrance,
}

/// The application, ready to be served.
pub fn routers(app: App, limits: RequestLimits, doors: Doors) -> Routers {
    let (router, mut table) = routes().into_router();
    spec::SWAGGER_UI_PATHS.iter().for_each(|path| table.insert(path, Method::GET, Access::Docs));
    let meters = meters::RequestMeters::new(table.paths());
    let edge = Arc::new(edge::Edge {
        performance: app.store.performance().cloned(),
        app: app.clone(),
        request_timeout: limits.timeout,
        stall_timeout: limits.stall_timeout,
        gate: Gate::new(table, doors.admittance),
        audit: doors.audit,
        meters,
    });
    let compress = CompressIfAsked::default();
    let cors = cors(&doors.cors_origins);
    // Pages of other origins are few, and their answers have headers of their own.
    let direct = cors.is_none().then(|| DirectReads { edge: edge.clone(), compress: compress.clone() });
    let around = edge::Around(edge);
    let overloaded =
        probes().with_state(app.clone()).fallback(gate::too_many_connections).layer(around.clone());
    let all = router
        .with_state(app)
        .merge(spec::swagger_ui())
        .fallback(edge::no_route)
        .method_not_allowed_fallback(edge::no_method)
        .layer((
            tower::util::option_layer(cors),
            compress,
            around,
            DefaultBodyLimit::max(limits.max_body_bytes),
        ));
    Routers { all: Entrance::new(direct, all), overloaded: Entrance::new(None, overloaded) }
}

/// Pages of these origins may speak to the server; `None` where there are none.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    const ASKED: [HeaderName; 8] = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::IF_MATCH,
        header::CACHE_CONTROL,
        HeaderName::from_static(gate::API_KEY),
        HeaderName::from_static("prefer"),
        HeaderName::from_static("x-request-id"),
    ];
    const ANSWERED: [HeaderName; 5] = [
        header::ETAG,
        header::LOCATION,
        header::RETRY_AFTER,
        header::WWW_AUTHENTICATE,
        HeaderName::from_static("x-request-id"),
    ];
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(ASKED)
        .expose_headers(ANSWERED)
        .max_age(Duration::from_secs(3600));
    (!origins.is_empty()).then_some(layer)
}
