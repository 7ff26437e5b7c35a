//! Reads of one entity whose answer is at hand. The way through the routes to the handler costs more than
//! such a read itself, and those who ask for one entity at a time ask most often. So they are answered
//! before the routes, by the handler's own parts. What is unusual in any way goes the whole way, mistakes
//! too: nothing is refused here but by the gate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use axum::http::{Method, Request, header};
use axum::response::{IntoResponse, Response};
use http_body::Body;

use super::access::Access;
use super::answer::ETag;
use super::compress::CompressIfAsked;
use super::edge::{Asked, Edge, Route};
use super::problem::Problem;
use super::render;
use crate::domain::name::EntityId;
use crate::service::error::ServiceError;
use crate::trace;

const ROUTE: &str = "/v1/entities/{entity_type}/{entity_id}/features";

/// Answers what is at hand.
pub struct AtHand {
    pub edge: Arc<Edge>,
    pub compress: CompressIfAsked,
}

impl AtHand {
    /// `None`: it is for the routes to answer.
    pub fn answer<B: Body>(&self, request: &Request<B>) -> Option<Response> {
        // Should this panic, so does the handler, where that is seen to.
        catch_unwind(AssertUnwindSafe(|| self.serve(request))).ok().flatten()
    }

    fn serve<B: Body>(&self, request: &Request<B>) -> Option<Response> {
        let started = Instant::now();
        let wanted = Wanted::of(request)?;
        let (edge, store) = (&*self.edge, &self.edge.app.store);
        let at_hand = store.at_hand(wanted.entity_type, wanted.entity_id, wanted.names)?;
        let entity_id = EntityId::parse(wanted.entity_id).ok()?;
        let asked = Asked::new(edge, request, Route::Known(ROUTE));
        let (answer, principal) = match edge.gate.admit(Some(ROUTE), request.method(), request.headers()) {
            Err(refused) => (refused.problem.into_response(), refused.principal),
            Ok(admitted) => {
                let entity_type = at_hand.entity_type();
                let answer = if admitted.principal.as_ref().is_none_or(|who| who.may_use(entity_type)) {
                    let read = store.serve_at_hand(entity_id, at_hand, started);
                    let (_, version) = read.answer.head(0)?;
                    render::row(&read, false).map(|body| (ETag(version), body)).into_response()
                } else {
                    Problem::from(ServiceError::Forbidden(entity_type.clone())).into_response()
                };
                (answer, admitted.principal)
            }
        };
        let answer = edge.finish(&asked, answer, principal.as_deref(), Some(Access::Read));
        Some(self.compress.now(request.headers(), answer))
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
