//! Tables as answers: which format a client wants, and how one is sent while it is made.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{self, Content, KnownFormat, Ref, RefOr, ResponseBuilder, Schema, SchemaFormat};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::problem::{Code, Problem};
use crate::service::frame::Beside;
use crate::table::Format;

/// The name of a format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    Parquet,
    Arrow,
    Csv,
    Ndjson,
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Parquet => Self::Parquet,
            FormatName::Arrow => Self::Arrow,
            FormatName::Csv => Self::Csv,
            FormatName::Ndjson => Self::Ndjson,
            FormatName::Json => Self::Json,
        }
    }
}

/// Columns to stand beside each feature's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncludeColumn {
    /// `price.event_timestamp`: when the value was true; null where there is none.
    EventTimestamp,
    /// `price.status`: `present`, `null`, `not_found`, `expired` or `defaulted`.
    Status,
}

/// The columns asked for, of which some may be named twice.
pub fn beside(include: &[IncludeColumn]) -> Beside {
    Beside {
        event_timestamp: include.contains(&IncludeColumn::EventTimestamp),
        status: include.contains(&IncludeColumn::Status),
    }
}

/// As [`beside`], from a query's list with commas.
pub fn beside_of_query(include: Option<&str>) -> Result<Beside, Problem> {
    let mut beside = Beside::default();
    for word in include.into_iter().flat_map(|list| list.split(',')) {
        match word.trim() {
            "event_timestamp" => beside.event_timestamp = true,
            "status" => beside.status = true,
            other => {
                let detail = format!("include: {other:?} is neither event_timestamp nor status");
                return Err(Problem::invalid(detail));
            }
        }
    }
    Ok(beside)
}

/// The format that a request names, else the one that it accepts best, else JSON.
pub fn wanted(named: Option<FormatName>, headers: &HeaderMap) -> Result<Format, Problem> {
    match named {
        Some(name) => Ok(name.into()),
        None => accepted(headers).ok_or_else(|| {
            let known = Format::ALL.map(|format| format.media_type().split(';').next().unwrap_or_default());
            let detail =
                format!("Accept names nothing that a table can be sent as; there is {}", known.join(", "));
            Problem::new(StatusCode::NOT_ACCEPTABLE, Code::InvalidRequest, detail)
        }),
    }
}

/// The format that `Accept` prefers; JSON where it says nothing, `None` where it knows none of them.
pub fn accepted(headers: &HeaderMap) -> Option<Format> {
    let mut items: Vec<(f32, &str)> = Vec::new();
    let mut any = false;
    for line in headers.get_all(header::ACCEPT) {
        any = true;
        let line = line.to_str().unwrap_or_default();
        items
            .extend(line.split(',').filter(|item| !item.trim().is_empty()).map(|item| (quality(item), item)));
    }
    if !any {
        return Some(Format::Json);
    }
    // Stable: of equally wanted ones the first.
    items.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    items.iter().filter(|(quality, _)| *quality > 0.0).find_map(|(_, item)| {
        match item.split(';').next().unwrap_or_default().trim() {
            "*/*" | "application/*" => Some(Format::Json),
            "text/*" => Some(Format::Csv),
            _ => Format::from_media_type(item),
        }
    })
}

fn quality(item: &str) -> f32 {
    let given = item.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    given.map_or(1.0, |text| text.trim().parse().unwrap_or(0.0))
}

/// An answer that is sent while it is made. A stream that ends with an error breaks the transfer
/// off, which every HTTP client takes for a failure.
pub fn streamed(
    format: Format,
    name: &str,
    stream: impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static,
) -> Response {
    let mut response = Body::from_stream(futures::StreamExt::fuse(stream)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    let file = format!("attachment; filename=\"{name}.{}\"", format.name());
    if let Ok(file) = HeaderValue::try_from(file) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    response
}

/// Why an answer ended before its end; told to the log, since the client was told 200 already.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off")]
pub struct BrokenOff;

impl BrokenOff {
    pub fn because(error: &dyn std::fmt::Display) -> Self {
        tracing::warn!(%error, "an answer was broken off");
        Self
    }
}

/// A table in a format that is no JSON, in the OpenAPI document.
pub struct TableBytes;

impl PartialSchema for TableBytes {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .description(Some("A table of that format."))
            .examples(["{\"entity_id\":\"1\",\"price\":9.5}\n"])
            .into()
    }
}

impl ToSchema for TableBytes {
    fn name() -> Cow<'static, str> {
        "TableBytes".into()
    }
}

/// A table in any format, in the OpenAPI document.
pub struct TableAnswer;

impl IntoResponses for TableAnswer {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let rows = utoipa::schema!(Vec<BTreeMap<String, serde_json::Value>>);
        let mut answer = ResponseBuilder::new()
            .description("The table")
            .content("application/json", Content::new(Some(rows)));
        for format in [Format::Parquet, Format::Arrow, Format::Csv, Format::Ndjson] {
            let bytes = Ref::from_schema_name(TableBytes::name());
            let media_type = format.media_type().split(';').next().unwrap_or_default();
            answer = answer.content(media_type, Content::new(Some(bytes)));
        }
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::try_from(text).unwrap());
        accepted(&headers)
    }

    #[test]
    fn the_format_wanted_most_is_chosen() {
        assert_eq!(accepted(&HeaderMap::new()), Some(Format::Json));
        assert_eq!(accept("*/*"), Some(Format::Json));
        assert_eq!(accept("text/html, application/xhtml+xml;q=0.9, */*;q=0.8"), Some(Format::Json));
        assert_eq!(accept("application/json;q=0.5, text/csv"), Some(Format::Csv));
        assert_eq!(accept("application/vnd.apache.parquet;q=0, text/*"), Some(Format::Csv));
        assert_eq!(accept("application/vnd.apache.arrow.stream, application/json"), Some(Format::Arrow));
        assert_eq!(accept("image/png"), None);
        assert_eq!(accept(""), None);
    }
}
