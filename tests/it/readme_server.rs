//! The built binary as a newcomer starts it, on a free loopback port; for the tests of what newcomers read.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_feature-store");
const DEADLINE: Duration = Duration::from_secs(30);

/// The binary, without any setting that the environment of the tests may hold.
pub fn binary() -> Command {
    let mut command = Command::new(BINARY);
    let ours = |key: &str| key.starts_with("FEATURE_STORE_") || key.starts_with("REDIS_");
    for (key, _) in std::env::vars().filter(|(key, _)| ours(key)) {
        command.env_remove(key);
    }
    command
}

/// One server on a fresh embedded store.
pub struct ServerProcess {
    pub address: String,
    child: Child,
    _dir: TempDir,
}

impl ServerProcess {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        drop(listener);
        let dir = tempfile::tempdir().expect("a directory");
        let configured = |command: &mut Command| {
            command.current_dir(dir.path()).env("FEATURE_STORE_LISTEN", &address);
            command.env("FEATURE_STORE_LOG", "warn");
        };
        let mut serve = binary();
        configured(&mut serve);
        let child = serve.stdin(Stdio::null()).spawn().expect("the binary starts");
        let start = Instant::now();
        loop {
            let mut healthcheck = binary();
            configured(&mut healthcheck);
            let output = healthcheck.arg("healthcheck").output().expect("the binary starts");
            if output.status.success() {
                return Self { address, child, _dir: dir };
            }
            assert!(start.elapsed() < DEADLINE, "not ready: {output:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // What is left to end may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
