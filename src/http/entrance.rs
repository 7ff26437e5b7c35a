//! Where requests come in.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use futures::future::Either;
use http::Request;
use hyper::body::Incoming;
use tower::Service;

use super::at_hand::AtHand;

/// Routes, and what is answered before them.
#[derive(Clone)]
pub struct Entrance {
    at_hand: Option<Arc<AtHand>>,
    router: Router,
}

type Answer = Either<Ready<Result<Response, Infallible>>, RouteFuture<Infallible>>;

impl Entrance {
    pub fn new(at_hand: Option<AtHand>, router: Router) -> Self {
        Self { at_hand: at_hand.map(Arc::new), router }
    }

    pub fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.at_hand.as_ref().and_then(|at_hand| at_hand.answer(&request)) {
            Some(answer) => Either::Left(ready(Ok(answer))),
            None => Either::Right(self.router.clone().call(request)),
        }
    }
}
