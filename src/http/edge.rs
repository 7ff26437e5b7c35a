//! What happens around every request, once, at the very edge: its id, its deadline, its log line,
//! its metrics, and the rendering of problems.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::App;
use super::audit::Audit;
use super::gate::Gate;
use super::meters::{self, RequestMeters, UNMATCHED};
use super::problem::{Code, Problem};
use super::slow_body;
use crate::monitor::{Performance, Tally};
use crate::service::principal::on_behalf;
use crate::trace;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Routes whose requests take as long as their bodies do; they bound each wait for more of it.
const UNHURRIED: [&str; 1] = ["/v1/features/import"];

/// What the edge needs to know.
pub struct Edge {
    pub app: App,
    pub request_timeout: Duration,
    /// How long a client may send nothing of its body.
    pub stall_timeout: Duration,
    pub gate: Gate,
    pub audit: Audit,
    pub meters: RequestMeters,
    /// `None`: monitoring is off.
    pub performance: Option<Arc<Performance>>,
}

/// Wraps every request.
pub async fn around(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let is_http1 = request.version() < Version::HTTP_2;
    // The matched route and never the raw path, so that the labels stay few.
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map(MatchedPath::as_str);
    let span = tracing::info_span!("request", id = %request_id.to_str().unwrap_or_default(), %method, path = request.uri().path(), key = tracing::field::Empty, trace = tracing::field::Empty);
    let traced = trace::request(meters::label(&method), route.unwrap_or(UNMATCHED), request.headers());
    if let Some(trace) = traced.trace_id() {
        span.record("trace", trace);
    }
    let in_flight = edge.meters.in_flight();
    let admitted = edge.gate.admit(route, &method, request.headers());
    let (principal, access) = match &admitted {
        Ok(admitted) => (admitted.principal.clone(), admitted.access),
        Err(refused) => (refused.principal.clone(), refused.access),
    };
    let unhurried = route.is_some_and(|route| UNHURRIED.contains(&route));
    let timeout = if unhurried { Duration::MAX } else { edge.request_timeout };
    let request = if unhurried || request.body().is_end_stream() {
        request
    } else {
        let deadline = started + edge.request_timeout;
        request.map(|body| slow_body::bounded(body, edge.stall_timeout, deadline.into()))
    };
    if let Some(principal) = &principal {
        span.record("key", &*principal.name);
    }
    let audited = Audit::concerns(access, &method, route.unwrap_or_default()).then(|| request.uri().clone());
    let answer = match &admitted {
        Ok(_) => {
            let work = traced.around(on_behalf(principal.clone(), next.run(request)));
            tokio::time::timeout(timeout, work).instrument(span.clone()).await
        }
        Err(refused) => Ok(refused.problem.clone().into_response()),
    };
    drop(admitted);
    drop(in_flight);
    let mut response = answer.unwrap_or_else(|_| {
        let detail = "the server did not finish in time; a write may have been stored, and may be sent again";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, Code::Timeout, detail).into_response()
    });
    let elapsed = started.elapsed();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let _entered = span.enter();
        // A line for every request that is shed would be one more load.
        if problem.status >= 500 && problem.code != Code::Overloaded {
            tracing::warn!(status = problem.status, code = problem.code.as_str(), "answered with a problem");
        }
        let allow = response.headers_mut().remove(header::ALLOW);
        let problem = Problem { allow: problem.allow.clone().or(allow), ..problem };
        response = problem.render(request_id.to_str().unwrap_or_default());
    }
    tracing::debug!(parent: &span, status = response.status().as_u16(), seconds = elapsed.as_secs_f64(), "answered");
    let route = route.unwrap_or(UNMATCHED);
    edge.meters.answered(route, &method, response.status(), elapsed);
    edge.count(route, response.status());
    traced.set("http.response.status_code", || i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        traced.fail("server_error");
    }
    if let Some(uri) = audited {
        let actor = principal.as_ref().map_or("", |principal| &principal.name);
        let id = request_id.to_str().unwrap_or_default();
        edge.audit.note(edge.app.store.now(), actor, &method, &uri, response.status(), id);
    }
    response.headers_mut().insert(REQUEST_ID, request_id);
    if is_http1 && edge.app.lifecycle.is_stopping() {
        // So that clients leave this server one answer at a time, and none of them meets the moment
        // when it closes what is idle. HTTP/2 says this for the connection as a whole.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Edge {
    /// Probes and the like are no requests that anybody waits for.
    fn count(&self, route: &str, status: StatusCode) {
        if let Some(performance) = self.performance.as_ref().filter(|_| route.starts_with("/v1/")) {
            performance.count(Tally::Requests, 1);
            if status.is_server_error() {
                performance.count(Tally::ServerErrors, 1);
            }
        }
    }
}

/// The caller's request id where it is fit to be logged, else one of our own.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let chance = rand::random::<u64>();
        let id: [u8; 16] =
            std::array::from_fn(|at| b"0123456789abcdef"[(chance >> (60 - 4 * at)) as usize & 15]);
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// The answer to a path that is no route.
pub async fn no_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        Code::InvalidRequest,
        "there is no such path; see /docs for those that are there",
    )
}

/// The answer to a method that a path does not take.
pub async fn no_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::InvalidRequest, "this path does not take that method")
}

/// The answer where a handler panicked.
pub fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let message =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("unknown"), "a handler panicked");
    Problem::internal().into_response()
}
