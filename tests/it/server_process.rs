//! The built binary as a process of its own, with a data directory, to be killed and restarted.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::redis_process::{DEADLINE, RedisServer, eventually};

const POLL: Duration = Duration::from_millis(5);

/// A running `feature-store serve`; killed when dropped.
pub struct ServerProcess {
    pub client: Client,
    pub address: SocketAddr,
    log: PathBuf,
    child: Child,
}

/// What a server is started with, any number of times.
pub struct Launch {
    pub dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Launch {
    /// On an embedded store in a directory of its own.
    pub fn embedded() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        Self { dir, settings: vec![("FEATURE_STORE_DATA_DIR".to_owned(), data.display().to_string())] }
    }

    pub fn on_redis(redis: &RedisServer) -> Self {
        Self::on(redis.url())
    }

    /// On the store of this URL.
    pub fn on(store_url: String) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        Self { dir, settings: vec![("FEATURE_STORE_STORE_URL".to_owned(), store_url)] }
    }

    pub fn with(self, name: &str, value: &str) -> Self {
        self.with_environment(&format!("FEATURE_STORE_{name}"), value)
    }

    /// With an environment variable that is no setting.
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spawn(&self, log: &Path) -> Child {
        // Nothing of the environment of whoever runs the tests may become a setting.
        Command::new(binary())
            .current_dir(self.dir.path())
            .env_clear()
            .env("FEATURE_STORE_LISTEN", "127.0.0.1:0")
            .env("FEATURE_STORE_LOG_FORMAT", "json")
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("a log file"))
            .spawn()
            .expect("the built binary can be started")
    }

    /// Starts a server and waits until it is ready.
    pub async fn start(&self) -> ServerProcess {
        let server = self.start_unready().await;
        eventually("the server to be ready", || async {
            let request = server.client.request(reqwest::Method::GET, "/readyz");
            let answer = server.client.try_send(request).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        server
    }

    /// Starts a server that listens, and may not be ready.
    pub async fn start_unready(&self) -> ServerProcess {
        let log = self.log("log");
        let mut child = self.spawn(&log);
        let address = wait_for("the server to listen", || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("the server ended with {status}: {}", read(&log));
            }
            address(&read(&log))
        })
        .await;
        ServerProcess { client: Client::new(address), child, address, log }
    }

    /// Starts a server that must give up, and tells how it ended and what it said.
    pub async fn start_in_vain(&self) -> (ExitStatus, String) {
        let log = self.log("log-in-vain");
        let mut child = self.spawn(&log);
        let status =
            wait_for("the server to give up", || child.try_wait().expect("a child can be asked")).await;
        (status, read(&log))
    }
}

/// The binary of this build, unless another is asked for: a release build to be soaked, say.
fn binary() -> PathBuf {
    let other = std::env::var_os("FEATURE_STORE_TEST_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_feature-store")))
}

impl ServerProcess {
    /// What it has said so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Memory that the process holds now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Like `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Freezes the process: its connections stay open and nothing is answered.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill can be run");
        assert!(status.success());
    }

    /// How it ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        wait_for("the server to end", || self.child.try_wait().expect("a child can be asked")).await
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Nothing is left to do where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        tokio::time::sleep(POLL).await;
    }
}

fn read(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(log) {
        file.read_to_string(&mut text).expect("a log is text");
    }
    text
}

/// The address that the line "serving" of a log names.
fn address(log: &str) -> Option<SocketAddr> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut serving = lines.filter(|line| line["message"] == "serving");
    serving.next()?["address"].as_str()?.parse().ok()
}
