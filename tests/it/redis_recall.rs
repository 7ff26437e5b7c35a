//! A server remembers what it wrote last and decides the next write on that; what another server did
//! meanwhile counts all the same.

use serde_json::{Value, json};

use crate::client::Client;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;

/// How often an entity was loaded.
fn loads(redis: &RedisServer) -> u64 {
    let info = redis.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| -> Option<u64> {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        if !["hmget", "hgetall"].contains(&command) {
            return None;
        }
        rest.split(',').next()?.parse().ok()
    };
    info.lines().filter_map(calls).sum()
}

async fn value_at(client: &Client, version: u64) -> Value {
    client.read("product/1", &format!("names=n&version={version}")).await["features"]["n"].clone()
}

#[tokio::test]
async fn a_server_that_writes_alone_loads_nothing() {
    let redis = RedisServer::start(Durability::None);
    let server = Launch::on_redis(&redis).start().await;
    server.client.write("product/1", json!({"a": 0, "b": 0})).await;
    let before = loads(&redis);
    for number in 1..=50 {
        let written = server.client.write("product/1", json!({"a": number, "b": -number})).await;
        assert_eq!(written["version"], number + 1);
    }
    let rows: Vec<Value> = (0..20)
        .map(|number| json!({"entity_id": "1", "features": {"a": 100 + number, "b": number}}))
        .collect();
    let batch = json!({"entity_type": "product", "rows": rows});
    server.client.post("/v1/features/write", &batch).await.ok();
    // The registry is looked after meanwhile.
    assert!(loads(&redis) - before < 10, "{} loads", loads(&redis) - before);
    let read = server.client.read("product/1", "names=a,b").await;
    assert_eq!(read["features"], json!({"a": 119, "b": 19}));
    assert_eq!(read["version"], 71);
}

#[tokio::test]
async fn what_another_server_wrote_is_not_overlooked() {
    let redis = RedisServer::start(Durability::None);
    let launch = Launch::on_redis(&redis);
    let (one, other) = (launch.start().await, launch.start().await);
    one.client.write("product/1", json!({"n": 1, "m": 1})).await;
    for step in 0..5 {
        let version = 3 * step + 2;
        let written = other.client.write("product/1", json!({"n": 10 * version})).await;
        assert_eq!(written["version"], version);
        let written = one.client.write("product/1", json!({"n": 10 * (version + 1)})).await;
        assert_eq!(written["version"], version + 1);
        let batch = json!({"entity_type": "product", "rows": [{"entity_id": "1", "features": {"n": 10 * (version + 2)}}]});
        other.client.post("/v1/features/write", &batch).await.ok();
        for version in version..=version + 2 {
            assert_eq!(value_at(&one.client, version).await, 10 * version);
        }
    }
    assert_eq!(one.client.read("product/1", "names=m").await["features"]["m"], 1);
}

#[tokio::test]
async fn nothing_is_answered_from_memory() {
    let redis = RedisServer::start(Durability::None);
    let launch = Launch::on_redis(&redis);
    let (one, other) = (launch.start().await, launch.start().await);
    let at = "2026-01-01T00:00:00Z";
    let body = json!({"features": {"n": 1, "m": 2}, "event_timestamp": at});
    let rows = json!({"entity_type": "product", "rows": [{"entity_id": "1", "features": {"n": 1, "m": 2}, "event_timestamp": at}]});
    let if_match = |version: &str| {
        let request = one.client.request(reqwest::Method::POST, "/v1/entities/product/1/features");
        request.header("if-match", format!("\"{version}\"")).json(&json!({"features": {"n": 7}}))
    };
    for _ in 0..2 {
        // Not "unchanged", for it is there no more.
        assert_eq!(one.client.post_features("product/1", &body).await.ok()["outcomes"]["n"], "applied");
        assert_eq!(one.client.post_features("product/1", &body).await.ok()["outcomes"]["n"], "unchanged");
        other.client.delete("/v1/entities/product/1").await.no_content();
        let results = one.client.post("/v1/features/write", &rows).await.ok();
        assert_eq!(results["results"][0]["outcomes"]["n"], "applied", "{results}");
        other.client.write("product/1", json!({"n": 5})).await;
        // Version 1 is what this server remembers.
        let refused = one.client.send(if_match("1")).await.problem(412, "version_conflict");
        assert_eq!(refused["current_version"], 2);
        assert_eq!(one.client.send(if_match("2")).await.ok()["version"], 3);
        other.client.delete("/v1/entities/product/1").await.no_content();
    }
}

#[tokio::test]
async fn a_batch_that_fails_half_way_says_which_rows_are_stored() {
    let redis = RedisServer::start(Durability::None);
    let launch = Launch::on_redis(&redis);
    let (one, other) = (launch.start().await, launch.start().await);
    let rows = |ids: &[&str], n: u64| {
        let rows: Vec<Value> =
            ids.iter().map(|id| json!({"entity_id": id, "features": {"n": n, "m": n}})).collect();
        json!({"entity_type": "product", "rows": rows})
    };
    one.client.post("/v1/features/write", &rows(&["a", "b"], 1)).await.ok();
    other.client.post("/v1/features/write", &rows(&["b"], 2)).await.ok();
    // Nobody may load any more. Of `a` nothing has to be loaded; of `b`, this is found out at the commit.
    redis.cli(&["ACL", "SETUSER", "default", "-hmget", "-hgetall"]);
    let answer = one.client.post("/v1/features/write", &rows(&["a", "b"], 3)).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(1), &json!(1)), "{answer}");
    assert_eq!(answer["results"][0]["version"], 2);
    assert_eq!(answer["results"][1]["error"]["code"], "store_unavailable", "{answer}");
    // Where nothing is stored, the failure is the answer.
    one.client.post("/v1/features/write", &rows(&["b"], 4)).await.problem(503, "store_unavailable");
    redis.cli(&["ACL", "SETUSER", "default", "+@all"]);
    eventually("the server to see that", || async {
        (one.client.get_features("product/a", "names=n").await.status == 200).then_some(())
    })
    .await;
    for (entity, version, n) in [("product/a", 2, 3), ("product/b", 2, 2)] {
        let read = one.client.read(entity, "names=n").await;
        assert_eq!((&read["version"], &read["features"]["n"]), (&json!(version), &json!(n)));
    }
    let answer = one.client.post("/v1/features/write", &rows(&["b"], 4)).await.ok();
    assert_eq!(answer["results"][0]["version"], 3);
}
