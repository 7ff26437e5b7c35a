//! What the server says of itself: its OpenAPI document, its documentation, its metrics.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use super::App;
use super::performance::monitoring_is_off;
use super::problem::{Code, Problem, ReadProblems};
use super::schemas::{FeatureNames, VersionMatch, VersionNumber};
use crate::domain::name::{EntityId, EntityType, FeatureName, FeatureServiceName, FeatureServiceRef};
use crate::monitor::process;

/// The parts of the document that belong to no operation.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Feature store",
        description = "Keeps machine-learning features and serves them at inference time. Every answer says why a value is what it is, since when, and from which run.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "features", description = "Write and read features"),
        (name = "training", description = "Training data: tables of features, now and in the past"),
        (name = "entities", description = "Entities as a whole"),
        (name = "history", description = "Versions, lineage, rollback"),
        (name = "registry", description = "Entity types and feature services"),
        (name = "computation", description = "Computed features"),
        (name = "jobs", description = "Long work: watched, cancelled"),
        (name = "health", description = "Probes, health, metrics"),
        (name = "meta", description = "What the server says of itself"),
    ),
    components(schemas(Problem, EntityType, EntityId, FeatureName, FeatureServiceName, FeatureServiceRef, FeatureNames, VersionNumber, VersionMatch))
)]
struct Base;

pub fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// Get the metrics
///
/// In the Prometheus text format; 404 where `enable_monitoring` is off, or where they are served on
/// an address of their own (`metrics_listen`).
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "health",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"), ReadProblems))]
pub async fn get_metrics(State(app): State<App>) -> Result<Response, Problem> {
    if app.metrics_apart {
        let detail = "metrics are served on an address of their own (metrics_listen)";
        return Err(Problem::new(StatusCode::NOT_FOUND, Code::InvalidRequest, detail));
    }
    get_metrics_apart(State(app)).await
}

/// The metrics, wherever they are served.
pub async fn get_metrics_apart(State(app): State<App>) -> Result<Response, Problem> {
    let Some(metrics) = &app.metrics else { return Err(monitoring_is_off()) };
    app.store.settle_performance();
    process::publish(app.started_at);
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text)], metrics.render()).into_response())
}

/// Get this document
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "meta",
    responses((status = 200, description = "The OpenAPI document", body = inline(std::collections::BTreeMap<String, serde_json::Value>)), ReadProblems))]
pub async fn get_openapi() -> Response {
    static DOCUMENT: std::sync::OnceLock<Result<String, String>> = std::sync::OnceLock::new();
    let document = DOCUMENT.get_or_init(|| super::openapi().to_json().map_err(|error| error.to_string()));
    match document {
        Ok(json) => {
            let content_type = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, content_type)], json.as_str()).into_response()
        }
        Err(error) => {
            tracing::error!(error, "the OpenAPI document cannot be written");
            Problem::internal().into_response()
        }
    }
}

/// What [`swagger_ui`] serves.
pub const SWAGGER_UI_PATHS: [&str; 3] = ["/docs", "/docs/", "/docs/{*rest}"];

/// Swagger UI at `/docs`, from assets inside the binary.
pub fn swagger_ui() -> Router {
    let config = utoipa_swagger_ui::Config::from("/openapi.json").try_it_out_enabled(true);
    let router: Router = SwaggerUi::new("/docs").config(config).into();
    router.layer(axum::middleware::map_response(no_bare_not_found))
}

/// The assets' own answer to an unknown name is a bare 404.
async fn no_bare_not_found(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => super::edge::no_route().await.into_response(),
        _ => response,
    }
}
