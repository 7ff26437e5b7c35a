//! `feature-store serve`

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::{logs, server};

/// Serves until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), String> {
    logs::init(&config.log, config.log_format)?;
    super::runtime()?.block_on(async {
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
        let shutdown = stop_signal()?;
        server::run(config, listener, Arc::new(SystemClock), shutdown)
            .await
            .map_err(|error| error.to_string())
    })
}

/// Done when the process is told to stop. Signals are caught from this call on.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
