//! Tests against real servers and over real sockets: one binary for all of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a failure is a panic, in its helpers too"
)]
#![expect(clippy::print_stdout, reason = "figures are printed")]
#![expect(clippy::disallowed_methods, reason = "real servers run on the real clock")]

mod embedded_speed;
mod embedded_store;
mod layers;
mod memory_model;
mod openapi_document;
mod redis_contract;
mod redis_process;
mod redis_store;
mod store_contract;
