//! The subcommands of the binary.

mod backup;
mod check;
mod client;
mod demo;
mod export;
mod failure;
mod file;
mod healthcheck;
mod keygen;
mod load;
mod openapi;
mod serve;
mod trust;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;
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
    /// Import files into a running server.
    Load(load::Options),
    /// Export an entity type of a running server to a file.
    Export(export::Options),
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

/// What the binary does. The exit code is 0, or another with a message on standard error: see [`Failure`].
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let configured = || Config::load(cli.config.as_deref()).map_err(Failure::partly);
    let known = || configured().map_err(|failure| Failure::usage(failure.message));
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Openapi => openapi::print().map_err(Failure::from),
        Command::Keygen(options) => keygen::run(&options).map_err(Failure::from),
        Command::Serve => configured().and_then(|config| Ok(serve::run(&config)?)),
        Command::Check(options) => configured().and_then(|config| Ok(check::run(&config, &options)?)),
        Command::Load(options) => known().and_then(|config| load::run(&config, &options)),
        Command::Export(options) => known().and_then(|config| export::run(&config, &options)),
        Command::Backup(options) => configured().and_then(|config| backup::run(&config, &options)),
        Command::Restore(options) => configured().and_then(|config| backup::run_restore(&config, &options)),
        Command::Demo(options) => demo::run(&options),
        Command::Healthcheck(options) => configured().and_then(|config| healthcheck::run(&config, &options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("feature-store: {}", failure.message);
            failure.exit_code()
        }
    }
}

/// Written rather than printed: a reader that closes the pipe early is no reason to panic.
fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// The runtime that the servers and clients of a process run on.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().map_err(|error| format!("the runtime does not start: {error}"))
}
