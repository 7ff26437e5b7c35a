//! From a URL to connections that look after themselves.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::RespVersion;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, Server, TcpConfig,
    TlsConnector, UnresponsiveConfig,
};

use super::link::Link;
use crate::store::StoreError;
use crate::tls::ClientTls;

/// Where Redis is and how to speak to it.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` (TLS), `redis-cluster://host:port?node=host:port`,
    /// `rediss-cluster://`, or `redis-sentinel://host:port?sentinelServiceName=name&node=host:port`.
    pub url: String,
    /// Instead of the one in the URL.
    pub username: Option<String>,
    /// Instead of the one in the URL.
    pub password: Option<String>,
    /// For URLs of the `rediss` family.
    pub tls: ClientTls,
    /// So many connections to each server.
    pub pool_size: usize,
    /// After so long a request is given up.
    pub command_timeout: Duration,
    /// So long one attempt to connect may take, and so long [`super::RedisStore::connect`] waits
    /// for the first connections.
    pub connect_timeout: Duration,
    /// So many replicas must have a commit before it counts.
    pub wait_replicas: u32,
    /// What every key begins with: letters, digits and `_-.:/`.
    pub key_prefix: String,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            username: None,
            password: None,
            tls: ClientTls::default(),
            pool_size: 2,
            command_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            wait_replicas: 0,
            key_prefix: "fs".to_owned(),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |text: &Option<String>| text.as_ref().map(|_| "[hidden]");
        f.debug_struct("RedisConfig")
            .field("url", &without_credentials(&self.url))
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("tls", &self.tls)
            .field("pool_size", &self.pool_size)
            .field("command_timeout", &self.command_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("wait_replicas", &self.wait_replicas)
            .field("key_prefix", &self.key_prefix)
            .finish()
    }
}

/// Scheme and hosts of a URL: neither what stands before an `@` nor any parameter, which may be a
/// Sentinel password.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "[not a URL]".to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let host = rest.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

/// What kind of installation a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Single,
    Sentinel,
    Cluster,
}

impl Topology {
    pub fn backend(self) -> &'static str {
        match self {
            Self::Single => "redis",
            Self::Sentinel => "redis-sentinel",
            Self::Cluster => "redis-cluster",
        }
    }
}

/// The connections of a store.
pub(super) struct Links {
    links: Vec<Link>,
    turn: AtomicUsize,
    pub topology: Topology,
    /// Scheme and hosts, without credentials.
    pub location: String,
}

impl Links {
    /// Starts connecting in the background and gives that a moment. Redis being down is no error:
    /// the links go on trying, and refuse commands until they are connected.
    pub async fn connect(config: &RedisConfig) -> Result<Self, StoreError> {
        let fred_config = fred_config(config)?;
        let topology = if fred_config.server.is_clustered() {
            Topology::Cluster
        } else if fred_config.server.is_sentinel() {
            Topology::Sentinel
        } else {
            Topology::Single
        };
        let location = without_credentials(&config.url);
        let links: Vec<Link> = (0..config.pool_size.max(1))
            .map(|_| {
                let client = Client::new(
                    fred_config.clone(),
                    Some(performance(config)),
                    Some(connection(config)),
                    Some(ReconnectPolicy::new_exponential(0, 50, 2000, 2)),
                );
                Link::start(client, location.clone())
            })
            .collect();
        let all_up = async {
            while !links.iter().all(Link::is_up) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // Not being up in time is for the commands to say.
        let _ = tokio::time::timeout(config.connect_timeout, all_up).await;
        Ok(Self { links, turn: AtomicUsize::new(0), topology, location })
    }

    /// A link of its own for hearing of changes: it takes what the server sends unasked.
    pub fn listener(config: &RedisConfig) -> Result<Link, StoreError> {
        let fred_config = Config { version: RespVersion::RESP3, ..fred_config(config)? };
        // What does not fit is lost, and everything is forgotten then: room for what comes in while
        // this process is held up. A place takes about a kilobyte, in all of fred's channels together.
        let performance = PerformanceConfig { broadcast_channel_capacity: 16_384, ..performance(config) };
        let policy = ReconnectPolicy::new_exponential(0, 50, 2000, 2);
        let client = Client::new(fred_config, Some(performance), Some(connection(config)), Some(policy));
        Ok(Link::start(client, without_credentials(&config.url)))
    }

    /// Every primary that any of the links knows of; empty where there is but one server.
    pub fn known_primaries(&self) -> Vec<Server> {
        let mut servers: Vec<Server> =
            self.links.iter().filter(|link| link.is_up()).filter_map(Link::primaries).flatten().collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// The next link that is up.
    pub fn get(&self) -> Result<&Link, StoreError> {
        let count = self.links.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let up = (0..count).map(|i| &self.links[(turn + i) % count]).find(|link| link.is_up());
        up.ok_or_else(|| self.links[turn % count].down())
    }

    pub fn is_cluster(&self) -> bool {
        self.topology == Topology::Cluster
    }

    /// How often any link broke or was connected anew: what was remembered of an earlier server may be
    /// wrong of the one that took its place.
    pub fn generation(&self) -> u64 {
        self.links.iter().map(Link::generation).sum()
    }

    pub async fn close(&self) {
        futures::future::join_all(self.links.iter().map(Link::close)).await;
    }
}

impl Link {
    /// Every primary of a cluster in a stable order; `None` where there is but one server.
    pub fn primaries(&self) -> Option<Vec<Server>> {
        use fred::interfaces::ClusterInterface;
        let client = self.client();
        client.is_clustered().then(|| {
            client.cached_cluster_state().map(|state| state.unique_primary_nodes()).unwrap_or_default()
        })
    }
}

fn fred_config(config: &RedisConfig) -> Result<Config, StoreError> {
    let scheme = config.url.split("://").next().unwrap_or_default();
    let known = ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
    let refuse = |reason: &str| {
        let url = without_credentials(&config.url);
        Err(StoreError::Internal(format!("the store URL {url} is of no use: {reason}")))
    };
    if !known.contains(&scheme) {
        return refuse("the scheme is none of redis, rediss, redis-cluster, rediss-cluster, redis-sentinel");
    }
    let mut fred = match Config::from_url(&config.url) {
        Ok(fred) => fred,
        // Not with fred's own words, which may repeat a part of the URL.
        Err(error) => return refuse(error.kind().to_str()),
    };
    if config.username.is_some() {
        fred.username.clone_from(&config.username);
    }
    if config.password.is_some() {
        fred.password.clone_from(&config.password);
    }
    if scheme.starts_with("rediss") {
        // Not fred's own choice, which is to trust the system's authorities and nobody else.
        match config.tls.config() {
            Ok(tls) => fred.tls = Some(TlsConnector::from(tls).into()),
            Err(error) => return refuse(&error.to_string()),
        }
    }
    // Otherwise the first attempt would be the only one.
    fred.fail_fast = false;
    Ok(fred)
}

fn performance(config: &RedisConfig) -> PerformanceConfig {
    PerformanceConfig { default_command_timeout: config.command_timeout, ..PerformanceConfig::default() }
}

fn connection(config: &RedisConfig) -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: config.connect_timeout,
        internal_command_timeout: config.connect_timeout,
        // Redirections in a cluster count as attempts. Commands that were written to a connection
        // that broke are never written again, whatever this says: see `Link`.
        max_command_attempts: 5,
        max_redirections: 5,
        // A server that is frozen or cut off closes nothing.
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(config.command_timeout * 2),
            interval: Duration::from_millis(500),
        },
        // A demoted primary refuses writes; a restarting one refuses everything.
        reconnect_errors: vec![
            ReconnectError::ReadOnly,
            ReconnectError::Loading,
            ReconnectError::MasterDown,
            ReconnectError::ClusterDown,
        ],
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let config = RedisConfig {
            url: "redis-sentinel://u:s3cret@a:1?sentinelServiceName=m&sentinelPassword=s3cret".to_owned(),
            password: Some("s3cret".to_owned()),
            ..RedisConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("redis-sentinel://a:1"), "{shown}");
        for url in ["redis://u:s3cret@:x", "redis://u:s3c@ret@host:port", "http://u:s3cret@a", "s3cret"] {
            let config = RedisConfig { url: url.to_owned(), ..RedisConfig::default() };
            let error = fred_config(&config).unwrap_err().to_string();
            assert!(!error.contains("s3c"), "{error}");
        }
    }

    #[test]
    fn urls_name_the_topology() {
        for (url, cluster, sentinel) in [
            ("redis://localhost", false, false),
            ("rediss://u:p@localhost:6380/1", false, false),
            ("redis-cluster://a:1?node=b:2", true, false),
            ("redis-sentinel://a:1?sentinelServiceName=m&node=b:2", false, true),
        ] {
            let config = RedisConfig { url: url.to_owned(), ..RedisConfig::default() };
            let fred = fred_config(&config).unwrap();
            assert_eq!(fred.server.is_clustered(), cluster, "{url}");
            assert_eq!(fred.server.is_sentinel(), sentinel, "{url}");
        }
    }
}
