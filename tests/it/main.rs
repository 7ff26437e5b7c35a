//! Tests against real servers and over real sockets: one binary for all of them.

mod embedded_speed;
mod embedded_store;
mod memory_model;
mod redis_contract;
mod redis_process;
mod redis_store;
mod store_contract;
