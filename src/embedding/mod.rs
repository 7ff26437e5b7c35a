//! Where embeddings of texts come from.

mod hashing;
mod openai;

pub use hashing::HashingProvider;
pub use openai::{OpenAiConfig, OpenAiProvider};
