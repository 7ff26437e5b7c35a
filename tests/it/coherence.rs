//! Coherence under fire: two servers on one Redis, writes and reads of a few hot entities, and
//! connections, processes and channels that fail meanwhile. Every read is held against everything
//! that was acknowledged before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::json;

use crate::redis_process::{Durability, RedisCluster, RedisServer};
use crate::server_process::{Launch, ServerProcess};

const ENTITIES: usize = 8;
/// `cache_max_lag`, and so what a server may not know yet of another one's writes.
const LAG: Duration = Duration::from_millis(100);

/// The acknowledged values of one entity, which only grow.
#[derive(Default)]
struct History {
    /// When each was acknowledged, and by which server.
    acknowledged: Mutex<VecDeque<(Instant, usize, u64)>>,
}

impl History {
    fn wrote(&self, server: usize, value: u64) {
        self.acknowledged.lock().unwrap().push_back((Instant::now(), server, value));
    }

    /// The least that a read may answer which began at `began` on that server.
    fn least(&self, server: usize, began: Instant) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap();
        let known = acknowledged.iter().filter(|(at, by, _)| {
            let lag = if *by == server { Duration::ZERO } else { LAG };
            *at + lag <= began
        });
        known.map(|(_, _, value)| *value).max().unwrap_or(0)
    }
}

/// How long to go on: short enough for every run of the tests, unless told otherwise.
fn duration(default: u64) -> Duration {
    let seconds = std::env::var("COHERENCE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}

/// Writes and reads while `fire` rages; answers how many reads were held against the history.
async fn hold(
    servers: [ServerProcess; 2],
    lasting: Duration,
    fire: impl Fn(&[ServerProcess; 2], u64),
) -> u64 {
    let histories: Arc<Vec<History>> = Arc::new((0..ENTITIES).map(|_| History::default()).collect());
    let (over, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = [servers[0].client.clone(), servers[1].client.clone()];
    clients[0].declare("hot", json!({"max_versions": 2, "features": {"n": {"type": "int64"}}})).await;
    for entity in 0..ENTITIES {
        clients[0].write(&format!("hot/{entity}"), json!({"n": 0})).await;
    }
    let mut tasks = Vec::new();
    for entity in 0..ENTITIES {
        let (clients, histories, over) = (clients.clone(), histories.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let mut value = 0;
            while !over.load(Ordering::Relaxed) {
                value += 1;
                let server = rand::rng().random_range(0..2);
                let body = json!({"features": {"n": value}});
                let answer = clients[server].post_features(&format!("hot/{entity}"), &body).await;
                // Anything else was stored or was not; a later one will be.
                if answer.status == 200 {
                    histories[entity].wrote(server, value);
                }
                let pause = rand::rng().random_range(0..30);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }));
    }
    for reader in 0..8 {
        let (clients, histories, over, reads) =
            (clients.clone(), histories.clone(), over.clone(), reads.clone());
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let (server, entity) = (reader % 2, rand::rng().random_range(0..ENTITIES));
                let began = Instant::now();
                let answer = clients[server].get_features(&format!("hot/{entity}"), "names=n").await;
                if answer.status != 200 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                let value = answer.json()["features"]["n"].as_u64().expect("a number");
                let least = histories[entity].least(server, began);
                assert!(value >= least, "server {server} answered {value} of hot/{entity} after {least}");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < lasting {
        tokio::time::sleep(Duration::from_millis(400)).await;
        tokio::task::block_in_place(|| fire(&servers, round));
        round += 1;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("nobody saw the past");
    }
    for client in &clients {
        let performance = client.get("/v1/performance").await.ok();
        let rate = performance["cache_hit_rate"].as_f64().expect("a cache was asked");
        println!("hit rate {rate:.2}");
        assert!(rate > 0.05, "the cache took no part in it: {rate}");
    }
    reads.load(Ordering::Relaxed)
}

/// Cuts the connections on which a server listens for changes.
fn kill_tracking(redis: &RedisServer) -> usize {
    let list = redis.cli(&["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let tracking: Vec<String> = list
        .lines()
        .filter(|line| field(line, "flags=").contains('t'))
        .map(|line| field(line, "id="))
        .collect();
    tracking.iter().for_each(|id| {
        redis.cli(&["CLIENT", "KILL", "ID", id]);
    });
    tracking.len()
}

fn pause_for(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_answers_the_past_though_everything_fails() {
    let redis = RedisServer::start(Durability::None);
    let launches = [Launch::on_redis(&redis), Launch::on_redis(&redis)];
    let (one, other) = tokio::join!(launches[0].start(), launches[1].start());
    let flood = "for i = 1, 70000 do redis.call('SET', 'fs:{flood:' .. i .. '}', i) end";
    let killed = AtomicU64::new(0);
    let reads = hold([one, other], duration(8), |servers, round| match round % 4 {
        0 => {
            killed.fetch_add(kill_tracking(&redis) as u64, Ordering::Relaxed);
        }
        1 => {
            servers[round as usize / 4 % 2].freeze();
            pause_for(300);
            servers[round as usize / 4 % 2].thaw();
        }
        2 => {
            redis.cli(&["EVAL", flood, "0"]);
        }
        _ => {
            redis.freeze();
            pause_for(250);
            redis.thaw();
        }
    })
    .await;
    println!("{reads} reads, {killed:?} connections cut");
    assert!(reads > 200, "{reads}");
    assert!(killed.load(Ordering::Relaxed) > 1, "no connection was listening");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_on_a_cluster() {
    let cluster = RedisCluster::start();
    let launches = [Launch::on_redis(&cluster.nodes[0]), Launch::on_redis(&cluster.nodes[0])];
    let launches = launches.map(|launch| launch.with("STORE_URL", &cluster.url()));
    let (one, other) = tokio::join!(launches[0].start(), launches[1].start());
    let reads = hold([one, other], duration(4), |_, round| {
        // It takes a moment until all three are listened to again.
        if round % 4 == 1 {
            kill_tracking(&cluster.nodes[round as usize / 4 % 3]);
        }
    })
    .await;
    assert!(reads > 100, "{reads}");
}
