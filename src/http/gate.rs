//! Who is let in: asked of every request before anything of it is read but its head.

use axum::extract::MatchedPath;
use axum::http::{Method, StatusCode};

use super::access::AccessTable;
use super::problem::{Code, Problem};

/// Stands before every route.
#[derive(Debug)]
pub struct Gate {
    table: AccessTable,
}

impl Gate {
    pub fn new(table: AccessTable) -> Self {
        Self { table }
    }

    /// Lets a request in, or says why not. `None` for a route is a path that nobody registered.
    pub fn admit(&self, route: Option<&MatchedPath>, method: &Method) -> Result<(), Problem> {
        let Some(route) = route.map(MatchedPath::as_str) else { return Ok(()) };
        match self.table.find(route, method) {
            Some(_) => Ok(()),
            // The router says which methods it takes.
            None if self.table.knows_path(route) => Ok(()),
            // Nothing is served that was not registered together with what it needs.
            None => {
                tracing::error!(route, "a route has no access of its own");
                Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, "nobody is let in here"))
            }
        }
    }
}
