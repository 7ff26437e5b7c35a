//! Embeddings of texts, for functions that ask for them: at hand at once, or fetched from a
//! provider between two evaluations.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::derive::{Embedding, EmbeddingRequest, Embeddings};

/// So often an evaluation is begun anew for want of embeddings: functions may build a text from an
/// embedding, or ask for more texts than go at once.
const FETCH_ROUNDS: usize = 4;

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

    /// Fetches what an evaluation was missing.
    pub async fn fetch(&mut self, mut requests: Vec<EmbeddingRequest>) {
        self.rounds += 1;
        requests.sort_unstable();
        requests.dedup();
        let results = self.provider.fetch(&requests).await;
        self.fetched.extend(requests.into_iter().zip(results));
    }

    /// What is evaluated next is something else than before.
    pub fn begin(&mut self) {
        self.rounds = 0;
    }

    /// What becomes of a text that has not been fetched.
    fn missing(&self) -> Embedding {
        if self.rounds < FETCH_ROUNDS {
            return Embedding::Fetch;
        }
        Embedding::Refused(format!(
            "embeddings were fetched for it {FETCH_ROUNDS} times, and it asks for others"
        ))
    }
}

impl Embeddings for Lookup<'_> {
    fn get(&self, text: &str, dimension: u32) -> Embedding {
        if let Some(embedding) = self.provider.at_hand(text, dimension) {
            return Embedding::Here(embedding);
        }
        if self.fetched.is_empty() {
            return self.missing();
        }
        match self.fetched.get(&EmbeddingRequest { text: text.to_owned(), dimension }) {
            Some(Ok(embedding)) => Embedding::Here(embedding.clone()),
            Some(Err(reason)) => Embedding::Failed(reason.clone()),
            None => self.missing(),
        }
    }
}
