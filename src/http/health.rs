//! Probes for machines, and a report for people.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::App;
use super::answer::Json;
use super::problem::{Problem, ReadProblems};
use crate::domain::time::Timestamp;

/// Whether the server is on its way down, which makes it unready.
#[derive(Debug, Default)]
pub struct Lifecycle {
    stopping: AtomicBool,
}

impl Lifecycle {
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// A probe's answer.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(example = json!({"status": "ok"}))]
pub struct ProbeResponse {
    status: &'static str,
}

const OK: Json<ProbeResponse> = Json(ProbeResponse { status: "ok" });

/// Whether the process lives
///
/// Asks nothing but the process itself: a store that is down is no reason to restart the server.
#[utoipa::path(get, path = "/livez", operation_id = "check_liveness", tag = "health",
    responses((status = 200, description = "Alive", body = ProbeResponse), ReadProblems))]
pub async fn check_liveness() -> Json<ProbeResponse> {
    OK
}

/// Whether requests can be served
///
/// Really asks the store, with a deadline.
#[utoipa::path(get, path = "/readyz", operation_id = "check_readiness", tag = "health",
    responses((status = 200, description = "Ready", body = ProbeResponse), ReadProblems))]
pub async fn check_readiness(State(app): State<App>) -> Result<Json<ProbeResponse>, Problem> {
    if app.lifecycle.is_stopping() {
        return Err(Problem::unavailable("the server is shutting down"));
    }
    if !app.store.registry().is_loaded() {
        return Err(Problem::unavailable("the registry has not been read from the store yet"));
    }
    ask_store(&app).await?;
    Ok(OK)
}

/// Whether the server has started
///
/// It has once the registry was read from the store.
#[utoipa::path(get, path = "/startupz", operation_id = "check_startup", tag = "health",
    responses((status = 200, description = "Started", body = ProbeResponse), ReadProblems))]
pub async fn check_startup(State(app): State<App>) -> Result<Json<ProbeResponse>, Problem> {
    if !app.store.registry().is_loaded() {
        return Err(Problem::unavailable("the registry has not been read from the store yet"));
    }
    Ok(OK)
}

async fn ask_store(app: &App) -> Result<Duration, Problem> {
    let started = std::time::Instant::now();
    match tokio::time::timeout(app.readiness_timeout, app.store.ping()).await {
        Ok(Ok(())) => Ok(started.elapsed()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::unavailable("the store did not answer in time")),
    }
}

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Healthy,
    /// It serves, but something needs attention.
    Degraded,
    Unhealthy,
}

/// How the server and its store are.
#[derive(Serialize, utoipa::ToSchema)]
pub struct HealthResponse {
    status: HealthStatus,
    /// What needs attention.
    warnings: Vec<String>,
    version: &'static str,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    uptime_seconds: f64,
    /// Whether Redis answers; null where the store is embedded.
    #[schema(required)]
    redis_connected: Option<bool>,
    store: StoreHealth,
    registry: RegistryHealth,
}

/// How the store is.
#[derive(Serialize, utoipa::ToSchema)]
pub struct StoreHealth {
    /// `embedded`, `redis`, `redis-cluster` or `redis-sentinel`.
    backend: String,
    connected: bool,
    /// How long it took to answer just now.
    #[schema(required)]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eviction_policy: Option<String>,
}

/// What the registry holds in memory.
#[derive(Serialize, utoipa::ToSchema)]
pub struct RegistryHealth {
    loaded: bool,
    revision: u64,
    entity_types: usize,
    feature_services: usize,
}

/// Report health
///
/// The store's state and latency, what the registry holds, and what needs attention. Always 200:
/// the probes are for machines, this is for people.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "health",
    responses((status = 200, description = "How the server is", body = HealthResponse), ReadProblems))]
pub async fn get_health(State(app): State<App>) -> Response {
    let latency = ask_store(&app).await;
    let described = match &latency {
        Ok(_) => tokio::time::timeout(app.readiness_timeout, app.store.describe_store()).await.ok(),
        Err(_) => None,
    };
    let described = described.and_then(Result::ok).unwrap_or_default();
    let mut warnings = Vec::new();
    if let Err(problem) = &latency {
        warnings.push(problem.detail.clone());
    }
    if app.lifecycle.is_stopping() {
        warnings.push("the server is shutting down".to_owned());
    }
    if let Some(policy) = described.eviction_policy.as_deref().filter(|policy| *policy != "noeviction") {
        warnings.push(format!("Redis may evict features: maxmemory-policy is {policy}, not noeviction"));
    }
    if let (Some(used), Some(max)) = (described.used_bytes, described.max_bytes)
        && used as f64 > max as f64 * 0.9
    {
        warnings.push("Redis has less than a tenth of its memory left".to_owned());
    }
    let snapshot = app.store.registry().snapshot();
    let loaded = app.store.registry().is_loaded();
    let connected = latency.is_ok();
    let status = match (connected && loaded, warnings.is_empty()) {
        (false, _) => HealthStatus::Unhealthy,
        (true, false) => HealthStatus::Degraded,
        (true, true) => HealthStatus::Healthy,
    };
    let now = app.store.now();
    Json(HealthResponse {
        status,
        warnings,
        version: env!("CARGO_PKG_VERSION"),
        started_at: app.started_at,
        uptime_seconds: now.seconds_since(app.started_at),
        redis_connected: (app.backend != "embedded").then_some(connected),
        store: StoreHealth {
            backend: app.backend.to_owned(),
            connected,
            latency_ms: latency.ok().map(|elapsed| elapsed.as_secs_f64() * 1000.0),
            server_version: described.server_version,
            role: described.role,
            used_bytes: described.used_bytes,
            max_bytes: described.max_bytes,
            eviction_policy: described.eviction_policy,
        },
        registry: RegistryHealth {
            loaded,
            revision: snapshot.revision,
            entity_types: snapshot.entity_types().len(),
            feature_services: snapshot.feature_services().count(),
        },
    })
    .into_response()
}
