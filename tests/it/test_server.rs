//! The real server in this process: on a free port, with a clock that tests move, on either store.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use feature_store::clock::{Clock, ManualClock, SystemClock};
use feature_store::config::Config;
use feature_store::domain::time::Timestamp;
use feature_store::server::{self, StartError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::redis_process::{Durability, RedisServer, eventually};

/// Makes two tests of each function that takes an [`On`]: one for each store.
#[macro_export]
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $name() { super::$name($crate::test_server::On::Embedded).await; })+
        }
        mod redis {
            $(#[tokio::test] async fn $name() { super::$name($crate::test_server::On::Redis).await; })+
        }
    };
}

/// The store that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Embedded,
    Redis,
}

impl On {
    pub async fn server(self) -> TestServer {
        self.server_with(|_| {}).await
    }

    pub async fn server_with(self, set: impl FnOnce(&mut Config)) -> TestServer {
        let mut config = Config::default();
        let (data, redis) = match self {
            Self::Embedded => (Some(TempDir::new().expect("a temporary directory")), None),
            Self::Redis => (None, Some(RedisServer::start(Durability::None))),
        };
        if let Some(data) = &data {
            config.data_dir = data.path().to_owned();
        }
        if let Some(redis) = &redis {
            on_redis(&mut config, redis);
        }
        set(&mut config);
        let mut server = TestServer::start(config).await;
        (server._data, server.redis) = (data, redis);
        server.ready().await;
        server
    }
}

/// Points a configuration to a Redis server.
pub fn on_redis(config: &mut Config, redis: &RedisServer) {
    config.redis_host = Some("127.0.0.1".to_owned());
    config.redis_port = Some(redis.port);
}

/// A server, gone with the test's runtime. Everything that a [`Client`] does, it does as well.
pub struct TestServer {
    pub client: Client,
    pub clock: Arc<ManualClock>,
    /// The store below, if it is this server's own Redis.
    pub redis: Option<RedisServer>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), StartError>>,
    _data: Option<TempDir>,
}

impl Deref for TestServer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestServer {
    /// Starts without waiting for readiness. The clock starts at the present, since Redis expires
    /// keys by its own.
    pub async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let (stop, stopped) = oneshot::channel::<()>();
        let clock_of_server = clock.clone();
        let serving = tokio::spawn(async move {
            let shutdown = async {
                // An error is a sender that was dropped with the test.
                let _ = stopped.await;
            };
            server::run(&config, listener, clock_of_server, shutdown).await
        });
        Self { client: Client::new(address), clock, redis: None, stop: Some(stop), serving, _data: None }
    }

    /// Waits for readiness.
    pub async fn ready(&self) {
        eventually("the server to be ready", || async {
            (self.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }

    /// Asks the server to stop, as a signal would.
    pub fn stop(&mut self) {
        let stop = self.stop.take().expect("a server stops once");
        stop.send(()).expect("the server runs");
    }

    /// How the server ended.
    pub async fn stopped(self) -> Result<(), StartError> {
        self.serving.await.expect("the server does not panic")
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// So many seconds from the server's present.
    pub fn time(&self, seconds: i64) -> String {
        let at = Timestamp::from_millis(self.clock.now().as_millis() + seconds * 1000);
        at.expect("a time in the calendar").to_string()
    }
}
