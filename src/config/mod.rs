//! Configuration: defaults, then a file, then the environment. A key that nobody knows, or two
//! that contradict each other, stop the start with the key's name and where it came from.

pub mod alerts;
mod check;
mod check_edge;
mod derived;
mod environment;
#[cfg(test)]
mod tests;
mod types;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::domain::time::{Span, Ttl};

use self::alerts::AlertsConfig;
use self::check::{explain, refuse_unknown_keys};
use self::environment::Environment;

pub use self::derived::StoreChoice;
pub use self::types::{AuthChoice, Duration0, EmbeddingChoice, LogFormat, Secret};

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "feature-store.toml";

const MAX_LAG: Span = match Span::from_millis(100) {
    Some(span) => span,
    None => Span::from_secs(1),
};

/// Everything that can be set. Durations are seconds or text such as `"1h"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Address and port of the HTTP server.
    pub listen: SocketAddr,
    /// Where the embedded store keeps its files.
    pub data_dir: PathBuf,
    /// `embedded:DIR`, `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://`, …
    pub store_url: Option<Secret>,
    pub redis_host: Option<String>,
    pub redis_port: Option<u16>,
    pub redis_username: Option<String>,
    pub redis_password: Option<Secret>,
    /// Authorities of the certificates of Redis as PEM (default: the system's); for `rediss` URLs, as
    /// the others are.
    pub redis_tls_ca: Option<PathBuf>,
    /// Certificate chain that is shown to Redis.
    pub redis_tls_cert: Option<PathBuf>,
    /// Its private key.
    pub redis_tls_key: Option<PathBuf>,
    /// The name that certificates of Redis must be for (default: the host that is connected to).
    pub redis_tls_server_name: Option<String>,
    /// Connections to Redis.
    pub redis_pool_size: usize,
    pub redis_command_timeout: Span,
    pub redis_connect_timeout: Span,
    /// What all keys in Redis start with.
    pub redis_key_prefix: String,
    /// So many replicas must have a write before it is acknowledged.
    pub wait_replicas: u32,
    /// A call of the store is given up after so long, retries included.
    pub store_timeout: Span,
    /// So often a call of the store is repeated at most, where that is safe.
    pub store_retries: u32,
    /// After so many calls of the store that failed in a row, further ones are refused at once until
    /// it is back; 0: never.
    pub circuit_failures: u32,
    /// Memory that the embedded store may use as a page cache, in bytes.
    pub embedded_cache_bytes: usize,
    /// Memory for entities that were read lately; 0: none are kept.
    pub cache_bytes: usize,
    /// How long ago, at most, Redis may have said last that what is kept is still true.
    pub cache_max_lag: Span,
    /// For so long kept values are served while Redis cannot be reached.
    pub stale_if_error: Duration0,
    pub default_ttl: Ttl,
    pub embedding_ttl: Ttl,
    pub enable_versioning: bool,
    pub max_versions: u32,
    /// How long history outlives the value's expiry.
    pub history_ttl: Span,
    /// Whether unknown features and entity types are registered with inferred types.
    pub auto_register: bool,
    /// How far in the future an event timestamp may lie.
    pub max_clock_skew: Span,
    /// How often other servers' changes of the registry are looked for.
    pub registry_refresh: Span,
    /// How often the embedded store frees what has expired.
    pub reap_interval: Span,
    /// Where `embed(text)` gets embeddings from: `hashing` (built in) or `openai`.
    pub embedding_provider: EmbeddingChoice,
    /// Of an OpenAI-compatible server, up to before `/embeddings`.
    pub embedding_url: Option<String>,
    pub embedding_model: Option<String>,
    /// Normally from the environment.
    pub embedding_api_key: Option<Secret>,
    /// Of one attempt.
    pub embedding_timeout: Span,
    /// Texts in one request.
    pub embedding_batch_size: usize,
    /// Attempts after the first one.
    pub embedding_retries: u32,
    /// Memory for embeddings that were fetched before.
    pub embedding_cache_bytes: usize,
    /// Whether the model is asked for the dimension of the schema.
    pub embedding_send_dimensions: bool,
    /// Whether metrics are recorded and served.
    pub enable_monitoring: bool,
    /// So many entity types have labels of their own in metrics; the others share one.
    pub metrics_max_entity_types: usize,
    /// So many features are watched for freshness, each with labels of its own.
    pub metrics_max_features: usize,
    /// Where `/metrics` is served instead of on `listen`.
    pub metrics_listen: Option<SocketAddr>,
    pub alerts: AlertsConfig,
    pub max_body_bytes: usize,
    /// The largest body of an import; `max_body_bytes` does not bound those.
    pub max_import_bytes: u64,
    /// Where imports are kept that must be whole before they are read (default: the system's
    /// directory for temporary files).
    pub spool_dir: Option<PathBuf>,
    /// Where exports are kept that were asked for as files; without it there are none.
    pub export_dir: Option<PathBuf>,
    /// How long they are kept.
    pub export_retention: Span,
    /// How many bytes they may take together.
    pub max_export_bytes: u64,
    pub request_timeout: Span,
    /// For the TLS handshake, and for the head of a request from its first byte on.
    pub header_timeout: Span,
    /// How long a connection may be open between two requests.
    pub idle_timeout: Span,
    /// How long a client may send nothing of a body that it has begun, or take nothing of an answer.
    pub stall_timeout: Span,
    /// Of the head of a request.
    pub max_header_bytes: usize,
    pub max_connections: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub http2_max_streams: u32,
    /// Certificate chain as PEM, the server's own first; read again when it changes, as the others are.
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    pub tls_key: Option<PathBuf>,
    /// Authorities one of which must have signed the certificate that a client shows.
    pub tls_client_ca: Option<PathBuf>,
    /// How long a readiness probe waits for the store.
    pub readiness_timeout: Span,
    /// How long requests under way may take to finish after the signal to stop.
    pub shutdown_grace: Span,
    /// How long the server still answers after that signal, unready, so that load balancers see it.
    pub shutdown_delay: Duration0,
    pub max_batch_size: usize,
    pub max_features: usize,
    pub max_page_size: usize,
    /// `none` or `api_keys`; without it, keys are asked for where there are any.
    pub auth: Option<AuthChoice>,
    /// A document of keys as JSON, YAML or TOML; read again when it changes.
    pub api_keys_file: Option<PathBuf>,
    /// The same document itself, as JSON or YAML; normally from the environment.
    pub api_keys: Option<Secret>,
    /// Whether `/docs` and `/openapi.json` need no key.
    pub public_docs: bool,
    /// Whether `/metrics` needs no key.
    pub public_metrics: bool,
    /// Requests a second that a key allows.
    pub rate_limit: Option<u32>,
    /// Requests at once that a key allows; as many as `rate_limit`, if not given.
    pub rate_burst: Option<u32>,
    /// Requests that are worked on at the same time; further ones are refused.
    pub max_concurrent_requests: usize,
    /// Where a line is appended for each change of the registry, deletion and rollback.
    pub audit_log: Option<PathBuf>,
    /// Origins whose pages may speak to the server.
    pub cors_origins: Vec<String>,
    /// Of a collector of traces (OTLP over HTTP), up to before `/v1/traces`; not set: nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// Headers for the collector, as in `Authorization=Bearer x,X-Tenant=y`; normally from the
    /// environment.
    pub otlp_headers: Option<Secret>,
    /// Share of the traces that are kept, where no caller has decided.
    pub otlp_sample_ratio: f64,
    /// What the server is called in traces.
    pub otlp_service_name: String,
    /// How often keys and certificates are looked at for changes.
    pub reload_interval: Span,
    /// Log filter, as in `info,feature_store=debug`.
    pub log: String,
    /// `auto` (text on a terminal, JSON elsewhere), `text` or `json`.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: PathBuf::from("./data"),
            store_url: None,
            redis_host: None,
            redis_port: None,
            redis_username: None,
            redis_password: None,
            redis_tls_ca: None,
            redis_tls_cert: None,
            redis_tls_key: None,
            redis_tls_server_name: None,
            redis_pool_size: 2,
            redis_command_timeout: Span::from_secs(2),
            redis_connect_timeout: Span::from_secs(5),
            redis_key_prefix: "fs".to_owned(),
            wait_replicas: 0,
            store_timeout: Span::from_secs(5),
            store_retries: 3,
            circuit_failures: 5,
            embedded_cache_bytes: 256 << 20,
            cache_bytes: 128 << 20,
            cache_max_lag: MAX_LAG,
            stale_if_error: Duration0::default(),
            default_ttl: Ttl::After(Span::from_secs(3600)),
            embedding_ttl: Ttl::After(Span::from_secs(86_400)),
            enable_versioning: true,
            max_versions: 10,
            history_ttl: Span::from_secs(7 * 86_400),
            auto_register: true,
            max_clock_skew: Span::from_secs(300),
            registry_refresh: Span::from_secs(1),
            reap_interval: Span::from_secs(10),
            embedding_provider: EmbeddingChoice::Hashing,
            embedding_url: None,
            embedding_model: None,
            embedding_api_key: None,
            embedding_timeout: Span::from_secs(10),
            embedding_batch_size: 64,
            embedding_retries: 2,
            embedding_cache_bytes: 64 << 20,
            embedding_send_dimensions: false,
            enable_monitoring: true,
            metrics_max_entity_types: 100,
            metrics_max_features: 500,
            metrics_listen: None,
            alerts: AlertsConfig::default(),
            max_body_bytes: 16 << 20,
            max_import_bytes: 16 << 30,
            spool_dir: None,
            export_dir: None,
            export_retention: Span::from_secs(86_400),
            max_export_bytes: 16 << 30,
            request_timeout: Span::from_secs(30),
            header_timeout: Span::from_secs(10),
            idle_timeout: Span::from_secs(75),
            stall_timeout: Span::from_secs(20),
            max_header_bytes: 64 << 10,
            max_connections: 10_000,
            http2_max_streams: 200,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            readiness_timeout: Span::from_secs(2),
            shutdown_grace: Span::from_secs(20),
            shutdown_delay: Duration0::default(),
            max_batch_size: 1000,
            max_features: 1000,
            max_page_size: 1000,
            auth: None,
            api_keys_file: None,
            api_keys: None,
            public_docs: true,
            public_metrics: true,
            rate_limit: None,
            rate_burst: None,
            max_concurrent_requests: 512,
            audit_log: None,
            cors_origins: Vec::new(),
            otlp_endpoint: None,
            otlp_headers: None,
            otlp_sample_ratio: 1.0,
            otlp_service_name: "feature-store".to_owned(),
            reload_interval: Span::from_secs(1),
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
        }
    }
}

/// Why the configuration cannot be used. Names the key and where it came from.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads the defaults, `file` (or `feature-store.toml`, if there), and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from(file, std::env::vars())
    }

    /// As [`Self::load`], with the environment given.
    pub fn load_from(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        match file {
            Some(path) if !path.is_file() => {
                return Err(ConfigError(format!("there is no configuration file {}", path.display())));
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None if Path::new(DEFAULT_FILE).is_file() => {
                figment = figment.merge(Toml::file_exact(DEFAULT_FILE))
            }
            None => {}
        }
        let (plain, own) = Environment::split(environment);
        let figment = figment.merge(plain).merge(own);
        refuse_unknown_keys(&figment)?;
        let config: Self = figment.extract().map_err(|error| ConfigError(explain(&error)))?;
        config.check(&figment)?;
        Ok(config)
    }
}
