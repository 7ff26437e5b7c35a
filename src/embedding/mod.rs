//! Where embeddings of texts come from.

mod hashing;

pub use hashing::HashingProvider;
