//! Histories on Redis: rows of what was superseded together, and sorted sets of everything else.

use feature_store::domain::record::{Commit, CurrentChange, FeatureChange};
use feature_store::domain::value::{FeatureType, Value};
use feature_store::store::redis::RedisStore;
use feature_store::store::{CommitOutcome, Store, StoreError};

use crate::redis_process::{Durability, RedisServer};
use crate::redis_store::{at, commit, commit_one, connect, load, now, product, record, set};

const ROWS: &str = "fs:{product:1}:v";
const FEATURES: [(&str, FeatureType); 2] = [("a", FeatureType::Int64), ("b", FeatureType::Int64)];
const LIMIT: usize = 3;

/// A value of version `version`, whose event takes place then, and the one before superseded.
fn superseding(feature: &str, version: u64) -> FeatureChange {
    let event = 1000 * version as i64;
    let mut change = set(feature, Value::Int64(version as i64), version, event);
    if version > 1 {
        let before = Value::Int64(version as i64 - 1);
        change.superseded.push(record(Some(before), version - 1, event - 1000));
    }
    change.history_limit = LIMIT;
    change
}

fn both(version: u64) -> Commit {
    commit("1", version - 1, vec![superseding("b", version), superseding("a", version)])
}

async fn carried_out(store: &RedisStore, commit: Commit) {
    assert_eq!(commit_one(store, commit).await, Ok(CommitOutcome::Committed));
}

/// The versions in the histories of both features.
async fn kept(store: &RedisStore) -> [Vec<u64>; 2] {
    let loaded = load(store, "1", &FEATURES).await.unwrap();
    let versions = |at: usize| {
        let history = loaded.features[at].history.as_ref().unwrap();
        history.iter().map(|record| record.version).collect()
    };
    [versions(0), versions(1)]
}

fn columns(server: &RedisServer) -> String {
    server.cli(&["LINDEX", ROWS, "0"])
}

fn sorted_sets(server: &RedisServer) -> String {
    server.cli(&["EXISTS", "fs:{product:1}:v:a", "fs:{product:1}:v:b"])
}

#[tokio::test]
async fn what_is_superseded_together_is_a_row() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    for version in 1..=6 {
        carried_out(&store, both(version)).await;
    }
    assert_eq!(columns(&server), "a:3,b:3,");
    assert_eq!(server.cli(&["LLEN", ROWS]), "4");
    assert_eq!(sorted_sets(&server), "0");
    assert_eq!(kept(&store).await, [[5, 4, 3], [5, 4, 3]]);

    // A late event has no place among rows.
    let mut late = superseding("a", 7);
    late.current = CurrentChange::Keep;
    late.superseded = vec![record(Some(Value::Int64(70)), 7, 3500)];
    carried_out(&store, commit("1", 6, vec![late])).await;
    assert_eq!(server.cli(&["EXISTS", ROWS]), "0");
    assert_eq!(sorted_sets(&server), "2");
    assert_eq!(kept(&store).await, [vec![5, 4, 7], vec![5, 4, 3]]);

    // New rows stand before what is in the sorted sets, until those have nothing left to say.
    for (version, a, b) in [(8, [7, 5, 4], [7, 5, 4]), (9, [8, 7, 5], [8, 7, 5])] {
        carried_out(&store, both(version)).await;
        assert_eq!(kept(&store).await, [a, b]);
        assert_eq!(columns(&server), "+a:3,b:3,");
    }
    carried_out(&store, both(10)).await;
    assert_eq!(kept(&store).await, [[9, 8, 7], [9, 8, 7]]);
    assert_eq!((columns(&server).as_str(), sorted_sets(&server).as_str()), ("a:3,b:3,", "0"));

    // One feature by itself, and another limit.
    carried_out(&store, commit("1", 10, vec![superseding("b", 11)])).await;
    assert_eq!(kept(&store).await, [[9, 8, 7], [10, 9, 8]]);
    let mut narrow = both(12);
    narrow.changes.iter_mut().for_each(|change| change.history_limit = 1);
    carried_out(&store, narrow).await;
    assert_eq!(kept(&store).await, [[11], [11]]);
    carried_out(&store, both(13)).await;
    assert_eq!(kept(&store).await, [[12, 11], [12, 11]]);

    // Nothing of an erased feature is left, and nothing of a deleted entity.
    let mut erase = set("a", Value::Null, 14, 14_000);
    erase.current = CurrentChange::Erase;
    carried_out(&store, commit("1", 13, vec![erase])).await;
    assert_eq!(kept(&store).await, [vec![], vec![12, 11]]);
    carried_out(&store, both(15)).await;
    carried_out(&store, both(16)).await;
    assert_eq!(server.cli(&["EXISTS", ROWS]), "1");
    assert_eq!(store.delete_entities(&[product("1")]).await.unwrap(), [true]);
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn a_write_like_the_last_one_only_adds_a_row() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    // With a feature of either hash.
    let write = |version: u64, text: &str| {
        let mut commit = both(version);
        let mut change = set("t", Value::String(text.into()), version, 1000 * version as i64);
        if version > 1 {
            change.superseded.push(record(
                Some(Value::String("x".into())),
                version - 1,
                1000 * version as i64 - 1000,
            ));
        }
        change.history_limit = LIMIT;
        commit.changes.push(change);
        commit
    };
    for version in 1..=3 {
        carried_out(&store, write(version, "x")).await;
    }
    server.cli(&["CONFIG", "RESETSTAT"]);
    for version in 4..=6 {
        carried_out(&store, write(version, "x")).await;
    }
    assert_eq!(server.calls(["hset", "rpushx", "hget"]), [3; 3]);
    assert_eq!(server.calls(["lindex", "pttl", "hlen", "rpush"]), [0; 4]);
    assert_eq!(kept(&store).await, [[5, 4, 3], [5, 4, 3]]);

    // A long text has a hash of its own, which is not forgotten afterwards.
    let long = "x".repeat(100);
    carried_out(&store, write(7, &long)).await;
    assert_eq!(server.cli(&["HLEN", "fs:{product:1}:large"]), "1");
    carried_out(&store, write(8, "x")).await;
    assert_eq!(server.cli(&["EXISTS", "fs:{product:1}:large"]), "0");
    assert_eq!(kept(&store).await, [[7, 6, 5], [7, 6, 5]]);

    // Rows that were evicted begin anew.
    server.cli(&["DEL", ROWS]);
    carried_out(&store, write(9, "x")).await;
    carried_out(&store, write(10, "x")).await;
    assert_eq!(kept(&store).await, [[9, 8], [9, 8]]);
    assert_eq!(columns(&server), "a:3,b:3,t:3,");

    // An event before the newest row is none that follows it.
    let mut early = write(11, "x");
    for change in &mut early.changes {
        change.superseded[0].event_timestamp = at(8500);
    }
    carried_out(&store, early).await;
    assert_eq!(kept(&store).await, [[9, 10, 8], [9, 10, 8]]);
    assert_eq!(server.cli(&["EXISTS", ROWS]), "0");
}

#[tokio::test]
async fn several_writes_in_one_commit_are_as_many_rows() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    carried_out(&store, both(1)).await;
    let mut twice = both(2);
    for change in &mut twice.changes {
        let value = Some(Value::Int64(20));
        change.superseded.insert(0, record(value, 2, 1500));
    }
    carried_out(&store, twice).await;
    assert_eq!(server.cli(&["LLEN", ROWS]), "3");
    assert_eq!(kept(&store).await, [[2, 1], [2, 1]]);
    let mut twice = commit("1", 2, vec![superseding("a", 4), superseding("b", 4)]);
    for change in &mut twice.changes {
        change.superseded.insert(0, record(Some(Value::Int64(40)), 4, 3500));
    }
    carried_out(&store, twice).await;
    assert_eq!(server.cli(&["LLEN", ROWS]), "4");
    assert_eq!(kept(&store).await, [[4, 3, 2], [4, 3, 2]]);
    assert_eq!(sorted_sets(&server), "0");
}

#[tokio::test]
async fn rows_live_as_long_as_their_entity() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    let hour = now(&server) + 3_600_000;
    let keep = |until: i64, mut commit: Commit| {
        commit.retain_until = Some(at(until));
        commit.changes.iter_mut().for_each(|change| change.retain_until = Some(at(until)));
        commit
    };
    let near = |key: &str, time: i64| {
        let is = server.cli(&["PEXPIRETIME", key]).parse::<i64>().unwrap();
        let room = (time - now(&server)) / 30;
        assert!((-2..=room).contains(&(is - time)), "{key} expires at {is}, not {time}");
    };
    carried_out(&store, keep(hour, both(1))).await;
    carried_out(&store, keep(hour, both(2))).await;
    near(ROWS, hour);
    carried_out(&store, keep(hour * 2, both(3))).await;
    near(ROWS, hour * 2);
    carried_out(&store, keep(hour, both(4))).await;
    near(ROWS, hour * 2);
    // What is spilled keeps that, and is kept longer while it is a part of the history.
    carried_out(&store, keep(hour, commit("1", 4, vec![superseding("a", 5)]))).await;
    for key in ["fs:{product:1}:v:a", "fs:{product:1}:v:b"] {
        near(key, hour * 2);
    }
    carried_out(&store, keep(hour * 2, both(6))).await;
    near(ROWS, hour * 2);
    carried_out(&store, keep(hour * 3, both(7))).await;
    for key in [ROWS, "fs:{product:1}:v:a", "fs:{product:1}:v:b"] {
        near(key, hour * 3);
    }
    let mut forever = both(8);
    forever.retain_until = None;
    carried_out(&store, forever).await;
    assert_eq!(server.cli(&["PEXPIRETIME", ROWS]), "-1");
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_named_and_left_alone() {
    let server = RedisServer::start(Durability::None);
    let store = connect(server.url()).await;
    for version in 1..=3 {
        carried_out(&store, both(version)).await;
    }
    for damage in [
        vec!["LSET", ROWS, "0", "nonsense"],
        vec!["LSET", ROWS, "1", "short"],
        vec!["LSET", ROWS, "1", "12345678\u{1}x"],
        vec!["SET", ROWS, "a string"],
    ] {
        server.cli(&damage);
        let refused = load(&store, "1", &FEATURES).await;
        assert!(
            matches!(&refused, Err(StoreError::Corrupt { key, .. }) if key == ROWS),
            "{damage:?} {refused:?}"
        );
    }
    // A list of another type refuses the whole commit, not half of it.
    let refused = commit_one(&store, both(4)).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    let head = server.cli(&["HGET", "fs:{product:1}", "@"]);
    assert!(head.starts_with("3:1000|"), "{head:?}");
    // Those who ask for no history are served.
    let features: Vec<_> = FEATURES.iter().map(|(name, of)| (crate::redis_store::name(name), *of)).collect();
    let entity = product("1");
    let loads = [feature_store::store::Load { entity: &entity, features: &features, history: false }];
    assert!(store.load(&loads).await.is_ok());
}
