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
use crate::service::StoreDescription;

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
    /// What needs attention: the messages of the checks that do not pass.
    warnings: Vec<String>,
    /// Everything that was looked at.
    checks: Vec<HealthCheck>,
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

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Pass,
    /// The server serves, but is `degraded`.
    Warn,
    /// The server is `unhealthy`.
    Fail,
}

/// One thing that was looked at.
#[derive(Serialize, utoipa::ToSchema)]
pub struct HealthCheck {
    /// `store`, `role`, `eviction`, `memory`, `registry`, `alerts` or `lifecycle`; those of Redis
    /// only where Redis answered.
    name: &'static str,
    status: CheckStatus,
    message: String,
}

impl HealthCheck {
    fn new(name: &'static str, status: CheckStatus, message: impl Into<String>) -> Self {
        Self { name, status, message: message.into() }
    }
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
    let connected = latency.is_ok();
    let mut checks = vec![match &latency {
        Ok(elapsed) => {
            let message = format!("answered within {:.1} ms", elapsed.as_secs_f64() * 1000.0);
            HealthCheck::new("store", CheckStatus::Pass, message)
        }
        Err(problem) => HealthCheck::new("store", CheckStatus::Fail, problem.detail.clone()),
    }];
    checks.extend(checks_of_redis(&described));
    let snapshot = app.store.registry().snapshot();
    let loaded = app.store.registry().is_loaded();
    checks.push(match loaded {
        true => HealthCheck::new("registry", CheckStatus::Pass, format!("at revision {}", snapshot.revision)),
        false => HealthCheck::new("registry", CheckStatus::Fail, "it was not read from the store yet"),
    });
    checks.extend(check_of_alerts(&app));
    if app.lifecycle.is_stopping() {
        checks.push(HealthCheck::new("lifecycle", CheckStatus::Warn, "the server is shutting down"));
    }
    let any = |status| checks.iter().any(|check| check.status == status);
    let status = match (any(CheckStatus::Fail), any(CheckStatus::Warn)) {
        (true, _) => HealthStatus::Unhealthy,
        (false, true) => HealthStatus::Degraded,
        (false, false) => HealthStatus::Healthy,
    };
    let warnings = checks.iter().filter(|check| check.status != CheckStatus::Pass);
    let warnings = warnings.map(|check| check.message.clone()).collect();
    let now = app.store.now();
    Json(HealthResponse {
        status,
        warnings,
        checks,
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

/// What Redis says of itself; nothing where there is none, or where it does not say.
fn checks_of_redis(described: &StoreDescription) -> Vec<HealthCheck> {
    let mut checks = Vec::new();
    if let Some(role) = &described.role {
        let (status, message) = match role.as_str() {
            "master" => (CheckStatus::Pass, "Redis is a primary".to_owned()),
            other => (CheckStatus::Warn, format!("Redis is a {other}, and will refuse writes")),
        };
        checks.push(HealthCheck::new("role", status, message));
    }
    if let Some(policy) = &described.eviction_policy {
        checks.push(match policy.as_str() {
            "noeviction" => HealthCheck::new("eviction", CheckStatus::Pass, "Redis never evicts"),
            _ => {
                let message =
                    format!("Redis may evict features: maxmemory-policy is {policy}, not noeviction");
                HealthCheck::new("eviction", CheckStatus::Warn, message)
            }
        });
    }
    if let (Some(used), Some(max)) = (described.used_bytes, described.max_bytes) {
        let (used, max) = (used as f64, max as f64);
        checks.push(match used > max * 0.9 {
            true => {
                let message = "Redis has less than a tenth of its memory left";
                HealthCheck::new("memory", CheckStatus::Warn, message)
            }
            false => {
                let message = format!("Redis uses {:.0}% of its memory", used / max * 100.0);
                HealthCheck::new("memory", CheckStatus::Pass, message)
            }
        });
    }
    checks
}

/// Whether any alert fires; `None` where nothing is watched.
fn check_of_alerts(app: &App) -> Option<HealthCheck> {
    let latest = app.watch.as_ref()?.latest();
    let firing = latest.standings.iter().filter(|standing| standing.state.is_firing());
    let names: Vec<&str> = firing.map(|standing| standing.rule.alert.as_str()).collect();
    Some(match names.as_slice() {
        [] => HealthCheck::new("alerts", CheckStatus::Pass, "none fires"),
        names => HealthCheck::new("alerts", CheckStatus::Warn, format!("firing: {}", names.join(", "))),
    })
}
