//! What feature services served, kept and exported.

use serde_json::{Value, json};

use crate::client::Client;
use crate::redis_process::{Durability, RedisServer};
use crate::server_process::Launch;
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    a_log_holds_what_was_served_and_nothing_else,
    requests_of_several_types_are_rows_where_it_is_known_which_go_together,
    a_log_has_bounds_and_goes_with_its_service,
    a_log_is_for_keys_that_may_read_all_of_it,
    a_share_of_the_reads_is_kept,
];

const RANKING: &str = "/v1/feature-services/ranking";

async fn put(client: &Client, features: Value, log: Value) {
    let answer = client.put(RANKING, &json!({"features": features, "serving_log": log})).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

async fn log(client: &Client, query: &str) -> Vec<Value> {
    let rows = client.get(&format!("{RANKING}/serving-log?{query}")).await.ok();
    rows.as_array().expect("an array").clone()
}

async fn batch(client: &Client, entities: Value) {
    let body = json!({"entities": entities, "feature_service": "ranking"});
    client.post("/v1/features/read", &body).await.ok();
}

async fn a_log_holds_what_was_served_and_nothing_else(on: On) {
    let server = on.server().await;
    let event = server.time(-60);
    server
        .write_at(
            "product/1",
            &event,
            json!({"price": 1.5, "name": "a", "vector": vec![0.1; 12], "tags": {"a": [1]}}),
        )
        .await;
    let features = json!(["product.price", "product.name", "product.vector", "product.tags"]);
    put(&server, features, json!({"sample_rate": 1})).await;
    let read =
        server.request(reqwest::Method::GET, "/v1/entities/product/1/features?feature_service=ranking");
    let served = server.send(read.header("x-request-id", "first")).await.ok();
    // The past, other selections, and what is not there for one entity alone are no servings.
    server.read("product/1", &format!("feature_service=ranking&as_of={}", server.time(-1))).await;
    server.read("product/1", "names=price").await;
    let first = server.time(0);
    server.advance(5);
    server.write("product/1", json!({"price": 2.5})).await;
    batch(&server, json!({"product": ["1", "2"]})).await;

    let rows = log(&server, "").await;
    let of = |row: &Value, name: &str| row[name].clone();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(
        json!([of(&rows[0], "served_at"), of(&rows[0], "request_id"), of(&rows[0], "product_id")]),
        json!([first, "first", "1"])
    );
    for name in ["price", "name", "vector", "tags"] {
        assert_eq!(rows[0][format!("product.{name}")], served["features"][name], "{name}");
    }
    assert_eq!((&rows[1]["product_id"], &rows[1]["product.price"]), (&json!("1"), &json!(2.5)));
    assert_eq!((&rows[2]["product_id"], &rows[2]["product.price"]), (&json!("2"), &Value::Null));
    assert_eq!(rows[1]["request_id"], rows[2]["request_id"]);
    assert!(rows[1]["request_id"].as_str().is_some_and(|id| !id.is_empty()));

    let rows = log(&server, "include=event_timestamp,status,version").await;
    let beside = |row: &Value| {
        ["event_timestamp", "status", "version"].map(|name| row[format!("product.price.{name}")].clone())
    };
    assert_eq!(beside(&rows[0]), [json!(event), json!("present"), json!(1)]);
    assert_eq!(beside(&rows[1]), [json!(server.time(0)), json!("present"), json!(2)]);
    assert_eq!(beside(&rows[2]), [Value::Null, json!("not_found"), Value::Null]);
    assert_eq!(log(&server, &format!("to={}", server.time(0))).await.len(), 1);
    assert_eq!(log(&server, &format!("from={}", server.time(0))).await.len(), 2);
    // Another version serves other columns; the log of the first stays its own.
    put(&server, json!(["product.price"]), json!({"sample_rate": 1})).await;
    batch(&server, json!({"product": ["1"]})).await;
    assert_eq!(log(&server, "").await.len(), 1);
    let old = server.get(&format!("{RANKING}@1/serving-log?format=csv")).await.text();
    assert_eq!(old.lines().count(), 4);
    assert!(old.starts_with("served_at,request_id,product_id,product.price,product.name"), "{old}");
    server.get(&format!("{RANKING}/serving-log?include=nonsense")).await.problem(400, "invalid_request");
    server.get("/v1/feature-services/nothing/serving-log").await.problem(404, "invalid_request");
    for wrong in [
        json!({"sample_rate": 0}),
        json!({"sample_rate": 1.5}),
        json!({"sample_rate": 1, "rate": 1}),
        json!({}),
    ] {
        let body = json!({"features": ["product.price"], "serving_log": wrong});
        server.put(RANKING, &body).await.problem(400, "invalid_request");
    }
}

async fn requests_of_several_types_are_rows_where_it_is_known_which_go_together(on: On) {
    let server = on.server().await;
    for id in ["1", "2", "3"] {
        server.write(&format!("product/{id}"), json!({"price": id.parse::<f64>().unwrap() + 0.5})).await;
        server.write(&format!("user/{id}"), json!({"age": id.parse::<i64>().unwrap()})).await;
    }
    put(&server, json!(["user.age", "product.price"]), json!({"sample_rate": 1})).await;
    let rows = async |entities: Value| -> Vec<Value> {
        server.advance(1);
        batch(&server, entities).await;
        let rows = log(&server, &format!("from={}", server.time(0))).await;
        rows.iter()
            .map(|row| json!([row["user_id"], row["user.age"], row["product_id"], row["product.price"]]))
            .collect()
    };
    assert_eq!(
        rows(json!({"user": ["1"], "product": ["2", "3"]})).await,
        [json!(["1", 1, "2", 2.5]), json!(["1", 1, "3", 3.5])]
    );
    assert_eq!(
        rows(json!({"user": ["1", "2"], "product": ["2", "3"]})).await,
        [json!(["1", 1, "2", 2.5]), json!(["2", 2, "3", 3.5])]
    );
    let apart = rows(json!({"user": ["1", "2", "3"], "product": ["2", "3"]})).await;
    assert_eq!(apart.len(), 5);
    // In the order of the request, whose members json! sorts.
    assert_eq!(apart[0], json!([null, null, "2", 2.5]));
    assert_eq!(apart[4], json!(["3", 3, null, null]));
}

async fn reads(server: &TestServer, count: usize) {
    for _ in 0..count {
        server.advance(1);
        server.read("product/1", "feature_service=ranking").await;
    }
}

async fn a_log_has_bounds_and_goes_with_its_service(on: On) {
    let server = on.server().await;
    server.declare("product", json!({"ttl": "never", "features": {"price": {"type": "float64"}}})).await;
    server.write("product/1", json!({"price": 1.5})).await;
    put(&server, json!(["product.price"]), json!({"sample_rate": 1, "ttl": "1h", "max_reads": 3})).await;
    reads(&server, 2).await;
    assert_eq!(log(&server, "").await.len(), 2);
    reads(&server, 3).await;
    let kept: Vec<Value> = log(&server, "").await.iter().map(|row| row["served_at"].clone()).collect();
    assert_eq!(kept, [server.time(-2), server.time(-1), server.time(0)]);
    server.advance(3599);
    reads(&server, 1).await;
    assert_eq!(log(&server, "").await.len(), 2, "the two older ones are an hour old");
    // Many at one moment are read page by page.
    put(&server, json!(["product.price"]), json!({"sample_rate": 1})).await;
    for _ in 0..100 {
        server.read("product/1", "feature_service=ranking").await;
    }
    assert_eq!(log(&server, "").await.len(), 100);
    server.delete(RANKING).await.no_content();
    put(&server, json!(["product.price"]), json!({"sample_rate": 1})).await;
    assert_eq!(log(&server, "").await, Vec::<Value>::new());
}

async fn a_log_is_for_keys_that_may_read_all_of_it(on: On) {
    let keys = crate::access::document(&[
        ("all", json!({"scopes": ["read", "write", "admin"]})),
        ("users", json!({"scopes": ["read"], "entity_types": ["user"]})),
        ("writer", json!({"scopes": ["write"]})),
    ]);
    let server =
        on.server_with(|config| config.api_keys = Some(feature_store::config::Secret::new(keys))).await;
    let [all, users, writer] = ["all", "users", "writer"].map(|key| server.showing(key));
    all.write("product/1", json!({"price": 1.5})).await;
    all.write("user/1", json!({"age": 1})).await;
    put(&all, json!(["user.age", "product.price"]), json!({"sample_rate": 1})).await;
    batch(&all, json!({"user": ["1"], "product": ["1"]})).await;
    assert_eq!(log(&all, "").await.len(), 1);
    let path = format!("{RANKING}/serving-log");
    users.get(&path).await.problem(403, "forbidden");
    writer.get(&path).await.problem(403, "forbidden");
}

async fn a_share_of_the_reads_is_kept(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5})).await;
    put(&server, json!(["product.price"]), json!({"sample_rate": 0.5})).await;
    for _ in 0..200 {
        server.read("product/1", "feature_service=ranking").await;
    }
    let kept = log(&server, "").await.len();
    // Seven standard deviations.
    assert!((50..150).contains(&kept), "{kept} of 200");
}

/// Whoever stops a server in order loses nothing, and a store keeps its log.
async fn survives_a_restart(launch: Launch) {
    let server = launch.start().await;
    server.client.write("product/1", json!({"price": 1.5})).await;
    put(&server.client, json!(["product.price"]), json!({"sample_rate": 1})).await;
    for _ in 0..50 {
        server.client.read("product/1", "feature_service=ranking").await;
    }
    let mut server = server;
    server.terminate();
    server.ended().await;
    let server = launch.start().await;
    assert_eq!(log(&server.client, "").await.len(), 50);
}

#[tokio::test]
async fn a_log_survives_a_restart_embedded() {
    survives_a_restart(Launch::embedded()).await;
}

#[tokio::test]
async fn a_log_survives_a_restart_redis() {
    let redis = RedisServer::start(Durability::None);
    survives_a_restart(Launch::on_redis(&redis)).await;
}
