//! The near cache through the API: it answers, and never with what is not true any more.

use std::time::Duration;

use feature_store::config::{Config, Duration0};
use serde_json::{Value, json};

use crate::client::Client;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::test_server::{On, TestServer, on_redis};

crate::on_both_stores!(
    a_second_read_is_a_hit_until_the_entity_is_written,
    what_is_not_there_is_known_and_found_once_it_is_written,
    expiry_and_age_are_exact_for_kept_values,
    readers_of_different_features_share_an_entity,
    many_readers_of_one_entity_load_it_once,
    no_cache_reads_through,
    without_a_cache_everything_is_read_through,
);

async fn performance_of(client: &Client) -> Value {
    client.get("/v1/performance").await.ok()
}

/// Reads until the answer was kept: a change that is heard of late may take it away once more.
async fn warm(server: &TestServer, entity: &str, query: &str) -> Value {
    for _ in 0..3 {
        server.read(entity, query).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.read(entity, query).await
}

/// Waits until the cache may answer: Redis has to tell of changes first.
async fn in_step(server: &TestServer) {
    eventually("the cache to be in step", || async {
        server.get("/metrics").await.text().contains("feature_store_cache_coherent 1\n").then_some(())
    })
    .await;
}

async fn hit_rate(server: &TestServer) -> f64 {
    performance_of(&server.client).await["cache_hit_rate"].as_f64().unwrap_or(0.0)
}

async fn a_second_read_is_a_hit_until_the_entity_is_written(on: On) {
    let server = on.server().await;
    in_step(&server).await;
    for price in 1..=20 {
        server.write("product/1", json!({ "price": price, "name": "a" })).await;
        for _ in 0..3 {
            let read = server.read("product/1", "names=price,name").await;
            assert_eq!(read["features"], json!({ "price": price, "name": "a" }));
            assert_eq!(read["version"], price);
        }
    }
    for _ in 0..100 {
        server.read("product/1", "names=price,name").await;
    }
    server.advance(2);
    let rate = hit_rate(&server).await;
    assert!(rate > 0.5, "{rate}");
    server.delete("/v1/entities/product/1").await.no_content();
    server.get_features("product/1", "names=price").await.problem(404, "entity_not_found");
}

async fn what_is_not_there_is_known_and_found_once_it_is_written(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1})).await;
    let body = json!({"entities": {"product": ["1", "2"]}, "features": ["price"]});
    for _ in 0..3 {
        let answer = server.post("/v1/features/read", &body).await.ok();
        assert_eq!(answer["results"][1]["version"], 0, "{answer}");
        server.get_features("product/2", "names=price").await.problem(404, "entity_not_found");
    }
    server.write("product/2", json!({"price": 2})).await;
    let answer = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(answer["results"][1]["features"]["price"], 2, "{answer}");
}

async fn expiry_and_age_are_exact_for_kept_values(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "short": {"type": "int64", "ttl": "10s"},
        "long": {"type": "int64", "ttl": "1h"},
        "young": {"type": "int64", "ttl": "1h", "max_age": "20s"}}});
    server.declare("product", schema).await;
    server.write("product/1", json!({"short": 1, "long": 2, "young": 3})).await;
    let query = "names=short,long,young";
    assert_eq!(warm(&server, "product/1", query).await["statuses"], json!({}));
    server.clock.advance(Duration::from_millis(9_999));
    assert_eq!(server.statuses("product/1", query).await, json!({}));
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(server.statuses("product/1", query).await, json!({"short": "expired"}));
    assert_eq!(
        server.read("product/1", query).await["features"],
        json!({"short": null, "long": 2, "young": 3})
    );
    server.clock.advance(Duration::from_millis(10_000));
    assert_eq!(server.statuses("product/1", query).await, json!({"short": "expired"}));
    server.clock.advance(Duration::from_millis(1));
    let old = json!({"short": "expired", "young": "expired"});
    assert_eq!(server.statuses("product/1", query).await, old);
    let older = json!({"short": "expired", "long": "expired", "young": "expired"});
    assert_eq!(server.statuses("product/1", &format!("{query}&max_age=15s")).await, older);
    for layout in ["rows", "columns"] {
        let body =
            json!({"entities": {"product": ["1", "1"]}, "features": ["long", "short"], "layout": layout});
        let answer = server.post("/v1/features/read", &body).await.ok();
        let (long, short) = match layout {
            "rows" => (&answer["results"][1]["features"]["long"], &answer["results"][1]["statuses"]["short"]),
            _ => (&answer["product"]["features"]["long"][1], &answer["product"]["statuses"]["short"][1]),
        };
        assert_eq!((long, short), (&json!(2), &json!("expired")), "{answer}");
    }
}

async fn readers_of_different_features_share_an_entity(on: On) {
    let server = on.server().await;
    let vector: Vec<f64> = (0..32).map(|n| f64::from(n) / 4.0).collect();
    server.write("product/0", json!({"c": "a null tells no type"})).await;
    server.write("product/1", json!({"a": 1, "b": "x", "c": null, "v": vector, "d": {"k": [1]}})).await;
    for _ in 0..3 {
        assert_eq!(server.read("product/1", "names=a,v").await["features"], json!({"a": 1, "v": vector}));
        let read = server.read("product/1", "names=d,c,b").await;
        assert_eq!(read["features"], json!({"d": {"k": [1]}, "c": null, "b": "x"}));
        assert_eq!(read["statuses"], json!({"c": "null"}));
        assert_eq!(server.read("product/1", "").await["features"].as_object().unwrap().len(), 5);
    }
    // An inferred integer is widened by another entity: the kept one is a float from then on.
    server.write("product/2", json!({"a": 1.5})).await;
    let answer = server.get_features("product/1", "names=a").await;
    assert!(answer.text().contains("\"a\":1.0"), "{}", answer.text());
}

async fn many_readers_of_one_entity_load_it_once(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1})).await;
    let reads = (0..64).map(|_| server.read("product/1", "names=price"));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read["features"]["price"], 1);
    }
}

async fn no_cache_reads_through(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1})).await;
    warm(&server, "product/1", "names=price").await;
    let before = hit_rate(&server).await;
    for _ in 0..200 {
        let request = server.request(reqwest::Method::GET, "/v1/entities/product/1/features?names=price");
        let answer = server.send(request.header("Cache-Control", "max-age=0, No-Cache")).await.ok();
        assert_eq!(answer["features"]["price"], 1);
    }
    assert!((hit_rate(&server).await - before).abs() < f64::EPSILON, "nothing was asked of the cache");
}

async fn without_a_cache_everything_is_read_through(on: On) {
    let server = on.server_with(|config| config.cache_bytes = 0).await;
    for price in 1..=3 {
        server.write("product/1", json!({ "price": price })).await;
        assert_eq!(server.read("product/1", "names=price").await["features"]["price"], price);
    }
    assert_eq!(performance_of(&server.client).await["cache_hit_rate"], Value::Null);
}

async fn on(redis: &RedisServer, set: impl FnOnce(&mut Config)) -> TestServer {
    let mut config = Config::default();
    on_redis(&mut config, redis);
    set(&mut config);
    let server = TestServer::start(config).await;
    server.ready().await;
    server
}

#[tokio::test]
async fn a_write_of_another_server_is_seen() {
    let redis = RedisServer::start(Durability::None);
    let (one, other) = (on(&redis, |_| {}).await, on(&redis, |_| {}).await);
    one.write("product/1", json!({"price": 0})).await;
    other.get_features("product/2", "names=price").await.problem(404, "entity_not_found");
    for price in 1..=20 {
        warm(&other, "product/1", "names=price").await;
        one.write("product/1", json!({ "price": price })).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(other.read("product/1", "names=price").await["features"]["price"], price);
    }
    one.write("product/2", json!({"price": 2})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(other.read("product/2", "names=price").await["features"]["price"], 2);
}

#[tokio::test]
async fn what_is_removed_behind_the_servers_back_is_gone() {
    let redis = RedisServer::start(Durability::None);
    let server = on(&redis, |config| config.auto_register = false).await;
    server.declare("product", json!({"features": {"price": {"type": "int64"}}})).await;
    for id in ["1", "2"] {
        server.write(&format!("product/{id}"), json!({"price": 1})).await;
        warm(&server, &format!("product/{id}"), "names=price").await;
    }
    redis.cli(&["DEL", "fs:{product:1}"]);
    eventually("the deletion to be heard of", || async {
        (server.get_features("product/1", "names=price").await.status == 404).then_some(())
    })
    .await;
    assert_eq!(server.read("product/2", "names=price").await["features"]["price"], 1);
    redis.cli(&["FLUSHALL"]);
    eventually("the flush to be noticed", || async {
        (server.get_features("product/2", "names=price").await.status == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn kept_values_are_served_through_an_outage_for_as_long_as_allowed() {
    let mut redis = RedisServer::start(Durability::Always);
    let hour = Duration0(Duration::from_secs(3600));
    let server = on(&redis, |config| config.stale_if_error = hour).await;
    let strict = on(&redis, |_| {}).await;
    server.write("product/0", json!({"name": "a null tells no type"})).await;
    server.write("product/1", json!({"price": 1, "name": null})).await;
    server.post_features("product/2", &json!({"features": {"price": 2}, "ttl": "30m"})).await.ok();
    let body = json!({"entities": {"product": ["1", "2", "3"]}, "features": ["price", "name"]});
    for _ in 0..3 {
        server.post("/v1/features/read", &body).await.ok();
        strict.post("/v1/features/read", &body).await.ok();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis.kill();
    eventually("the outage to be noticed", || async {
        (strict.post("/v1/features/read", &body).await.status == 503).then_some(())
    })
    .await;
    server.advance(600);
    let answer = eventually("stale values to be served", || async {
        let answer = server.post("/v1/features/read", &body).await;
        (answer.ok()["results"][0]["statuses"]["price"] == "stale").then_some(answer)
    })
    .await;
    let age: u64 = answer.header("age").parse().expect("an age");
    assert!((600..630).contains(&age), "{age}");
    let results = answer.ok();
    assert_eq!(results["results"][0]["features"], json!({"price": 1, "name": null}));
    assert_eq!(results["results"][0]["statuses"], json!({"price": "stale", "name": "null"}));
    assert_eq!(results["results"][2]["version"], 0);
    assert_eq!(server.get("/readyz").await.status, 503, "readiness says how it is");
    let request = server.request(reqwest::Method::GET, "/v1/entities/product/1/features?names=price");
    let fresh = server.send(request.header("Cache-Control", "no-cache")).await;
    fresh.problem(503, "store_unavailable");
    // Never read before: nothing is known of it.
    server.get_features("product/9", "names=price").await.problem(503, "store_unavailable");
    server.advance(1300);
    let answer = server.get_features("product/2", "names=price").await.ok();
    assert_eq!(answer["statuses"]["price"], "expired", "its ttl has passed meanwhile");
    server.advance(1800);
    server.get_features("product/1", "names=price").await.problem(503, "store_unavailable");
    redis.restart();
    let answer = eventually("redis to be back", || async {
        let answer = server.get_features("product/1", "names=name").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!((answer.header("age"), &answer.json()["statuses"]["name"]), ("", &json!("expired")));
}
