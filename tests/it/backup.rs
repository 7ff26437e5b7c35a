//! A backup of the embedded store while it is written to, and the store that comes of it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use crate::client::Client;
use crate::redis_process::eventually;
use crate::server_process::Launch;
use crate::test_server::On;

fn run(args: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feature-store"));
    command.current_dir(directory).env_clear().args(args).output().expect("the built binary can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes the same number to two entities, one after the other, and counts.
async fn write_pairs(client: Client, pair: usize, acknowledged: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    for n in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        client.write(&format!("product/first-{pair}"), json!({"n": n})).await;
        client.write(&format!("product/second-{pair}"), json!({"n": n})).await;
        acknowledged.store(n, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_with_everything_acknowledged_before() {
    const PAIRS: usize = 3;
    let launch = Launch::embedded();
    let server = launch.start().await;
    let schema = json!({"ttl": "never", "max_versions": 10_000,
        "features": {"n": {"type": "int64"}, "text": {"type": "string"}}});
    server.client.declare("product", schema).await;
    let row = |n: usize| json!({"entity_id": format!("large-{n}"), "features": {"text": "x".repeat(5000)}});
    let rows: Vec<_> = (0..1000).map(row).collect();
    server.client.post("/v1/features/write", &json!({"entity_type": "product", "rows": rows})).await.ok();
    let stop = Arc::new(AtomicBool::new(false));
    let counts = [(); PAIRS].map(|()| Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..PAIRS)
        .map(|pair| {
            tokio::spawn(write_pairs(server.client.clone(), pair, counts[pair].clone(), stop.clone()))
        })
        .collect();
    eventually("some writes", || async {
        counts.iter().all(|count| count.load(Ordering::SeqCst) > 30).then_some(())
    })
    .await;
    let before = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
    let (directory, url) = (launch.dir.path(), format!("http://{}", server.client.address));
    let taken = {
        let directory = directory.to_owned();
        let take = move || run(&["backup", "--output", "copy", "--url", &url], &directory);
        tokio::task::spawn_blocking(take).await.expect("it does not panic")
    };
    assert!(taken.status.success(), "{}", said(&taken));
    // Nobody had to wait for it.
    let during = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("every write is accepted");
    }
    assert!(directory.join("copy").metadata().expect("the backup").len() > 5_000_000);

    let restored = run(&["restore", "copy", "--data-dir", "restored"], directory);
    assert!(restored.status.success(), "{}", said(&restored));
    let again = Launch::embedded().with("DATA_DIR", &directory.join("restored").display().to_string());
    let copy = again.start().await;
    for pair in 0..PAIRS {
        let first = copy.client.read(&format!("product/first-{pair}"), "names=n").await;
        let second = copy.client.read(&format!("product/second-{pair}"), "names=n").await;
        let value = |read: &serde_json::Value| read["features"]["n"].as_u64().expect("a number");
        let (ahead, behind) = (value(&first), value(&second));
        assert!(ahead == behind || ahead == behind + 1, "{ahead} and {behind}: not one moment");
        assert!(behind >= before[pair], "{behind}, though {} was acknowledged", before[pair]);
        assert!(ahead <= during[pair] + 1, "{ahead} is of after the backup");
        assert_eq!(first["version"], ahead);
        let lineage = copy.client.get(&format!("/v1/entities/product/first-{pair}/features/n/lineage")).await;
        assert_eq!(lineage.ok()["history"].as_array().expect("a history").len() as u64, ahead - 1);
    }
    let text = copy.client.read("product/large-999", "names=text").await;
    assert_eq!(text["features"]["text"], "x".repeat(5000));
    let schema = copy.client.get("/v1/entity-types/product").await.ok();
    assert_eq!(schema, server.client.get("/v1/entity-types/product").await.ok());
    // It is a store like any other.
    copy.client.write("product/first-0", json!({"n": 0})).await;
}

#[tokio::test]
async fn what_is_no_backup_is_refused_and_leaves_nothing() {
    let launch = Launch::embedded();
    let server = launch.start().await;
    server.client.write("product/1", json!({"n": 1})).await;
    let answer = server.client.post("/v1/admin/backup", &json!({})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let directory = launch.dir.path();
    let refused = |name: &str, bytes: &[u8], why: &str| {
        std::fs::write(directory.join(name), bytes).expect("a file");
        let output = run(&["restore", name, "--data-dir", "new"], directory);
        assert!(!output.status.success() && said(&output).contains(why), "{name}: {}", said(&output));
        assert!(!directory.join("new/feature-store.redb").exists(), "{name}");
    };
    let whole = answer.body;
    refused("empty", b"", "ends too early");
    refused("other", b"PK\x03\x04 and then something else altogether", "does not begin");
    for cut in [30, whole.len() / 2, whole.len() - 1] {
        refused("cut", &whole[..cut], "ends too early");
    }
    let mut changed = whole.clone();
    changed[whole.len() - 60] ^= 1;
    refused("changed", &changed, "not a whole one");
    let mut long = whole.clone();
    long[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    refused("long", &long, "too great");
    std::fs::write(directory.join("whole"), &whole).expect("a file");
    let output = run(&["restore", "whole", "--data-dir", "data"], directory);
    assert!(said(&output).contains("is not empty"), "{}", said(&output));
    let output = run(&["backup", "--output", "whole"], directory);
    assert!(said(&output).contains("is there already"), "{}", said(&output));
    let output = run(&["backup", "--output", "new-one", "--url", "http://127.0.0.1:1"], directory);
    assert!(said(&output).contains("no backup from"), "{}", said(&output));
    assert!(!directory.join("new-one").exists() && !directory.join("new-one.unfinished").exists());
    assert!(run(&["restore", "whole", "--data-dir", "new"], directory).status.success());
}

#[tokio::test]
async fn redis_is_left_to_make_its_own() {
    let server = On::Redis.server().await;
    let problem = server.post("/v1/admin/backup", &json!({})).await.problem(400, "invalid_request");
    assert!(problem["detail"].to_string().contains("BGSAVE"), "{problem}");
}
