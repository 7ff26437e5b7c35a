//! Alerts: when they fire and calm down, and that an Alertmanager is told, be it slow or away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use feature_store::config::{Config, Duration0};
use feature_store::domain::time::Span;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::redis_process::eventually;
use crate::server_process::Launch;
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    every_alert_is_listed,
    a_stale_feature_fires_and_calms_down,
    an_alertmanager_is_told_when_it_begins_and_ends,
    refused_values_fire,
];

fn quick(config: &mut Config) {
    config.alerts.interval = Span::of_millis(20);
    config.alerts.fire_after = Duration0(Duration::from_secs(60));
    config.alerts.clear_after = Duration0(Duration::from_secs(120));
}

/// The alert as it stands after the next look.
async fn standing(server: &TestServer, alert: &str) -> Value {
    let asked = server.time(0);
    // Twice, since one look may have begun before.
    let mut answer = Value::Null;
    for _ in 0..2 {
        let seen = answer["evaluated_at"].clone();
        answer = eventually("another look", || async {
            server.clock.advance(Duration::from_millis(1));
            let answer = server.get("/v1/alerts").await.ok();
            let later =
                answer["evaluated_at"].as_str() >= Some(asked.as_str()) && answer["evaluated_at"] != seen;
            later.then_some(answer)
        })
        .await;
    }
    let alerts = answer["alerts"].as_array().expect("alerts");
    alerts.iter().find(|standing| standing["alert"] == alert).expect("that alert").clone()
}

async fn every_alert_is_listed(on: On) {
    let server = on.server().await;
    let answer = server.get("/v1/alerts").await.ok();
    let names: Vec<&str> =
        answer["alerts"].as_array().unwrap().iter().filter_map(|a| a["alert"].as_str()).collect();
    assert_eq!(
        names,
        [
            "cache_hit_rate_low",
            "retrieval_slow",
            "store_connection_failures",
            "validation_errors",
            "error_rate_high",
            "stale_features",
            "memory_near_full"
        ]
    );
    assert_eq!(json!([answer["firing"], answer["webhook"], answer["window_seconds"]]), json!([0, null, 300]));
    for alert in answer["alerts"].as_array().unwrap() {
        assert_eq!(json!([alert["state"], alert["since"]]), json!(["inactive", null]), "{alert}");
    }
}

async fn a_stale_feature_fires_and_calms_down(on: On) {
    let server = on.server_with(quick).await;
    server.declare("alert_item", json!({"features": {"x": {"type": "int64", "max_age": "10m"}}})).await;
    server.write("alert_item/1", json!({"x": 1})).await;
    assert_eq!(standing(&server, "stale_features").await["state"], "inactive");
    server.advance(601);
    let pending = standing(&server, "stale_features").await;
    assert_eq!(json!([pending["state"], pending["reading"]]), json!(["pending", 1.0]));
    server.advance(60);
    let firing = standing(&server, "stale_features").await;
    assert_eq!(json!([firing["state"], firing["detail"]]), json!(["firing", "alert_item.x"]));
    assert_eq!(server.get("/v1/alerts").await.ok()["firing"], 1);
    // The gauge is shared by all servers of this process: that it is there is all that can be said.
    assert!(
        server.get("/metrics").await.text().contains("feature_store_alert_firing{alert=\"stale_features\"}")
    );
    server.write("alert_item/1", json!({"x": 2})).await;
    assert_eq!(standing(&server, "stale_features").await["state"], "firing");
    server.advance(121);
    let calm = standing(&server, "stale_features").await;
    assert_eq!(json!([calm["state"], calm["detail"]]), json!(["inactive", null]));
}

async fn refused_values_fire(on: On) {
    let server = on.server_with(quick).await;
    server.write("alert_bad/1", json!({"x": 1})).await;
    for _ in 0..11 {
        server
            .post_features("alert_bad/1", &json!({"features": {"x": "text"}}))
            .await
            .problem(422, "validation_failed");
    }
    assert_eq!(standing(&server, "validation_errors").await["state"], "pending");
    server.advance(60);
    let firing = standing(&server, "validation_errors").await;
    assert_eq!(json!([firing["state"], firing["reading"]]), json!(["firing", 11.0]));
    // Five minutes later the window is empty, and two more make it good for long enough.
    server.advance(300);
    assert_eq!(standing(&server, "validation_errors").await["state"], "firing");
    server.advance(121);
    assert_eq!(standing(&server, "validation_errors").await["state"], "inactive");
}

/// A stub of an Alertmanager: what it was told, and what it does.
#[derive(Default)]
struct Stub {
    told: Mutex<Vec<Value>>,
    /// Answers so many requests with 503, and so many more never, before it is well.
    failing: Mutex<(usize, usize)>,
}

async fn receive(State(stub): State<Arc<Stub>>, axum::Json(alerts): axum::Json<Value>) -> StatusCode {
    let mood = {
        let mut failing = stub.failing.lock().unwrap();
        let mood = *failing;
        failing.1 = if mood.0 == 0 { mood.1.saturating_sub(1) } else { mood.1 };
        failing.0 = mood.0.saturating_sub(1);
        mood
    };
    match mood {
        (1.., _) => return StatusCode::SERVICE_UNAVAILABLE,
        (0, 1..) => std::future::pending().await,
        (0, 0) => {}
    }
    stub.told.lock().unwrap().push(alerts);
    StatusCode::OK
}

impl Stub {
    async fn serve(self: &Arc<Self>, listener: TcpListener) {
        let router = axum::Router::new().route("/api/v2/alerts", axum::routing::post(receive));
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// The one alert of the last message, once it satisfies.
    async fn told(&self, what: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || async {
            let told = self.told.lock().unwrap();
            let alert = told.last().and_then(|alerts| alerts.as_array()?.first().cloned())?;
            satisfies(&alert).then_some(alert)
        })
        .await
    }
}

async fn an_alertmanager_is_told_when_it_begins_and_ends(on: On) {
    // Nobody listens at first; then it fails, then it hangs, then it is well.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stub = Arc::new(Stub { failing: Mutex::new((1, 1)), ..Stub::default() });
    let server = on
        .server_with(|config| {
            quick(config);
            config.alerts.webhook_url = Some(format!("http://{address}/"));
            config.alerts.webhook_timeout = Span::of_millis(200);
            config.alerts.instance = Some("one:8080".to_owned());
        })
        .await;
    server.declare("told_item", json!({"features": {"x": {"type": "int64", "max_age": "10m"}}})).await;
    server.write("told_item/1", json!({"x": 1})).await;
    server.advance(601);
    assert_eq!(standing(&server, "stale_features").await["state"], "pending");
    server.advance(60);
    let firing = standing(&server, "stale_features").await;
    assert_eq!(firing["state"], "firing");
    eventually("a failure to be shown", || async {
        let webhook = server.get("/v1/alerts").await.ok()["webhook"].clone();
        (webhook["failure"] == "it cannot be reached" && webhook["last_delivered_at"].is_null()).then_some(())
    })
    .await;
    stub.serve(TcpListener::bind(address).await.unwrap()).await;
    let told = stub.told("the alert to arrive", |_| true).await;
    assert_eq!(told["labels"]["alertname"], "FeatureStoreStaleFeatures");
    assert_eq!(told["labels"]["instance"], "one:8080");
    assert_eq!(told["annotations"]["description"], "told_item.x");
    assert_eq!(told["startsAt"], firing["since"]);
    assert_eq!(told["generatorURL"], "http://one:8080/v1/alerts");
    let time = |at: &Value| {
        feature_store::domain::time::Timestamp::parse(at.as_str().expect("a time")).expect("a time")
    };
    assert!(time(&told["endsAt"]) > time(&told["startsAt"]) + Span::from_secs(120), "{told}");
    assert_eq!(*stub.failing.lock().unwrap(), (0, 0), "it failed and hung before");
    server.write("told_item/1", json!({"x": 2})).await;
    assert_eq!(standing(&server, "stale_features").await["state"], "firing");
    server.advance(121);
    let over = stub.told("the end to arrive", |alert| time(&alert["endsAt"]) < time(&told["endsAt"])).await;
    assert_eq!(over["startsAt"], told["startsAt"]);
    let webhook = server.get("/v1/alerts").await.ok()["webhook"].clone();
    assert!(webhook["last_delivered_at"].is_string() && webhook["failure"].is_null(), "{webhook}");
}

/// The real binary, whose store goes away.
#[tokio::test]
async fn a_store_that_cannot_be_reached_fires() {
    let mut redis = crate::redis_process::RedisServer::start(crate::redis_process::Durability::None);
    let launch = Launch::on_redis(&redis)
        .with("ALERTS__INTERVAL", "50ms")
        .with("ALERTS__FOR", "0")
        .with("READINESS_TIMEOUT", "300ms");
    let server = launch.start().await;
    redis.kill();
    let alert = eventually("the alert to fire", || async {
        let answer = server.client.get("/v1/alerts").await.ok();
        let alerts = answer["alerts"].as_array()?.clone();
        alerts
            .into_iter()
            .find(|alert| alert["alert"] == "store_connection_failures" && alert["state"] == "firing")
    })
    .await;
    assert_eq!(alert["severity"], "critical");
    let text = server.client.get("/metrics").await.text();
    assert!(text.contains("feature_store_alert_firing{alert=\"store_connection_failures\"} 1"), "{text}");
    assert!(text.contains("feature_store_store_up 0"));
}

/// Metrics have an address of their own, and no other.
#[tokio::test]
async fn metrics_may_be_served_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = On::Embedded.server_with(|config| config.metrics_listen = Some(address)).await;
    server.get("/metrics").await.problem(404, "invalid_request");
    let apart = crate::client::Client::new(address);
    let metrics = apart.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("feature_store_build_info"));
    assert_eq!(apart.get("/v1/performance").await.status, 404);
}
