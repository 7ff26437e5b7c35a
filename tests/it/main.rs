//! Tests against real servers and over real sockets: one binary for all of them.

mod client;
mod contention;
mod embedded_speed;
mod embedded_store;
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
mod malformed;
mod malformed_cases;
mod memory_model;
mod raw_http;
mod redis_contract;
mod redis_process;
mod redis_store;
mod server_process;
mod store_contract;
mod test_server;
