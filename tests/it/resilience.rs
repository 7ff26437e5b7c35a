//! What clients see when a store or a server fails, and what becomes of what was acknowledged. Each
//! fault is a test, and a row of the table that [`fault_table`] prints.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use feature_store::config::Config;
use feature_store::domain::time::Span;
use serde_json::json;

use crate::client::Client;
use crate::redis_process::{Durability, RedisCluster, RedisSentinels, RedisServer, eventually};
use crate::server_process::{Launch, ServerProcess};
use crate::test_server::{TestServer, on_redis};
use crate::workload::{Targets, Workload, declare};

/// So long a fault lasts that does not end by itself.
const LASTING: Duration = Duration::from_secs(1);
/// After so long at most clients must see no more of a fault that is over.
const RECOVERED: Duration = Duration::from_secs(15);
/// What is refused at once is refused well before this, which is well before the timeouts here.
const AT_ONCE: Duration = Duration::from_millis(350);

/// One fault and what came of it.
struct Row {
    fault: &'static str,
    store: &'static str,
    seen: BTreeMap<String, u64>,
    slowest: Duration,
    recovery: Duration,
    acknowledged: usize,
}

/// A load on one server while something goes wrong.
struct Trial {
    server: ServerProcess,
    _launch: Launch,
    load: Workload,
}

impl Trial {
    async fn on(url: String) -> Self {
        Self::launched(Launch::on(url)).await
    }

    async fn launched(launch: Launch) -> Self {
        let server = launch.start().await;
        declare(&server.client).await;
        let load = Workload::start(&server.client, &Targets::new([server.client.address]), "trial");
        load.progress(200).await;
        Self { server, _launch: launch, load }
    }

    /// Waits for recovery from what was lifted just now, and checks every promise.
    async fn end(self, fault: &'static str, store: &'static str, lifted: Instant) -> Row {
        let recovery = self.load.recovery(lifted).await;
        close(self.load, &self.server.client, fault, store, recovery).await
    }
}

async fn close(
    load: Workload,
    client: &Client,
    fault: &'static str,
    store: &'static str,
    recovery: Duration,
) -> Row {
    let accounts = load.finish().await;
    let nothing: [String; 0] = [];
    assert_eq!(accounts.wrong, nothing, "{fault}: what no client may see");
    assert_eq!(accounts.contradictions(client).await, nothing, "{fault}: lost or invented");
    assert!(recovery < RECOVERED, "{fault}: recovered after {recovery:?}");
    let acknowledged = accounts.acknowledged();
    assert!(acknowledged > 50, "{fault}: only {acknowledged} writes were acknowledged");
    Row { fault, store, seen: accounts.seen, slowest: accounts.slowest, recovery, acknowledged }
}

async fn a_while() {
    tokio::time::sleep(LASTING).await;
}

async fn killed_redis() -> Row {
    let mut redis = RedisServer::start(Durability::Always);
    let trial = Trial::on(redis.url()).await;
    redis.kill();
    trial.load.trouble().await;
    a_while().await;
    redis.restart();
    trial.end("killed and started again", "redis", Instant::now()).await
}

async fn hanging_redis() -> Row {
    let redis = RedisServer::start(Durability::Always);
    let trial = Trial::on(redis.url()).await;
    redis.freeze();
    trial.load.trouble().await;
    // Until the next ones are given up, too, which opens the circuit.
    tokio::time::sleep(LASTING * 3).await;
    redis.thaw();
    trial.end("hangs (SIGSTOP), goes on", "redis", Instant::now()).await
}

async fn loading_redis() -> Row {
    let mut redis = RedisServer::start(Durability::None);
    let trial = Trial::on(redis.url()).await;
    // What is acknowledged after the snapshot would be lost with this process: nothing comes in.
    let Trial { server, _launch, load } = trial;
    let accounts = load.finish().await;
    redis.restart_slowly(2);
    assert!(redis.cli(&["PING"]).starts_with("LOADING"));
    let load = Workload::start(&server.client, &Targets::new([server.client.address]), "loading");
    load.trouble().await;
    eventually("the data to be loaded", || async { redis.cli(&["PING"]).contains("PONG").then_some(()) })
        .await;
    let recovery = load.recovery(Instant::now()).await;
    let nothing: [String; 0] = [];
    assert_eq!(accounts.contradictions(&server.client).await, nothing);
    close(load, &server.client, "loads its data (LOADING)", "redis", recovery).await
}

async fn read_only_redis() -> Row {
    let redis = RedisServer::start(Durability::Always);
    let primary = RedisServer::start(Durability::None);
    let trial = Trial::on(redis.url()).await;
    // Of nobody that is there: a replica in sync would take over the emptiness of its primary.
    let port = primary.port.to_string();
    drop(primary);
    redis.cli(&["REPLICAOF", "127.0.0.1", &port]);
    trial.load.trouble().await;
    a_while().await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    trial.end("made a replica (READONLY)", "redis", Instant::now()).await
}

async fn full_redis() -> Row {
    let redis = RedisServer::start(Durability::Always);
    let trial = Trial::on(redis.url()).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    trial.load.trouble().await;
    a_while().await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    trial.end("out of memory (OOM, noeviction)", "redis", Instant::now()).await
}

async fn busy_redis() -> Row {
    let redis = RedisServer::start(Durability::Always);
    redis.cli(&["CONFIG", "SET", "busy-reply-threshold", "100"]);
    let trial = Trial::on(redis.url()).await;
    let mut endless = Command::new("redis-cli")
        .args(["-p", &redis.port.to_string(), "EVAL", "while true do end", "0"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-cli must be installed");
    trial.load.trouble().await;
    a_while().await;
    eventually("the script to end", || async {
        redis.cli(&["SCRIPT", "KILL"]);
        (!redis.cli(&["PING"]).starts_with("BUSY")).then_some(())
    })
    .await;
    endless.wait().expect("a child ends");
    trial.end("runs somebody's endless script (BUSY)", "redis", Instant::now()).await
}

async fn cut_connections() -> Row {
    let redis = RedisServer::start(Durability::Always);
    let trial = Trial::on(redis.url()).await;
    for _ in 0..5 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        trial.load.progress(20).await;
    }
    trial.end("all connections cut, five times", "redis", Instant::now()).await
}

async fn failing_over_sentinel() -> Row {
    let mut redis = RedisSentinels::start();
    let trial = Trial::launched(Launch::on(redis.url()).with("WAIT_REPLICAS", "1")).await;
    redis.servers[0].kill();
    let survivor = redis.servers[1].port;
    eventually("the failover", || async { (redis.primary_port() == Some(survivor)).then_some(()) }).await;
    // Until there is a replica again, no write counts. Sentinel takes its time to make one of it.
    redis.servers[0].restart();
    eventually("the old primary to follow the new one", || async {
        redis.servers[1].cli(&["INFO", "replication"]).contains("state=online").then_some(())
    })
    .await;
    trial.end("primary killed, failover, one replica to wait for", "sentinel", Instant::now()).await
}

async fn moving_slots() -> Row {
    let cluster = RedisCluster::start();
    let trial = Trial::on(cluster.url()).await;
    cluster.reshard(1500);
    trial.end("1,500 slots moved under load (MOVED, ASK, TRYAGAIN)", "cluster", Instant::now()).await
}

async fn lost_node() -> Row {
    let mut cluster = RedisCluster::with_replicas();
    let trial = Trial::launched(Launch::on(cluster.url()).with("WAIT_REPLICAS", "1")).await;
    cluster.nodes[0].kill();
    eventually("the failover", || async { cluster.has_failed_over().then_some(()) }).await;
    cluster.nodes[0].restart();
    trial.end("primary killed, replica takes over, one replica to wait for", "cluster", Instant::now()).await
}

async fn hanging_node() -> Row {
    let cluster = RedisCluster::start();
    let trial = Trial::on(cluster.url()).await;
    cluster.nodes[0].freeze();
    trial.load.trouble().await;
    a_while().await;
    cluster.nodes[0].thaw();
    trial.end("one of three nodes hangs (SIGSTOP), goes on", "cluster", Instant::now()).await
}

async fn killed_server() -> Row {
    let launch = Launch::embedded();
    let mut server = launch.start().await;
    declare(&server.client).await;
    let targets = Targets::new([server.client.address]);
    let load = Workload::start(&server.client, &targets, "trial");
    load.progress(200).await;
    server.kill();
    load.trouble().await;
    server = launch.start().await;
    targets.set([server.client.address]);
    let recovery = load.recovery(Instant::now()).await;
    close(load, &server.client, "server killed and started again", "embedded", recovery).await
}

macro_rules! faults {
    ($($name:ident),+ $(,)?) => {
        mod fault {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name().await; })+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "prints the table of docs/reliability.md; the same faults are tests of their own"]
        async fn fault_table() {
            println!("| store | fault | what clients saw | slowest answer | trouble after its end | writes acknowledged | lost |");
            println!("|---|---|---|---|---|---|---|");
            $(print(&$name().await);)+
        }
    };
}

faults!(
    killed_redis,
    hanging_redis,
    loading_redis,
    read_only_redis,
    full_redis,
    busy_redis,
    cut_connections,
    failing_over_sentinel,
    moving_slots,
    lost_node,
    hanging_node,
    killed_server,
);

/// A row that is printed has lost nothing: its trial would have failed.
fn print(row: &Row) {
    let seen: Vec<String> = row.seen.iter().map(|(kind, count)| format!("{kind} × {count}")).collect();
    let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
    println!(
        "| {} | {} | {seen} | {:.2} s | {:.2} s | {} | 0 |",
        row.store,
        row.fault,
        row.slowest.as_secs_f64(),
        row.recovery.as_secs_f64(),
        row.acknowledged
    );
}

/// Once it is known that Redis hangs, nobody waits for it any more; nor after it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_is_refused_at_once() {
    let redis = RedisServer::start(Durability::None);
    let launch = Launch::on_redis(&redis).with("REDIS_COMMAND_TIMEOUT", "500ms");
    let process = launch.start().await;
    let server = &process.client;
    declare(server).await;
    server.write("product/1", json!({"n": 1})).await;
    redis.freeze();
    let load = Workload::start(server, &Targets::new([server.address]), "hanging");
    for path in ["/v1/entities/product/1/features", "/v1/entities/product/2/features"] {
        eventually("the circuit to open", || async {
            let started = Instant::now();
            let answer = server.get(path).await;
            (answer.status == 503 && started.elapsed() < AT_ONCE).then_some(answer)
        })
        .await
        .problem(503, "store_unavailable");
    }
    let mut quick = 0;
    for n in 0..50 {
        let started = Instant::now();
        let answer = match n % 2 {
            0 => server.get_features("product/1", "").await,
            _ => server.post_features("product/1", &json!({"features": {"n": n}})).await,
        };
        assert!([503, 504].contains(&answer.status), "{}", answer.text());
        quick += usize::from(started.elapsed() < AT_ONCE);
    }
    // Of the others each was the probe that finds out whether the store is back.
    assert!(quick >= 40, "only {quick} of 50 were refused at once");
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains(r#"feature_store_store_circuit_open{operations="reads"} 1"#), "{metrics}");
    server.get("/livez").await.ok();
    redis.thaw();
    let lifted = Instant::now();
    eventually("recovery", || async {
        (server.get_features("product/1", "").await.status == 200).then_some(())
    })
    .await;
    assert!(lifted.elapsed() < RECOVERED, "{:?}", lifted.elapsed());
    load.recovery(lifted).await;
    let accounts = load.finish().await;
    assert_eq!((accounts.contradictions(server).await, accounts.wrong), (Vec::new(), Vec::new()));
}

/// A full or read-only server goes on to answer reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_writes_leave_reads_alone() {
    let redis = RedisServer::start(Durability::None);
    let launch = Launch::on_redis(&redis);
    let process = launch.start().await;
    let server = &process.client;
    declare(server).await;
    server.write("product/1", json!({"n": 1})).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let metrics_of_writes = r#"feature_store_store_circuit_open{operations="writes"} 1"#;
    eventually("the circuit of writes to open", || async {
        let refused = server.post_features("product/1", &json!({"features": {"n": 2}})).await;
        let problem = refused.problem(503, "store_unavailable");
        assert!(!problem["detail"].to_string().contains("may have been stored"), "{problem}");
        assert_eq!(server.read("product/1", "").await["features"]["n"], 1);
        server.get("/metrics").await.text().contains(metrics_of_writes).then_some(())
    })
    .await;
    server.get("/readyz").await.ok();
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("writes to work again", || async {
        let answer = server.post_features("product/1", &json!({"features": {"n": 3}})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(server.read("product/1", "").await["features"]["n"], 3);
}

/// It starts and says that it is not ready, rather than to be restarted over and over.
#[tokio::test]
async fn a_server_starts_before_its_redis() {
    let mut redis = RedisServer::start(Durability::None);
    redis.kill();
    let mut config = Config::default();
    on_redis(&mut config, &redis);
    config.redis_connect_timeout = Span::from_millis(200).expect("a span");
    let server = TestServer::start(config).await;
    server.get("/livez").await.ok();
    server.get("/startupz").await.problem(503, "store_unavailable");
    server.get("/readyz").await.problem(503, "store_unavailable");
    server.get_features("product/1", "").await.problem(503, "store_unavailable");
    redis.restart();
    server.ready().await;
    server.write("product/1", json!({"n": 1})).await;
    assert_eq!(server.read("product/1", "").await["features"]["n"], 1);
}
