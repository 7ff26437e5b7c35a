//! Embeddings of texts, for functions that ask for them: at hand at once, or fetched from a
//! provider between two evaluations.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::derive::{Embedding, EmbeddingRequest, Embeddings};

/// So many rounds of fetching one write may need: functions may build a text from an embedding.
pub(super) const FETCH_ROUNDS: usize = 4;

/// A source of embeddings.
///
/// The same text and dimension have the same embedding. An embedding has the wanted dimension and
/// finite numbers, or it is an error that says why: never a wrong vector.
#[async_trait]
pub trait EmbeddingProvider: Send + Sync + 'static {
    /// The name that lineage and health know it by.
    fn name(&self) -> &'static str;

    /// An embedding that needs no waiting: computed, or fetched before.
    fn at_hand(&self, text: &str, dimension: u32) -> Option<Arc<[f32]>>;

    /// Fetches embeddings, in the order of the requests.
    async fn fetch(&self, requests: &[EmbeddingRequest]) -> Vec<Result<Arc<[f32]>, String>>;
}

/// The embeddings of one request: what it fetched stays at hand until it ends.
pub struct Lookup<'a> {
    provider: &'a dyn EmbeddingProvider,
    fetched: HashMap<EmbeddingRequest, Result<Arc<[f32]>, String>>,
    rounds: usize,
}

impl<'a> Lookup<'a> {
    pub fn new(provider: &'a dyn EmbeddingProvider) -> Self {
        Self { provider, fetched: HashMap::new(), rounds: 0 }
    }

    /// Fetches what an evaluation was missing; `false` after too many rounds.
    pub async fn fetch(&mut self, requests: Vec<EmbeddingRequest>) -> bool {
        self.rounds += 1;
        if self.rounds > FETCH_ROUNDS {
            return false;
        }
        let results = self.provider.fetch(&requests).await;
        self.fetched.extend(requests.into_iter().zip(results));
        true
    }
}

impl Embeddings for Lookup<'_> {
    fn get(&self, text: &str, dimension: u32) -> Embedding {
        if let Some(embedding) = self.provider.at_hand(text, dimension) {
            return Embedding::Here(embedding);
        }
        if self.fetched.is_empty() {
            return Embedding::Fetch;
        }
        match self.fetched.get(&EmbeddingRequest { text: text.to_owned(), dimension }) {
            Some(Ok(embedding)) => Embedding::Here(embedding.clone()),
            Some(Err(reason)) => Embedding::Failed(reason.clone()),
            None => Embedding::Fetch,
        }
    }
}
