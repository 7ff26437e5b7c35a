//! Who is let in: asked of every request before anything of it is read but its head. What is cheap to
//! refuse is refused first, so that a server that is asked too much spends its time on answers.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, Method, StatusCode, header};
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::{Access, AccessTable};
use super::backlog::Backlog;
use super::problem::{Code, Problem};
use crate::keys::Keys;
use crate::service::principal::{Principal, Scope};

/// The header that a key may come in besides `Authorization`.
pub const API_KEY: &str = "x-api-key";

const REFUSED: &str = "feature_store_requests_refused_total";

/// Whom the gate lets in.
pub struct Admittance {
    /// `None`: nobody is asked for a key.
    pub keys: Option<Arc<Keys>>,
    /// Whether the documentation needs no key.
    pub public_docs: bool,
    /// Whether the metrics need no key.
    pub public_metrics: bool,
    /// So many requests are worked on at the same time.
    pub max_concurrent_requests: usize,
}

/// Stands before every route.
pub struct Gate {
    table: AccessTable,
    admittance: Admittance,
    places: Arc<Semaphore>,
    backlog: Arc<Backlog>,
}

/// A request that was let in; it keeps its place as long as this lives.
#[derive(Default)]
pub struct Admitted {
    pub principal: Option<Arc<Principal>>,
    pub access: Option<Access>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A request that was not let in, and who it came from if that is known.
pub struct Refused {
    pub problem: Problem,
    pub principal: Option<Arc<Principal>>,
    pub access: Option<Access>,
}

impl Gate {
    /// Watches the runtime that it is called on.
    pub fn new(table: AccessTable, admittance: Admittance) -> Self {
        for reason in ["overloaded", "unauthorized", "forbidden", "rate_limited"] {
            counter!(REFUSED, "reason" => reason).increment(0);
        }
        // Tokio's semaphore holds no more.
        let places = admittance.max_concurrent_requests.min(Semaphore::MAX_PERMITS);
        Self { table, admittance, places: Arc::new(Semaphore::new(places)), backlog: Backlog::watched() }
    }

    /// Lets a request in, or says why not. `None` for a route is a path that nobody registered.
    pub fn admit(
        &self,
        route: Option<&str>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Admitted, Box<Refused>> {
        let Some(route) = route else { return Ok(Admitted::default()) };
        let Some(access) = self.table.find(route, method) else {
            // The router says which methods a path takes. Nothing is served that was not registered
            // together with what it needs.
            return if self.table.knows_path(route) {
                Ok(Admitted::default())
            } else {
                tracing::error!(route, "a route has no access of its own");
                let problem = Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, "nobody is let in here");
                Err(Box::new(Refused { problem, principal: None, access: None }))
            };
        };
        if access == Access::Probe {
            return Ok(Admitted { access: Some(access), ..Admitted::default() });
        }
        let refused = |problem, principal| Box::new(Refused { problem, principal, access: Some(access) });
        let place = match access {
            // Whoever watches sees most when there is most to see.
            Access::Metrics => None,
            _ => Some(self.place().ok_or_else(|| refused(overloaded(), None))?),
        };
        let mut admitted = Admitted { principal: None, access: Some(access), _place: place };
        if let Some(keys) = &self.admittance.keys
            && let Some(needed) = self.needed(access)
        {
            let key = shown(headers).and_then(|shown| keys.find(shown)).ok_or_else(|| {
                counter!(REFUSED, "reason" => "unauthorized").increment(1);
                refused(Problem::unauthorized(), None)
            })?;
            let principal = key.principal.clone();
            if let Needed::Scope(scope) = needed
                && !principal.has(scope)
            {
                counter!(REFUSED, "reason" => "forbidden").increment(1);
                return Err(refused(out_of_scope(scope), Some(principal)));
            }
            if let Err(seconds) = key.count() {
                counter!(REFUSED, "reason" => "rate_limited").increment(1);
                return Err(refused(rate_limited(seconds), Some(principal)));
            }
            admitted.principal = Some(principal);
        }
        Ok(admitted)
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        if !self.backlog.admits(Instant::now()) {
            return None;
        }
        self.places.clone().try_acquire_owned().ok()
    }

    fn needed(&self, access: Access) -> Option<Needed> {
        match access {
            Access::Probe => None,
            Access::Docs => (!self.admittance.public_docs).then_some(Needed::AnyKey),
            Access::Metrics => (!self.admittance.public_metrics).then_some(Needed::AnyKey),
            Access::Read => Some(Needed::Scope(Scope::Read)),
            Access::Write => Some(Needed::Scope(Scope::Write)),
            Access::Admin => Some(Needed::Scope(Scope::Admin)),
        }
    }
}

/// What a key must be good for.
enum Needed {
    AnyKey,
    Scope(Scope),
}

/// The key in `Authorization: Bearer`, else in `x-api-key`.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes()))
}

/// The answer where there are too many connections.
pub async fn too_many_connections() -> Problem {
    refuse_overloaded("the server has as many connections as it may; try again")
}

fn overloaded() -> Problem {
    refuse_overloaded("the server has as much to do as it can; try again")
}

fn refuse_overloaded(detail: &str) -> Problem {
    counter!(REFUSED, "reason" => "overloaded").increment(1);
    Problem::overloaded(detail)
}

fn out_of_scope(scope: Scope) -> Problem {
    let detail = format!("this needs a key with the scope {}", scope.as_str());
    Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail)
}

fn rate_limited(seconds: u32) -> Problem {
    let detail = "this key is used more often than its rate limit allows";
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, detail);
    Problem { retry_after: Some(seconds), ..problem }
}
