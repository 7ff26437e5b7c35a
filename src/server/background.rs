//! What a server does besides answering.

use std::sync::Arc;
use std::time::Duration;

use super::tls::Tls;
use crate::http::App;
use crate::keys::Keys;

pub(super) async fn keep_watching(app: App, every: Duration) {
    let Some(watch) = app.watch.clone() else { return };
    loop {
        watch.look().await;
        tokio::time::sleep(every).await;
    }
}

pub(super) async fn keep_telling(app: App) {
    if let (Some(watch), Some(webhook)) = (&app.watch, &app.webhook) {
        webhook.run(watch.subscribe()).await;
    }
}

pub(super) async fn keep_registry_fresh(app: App, every: Duration) {
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

pub(super) async fn keep_reaping(app: App, every: Duration) {
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
pub(super) async fn keep_metrics_small(app: App) {
    let Some(metrics) = app.metrics.clone() else { return };
    for second in 1_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.store.settle_performance();
        if second.is_multiple_of(5) {
            metrics.run_upkeep();
        }
    }
}

pub(super) async fn keep_keys_fresh(keys: Option<Arc<Keys>>, every: Duration) {
    let Some(keys) = keys else { return };
    loop {
        tokio::time::sleep(every).await;
        keys.refresh().await;
    }
}

pub(super) async fn keep_certificates_fresh(tls: Option<Arc<Tls>>, every: Duration) {
    let Some(tls) = tls else { return };
    loop {
        tokio::time::sleep(every).await;
        tls.refresh().await;
    }
}
