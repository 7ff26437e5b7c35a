//! Makes the parts that the configuration chooses.

use std::sync::Arc;

use axum::http::HeaderValue;

use super::StartError;
use crate::clock::Clock;
use crate::config::{Config, EmbeddingChoice, StoreChoice};
use crate::embedding::{HashingProvider, OpenAiConfig, OpenAiProvider};
use crate::http::{Admittance, Audit, Doors};
use crate::keys::{Keys, KeysError, Rate};
use crate::service::embeddings::EmbeddingProvider;
use crate::store::embedded::{EmbeddedStore, Options};
use crate::store::guarded;
use crate::store::redis::{RedisConfig, RedisStore};
use crate::store::{Backup, Store};

/// A store, ready to be used.
pub struct OpenStore {
    pub store: Arc<dyn Store>,
    /// `embedded`, `redis`, `redis-cluster` or `redis-sentinel`.
    pub backend: &'static str,
    /// Where the store copies itself.
    pub backup: Option<Arc<dyn Backup>>,
}

/// Opens the store that the configuration chooses.
pub async fn open_store(config: &Config) -> Result<OpenStore, StartError> {
    match config.store() {
        StoreChoice::Embedded(dir) => {
            let options = Options { cache_bytes: config.embedded_cache_bytes };
            let store = Arc::new(EmbeddedStore::open(&dir, &options)?);
            Ok(OpenStore { store: store.clone(), backend: "embedded", backup: Some(store) })
        }
        StoreChoice::Redis(url) => {
            let redis = RedisConfig {
                url: url.expose().to_owned(),
                username: config.redis_username.clone(),
                password: config.redis_password.as_ref().map(|secret| secret.expose().to_owned()),
                tls: config.redis_tls(),
                pool_size: config.redis_pool_size,
                command_timeout: config.redis_command_timeout.as_duration(),
                connect_timeout: config.redis_connect_timeout.as_duration(),
                wait_replicas: config.wait_replicas,
                key_prefix: config.redis_key_prefix.clone(),
            };
            let store = RedisStore::connect(redis).await?;
            let backend = store.backend();
            Ok(OpenStore { store: Arc::new(store), backend, backup: None })
        }
    }
}

pub(super) fn guard(config: &Config) -> guarded::Options {
    guarded::Options {
        timeout: config.store_timeout.as_duration(),
        retries: config.store_retries,
        failures_to_open: config.circuit_failures,
    }
}

/// The source of embeddings that the configuration chooses. Nobody is asked yet.
pub(super) fn embedding_provider(config: &Config) -> Result<Arc<dyn EmbeddingProvider>, StartError> {
    Ok(match config.embedding_provider {
        EmbeddingChoice::Hashing => Arc::new(HashingProvider),
        EmbeddingChoice::OpenAi => {
            let openai = OpenAiConfig {
                url: config.embedding_url.clone().unwrap_or_default(),
                model: config.embedding_model.clone().unwrap_or_default(),
                api_key: config.embedding_api_key.as_ref().map(|key| key.expose().to_owned()),
                timeout: config.embedding_timeout.as_duration(),
                batch_size: config.embedding_batch_size,
                retries: config.embedding_retries,
                cache_bytes: config.embedding_cache_bytes as u64,
                send_dimensions: config.embedding_send_dimensions,
            };
            Arc::new(OpenAiProvider::new(openai).map_err(StartError::Embeddings)?)
        }
    })
}

/// The keys that requests must show; `None` where nobody is asked.
pub(super) fn open_keys(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Keys>>, KeysError> {
    let Some(source) = config.keys() else {
        tracing::warn!(
            "nobody is asked for a key: whoever reaches this server may read and change everything"
        );
        return Ok(None);
    };
    let rate = config.rate_limit.and_then(|per_second| Rate::new(per_second, config.rate_burst));
    Ok(Some(Arc::new(Keys::open(&source, rate, clock.clone())?)))
}

/// Who is let in, and what is noted of them.
pub(super) fn doors(config: &Config, keys: Option<Arc<Keys>>) -> Result<Doors, StartError> {
    let origins = config.cors_origins.iter();
    Ok(Doors {
        admittance: Admittance {
            keys,
            public_docs: config.public_docs,
            public_metrics: config.public_metrics,
            max_concurrent_requests: config.max_concurrent_requests,
        },
        audit: Audit::open(config.audit_log.as_deref()).map_err(StartError::AuditLog)?,
        cors_origins: origins.filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
    })
}
