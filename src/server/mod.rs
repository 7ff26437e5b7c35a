//! Puts the parts together and serves until told to stop.

mod accept;
mod activity;
mod background;
mod parts;
mod socket;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::accept::Front;
use self::background::{
    keep_certificates_fresh, keep_keys_fresh, keep_metrics_small, keep_reaping, keep_registry_fresh,
    keep_telling, keep_watching,
};
use self::parts::{doors, embedding_provider, guard, open_keys};
use self::tls::Tls;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{App, AppParts, Lifecycle, RequestLimits, UploadLimits};
use crate::keys::KeysError;
use crate::monitor::Performance;
use crate::monitor::webhook::Webhook;
use crate::service::FeatureStore;
use crate::service::watch::Watch;
use crate::store::embedded::OpenError;
use crate::store::guarded::Guarded;
use crate::store::metered::Metered;
use crate::store::traced::Traced;
use crate::store::{Store, StoreError};
use crate::telemetry;
use crate::tls::TlsError;
use crate::trace;

pub use self::accept::ConnectionLimits;
pub use self::activity::Patience;
pub use self::parts::{OpenStore, open_store};
pub use self::tls::TlsFiles;

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
    #[error("otlp_endpoint: traces cannot be told to anybody: {0}")]
    Tracing(String),
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    #[error("the audit log cannot be opened: {0}")]
    AuditLog(std::io::Error),
    #[error("export_dir: {} cannot be used: {}", .0.display(), .1)]
    ExportDir(PathBuf, std::io::Error),
    #[error("serving ended: {0}")]
    Io(#[from] std::io::Error),
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
    let tracing = match config.tracing() {
        Some(config) => trace::start(&config).map_err(StartError::Tracing)?,
        None => None,
    };
    let keys = open_keys(config, &clock)?;
    let doors = doors(config, keys.clone())?;
    let tls = config.tls().map(Tls::open).transpose()?.map(Arc::new);
    let OpenStore { store, backend, backup } = open_store(config).await?;
    let store: Arc<dyn Store> = Arc::new(Guarded::new(store, guard(config)));
    let started_at = clock.now();
    let performance = metrics.as_ref().map(|_| Arc::new(Performance::new(started_at, config.cardinality())));
    // Measured outside of the guard: a call that is refused at once is a failure, too.
    let store: Arc<dyn Store> = match &performance {
        Some(performance) => Arc::new(Metered::new(store, performance)),
        None => store,
    };
    let store: Arc<dyn Store> = if trace::is_on() { Arc::new(Traced::new(store, backend)) } else { store };
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
            idle: config.stall_timeout.as_duration(),
            spool_dir: config.spool_dir.clone(),
        },
        metrics,
    });
    let mut background = vec![
        tokio::spawn(keep_registry_fresh(app.clone(), config.registry_refresh.as_duration())),
        tokio::spawn(keep_reaping(app.clone(), config.reap_interval.as_duration())),
        tokio::spawn(keep_metrics_small(app.clone())),
        tokio::spawn(keep_keys_fresh(keys, config.reload_interval.as_duration())),
        tokio::spawn(keep_certificates_fresh(tls.clone(), config.reload_interval.as_duration())),
        tokio::spawn(keep_watching(app.clone(), config.alerts.interval.as_duration())),
        tokio::spawn(keep_telling(app.clone())),
    ];
    if let Some(address) = config.metrics_listen {
        background.push(serve_metrics(address, &app).await?);
    }
    let limits = RequestLimits {
        max_body_bytes: config.max_body_bytes,
        timeout: config.request_timeout.as_duration(),
        stall_timeout: config.stall_timeout.as_duration(),
    };
    let routers = crate::http::routers(app.clone(), limits, doors);
    tracing::info!(address = %listener.local_addr()?, store = backend, tls = tls.is_some(), "serving");
    let front = Front::new(routers, tls, config.connections());
    serve(listener, front, &app, config, shutdown).await;
    background.iter().for_each(JoinHandle::abort);
    app.store.close().await;
    if let Some(tracing) = tracing {
        tracing.finish().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Stops in two stages: first unready but still answering, so that load balancers turn away; then
/// no new connections, while those under way may finish within the grace period.
async fn serve(
    listener: TcpListener,
    front: Arc<Front>,
    app: &App,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let delay = config.shutdown_delay.0;
    let signal = async move {
        shutdown.await;
        app.lifecycle.stop();
        tracing::info!("stopping: finishing what is under way");
        tokio::time::sleep(delay).await;
        let _ = stop.send(());
    };
    let grace = config.shutdown_grace.as_duration();
    let deadline = async move {
        let _ = stopped.await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = front.serve(listener, signal) => {}
        () = deadline => {
            tracing::warn!(seconds = grace.as_secs_f64(), "requests were still under way at the end of the grace period");
        }
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
