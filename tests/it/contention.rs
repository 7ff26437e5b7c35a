//! Many writers at once: nobody's version is lost or given twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;
use crate::test_server::{On, TestServer};

const WRITERS: usize = 16;
const WRITES: usize = 12;

/// Lets 16 writers write one entity, spread over these servers, and checks what became of it.
async fn contend(servers: &[Client]) {
    let schema = json!({"max_versions": 1000, "features": {"n": {"type": "int64"}}});
    servers[0].declare("counter", schema).await;
    let writers = (0..WRITERS).map(|writer| {
        let client = servers[writer % servers.len()].clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for write in 0..WRITES {
                let value = (writer * WRITES + write) as u64;
                let written = client.write("counter/1", json!({ "n": value })).await;
                acknowledged.push((written["version"].as_u64().expect("a version"), value));
            }
            acknowledged
        })
    });
    let mut acknowledged = BTreeMap::new();
    for writer in writers.collect::<Vec<_>>() {
        for (version, value) in writer.await.expect("a writer finishes") {
            let other = acknowledged.insert(version, value);
            assert_eq!(other, None, "version {version} was given twice");
        }
    }
    let count = (WRITERS * WRITES) as u64;
    assert!(acknowledged.keys().copied().eq(1..=count), "{:?}", acknowledged.keys());
    for server in servers {
        let answer = server.get("/v1/entities/counter/1/versions?limit=1000").await.ok();
        assert_eq!(answer["current_version"], count);
        let versions = answer["versions"].as_array().expect("a list of versions");
        let kept: BTreeMap<u64, u64> = versions
            .iter()
            .filter_map(|version| Some((version["version"].as_u64()?, version["features"]["n"].as_u64()?)))
            .collect();
        assert_eq!(kept, acknowledged, "each version holds what its writer wrote");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_in_one_process_embedded() {
    contend(&[On::Embedded.server().await.client.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_in_one_process_on_redis() {
    let server = On::Redis.server().await;
    contend(std::slice::from_ref(&server.client)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_in_two_processes() {
    let redis = RedisServer::start(Durability::None);
    let launches = [Launch::on_redis(&redis), Launch::on_redis(&redis)];
    let (one, other) = tokio::join!(launches[0].start(), launches[1].start());
    contend(&[one.client.clone(), other.client.clone()]).await;
}

/// Lets 8 writers write batches of the same entities, and single ones of them in between.
async fn contend_in_batches(servers: &[Client], entity_type: &'static str) {
    let schema = json!({"max_versions": 1000, "features": {"n": {"type": "int64"}}});
    servers[0].declare(entity_type, schema).await;
    let writers = (0..8_u64).map(|writer| {
        let client = servers[writer as usize % servers.len()].clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for write in 0..5 {
                let rows = (0..10)
                    .map(|id| json!({"entity_id": id.to_string(), "features": {"n": writer * 100 + write}}));
                let body = json!({"entity_type": entity_type, "rows": rows.collect::<Vec<_>>()});
                let answer = client.post("/v1/features/write", &body).await.ok();
                assert_eq!(answer["written"], 10, "{answer}");
                let results = answer["results"].as_array().expect("a list of results").clone();
                acknowledged.extend(results.into_iter().map(|result| {
                    let id = result["entity_id"].as_str().expect("an id").to_owned();
                    (id, result["version"].as_u64().expect("a version"))
                }));
                let id = (writer * 5 + write) % 10;
                let entity = format!("{entity_type}/{id}");
                let written = client.write(&entity, json!({"n": 1000 + writer * 100 + write})).await;
                acknowledged.push((id.to_string(), written["version"].as_u64().expect("a version")));
            }
            acknowledged
        })
    });
    let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for writer in writers.collect::<Vec<_>>() {
        for (id, version) in writer.await.expect("a writer finishes") {
            versions.entry(id).or_default().push(version);
        }
    }
    assert_eq!(versions.len(), 10);
    for (id, mut given) in versions {
        given.sort_unstable();
        assert!(given.iter().copied().eq(1..=44), "{id}: {given:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_the_same_entities_lose_nothing() {
    let redis = RedisServer::start(Durability::None);
    let launches = [Launch::on_redis(&redis), Launch::on_redis(&redis)];
    let (one, other) = tokio::join!(launches[0].start(), launches[1].start());
    contend_in_batches(&[one.client.clone(), other.client.clone()], "counter").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_one_process_wait_for_each_other_instead_of_colliding() {
    for on in [On::Embedded, On::Redis] {
        let server = on.server().await;
        let conflicts = async || {
            let text = server.get("/metrics").await.text();
            let line =
                text.lines().find_map(|line| line.strip_prefix("feature_store_commit_conflicts_total "));
            line.and_then(|count| count.trim().parse::<u64>().ok()).expect("the metric")
        };
        // They do not wait while the store is slow, as it may be on a busy machine: one round in which it was
        // not is enough. Batches that collide do so dozens of times in each.
        let mut seen = Vec::new();
        for entity_type in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let before = conflicts().await;
            contend_in_batches(std::slice::from_ref(&server.client), entity_type).await;
            seen.push(conflicts().await - before);
            if seen.ends_with(&[0]) {
                break;
            }
        }
        assert!(seen.ends_with(&[0]), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_register_features_of_one_type_at_once() {
    let redis = RedisServer::start(Durability::None);
    let launches = [Launch::on_redis(&redis), Launch::on_redis(&redis)];
    let (one, other) = tokio::join!(launches[0].start(), launches[1].start());
    let writers = (0..16).map(|writer| {
        let client = if writer % 2 == 0 { one.client.clone() } else { other.client.clone() };
        tokio::spawn(async move {
            let name = format!("f{writer}");
            client
                .write(
                    &format!("product/{writer}"),
                    json!({ name: writer, "shared": f64::from(writer) + 0.5 }),
                )
                .await
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer finishes");
    }
    for client in [&one.client, &other.client] {
        let schema = client.get("/v1/entity-types/product").await.ok();
        assert_eq!(schema["features"].as_object().map(serde_json::Map::len), Some(17), "{schema}");
        let versions = client.get("/v1/entity-types/product/schema-versions").await.ok();
        let versions = versions["schema_versions"].as_array().expect("a list").clone();
        let numbers = versions.iter().map(|version| version["schema_version"].as_u64().unwrap_or_default());
        assert!(numbers.eq(1..=schema["schema_version"].as_u64().expect("a version")), "{versions:?}");
        for writer in 0..16 {
            let read = client.read(&format!("product/{writer}"), &format!("names=f{writer},shared")).await;
            assert_eq!(
                read["features"],
                json!({format!("f{writer}"): writer, "shared": f64::from(writer) + 0.5})
            );
        }
    }
}

#[tokio::test]
async fn the_other_process_sees_a_registry_change_within_a_second() {
    let redis = RedisServer::start(Durability::None);
    let server = async || {
        let mut config = feature_store::config::Config::default();
        crate::test_server::on_redis(&mut config, &redis);
        let server = TestServer::start(config).await;
        server.ready().await;
        server
    };
    let (one, other) = (server().await, server().await);
    one.declare("product", json!({"features": {"stock": {"type": "int64"}, "name": {"type": "string"}}}))
        .await;
    one.write("product/1", json!({"name": "a"})).await;
    let stock = async |server: &TestServer| {
        server.read("product/1", "names=stock").await["features"]["stock"].clone()
    };
    // An unknown type or feature is looked for at once; this one the other knows from then on.
    assert_eq!(stock(&other).await, Value::Null);
    let schema = json!({"features": {"stock": {"type": "int64", "default": 3}, "name": {"type": "string"}}});
    one.put("/v1/entity-types/product", &schema).await.ok();
    let changed = Instant::now();
    assert_eq!(stock(&one).await, 3, "at once where it was made");
    eventually("the change to be seen", || async { (stock(&other).await == 3).then_some(()) }).await;
    // A second between two looks, and some air for a machine that is busy with other tests.
    assert!(changed.elapsed() < Duration::from_secs(5), "{:?}", changed.elapsed());
    one.put("/v1/entity-types/user", &json!({"features": {"age": {"type": "int64"}}})).await.status(201);
    other.get("/v1/entities/user").await.ok();
    one.put("/v1/feature-services/ranking", &json!({"features": ["user.age"]})).await.status(201);
    other.get("/v1/feature-services/ranking").await.ok();
}
