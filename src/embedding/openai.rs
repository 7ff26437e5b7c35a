//! Any server that speaks `POST {url}/embeddings` as OpenAI does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::domain::derive::EmbeddingRequest;
use crate::service::embeddings::EmbeddingProvider;
use crate::tls::ClientTls;
use crate::trace;

/// What a pause between two attempts begins with; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Room for a number of an embedding as JSON, with what is around it.
const BYTES_PER_NUMBER: usize = 64;
/// What a cache entry takes besides its numbers.
const ENTRY_BYTES: u64 = 96;
/// So many batches of one request are under way at the same time.
const CONCURRENT_BATCHES: usize = 4;

/// How to reach the server, and how hard to try.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// Up to before `/embeddings`.
    pub url: String,
    pub model: String,
    pub api_key: Option<String>,
    /// Of one attempt.
    pub timeout: Duration,
    /// Texts in one request.
    pub batch_size: usize,
    /// Attempts after the first one.
    pub retries: u32,
    pub cache_bytes: u64,
    /// Whether to ask for the schema's dimension.
    pub send_dimensions: bool,
}

/// See the module's documentation.
pub struct OpenAiProvider {
    config: OpenAiConfig,
    uri: http::Uri,
    authorization: Option<http::HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    cache: Cache<Key, Arc<[f32]>, Weigh>,
}

/// The embedding of a text, or why there is none.
type Embedded = Result<Arc<[f32]>, String>;

/// A hash of the model, the dimension and the text.
type Key = [u8; 32];

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Arc<[f32]>> for Weigh {
    fn weight(&self, _: &Key, embedding: &Arc<[f32]>) -> u64 {
        size_of_val::<[f32]>(embedding) as u64 + ENTRY_BYTES
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: Vec<&'a str>,
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Response {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<Option<f64>>,
}

/// Why an attempt failed.
struct Failed {
    reason: String,
    /// Whether another attempt may go better.
    again: bool,
    /// Whether one of the texts may be to blame.
    of_texts: bool,
}

impl Failed {
    fn never(reason: String) -> Self {
        Self { reason, again: false, of_texts: false }
    }
}

impl OpenAiProvider {
    pub fn new(config: OpenAiConfig) -> Result<Self, String> {
        let uri = format!("{}/embeddings", config.url.trim_end_matches('/'));
        let uri: http::Uri = uri.parse().map_err(|error| format!("embedding_url: {error}"))?;
        let authorization = match &config.api_key {
            Some(key) => {
                let value = http::HeaderValue::try_from(format!("Bearer {key}"));
                let mut value =
                    value.map_err(|_| "embedding_api_key has characters that no header can hold")?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let connector = ClientTls::default().connector().map_err(|error| error.to_string())?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let entry = ENTRY_BYTES + 4 * 384;
        let entries = usize::try_from(config.cache_bytes / entry).unwrap_or(usize::MAX).clamp(1, 1 << 20);
        let cache = Cache::with_weighter(entries, config.cache_bytes, Weigh);
        Ok(Self { config, uri, authorization, client, cache })
    }

    fn key(&self, text: &str, dimension: u32) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config.model.as_bytes());
        hasher.update(&[0]);
        hasher.update(&dimension.to_le_bytes());
        hasher.update(text.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// The embeddings of texts that are to have one dimension, with further attempts.
    async fn batch(&self, texts: &[&str], dimension: u32) -> Result<Vec<Arc<[f32]>>, Failed> {
        let request = Request {
            model: &self.config.model,
            input: texts.to_vec(),
            encoding_format: "float",
            dimensions: self.config.send_dimensions.then_some(dimension),
        };
        let body = serde_json::to_vec(&request).map_err(|error| Failed::never(error.to_string()))?;
        let body = Bytes::from(body);
        let mut attempt = 0;
        loop {
            let limit = self.config.timeout;
            let answer =
                match tokio::time::timeout(limit, self.ask(body.clone(), texts.len(), dimension)).await {
                    Ok(answer) => answer,
                    // Whoever is too slow once is not asked again: the writer has waited long enough.
                    Err(_) => Err(Failed {
                        reason: format!("did not answer within {} ms", limit.as_millis()),
                        again: false,
                        of_texts: false,
                    }),
                };
            match answer {
                Ok(embeddings) => return Ok(embeddings),
                Err(failed) if failed.again && attempt < self.config.retries => {
                    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
                    tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
                    attempt += 1;
                }
                Err(failed) => {
                    let attempts =
                        if attempt > 0 { format!(" ({} attempts)", attempt + 1) } else { String::new() };
                    let reason = format!("the embedding provider openai {}{attempts}", failed.reason);
                    return Err(Failed { reason, ..failed });
                }
            }
        }
    }

    /// The embeddings of texts that were refused together. One that is to blame does not fail the others: they
    /// are asked for by halves, as long as either half is taken.
    fn by_halves<'a>(
        &'a self,
        texts: &'a [&'a str],
        dimension: u32,
        refused: Failed,
    ) -> BoxFuture<'a, Vec<Embedded>> {
        Box::pin(async move {
            let (first, second) = texts.split_at(texts.len() / 2);
            if !refused.of_texts || first.is_empty() {
                return vec![Err(refused.reason); texts.len()];
            }
            let taken = |embeddings: Vec<Arc<[f32]>>| embeddings.into_iter().map(Ok);
            match (self.batch(first, dimension).await, self.batch(second, dimension).await) {
                (Ok(first), Ok(second)) => taken(first).chain(taken(second)).collect(),
                (Ok(first), Err(refused)) => {
                    taken(first).chain(self.by_halves(second, dimension, refused).await).collect()
                }
                (Err(refused), Ok(second)) => {
                    let first = self.by_halves(first, dimension, refused).await;
                    first.into_iter().chain(taken(second)).collect()
                }
                (Err(_), Err(_)) => vec![Err(refused.reason); texts.len()],
            }
        })
    }

    /// One attempt.
    async fn ask(&self, body: Bytes, count: usize, dimension: u32) -> Result<Vec<Arc<[f32]>>, Failed> {
        let never = Failed::never;
        let again = |reason: String| Failed { again: true, ..never(reason) };
        let mut request = http::Request::post(self.uri.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(http::header::AUTHORIZATION, authorization.clone());
        }
        let mut request = request.body(Full::new(body)).map_err(|error| never(error.to_string()))?;
        let span = trace::call("embeddings");
        span.set("feature_store.count", || i64::try_from(count).unwrap_or(i64::MAX));
        span.write_to(request.headers_mut());
        let response = self.client.request(request).await.map_err(|error| {
            // Where it is stays in the log.
            tracing::warn!(%error, "the embedding provider cannot be reached");
            span.fail("unreachable");
            again("cannot be reached".to_owned())
        })?;
        let status = response.status();
        span.set("http.response.status_code", || i64::from(status.as_u16()));
        if !status.is_success() {
            let again = status.as_u16() == 429 || status.is_server_error();
            let of_texts = matches!(status.as_u16(), 400 | 413 | 422);
            return Err(Failed { reason: format!("answered {}", status.as_u16()), again, of_texts });
        }
        let most = 65_536 + count * (dimension as usize + 64) * BYTES_PER_NUMBER;
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|_| again("broke off, or answered far too much".to_owned()))?.to_bytes();
        let answer: Response = serde_json::from_slice(&body)
            .map_err(|error| never(format!("answered something else than embeddings: {error}")))?;
        embeddings(answer, count, dimension).map_err(never)
    }
}

/// The embeddings in the order of the texts; never a wrong one.
fn embeddings(answer: Response, count: usize, dimension: u32) -> Result<Vec<Arc<[f32]>>, String> {
    if answer.data.len() != count {
        return Err(format!("answered {} embeddings for {count} texts", answer.data.len()));
    }
    let mut found: Vec<Option<Arc<[f32]>>> = vec![None; count];
    for item in answer.data {
        if item.embedding.len() != dimension as usize {
            let numbers = item.embedding.len();
            return Err(format!("answered an embedding of {numbers} numbers where {dimension} are wanted"));
        }
        let numbers = item.embedding.iter().map(|number| number.map_or(f32::NAN, |number| number as f32));
        let numbers: Arc<[f32]> = numbers.collect();
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err("answered a number that is not finite".to_owned());
        }
        match found.get_mut(item.index) {
            Some(place @ None) => *place = Some(numbers),
            Some(Some(_)) => return Err(format!("answered two embeddings for the text {}", item.index)),
            None => return Err(format!("answered an embedding for the text {} of {count}", item.index)),
        }
    }
    // As many as wanted, no place twice, none outside: every place is filled.
    found.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| "left out an embedding".to_owned())
}

#[async_trait]
impl EmbeddingProvider for OpenAiProvider {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn at_hand(&self, text: &str, dimension: u32) -> Option<Arc<[f32]>> {
        self.cache.get(&self.key(text, dimension))
    }

    async fn fetch(&self, requests: &[EmbeddingRequest]) -> Vec<Result<Arc<[f32]>, String>> {
        use futures::StreamExt;
        let mut by_dimension: HashMap<u32, Vec<usize>> = HashMap::new();
        for (place, request) in requests.iter().enumerate() {
            by_dimension.entry(request.dimension).or_default().push(place);
        }
        let batches: Vec<(u32, Vec<usize>)> = by_dimension
            .iter()
            .flat_map(|(dimension, places)| {
                places.chunks(self.config.batch_size.max(1)).map(|chunk| (*dimension, chunk.to_vec()))
            })
            .collect();
        let fetched: Vec<_> = futures::stream::iter(batches)
            .map(|(dimension, places)| async move {
                let texts: Vec<&str> = places.iter().map(|place| requests[*place].text.as_str()).collect();
                let embedded = match self.batch(&texts, dimension).await {
                    Ok(embeddings) => embeddings.into_iter().map(Ok).collect(),
                    Err(refused) => self.by_halves(&texts, dimension, refused).await,
                };
                (places, embedded)
            })
            .buffer_unordered(CONCURRENT_BATCHES)
            .collect()
            .await;
        let missing = || Err("the embedding provider openai left out an embedding".to_owned());
        let mut results: Vec<Result<Arc<[f32]>, String>> = requests.iter().map(|_| missing()).collect();
        for (places, embedded) in fetched {
            for (place, embedded) in places.into_iter().zip(embedded) {
                if let Ok(embedding) = &embedded {
                    let request = &requests[place];
                    self.cache.insert(self.key(&request.text, request.dimension), embedding.clone());
                }
                results[place] = embedded;
            }
        }
        results
    }
}
