//! A poisoned run over a whole entity type is undone while others write: only its values go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::test_server::{On, TestServer};
use crate::undo::undo_within;

const WRITERS: usize = 4;
const BATCH: usize = 500;
const MOST: Duration = Duration::from_secs(600);

/// Prices and stocks that were acknowledged, by entity.
type Acknowledged = HashMap<usize, (Option<i64>, Option<i64>)>;

async fn write_all(client: &Client, count: usize, run_id: &str, at: &str, of: impl Fn(usize) -> Value) {
    for first in (0..count).step_by(BATCH) {
        let rows = (first..count.min(first + BATCH))
            .map(|id| json!({"entity_id": id.to_string(), "features": of(id), "event_timestamp": at}));
        let body = json!({"entity_type": "item", "run_id": run_id, "rows": rows.collect::<Vec<_>>()});
        let answer = client.post("/v1/features/write", &body).await.ok();
        assert_eq!(answer["rejected"], 0, "{answer}");
    }
}

/// Writes prices or stocks of entities that are this writer's own, until it is told to stop.
async fn write_along(client: Client, writer: usize, count: usize, stop: Arc<AtomicBool>) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut value = 1_000_000;
    while !stop.load(Ordering::Relaxed) {
        value += 1;
        let id = rand::random::<u32>() as usize % (count / WRITERS) * WRITERS + writer;
        let entity = acknowledged.entry(id).or_default();
        let (name, kept) = if value % 2 == 0 { ("price", &mut entity.0) } else { ("stock", &mut entity.1) };
        let body = json!({"features": {name: value}, "run_id": "live"});
        let written = client.post_features(&format!("item/{id}"), &body).await.ok();
        assert_eq!(written["outcomes"][name], "applied");
        *kept = Some(value);
    }
    acknowledged
}

async fn poisoned(on: On, count: usize) {
    let server: TestServer = on.server().await;
    let schema = json!({"ttl": "30d", "features": {
        "price": {"type": "int64"}, "stock": {"type": "int64"},
        "double": {"type": "int64", "computed": {"function": "double"}}},
        "transformations": "def double(price):\n    return price * 2\n"});
    server.declare("item", schema).await;
    let (good, bad) = (server.time(-7200), server.time(-3600));
    let started = Instant::now();
    write_all(&server, count, "good", &good, |id| json!({"price": id, "stock": id})).await;
    write_all(&server, count, "bad", &bad, |_| json!({"price": -1})).await;
    println!("{on:?}: {} values of {count} entities written in {:.1?}", 3 * count, started.elapsed());

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write_along(server.client.clone(), writer, count, stop.clone())))
        .collect();
    let started = Instant::now();
    let plan = undo_within(MOST, &server, "item", json!({"run_id": "bad", "dry_run": true})).await;
    println!("{on:?}: dry run in {:.1?}", started.elapsed());
    let started = Instant::now();
    let job = undo_within(MOST, &server, "item", json!({"run_id": "bad", "reason": "poison"})).await;
    let elapsed = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut live = Acknowledged::new();
    for writer in writers {
        live.extend(writer.await.expect("a writer finishes"));
    }
    println!(
        "{on:?}: undone in {elapsed:.1?}, {:.0} entities/s, while {} entities were written: {}",
        count as f64 / elapsed.as_secs_f64(),
        live.len(),
        job["undo"]
    );
    assert_eq!((&plan["processed"], &job["processed"]), (&json!(count), &json!(count)));
    let report = |name: &str| job["undo"][name].as_u64().expect("a count") as usize;
    assert_eq!(report("restored") + report("newer"), count, "{job}");
    assert!(!live.is_empty(), "writers were at work");

    for first in (0..count).step_by(BATCH) {
        let ids: Vec<String> = (first..count.min(first + BATCH)).map(|id| id.to_string()).collect();
        let mut body = json!({"entities": {"item": ids}, "features": ["price", "stock", "double"]});
        let now = server.post("/v1/features/read", &body).await.ok();
        body["as_of"] = json!(bad);
        let then = server.post("/v1/features/read", &body).await.ok();
        for (at, id) in (first..).zip(&ids).map(|(at, _)| (at - first, at)) {
            let (price, stock) = live.get(&id).copied().unwrap_or_default();
            let (price, stock) = (price.unwrap_or(id as i64), stock.unwrap_or(id as i64));
            let expected = json!({"price": price, "stock": stock, "double": price * 2});
            assert_eq!(now["results"][at]["features"], expected, "{id}");
            let expected = json!({"price": id, "stock": id, "double": id * 2});
            assert_eq!(then["results"][at]["features"], expected, "{id} as of the bad run");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_run_is_undone_while_others_write_embedded() {
    poisoned(On::Embedded, 2000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_run_is_undone_while_others_write_on_redis() {
    poisoned(On::Redis, 2000).await;
}

/// `cargo nextest run --run-ignored only -E 'test(undo_large)' --no-capture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_poisoned_run_over_100_000_entities_embedded() {
    poisoned(On::Embedded, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_poisoned_run_over_100_000_entities_on_redis() {
    poisoned(On::Redis, 100_000).await;
}
