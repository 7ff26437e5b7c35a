//! Compression for those who ask for it. All others are spared what it costs: a look at every answer,
//! and a body around each body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::ACCEPT_ENCODING;
use axum::response::Response;
use futures::future::Either;
use tower::{Layer, Service};
use tower_http::compression::predicate::Predicate;
use tower_http::compression::{Compression, CompressionLayer};

/// The layer around those requests alone that have an `Accept-Encoding`.
#[derive(Clone)]
pub struct CompressIfAsked<P>(pub CompressionLayer<P>);

impl<S: Clone, P: Predicate> Layer<S> for CompressIfAsked<P> {
    type Service = Compressing<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Compressing { compressed: self.0.layer(inner.clone()), plain: inner }
    }
}

/// A service that compresses its answers where that is asked for.
#[derive(Clone)]
pub struct Compressing<S, P> {
    plain: S,
    compressed: Compression<S, P>,
}

impl<S, P> Service<Request> for Compressing<S, P>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
    P: Predicate + Send + 'static,
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
