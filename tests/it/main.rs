//! Tests against real servers and over real sockets.

mod redis_process;
mod redis_store;
