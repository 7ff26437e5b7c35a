//! What is refused at the start of how the server is reached.

use super::check::Origin;
use super::derived::headers;
use super::{Config, ConfigError, StoreChoice};

/// What hyper's buffers hold of a head.
const MOST_HEADER_BYTES: usize = 256 << 10;

impl Config {
    /// How connections are bounded.
    pub(super) fn check_connections(&self, origin: Origin<'_>) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        if !(8192..=MOST_HEADER_BYTES).contains(&self.max_header_bytes) {
            return refuse(format!(
                "{} must be from 8192 to {MOST_HEADER_BYTES}",
                origin("max_header_bytes")
            ));
        }
        if self.max_connections == 0 {
            return refuse(format!("{} must be at least 1", origin("max_connections")));
        }
        if self.http2_max_streams == 0 {
            return refuse(format!("{} must be at least 1", origin("http2_max_streams")));
        }
        Ok(())
    }

    /// The server's own certificate.
    pub(super) fn check_tls(&self, origin: Origin<'_>) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        let missing = |has: &str, lacks: &str| refuse(format!("{} is set, but {lacks} is not", origin(has)));
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(_), None, _) => missing("tls_cert", "tls_key"),
            (None, Some(_), _) => missing("tls_key", "tls_cert"),
            (None, None, Some(_)) => missing("tls_client_ca", "tls_cert"),
            (Some(_), Some(_), _) | (None, None, None) => Ok(()),
        }
    }

    /// Whom traces are told to.
    pub(super) fn check_tracing(&self, origin: Origin<'_>) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        match &self.otlp_endpoint {
            Some(url) if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) => {
                return refuse(format!("{} must start with http:// or https://", origin("otlp_endpoint")));
            }
            None if self.otlp_headers.is_some() => {
                return refuse(format!("{} is set, but otlp_endpoint is not", origin("otlp_headers")));
            }
            Some(_) | None => {}
        }
        if self.otlp_headers.as_ref().is_some_and(|text| headers(text.expose()).is_none()) {
            return refuse(format!("{} must be written as name=value,name=value", origin("otlp_headers")));
        }
        if !(0.0..=1.0).contains(&self.otlp_sample_ratio) {
            return refuse(format!("{} must be from 0 to 1", origin("otlp_sample_ratio")));
        }
        Ok(())
    }

    /// TLS to Redis.
    pub(super) fn check_redis_tls(&self, origin: Origin<'_>) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        let is_tls = matches!(self.store(), StoreChoice::Redis(url) if url.expose().starts_with("rediss"));
        for (key, is_set) in [
            ("redis_tls_ca", self.redis_tls_ca.is_some()),
            ("redis_tls_cert", self.redis_tls_cert.is_some()),
            ("redis_tls_key", self.redis_tls_key.is_some()),
            ("redis_tls_server_name", self.redis_tls_server_name.is_some()),
        ] {
            if is_set && !is_tls {
                return refuse(format!("{} is set, but store_url is no rediss:// URL", origin(key)));
            }
        }
        match (&self.redis_tls_cert, &self.redis_tls_key) {
            (Some(_), None) => {
                refuse(format!("{} is set, but redis_tls_key is not", origin("redis_tls_cert")))
            }
            (None, Some(_)) => {
                refuse(format!("{} is set, but redis_tls_cert is not", origin("redis_tls_key")))
            }
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }
}
