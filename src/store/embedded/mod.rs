//! The store in a data directory.
