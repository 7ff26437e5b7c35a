//! What settings mean to the parts of the server.

use std::collections::HashMap;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::{Config, Secret};
use crate::domain::compiled::Defaults;
use crate::domain::time::Span;
use crate::keys;
use crate::monitor::Cardinality;
use crate::monitor::webhook::WebhookConfig;
use crate::server::{ConnectionLimits, Patience, TlsFiles};
use crate::service::export_file::ExportFiles;
use crate::service::watch::WatchSettings;
use crate::service::{Limits, Settings};
use crate::store::cache::CacheConfig;
use crate::tls::ClientTls;
use crate::trace::TraceConfig;

/// Where features are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    Embedded(PathBuf),
    Redis(Secret),
}

impl Config {
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
                StoreChoice::Redis(Secret::new(format!("redis://{host}:{port}")))
            }
            None => StoreChoice::Embedded(self.data_dir.clone()),
        }
    }

    /// Where the keys come from; `None` where nobody is asked for one.
    pub fn keys(&self) -> Option<keys::Source> {
        let file = self.api_keys_file.clone().map(keys::Source::File);
        file.or_else(|| Some(keys::Source::Text(self.api_keys.as_ref()?.expose().to_owned())))
    }

    /// How connections are bounded.
    pub fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_connections: self.max_connections,
            max_header_bytes: self.max_header_bytes,
            max_streams: self.http2_max_streams,
            patience: Patience {
                head: self.header_timeout.as_duration(),
                idle: self.idle_timeout.as_duration(),
                stall: self.stall_timeout.as_duration(),
            },
        }
    }

    /// `None`: plain HTTP.
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.tls_client_ca.clone(),
        })
    }

    /// Whom to trust as Redis, and as whom.
    pub fn redis_tls(&self) -> ClientTls {
        ClientTls {
            ca: self.redis_tls_ca.clone(),
            identity: self.redis_tls_cert.clone().zip(self.redis_tls_key.clone()),
            server_name: self.redis_tls_server_name.clone(),
        }
    }

    /// `None`: nothing is traced.
    pub fn tracing(&self) -> Option<TraceConfig> {
        Some(TraceConfig {
            endpoint: self.otlp_endpoint.clone()?,
            headers: self.otlp_headers.as_ref().and_then(|text| headers(text.expose())).unwrap_or_default(),
            sample_ratio: self.otlp_sample_ratio,
            service_name: self.otlp_service_name.clone(),
            instance: self.instance(),
        })
    }

    /// What tells this server from others of the same store.
    fn instance(&self) -> String {
        format!("{}:{}", host_name(), self.listen.port())
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
            instance: named.unwrap_or_else(|| self.instance()),
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

/// Headers as in `name=value,name=value`; `None`: they are not.
pub(super) fn headers(text: &str) -> Option<HashMap<String, String>> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let parse = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let fits = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
        fits.then(|| (name.to_owned(), value.to_owned()))
    };
    pairs.map(parse).collect()
}

/// The machine's name, which in Kubernetes is the pod's.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}
