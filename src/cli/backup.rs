//! `feature-store backup` and `feature-store restore`

use std::path::{Path, PathBuf};

use axum::body::Body;
use clap::Args;
use http::Request;

use super::Failure;
use super::client::{Client, Server};
use super::file::Unfinished;
use crate::config::{Config, StoreChoice};
use crate::store::embedded::{restore, verify};

#[derive(Debug, Args)]
pub struct BackupOptions {
    /// Where to write the backup; must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    server: Server,
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
pub fn run(config: &Config, options: &BackupOptions) -> Result<(), Failure> {
    let output = &options.output;
    if output.exists() {
        return Err(Failure::usage(format!("{} is there already", output.display())));
    }
    super::runtime()?.block_on(fetch(&options.server.client(config)?, output))
}

/// Makes a data directory out of a backup.
pub fn run_restore(config: &Config, options: &RestoreOptions) -> Result<(), Failure> {
    let data_dir = match (&options.data_dir, config.store()) {
        (Some(data_dir), _) => data_dir.clone(),
        (None, StoreChoice::Embedded(data_dir)) => data_dir,
        (None, StoreChoice::Redis(_)) => return Err(Failure::usage("the store is Redis; name a --data-dir")),
    };
    restore(&options.backup, &data_dir).map(drop).map_err(Failure::partly)
}

async fn fetch(client: &Client, output: &Path) -> Result<(), Failure> {
    let lost = |failure: Failure| failure.about("no backup from ");
    let request = Request::post("/v1/admin/backup").body(Body::empty()).map_err(Failure::usage)?;
    let answer = client.ask(request).await.map_err(lost)?;
    let mut file = Unfinished::create(output).await?;
    file.take(client, answer.into_body(), |_| {}).await.map_err(lost)?;
    file.finish(|unfinished| verify(unfinished).map(drop).map_err(|error| error.to_string())).await
}
