//! Configuration: defaults, then a file, then the environment. A key that nobody knows, or two
//! that contradict each other, stop the start with the key's name and where it came from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::compiled::{Defaults, MAX_MAX_VERSIONS};
use crate::domain::time::{Span, Ttl};
use crate::service::{Limits, Settings};

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "feature-store.toml";
const ENV_PREFIX: &str = "FEATURE_STORE_";

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
    /// Memory that the embedded store may use as a page cache, in bytes.
    pub embedded_cache_bytes: usize,
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
    pub max_body_bytes: usize,
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
            embedded_cache_bytes: 256 << 20,
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
            max_body_bytes: 16 << 20,
            request_timeout: Span::from_secs(30),
            readiness_timeout: Span::from_secs(2),
            shutdown_grace: Span::from_secs(20),
            shutdown_delay: Duration0::default(),
            max_batch_size: 1000,
            max_features: 1000,
            max_page_size: 1000,
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
        }
    }

    fn check(&self, figment: &Figment) -> Result<(), ConfigError> {
        let origin = |key: &str| match figment.find_metadata(key) {
            Some(metadata) => format!("{key} ({})", describe(metadata)),
            None => key.to_owned(),
        };
        let refuse = |text: String| Err(ConfigError(text));
        if self.store_url.is_some() && self.redis_host.is_some() {
            return refuse(format!(
                "{} and {} both say where the store is: set one of them",
                origin("store_url"),
                origin("redis_host")
            ));
        }
        if self.redis_port.is_some() && self.redis_host.is_none() {
            return refuse(format!("{} is set, but redis_host is not", origin("redis_port")));
        }
        if let Some(url) = &self.store_url {
            const SCHEMES: [&str; 6] =
                ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
            let scheme = url.expose().split_once(':').map_or("", |(scheme, _)| scheme);
            let known = scheme == "embedded" || (SCHEMES.contains(&scheme) && url.expose().contains("://"));
            if !known {
                return refuse(format!(
                    "{} must be embedded:DIR, redis://, rediss://, redis-cluster://, rediss-cluster:// or redis-sentinel://",
                    origin("store_url")
                ));
            }
            if url.expose() == "embedded:" {
                return refuse(format!("{} names no directory: write embedded:./data", origin("store_url")));
            }
        }
        let openai = self.embedding_provider == EmbeddingChoice::OpenAi;
        for (key, is_set) in [
            ("embedding_url", self.embedding_url.is_some()),
            ("embedding_model", self.embedding_model.is_some()),
            ("embedding_api_key", self.embedding_api_key.is_some()),
        ] {
            if is_set && !openai {
                return refuse(format!("{} is set, but embedding_provider is not openai", origin(key)));
            }
            if openai && !is_set && key != "embedding_api_key" {
                return refuse(format!("{} is openai, but {key} is not set", origin("embedding_provider")));
            }
        }
        if let Some(url) = &self.embedding_url
            && !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
        {
            return refuse(format!("{} must start with http:// or https://", origin("embedding_url")));
        }
        if self.embedding_retries > 10 {
            return refuse(format!("{} must be at most 10", origin("embedding_retries")));
        }
        if openai && self.embedding_timeout.as_millis() >= self.request_timeout.as_millis() {
            return refuse(format!(
                "{} must be less than {}",
                origin("embedding_timeout"),
                origin("request_timeout")
            ));
        }
        let on_redis = matches!(self.store(), StoreChoice::Redis(_));
        if !on_redis && self.wait_replicas > 0 {
            return refuse(format!("{} is set, but the store is not Redis", origin("wait_replicas")));
        }
        if !on_redis && (self.redis_password.is_some() || self.redis_username.is_some()) {
            return refuse(format!("{} is set, but the store is not Redis", origin("redis_password")));
        }
        for (key, value, least) in [
            ("redis_pool_size", self.redis_pool_size, 1),
            ("max_batch_size", self.max_batch_size, 1),
            ("max_features", self.max_features, 1),
            ("max_page_size", self.max_page_size, 1),
            ("max_body_bytes", self.max_body_bytes, 1024),
            ("embedding_batch_size", self.embedding_batch_size, 1),
            ("embedded_cache_bytes", self.embedded_cache_bytes, 1 << 20),
        ] {
            if value < least {
                return refuse(format!("{} must be at least {least}", origin(key)));
            }
        }
        if !(1..=MAX_MAX_VERSIONS).contains(&self.max_versions) {
            return refuse(format!("{} must be from 1 to {MAX_MAX_VERSIONS}", origin("max_versions")));
        }
        let prefix = &self.redis_key_prefix;
        let plain =
            prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':' | b'.'));
        if prefix.is_empty() || prefix.len() > 64 || !plain {
            return refuse(format!(
                "{} must have 1 to 64 letters, digits or any of _-:.",
                origin("redis_key_prefix")
            ));
        }
        Ok(())
    }
}

/// Names every key that no setting has, with the source that brought it.
fn refuse_unknown_keys(figment: &Figment) -> Result<(), ConfigError> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    let known = defaults.data().map_err(|error| ConfigError(explain(&error)))?;
    let known = known.get(&Profile::Default).cloned().unwrap_or_default();
    let given = figment.data().map_err(|error| ConfigError(explain(&error)))?;
    for key in given.get(&Profile::Default).into_iter().flat_map(Dict::keys) {
        if !known.contains_key(key) {
            let origin =
                figment.find_metadata(key).map_or_else(String::new, |m| format!(" ({})", describe(m)));
            let hint =
                closest(key, known.keys()).map_or_else(String::new, |name| format!("; did you mean {name}?"));
            return Err(ConfigError(format!("there is no setting {key}{origin}{hint}")));
        }
    }
    Ok(())
}

/// A known key that shares most of its beginning or end with a misspelt one.
fn closest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let alike = |a: &str| {
        let front = a.bytes().zip(key.bytes()).take_while(|(x, y)| x == y).count();
        let back = a.bytes().rev().zip(key.bytes().rev()).take_while(|(x, y)| x == y).count();
        front + back
    };
    known.filter(|name| alike(name) * 3 >= name.len() * 2).max_by_key(|name| alike(name))
}

fn describe(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(source) => format!("{} {source}", metadata.name),
        None => metadata.name.to_string(),
    }
}

fn explain(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let origin = error.metadata.as_ref().map_or_else(String::new, |m| format!(" ({})", describe(m)));
    if key.is_empty() { format!("{}{origin}", error.kind) } else { format!("{key}{origin}: {}", error.kind) }
}

/// Settings from environment variables.
struct Environment {
    name: &'static str,
    values: Vec<(String, String)>,
}

impl Environment {
    /// The plain names that everybody knows, and the names of our own.
    fn split(environment: impl Iterator<Item = (String, String)>) -> (Self, Self) {
        let mut plain = Self { name: "environment variables", values: Vec::new() };
        let mut own = Self { name: "environment variables FEATURE_STORE_…", values: Vec::new() };
        for (key, value) in environment {
            // Kubernetes puts variables such as REDIS_PORT=tcp://10.0.0.1:6379 into every pod, one
            // set for each Service; those named like us or like Redis are not settings of ours.
            if is_service_link(&key, &value) {
                continue;
            }
            match key.as_str() {
                "REDIS_HOST" | "REDIS_PORT" | "REDIS_USERNAME" | "REDIS_PASSWORD" => {
                    plain.values.push((key.to_ascii_lowercase(), value));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(ENV_PREFIX) {
                        own.values.push((name.to_ascii_lowercase(), value));
                    }
                }
            }
        }
        (plain, own)
    }
}

fn is_service_link(key: &str, value: &str) -> bool {
    let Some(rest) = key.strip_prefix(ENV_PREFIX).or_else(|| key.strip_prefix("REDIS_")) else {
        return false;
    };
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || (rest == "PORT" && value.starts_with("tcp://"))
        || rest.starts_with("PORT_")
}

/// Settings whose text must stay as it is, though it may look like a number.
const TEXTS: [&str; 9] = [
    "store_url",
    "redis_host",
    "redis_username",
    "redis_password",
    "redis_key_prefix",
    "data_dir",
    "embedding_url",
    "embedding_model",
    "embedding_api_key",
];

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (key, value) in &self.values {
            let value = if TEXTS.contains(&key.as_str()) {
                figment::value::Value::from(value.as_str())
            } else {
                // Numbers and booleans are recognised; anything else is text.
                match value.parse() {
                    Ok(value) => value,
                    Err(never) => match never {},
                }
            };
            // `__` nests, for settings that are tables.
            let mut path: Vec<&str> = key.split("__").collect();
            let leaf = path.pop().unwrap_or(key);
            let mut inner = &mut dict;
            for table in path {
                let entry = inner.entry(table.to_owned()).or_insert_with(|| Dict::new().into());
                match entry {
                    figment::value::Value::Dict(_, nested) => inner = nested,
                    _ => return Err(figment::Error::from(format!("{table} is a setting, not a table"))),
                }
            }
            inner.insert(leaf.to_owned(), value);
        }
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::load_from(None, environment).map_err(|error| error.to_string())
    }

    fn load_file(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feature-store.toml");
        std::fs::write(&path, text).unwrap();
        Config::load_from(Some(&path), std::iter::empty()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_configured_is_the_embedded_store_on_loopback() {
        let config = load(&[]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.store(), StoreChoice::Embedded("./data".into()));
    }

    #[test]
    fn the_seeds_names_and_plain_redis_names_work() {
        let config =
            load(&[("REDIS_HOST", "redis"), ("REDIS_PORT", "6380"), ("REDIS_PASSWORD", "007")]).unwrap();
        assert_eq!(config.store(), StoreChoice::Redis(Secret("redis://redis:6380".into())));
        assert_eq!(config.redis_password.unwrap().expose(), "007");
        let config = load_file("default_ttl = \"2h\"\nembedding_ttl = 60\nmax_versions = 3\nenable_versioning = false\nenable_monitoring = false\nredis_host = \"::1\"").unwrap();
        assert_eq!(config.default_ttl, Ttl::After(Span::from_secs(7200)));
        assert_eq!(config.embedding_ttl, Ttl::After(Span::from_secs(60)));
        assert_eq!(
            (config.max_versions, config.enable_versioning, config.enable_monitoring),
            (3, false, false)
        );
        assert_eq!(config.store(), StoreChoice::Redis(Secret("redis://[::1]:6379".into())));
    }

    #[test]
    fn the_environment_goes_before_the_file_and_our_names_before_plain_ones() {
        let config = load(&[
            ("REDIS_HOST", "plain"),
            ("FEATURE_STORE_REDIS_HOST", "own"),
            ("FEATURE_STORE_DEFAULT_TTL", "never"),
        ])
        .unwrap();
        assert_eq!(config.redis_host.as_deref(), Some("own"));
        assert_eq!(config.default_ttl, Ttl::Never);
    }

    #[test]
    fn what_kubernetes_puts_into_pods_is_not_a_setting() {
        let links = [
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("FEATURE_STORE_PORT", "tcp://10.0.0.2:80"),
            ("FEATURE_STORE_SERVICE_PORT_HTTP", "80"),
            ("FEATURE_STORE_PORT_80_TCP_ADDR", "10.0.0.2"),
        ];
        assert_eq!(load(&links).unwrap(), Config::default());
    }

    #[test]
    fn a_wrong_key_stops_the_start_with_its_name_and_origin() {
        let error = load(&[("FEATURE_STORE_DEFAULT_TLL", "60")]).unwrap_err();
        assert!(
            error.contains("default_tll")
                && error.contains("FEATURE_STORE_")
                && error.contains("did you mean default_ttl"),
            "{error}"
        );
        let error = load_file("max_version = 3").unwrap_err();
        assert!(error.contains("max_version ") && error.contains("feature-store.toml"), "{error}");
        let error = load_file("default_ttl = \"soon\"").unwrap_err();
        assert!(error.contains("default_ttl") && error.contains("feature-store.toml"), "{error}");
        let error = load(&[("FEATURE_STORE_LISTEN", "everywhere")]).unwrap_err();
        assert!(error.contains("listen") && error.contains("environment"), "{error}");
    }

    #[test]
    fn contradictions_stop_the_start() {
        for environment in [
            [("FEATURE_STORE_STORE_URL", "redis://a"), ("REDIS_HOST", "b")].as_slice(),
            &[("REDIS_PORT", "6379")],
            &[("FEATURE_STORE_WAIT_REPLICAS", "1")],
            &[("FEATURE_STORE_REDIS_PASSWORD", "x")],
            &[("FEATURE_STORE_STORE_URL", "mysql://a")],
            &[("FEATURE_STORE_STORE_URL", "embedded:")],
            &[("FEATURE_STORE_MAX_VERSIONS", "0")],
            &[("FEATURE_STORE_EMBEDDING_PROVIDER", "openai")],
            &[("FEATURE_STORE_EMBEDDING_URL", "http://a")],
            &[("FEATURE_STORE_EMBEDDING_API_KEY", "k")],
            &[
                ("FEATURE_STORE_EMBEDDING_PROVIDER", "openai"),
                ("FEATURE_STORE_EMBEDDING_URL", "a"),
                ("FEATURE_STORE_EMBEDDING_MODEL", "m"),
            ],
            &[
                ("FEATURE_STORE_EMBEDDING_PROVIDER", "openai"),
                ("FEATURE_STORE_EMBEDDING_URL", "http://a"),
                ("FEATURE_STORE_EMBEDDING_MODEL", "m"),
                ("FEATURE_STORE_EMBEDDING_TIMEOUT", "30"),
            ],
            &[("FEATURE_STORE_REDIS_KEY_PREFIX", "a{b")],
        ] {
            let error = load(environment).unwrap_err();
            assert!(
                environment.iter().any(|(key, _)| {
                    let name = key.strip_prefix("FEATURE_STORE_").unwrap_or(key).to_ascii_lowercase();
                    error.contains(&name)
                }) || error.contains("redis_password"),
                "{error}"
            );
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = load(&[("FEATURE_STORE_STORE_URL", "redis://user:hunter2@a")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
