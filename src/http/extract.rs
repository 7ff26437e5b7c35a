//! What handlers take from a request. A part that does not fit is a problem that says where.

use std::borrow::Cow;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::objects::Objects;
use super::problem::{Code, Problem};
use super::query;
use super::slow_body::TooSlow;
use crate::domain::given::Given;
use crate::domain::name::{EntityId, EntityKey, EntityType, NameError};
use crate::domain::violation::{Violation, ViolationCode};
use crate::service::principal;
use crate::service::write::Precondition;
use crate::table::Format;

/// Path segments, as validated types.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if principal::is_restricted()
            && let Ok(segments) = RawPathParams::from_request_parts(parts, state).await
        {
            permit_named(segments.iter())?;
        }
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::invalid(format!("path: {}", strip(&rejection.body_text())))),
        }
    }
}

/// The entity that a path names.
#[derive(Deserialize)]
pub struct EntityPath {
    pub entity_type: EntityType,
    pub entity_id: EntityId,
}

impl From<EntityPath> for EntityKey {
    fn from(path: EntityPath) -> Self {
        Self::new(path.entity_type, path.entity_id)
    }
}

/// The query, where unknown parameters are an error.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if principal::is_restricted()
            && let Ok(axum::extract::Query(pairs)) =
                axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        {
            permit_named(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        }
        if let Some(value) = query::plain(parts.uri.query().unwrap_or_default()) {
            return Ok(Self(value));
        }
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::invalid(format!("query: {}", strip(&rejection.body_text())))),
        }
    }
}

/// Refuses an entity type that whoever asks may not use before anything else of the request is looked
/// at. One that is named in a body is refused when it is looked up.
fn permit_named<'a>(mut named: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Problem> {
    named.try_for_each(|(name, value)| match EntityType::parse(value) {
        Ok(entity_type) if name == "entity_type" => Ok(principal::permit(&entity_type)?),
        _ => Ok(()),
    })
}

/// axum's texts begin with a sentence that says nothing of the request.
fn strip(text: &str) -> &str {
    text.rsplit_once("Failed to deserialize query string: ")
        .or_else(|| text.rsplit_once("Cannot parse "))
        .map_or(text, |(_, rest)| rest)
}

/// A body that says it is JSON, not parsed yet.
pub struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(content_type(request.headers())) {
            return Err(unsupported("application/json"));
        }
        Ok(Self(body(request, state).await?))
    }
}

impl JsonBody {
    /// Parses the body, which the result borrows from.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        parse_json(&self.0)
    }
}

/// A body that says what it is, not parsed yet.
pub struct AnyBody {
    format: Option<Format>,
    bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for AnyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = content_type(request.headers());
        let format =
            if is_json(content_type) { Some(Format::Json) } else { Format::from_media_type(content_type) };
        Ok(Self { format, bytes: body(request, state).await? })
    }
}

impl AnyBody {
    /// `None`: nothing that a table or a document could be.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// Parses a body that is JSON; the result borrows from it.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        parse_json(&self.bytes)
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// A document as JSON or as YAML.
pub struct Document<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let yaml = match content_type(request.headers()) {
            json if is_json(json) => false,
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => true,
            _ => return Err(unsupported("application/json or application/yaml")),
        };
        let bytes = body(request, state).await?;
        Ok(Self(if yaml { parse_yaml(&bytes)? } else { parse_json(&bytes)? }))
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    refuse_encoded(request.headers())?;
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let detail = "the body is larger than max_body_bytes allows";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, detail)
        }
        rejection if TooSlow::is_cause_of(&rejection) => Problem::late_body(),
        _ => Problem::invalid("the body could not be read to its end"),
    })
}

/// Bodies come as they are.
pub fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let detail = "the body must come without Content-Encoding: it is not decompressed";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidRequest, detail))
        }
        _ => Ok(()),
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

fn is_json(content_type: &str) -> bool {
    content_type.eq_ignore_ascii_case("application/json")
        || (content_type.starts_with("application/") && content_type.ends_with("+json"))
}

fn unsupported(wanted: &str) -> Problem {
    let detail = format!("the body must come with Content-Type: {wanted}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidRequest, detail)
}

fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = T::deserialize(Objects(&mut deserializer));
    parsed.and_then(|parsed| deserializer.end().map(|()| parsed)).map_err(|_| explain::<T>(bytes))
}

/// Reading YAML takes far longer than JSON of the same size, and the more so the deeper it nests,
/// while the thread that reads can do nothing else. Schemas of thousands of features are shorter.
const MAX_YAML_BYTES: usize = 256 << 10;

/// By way of JSON, so that both forms of a document follow the same rules: read directly, a null would
/// pass for an empty object, and `no` or `1` for a text.
fn parse_yaml<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.len() > MAX_YAML_BYTES {
        let detail = format!("a YAML document has at most {MAX_YAML_BYTES} bytes; send larger ones as JSON");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, detail));
    }
    let mut json = Vec::with_capacity(bytes.len());
    let mut writer = serde_json::Serializer::new(&mut json);
    serde_transcode::transcode(yaml_serde::Deserializer::from_slice(bytes), &mut writer)
        .map_err(|error| Problem::invalid(format!("the body is not YAML that JSON could say: {error}")))?;
    parse_json(&json).map_err(without_position)
}

/// Of a document that went by way of another, which nobody has seen.
fn without_position(mut problem: Problem) -> Problem {
    fn cut(text: &mut String) {
        if let Some(end) = text.rfind(" at line ") {
            text.truncate(end);
        }
    }
    cut(&mut problem.detail);
    problem.errors.iter_mut().for_each(|violation| cut(&mut violation.message));
    problem
}

/// Reads a document as the API would read it from a body; the error says where it fails.
pub fn read_document<T: DeserializeOwned>(bytes: &[u8], yaml: bool) -> Result<T, String> {
    let document = if yaml { parse_yaml(bytes) } else { parse_json(bytes) };
    document.map_err(|problem| {
        let detail = problem.detail.strip_prefix("the body ").unwrap_or(&problem.detail);
        match problem.errors.first().and_then(|violation| violation.pointer.as_deref()) {
            Some(pointer) if !pointer.is_empty() => format!("{pointer}: {detail}"),
            _ => detail.to_owned(),
        }
    })
}

/// Parses a body that has failed already once more, to say where it fails.
#[cold]
fn explain<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Problem {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let result: Result<T, _> = serde_path_to_error::deserialize(Objects(&mut deserializer));
    let Err(error) = result else {
        return Problem::invalid("the body goes on after the JSON document in it");
    };
    let pointer = pointer(error.path());
    let message = error.into_inner().to_string();
    let detail = format!("the body is not the document that is wanted: {message}");
    let violation = Violation::at(&pointer, ViolationCode::InvalidValue, message);
    Problem::invalid(detail).with_errors(vec![violation])
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |mut pointer, segment| {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => pointer.push('?'),
        }
        pointer
    })
}

/// The header `If-Match`: a version in quotes, or `*`.
pub struct IfMatch(pub Precondition);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(Precondition::None)) };
        let text = value.to_str().map(str::trim).unwrap_or_default();
        if text == "*" {
            return Ok(Self(Precondition::Exists));
        }
        let version =
            text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|v| v.parse().ok());
        match version {
            Some(version) => Ok(Self(Precondition::Version(version))),
            None => Err(Problem::invalid("If-Match: write one version in quotes, as in \"7\", or *")),
        }
    }
}

/// A change that cannot be made conditional: whoever sends `If-Match` would believe it was.
pub struct Unconditional;

impl<S: Send + Sync> FromRequestParts<S> for Unconditional {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.headers.contains_key(header::IF_MATCH) {
            true => Err(Problem::invalid("If-Match: this cannot be made conditional; leave it out")),
            false => Ok(Self),
        }
    }
}

/// The header `Cache-Control`: whether the store itself is to answer.
pub struct NoCache(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for NoCache {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let mut values = parts.headers.get_all(header::CACHE_CONTROL).iter();
        let asks = |value: &http::HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
        };
        Ok(Self(values.any(asks)))
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// The members of a JSON object in their order, each value as it stands in the body.
#[derive(Debug, Default)]
pub struct RawMembers<'a>(pub Vec<(Cow<'a, str>, Given<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of feature names and values")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                    members.push((name, Given::Json(map.next_value()?)));
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A text that is borrowed where it has no escapes, which `Cow` by itself never is.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
