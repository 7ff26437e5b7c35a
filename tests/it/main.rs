//! Tests against real servers and over real sockets: one binary for all of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a failure is a panic, in its helpers too"
)]
#![expect(clippy::print_stdout, reason = "figures are printed")]
#![expect(clippy::disallowed_methods, reason = "real servers run on the real clock")]

mod access;
mod alerts;
mod backup;
mod bulk_commands;
mod certificates;
mod check;
mod client;
mod coherence;
mod compute;
mod compute_broken;
mod compute_jobs;
mod contention;
mod demo;
mod direct_reads;
mod embedded_speed;
mod embedded_store;
mod embeddings;
mod export_jobs;
mod faults;
mod http_batch_write;
mod http_constraints;
mod http_edge;
mod http_entities;
mod http_history;
mod http_read;
mod http_registry;
mod http_rollback;
mod http_services;
mod http_time;
mod http_write;
mod import;
mod import_interrupted;
mod layers;
mod ledger;
mod malformed;
mod malformed_bodies;
mod malformed_cases;
mod memory_model;
mod metrics_document;
mod monitoring;
mod near_cache;
mod openapi_document;
mod raw_http;
mod readme;
mod readme_server;
mod redis_contract;
mod redis_process;
mod redis_recall;
mod redis_rows;
mod redis_store;
mod redis_tls;
mod resilience;
mod rolling;
mod server_process;
mod serving_log;
mod slow_clients;
mod soak;
mod store_contract;
mod tables;
mod test_server;
mod tls;
mod tracing_export;
mod training_data;
mod undo;
mod undo_large;
mod what_follows;
mod workload;
