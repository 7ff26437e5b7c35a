//! The subcommands of the binary.

mod backup;
mod check;
mod demo;
mod healthcheck;
mod keygen;
mod openapi;
mod serve;
mod trust;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// A feature store: keeps machine-learning features and serves them over HTTP and JSON.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Configuration file (default: feature-store.toml, if there is one).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API (the default).
    Serve,
    /// Check schema files, and run the tests in them.
    Check(check::Options),
    /// Make an API key, and print its entry for the file of keys.
    Keygen(keygen::Options),
    /// Ask a running server on the embedded store for a backup.
    Backup(backup::BackupOptions),
    /// Make a data directory of a backup.
    Restore(backup::RestoreOptions),
    /// Print the OpenAPI document.
    Openapi,
    /// Start a server with a shop in it and walk through everything it does.
    Demo(demo::Options),
    /// Ask a running server whether it is ready; for containers without curl.
    Healthcheck(healthcheck::Options),
}

/// What the binary does; the exit code is 0, or 1 with a message on standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Openapi => openapi::print(),
        Command::Keygen(options) => keygen::run(&options),
        Command::Serve => load(cli.config).and_then(|config| serve::run(&config)),
        Command::Check(options) => load(cli.config).and_then(|config| check::run(&config, &options)),
        Command::Backup(options) => load(cli.config).and_then(|config| backup::run(&config, &options)),
        Command::Restore(options) => {
            load(cli.config).and_then(|config| backup::run_restore(&config, &options))
        }
        Command::Demo(options) => demo::run(&options),
        Command::Healthcheck(options) => {
            load(cli.config).and_then(|config| healthcheck::run(&config, &options))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("feature-store: {message}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: Option<PathBuf>) -> Result<Config, String> {
    Config::load(file.as_deref()).map_err(|error| error.to_string())
}

/// The runtime that the servers and clients of a process run on.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().map_err(|error| format!("the runtime does not start: {error}"))
}
