//! What holds for every request: ids, limits, probes, metrics, documents, compression.

use std::time::Duration;

use feature_store::config::{Config, Duration0};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::expected;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::test_server::{On, TestServer, on_redis};

crate::on_both_stores![
    every_answer_has_a_request_id,
    limits_are_answered_clearly,
    an_unknown_path_or_method_is_a_problem,
    a_body_of_another_type_is_refused,
    probes_and_health_tell_the_state,
    metrics_count_what_happens,
    large_answers_are_compressed_for_those_who_ask,
    a_server_that_stops_turns_unready_first,
];

async fn every_answer_has_a_request_id(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"n": 1})).await;
    let send = async |path: &str, id: &str| {
        server.send(server.request(Method::GET, path).header("x-request-id", id)).await
    };
    for path in ["/v1/entities/product/1/features", "/v1/entities/product/2/features", "/nothing", "/livez"] {
        let named = send(path, "trace-4711").await;
        assert_eq!(named.header("x-request-id"), "trace-4711", "{path}");
        if named.status != 200 {
            assert_eq!(named.json()["request_id"], "trace-4711", "{path}");
        }
        let (one, other) = (server.get(path).await, server.get(path).await);
        assert!(!one.header("x-request-id").is_empty(), "{path}");
        assert_ne!(one.header("x-request-id"), other.header("x-request-id"), "{path}");
    }
    let longest = "x".repeat(128);
    assert_eq!(send("/livez", &longest).await.header("x-request-id"), longest);
    for unfit in ["", "two words", &"x".repeat(129), "tab\there"] {
        let given = send("/livez", unfit).await;
        assert_ne!(given.header("x-request-id"), unfit);
        assert!(!given.header("x-request-id").is_empty());
    }
}

async fn limits_are_answered_clearly(on: On) {
    let set = |config: &mut Config| {
        (config.max_batch_size, config.max_features) = (3, 4);
        (config.max_page_size, config.max_body_bytes) = (5, 2048);
    };
    let server = on.server_with(set).await;
    let features = |count: usize| -> Value {
        (0..count).map(|n| (format!("f{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()
    };
    let rows = |rows: usize, of: usize| -> Value {
        let rows = (0..rows).map(|id| json!({"entity_id": id.to_string(), "features": features(of)}));
        json!({"entity_type": "product", "rows": rows.collect::<Vec<_>>()})
    };
    let names = |count: usize| (0..count).map(|n| format!("f{n}")).collect::<Vec<_>>();
    assert_eq!(server.post("/v1/features/write", &rows(3, 4)).await.ok()["written"], 3);
    server.write("product/0", json!({"f4": 4})).await;
    let read = |ids: usize, of: usize| {
        let ids: Vec<String> = (0..ids).map(|id| id.to_string()).collect();
        json!({"entities": {"product": ids}, "features": names(of)})
    };
    server.post("/v1/features/read", &read(3, 4)).await.ok();
    server.read("product/0", &format!("names={}", names(4).join(","))).await;
    let service = |count: usize| {
        let features: Vec<String> = names(count).iter().map(|name| format!("product.{name}")).collect();
        json!({ "features": features })
    };
    server.put("/v1/feature-services/fits", &service(4)).await.status(201);
    for (what, answer) in [
        ("rows", server.post("/v1/features/write", &rows(4, 1)).await),
        ("features of a row", server.post("/v1/features/write", &rows(1, 5)).await),
        ("features", server.post_features("product/9", &json!({"features": features(5)})).await),
        ("entities", server.post("/v1/features/read", &read(4, 1)).await),
        ("features of a batch", server.post("/v1/features/read", &read(1, 5)).await),
        ("names", server.get_features("product/0", &format!("names={}", names(5).join(","))).await),
        ("features of a service", server.put("/v1/feature-services/large", &service(5)).await),
        ("body", server.post_features("product/9", &json!({"features": {"f0": "x".repeat(2048)}})).await),
    ] {
        assert_eq!(answer.status, 413, "{what}: {}", answer.text());
        answer.problem(413, "payload_too_large");
    }
    server.get("/v1/entities/product?limit=5").await.ok();
    server.get("/v1/entities/product?limit=6").await.problem(400, "invalid_request");
    server.get("/v1/entities/product/0/versions?limit=6").await.problem(400, "invalid_request");
    server.get_features("product/9", "names=f0").await.problem(404, "entity_not_found");
}

async fn an_unknown_path_or_method_is_a_problem(on: On) {
    let server = on.server().await;
    for path in ["/", "/v1", "/v2/entities", "/v1/entities/product/1/features/", "/docs/nothing"] {
        server.get(path).await.problem(404, "invalid_request");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/v1/entities/product/1/features", "DELETE,GET,HEAD,POST"),
        (Method::GET, "/v1/entities/product/1", "DELETE"),
        (Method::GET, "/v1/features/read", "POST"),
        (Method::DELETE, "/v1/features/write", "POST"),
        (Method::POST, "/v1/entity-types/product", "DELETE,GET,HEAD,PUT"),
        (Method::PATCH, "/v1/feature-services/ranking", "DELETE,GET,HEAD,PUT"),
        (Method::POST, "/livez", "GET,HEAD"),
        (Method::POST, "/metrics", "GET,HEAD"),
    ] {
        let answer = server.send(server.request(method.clone(), path)).await;
        answer.problem(405, "invalid_request");
        let mut methods: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {path}");
    }
}

async fn a_body_of_another_type_is_refused(on: On) {
    let server = on.server().await;
    let body = json!({"features": {"n": 1}}).to_string();
    let send = async |content_type: Option<&str>| {
        let mut request = server.request(Method::POST, "/v1/entities/product/1/features").body(body.clone());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        server.send(request).await
    };
    for bad in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/yaml"),
        Some(""),
    ] {
        send(bad).await.problem(415, "invalid_request");
    }
    server.get("/v1/entity-types/product").await.problem(404, "unknown_entity_type");
    for good in
        ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
    {
        send(Some(good)).await.ok();
    }
}

async fn probes_and_health_tell_the_state(on: On) {
    let server = on.server().await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(server.get(path).await.ok(), json!({"status": "ok"}), "{path}");
    }
    server.write("product/1", json!({"n": 1})).await;
    server.put("/v1/feature-services/ranking", &json!({"features": ["product.n"]})).await.status(201);
    server.advance(90);
    let health = server.get("/health").await.ok();
    let (backend, redis) = match on {
        On::Embedded => ("embedded", json!(null)),
        On::Redis => ("redis", json!(true)),
    };
    assert_eq!(health["status"], "healthy", "{health}");
    assert_eq!(health["warnings"], json!([]));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["started_at"], server.time(-90));
    assert_eq!(health["uptime_seconds"].as_f64(), Some(90.0));
    assert_eq!(health["redis_connected"], redis);
    assert_eq!(health["store"]["backend"], backend);
    assert_eq!(health["store"]["connected"], true);
    assert!(health["store"]["latency_ms"].as_f64().is_some_and(|latency| latency >= 0.0), "{health}");
    let registry = &health["registry"];
    assert_eq!(
        json!([registry["loaded"], registry["entity_types"], registry["feature_services"]]),
        json!([true, 1, 1])
    );
}

async fn metrics_count_what_happens(on: On) {
    let server = on.server().await;
    let at = server.time(-60);
    server.write("product/1", json!({"n": 1, "name": "a"})).await;
    server.write_at("product/1", &at, json!({"n": 0})).await;
    server.write_at("product/1", &at, json!({"n": 0})).await;
    server.read("product/1", "names=n").await;
    let refused = server.post_features("product/1", &json!({"features": {"n": "text"}})).await;
    assert_eq!(refused.violations(), expected(&[("n", "wrong_type")]));
    server.get("/no/such/path/secret-id").await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain"), "{:?}", answer.headers);
    let text = answer.text();
    for series in [
        "feature_store_http_requests_total{method=\"POST\",route=\"/v1/entities/{entity_type}/{entity_id}/features\",status=\"200\"}",
        "feature_store_http_requests_total{method=\"POST\",route=\"/v1/entities/{entity_type}/{entity_id}/features\",status=\"422\"}",
        "feature_store_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"}",
        "feature_store_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v1/entities/{entity_type}/{entity_id}/features\",le=\"",
        "feature_store_http_requests_in_flight ",
        "feature_store_features_read_total{status=\"present\"}",
        "feature_store_features_read_total{status=\"not_found\"}",
        "feature_store_features_written_total{outcome=\"applied\"}",
        "feature_store_features_written_total{outcome=\"unchanged\"}",
        "feature_store_features_written_total{outcome=\"late\"}",
        "feature_store_validation_errors_total{code=\"wrong_type\"}",
        "feature_store_commit_conflicts_total",
        "feature_store_store_operation_duration_seconds_bucket{operation=\"load\",le=\"",
        "feature_store_store_operation_duration_seconds_count{operation=\"commit\"}",
    ] {
        assert!(text.contains(series), "{series} in\n{text}");
    }
    assert!(!text.contains("secret-id"), "labels hold no raw paths");
    let count = |text: &str, series: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(series)).expect("the series is there");
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    };
    let late = "feature_store_features_written_total{outcome=\"late\"}";
    let before = count(&text, late);
    server.write_at("product/1", &server.time(-90), json!({"n": 7})).await;
    assert!(count(&server.get("/metrics").await.text(), late) >= before + 1.0);
}

async fn large_answers_are_compressed_for_those_who_ask(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"text": "word ".repeat(1000), "short": 1})).await;
    let send = async |path: &str, encoding: &str| {
        server.send(server.request(Method::GET, path).header("accept-encoding", encoding)).await
    };
    let path = "/v1/entities/product/1/features";
    let plain = server.get(path).await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = send(path, "gzip").await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.body[..2], [0x1f, 0x8b], "the magic number of gzip");
    assert!(packed.body.len() * 4 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    assert!(!packed.header("x-request-id").is_empty());
    assert_eq!(send(&format!("{path}?names=short"), "gzip").await.header("content-encoding"), "");
    assert_eq!(send(path, "identity").await.header("content-encoding"), "");
}

async fn a_server_that_stops_turns_unready_first(on: On) {
    let set = |config: &mut Config| config.shutdown_delay = Duration0(Duration::from_secs(600));
    let mut server = on.server_with(set).await;
    server.write("product/1", json!({"n": 1})).await;
    server.stop();
    eventually("the server to be unready", || async {
        (server.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    let unready = server.get("/readyz").await;
    unready.problem(503, "store_unavailable");
    assert_eq!(unready.header("retry-after"), "1");
    server.get("/livez").await.ok();
    assert_eq!(server.write("product/1", json!({"n": 2})).await["version"], 2, "it still serves");
    let health = server.get("/health").await.ok();
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn a_stopped_server_leaves_nothing_behind() {
    let mut server = On::Embedded.server().await;
    server.write("product/1", json!({"n": 1})).await;
    server.stop();
    let client = server.client.clone();
    server.stopped().await.expect("a clean end");
    assert!(client.try_send(client.request(Method::GET, "/livez")).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn without_monitoring_there_are_no_metrics() {
    let server = On::Embedded.server_with(|config| config.enable_monitoring = false).await;
    server.write("product/1", json!({"n": 1})).await;
    server.get("/metrics").await.problem(404, "invalid_request");
}

#[tokio::test]
async fn the_openapi_document_is_that_of_the_build() {
    let server = On::Embedded.server().await;
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = feature_store::http::openapi().to_json().expect("a document");
    assert_eq!(answer.ok(), serde_json::from_str::<Value>(&document).expect("JSON"));
    let paths = answer.json()["paths"].as_object().map(serde_json::Map::len);
    assert!(paths.is_some_and(|count| count >= 20), "{paths:?}");
}

#[tokio::test]
async fn the_documentation_needs_nothing_from_elsewhere() {
    let server = On::Embedded.server().await;
    let page = server.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"), "{:?}", page.headers);
    let text = page.text();
    assert!(text.contains("swagger-ui"), "{text}");
    for part in text.split('"').filter(|part| part.contains("//")) {
        assert!(!part.starts_with("http") && !part.starts_with("//"), "{part}");
    }
    for (path, content_type) in [
        ("/docs/swagger-ui-bundle.js", "javascript"),
        ("/docs/swagger-ui.css", "text/css"),
        ("/docs/swagger-initializer.js", "javascript"),
    ] {
        let asset = server.get(path).await;
        assert_eq!(asset.status, 200, "{path}");
        assert!(asset.header("content-type").contains(content_type), "{path}: {:?}", asset.headers);
    }
    assert!(server.get("/docs/swagger-initializer.js").await.text().contains("/openapi.json"));
}

#[tokio::test]
async fn a_server_starts_before_its_redis() {
    let mut redis = RedisServer::start(Durability::None);
    redis.kill();
    let mut config = Config::default();
    on_redis(&mut config, &redis);
    config.redis_connect_timeout = feature_store::domain::time::Span::from_millis(200).expect("a span");
    let server = TestServer::start(config).await;
    server.get("/livez").await.ok();
    server.get("/startupz").await.problem(503, "store_unavailable");
    server.get("/readyz").await.problem(503, "store_unavailable");
    let refused = server.post_features("product/1", &json!({"features": {"n": 1}})).await;
    assert!([503, 504].contains(&refused.status), "{}", refused.text());
    let health = server.get("/health").await.ok();
    assert_eq!(json!([health["status"], health["redis_connected"]]), json!(["unhealthy", false]));
    redis.restart();
    server.ready().await;
    server.get("/startupz").await.ok();
    server.write("product/1", json!({"n": 1})).await;
    redis.kill();
    eventually("the server to be unready", || async {
        (server.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    server.get("/livez").await.ok();
    server.get("/startupz").await.ok();
}
