//! Configuration: defaults, then a file, then the environment. A key that nobody knows, or two
//! that contradict each other, stop the start with the key's name and where it came from.

pub mod alerts;
mod check;
mod environment;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::compiled::Defaults;
use crate::domain::time::{Span, Ttl};
use crate::keys;
use crate::monitor::Cardinality;
use crate::monitor::webhook::WebhookConfig;
use crate::service::export_file::ExportFiles;
use crate::service::watch::WatchSettings;
use crate::service::{Limits, Settings};
use crate::store::cache::CacheConfig;

use self::alerts::AlertsConfig;
use self::check::{explain, refuse_unknown_keys};
use self::environment::Environment;

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
    /// How often keys and certificates are looked at for changes.
    pub reload_interval: Span,
    /// Log filter, as in `info,feature_store=debug`.
    pub log: String,
    /// `auto` (text on a terminal, JSON elsewhere), `text` or `json`.
    pub log_format: LogFormat,
}

/// A length of time that may be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Duration0(pub Duration);

impl Serialize for Duration0 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_secs())
    }
}

impl<'de> Deserialize<'de> for Duration0 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Seconds(u64),
            Span(Span),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => Self(Duration::from_secs(seconds)),
            Written::Span(span) => Self(span.as_duration()),
        })
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// Where embeddings of texts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingChoice {
    Hashing,
    OpenAi,
}

/// Whether requests must show a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthChoice {
    None,
    ApiKeys,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
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
            redis_pool_size: 4,
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
            reload_interval: Span::from_secs(1),
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
        }
    }
}

/// Where features are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    Embedded(PathBuf),
    Redis(Secret),
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

    /// The store that these settings choose.
    pub fn store(&self) -> StoreChoice {
        if let Some(url) = &self.store_url {
            return match url.expose().strip_prefix("embedded:") {
                Some(dir) => StoreChoice::Embedded(PathBuf::from(dir)),
                None => StoreChoice::Redis(url.clone()),
            };
        }
        match &self.redis_host {
            Some(host) => {
                let port = self.redis_port.unwrap_or(6379);
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                StoreChoice::Redis(Secret(format!("redis://{host}:{port}")))
            }
            None => StoreChoice::Embedded(self.data_dir.clone()),
        }
    }

    /// Where the keys come from; `None` where nobody is asked for one.
    pub fn keys(&self) -> Option<keys::Source> {
        let file = self.api_keys_file.clone().map(keys::Source::File);
        file.or_else(|| Some(keys::Source::Text(self.api_keys.as_ref()?.expose().to_owned())))
    }

    pub fn cardinality(&self) -> Cardinality {
        Cardinality { entity_types: self.metrics_max_entity_types, features: self.metrics_max_features }
    }

    pub fn watch(&self) -> WatchSettings {
        WatchSettings {
            rules: self.alerts.rules(),
            patience: self.alerts.patience(),
            window_seconds: (self.alerts.window.as_millis() / 1000) as u32,
            min_samples: self.alerts.min_samples,
            stale_after: self.alerts.stale_after,
            timeout: self.readiness_timeout.as_duration(),
        }
    }

    /// `None`: nobody is to be told.
    pub fn webhook(&self) -> Option<WebhookConfig> {
        let named = self.alerts.instance.clone();
        Some(WebhookConfig {
            url: self.alerts.webhook_url.clone()?,
            timeout: self.alerts.webhook_timeout.as_duration(),
            instance: named.unwrap_or_else(|| format!("{}:{}", host_name(), self.listen.port())),
        })
    }

    /// `None`: exports are not kept as files.
    pub fn export_files(&self) -> Option<ExportFiles> {
        Some(ExportFiles {
            dir: self.export_dir.clone()?,
            retention: self.export_retention,
            max_bytes: self.max_export_bytes,
        })
    }

    pub fn settings(&self) -> Settings {
        Settings {
            defaults: Defaults {
                ttl: self.default_ttl,
                embedding_ttl: self.embedding_ttl,
                versioning: self.enable_versioning,
                max_versions: self.max_versions,
            },
            auto_register: self.auto_register,
            max_clock_skew: self.max_clock_skew,
            history_ttl: self.history_ttl,
            exclusive_store: matches!(self.store(), StoreChoice::Embedded(_)),
            limits: Limits {
                max_batch_size: self.max_batch_size,
                max_features: self.max_features,
                max_page_size: self.max_page_size,
            },
            cache: (self.cache_bytes > 0).then(|| CacheConfig {
                bytes: self.cache_bytes as u64,
                max_lag: self.cache_max_lag.as_duration(),
                stale_if_error: Span::from_millis(self.stale_if_error.0.as_millis() as u64),
            }),
        }
    }
}

/// The machine's name, which in Kubernetes is the pod's.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}
