//! A feature store: keeps machine-learning features and serves them at inference time.
//!
//! In the order data flows:
//!
//! - [`cli`] reads the command line and the [`config`]uration and hands over to the [`server`];
//! - [`http`] takes a request apart, calls one use case and answers;
//! - [`service`] holds the use cases: it loads what the rules need and carries out what they decide;
//! - [`domain`] holds the rules, and does no I/O;
//! - [`transform`] evaluates the functions behind computed features;
//! - [`embedding`] is where embeddings of texts come from;
//! - [`store`] keeps what was decided, in a data directory or in Redis;
//! - [`table`] is how features leave and enter in bulk: Parquet, Arrow, CSV, JSON;
//! - [`keys`] are the API keys that requests show;
//! - [`monitor`] is what the server knows of itself: latencies, freshness, alerts;
//! - [`clock`] tells the time; [`logs`], [`telemetry`] and [`trace`] tell what happened, and [`tls`] whom
//!   to trust.
//!
//! `docs/ARCHITECTURE.md` says why.

pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod embedding;
pub mod http;
pub mod keys;
pub mod logs;
pub mod monitor;
pub mod server;
pub mod service;
pub mod store;
pub mod table;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod transform;
