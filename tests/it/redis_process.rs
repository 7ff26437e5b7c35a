//! Real `redis-server` processes on free loopback ports, gone when they are dropped.

use std::future::Future;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What a test waits for at most.
pub const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives something, and says what was waited for where it never does.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        tokio::time::sleep(POLL).await;
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::sleep(POLL);
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Whether data survives a `kill -9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    None,
    /// Every write is synced to disk before it is answered.
    Always,
}

/// One `redis-server`.
pub struct RedisServer {
    pub port: u16,
    args: Vec<String>,
    password: Option<String>,
    child: Option<Child>,
    dir: TempDir,
}

impl RedisServer {
    pub fn start(durability: Durability) -> Self {
        Self::start_with(durability, None, &[])
    }

    pub fn with_password(password: &str) -> Self {
        Self::start_with(Durability::None, Some(password), &["--requirepass", password])
    }

    pub fn replica_of(primary: &Self) -> Self {
        let port = primary.port.to_string();
        let server = Self::start_with(Durability::None, None, &["--replicaof", "127.0.0.1", &port]);
        wait_for("the replica to be in sync", || {
            let follows = server.cli(&["INFO", "replication"]).contains("master_link_status:up");
            follows && primary.write_is_acknowledged()
        });
        server
    }

    /// Whether a replica acknowledges what is written now. `WAIT` alone does not tell: it counts a
    /// replica that has yet to acknowledge anything for a connection that has yet to write.
    fn write_is_acknowledged(&self) -> bool {
        let mut session = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli must be installed to run these tests");
        // A message is replicated as writes are, and leaves no key.
        let commands = b"PUBLISH probe x\nWAIT 1 100\n";
        session.stdin.take().expect("a piped input").write_all(commands).expect("redis-cli reads");
        let output = session.wait_with_output().expect("redis-cli ends");
        String::from_utf8_lossy(&output.stdout).lines().last() == Some("1")
    }

    pub fn start_with(durability: Durability, password: Option<&str>, more: &[&str]) -> Self {
        let mut args: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
            .iter()
            .chain(["--repl-diskless-sync-delay", "0"].iter())
            .chain(more)
            .map(|arg| (*arg).to_owned())
            .collect();
        if durability == Durability::Always {
            args.extend(["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned));
        }
        // Another process may take the port between finding it free and the server's start.
        for _ in 0..10 {
            let mut server = Self {
                port: free_port(),
                args: args.clone(),
                password: password.map(str::to_owned),
                child: None,
                dir: TempDir::new().expect("a temporary directory"),
            };
            if server.try_spawn() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    fn try_spawn(&mut self) -> bool {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log file");
        let mut child = Command::new("redis-server")
            .args(["--port", &self.port.to_string()])
            .args(&self.args)
            .arg("--dir")
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed to run these tests");
        let start = Instant::now();
        loop {
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            // Who answers may be another process that has the port; it has not this process's id.
            let info = cli(self.port, self.password.as_deref(), &["INFO", "server"]);
            if info.contains(&format!("process_id:{}\r", child.id()))
                && TcpStream::connect(self.address()).is_ok()
            {
                self.child = Some(child);
                return true;
            }
            assert!(start.elapsed() < DEADLINE, "redis-server does not answer");
            std::thread::sleep(POLL);
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, self.password.as_deref(), args)
    }

    /// How often commands were called since the statistics were reset.
    pub fn calls<const N: usize>(&self, commands: [&str; N]) -> [u64; N] {
        let stats = self.cli(&["INFO", "commandstats"]);
        commands.map(|command| {
            let prefix = format!("cmdstat_{command}:calls=");
            let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
            line.map_or(0, |rest| rest.split(',').next().unwrap_or_default().parse().expect("a number"))
        })
    }

    /// Like `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// Starts again on the same port with the same data directory.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.try_spawn(), "redis-server does not start again on port {}", self.port);
        wait_for("the data to be loaded", || self.cli(&["PING"]).contains("PONG"));
    }

    /// Starts again as [`Self::restart`] does, so slow to load its data that it answers `LOADING`
    /// for about `seconds`.
    pub fn restart_slowly(&mut self, seconds: u64) {
        // The delay is for each key of a snapshot, in microseconds.
        self.cli(&["SAVE"]);
        let keys: u64 = self.cli(&["DBSIZE"]).parse().expect("a number");
        let delay = (seconds * 1_000_000 / keys.max(1)).to_string();
        let args = ["--key-load-delay", &delay, "--loading-process-events-interval-bytes", "1024"];
        let before = self.args.len();
        self.args.extend(args.map(str::to_owned));
        self.kill();
        assert!(self.try_spawn(), "redis-server does not start again on port {}", self.port);
        self.args.truncate(before);
    }

    /// Freezes the process: its connections stay open and nothing is answered.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("the server runs").id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill can be run");
        assert!(status.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn cli(port: u16, password: Option<&str>, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]);
    if let Some(password) = password {
        command.args(["--no-auth-warning", "-a", password]);
    }
    let output = command.args(args).output().expect("redis-cli must be installed to run these tests");
    String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
}

/// Three primaries that share the slots, and a replica of each if asked for.
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
    /// The port of the first one, as clients are to reach it.
    entrance: u16,
}

impl RedisCluster {
    pub fn start() -> Self {
        Self::start_with(0)
    }

    /// The second half of the nodes are replicas.
    pub fn with_replicas() -> Self {
        Self::start_with(1)
    }

    fn start_with(replicas: usize) -> Self {
        let nodes: Vec<RedisServer> = (0..3 * (1 + replicas)).map(|_| Self::node(Vec::new())).collect();
        let addresses: Vec<String> = nodes.iter().map(RedisServer::address).collect();
        Self::create(nodes, addresses, replicas, &[])
    }

    /// Of nodes that clients and other nodes reach over TLS: `args` makes a node's of the port for that.
    pub fn over_tls(
        args: impl Fn(u16) -> Vec<String>,
        ca: &std::path::Path,
        client: &crate::certificates::Files,
    ) -> Self {
        let ports = [(); 3].map(|()| free_port());
        let node = |port: &u16| {
            let cluster = ["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned);
            Self::node(args(*port).into_iter().chain(cluster).collect())
        };
        let nodes: Vec<RedisServer> = ports.iter().map(node).collect();
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let text = |path: &std::path::Path| path.display().to_string();
        let (ca, certificate, key) = (text(ca), text(&client.certificate), text(&client.key));
        let tls = ["--tls", "--cacert", &ca, "--cert", &certificate, "--key", &key];
        let mut cluster = Self::create(nodes, addresses, 0, &tls);
        cluster.entrance = ports[0];
        cluster
    }

    fn node(more: Vec<String>) -> RedisServer {
        let bus = free_port().to_string();
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "2000",
            "--cluster-announce-ip",
            "127.0.0.1",
        ];
        let args: Vec<&str> = args.into_iter().chain(more.iter().map(String::as_str)).collect();
        RedisServer::start_with(Durability::None, None, &args)
    }

    fn create(nodes: Vec<RedisServer>, addresses: Vec<String>, replicas: usize, tls: &[&str]) -> Self {
        let mut create = Command::new("redis-cli");
        create.args(tls).args(["--cluster", "create"]).args(addresses);
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let output = create.output().expect("redis-cli must be installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        for node in &nodes {
            wait_for("the cluster to be whole", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_size:3")
            });
        }
        for primary in &nodes[..3] {
            wait_for("the replicas to be in sync", || {
                let info = primary.cli(&["INFO", "replication"]);
                info.matches("state=online").count() == replicas
            });
        }
        let entrance = nodes[0].port;
        Self { nodes, entrance }
    }

    /// Moves so many slots from the first to the second node, with what is in them.
    pub fn reshard(&self, slots: usize) {
        let id = |node: usize| self.nodes[node].cli(&["CLUSTER", "MYID"]);
        let output = Command::new("redis-cli")
            .args(["--cluster", "reshard", &self.nodes[0].address()])
            .args(["--cluster-from", &id(0), "--cluster-to", &id(1)])
            .args(["--cluster-slots", &slots.to_string(), "--cluster-yes"])
            .output()
            .expect("redis-cli must be installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// Whether one of the replicas has become a primary.
    pub fn has_failed_over(&self) -> bool {
        self.nodes[3..].iter().any(|node| node.cli(&["ROLE"]).starts_with("master"))
    }

    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.entrance)
    }
}

/// A primary, a replica, and three Sentinels that look after them.
pub struct RedisSentinels {
    pub servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Nothing is left to do where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RedisSentinels {
    pub fn start() -> Self {
        let primary = RedisServer::start(Durability::None);
        let replica = RedisServer::replica_of(&primary);
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Self::sentinel(primary.port)).collect();
        for sentinel in &sentinels {
            wait_for("the Sentinels to know each other and the replica", || {
                let known = cli(sentinel.port, None, &["SENTINEL", "MASTER", "main"]);
                let lines: Vec<&str> = known.lines().collect();
                let field = |name| lines.iter().position(|line| *line == name).map(|at| lines[at + 1]);
                field("num-slaves") == Some("1")
                    && field("num-other-sentinels") == Some("2")
                    && field("flags") == Some("master")
            });
        }
        Self { servers: vec![primary, replica], sentinels }
    }

    fn sentinel(primary: u16) -> Sentinel {
        let dir = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n",
            dir.path().display()
        );
        std::fs::write(&config, text).expect("a configuration file");
        let child = Command::new("redis-server")
            .arg(&config)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed to run these tests");
        Sentinel { port, child, _dir: dir }
    }

    pub fn url(&self) -> String {
        let others: String =
            self.sentinels[1..].iter().map(|s| format!("&node=127.0.0.1:{}", s.port)).collect();
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main{others}", self.sentinels[0].port)
    }

    /// The port of the server that the Sentinels call the primary.
    pub fn primary_port(&self) -> Option<u16> {
        let answer = cli(self.sentinels[0].port, None, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
        answer.lines().nth(1)?.parse().ok()
    }
}
