//! The built-in provider: signed feature hashing, always at hand.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::derive::EmbeddingRequest;
use crate::service::embeddings::EmbeddingProvider;
use crate::transform::hashing;

/// Needs nothing but the text itself: no model, no download, no waiting.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashingProvider;

#[async_trait]
impl EmbeddingProvider for HashingProvider {
    fn name(&self) -> &'static str {
        "hashing"
    }

    fn at_hand(&self, text: &str, dimension: u32) -> Option<Arc<[f32]>> {
        Some(hashing(text, dimension))
    }

    async fn fetch(&self, requests: &[EmbeddingRequest]) -> Vec<Result<Arc<[f32]>, String>> {
        requests.iter().map(|request| Ok(hashing(&request.text, request.dimension))).collect()
    }
}
