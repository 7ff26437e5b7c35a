//! Compression for those who ask for it. All others are spared what it costs: a look at every answer,
//! and a body around each body.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::Either;
use tower::{Layer, Service, service_fn};
use tower_http::compression::predicate::{And, NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{Compression, CompressionLayer};

use super::problem::Problem;

/// Answers that are large enough to gain by it, and are not compressed already.
type Worthwhile = And<SizeAbove, NotForContentType>;

/// The layer around those requests alone that have an `Accept-Encoding`.
#[derive(Clone)]
pub struct CompressIfAsked(CompressionLayer<Worthwhile>);

impl Default for CompressIfAsked {
    fn default() -> Self {
        let worthwhile = SizeAbove::new(1024).and(NotForContentType::const_new("application/vnd.apache"));
        Self(CompressionLayer::new().compress_when(worthwhile))
    }
}

impl CompressIfAsked {
    /// Compresses an answer that is there already.
    pub fn now(&self, asked: &HeaderMap, answer: Response) -> Response {
        if !asked.contains_key(ACCEPT_ENCODING) {
            return answer;
        }
        let mut request = Request::default();
        *request.headers_mut() = asked.clone();
        let mut answer = Some(answer);
        let take = service_fn(|_: Request| ready(answer.take().ok_or(Gone)));
        match self.0.layer(take).call(request).now_or_never() {
            Some(Ok(compressed)) => compressed.map(Body::new),
            // It is there, and taken once.
            Some(Err(Gone)) | None => Problem::internal().into_response(),
        }
    }

    /// As [`Self::now`], of an answer that is still being made.
    pub fn soon(
        &self,
        asked: &HeaderMap,
        answer: impl Future<Output = Result<Response, Infallible>> + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>> {
        if !asked.contains_key(ACCEPT_ENCODING) {
            return Box::pin(answer);
        }
        let (compress, asked) = (self.clone(), asked.clone());
        Box::pin(async move { Ok(compress.now(&asked, answer.await?)) })
    }
}

struct Gone;

impl<S: Clone> Layer<S> for CompressIfAsked {
    type Service = Compressing<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Compressing { compressed: self.0.layer(inner.clone()), plain: inner }
    }
}

/// A service that compresses its answers where that is asked for.
#[derive(Clone)]
pub struct Compressing<S> {
    plain: S,
    compressed: Compression<S, Worthwhile>,
}

impl<S> Service<Request> for Compressing<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.plain.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if !request.headers().contains_key(ACCEPT_ENCODING) {
            return Either::Left(self.plain.call(request));
        }
        let answer = self.compressed.call(request);
        Either::Right(Box::pin(async move { Ok(answer.await?.map(Body::new)) }))
    }
}
