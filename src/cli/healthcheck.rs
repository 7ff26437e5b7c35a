//! `feature-store healthcheck`

use std::time::Duration;

use axum::body::Body;
use clap::Args;
use http::{Request, StatusCode};

use super::Failure;
use super::client::{Client, own_url};
use super::trust::Trust;
use crate::config::Config;

#[derive(Debug, Args)]
pub struct Options {
    /// The server, as in https://features.example.com (default: the one that this configuration
    /// starts, whatever certificate it shows).
    #[arg(long)]
    url: Option<String>,
    /// The probe to ask.
    #[arg(long, default_value = "/readyz")]
    path: String,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 4)]
    timeout: u64,
    #[command(flatten)]
    trust: Trust,
}

/// Asks a server whether it is well.
pub fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let client = match &options.url {
        Some(url) => Client::new(url, &options.trust)?,
        None if options.trust == Trust::default() => Client::trusting_anybody(&own_url(config))?,
        None => Client::new(&own_url(config), &options.trust)?,
    };
    let request = Request::get(&options.path).body(Body::empty()).map_err(Failure::usage)?;
    // Containers know two answers: 0 and 1.
    let failed = |reason: &dyn std::fmt::Display| Failure::partly(format!("no answer from {reason}"));
    super::runtime()?.block_on(async {
        let timeout = Duration::from_secs(options.timeout.max(1));
        let answer = tokio::time::timeout(timeout, client.send(request)).await;
        let answer = answer.map_err(|_| failed(&format!("{} in time", client.base())))?;
        let status = answer.map_err(|failure| failed(&failure.message))?.status();
        match status {
            StatusCode::OK => Ok(()),
            other => {
                Err(Failure::partly(format!("{}{} answered {}", client.base(), options.path, other.as_u16())))
            }
        }
    })
}
