//! Servers are restarted one after the other under load, behind something that asks for readiness as
//! a Kubernetes Service does, and no request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::redis_process::{Durability, RedisServer};
use crate::server_process::Launch;
use crate::workload::{Targets, Workload, declare};

/// Long enough for three looks at the readiness.
const DELAY: &str = "1s";
const LOOK: Duration = Duration::from_millis(300);

/// Keeps those targets that are ready, and stops sending to a server that is not.
fn keep_ready(clients: Arc<std::sync::Mutex<Vec<Client>>>, targets: Targets) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let all = clients.lock().expect("nobody panicked").clone();
            let mut ready = Vec::new();
            for client in all {
                let answer = client.try_send(client.request(Method::GET, "/readyz")).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    ready.push(client.address);
                }
            }
            assert!(!ready.is_empty(), "no server is ready");
            targets.set(ready);
            tokio::time::sleep(LOOK).await;
        }
    })
}

/// A client that keeps one HTTP/2 connection to each server.
struct Http2 {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Http2 {
    fn start(targets: &Targets) -> Self {
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build::<_, Empty<bytes::Bytes>>(HttpConnector::new());
        let (targets, stop) = (targets.clone(), Arc::new(AtomicBool::new(false)));
        let requests = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (stop.clone(), requests.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let turn = counted.fetch_add(1, Ordering::Relaxed);
                let url = format!("http://{}/v1/entities/product/1/features", targets.pick(turn));
                let answer = client.get(url.parse().expect("a URL")).await;
                match answer {
                    Ok(answer) if answer.status() == 200 => {
                        if let Err(error) = answer.into_body().collect().await {
                            failures.push(format!("{error:?}"));
                        }
                    }
                    Ok(answer) => failures.push(answer.status().to_string()),
                    Err(error) => failures.push(format!("{error:?}")),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            failures
        });
        Self { stop, requests, task }
    }

    async fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.requests.load(Ordering::Relaxed) > 100, "hardly a request");
        self.task.await.expect("the client does not panic")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_restart_one_by_one_without_a_failed_request() {
    let redis = RedisServer::start(Durability::None);
    let launches = [(); 2].map(|()| Launch::on_redis(&redis).with("SHUTDOWN_DELAY", DELAY));
    let mut servers = [launches[0].start().await, launches[1].start().await];
    declare(&servers[0].client).await;
    servers[0].client.post_features("product/1", &json!({"features": {"n": 1}})).await.ok();
    let clients =
        Arc::new(std::sync::Mutex::new(servers.iter().map(|one| one.client.clone()).collect::<Vec<_>>()));
    let targets = Targets::new(servers.iter().map(|one| one.client.address));
    let prober = keep_ready(clients.clone(), targets.clone());
    let load = Workload::start(&servers[0].client, &targets, "rolling");
    let http2 = Http2::start(&targets);
    load.progress(200).await;
    for _ in 0..2 {
        for (index, launch) in launches.iter().enumerate() {
            servers[index].terminate();
            assert!(servers[index].ended().await.success());
            servers[index] = launch.start().await;
            clients.lock().expect("nobody panicked")[index] = servers[index].client.clone();
            tokio::time::sleep(LOOK * 2).await;
            load.progress(100).await;
        }
    }
    assert!(load.successes() > 500);
    let accounts = load.finish().await;
    assert_eq!(http2.finish().await, Vec::<String>::new(), "over HTTP/2");
    prober.abort();
    assert_eq!(accounts.seen, std::collections::BTreeMap::new(), "failed requests");
    assert_eq!(accounts.wrong, Vec::<String>::new());
    assert_eq!(accounts.contradictions(&servers[0].client).await, Vec::<String>::new());
}
