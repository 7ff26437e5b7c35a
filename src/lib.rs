pub mod clock;
pub mod domain;
pub mod service;
pub mod store;
