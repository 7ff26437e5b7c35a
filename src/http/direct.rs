//! Plain reads of one entity, straight to the handler. The way there through the routes costs as much as
//! such a read itself, and those who ask for one entity at a time ask most often. What the near cache has
//! is answered on the spot, without a future even. What is unusual in any way goes the whole way, mistakes
//! too: nothing is refused here but by the gate.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{Method, Request, header};
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, Either};
use http_body::Body;

use super::access::Access;
use super::answer::ETag;
use super::compress::CompressIfAsked;
use super::edge::{Asked, Edge, Route, answer};
use super::features;
use super::problem::Problem;
use super::render;
use crate::domain::name::{EntityId, EntityKey, EntityType};
use crate::service::at_hand::AtHand;
use crate::service::error::ServiceError;
use crate::trace;

const ROUTE: &str = "/v1/entities/{entity_type}/{entity_id}/features";

/// Answers plain reads.
pub struct DirectReads {
    pub edge: Arc<Edge>,
    pub compress: CompressIfAsked,
}

type Answered = Result<Response, Infallible>;
pub type Answer = Either<Ready<Answered>, Underway>;

/// An answer that is being made. A type of its own, since the compiler does not find the task of a
/// connection to be `Send` with the bare future in it.
pub struct Underway(BoxFuture<'static, Answered>);

impl Future for Underway {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        self.0.as_mut().poll(context)
    }
}

impl DirectReads {
    /// `None`: it is for the routes to answer.
    pub fn answer<B: Body>(&self, request: &Request<B>) -> Option<Answer> {
        // Should this panic, so does the handler, where that is seen to.
        catch_unwind(AssertUnwindSafe(|| self.serve(request))).ok().flatten()
    }

    fn serve<B: Body>(&self, request: &Request<B>) -> Option<Answer> {
        let started = Instant::now();
        let wanted = Wanted::of(request)?;
        let edge = &*self.edge;
        let at_hand = edge.app.store.at_hand(wanted.entity_type, wanted.entity_id, wanted.names);
        let entity_id = EntityId::parse(wanted.entity_id).ok()?;
        let entity_type = match &at_hand {
            Some(at_hand) => at_hand.entity_type().clone(),
            None => EntityType::parse(wanted.entity_type).ok()?,
        };
        let entity = EntityKey::new(entity_type, entity_id);
        let asked = Asked::new(edge, request, Route::Known(ROUTE));
        let admitted = match edge.gate.admit(Some(ROUTE), request.method(), request.headers()) {
            Ok(admitted) => admitted,
            Err(refused) => {
                let problem = refused.problem.into_response();
                let answer = edge.finish(&asked, problem, refused.principal.as_deref(), refused.access);
                return Some(Either::Left(ready(Ok(answer))));
            }
        };
        let Some(at_hand) = at_hand else {
            let (app, names) = (edge.app.clone(), wanted.names.map(str::to_owned));
            let work = async move { Ok(features::read_plain(&app, entity, names).await.into_response()) };
            let answer = answer(self.edge.clone(), asked, Ok(admitted), Some(Box::pin(work)));
            return Some(Either::Right(Underway(self.compress.soon(request.headers(), answer))));
        };
        let principal = admitted.principal.as_deref();
        let response = if principal.is_none_or(|who| who.may_use(&entity.entity_type)) {
            self.take(entity.entity_id, at_hand, started)
        } else {
            Problem::from(ServiceError::Forbidden(entity.entity_type)).into_response()
        };
        let response = edge.finish(&asked, response, principal, Some(Access::Read));
        Some(Either::Left(ready(Ok(self.compress.now(request.headers(), response)))))
    }

    fn take(&self, entity_id: EntityId, at_hand: AtHand, started: Instant) -> Response {
        let read = self.edge.app.store.serve_at_hand(entity_id, at_hand, started);
        let version = read.answer.head(0).map(|(_, version)| ETag(version));
        render::row(&read, false).map(|body| (version, body)).into_response()
    }
}

/// What such a request asks for.
struct Wanted<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    /// Separated by commas; `None`: all of them.
    names: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn of<B: Body>(request: &'a Request<B>) -> Option<Self> {
        let is_usual = request.method() == Method::GET
            && request.body().is_end_stream()
            && !request.headers().contains_key(header::CACHE_CONTROL)
            && !trace::is_on();
        let (path, query) = (request.uri().path(), request.uri().query());
        let path = path.strip_prefix("/v1/entities/")?.strip_suffix("/features")?;
        let (entity_type, entity_id) = path.split_once('/').filter(|_| is_usual)?;
        let names = match query {
            None => None,
            Some(query) => Some(query.strip_prefix("names=")?),
        };
        // Nothing has to be decoded, and nothing else is asked.
        let is_plain = |text: &str| !text.bytes().any(|byte| matches!(byte, b'/' | b'%' | b'+' | b'&'));
        (is_plain(entity_id) && names.is_none_or(is_plain)).then_some(Self { entity_type, entity_id, names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(uri: &str) -> Option<(String, String, Option<String>)> {
        let request = Request::get(uri).body(axum::body::Body::empty()).unwrap();
        let Wanted { entity_type, entity_id, names } = Wanted::of(&request)?;
        Some((entity_type.to_owned(), entity_id.to_owned(), names.map(str::to_owned)))
    }

    #[test]
    fn plain_reads_are_taken_apart() {
        let of = |names: Option<&str>| Some(("a".to_owned(), "b~c".to_owned(), names.map(str::to_owned)));
        assert_eq!(wanted("/v1/entities/a/b~c/features"), of(None));
        assert_eq!(wanted("/v1/entities/a/b~c/features?names=x,y"), of(Some("x,y")));
    }

    #[test]
    fn all_others_go_the_whole_way() {
        for uri in [
            "/v1/entities/a/b",
            "/v1/entities/a/features",
            "/v1/entities/a/b%20c/features",
            "/v1/entities/a/b/c/features",
            "/v1/entities/a/b/features/",
            "/v1/entities/a/b/features?",
            "/v1/entities/a/b/features?name=x",
            "/v1/entities/a/b/features?names=x&version=1",
            "/v1/entities/a/b/features?names=x%2Cy",
            "/v1/entities/a/b/features?names=x+y",
            "/v1/entities/a/b/features?version=1",
        ] {
            assert_eq!(wanted(uri), None, "{uri}");
        }
        let body = Request::get("/v1/entities/a/b/features").body(axum::body::Body::from("{}")).unwrap();
        assert!(Wanted::of(&body).is_none());
        let request = Request::get("/v1/entities/a/b/features").header("Cache-Control", "no-cache");
        assert!(Wanted::of(&request.body(axum::body::Body::empty()).unwrap()).is_none());
        let request = Request::post("/v1/entities/a/b/features").body(axum::body::Body::empty()).unwrap();
        assert!(Wanted::of(&request).is_none());
    }
}
