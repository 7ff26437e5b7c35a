//! What a request needs to be let in. A route is registered together with that: [`Routes::add`] is
//! the only way to add one.

use axum::Router;
use axum::http::Method;
use foldhash::HashMap;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::App;
use super::problem;

/// What a request needs to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, at any load.
    Probe,
    /// Anybody, unless the documentation is closed.
    Docs,
    /// Anybody, unless the metrics are closed.
    Metrics,
    Read,
    Write,
    Admin,
}

impl Access {
    /// As the OpenAPI document says it in `x-access`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Docs => "docs",
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// What each route needs, by path and method.
#[derive(Clone, Debug, Default)]
pub struct AccessTable(HashMap<String, Vec<(Method, Access)>>);

impl AccessTable {
    /// `None`: nobody registered such a route.
    pub fn find(&self, path: &str, method: &Method) -> Option<Access> {
        // The router answers HEAD as GET without its body.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let methods = self.0.get(path)?;
        methods.iter().find(|(known, _)| known == method).map(|(_, access)| *access)
    }

    pub fn knows_path(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Registers a route that is not in the OpenAPI document.
    pub fn insert(&mut self, path: &str, method: Method, access: Access) {
        self.0.entry(path.to_owned()).or_default().push((method, access));
    }
}

/// The routes of the API, each with its part of the OpenAPI document and with what it needs.
pub struct Routes {
    router: OpenApiRouter<App>,
    table: AccessTable,
}

impl Routes {
    pub fn new(mut document: OpenApi) -> Self {
        let components = document.components.get_or_insert_with(Components::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An API key, where the server asks for one (`auth = \"api_keys\"`). `x-access` of an operation is the scope that the key must have.",
        ));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        let header = ApiKeyValue::with_description("x-api-key", "The same key, in a header of its own.");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
        Self { router: OpenApiRouter::with_openapi(document), table: AccessTable::default() }
    }

    /// Adds the handlers of one path that all need the same.
    pub fn add(mut self, access: Access, mut routes: UtoipaMethodRouter<App>) -> Self {
        for (path, item) in &mut routes.1.paths {
            for (method, operation) in operations(item) {
                self.table.insert(path, method, access);
                describe(operation, access);
            }
        }
        self.router = self.router.routes(routes);
        self
    }

    pub fn into_openapi(self) -> OpenApi {
        self.router.into_openapi()
    }

    pub fn into_router(self) -> (Router<App>, AccessTable) {
        (self.router.into(), self.table)
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Says in the document what an operation needs, and how it answers who lacks that.
fn describe(operation: &mut Operation, access: Access) {
    let extensions = operation.extensions.get_or_insert_default();
    extensions.insert("x-access".to_owned(), access.as_str().into());
    if access == Access::Probe {
        operation.security = Some(Vec::new());
        return;
    }
    // The empty one: a server without keys asks for none.
    let none: [&str; 0] = [];
    operation.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new("bearer", none),
        SecurityRequirement::new("api_key", none),
    ]);
    operation.responses.responses.extend(problem::refusals());
}
