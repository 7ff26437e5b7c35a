//! The metrics of requests. To look a metric up by its labels costs allocations, so each handle is
//! kept after its first use; a series is not there before that.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use foldhash::HashMap;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// The route of requests whose path is none.
pub const UNMATCHED: &str = "unmatched";

const REQUESTS: &str = "feature_store_http_requests_total";
const SECONDS: &str = "feature_store_http_request_duration_seconds";

/// Clients may invent methods; labels may not grow with them.
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "other"];

/// What labels and traces call a method.
pub fn label(method: &Method) -> &'static str {
    METHODS[place(method)]
}

fn place(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// Those that are answered often enough to have a handle.
const STATUSES: [u16; 17] =
    [200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 412, 413, 422, 429, 500, 503, 504];

/// The handles of every route.
pub struct RequestMeters {
    routes: HashMap<String, RouteMeters>,
    in_flight: Gauge,
}

type RouteMeters = [MethodMeters; METHODS.len()];

#[derive(Default)]
struct MethodMeters {
    seconds: OnceLock<Histogram>,
    answers: [OnceLock<Counter>; STATUSES.len()],
}

impl RequestMeters {
    pub fn new<'a>(routes: impl Iterator<Item = &'a str>) -> Self {
        let routes = routes.chain([UNMATCHED]);
        Self {
            routes: routes.map(|route| (route.to_owned(), RouteMeters::default())).collect(),
            in_flight: gauge!("feature_store_http_requests_in_flight"),
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, route: &str, method: &Method, status: StatusCode, elapsed: Duration) {
        let place = place(method);
        let label = METHODS[place];
        let meters = self.routes.get(route).map(|route| &route[place]);
        let seconds = || histogram!(SECONDS, "method" => label, "route" => route.to_owned());
        let requests = || {
            let status = status.as_str().to_owned();
            counter!(REQUESTS, "method" => label, "route" => route.to_owned(), "status" => status)
        };
        let status = STATUSES.binary_search(&status.as_u16()).ok();
        match meters.zip(status) {
            Some((meters, status)) => meters.answers[status].get_or_init(requests).increment(1),
            None => requests().increment(1),
        }
        match meters {
            Some(meters) => meters.seconds.get_or_init(seconds).record(elapsed.as_secs_f64()),
            None => seconds().record(elapsed.as_secs_f64()),
        }
    }

    /// Counts a request as long as what it gives lives, though it be cancelled.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }
}

/// A request being answered.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_in_order() {
        assert!(STATUSES.is_sorted());
    }
}
