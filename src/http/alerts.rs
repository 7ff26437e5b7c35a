//! What is wrong with the server and its features, as the server itself judges it.

use axum::extract::State;
use serde::Serialize;

use super::App;
use super::answer::Json;
use super::performance::monitoring_is_off;
use super::problem::{Problem, ReadProblems};
use crate::domain::time::Timestamp;
use crate::monitor::alerts::{Alert, Standing, State as AlertState};
use crate::monitor::webhook::Delivery;

/// Every alert as it stands.
#[derive(Serialize, utoipa::ToSchema)]
pub struct AlertsResponse {
    /// When they were last judged.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Timestamp,
    /// Over how much of the past they are judged.
    window_seconds: u32,
    /// So many are firing.
    firing: usize,
    alerts: Vec<AlertStanding>,
    /// Whether somebody is told; null where no `alerts.webhook_url` is set.
    #[schema(required)]
    webhook: Option<Delivery>,
}

/// One alert as it stands.
#[derive(Serialize, utoipa::ToSchema)]
pub struct AlertStanding {
    alert: Alert,
    /// As Alertmanager and the Prometheus rules call it.
    alertname: &'static str,
    severity: &'static str,
    /// `inactive`, `pending` (bad, but not for long enough) or `firing`.
    state: &'static str,
    /// Since when it is pending or firing.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// What was measured; null where there is too little to judge by.
    #[schema(required)]
    reading: Option<f64>,
    /// `above` or `below` the threshold is bad.
    bad: &'static str,
    threshold: f64,
    /// A firing alert ends only when the reading is no worse than this for a while.
    clears_at: f64,
    summary: &'static str,
    /// What it is about, where the number alone does not say: the stale features.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<&Standing> for AlertStanding {
    fn from(standing: &Standing) -> Self {
        let Standing { rule, state, reading, detail } = standing;
        Self {
            alert: rule.alert,
            alertname: rule.alert.alertname(),
            severity: rule.alert.severity(),
            state: state.as_str(),
            since: state.since(),
            reading: *reading,
            bad: if rule.below { "below" } else { "above" },
            threshold: rule.threshold,
            clears_at: rule.clear,
            summary: rule.alert.summary(),
            detail: detail.clone(),
        }
    }
}

/// List alerts
///
/// Every alert, firing or not, as this process judges it by its own figures. Thresholds are the
/// configuration's table `alerts`. 404 where `enable_monitoring` is off.
#[utoipa::path(get, path = "/v1/alerts", operation_id = "list_alerts", tag = "health",
    responses((status = 200, description = "Every alert as it stands", body = AlertsResponse), ReadProblems))]
pub async fn list_alerts(State(app): State<App>) -> Result<Json<AlertsResponse>, Problem> {
    let watch = app.watch.as_ref().ok_or_else(monitoring_is_off)?;
    let latest = watch.latest();
    let firing = |standing: &&Standing| matches!(standing.state, AlertState::Firing { .. });
    Ok(Json(AlertsResponse {
        evaluated_at: latest.at,
        window_seconds: watch.settings().window_seconds,
        firing: latest.standings.iter().filter(firing).count(),
        alerts: latest.standings.iter().map(AlertStanding::from).collect(),
        webhook: app.webhook.as_ref().map(|webhook| webhook.delivery()),
    }))
}
