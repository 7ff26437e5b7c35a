//! What is refused at the start: keys that nobody knows, and settings that contradict each other.

use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{AuthChoice, Config, ConfigError, EmbeddingChoice, StoreChoice};
use crate::domain::compiled::MAX_MAX_VERSIONS;

impl Config {
    /// Refuses settings that contradict each other.
    pub(super) fn check(&self, figment: &Figment) -> Result<(), ConfigError> {
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
        if on_redis && self.store_timeout.as_millis() < self.redis_command_timeout.as_millis() {
            return refuse(format!(
                "{} must not be less than {}",
                origin("store_timeout"),
                origin("redis_command_timeout")
            ));
        }
        if self.store_retries > 10 {
            return refuse(format!("{} must be at most 10", origin("store_retries")));
        }
        if !on_redis && (self.redis_password.is_some() || self.redis_username.is_some()) {
            return refuse(format!("{} is set, but the store is not Redis", origin("redis_password")));
        }
        if !self.stale_if_error.0.is_zero() && !on_redis {
            return refuse(format!("{} is set, but the store is not Redis", origin("stale_if_error")));
        }
        if !self.stale_if_error.0.is_zero() && self.cache_bytes == 0 {
            return refuse(format!("{} is set, but cache_bytes is 0", origin("stale_if_error")));
        }
        if !(10..=60_000).contains(&self.cache_max_lag.as_millis()) {
            return refuse(format!("{} must be from 10ms to 1m", origin("cache_max_lag")));
        }
        if (1..1 << 20).contains(&self.cache_bytes) {
            return refuse(format!("{} must be 0 or at least {}", origin("cache_bytes"), 1 << 20));
        }
        for (key, value, least) in [
            ("redis_pool_size", self.redis_pool_size, 1),
            ("max_batch_size", self.max_batch_size, 1),
            ("max_features", self.max_features, 1),
            ("max_page_size", self.max_page_size, 1),
            ("max_body_bytes", self.max_body_bytes, 1024),
            ("max_concurrent_requests", self.max_concurrent_requests, 1),
            ("embedding_batch_size", self.embedding_batch_size, 1),
            ("embedded_cache_bytes", self.embedded_cache_bytes, 1 << 20),
        ] {
            if value < least {
                return refuse(format!("{} must be at least {least}", origin(key)));
            }
        }
        if self.max_import_bytes < 1024 {
            return refuse(format!("{} must be at least 1024", origin("max_import_bytes")));
        }
        if let Some(dir) = self.spool_dir.as_ref().filter(|dir| !dir.is_dir()) {
            return refuse(format!("{}: there is no directory {}", origin("spool_dir"), dir.display()));
        }
        self.check_doors(&origin)?;
        self.check_connections(&origin)?;
        self.check_tls(&origin)?;
        self.check_redis_tls(&origin)?;
        self.check_tracing(&origin)?;
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
        if self.metrics_listen.is_some() && !self.enable_monitoring {
            return refuse(format!("{} is set, but enable_monitoring is false", origin("metrics_listen")));
        }
        if self.metrics_listen == Some(self.listen) && self.listen.port() != 0 {
            return refuse(format!("{} and {} are the same", origin("metrics_listen"), origin("listen")));
        }
        let alerts = &self.alerts;
        for (key, share) in [
            ("alerts.margin", alerts.margin),
            ("alerts.cache_hit_rate", alerts.cache_hit_rate),
            ("alerts.error_rate", alerts.error_rate),
            ("alerts.memory", alerts.memory),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return refuse(format!("{} must be from 0 to 1", origin(key)));
            }
        }
        if !(5_000..=3_600_000).contains(&alerts.window.as_millis()) {
            return refuse(format!("{} must be from 5s to 1h", origin("alerts.window")));
        }
        if let Some(url) = &alerts.webhook_url {
            if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
                return refuse(format!(
                    "{} must start with http:// or https://",
                    origin("alerts.webhook_url")
                ));
            }
            if !self.enable_monitoring {
                return refuse(format!(
                    "{} is set, but enable_monitoring is false",
                    origin("alerts.webhook_url")
                ));
            }
        }
        Ok(())
    }
}

/// A setting's name with where it came from.
pub(super) type Origin<'a> = &'a dyn Fn(&str) -> String;

impl Config {
    /// Who is let in.
    fn check_doors(&self, origin: Origin<'_>) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        if self.api_keys_file.is_some() && self.api_keys.is_some() {
            return refuse(format!(
                "{} and {} both say what the keys are: set one of them",
                origin("api_keys_file"),
                origin("api_keys")
            ));
        }
        let has_keys = self.keys().is_some();
        let open = match self.auth {
            Some(AuthChoice::None) if has_keys => {
                return refuse(format!("{} is none, but there are API keys", origin("auth")));
            }
            Some(AuthChoice::ApiKeys) if !has_keys => {
                return refuse(format!(
                    "{} is api_keys, but neither api_keys_file nor api_keys is set",
                    origin("auth")
                ));
            }
            Some(AuthChoice::None | AuthChoice::ApiKeys) => false,
            None => !has_keys,
        };
        if open && !self.listen.ip().is_loopback() {
            return refuse(format!(
                "{} can be reached from elsewhere, and nobody would be asked for a key: set api_keys_file, or auth = \"none\" if that is meant",
                origin("listen")
            ));
        }
        for (key, is_set) in [
            ("rate_limit", self.rate_limit.is_some()),
            ("public_docs", !self.public_docs),
            ("public_metrics", !self.public_metrics),
        ] {
            if is_set && !has_keys {
                return refuse(format!("{} is for API keys, and there are none", origin(key)));
            }
        }
        if self.rate_burst.is_some() && self.rate_limit.is_none() {
            return refuse(format!("{} is set, but rate_limit is not", origin("rate_burst")));
        }
        for (key, rate) in [("rate_limit", self.rate_limit), ("rate_burst", self.rate_burst)] {
            if rate == Some(0) {
                return refuse(format!("{} must be at least 1", origin(key)));
            }
        }
        for origin_of_page in &self.cors_origins {
            let is_one = ["http://", "https://"].iter().any(|scheme| origin_of_page.starts_with(scheme))
                && origin_of_page.matches('/').count() == 2
                && axum::http::HeaderValue::from_str(origin_of_page).is_ok();
            if !is_one {
                return refuse(format!(
                    "{}: {origin_of_page:?} is no origin; write https://host or https://host:port",
                    origin("cors_origins")
                ));
            }
        }
        Ok(())
    }
}

/// Names every key that no setting has, with the source that brought it.
pub(super) fn refuse_unknown_keys(figment: &Figment) -> Result<(), ConfigError> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    let known = defaults.data().map_err(|error| ConfigError(explain(&error)))?;
    let known = known.get(&Profile::Default).cloned().unwrap_or_default();
    let given = figment.data().map_err(|error| ConfigError(explain(&error)))?;
    let given = given.get(&Profile::Default).cloned().unwrap_or_default();
    refuse_unknown_in("", &given, &known, figment)
}

/// As [`refuse_unknown_keys`], in one table; `path` is what its keys are called before their names.
fn refuse_unknown_in(path: &str, given: &Dict, known: &Dict, figment: &Figment) -> Result<(), ConfigError> {
    for (name, value) in given {
        let key = format!("{path}{name}");
        match (known.get(name), value) {
            (Some(Value::Dict(_, known)), Value::Dict(_, given)) => {
                refuse_unknown_in(&format!("{key}."), given, known, figment)?;
            }
            (Some(_), _) => {}
            (None, _) => {
                let origin =
                    figment.find_metadata(&key).map_or_else(String::new, |m| format!(" ({})", describe(m)));
                let hint = closest(name, known.keys())
                    .map_or_else(String::new, |name| format!("; did you mean {path}{name}?"));
                return Err(ConfigError(format!("there is no setting {key}{origin}{hint}")));
            }
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

pub(super) fn explain(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let origin = error.metadata.as_ref().map_or_else(String::new, |m| format!(" ({})", describe(m)));
    if key.is_empty() { format!("{}{origin}", error.kind) } else { format!("{key}{origin}: {}", error.kind) }
}
