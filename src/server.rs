//! Puts the parts together and serves until told to stop.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::ServiceExt;
use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{Config, EmbeddingChoice, StoreChoice};
use crate::embedding::{HashingProvider, OpenAiConfig, OpenAiProvider};
use crate::http::{Admittance, App, AppParts, Audit, Doors, Lifecycle, RequestLimits, UploadLimits};
use crate::keys::{Keys, KeysError, Rate};
use crate::monitor::Performance;
use crate::monitor::webhook::Webhook;
use crate::service::FeatureStore;
use crate::service::embeddings::EmbeddingProvider;
use crate::service::watch::Watch;
use crate::store::embedded::{EmbeddedStore, OpenError, Options};
use crate::store::guarded::{self, Guarded};
use crate::store::metered::Metered;
use crate::store::redis::{RedisConfig, RedisStore};
use crate::store::{Backup, Store, StoreError};
use crate::telemetry;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] OpenError),
    #[error("the store cannot be used: {0}")]
    Store(#[from] StoreError),
    #[error("the embedding provider cannot be used: {0}")]
    Embeddings(String),
    #[error("alerts cannot be told to anybody: {0}")]
    Webhook(String),
    #[error("metrics_listen: cannot listen on {0}: {1}")]
    MetricsListen(SocketAddr, std::io::Error),
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("the audit log cannot be opened: {0}")]
    AuditLog(std::io::Error),
    #[error("export_dir: {} cannot be used: {}", .0.display(), .1)]
    ExportDir(PathBuf, std::io::Error),
    #[error("serving ended: {0}")]
    Io(#[from] std::io::Error),
}

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

fn guard(config: &Config) -> guarded::Options {
    guarded::Options {
        timeout: config.store_timeout.as_duration(),
        retries: config.store_retries,
        failures_to_open: config.circuit_failures,
    }
}

/// The source of embeddings that the configuration chooses. Nobody is asked yet.
fn embedding_provider(config: &Config) -> Result<Arc<dyn EmbeddingProvider>, StartError> {
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
fn open_keys(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Keys>>, KeysError> {
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
fn doors(config: &Config, keys: Option<Arc<Keys>>) -> Result<Doors, StartError> {
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

/// Serves on `listener` until `shutdown` is done, then finishes what is under way.
pub async fn run(
    config: &Config,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let metrics = match config.enable_monitoring {
        true => Some(telemetry::init_metrics().map_err(StartError::Metrics)?),
        false => None,
    };
    let keys = open_keys(config, &clock)?;
    let doors = doors(config, keys.clone())?;
    let OpenStore { store, backend, backup } = open_store(config).await?;
    let store: Arc<dyn Store> = Arc::new(Guarded::new(store, guard(config)));
    let started_at = clock.now();
    let performance = metrics.as_ref().map(|_| Arc::new(Performance::new(started_at, config.cardinality())));
    // Measured outside of the guard: a call that is refused at once is a failure, too.
    let store: Arc<dyn Store> = match &performance {
        Some(performance) => Arc::new(Metered::new(store, performance)),
        None => store,
    };
    let embeddings = embedding_provider(config)?;
    let mut store = FeatureStore::new(store, clock, config.settings(), embeddings, performance.clone());
    if let Some(backup) = backup {
        store = store.with_backup(backup);
    }
    if let Some(files) = config.export_files() {
        let failed = |error| StartError::ExportDir(files.dir.clone(), error);
        std::fs::create_dir_all(&files.dir).map_err(failed)?;
        store = store.with_export_files(files);
    }
    let store = Arc::new(store);
    let webhook = config.webhook().map(Webhook::new).transpose().map_err(StartError::Webhook)?.map(Arc::new);
    let app = App::new(AppParts {
        started_at,
        watch: performance.map(|of| Arc::new(Watch::new(store.clone(), of, config.watch()))),
        webhook,
        metrics_apart: config.metrics_listen.is_some(),
        store,
        backend,
        lifecycle: Lifecycle::default(),
        readiness_timeout: config.readiness_timeout.as_duration(),
        uploads: UploadLimits {
            max_bytes: config.max_import_bytes,
            idle: config.request_timeout.as_duration(),
            spool_dir: config.spool_dir.clone(),
        },
        metrics,
    });
    let mut background = vec![
        tokio::spawn(keep_registry_fresh(app.clone(), config.registry_refresh.as_duration())),
        tokio::spawn(keep_reaping(app.clone(), config.reap_interval.as_duration())),
        tokio::spawn(keep_metrics_small(app.clone())),
        tokio::spawn(keep_keys_fresh(keys, config.reload_interval.as_duration())),
        tokio::spawn(keep_watching(app.clone(), config.alerts.interval.as_duration())),
        tokio::spawn(keep_telling(app.clone())),
    ];
    if let Some(address) = config.metrics_listen {
        background.push(serve_metrics(address, &app).await?);
    }
    let limits = RequestLimits {
        max_body_bytes: config.max_body_bytes,
        timeout: config.request_timeout.as_duration(),
    };
    let router = crate::http::router(app.clone(), limits, doors);
    tracing::info!(address = %listener.local_addr()?, store = backend, "serving");
    let result = serve(listener, router, &app, config, shutdown).await;
    background.iter().for_each(JoinHandle::abort);
    app.store.close().await;
    tracing::info!("stopped");
    result
}

/// Stops in two stages: first unready but still answering, so that load balancers turn away; then
/// no new connections, while those under way may finish within the grace period.
async fn serve(
    listener: TcpListener,
    router: axum::Router,
    app: &App,
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (stopping, delay) = (app.clone(), config.shutdown_delay.0);
    let signal = async move {
        shutdown.await;
        stopping.lifecycle.stop();
        tracing::info!("stopping: finishing what is under way");
        tokio::time::sleep(delay).await;
        let _ = stop.send(());
    };
    let service = ServiceExt::<axum::extract::Request>::into_make_service(router);
    let server = axum::serve(TcpNoDelay(listener), service).with_graceful_shutdown(signal);
    let grace = config.shutdown_grace.as_duration();
    let deadline = async move {
        let _ = stopped.await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        result = server.into_future() => Ok(result?),
        () = deadline => {
            tracing::warn!(seconds = grace.as_secs_f64(), "requests were still under way at the end of the grace period");
            Ok(())
        }
    }
}

/// Small answers are sent at once rather than held back for more.
struct TcpNoDelay(TcpListener);

impl axum::serve::Listener for TcpNoDelay {
    type Io = tokio::net::TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays as it is");
        }
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Serves metrics alone on an address of their own.
async fn serve_metrics(address: SocketAddr, app: &App) -> Result<JoinHandle<()>, StartError> {
    let failed = |error| StartError::MetricsListen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics");
    let router = crate::http::metrics_router(app.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }))
}

async fn keep_watching(app: App, every: Duration) {
    let Some(watch) = app.watch.clone() else { return };
    loop {
        watch.look().await;
        tokio::time::sleep(every).await;
    }
}

async fn keep_telling(app: App) {
    if let (Some(watch), Some(webhook)) = (&app.watch, &app.webhook) {
        webhook.run(watch.subscribe()).await;
    }
}

async fn keep_registry_fresh(app: App, every: Duration) {
    let mut failing = false;
    // Until the registry was read for the first time, nothing can be served: do not dawdle.
    let eager = Duration::from_millis(100).min(every);
    loop {
        match app.store.registry().refresh().await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                tracing::warn!(%error, "the registry cannot be read");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(if app.store.registry().is_loaded() { every } else { eager }).await;
    }
}

async fn keep_reaping(app: App, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match app.store.reap().await {
            Ok(0) => {}
            Ok(reaped) => tracing::debug!(reaped, "freed what had expired"),
            Err(error) => tracing::warn!(%error, "what has expired could not be freed"),
        }
    }
}

/// The recorder collects raw samples until somebody drains them; windows wait to be filled.
async fn keep_metrics_small(app: App) {
    let Some(metrics) = app.metrics.clone() else { return };
    for second in 1_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.store.settle_performance();
        if second.is_multiple_of(5) {
            metrics.run_upkeep();
        }
    }
}

async fn keep_keys_fresh(keys: Option<Arc<Keys>>, every: Duration) {
    let Some(keys) = keys else { return };
    loop {
        tokio::time::sleep(every).await;
        keys.refresh().await;
    }
}
