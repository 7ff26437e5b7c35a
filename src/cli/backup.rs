//! `feature-store backup` and `feature-store restore`

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt;

use super::healthcheck::reachable;
use super::trust::Trust;
use crate::config::{Config, StoreChoice};
use crate::store::embedded::{restore, verify};

#[derive(Debug, Args)]
pub struct BackupOptions {
    /// Where to write the backup; must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The server, as in https://features.example.com (default: the one that this configuration starts).
    #[arg(long)]
    url: Option<String>,
    /// A file with an API key that may administer.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// The backup.
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Where to; must be empty (default: as configured).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Asks a running server for a backup, and keeps it once it is whole.
pub fn run(config: &Config, options: &BackupOptions) -> Result<(), String> {
    let output = &options.output;
    if output.exists() {
        return Err(format!("{} is there already", output.display()));
    }
    let scheme = if config.tls().is_some() { "https" } else { "http" };
    let url = options.url.clone().unwrap_or_else(|| format!("{scheme}://{}", reachable(config.listen)));
    let key = match &options.api_key_file {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|error| at(file, &error))?),
        None => None,
    };
    let mut unfinished = output.clone().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let kept = super::runtime()?
        .block_on(fetch(&url, key.as_deref(), &options.trust, &unfinished))
        .and_then(|()| verify(&unfinished).map_err(|error| error.to_string()))
        .and_then(|_| std::fs::rename(&unfinished, output).map_err(|error| at(output, &error)));
    if kept.is_err() {
        // Half a backup is none.
        let _ = std::fs::remove_file(&unfinished);
    }
    kept
}

/// Makes a data directory out of a backup.
pub fn run_restore(config: &Config, options: &RestoreOptions) -> Result<(), String> {
    let data_dir = match (&options.data_dir, config.store()) {
        (Some(data_dir), _) => data_dir.clone(),
        (None, StoreChoice::Embedded(data_dir)) => data_dir,
        (None, StoreChoice::Redis(_)) => return Err("the store is Redis; name a --data-dir".to_owned()),
    };
    restore(&options.backup, &data_dir).map(drop).map_err(|error| error.to_string())
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

async fn fetch(url: &str, key: Option<&str>, trust: &Trust, file: &Path) -> Result<(), String> {
    let mut request =
        Request::builder().method(Method::POST).uri(format!("{}/v1/admin/backup", url.trim_end_matches('/')));
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.trim()));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| format!("{url}: {error}"))?;
    let connector = trust.tls().connector().map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let lost = |error: &dyn std::fmt::Display| format!("no backup from {url}: {error}");
    let answer = client.request(request).await.map_err(|error| lost(&error))?;
    let (head, mut body) = answer.into_parts();
    if head.status != http::StatusCode::OK {
        let body = body.collect().await.map_err(|error| lost(&error))?.to_bytes();
        return Err(lost(&format!("{} {}", head.status, String::from_utf8_lossy(&body))));
    }
    let mut output = tokio::fs::File::create(file).await.map_err(|error| at(file, &error))?;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| lost(&error))?.into_data() {
            output.write_all(&data).await.map_err(|error| at(file, &error))?;
        }
    }
    output.sync_all().await.map_err(|error| at(file, &error))
}
