//! `feature-store demo`: a server of its own with a shop in it, and a walk through everything it does.
//!
//! The [`directory`] holds an embedded store for as long as the demo lives. The [`walk`] sends each
//! request of the [`chapters`] through a [`client`], over a real socket, and shows it as a curl
//! line with its answer, made readable by [`json`]. What is in the shop comes from the
//! [`catalogue`].

mod catalogue;
mod chapters;
mod client;
mod directory;
mod json;
mod walk;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use self::client::Client;
use self::directory::TemporaryDirectory;
use self::walk::Walk;
use crate::cli::Failure;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, LogFormat};
use crate::{logs, server};

#[derive(Debug, Args)]
pub struct Options {
    /// Address and port of the demo's server (default: a free port of this machine).
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// End after the walk, with exit code 1 if anything was not as it should be.
    #[arg(long)]
    exit: bool,
}

/// Serves a shop from a temporary directory and walks through it. The configuration plays no part,
/// so that a demo never writes to a store that somebody needs.
pub fn run(options: &Options) -> Result<(), Failure> {
    logs::init("warn", LogFormat::Auto)?;
    super::runtime()?.block_on(serve_and_walk(options))
}

async fn serve_and_walk(options: &Options) -> Result<(), Failure> {
    let directory = TemporaryDirectory::create()?;
    let listen = options.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener =
        TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let base = format!("http://{}", super::client::reachable(address));

    let mut interrupted = Box::pin(super::serve::stop_signal()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config { data_dir: directory.path().join("data"), ..Config::default() };
    let mut server = tokio::spawn(async move {
        let stopped = async move { stopped.await.unwrap_or_default() };
        server::run(&config, listener, Arc::new(SystemClock), stopped).await
    });

    let outcome = tokio::select! {
        outcome = walk_and_stay(options, &base) => outcome,
        // A walk that CI asked for is to be whole.
        () = &mut interrupted => if options.exit { Err(Failure::partly("interrupted")) } else { Ok(()) },
        ended = &mut server => return Err(match ended {
            Ok(Err(error)) => Failure::partly(error),
            Ok(Ok(())) | Err(_) => Failure::partly("the demo's server ended"),
        }),
    };
    drop(stop);
    // The server closes its store before its directory goes.
    let ended = server.await;
    drop(directory);
    match (outcome, ended) {
        (Err(error), _) => Err(error),
        (Ok(()), Ok(Err(error))) => Err(Failure::partly(error)),
        (Ok(()), _) => Ok(()),
    }
}

/// Ends only with `--exit`, or where the walk cannot go on.
async fn walk_and_stay(options: &Options, base: &str) -> Result<(), Failure> {
    let mut walk = Walk::new(Client::new(base)?, SystemClock.now());
    walk.print(&format!(
        "A feature store listens on {base}, with an embedded store in a temporary directory.\n\
         Every line that begins with $ can be pasted into another terminal while this one runs."
    ))?;
    walk.wait_until_ready().await?;
    chapters::all(&mut walk).await?;
    let summary = walk.finish()?;
    if options.exit {
        return Ok(summary?);
    }
    let said = match summary {
        Ok(()) => String::new(),
        Err(error) => format!("{error}\n"),
    };
    walk.print(&format!(
        "{said}The shop stays open: {base}\n\
         The API's pages are at {base}/docs. Ctrl-C ends it and removes what it stored."
    ))?;
    std::future::pending().await
}
