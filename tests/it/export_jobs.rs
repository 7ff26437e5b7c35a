//! Exports that are kept as files.

use std::path::Path;

use feature_store::config::Config;
use feature_store::domain::time::Span;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::import::import;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;
use crate::tables;
use crate::test_server::On;
use feature_store::table::Format;

crate::on_both_stores![
    an_export_becomes_a_file_that_is_fetched_and_goes_in_the_end,
    a_file_is_seen_by_those_who_may_see_its_job,
];

const EXPORT: &str = "/v1/features/export";

/// Keeps exports in `dir`, and looks for old ones all the time.
fn keeping(config: &mut Config, dir: &Path) {
    config.export_dir = Some(dir.to_owned());
    config.reap_interval = Span::of_millis(20);
}

fn files(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

async fn ended(client: &Client, job: &str) -> Value {
    eventually("the export to end", || async {
        let job = client.get(job).await.ok();
        (job["state"] != "queued" && job["state"] != "running").then_some(job)
    })
    .await
}

#[track_caller]
fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["kind"], "export");
    answer.header("location").to_owned()
}

async fn an_export_becomes_a_file_that_is_fetched_and_goes_in_the_end(on: On) {
    let dir = tempfile::tempdir().unwrap();
    let server = on.server_with(|config| keeping(config, dir.path())).await;
    server.declare("product", tables::schema()).await;
    let rows = tables::products(200, feature_store::clock::Clock::now(&*server.clock));
    import(&server, Format::Ndjson, "entity_type=product", tables::encode(Format::Ndjson, &rows)).await.ok();
    std::fs::write(dir.path().join("notes.txt"), "somebody else's").unwrap();
    std::fs::write(dir.path().join("0123456789abcdef.csv.unfinished"), "left behind").unwrap();

    let request = json!({"entity_type": "product", "order": "entity_id", "format": "parquet"});
    let at_once = server.post(EXPORT, &request).await.body;
    let prefer = server.request(Method::POST, EXPORT).header("prefer", "respond-async").json(&request);
    let path = location(&server.send(prefer).await);
    let job = ended(&server, &path).await;
    assert_eq!(json!([job["state"], job["processed"], job["subject"]]), json!(["succeeded", 200, "product"]));
    let result = server.get(&format!("{path}/result")).await;
    assert_eq!(result.header("content-type"), Format::Parquet.media_type());
    assert_eq!(result.header("content-length"), at_once.len().to_string());
    assert_eq!(result.header("content-disposition"), "attachment; filename=\"product.parquet\"");
    assert_eq!(result.body, at_once);
    // What is wrong is said before there is a job.
    let wrong = json!({"entity_type": "nothing", "async": true});
    server.post(EXPORT, &wrong).await.problem(404, "unknown_entity_type");
    server.get("/v1/jobs/0123456789abcdef/result").await.problem(404, "invalid_request");

    eventually("what was left behind to go", || async { (files(dir.path()).len() == 2).then_some(()) }).await;
    server.advance(86_400 + 60);
    eventually("the old export to go", || async { (files(dir.path()) == ["notes.txt"]).then_some(()) }).await;
    let gone = server.get(&format!("{path}/result")).await.problem(404, "invalid_request");
    assert!(gone["detail"].to_string().contains("no longer here"), "{gone}");
}

async fn a_file_is_seen_by_those_who_may_see_its_job(on: On) {
    let dir = tempfile::tempdir().unwrap();
    let everything = json!(["read", "write", "admin"]);
    let keys = crate::access::document(&[
        ("all", json!({"scopes": everything})),
        ("users", json!({"scopes": everything, "entity_types": ["user"]})),
        ("writer", json!({"scopes": ["write"]})),
    ]);
    let server = on
        .server_with(|config| {
            keeping(config, dir.path());
            config.api_keys = Some(feature_store::config::Secret::new(keys));
        })
        .await;
    let [all, users, writer] = ["all", "users", "writer"].map(|key| server.showing(key));
    all.write("product/1", json!({"price": 1.5})).await;
    let request = json!({"entity_type": "product", "async": true, "format": "csv"});
    users.post(EXPORT, &request).await.problem(403, "forbidden");
    writer.post(EXPORT, &request).await.problem(403, "forbidden");
    let path = location(&all.post(EXPORT, &request).await);
    ended(&all, &path).await;
    let result = format!("{path}/result");
    users.get(&result).await.problem(404, "invalid_request");
    writer.get(&result).await.problem(403, "forbidden");
    assert_eq!(all.get(&result).await.text(), "entity_id,price\n1,1.5\n");
}

#[tokio::test]
async fn bounds_are_told_and_leave_nothing_behind() {
    let without = On::Embedded.server().await;
    without.write("product/1", json!({"price": 1.5})).await;
    let request = json!({"entity_type": "product", "async": true, "format": "csv"});
    let problem = without.post(EXPORT, &request).await.problem(400, "invalid_request");
    assert!(problem["detail"].to_string().contains("export_dir"), "{problem}");

    let dir = tempfile::tempdir().unwrap();
    let server = On::Embedded
        .server_with(|config| {
            keeping(config, dir.path());
            config.max_export_bytes = 30;
        })
        .await;
    server.write("product/1", json!({"price": 1.5})).await;
    let first = location(&server.post(EXPORT, &request).await);
    assert_eq!(ended(&server, &first).await["state"], "succeeded");
    let second = location(&server.post(EXPORT, &request).await);
    let job = ended(&server, &second).await;
    assert_eq!(job["state"], "failed");
    assert!(job["error"].to_string().contains("max_export_bytes"), "{job}");
    server.get(&format!("{second}/result")).await.problem(404, "invalid_request");
    assert_eq!(files(dir.path()).len(), 1);
}

/// A server that is killed while it exports.
async fn interrupted(launch: Launch) {
    let dir = launch.dir.path().join("exports");
    let launch = launch.with("EXPORT_DIR", &dir.display().to_string()).with("REAP_INTERVAL", "1");
    let mut server = launch.start().await;
    let rows: String = (0..30_000).map(|row| format!("{row},{row}\n")).collect();
    import(&server.client, Format::Csv, "entity_type=item", format!("entity_id,n\n{rows}")).await.ok();
    let request = json!({"entity_type": "item", "async": true, "format": "ndjson"});
    let path = location(&server.client.post(EXPORT, &request).await);
    server.kill();
    let server = launch.start().await;
    let job = eventually("the job to be seen to be over", || async {
        let job = server.client.get(&path).await.ok();
        (job["state"] == "interrupted").then_some(job)
    })
    .await;
    assert!(job["processed"].as_u64().unwrap() < 30_000);
    server.client.get(&format!("{path}/result")).await.problem(404, "invalid_request");
    eventually("what was left behind to go", || async { files(&dir).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_killed_server_leaves_no_half_file_embedded() {
    interrupted(Launch::embedded()).await;
}

#[tokio::test]
async fn a_killed_server_leaves_no_half_file_redis() {
    let redis = RedisServer::start(Durability::None);
    interrupted(Launch::on_redis(&redis)).await;
}
