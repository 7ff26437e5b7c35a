//! What only the store on Redis promises: layout, expiry, outages, failover, clusters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_store::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use feature_store::domain::provenance::{Kind, Provenance, ProvenanceId};
use feature_store::domain::record::{
    Commit, Current, CurrentChange, EntityRecords, FeatureChange, Head, Record,
};
use feature_store::domain::time::Timestamp;
use feature_store::domain::value::{FeatureType, Value};
use feature_store::store::redis::{RedisConfig, RedisStore};
use feature_store::store::{CommitOutcome, Document, DocumentKind, Load, RegistryChange, Store, StoreError};

use crate::redis_process::{Durability, RedisCluster, RedisSentinels, RedisServer, eventually};

pub async fn connect(url: String) -> RedisStore {
    connect_with(RedisConfig { url, ..config() }).await
}

fn config() -> RedisConfig {
    RedisConfig { pool_size: 2, ..RedisConfig::default() }
}

async fn connect_with(config: RedisConfig) -> RedisStore {
    RedisStore::connect(config).await.unwrap()
}

pub fn product(id: &str) -> EntityKey {
    EntityKey::new(EntityType::parse("product").unwrap(), EntityId::parse(id).unwrap())
}

pub fn name(name: &str) -> FeatureName {
    FeatureName::parse(name).unwrap()
}

/// The server's clock in milliseconds, which is the one that keys expire by.
pub fn now(server: &RedisServer) -> i64 {
    let time = server.cli(&["TIME"]);
    time.lines().next().unwrap().parse::<i64>().unwrap() * 1000
}

pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

pub fn record(value: Option<Value>, version: u64, event: i64) -> Record {
    Record {
        value,
        event_timestamp: at(event),
        written_at: at(event),
        version,
        provenance: ProvenanceId(1),
        retraction: None,
    }
}

pub fn set(feature: &str, value: Value, version: u64, event: i64) -> FeatureChange {
    let record = record(Some(value), version, event);
    FeatureChange {
        feature: name(feature),
        current: CurrentChange::Set(Current { record, expires_at: None, first_version: 1 }),
        superseded: Vec::new(),
        rewrites_history: false,
        history_limit: 10,
        retain_until: None,
    }
}

pub fn commit(id: &str, expected: u64, changes: Vec<FeatureChange>) -> Commit {
    let head = |version| Head { version, created_at: at(1000) };
    Commit {
        entity: product(id),
        expected: (expected > 0).then(|| head(expected)),
        head: head(expected + 1),
        changes,
        retain_until: None,
    }
}

pub async fn commit_one(store: &RedisStore, commit: Commit) -> Result<CommitOutcome, StoreError> {
    store.commit(&[commit]).await.pop().unwrap()
}

pub async fn load(
    store: &RedisStore,
    id: &str,
    features: &[(&str, FeatureType)],
) -> Result<EntityRecords, StoreError> {
    let features: Vec<_> = features.iter().map(|(feature, kind)| (name(feature), *kind)).collect();
    let entity = product(id);
    let loads = [Load { entity: &entity, features: &features, history: true }];
    Ok(store.load(&loads).await?.pop().unwrap())
}

fn values(records: &EntityRecords) -> Vec<Option<Value>> {
    let value = |current: &Current| current.record.value.clone();
    records.features.iter().map(|feature| feature.current.as_ref().and_then(value)).collect()
}

async fn walk(store: &RedisStore, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let product = EntityType::parse("product").unwrap();
        let page = store.list(&product, cursor.as_deref(), limit).await.unwrap().unwrap();
        assert!(page.entity_ids.len() <= limit);
        ids.extend(page.entity_ids.iter().map(ToString::to_string));
        cursor = page.next_cursor;
        if cursor.is_none() {
            ids.sort();
            return ids;
        }
    }
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

const EMBEDDING: FeatureType = FeatureType::Embedding { dimension: 2 };

#[tokio::test]
async fn keys_lie_where_the_layout_says() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let long = Value::String("x".repeat(100).into());
    let numbers = Value::Embedding(vec![0.5, 1.5].into());
    let first = commit(
        "1",
        0,
        vec![
            set("price", Value::Float64(9.5), 1, 5000),
            set("name", Value::String("short".into()), 1, 5000),
            set("text", long.clone(), 1, 5000),
            set("vector", numbers.clone(), 1, 5000),
        ],
    );
    assert_eq!(commit_one(&store, first).await, Ok(CommitOutcome::Committed));
    let fields = |key: &str| {
        let text = server.cli(&["HKEYS", key]);
        sorted_lines(&text).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(fields("fs:{product:1}"), ["@", "name", "price"]);
    assert_eq!(fields("fs:{product:1}:large"), ["text", "vector"]);
    assert_eq!(server.cli(&["HGET", "fs:{product:1}", "@"]), "1:1000");
    assert_eq!(server.cli(&["OBJECT", "ENCODING", "fs:{product:1}"]), "listpack");

    // Values that move between the hashes leave nothing behind.
    let mut price = set("price", Value::Float64(10.5), 2, 6000);
    price.superseded.push(record(Some(Value::Float64(9.5)), 1, 5000));
    let second = commit(
        "1",
        1,
        vec![
            price,
            set("name", long.clone(), 2, 6000),
            set("text", Value::Null, 2, 6000),
            set("vector", Value::Null, 2, 6000),
        ],
    );
    assert_eq!(commit_one(&store, second).await, Ok(CommitOutcome::Committed));
    assert_eq!(fields("fs:{product:1}"), ["@", "price", "text", "vector"]);
    assert_eq!(fields("fs:{product:1}:large"), ["name"]);
    let members = server.cli(&["ZRANGE", "fs:{product:1}:v:price", "0", "-1", "WITHSCORES"]);
    assert_eq!(members.lines().last(), Some("5000000"));

    let features = [
        ("price", FeatureType::Float64),
        ("name", FeatureType::String),
        ("text", FeatureType::String),
        ("vector", EMBEDDING),
        ("none", FeatureType::Int64),
    ];
    let loaded = load(&store, "1", &features).await.unwrap();
    assert_eq!(loaded.head, Some(Head { version: 2, created_at: at(1000) }));
    let expected = [Some(Value::Float64(10.5)), Some(long), Some(Value::Null), Some(Value::Null), None];
    assert_eq!(values(&loaded), expected);
    let history = loaded.features[0].history.clone().unwrap();
    assert_eq!(history, [record(Some(Value::Float64(9.5)), 1, 5000)]);
    assert_eq!(loaded.features[4].history, Some(Vec::new()));

    assert_eq!(store.delete_entities(&[product("1"), product("2")]).await.unwrap(), [true, false]);
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn expiry_is_only_ever_lengthened() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let hour = now(&server) + 3_600_000;
    let day = now(&server) + 86_400_000;
    let expires = |key: &str| server.cli(&["PEXPIRETIME", key]).parse::<i64>().unwrap();
    let (main, large) = ("fs:{product:1}", "fs:{product:1}:large");
    let (price_history, text_history) = ("fs:{product:1}:v:price", "fs:{product:1}:v:text");
    let write = |version: u64, price: Option<i64>, text: Option<i64>, supersede: bool| {
        let text_value = Value::String("x".repeat(80).into());
        let mut changes = vec![
            set("price", Value::Int64(version as i64), version, 1000 * version as i64),
            set("text", text_value.clone(), version, 1000 * version as i64),
        ];
        if supersede {
            let (before, event) = (version - 1, 1000 * (version as i64 - 1));
            changes[0].superseded.push(record(Some(Value::Int64(before as i64)), before, event));
            changes[1].superseded.push(record(Some(text_value), before, event));
        }
        changes[0].retain_until = price.map(at);
        changes[1].retain_until = text.map(at);
        let latest = if price.is_none() || text.is_none() { None } else { price.max(text) };
        Commit { retain_until: latest.map(at), ..commit("1", version - 1, changes) }
    };
    let near = |key: &str, time: i64| {
        let is = expires(key);
        let room = (time - now(&server)) / 30;
        assert!((-2..=room).contains(&(is - time)), "{key} expires at {is}, not {time}");
    };

    assert_eq!(
        commit_one(&store, write(1, Some(hour), Some(day), false)).await,
        Ok(CommitOutcome::Committed)
    );
    near(main, day);
    near(large, day);
    assert_eq!(commit_one(&store, write(2, Some(hour), Some(day), true)).await, Ok(CommitOutcome::Committed));
    near(price_history, hour);
    near(text_history, day);
    // Shorter ones change nothing, longer ones reach a history that nothing is added to.
    assert_eq!(
        commit_one(&store, write(3, Some(day), Some(hour), false)).await,
        Ok(CommitOutcome::Committed)
    );
    for key in [main, large, price_history, text_history] {
        near(key, day);
    }
    assert_eq!(
        commit_one(&store, write(4, Some(hour), Some(hour), true)).await,
        Ok(CommitOutcome::Committed)
    );
    for key in [main, large, price_history, text_history] {
        near(key, day);
    }
    // For ever, and then never shorter.
    assert_eq!(commit_one(&store, write(5, None, Some(hour), false)).await, Ok(CommitOutcome::Committed));
    for key in [main, large, price_history] {
        assert_eq!(expires(key), -1, "{key}");
    }
    near(text_history, day);
    assert_eq!(
        commit_one(&store, write(6, Some(hour), Some(hour), true)).await,
        Ok(CommitOutcome::Committed)
    );
    for key in [main, large, price_history] {
        assert_eq!(expires(key), -1, "{key}");
    }

    // A large value that comes later shares the expiry that the entity has already.
    let only = |id: &str, expected, feature: FeatureChange, until| Commit {
        retain_until: Some(at(until)),
        ..commit(id, expected, vec![FeatureChange { retain_until: Some(at(until)), ..feature }])
    };
    let small = only("2", 0, set("price", Value::Int64(1), 1, 1000), day);
    assert_eq!(commit_one(&store, small).await, Ok(CommitOutcome::Committed));
    let big = only("2", 1, set("vector", Value::Embedding(vec![1.0].into()), 2, 1000), hour);
    assert_eq!(commit_one(&store, big).await, Ok(CommitOutcome::Committed));
    near("fs:{product:2}", day);
    near("fs:{product:2}:large", day);
}

#[tokio::test]
async fn history_is_cut_and_erased() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let write = |version: u64, limit: usize, superseded: &[u64]| {
        let mut change = set("price", Value::Int64(version as i64), version, 1000 * version as i64);
        change.history_limit = limit;
        let old =
            |version: &u64| record(Some(Value::Int64(*version as i64)), *version, 1000 * *version as i64);
        change.superseded = superseded.iter().map(old).collect();
        commit("1", version - 1, vec![change])
    };
    let kept = async || {
        let loaded = load(&store, "1", &[("price", FeatureType::Int64)]).await.unwrap();
        let history = loaded.features[0].history.clone().unwrap();
        history.iter().map(|record| record.version).collect::<Vec<_>>()
    };
    for version in 1..=5 {
        let superseded: Vec<u64> = (version > 1).then(|| version - 1).into_iter().collect();
        let outcome = commit_one(&store, write(version, 3, &superseded)).await;
        assert_eq!(outcome, Ok(CommitOutcome::Committed));
    }
    assert_eq!(kept().await, [4, 3, 2]);
    // A lower limit cuts what is there even where nothing is added.
    assert_eq!(commit_one(&store, write(6, 1, &[])).await, Ok(CommitOutcome::Committed));
    assert_eq!(kept().await, [4]);
    assert_eq!(commit_one(&store, write(7, 0, &[6])).await, Ok(CommitOutcome::Committed));
    assert_eq!(server.cli(&["EXISTS", "fs:{product:1}:v:price"]), "0");

    assert_eq!(commit_one(&store, write(8, 3, &[7])).await, Ok(CommitOutcome::Committed));
    let mut erase = set("price", Value::Null, 9, 9000);
    erase.current = CurrentChange::Erase;
    assert_eq!(commit_one(&store, commit("1", 8, vec![erase])).await, Ok(CommitOutcome::Committed));
    assert_eq!(server.cli(&["KEYS", "*"]), "fs:{product:1}");
    assert_eq!(server.cli(&["HKEYS", "fs:{product:1}"]), "@");
}

#[tokio::test]
async fn nobody_overwrites_what_they_did_not_see() {
    let server = RedisServer::start(Durability::None);
    let stores = [connect(server.url()).await, connect(server.url()).await];
    let stores = Arc::new(stores);
    let writers = (0..16).map(|writer| {
        let stores = Arc::clone(&stores);
        tokio::spawn(async move {
            let store = &stores[writer % 2];
            let mut conflicts = 0;
            for _ in 0..25 {
                loop {
                    let loaded = load(store, "1", &[("count", FeatureType::Int64)]).await.unwrap();
                    let version = loaded.head.map_or(0, |head| head.version);
                    let count = match values(&loaded)[0] {
                        Some(Value::Int64(count)) => count,
                        _ => 0,
                    };
                    let change = set("count", Value::Int64(count + 1), version + 1, 1000);
                    match commit_one(store, commit("1", version, vec![change])).await.unwrap() {
                        CommitOutcome::Committed => break,
                        CommitOutcome::Conflict => conflicts += 1,
                    }
                }
            }
            conflicts
        })
    });
    let mut conflicts = 0;
    for writer in futures::future::join_all(writers).await {
        conflicts += writer.unwrap();
    }
    let loaded = load(&stores[0], "1", &[("count", FeatureType::Int64)]).await.unwrap();
    assert_eq!(values(&loaded), [Some(Value::Int64(400))]);
    assert_eq!(loaded.head.unwrap().version, 400);
    assert!(conflicts > 0, "the writers never met");
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let price = |version| vec![set("price", Value::Int64(1), version, 1000)];
    for version in 0..3 {
        server.cli(&["SCRIPT", "FLUSH"]);
        let mut commits = vec![commit("1", version, price(version + 1))];
        commits.extend((10..20).map(|id| commit(&id.to_string(), version, price(version + 1))));
        // Of a conflict there is no more than one.
        commits.push(commit("30", 7, price(8)));
        let outcomes = store.commit(&commits).await;
        assert_eq!(outcomes.len(), commits.len());
        assert!(outcomes[..11].iter().all(|outcome| *outcome == Ok(CommitOutcome::Committed)));
        assert_eq!(outcomes[11], Ok(CommitOutcome::Conflict));
    }
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.delete_entities(&[product("1")]).await.unwrap(), [true]);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.registry().await.unwrap().revision, 0);
}

fn is_outage(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Interrupted(_))
}

async fn unavailable_quickly(store: &RedisStore) {
    // The first may still meet the dying connection.
    let _ = store.ping().await;
    for _ in 0..20 {
        let start = Instant::now();
        let failed = commit_one(store, commit("x", 0, vec![set("price", Value::Int64(1), 1, 1)])).await;
        assert!(failed.as_ref().is_err_and(is_outage), "{failed:?}");
        let failed = load(store, "x", &[("price", FeatureType::Int64)]).await;
        assert!(failed.as_ref().is_err_and(is_outage), "{failed:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "refused after {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn an_outage_is_told_quickly_and_ends_by_itself() {
    let mut server = RedisServer::start(Durability::Always);
    let store = connect(server.url()).await;
    let price = |version| vec![set("price", Value::Int64(version as i64), version, 1000)];
    for round in 0..3 {
        let outcome = commit_one(&store, commit("1", round, price(round + 1))).await;
        assert_eq!(outcome, Ok(CommitOutcome::Committed));
        server.kill();
        unavailable_quickly(&store).await;
        assert!(store.ping().await.is_err_and(|error| is_outage(&error)));
        server.restart();
        eventually("recovery", async || store.ping().await.ok()).await;
        let loaded = load(&store, "1", &[("price", FeatureType::Int64)]).await.unwrap();
        assert_eq!(values(&loaded), [Some(Value::Int64(round as i64 + 1))]);
    }
    let loaded = load(&store, "x", &[("price", FeatureType::Int64)]).await.unwrap();
    assert_eq!(loaded.head, None, "a commit that was refused was carried out later");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed_under_load() {
    let mut server = RedisServer::start(Durability::Always);
    let store = Arc::new(connect(server.url()).await);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = 0;
                loop {
                    let version = acknowledged + 1;
                    let change = set("count", Value::Int64(version as i64), version, 1000);
                    let id = format!("w{writer}");
                    match commit_one(&store, commit(&id, acknowledged, vec![change])).await {
                        Ok(CommitOutcome::Committed) => acknowledged = version,
                        Ok(CommitOutcome::Conflict) => panic!("nobody else writes here"),
                        Err(error) if is_outage(&error) || error == StoreError::Timeout => {
                            return acknowledged;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    eventually("some load", async || {
        let loaded = load(&store, "w0", &[]).await.unwrap();
        loaded.head.filter(|head| head.version > 50)
    })
    .await;
    server.kill();
    let acknowledged: Vec<u64> =
        futures::future::join_all(writers).await.into_iter().map(|writer| writer.unwrap()).collect();
    server.restart();
    eventually("recovery", async || store.ping().await.ok()).await;
    for (writer, acknowledged) in acknowledged.into_iter().enumerate() {
        let stored = load(&store, &format!("w{writer}"), &[]).await.unwrap().head.unwrap().version;
        assert!(stored == acknowledged || stored == acknowledged + 1, "{stored}, told {acknowledged}");
    }
}

#[tokio::test]
async fn a_store_starts_without_its_server() {
    let mut server = RedisServer::start(Durability::None);
    server.kill();
    let short = RedisConfig { url: server.url(), connect_timeout: Duration::from_millis(100), ..config() };
    let store = connect_with(short).await;
    unavailable_quickly(&store).await;
    server.restart();
    eventually("the first connection", async || store.ping().await.ok()).await;
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_frozen_server_times_out_and_thaws() {
    let server = RedisServer::start(Durability::None);
    let quick = RedisConfig { url: server.url(), command_timeout: Duration::from_millis(300), ..config() };
    let store = connect_with(quick).await;
    server.freeze();
    assert_eq!(store.ping().await, Err(StoreError::Timeout));
    eventually("the link to be given up", async || {
        store.ping().await.is_err_and(|error| is_outage(&error)).then_some(())
    })
    .await;
    server.thaw();
    eventually("recovery", async || store.ping().await.ok()).await;
}

#[tokio::test]
async fn passwords_are_used_and_never_shown() {
    let server = RedisServer::with_password("s3cret");
    let wrong = RedisConfig {
        url: server.url(),
        password: Some("wr0ng".to_owned()),
        connect_timeout: Duration::from_millis(200),
        ..config()
    };
    let refused = connect_with(wrong).await.ping().await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable(why) if why.contains("WRONGPASS")), "{refused}");
    assert!(!refused.to_string().contains("wr0ng"));
    let right = RedisConfig { url: server.url(), password: Some("s3cret".to_owned()), ..config() };
    connect_with(right).await.ping().await.unwrap();
    let in_url = format!("redis://:s3cret@{}", server.address());
    let store = connect(in_url).await;
    store.ping().await.unwrap();
    assert_eq!(store.describe().await.unwrap().location, server.url());
}

#[tokio::test]
async fn unreadable_data_is_named() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let price = [("price", FeatureType::Int64)];
    let write = || commit("1", 0, vec![set("price", Value::Int64(1), 1, 1000)]);
    let corrupt = |result: Result<EntityRecords, StoreError>| match result {
        Err(StoreError::Corrupt { key, field, .. }) => (key, field),
        other => panic!("{other:?}"),
    };
    let key = "fs:{product:1}";
    assert_eq!(commit_one(&store, write()).await, Ok(CommitOutcome::Committed));
    server.cli(&["HSET", key, "price", "nonsense"]);
    assert_eq!(corrupt(load(&store, "1", &price).await), (key.to_owned(), "price".to_owned()));
    server.cli(&["HSET", key, "@", "nonsense"]);
    assert_eq!(corrupt(load(&store, "1", &[]).await), (key.to_owned(), "@".to_owned()));
    server.cli(&["ZADD", "fs:{product:2}:v:price", "1", "nonsense"]);
    server.cli(&["HSET", "fs:{product:2}", "@", "1:1"]);
    let of_history = corrupt(load(&store, "2", &price).await);
    assert_eq!(of_history, ("fs:{product:2}:v:price".to_owned(), "price".to_owned()));
    server.cli(&["SET", "fs:{product:3}", "a string"]);
    assert_eq!(corrupt(load(&store, "3", &price).await).0, "fs:{product:3}");
    let refused = commit_one(&store, commit("3", 0, Vec::new())).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    // A history of another type refuses the whole commit, not half of it.
    assert_eq!(commit_one(&store, commit("4", 0, vec![])).await, Ok(CommitOutcome::Committed));
    server.cli(&["SET", "fs:{product:4}:v:price", "a string"]);
    let refused = commit_one(&store, commit("4", 1, vec![set("price", Value::Int64(1), 2, 1000)])).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert_eq!(server.cli(&["HGETALL", "fs:{product:4}"]), "@\n1:1000");
}

#[tokio::test]
async fn a_full_server_refuses_and_keeps_what_it_has() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let write = |expected, text: usize| {
        let mut change = set("text", Value::String("x".repeat(text).into()), expected + 1, 1000);
        change.superseded =
            if expected > 0 { vec![record(Some(Value::Null), expected, 500)] } else { Vec::new() };
        commit("1", expected, vec![change])
    };
    assert_eq!(commit_one(&store, write(0, 100)).await, Ok(CommitOutcome::Committed));
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = commit_one(&store, write(1, 10)).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("OOM")), "{refused:?}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let loaded = load(&store, "1", &[("text", FeatureType::String)]).await.unwrap();
    assert_eq!(loaded.head.unwrap().version, 1);
    assert_eq!(values(&loaded), [Some(Value::String("x".repeat(100).into()))]);
    assert_eq!(loaded.features[0].history, Some(Vec::new()));
    let description = store.describe().await.unwrap();
    assert_eq!(description.backend, "redis");
    assert_eq!(description.role.as_deref(), Some("master"));
    assert_eq!(description.max_bytes, None);
    assert_eq!(description.eviction_policy.as_deref(), Some("noeviction"));
    assert!(description.used_bytes > Some(100_000));
}

#[tokio::test]
async fn listing_pages_through_everything_once() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let mut ids: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    ids.extend(["a}:large", "}", "{b}", "c:v:price", "ключ", "*", "\\", "[a-z]"].map(str::to_owned));
    let long = || Value::String("x".repeat(100).into());
    let commits: Vec<_> = ids.iter().map(|id| commit(id, 0, vec![set("text", long(), 1, 1000)])).collect();
    assert!(store.commit(&commits).await.iter().all(|outcome| *outcome == Ok(CommitOutcome::Committed)));
    let other = |commit: Commit| Commit {
        entity: EntityKey::new(EntityType::parse("products").unwrap(), commit.entity.entity_id),
        ..commit
    };
    assert_eq!(commit_one(&store, other(commit("1", 0, Vec::new()))).await, Ok(CommitOutcome::Committed));
    ids.sort();
    for limit in [1, 7, 100, 100_000] {
        assert_eq!(walk(&store, limit).await, ids, "limit {limit}");
    }
    let product = EntityType::parse("product").unwrap();
    for bad in ["", "nonsense", "7b7d", "0"] {
        assert_eq!(store.list(&product, Some(bad), 10).await, Ok(None), "{bad}");
    }
    let none = EntityType::parse("nothing").unwrap();
    let page = store.list(&none, None, 10).await.unwrap().unwrap();
    assert!(page.entity_ids.is_empty());
}

#[tokio::test]
async fn a_walk_survives_a_restart() {
    let mut server = RedisServer::start(Durability::Always);
    let store = connect(server.url()).await;
    let ids: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let commits: Vec<_> = ids.iter().map(|id| commit(id, 0, Vec::new())).collect();
    store.commit(&commits).await;
    let product = EntityType::parse("product").unwrap();
    let first = store.list(&product, None, 50).await.unwrap().unwrap();
    server.restart();
    eventually("recovery", async || store.ping().await.ok()).await;
    let mut seen: Vec<String> = first.entity_ids.iter().map(ToString::to_string).collect();
    let mut cursor = first.next_cursor;
    while let Some(text) = cursor {
        let page = store.list(&product, Some(&text), 50).await.unwrap().unwrap();
        seen.extend(page.entity_ids.iter().map(ToString::to_string));
        cursor = page.next_cursor;
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ids);
}

fn provenance(source: &str) -> Provenance {
    let metadata = serde_json::json!({"b": {"y": 1, "x": 2}, "a": [1]});
    Provenance {
        kind: Kind::Write,
        source: Some(source.to_owned()),
        run_id: None,
        actor: None,
        metadata: metadata.as_object().unwrap().clone(),
        schema_version: 1,
        rollback: None,
    }
}

#[tokio::test]
async fn provenance_is_kept_once_and_long_enough() {
    let server = RedisServer::start(Durability::None);
    let (store, other) = (connect(server.url()).await, connect(server.url()).await);
    let day = now(&server) + 86_400_000;
    let first = store.intern(&provenance("a"), Some(at(day))).await.unwrap();
    let second = store.intern(&provenance("b"), None).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(other.intern(&provenance("a"), Some(at(day))).await, Ok(first));
    let commands = || {
        let info = server.cli(&["INFO", "commandstats"]);
        info.lines().filter(|line| line.starts_with("cmdstat_eval")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = commands();
    for _ in 0..10 {
        assert_eq!(store.intern(&provenance("a"), Some(at(day + 1000))).await, Ok(first));
        assert_eq!(store.intern(&provenance("b"), None).await, Ok(second));
    }
    assert_eq!(commands(), before, "what is known was asked for");

    let record_key = format!("fs:{{provenance}}:{}", first.0);
    let expires = |key: &str| server.cli(&["PEXPIRETIME", key]).parse::<i64>().unwrap();
    assert!(expires(&record_key) > day + 80_000_000);
    let year = day + 365 * 86_400_000;
    assert_eq!(other.intern(&provenance("a"), Some(at(year))).await, Ok(first));
    let longer = expires(&record_key);
    assert!(longer > year);
    assert_eq!(store.intern(&provenance("a"), Some(at(day + 2 * 86_400_000))).await, Ok(first));
    assert!(expires(&record_key) >= longer);
    assert_eq!(store.intern(&provenance("a"), None).await, Ok(first));
    assert_eq!(expires(&record_key), -1);
    assert_eq!(store.intern(&provenance("a"), Some(at(day))).await, Ok(first));
    assert_eq!(expires(&record_key), -1);

    let ids = [second, ProvenanceId(77), first, second];
    let expected = [Some(provenance("b")), None, Some(provenance("a")), Some(provenance("b"))];
    for store in [&store, &other, &store] {
        assert_eq!(store.provenance(&ids).await.unwrap(), expected);
    }
    // A record that is gone comes back under its id, an id that is gone is not given again.
    server.cli(&["DEL", &record_key]);
    let anew = connect(server.url()).await;
    assert_eq!(anew.intern(&provenance("a"), None).await, Ok(first));
    assert_eq!(anew.provenance(&[first]).await.unwrap(), [Some(provenance("a"))]);
    server.cli(&[
        "EVAL",
        "for _, k in ipairs(redis.call('KEYS', '*digest*')) do redis.call('DEL', k) end",
        "0",
    ]);
    let anew = connect(server.url()).await;
    let third = anew.intern(&provenance("a"), None).await.unwrap();
    assert!(third > second, "{third:?} was given before");
}

#[tokio::test]
async fn the_registry_changes_as_a_whole_or_not_at_all() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let document =
        |kind, name: &str| Document { kind, name: name.to_owned(), body: format!("{{\"{name}\":1}}") };
    let change = |expected_revision| RegistryChange {
        expected_revision,
        put: vec![
            document(DocumentKind::EntityType, "user"),
            document(DocumentKind::EntityType, "product"),
            document(DocumentKind::FeatureService, "ranking"),
        ],
        archive: vec![
            (EntityType::parse("product").unwrap(), 10, "ten".to_owned()),
            (EntityType::parse("product").unwrap(), 9, "nine".to_owned()),
        ],
        ..RegistryChange::default()
    };
    assert_eq!(store.registry_revision().await, Ok(0));
    assert_eq!(store.change_registry(&change(1)).await, Ok(None));
    assert_eq!(store.registry().await.unwrap().documents, []);
    assert_eq!(store.change_registry(&change(0)).await, Ok(Some(1)));
    assert_eq!(store.change_registry(&change(0)).await, Ok(None));
    let state = store.registry().await.unwrap();
    let names: Vec<_> = state.documents.iter().map(|document| document.name.as_str()).collect();
    assert_eq!((state.revision, names), (1, vec!["product", "user", "ranking"]));
    let product = EntityType::parse("product").unwrap();
    let archived = store.archive(&product).await.unwrap();
    assert_eq!(archived, [(9, "nine".to_owned()), (10, "ten".to_owned())]);
    let gone = RegistryChange {
        expected_revision: 1,
        delete: vec![(DocumentKind::EntityType, "product".to_owned())],
        drop_archive: vec![product.clone()],
        ..RegistryChange::default()
    };
    assert_eq!(store.change_registry(&gone).await, Ok(Some(2)));
    assert_eq!(store.registry_revision().await, Ok(2));
    assert_eq!(store.registry().await.unwrap().documents.len(), 2);
    assert_eq!(store.archive(&product).await, Ok(Vec::new()));
    assert!(walk(&store, 10).await.is_empty());
}

#[tokio::test]
async fn a_commit_counts_when_enough_replicas_have_it() {
    let server = RedisServer::start(Durability::None);
    let quick = RedisConfig {
        url: server.url(),
        wait_replicas: 1,
        command_timeout: Duration::from_millis(400),
        ..config()
    };
    let store = connect_with(quick).await;
    let price = |version| vec![set("price", Value::Int64(1), version, 1000)];
    let outcomes = store.commit(&[commit("1", 0, price(1)), commit("2", 5, price(6))]).await;
    assert!(matches!(&outcomes[0], Err(StoreError::Interrupted(why)) if why.contains("replicas")));
    assert_eq!(outcomes[1], Ok(CommitOutcome::Conflict));
    let replica = RedisServer::replica_of(&server);
    assert_eq!(commit_one(&store, commit("1", 1, price(2))).await, Ok(CommitOutcome::Committed));
    assert_eq!(replica.cli(&["HGET", "fs:{product:1}", "@"]), "2:1000");
}

/// As one that lay in a buffer while the entity was written again.
#[tokio::test]
async fn a_delete_that_comes_late_spares_what_was_written_since() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let price = |version| vec![set("price", Value::Int64(1), version, 1000)];
    assert_eq!(commit_one(&store, commit("1", 0, price(1))).await, Ok(CommitOutcome::Committed));
    assert_eq!(commit_one(&store, commit("1", 1, price(2))).await, Ok(CommitOutcome::Committed));
    let script = include_str!("../../src/store/redis/delete.lua");
    let late =
        |head: &str| server.cli(&["EVAL", script, "2", "fs:{product:1}", "fs:{product:1}:large", head]);
    for stale in ["1:1000", "2:999", ""] {
        assert_eq!(late(stale), "-1", "{stale:?}");
    }
    assert_eq!(load(&store, "1", &[]).await.unwrap().head.map(|head| head.version), Some(2));
    assert_eq!(late("2:1000"), "1");
    assert_eq!(late(""), "0");
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn a_failover_keeps_what_was_acknowledged() {
    let mut redis = RedisSentinels::start();
    let config = RedisConfig {
        url: redis.url(),
        wait_replicas: 1,
        command_timeout: Duration::from_millis(1000),
        ..config()
    };
    let store = connect_with(config).await;
    assert_eq!(store.describe().await.unwrap().backend, "redis-sentinel");
    let mut acknowledged = 0;
    while acknowledged < 50 {
        let change = vec![set("price", Value::Int64(acknowledged as i64), acknowledged + 1, 1000)];
        let outcome = commit_one(&store, commit("1", acknowledged, change)).await;
        assert_eq!(outcome, Ok(CommitOutcome::Committed));
        acknowledged += 1;
    }
    redis.servers[0].kill();
    let survivor = redis.servers[1].port;
    eventually("the failover", async || (redis.primary_port() == Some(survivor)).then_some(())).await;
    eventually("recovery", async || store.ping().await.ok()).await;
    let loaded = load(&store, "1", &[("price", FeatureType::Int64)]).await.unwrap();
    assert_eq!(loaded.head.unwrap().version, acknowledged);
    // Alone it cannot have the replicas that were asked for, and says so.
    let change = || vec![set("price", Value::Int64(1), 1, 1000)];
    let refused = commit_one(&store, commit("2", 0, change())).await;
    assert!(matches!(&refused, Err(StoreError::Interrupted(why)) if why.contains("replicas")), "{refused:?}");
    redis.servers[0].restart();
    // Until the old primary follows the new one, each commit is refused in the same way.
    let mut attempt = 3;
    eventually("a commit that the old primary has too", || {
        attempt += 1;
        let again = commit(&attempt.to_string(), 0, change());
        let store = &store;
        async move { (commit_one(store, again).await == Ok(CommitOutcome::Committed)).then_some(()) }
    })
    .await;
    let key = format!("fs:{{product:{attempt}}}");
    assert_eq!(redis.servers[0].cli(&["HGET", &key, "@"]), "1:1000");
}

#[tokio::test]
async fn a_cluster_is_used_as_a_whole() {
    let mut cluster = RedisCluster::start();
    let store = connect(cluster.url()).await;
    store.ping().await.unwrap();
    assert_eq!(store.describe().await.unwrap().backend, "redis-cluster");
    let ids: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
    let price = |version| vec![set("price", Value::Int64(1), version, 1000)];
    let commits: Vec<_> = ids.iter().map(|id| commit(id, 0, price(1))).collect();
    for outcome in store.commit(&commits).await {
        assert_eq!(outcome, Ok(CommitOutcome::Committed));
    }
    for node in &cluster.nodes {
        let keys: usize = node.cli(&["DBSIZE"]).parse().unwrap();
        assert!(keys > 50, "{keys} of 300 entities on one node");
        node.cli(&["SCRIPT", "FLUSH"]);
    }
    let again: Vec<_> = ids.iter().map(|id| commit(id, 1, price(2))).collect();
    for outcome in store.commit(&again).await {
        assert_eq!(outcome, Ok(CommitOutcome::Committed));
    }
    for limit in [7, 1000] {
        assert_eq!(walk(&store, limit).await, ids);
    }
    let entities: Vec<EntityKey> = ids.iter().map(|id| product(id)).collect();
    let features = [(name("price"), FeatureType::Int64)];
    let loads: Vec<_> =
        entities.iter().map(|entity| Load { entity, features: &features, history: true }).collect();
    let loaded = store.load(&loads).await.unwrap();
    assert!(loaded.iter().all(|records| records.head.unwrap().version == 2));
    let id = store.intern(&provenance("a"), None).await.unwrap();
    assert_eq!(store.provenance(&[id]).await.unwrap(), [Some(provenance("a"))]);
    assert_eq!(store.registry().await.unwrap().revision, 0);
    assert_eq!(store.delete_entities(&entities[..250]).await.unwrap(), vec![true; 250]);
    assert_eq!(walk(&store, 1000).await, ids[250..]);

    // A slot that moves is followed.
    let slot = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", "fs:{product:moved}"]);
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.cli(&["CLUSTER", "MYID"])).collect();
    for owner in [0, 1, 2] {
        for node in &cluster.nodes {
            node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[owner]]);
        }
        let outcome = commit_one(&store, commit("moved", 0, price(1))).await;
        assert_eq!(outcome, Ok(CommitOutcome::Committed), "owner {owner}");
        assert_eq!(store.delete_entities(&[product("moved")]).await, Ok(vec![true]));
    }

    // One node less is an outage, told and over as soon as it is back.
    cluster.nodes[2].kill();
    eventually("the outage to be told", async || store.ping().await.err()).await;
    cluster.nodes[2].restart();
    eventually("recovery", async || store.ping().await.ok()).await;
    eventually("a commit", async || {
        let outcome = commit_one(&store, commit("after", 0, price(1))).await;
        matches!(outcome, Ok(CommitOutcome::Committed)).then_some(())
    })
    .await;
}

/// Bytes an entity of ten scalars with names of 15 bytes, against the same values as plain text.
#[tokio::test]
#[ignore = "measures, asserts nothing"]
async fn measure_memory_and_writes() {
    const ENTITIES: u64 = 20_000;
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let used = || {
        let info = server.cli(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse::<i64>().unwrap()
    };
    let start = now(&server);
    let features: Vec<String> = (0..10).map(|n| format!("feature_name_{n:02}")).collect();
    let value = |entity: u64, n: u64| match n % 3 {
        0 => Value::Int64((entity * 7 + n) as i64),
        1 => Value::Float64((entity * 7 + n) as f64 / 100.0),
        _ => Value::Boolean((entity + n).is_multiple_of(2)),
    };
    let until = at(start + 86_400_000 * 7);
    let empty = used();
    for expiring in [false, true] {
        let before = used();
        let clock = Instant::now();
        let ids: Vec<String> = (0..ENTITIES).map(|n| format!("{expiring}{n:07}")).collect();
        for batch in ids.chunks(500) {
            let commits: Vec<Commit> = batch
                .iter()
                .enumerate()
                .map(|(entity, id)| {
                    let changes = features.iter().enumerate().map(|(n, feature)| {
                        let mut change = set(feature, value(entity as u64, n as u64), 1, start);
                        if let CurrentChange::Set(current) = &mut change.current {
                            current.expires_at = expiring.then(|| at(start + 3_600_000));
                        }
                        change
                    });
                    Commit { retain_until: expiring.then_some(until), ..commit(id, 0, changes.collect()) }
                })
                .collect();
            assert!(store.commit(&commits).await.iter().all(|o| *o == Ok(CommitOutcome::Committed)));
        }
        let seconds = clock.elapsed().as_secs_f64();
        let bytes = (used() - before) as f64 / ENTITIES as f64;
        println!(
            "expiring: {expiring}: {bytes:.0} bytes an entity; {:.0} commits/s in batches of 500",
            ENTITIES as f64 / seconds
        );
    }
    println!("(empty server: {empty})");
    let before = used();
    let script = "for e = 0, ARGV[1] - 1 do local a = {} for n = 0, 9 do a[#a+1] = string.format('feature_name_%02d', n) \
                  local v = e % 500 * 7 + n if n % 3 == 0 then a[#a+1] = string.format('%d', v) elseif n % 3 == 1 then \
                  a[#a+1] = string.format('%.2f', v / 100) else a[#a+1] = (e + n) % 2 == 0 and 'true' or 'false' end end \
                  redis.call('HSET', string.format('fs:{product:plain%05d}', e), unpack(a)) end";
    server.cli(&["EVAL", script, "0", &ENTITIES.to_string()]);
    println!("plain text: {:.0} bytes an entity", (used() - before) as f64 / ENTITIES as f64);

    let store = Arc::new(store);
    let clock = Instant::now();
    let tasks = (0..64u64).map(|task| {
        let (store, features) = (Arc::clone(&store), features.clone());
        tokio::spawn(async move {
            let wanted: Vec<_> =
                features.iter().map(|feature| (name(feature), FeatureType::Float64)).collect();
            for n in 0..500 {
                let entity = product(&format!("false{:07}", task * 300 + n % 300));
                let loads = [Load { entity: &entity, features: &wanted, history: false }];
                assert!(store.load(&loads).await.unwrap()[0].head.is_some());
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    println!("single loads of 10: {:.0}/s", 64.0 * 500.0 / clock.elapsed().as_secs_f64());
}

/// How often the server was asked for some fields of a hash, and for all of them.
fn asked(server: &RedisServer) -> [u64; 2] {
    server.calls(["hmget", "hgetall"])
}

#[tokio::test]
async fn most_of_an_entity_is_asked_for_as_all_of_it() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    let value = |number: usize| match number {
        // In the large hash, and in the main one.
        0 => Value::String("x".repeat(100).into()),
        1 => Value::String("short".into()),
        number => Value::Int64(number as i64),
    };
    let kind = |number: usize| if number < 2 { FeatureType::String } else { FeatureType::Int64 };
    let changes = names.iter().enumerate().map(|(number, name)| set(name, value(number), 1, 1000));
    assert_eq!(commit_one(&store, commit("1", 0, changes.collect())).await, Ok(CommitOutcome::Committed));
    let read = async |numbers: &[usize]| {
        let features: Vec<_> = numbers.iter().map(|number| (name(&names[*number]), kind(*number))).collect();
        let (one, nobody) = (product("1"), product("nobody"));
        let load = |entity| Load { entity, features: &features, history: false };
        let loaded = store.load(&[load(&one), load(&nobody)]).await.unwrap();
        assert_eq!(loaded[0].head, Some(Head { version: 1, created_at: at(1000) }));
        let expected: Vec<_> = numbers.iter().map(|number| Some(value(*number))).collect();
        assert_eq!(values(&loaded[0]), expected);
        assert_eq!(loaded[1].head, None);
        assert_eq!(values(&loaded[1]), vec![None; numbers.len()]);
    };
    // Nothing is known yet of how much there is.
    read(&[7, 3, 5]).await;
    assert_eq!(asked(&server), [0, 2]);
    // Now it is.
    read(&[7, 3, 5]).await;
    assert_eq!(asked(&server), [2, 2]);
    read(&[19, 18, 17, 16, 15, 14, 13, 12, 11, 2]).await;
    assert_eq!(asked(&server), [2, 4]);
    // The large hash is never asked for all of it.
    read(&(0..20).rev().collect::<Vec<_>>()).await;
    assert_eq!(asked(&server), [4, 6]);
    read(&[0]).await;
    assert_eq!(asked(&server), [8, 6]);
}
