//! What the server says of its own performance, and of the freshness of features.

use feature_store::config::Config;
use serde_json::{Value, json};

use crate::client::Client;
use crate::redis_process::eventually;
use crate::test_server::{On, TestServer, on_redis};

crate::on_both_stores![
    windows_move_with_the_clock,
    performance_is_told_apart_by_entity_type,
    a_dead_pipeline_shows,
    labels_are_bounded,
];

/// The window of so many minutes.
fn window(of: &Value, minutes: u64) -> &Value {
    let windows = of["windows"].as_array().expect("windows");
    windows.iter().find(|window| window["minutes"] == minutes).expect("that window")
}

async fn performance(client: &Client) -> Value {
    client.get("/v1/performance").await.ok()
}

async fn windows_move_with_the_clock(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"a": 1, "b": 2})).await;
    for _ in 0..20 {
        server.read("product/1", "names=a,b").await;
    }
    server.get_features("product/2", "names=a").await.problem(404, "entity_not_found");
    server
        .post_features("product/1", &json!({"features": {"a": "x", "b": "y"}}))
        .await
        .problem(422, "validation_failed");
    let now = performance(&server).await;
    assert!(now["average_computation_time"].as_f64().is_some_and(|millis| millis > 0.0), "{now}");
    let rate = now["cache_hit_rate"].as_f64().expect("a cache was asked");
    assert!((0.0..1.0).contains(&rate), "the first read and the one of nothing were none: {rate}");
    for minutes in [1, 5, 60] {
        let window = window(&now, minutes);
        assert_eq!(window["retrieval"]["count"], 21, "{window}");
        assert_eq!(window["write"]["count"], 2, "{window}");
        assert_eq!(window["features_read"], 41);
        assert_eq!(window["features_written"], 2);
        assert_eq!(window["validation_errors"], 2);
        assert_eq!(window["server_errors"], 0);
        assert!(window["requests"].as_u64().is_some_and(|count| count >= 23), "{window}");
        let millis = |name: &str| window["retrieval"][name].as_f64().expect("a latency");
        assert!(millis("p50_ms") <= millis("p95_ms") && millis("p95_ms") <= millis("p99_ms"), "{window}");
        assert!(millis("mean_ms") > 0.0 && millis("mean_ms") <= millis("p99_ms") * 1.05, "{window}");
    }
    server.advance(120);
    let later = performance(&server).await;
    assert_eq!(window(&later, 1)["retrieval"]["count"], 0);
    assert_eq!(window(&later, 1)["retrieval"]["p99_ms"], Value::Null);
    assert_eq!(window(&later, 1)["seconds"], 60.0);
    assert_eq!(window(&later, 5)["retrieval"]["count"], 21);
    assert!(window(&later, 5)["seconds"].as_f64().is_some_and(|seconds| (120.0..130.0).contains(&seconds)));
    server.advance(3600);
    let gone = performance(&server).await;
    assert_eq!(window(&gone, 60)["retrieval"]["count"], 0);
    assert_eq!(gone["average_computation_time"], Value::Null);
    assert_eq!(gone["cache_hit_rate"], Value::Null);
}

async fn performance_is_told_apart_by_entity_type(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"a": 1})).await;
    server.write("user/1", json!({"b": 1})).await;
    let batch =
        json!({"entities": {"product": ["1", "2"], "user": ["1"]}, "features": ["product.a", "user.b"]});
    server.post("/v1/features/read", &batch).await.ok();
    let rows = json!({"entity_type": "user", "rows": [{"entity_id": "2", "features": {"b": 3}}]});
    server.post("/v1/features/write", &rows).await.ok();
    // Names that nobody registered get no figures.
    server.get_features("nobody/1", "names=a").await.problem(404, "unknown_entity_type");
    let answer = performance(&server).await;
    let types = answer["entity_types"].as_array().expect("a list");
    assert_eq!(types.iter().map(|of| &of["entity_type"]).collect::<Vec<_>>(), ["product", "user"]);
    let counts = |at: usize| {
        let window = window(&types[at], 5);
        json!([
            window["retrieval"]["count"],
            window["write"]["count"],
            window["features_read"],
            window["features_written"]
        ])
    };
    assert_eq!(counts(0), json!([1, 1, 2, 1]));
    assert_eq!(counts(1), json!([1, 2, 1, 2]));
    assert_eq!(window(&answer, 5)["retrieval"]["count"], 1, "one request");
}

async fn freshness(client: &Client, entity_type: &str) -> Value {
    client.get(&format!("/v1/entity-types/{entity_type}/freshness")).await.ok()
}

async fn a_dead_pipeline_shows(on: On) {
    let server = on.server().await;
    server.get("/v1/entity-types/product/freshness").await.problem(404, "unknown_entity_type");
    server.declare("product", json!({"ttl": "never", "features": {
        "price": {"type": "float64", "max_age": "1h"}, "stock": {"type": "int64"}, "unused": {"type": "int64"}}})).await;
    let before = freshness(&server, "product").await;
    assert_eq!(before["features"][0]["newest_event_timestamp"], Value::Null);
    assert_eq!(before["features"][0]["stale"], Value::Null);
    let at = server.time(-60);
    server.write_at("product/1", &at, json!({"price": 1.5, "stock": null})).await;
    server.write_at("product/1", &server.time(-90), json!({"price": 0.5})).await;
    for _ in 0..3 {
        server.read("product/1", "names=price,stock,unused").await;
    }
    let alive = freshness(&server, "product").await;
    let [price, stock, unused] = alive["features"].as_array().expect("features").as_slice() else {
        panic!("{alive}")
    };
    assert_eq!(price["newest_event_timestamp"], json!(at));
    assert_eq!(price["age_seconds"], 60.0);
    assert_eq!(json!([price["max_age"], price["stale"], price["values_written"]]), json!(["1h", false, 1]));
    assert_eq!(price["reads"][0]["present"], 1.0);
    assert_eq!(stock["reads"][0]["null"], 1.0);
    assert_eq!(json!([unused["reads"][0]["not_found"], unused["age_seconds"]]), json!([1.0, null]));
    server.advance(3600);
    server.read("product/1", "names=price").await;
    let dead = freshness(&server, "product").await;
    let price = &dead["features"][0];
    assert_eq!(json!([price["stale"], price["age_seconds"]]), json!([true, 3660.0]));
    assert_eq!(json!([price["reads"][0]["expired"], price["reads"][0]["count"]]), json!([1.0, 1]));
    assert_eq!(price["reads"][2]["count"], 1, "the others are an hour old");
    // Reads of the past say nothing of the present.
    server.read("product/1", &format!("names=price&as_of={at}")).await;
    assert_eq!(freshness(&server, "product").await["features"][0]["reads"][0]["count"], 1);
    let text = server.get("/metrics").await.text();
    assert!(text.contains(
        "feature_store_feature_reads_total{entity_type=\"product\",feature=\"price\",status=\"expired\"}"
    ));
    assert!(
        text.contains(
            "feature_store_feature_max_age_seconds{entity_type=\"product\",feature=\"price\"} 3600"
        )
    );
    // A deletion brings nothing new.
    server.delete("/v1/entities/product/1/features?names=price").await.ok();
    assert_eq!(freshness(&server, "product").await["features"][0]["age_seconds"], 3660.0);
}

async fn labels_are_bounded(on: On) {
    let server = on
        .server_with(|config| (config.metrics_max_entity_types, config.metrics_max_features) = (2, 3))
        .await;
    for entity_type in ["bounded_a", "bounded_b", "bounded_c"] {
        server.write(&format!("{entity_type}/1"), json!({"x": 1, "y": 2})).await;
        server.read(&format!("{entity_type}/1"), "names=x,y").await;
    }
    let answer = performance(&server).await;
    let types: Vec<&Value> =
        answer["entity_types"].as_array().expect("a list").iter().map(|of| &of["entity_type"]).collect();
    assert_eq!(types, ["bounded_a", "bounded_b", "other"]);
    assert_eq!(window(&answer["entity_types"][2], 5)["features_read"], 2);
    let second = freshness(&server, "bounded_b").await;
    assert_eq!(
        json!([second["features"][0]["watched"], second["features"][1]["watched"]]),
        json!([true, false])
    );
    assert_eq!(freshness(&server, "bounded_c").await["features"][0]["watched"], false);
    let text = server.get("/metrics").await.text();
    assert!(text.contains("entity_type=\"bounded_b\"") && !text.contains("bounded_c"));
}

#[tokio::test]
async fn without_monitoring_nothing_is_recorded() {
    let server = On::Embedded.server_with(|config| config.enable_monitoring = false).await;
    server.write("product/1", json!({"a": 1})).await;
    for path in ["/v1/performance", "/v1/entity-types/product/freshness"] {
        server.get(path).await.problem(404, "invalid_request");
    }
}

/// What another server wrote is known once it is read here.
#[tokio::test]
async fn freshness_of_what_others_write_comes_with_reading_it() {
    let writer = On::Redis.server().await;
    let at = writer.time(-30);
    writer.write_at("product/1", &at, json!({"price": 1.5})).await;
    let mut config = Config::default();
    on_redis(&mut config, writer.redis.as_ref().expect("a Redis"));
    let reader = TestServer::start(config).await;
    reader.ready().await;
    let newest =
        async || freshness(&reader, "product").await["features"][0]["newest_event_timestamp"].clone();
    assert_eq!(newest().await, Value::Null);
    reader.read("product/1", "names=price").await;
    assert_eq!(newest().await, json!(at));
}

#[tokio::test]
async fn health_names_what_is_wrong_with_redis() {
    let mut server = On::Redis.server().await;
    let check = |health: &Value, name: &str| -> Value {
        let checks = health["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).cloned().unwrap_or_default()
    };
    let health = server.get("/health").await.ok();
    assert_eq!(health["status"], "healthy", "{health}");
    for name in ["store", "role", "eviction", "registry", "alerts"] {
        assert_eq!(check(&health, name)["status"], "pass", "{health}");
    }
    let redis = server.redis.as_ref().expect("a Redis");
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    // Less than what an empty server uses.
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let health = server.get("/health").await.ok();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(check(&health, "eviction")["status"], "warn");
    assert_eq!(check(&health, "memory")["status"], "warn");
    assert!(check(&health, "eviction")["message"].as_str().is_some_and(|text| text.contains("allkeys-lru")));
    server.redis.as_mut().expect("a Redis").kill();
    let health = eventually("the outage to be noticed", || async {
        let health = server.get("/health").await.ok();
        (health["status"] == "unhealthy").then_some(health)
    })
    .await;
    assert_eq!(check(&health, "store")["status"], "fail");
    assert_eq!(json!([health["redis_connected"], health["store"]["connected"]]), json!([false, false]));
}
