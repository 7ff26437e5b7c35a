//! One binary for all integration tests.

mod embedded_speed;
mod embedded_store;
mod memory_model;
mod store_contract;
