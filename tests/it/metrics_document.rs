//! `docs/metrics.md` lists what a server exposes, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;

/// Type and labels, by name.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

fn documented() -> Metrics {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let [name, kind, labels, meaning] = cells.as_slice() else { panic!("not four cells: {line}") };
        assert!(meaning.len() > 5, "{line}");
        let labels = labels.split(',').map(str::trim).filter(|label| *label != "none");
        let name = name.strip_suffix('`').expect("a name in code");
        Some((name.to_owned(), ((*kind).to_owned(), labels.map(str::to_owned).collect())))
    });
    rows.collect()
}

/// What the text format says, read strictly enough to notice what Prometheus would stumble over.
fn exposed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    let mut helped = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped.insert(help.split(' ').next().expect("a name").to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(
                metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new())).is_none(),
                "twice: {line}"
            );
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let stem = stem.filter(|stem| metrics.get(*stem).is_some_and(|(kind, _)| kind == "histogram"));
            let entry = metrics.get_mut(stem.unwrap_or(name)).unwrap_or_else(|| panic!("no type: {line}"));
            let names = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
            entry.1.extend(names.map(|(label, _)| label.to_owned()).filter(|label| label != "le"));
        }
    }
    for name in metrics.keys() {
        assert!(helped.contains(name), "{name} has no HELP");
    }
    metrics
}

#[tokio::test]
async fn it_lists_what_a_server_exposes() {
    let mut redis = RedisServer::start(Durability::None);
    let keys = crate::access::document(&[("key", json!({"scopes": ["read", "write", "admin"]}))]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1gb"]);
    let launch = Launch::on_redis(&redis)
        .with("READINESS_TIMEOUT", "500ms")
        .with("ALERTS__INTERVAL", "50ms")
        .with("ALERTS__FOR", "0")
        .with("ALERTS__WEBHOOK_URL", "http://127.0.0.1:9")
        .with("OTLP_ENDPOINT", "http://127.0.0.1:9")
        .with("API_KEYS", &keys);
    let server = launch.start().await;
    let client = &server.client.showing("key");
    client
        .declare(
            "product",
            json!({"features": {"price": {"type": "float64", "minimum": 0, "max_age": "1d"}}}),
        )
        .await;
    client.write("product/1", json!({"price": 1.5})).await;
    client.read("product/1", "names=price").await;
    client
        .post_features("product/1", &json!({"features": {"price": -1}}))
        .await
        .problem(422, "validation_failed");
    redis.kill();
    eventually("an error of the store", || async {
        (client.get_features("product/1", "names=price").await.status == 503).then_some(())
    })
    .await;
    let text = eventually("an attempt to tell somebody", || async {
        let text = client.get("/metrics").await.text();
        text.contains("feature_store_alert_webhook_attempts_total{").then_some(text)
    })
    .await;
    assert_eq!(exposed(&text), documented(), "{text}");
    for name in documented().keys() {
        let process = name.starts_with("process_");
        assert!(process || name.starts_with("feature_store_"), "{name}");
    }
    for (name, (kind, _)) in documented() {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert_eq!(name.ends_with("_duration_seconds"), kind == "histogram", "{name} is a {kind}");
    }
}
