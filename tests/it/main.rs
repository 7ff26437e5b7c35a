//! One binary for all integration tests.

mod embedded_store;
mod memory_model;
mod store_contract;
