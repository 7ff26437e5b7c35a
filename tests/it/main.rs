//! Tests against real servers and over real sockets: one binary for all of them.

mod demo;
mod embedded_speed;
mod embedded_store;
mod memory_model;
mod readme;
mod redis_contract;
mod redis_process;
mod redis_store;
mod server_process;
mod store_contract;
