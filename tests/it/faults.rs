//! Power cuts: whatever was acknowledged is there afterwards.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use feature_store::config::Config;
use feature_store::domain::time::Span;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::raw_http::{RawRequest, read_answer};
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;
use crate::test_server::{TestServer, on_redis};

const ROUNDS: usize = 20;
const WRITERS: usize = 6;

/// Writes that were acknowledged: entity id and value.
type Acknowledged = Arc<Mutex<Vec<(String, u64)>>>;

/// Writers that write a new entity each time, and note what was acknowledged.
struct Load {
    acknowledged: Acknowledged,
    /// Acknowledged since the last failure, over all writers.
    count: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(client: &Client, round: usize) -> Self {
        let acknowledged = Acknowledged::default();
        let (count, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let client = client.clone();
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            let (count, failures) = (count.clone(), failures.clone());
            tokio::spawn(async move {
                for write in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("{round}-{writer}-{write}");
                    let request =
                        client.request(Method::POST, &format!("/v1/entities/product/{id}/features"));
                    let body =
                        json!({"features": {"n": write, "id": id}, "run_id": format!("round {round}")});
                    match client.try_send(request.json(&body)).await {
                        Ok(answer) if answer.status == 200 => {
                            assert_eq!(answer.json()["version"], 1);
                            acknowledged.lock().expect("a list").push((id, write));
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => {
                            match answer.status {
                                503 => answer.problem(503, "store_unavailable"),
                                _ => answer.problem(504, "timeout"),
                            };
                            failures.fetch_add(1, Ordering::Relaxed);
                            // A refusal comes at once; without a pause the writers would only spin.
                            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                        }
                        // The server itself is gone.
                        Err(_) => return,
                    }
                }
            })
        });
        let writers = writers.collect();
        Self { acknowledged, count, failures, stop, writers }
    }

    /// Waits for so many more acknowledged writes.
    async fn progress(&self, writes: usize) {
        let wanted = self.count.load(Ordering::Relaxed) + writes;
        eventually("writes to be acknowledged", || async {
            (self.count.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    async fn trouble(&self) {
        let before = self.failures.load(Ordering::Relaxed);
        eventually("clients to see the outage", || async {
            (self.failures.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    /// Stops the writers, and tells what was acknowledged to them.
    async fn finish(self) -> Vec<(String, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer sees nothing but proper answers");
        }
        std::mem::take(&mut *self.acknowledged.lock().expect("a list"))
    }
}

/// Everything acknowledged is there, with the right value and version.
async fn check(client: &Client, acknowledged: &[(String, u64)]) {
    for part in acknowledged.chunks(500) {
        let ids: Vec<&str> = part.iter().map(|(id, _)| id.as_str()).collect();
        let body = json!({"entities": {"product": ids}, "features": ["n", "id"], "layout": "columns"});
        let answer = client.post("/v1/features/read", &body).await.ok();
        let product = &answer["product"];
        assert_eq!(product["statuses"], json!({}), "something acknowledged is not there");
        for (index, (id, value)) in part.iter().enumerate() {
            assert_eq!(product["features"]["n"][index], *value, "{id}");
            assert_eq!(product["features"]["id"][index], *id);
            assert_eq!(product["versions"][index], 1, "{id}");
        }
    }
}

async fn declare(client: &Client) {
    let schema = json!({"ttl": "never", "features": {"n": {"type": "int64"}, "id": {"type": "string"}}});
    client.declare("product", schema).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_has_lost_nothing_acknowledged() {
    let launch = Launch::embedded();
    let mut server = launch.start().await;
    declare(&server.client).await;
    let mut all: Vec<(String, u64)> = Vec::new();
    for round in 0..ROUNDS {
        let load = Load::start(&server.client, round);
        // Not always the same moment.
        load.progress(20 + 7 * (round % 6)).await;
        server.kill();
        let acknowledged = load.finish().await;
        assert!(!acknowledged.is_empty());
        server = launch.start().await;
        check(&server.client, &acknowledged).await;
        all.extend(acknowledged);
    }
    check(&server.client, &all).await;
    let metadata = server.client.read(&format!("product/{}", all[0].0), "include=metadata").await;
    assert_eq!(metadata["metadata"]["n"]["run_id"], "round 0", "provenance survives too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_has_lost_nothing_acknowledged() {
    let mut redis = RedisServer::start(Durability::Always);
    let mut config = Config::default();
    on_redis(&mut config, &redis);
    config.redis_command_timeout = Span::from_millis(500).expect("a span");
    let server = TestServer::start(config).await;
    server.ready().await;
    declare(&server).await;
    let mut all: Vec<(String, u64)> = Vec::new();
    for round in 0..ROUNDS {
        let load = Load::start(&server, round);
        load.progress(20 + 7 * (round % 6)).await;
        redis.kill();
        load.trouble().await;
        server.get("/livez").await.ok();
        server.get("/readyz").await.problem(503, "store_unavailable");
        redis.restart();
        load.progress(WRITERS).await;
        let acknowledged = load.finish().await;
        check(&server, &acknowledged).await;
        all.extend(acknowledged);
    }
    check(&server, &all).await;
    server.get("/readyz").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_is_a_timeout_and_then_over() {
    let redis = RedisServer::start(Durability::None);
    let mut config = Config::default();
    on_redis(&mut config, &redis);
    config.redis_command_timeout = Span::from_millis(300).expect("a span");
    config.readiness_timeout = Span::from_millis(200).expect("a span");
    let server = TestServer::start(config).await;
    server.ready().await;
    declare(&server).await;
    server.write("product/1", json!({"n": 1})).await;
    redis.freeze();
    let slow = server.get_features("product/1", "").await;
    slow.problem(504, "timeout");
    let unready = server.get("/readyz").await;
    assert!([503, 504].contains(&unready.status), "{}", unready.text());
    server.get("/livez").await.ok();
    redis.thaw();
    eventually("reads to work again", || async {
        (server.get_features("product/1", "").await.status == 200).then_some(())
    })
    .await;
    server.ready().await;
    assert_eq!(server.read("product/1", "names=n").await["features"]["n"], 1);
}

#[tokio::test]
async fn a_request_under_way_finishes_before_the_server_stops() {
    let launch = Launch::embedded();
    let mut server = launch.start().await;
    let body = json!({"features": {"n": 7}}).to_string().into_bytes();
    let request = RawRequest {
        method: "POST",
        target: "/v1/entities/product/1/features".to_owned(),
        headers: vec!["Content-Type: application/json".to_owned()],
        body: body.clone(),
    };
    let mut stream = TcpStream::connect(server.client.address).await.expect("the server listens");
    stream.write_all(&request.head()).await.expect("the head is taken");
    let (begin, end) = body.split_at(5);
    stream.write_all(begin).await.expect("the body begins");
    eventually("the request to be under way", || async {
        // The one that asks is under way as well.
        let text = server.client.get("/metrics").await.text();
        text.contains("feature_store_http_requests_in_flight 2").then_some(())
    })
    .await;
    server.terminate();
    eventually("the server to accept nobody else", || async {
        TcpStream::connect(server.client.address).await.is_err().then_some(())
    })
    .await;
    stream.write_all(end).await.expect("the body ends");
    assert_eq!(read_answer(stream).await.ok()["version"], 1);
    let status = server.ended().await;
    assert!(status.success(), "{status}");
    let again = launch.start().await;
    assert_eq!(again.client.read("product/1", "").await["features"]["n"], 7);
}

#[tokio::test]
async fn a_data_directory_is_for_one_server() {
    let launch = Launch::embedded();
    let server = launch.start().await;
    let (status, said) = launch.start_in_vain().await;
    assert_eq!(status.code(), Some(1));
    let data = launch.dir.path().join("data").display().to_string();
    assert!(said.contains(&data) && said.contains("in use by another process"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    server.client.write("product/1", json!({"n": 1})).await;
}

#[tokio::test]
async fn a_wrong_setting_stops_the_start() {
    let (status, said) = Launch::embedded().with("MAX_VERSION", "3").start_in_vain().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("max_version ") && said.contains("max_versions?"), "{said}");
    let one = Launch::embedded().with("STORE_URL", "redis://127.0.0.1").with("REDIS_HOST", "127.0.0.1");
    let (status, said) = one.start_in_vain().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("store_url") && said.contains("redis_host"), "{said}");
}

/// The registry survives as data does.
#[tokio::test]
async fn schemas_and_services_survive_a_kill() {
    let launch = Launch::embedded();
    let mut server = launch.start().await;
    declare(&server.client).await;
    let path = "/v1/feature-services/ranking";
    server.client.put(path, &json!({"features": ["product.n"]})).await.status(201);
    let schema = server.client.get("/v1/entity-types/product").await.ok();
    let service: Value = server.client.get(path).await.ok();
    server.kill();
    let server = launch.start().await;
    assert_eq!(server.client.get("/v1/entity-types/product").await.ok(), schema);
    assert_eq!(server.client.get(path).await.ok(), service);
}
