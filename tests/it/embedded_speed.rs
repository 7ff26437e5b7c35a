//! How fast the embedded store is. Prints; run it with
//! `cargo test --release --test it -- --ignored --nocapture embedded_speed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_store::domain::name::{EntityKey, FeatureName};
use feature_store::domain::record::{Commit, CurrentChange, FeatureChange, Head};
use feature_store::domain::time::Timestamp;
use feature_store::domain::value::{FeatureType, Value};
use feature_store::store::Load;
use feature_store::store::embedded::{EmbeddedStore, Options};
use futures::future::join_all;

use crate::store_contract::{Shared, committed, current, entity, feature, fresh_type, later, now, record};

const FEATURES: usize = 10;

fn names() -> Vec<(FeatureName, FeatureType)> {
    (0..FEATURES).map(|n| (feature(&format!("feature_name_{n:02}")), FeatureType::Float64)).collect()
}

/// One version of ten scalars, each superseding the one before.
fn write(key: &EntityKey, version: u64) -> Commit {
    let now = now();
    let created_at = Timestamp::from_millis(1_767_323_045_678).unwrap();
    let head = |version| Head { version, created_at };
    let changes = names().into_iter().map(|(feature, _)| {
        let value = Some(Value::Float64(999.99 + version as f64));
        FeatureChange {
            feature,
            current: CurrentChange::Set(current(value.clone(), now, version)),
            superseded: if version > 1 {
                vec![record(value, later(now, -1), version - 1)]
            } else {
                Vec::new()
            },
            rewrites_history: false,
            history_limit: 9,
            retain_until: Some(later(now, 3_600_000)),
        }
    });
    Commit {
        entity: key.clone(),
        expected: (version > 1).then(|| head(version - 1)),
        head: head(version),
        changes: changes.collect(),
        retain_until: Some(later(now, 3_600_000)),
    }
}

fn each(what: &str, count: u64, took: Duration) {
    let micros = took.as_secs_f64() * 1e6 / count as f64;
    println!("{what}: {micros:.1} us each, {:.0} a second", 1e6 / micros);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn embedded_speed() {
    let directory = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(EmbeddedStore::open(directory.path(), &Options::default()).unwrap());
    let entity_type = fresh_type();

    let key = entity(&entity_type, "one");
    let commits: Vec<_> = (1..=2000).map(|version| write(&key, version)).collect();
    let start = Instant::now();
    for commit in commits {
        committed(&store, commit).await;
    }
    each("durable commit of 10 features, one at a time", 2000, start.elapsed());

    for tasks in [64, 256] {
        let start = Instant::now();
        let writers = (0..tasks).map(|task| {
            let (store, key) = (store.clone(), entity(&entity_type, &format!("{tasks} {task}")));
            tokio::spawn(async move {
                for version in 1..=100 {
                    committed(&store, write(&key, version)).await;
                }
            })
        });
        for writer in join_all(writers).await {
            writer.unwrap();
        }
        each(&format!("durable commit of 10 features, {tasks} at a time"), tasks * 100, start.elapsed());
    }

    for round in 1..=12 {
        let keys = (0..1000).map(|n| entity(&entity_type, &format!("row {n}")));
        let commits: Vec<_> = keys.map(|key| write(&key, round)).collect();
        let start = Instant::now();
        assert!(store.commit(&commits).await.iter().all(Result::is_ok));
        if [1, 2, 12].contains(&round) {
            println!("batch of 1000 entities, version {round}: {:?}", start.elapsed());
        }
    }

    let names = names();
    let one = [Load { entity: &key, features: &names, history: false }];
    let start = Instant::now();
    for _ in 0..100_000 {
        store.load(&one).await.unwrap();
    }
    each("read of 10 features of 1 entity", 100_000, start.elapsed());

    let with_history = [Load { entity: &key, features: &names, history: true }];
    let start = Instant::now();
    for _ in 0..10_000 {
        store.load(&with_history).await.unwrap();
    }
    each("read of 10 features of 1 entity with 9 superseded each", 10_000, start.elapsed());

    let keys: Vec<_> = (0..100).map(|n| entity(&entity_type, &format!("row {n}"))).collect();
    let hundred: Vec<_> =
        keys.iter().map(|entity| Load { entity, features: &names, history: false }).collect();
    let start = Instant::now();
    for _ in 0..2000 {
        store.load(&hundred).await.unwrap();
    }
    each("read of 10 features of 100 entities", 2000, start.elapsed());

    let used = store.describe().await.unwrap().used_bytes.unwrap();
    println!("the file has {} MiB", used >> 20);
    let start = Instant::now();
    drop(store);
    println!("closed in {:?}", start.elapsed());
    let start = Instant::now();
    drop(EmbeddedStore::open(directory.path(), &Options::default()).unwrap());
    println!("opened and closed again in {:?}", start.elapsed());
}
