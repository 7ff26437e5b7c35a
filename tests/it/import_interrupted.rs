//! Imports that end early, and are repeated: nothing is lost and nothing is doubled.

use std::fmt::Write as _;

use feature_store::clock::{Clock, SystemClock};
use feature_store::domain::time::Timestamp;
use feature_store::table::Format;
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::import::import;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;

const ENTITIES: usize = 3000;
const EACH: usize = 3;
const ROWS: usize = ENTITIES * EACH;
const QUERY: &str = "entity_type=sensor&run_id=night";

/// Several events of many entities, in no order.
fn table() -> String {
    let now = SystemClock.now();
    let mut csv = "entity_id,n,event_timestamp\n".to_owned();
    for place in 0..ROWS {
        let row = place * 7919 % ROWS;
        let at = Timestamp::from_millis(now.as_millis() - row as i64 * 1000).unwrap();
        writeln!(csv, "{},{row},{at}", row % ENTITIES).unwrap();
    }
    csv
}

/// What is known of some entities: versions and all values, but not when they were written.
async fn known(client: &Client) -> Vec<Value> {
    let mut known = Vec::new();
    for entity in (0..ENTITIES).step_by(149) {
        let lineage = client.get(&format!("/v1/entities/sensor/{entity}/features/n/lineage")).await.ok();
        let one = |record: &Value| json!([record["version"], record["value"], record["event_timestamp"]]);
        let history = lineage["history"].as_array().unwrap().iter().map(one).collect::<Vec<_>>();
        known.push(json!([one(&lineage["current"]), history]));
    }
    known
}

/// Imports the table cleanly elsewhere, and here with a client that goes away and a server that is
/// killed.
async fn interrupted_and_repeated(launch: Launch) {
    let csv = table();
    let clean = Launch::embedded();
    let clean = clean.start().await;
    import(&clean.client, Format::Csv, QUERY, csv.clone()).await.ok();
    let wanted = known(&clean.client).await;

    let mut server = launch.start().await;
    let stored = |client: Client| async move {
        let page = client.get("/v1/entities/sensor?limit=1").await;
        (page.status == 200 && !page.json()["entity_ids"].as_array()?.is_empty()).then_some(())
    };
    // A part of the body, and then nothing more: the rest never comes.
    let endless = |bytes: usize| {
        let begun = csv.as_bytes()[..bytes].to_vec();
        let parts =
            futures::stream::once(async { Ok::<_, std::io::Error>(begun) }).chain(futures::stream::pending());
        let request = server.client.request(Method::POST, &format!("/v1/features/import?{QUERY}"));
        let request = request.header("content-type", "text/csv").body(reqwest::Body::wrap_stream(parts));
        let client = server.client.clone();
        tokio::spawn(async move { client.try_send(request).await.map(|answer| answer.status) })
    };
    let client_dies = endless(csv.len() / 2);
    eventually("the first rows", || stored(server.client.clone())).await;
    client_dies.abort();
    let server_dies = endless(csv.len() * 3 / 4);
    eventually("the import to go on", || async { (!server_dies.is_finished()).then_some(()) }).await;
    server.kill();
    assert!(server_dies.await.unwrap().is_err());
    let server = launch.start().await;
    let report = import(&server.client, Format::Csv, QUERY, csv.clone()).await.ok();
    assert_eq!((&report["rows"], &report["rejected"]), (&json!(ROWS), &json!(0)), "{report}");
    assert!(report["unchanged"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(known(&server.client).await, wanted);
    let report = import(&server.client, Format::Csv, QUERY, csv).await.ok();
    assert_eq!(report["unchanged"], ROWS);
}

#[tokio::test]
async fn embedded() {
    interrupted_and_repeated(Launch::embedded()).await;
}

#[tokio::test]
async fn redis() {
    let redis = RedisServer::start(Durability::Always);
    interrupted_and_repeated(Launch::on_redis(&redis)).await;
}
