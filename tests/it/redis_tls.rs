//! Redis over TLS: authorities, client certificates and names, on every connection.

use serde_json::json;

use crate::certificates::{Authority, Files};
use crate::redis_process::{Durability, RedisCluster, RedisServer, eventually, free_port};
use crate::server_process::Launch;

/// A Redis that asks its clients for certificates.
struct Secured {
    redis: RedisServer,
    authority: Authority,
    client: Files,
    port: u16,
}

impl Secured {
    fn start(names: &[&str]) -> Self {
        let authority = Authority::new("redis");
        let files = authority.issue("redis", names);
        let client = authority.issue("client", &["feature-store"]);
        let port = free_port();
        let args = tls_args(&authority, &files, port);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // The plain port is for the harness.
        let redis = RedisServer::start_with(Durability::None, None, &args);
        Self { redis, authority, client, port }
    }

    fn launch(&self) -> Launch {
        Launch::on(format!("rediss://127.0.0.1:{}", self.port))
            .with("REDIS_TLS_CA", &self.authority.ca().display().to_string())
            .with("REDIS_TLS_CERT", &self.client.certificate.display().to_string())
            .with("REDIS_TLS_KEY", &self.client.key.display().to_string())
    }
}

fn tls_args(authority: &Authority, files: &Files, port: u16) -> Vec<String> {
    let text = |path: &std::path::Path| path.display().to_string();
    [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", text(&files.certificate)),
        ("--tls-key-file", text(&files.key)),
        ("--tls-ca-cert-file", text(&authority.ca())),
        ("--tls-auth-clients", "yes".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

/// Starts a server that cannot use its Redis, and gives what it says of that.
async fn unready(launch: Launch) -> String {
    let server = launch.start_unready().await;
    server.client.get("/readyz").await.problem(503, "store_unavailable");
    assert_eq!(server.client.get("/livez").await.status, 200);
    eventually("a word about why", || async { server.log().contains("rediss://").then(|| server.log()) })
        .await
}

#[tokio::test]
async fn every_connection_is_over_tls() {
    let secured = Secured::start(&["127.0.0.1"]);
    let launch = secured.launch();
    let server = launch.start().await;
    server.client.write("product/1", json!({"n": 1})).await;
    assert_eq!(server.client.read("product/1", "names=n").await["features"]["n"], 1);
    // The connection that listens for changes is one of them.
    let clients = eventually("changes to be listened for", || async {
        let clients = secured.redis.cli(&["CLIENT", "LIST"]);
        (clients.lines().count() > 3 && clients.contains("flags=t")).then_some(clients)
    })
    .await;
    let mut ours = clients.lines().filter(|line| !line.contains("cmd=client|list"));
    let port = format!("laddr=127.0.0.1:{} ", secured.port);
    assert!(ours.all(|line| line.contains(&port)), "{clients} {}", server.log());
}

#[tokio::test]
async fn a_stranger_is_not_taken_for_redis() {
    let secured = Secured::start(&["127.0.0.1"]);
    let other = Authority::new("another");
    let log = unready(secured.launch().with("REDIS_TLS_CA", &other.ca().display().to_string())).await;
    assert!(log.contains("UnknownIssuer") || log.contains("invalid peer certificate"), "{log}");
}

#[tokio::test]
async fn the_name_in_the_certificate_counts_or_the_one_that_is_said() {
    let secured = Secured::start(&["redis.internal"]);
    let log = unready(secured.launch()).await;
    assert!(log.contains("NotValidForName"), "{log}");
    secured.launch().with("REDIS_TLS_SERVER_NAME", "redis.internal").start().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start() {
    let secured = Secured::start(&["127.0.0.1"]);
    let key = secured.client.key.display().to_string();
    let (status, log) = secured.launch().with("REDIS_TLS_CA", &key).start_in_vain().await;
    assert!(!status.success() && log.contains("no certificate in it"), "{log}");
    let plain = Launch::on(secured.redis.url()).with("REDIS_TLS_CA", &key);
    let (status, log) = plain.start_in_vain().await;
    assert!(!status.success() && log.contains("redis_tls_ca"), "{log}");
}

#[tokio::test]
async fn a_cluster_is_over_tls() {
    let authority = Authority::new("redis");
    let files = authority.issue("redis", &["127.0.0.1"]);
    let client = authority.issue("client", &["feature-store"]);
    let cluster = RedisCluster::over_tls(|port| tls_args(&authority, &files, port), &authority.ca(), &client);
    let server = Launch::on(cluster.url().replace("redis-cluster://", "rediss-cluster://"))
        .with("REDIS_TLS_CA", &authority.ca().display().to_string())
        .with("REDIS_TLS_CERT", &client.certificate.display().to_string())
        .with("REDIS_TLS_KEY", &client.key.display().to_string())
        .start()
        .await;
    for id in 0..20 {
        server.client.write(&format!("product/{id}"), json!({"n": id})).await;
        assert_eq!(server.client.read(&format!("product/{id}"), "names=n").await["features"]["n"], id);
    }
    eventually("changes to be listened for", || async {
        server.client.get("/metrics").await.text().contains("feature_store_cache_coherent 1").then_some(())
    })
    .await;
}
