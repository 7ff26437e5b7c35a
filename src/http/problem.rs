//! The one place where errors become answers: `application/problem+json` (RFC 9457).

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use crate::domain::violation::Violation;
use crate::service::error::{ServiceError, StoreError};
use crate::service::import::Counts;

/// What went wrong, in a word that programs can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidRequest,
    ValidationFailed,
    UnknownEntityType,
    UnknownFeature,
    EntityNotFound,
    VersionNotFound,
    VersionConflict,
    SchemaConflict,
    PayloadTooLarge,
    Unauthorized,
    Forbidden,
    RateLimited,
    Overloaded,
    StoreUnavailable,
    Timeout,
    Internal,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::ValidationFailed => "validation_failed",
            Self::UnknownEntityType => "unknown_entity_type",
            Self::UnknownFeature => "unknown_feature",
            Self::EntityNotFound => "entity_not_found",
            Self::VersionNotFound => "version_not_found",
            Self::VersionConflict => "version_conflict",
            Self::SchemaConflict => "schema_conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::StoreUnavailable => "store_unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// An error as a client sees it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "type": "urn:feature-store:problem:validation_failed",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "price: must be at least 0",
    "code": "validation_failed",
    "request_id": "01JH0Z6J2V9K",
    "errors": [{"feature": "price", "code": "below_minimum", "message": "must be at least 0"}]
}))]
pub struct Problem {
    /// A name for this kind of problem; not meant to be fetched.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What went wrong this time, and what to do about it.
    pub detail: String,
    pub code: Code,
    /// Also in the header `x-request-id` and in the server's log.
    pub request_id: String,
    /// Everything that is wrong, where there is more to say than the detail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// The entity's version now; only with `version_conflict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
    /// What was stored before it failed; only of imports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imported: Option<Counts>,
    #[serde(skip)]
    pub retry_after: Option<u32>,
    #[serde(skip)]
    pub allow: Option<HeaderValue>,
}

impl Problem {
    pub fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:feature-store:problem:{}", code.as_str()),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            request_id: String::new(),
            errors: Vec::new(),
            current_version: None,
            imported: None,
            retry_after: None,
            allow: None,
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, detail)
    }

    pub fn with_errors(mut self, errors: Vec<Violation>) -> Self {
        self.errors = errors;
        self
    }

    /// The problem of a row of a batch, which has no request id of its own.
    pub fn of_row(error: ServiceError) -> RowProblem {
        let problem = Self::from(error);
        RowProblem { code: problem.code, detail: problem.detail, errors: problem.errors }
    }

    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The answer itself; made at the very edge, where the request id is known.
    pub fn render(mut self, request_id: &str) -> Response {
        request_id.clone_into(&mut self.request_id);
        // Text and numbers alone: there is nothing that could fail to serialize.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status_code(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"feature-store\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Leaves the rendering to the edge, which finds the problem among the extensions.
    fn into_response(self) -> Response {
        let mut response = self.status_code().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Why one row of a batch was refused.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RowProblem {
    pub code: Code,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        match error {
            ServiceError::InvalidRequest(_) => Self::invalid(detail),
            ServiceError::ValidationFailed(violations) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::ValidationFailed, detail)
                    .with_errors(violations)
            }
            ServiceError::UnknownEntityType(_) => {
                Self::new(StatusCode::NOT_FOUND, Code::UnknownEntityType, detail)
            }
            ServiceError::Forbidden(_) | ServiceError::ForbiddenToSome => {
                Self::new(StatusCode::FORBIDDEN, Code::Forbidden, detail)
            }
            ServiceError::UnknownFeatures(violations) => {
                Self::new(StatusCode::BAD_REQUEST, Code::UnknownFeature, detail).with_errors(violations)
            }
            ServiceError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, Code::InvalidRequest, detail),
            ServiceError::EntityNotFound(_) => Self::new(StatusCode::NOT_FOUND, Code::EntityNotFound, detail),
            ServiceError::VersionNotFound { violations, .. } => {
                Self::new(StatusCode::NOT_FOUND, Code::VersionNotFound, detail).with_errors(violations)
            }
            ServiceError::VersionConflict { current } => {
                let mut problem = Self::new(StatusCode::PRECONDITION_FAILED, Code::VersionConflict, detail);
                problem.current_version = Some(current);
                problem
            }
            ServiceError::SchemaConflict { violations, .. } => {
                Self::new(StatusCode::CONFLICT, Code::SchemaConflict, detail).with_errors(violations)
            }
            ServiceError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, detail)
            }
            ServiceError::Contention => Self {
                retry_after: Some(1),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, detail)
            },
            // No store is down, and no client is at fault: the server lacks what it needs for this.
            ServiceError::Unavailable(_) => Self {
                retry_after: Some(1),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, detail)
            },
            ServiceError::Store(error) => error.into(),
            ServiceError::Internal(message) => {
                tracing::error!(error = message, "a bug");
                Self::internal()
            }
        }
    }
}

impl Problem {
    /// The same whatever is wrong with a key, which is nothing to learn from.
    pub fn unauthorized() -> Self {
        let detail = "show a valid API key, as `Authorization: Bearer KEY` or `x-api-key: KEY`";
        Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail)
    }

    pub fn internal() -> Self {
        let detail = "something went wrong in the server; its log has more under this request id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, detail)
    }

    pub fn late_body() -> Self {
        let detail = "nothing more of the body came in time, or not all of it did";
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::Timeout, detail)
    }

    pub fn overloaded(detail: &str) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, detail);
        Self { retry_after: Some(1), ..problem }
    }

    pub fn unavailable(detail: &str) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::StoreUnavailable, detail);
        Self { retry_after: Some(1), ..problem }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // Internals stay in the log: where the store is, what is broken in it.
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "the store is unavailable");
                Self::unavailable("the store cannot be reached or refuses to work; try again")
            }
            StoreError::Interrupted(_) => {
                tracing::warn!(%error, "the store is unavailable");
                Self::unavailable(
                    "the connection to the store broke; a write may have been stored, and may be sent again",
                )
            }
            StoreError::Timeout => {
                tracing::warn!(%error, "the store is slow");
                let detail =
                    "the store did not answer in time; a write may have been stored, and may be sent again";
                Self::new(StatusCode::GATEWAY_TIMEOUT, Code::Timeout, detail)
            }
            StoreError::Crowded => Self::overloaded("the store has more to do than it can; try again"),
            StoreError::Corrupt { .. } | StoreError::Internal(_) => {
                tracing::error!(%error, "the store failed");
                Self::internal()
            }
        }
    }
}

/// The problems that an operation may answer with, for the OpenAPI document.
fn problems(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let response = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response =
            ResponseBuilder::new().description(description).content("application/problem+json", content);
        RefOr::T(response.build())
    };
    statuses.iter().map(|(status, description)| (status.to_string(), response(description))).collect()
}

const READING: [(u16, &str); 6] = [
    (400, "The request is malformed, or names an unknown feature."),
    (404, "There is no such entity type, entity, version or other thing named by the path."),
    (413, "The request asks for more than a limit allows."),
    (500, "A bug, or unreadable data in the store."),
    (503, "The store or the provider of embeddings cannot be reached, or the server is overloaded."),
    (504, "The store or the server took too long."),
];

const REFUSING: [(u16, &str); 3] = [
    (401, "No valid key came with the request, and the server asks for one."),
    (403, "The key does not allow this, or not of this entity type."),
    (429, "The key was used more often than its rate limit allows; `Retry-After` says when to try again."),
];

/// Problems of requests that are not let in.
pub fn refusals() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    problems(&REFUSING)
}

const CHANGING: [(u16, &str); 5] = [
    (409, "The change conflicts with what is there."),
    (412, "The entity is not at the version that If-Match asks for."),
    (408, "The body did not come in time."),
    (415, "The body is not of a type that is understood here."),
    (422, "The body does not fit the schema; everything that is wrong is listed."),
];

/// Problems of operations that read.
pub struct ReadProblems;

impl utoipa::IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&READING)
    }
}

/// Problems of operations that take a body or change something.
pub struct ChangeProblems;

impl utoipa::IntoResponses for ChangeProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&[READING.as_slice(), &CHANGING].concat())
    }
}

/// Problems of operations that take a body and answer with a table.
pub struct TableProblems;

impl utoipa::IntoResponses for TableProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let not_acceptable = (406, "Accept names no format of tables.");
        problems(&[READING.as_slice(), &[not_acceptable], &CHANGING[2..]].concat())
    }
}
