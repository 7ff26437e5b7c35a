//! What happens around every request, once, at the very edge: its id, its deadline, its log line,
//! its metrics, and the rendering of problems.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body_util::BodyExt;
use tower::{Layer, Service};

use super::App;
use super::access::Access;
use super::audit::Audit;
use super::gate::{Admitted, Gate, Refused};
use super::meters::{self, InFlight, RequestMeters, UNMATCHED};
use super::problem::{Code, Problem};
use super::slow_body;
use crate::logs::{self, RequestLine};
use crate::monitor::{Performance, Tally};
use crate::service::principal::{Principal, on_behalf};
use crate::trace::{self, Span};

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

/// Puts an [`Edge`] around every route. In one layer, since each layer of a router costs a request a
/// copy of all services below it, and a future of its own on the heap.
#[derive(Clone)]
pub struct Around(pub Arc<Edge>);

impl<S> Layer<S> for Around {
    type Service = Edged<S>;

    fn layer(&self, inner: S) -> Edged<S> {
        Edged { edge: self.0.clone(), inner }
    }
}

/// A service with an [`Edge`] around it.
#[derive(Clone)]
pub struct Edged<S> {
    edge: Arc<Edge>,
    inner: S,
}

impl<S> Service<Request> for Edged<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().cloned().map_or(Route::None, Route::Matched);
        let asked = Asked::new(&self.edge, &request, route);
        let admitted = self.edge.gate.admit(asked.route(), &asked.line.method, request.headers());
        // Of a request that is not let in nothing more is looked at.
        // It is large, and moved by everything that is put around it.
        let work = admitted.is_ok().then(|| Box::pin(self.inner.call(self.edge.bounded(request, &asked))));
        Box::pin(answer(self.edge.clone(), asked, admitted, work))
    }
}

/// The route of a request, and never its path, so that labels stay few.
pub enum Route {
    Matched(MatchedPath),
    Known(&'static str),
    None,
}

impl Route {
    fn as_str(&self) -> Option<&str> {
        match self {
            Self::Matched(path) => Some(path.as_str()),
            Self::Known(path) => Some(path),
            Self::None => None,
        }
    }
}

/// What is kept of a request while it is answered.
pub struct Asked {
    started: Instant,
    line: Arc<RequestLine>,
    route: Route,
    is_http1: bool,
    traced: Span,
    _in_flight: InFlight,
}

impl Asked {
    pub fn new<B>(edge: &Edge, request: &http::Request<B>, route: Route) -> Self {
        let label = meters::label(request.method());
        let traced = trace::request(label, route.as_str().unwrap_or(UNMATCHED), request.headers());
        let line = RequestLine {
            id: request_id(request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            key: OnceLock::new(),
            trace: traced.trace_id(),
        };
        Self {
            started: Instant::now(),
            line: Arc::new(line),
            route,
            traced,
            is_http1: request.version() < Version::HTTP_2,
            _in_flight: edge.meters.in_flight(),
        }
    }

    fn route(&self) -> Option<&str> {
        self.route.as_str()
    }

    /// Whether it takes as long as its body does.
    fn is_unhurried(&self) -> bool {
        self.route().is_some_and(|route| UNHURRIED.contains(&route))
    }
}

/// Answers a request that was let in by `work`, and every other one with the reason.
pub async fn answer(
    edge: Arc<Edge>,
    asked: Asked,
    admitted: Result<Admitted, Box<Refused>>,
    work: Option<impl Future<Output = Result<Response, Infallible>>>,
) -> Result<Response, Infallible> {
    let line = &asked.line;
    let (principal, access) = match &admitted {
        Ok(admitted) => (admitted.principal.clone(), admitted.access),
        Err(refused) => (refused.principal.clone(), refused.access),
    };
    if let Some(principal) = &principal {
        let _ = line.key.set(principal.name.clone());
    }
    let timeout = if asked.is_unhurried() { Duration::MAX } else { edge.request_timeout };
    let answer = match (&admitted, work) {
        (Ok(_), Some(work)) => {
            let work = asked.traced.around(on_behalf(principal.clone(), work));
            let work = AssertUnwindSafe(work).catch_unwind();
            match tokio::time::timeout(timeout, logs::of_request(line.clone(), work)).await {
                Ok(Ok(answer)) => answer.unwrap_or_else(|never| match never {}),
                Ok(Err(panic)) => logs::within(line.clone(), || panicked(panic)),
                Err(_) => {
                    let detail = "the server did not finish in time; a write may have been stored, and may be sent again";
                    Problem::new(StatusCode::GATEWAY_TIMEOUT, Code::Timeout, detail).into_response()
                }
            }
        }
        (Err(refused), _) => refused.problem.clone().into_response(),
        (Ok(_), None) => Problem::internal().into_response(),
    };
    let response = edge.finish(&asked, answer, principal.as_deref(), access);
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    // A body that is still being made is work: it keeps the place that its request was given.
    Ok(response.map(|body| keeping(admitted, body)))
}

/// A body that keeps something until it was sent or given up.
fn keeping<T: Send + 'static>(kept: T, body: Body) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _ = &kept;
        frame
    }))
}

impl Edge {
    /// A request whose body must come in time.
    fn bounded(&self, request: Request, asked: &Asked) -> Request {
        if asked.is_unhurried() || request.body().is_end_stream() {
            return request;
        }
        let deadline = asked.started + self.request_timeout;
        request.map(|body| slow_body::bounded(body, self.stall_timeout, deadline.into()))
    }

    /// What every answer gets on its way out, and what is noted of it.
    pub fn finish(
        &self,
        asked: &Asked,
        mut response: Response,
        principal: Option<&Principal>,
        access: Option<Access>,
    ) -> Response {
        let (line, elapsed) = (&asked.line, asked.started.elapsed());
        if let Some(principal) = principal {
            // Done already, unless this was answered without work.
            let _ = line.key.set(principal.name.clone());
        }
        let id = line.id.to_str().unwrap_or_default();
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            // A line for every request that is shed would be one more load.
            if problem.status >= 500 && problem.code != Code::Overloaded {
                logs::within(line.clone(), || {
                    tracing::warn!(
                        status = problem.status,
                        code = problem.code.as_str(),
                        "answered with a problem"
                    );
                });
            }
            let allow = response.headers_mut().remove(header::ALLOW);
            let problem = Problem { allow: problem.allow.clone().or(allow), ..problem };
            response = problem.render(id);
        }
        let status = response.status();
        if tracing::enabled!(tracing::Level::DEBUG) {
            logs::within(line.clone(), || {
                tracing::debug!(status = status.as_u16(), seconds = elapsed.as_secs_f64(), "answered");
            });
        }
        let route = asked.route().unwrap_or(UNMATCHED);
        self.meters.answered(route, &line.method, status, elapsed);
        self.count(route, status);
        asked.traced.set("http.response.status_code", || i64::from(status.as_u16()));
        if status.is_server_error() {
            asked.traced.fail("server_error");
        }
        if Audit::concerns(access, &line.method, asked.route().unwrap_or_default()) {
            let actor = principal.map_or("", |principal| &principal.name);
            self.audit.note(self.app.store.now(), actor, &line.method, &line.uri, status, id);
        }
        response.headers_mut().insert(REQUEST_ID, line.id.clone());
        if asked.is_http1 && self.app.lifecycle.is_stopping() {
            // So that clients leave this server one answer at a time, and none of them meets the moment
            // when it closes what is idle. HTTP/2 says this for the connection as a whole.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

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
        HeaderValue::from_bytes(&fresh_id()).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// An id for a request that came with none, in hexadecimal digits.
pub fn fresh_id() -> [u8; 16] {
    let chance = rand::random::<u64>();
    std::array::from_fn(|at| b"0123456789abcdef"[(chance >> (60 - 4 * at)) as usize & 15])
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
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let message =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("unknown"), "a handler panicked");
    Problem::internal().into_response()
}
