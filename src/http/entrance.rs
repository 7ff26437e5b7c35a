//! Where requests come in.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::routing::future::RouteFuture;
use futures::future::Either;
use http::Request;
use hyper::body::Incoming;
use tower::Service;

use super::direct::{Answer, DirectReads};

/// Routes, and the short way past them.
#[derive(Clone)]
pub struct Entrance {
    direct: Option<Arc<DirectReads>>,
    router: Router,
}

impl Entrance {
    pub fn new(direct: Option<DirectReads>, router: Router) -> Self {
        Self { direct: direct.map(Arc::new), router }
    }

    pub fn answer(&self, request: Request<Incoming>) -> Either<Answer, RouteFuture<Infallible>> {
        match self.direct.as_ref().and_then(|direct| direct.answer(&request)) {
            Some(answer) => Either::Left(answer),
            None => Either::Right(self.router.clone().call(request)),
        }
    }
}
