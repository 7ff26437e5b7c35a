//! How handlers answer.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
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
        let mut response = Response::new(Body::from(self.0));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// The header that names an entity's version, for `If-Match`.
pub struct ETag(pub u64);

impl IntoResponseParts for ETag {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.0).as_bytes();
        // The largest number has twenty digits.
        let mut tag = [b'"'; 22];
        tag[1..=digits.len()].copy_from_slice(digits);
        if let Ok(tag) = HeaderValue::from_bytes(&tag[..digits.len() + 2]) {
            parts.headers_mut().insert(header::ETAG, tag);
        }
        Ok(parts)
    }
}

/// The header that says how old an answer is which the store could not confirm.
pub fn age(stale: Option<Span>) -> Option<[(header::HeaderName, String); 1]> {
    stale.map(|age| [(header::AGE, age.as_millis().div_ceil(1000).to_string())])
}
