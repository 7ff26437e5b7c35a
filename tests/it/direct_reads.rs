//! Reads that are answered before the routes are answered as the routes would.

use feature_store::config::{Config, Secret};
use reqwest::Method;
use serde_json::json;

use crate::access::document;
use crate::client::Answer;
use crate::redis_process::eventually;
use crate::test_server::{On, TestServer};

crate::on_both_stores!(
    both_ways_give_the_same_answer,
    nobody_gets_in_who_would_not_by_the_routes,
    what_is_served_at_hand_is_counted,
);

/// Status, headers but for the time, and body.
fn essence(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (answer.status, headers, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn get(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = server.request(Method::GET, path).header("x-request-id", "one");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request).await
}

/// Entities answered from the cache, as the metrics say.
async fn hits(server: &TestServer) -> u64 {
    let metrics = server.get("/metrics").await.text().to_owned();
    let line = metrics.lines().find_map(|line| line.strip_prefix("feature_store_cache_hits_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Reads a path until that is a hit.
async fn warm(server: &TestServer, path: &str, headers: &[(&str, &str)]) {
    eventually("a hit", || async {
        let before = hits(server).await;
        get(server, path, headers).await;
        (hits(server).await > before).then_some(())
    })
    .await;
}

async fn both_ways_give_the_same_answer(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "price": {"type": "float64", "default": 1.5}, "short": {"type": "int64", "ttl": "10s"},
        "name": {"type": "string"}, "vector": {"type": "embedding", "dimension": 300},
        "young": {"type": "int64", "max_age": "20s"}, "twice": {"type": "float64"}}});
    server.declare("product", schema).await;
    let vector: Vec<f64> = (0..300).map(|n| f64::from(n) / 8.0).collect();
    let features = json!({"short": 7, "name": "a \"b\" \u{e9}", "vector": vector, "young": 1});
    server.write("product/1", features).await;
    server.write("product/a~b", json!({"price": 2.5, "name": null})).await;
    for seconds in [0, 11, 30] {
        server.advance(seconds);
        for entity in ["1", "a~b", "none"] {
            for names in ["", "names=price,short", "names=name,name,vector", "names=young", "names=nothing"] {
                for headers in [&[][..], &[("Accept-Encoding", "gzip")]] {
                    let path = format!("/v1/entities/product/{entity}/features?{names}");
                    // The same question, but with something to decode in it.
                    let routed = path.replace("/product/", "/p%72oduct/");
                    get(&server, &path, headers).await;
                    let (short, long) =
                        (get(&server, &path, headers).await, get(&server, &routed, headers).await);
                    assert_eq!(essence(&short), essence(&long), "{path}");
                    let bare = get(&server, path.trim_end_matches('?'), headers).await;
                    assert_eq!(essence(&bare), essence(&long), "{path}");
                }
            }
        }
    }
}

async fn nobody_gets_in_who_would_not_by_the_routes(on: On) {
    let keys = document(&[
        ("all", json!({"scopes": ["read", "write", "admin"]})),
        ("writer", json!({"scopes": ["write"]})),
        ("users", json!({"scopes": ["read"], "entity_types": ["user"]})),
        ("products", json!({"scopes": ["read"], "entity_types": ["product"]})),
        ("slow", json!({"scopes": ["read"], "rate_limit": 1, "rate_burst": 2})),
    ]);
    let server = on.server_with(|config: &mut Config| config.api_keys = Some(Secret::new(keys))).await;
    let write = server.request(Method::POST, "/v1/entities/product/1/features");
    server.send(write.bearer_auth("all").json(&json!({"features": {"price": 1}}))).await.ok();
    let path = "/v1/entities/product/1/features?names=price";
    warm(&server, path, &[("x-api-key", "all")]).await;
    for (key, status) in [("all", 200), ("products", 200), ("nobody", 401), ("writer", 403), ("users", 403)] {
        let header = [("x-api-key", key)];
        let short = get(&server, path, &header).await;
        let long = get(&server, &path.replace("names=p", "names=%70"), &header).await;
        assert_eq!((short.status, long.status), (status, status), "{key}");
        assert_eq!(essence(&short), essence(&long), "{key}");
    }
    let slow = [("x-api-key", "slow")];
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&server, path, &slow).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

async fn what_is_served_at_hand_is_counted(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1, "name": "a"})).await;
    let path = "/v1/entities/product/1/features?names=price,name";
    warm(&server, path, &[]).await;
    let count = |metrics: &str, series: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("{series} is not there")).trim().parse().unwrap()
    };
    const SERIES: [&str; 5] = [
        "feature_store_http_requests_total{method=\"GET\",route=\"/v1/entities/{entity_type}/{entity_id}/features\",status=\"200\"}",
        "feature_store_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/entities/{entity_type}/{entity_id}/features\"}",
        "feature_store_features_read_total{status=\"present\"}",
        "feature_store_retrieval_duration_seconds_count{entity_type=\"product\"}",
        "feature_store_cache_hits_total",
    ];
    let before = server.get("/metrics").await.text().to_owned();
    for _ in 0..10 {
        get(&server, path, &[]).await;
    }
    let after = server.get("/metrics").await.text().to_owned();
    let more = SERIES.map(|series| count(&after, series) - count(&before, series));
    assert_eq!(more, [10, 10, 20, 10, 10]);
}
