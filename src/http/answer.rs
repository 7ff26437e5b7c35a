//! How handlers answer.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::domain::time::Span;

/// A body as JSON.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(512);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => JsonText(body).into_response(),
            Err(error) => {
                // A stored JSON document that is no JSON ends up here.
                tracing::error!(%error, "an answer could not be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

/// A body that is JSON already.
pub struct JsonText(pub Vec<u8>);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

/// The header that names an entity's version, for `If-Match`.
pub fn etag(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// The header that says how old an answer is which the store could not confirm.
pub fn age(stale: Option<Span>) -> Option<[(header::HeaderName, String); 1]> {
    stale.map(|age| [(header::AGE, age.as_millis().div_ceil(1000).to_string())])
}
