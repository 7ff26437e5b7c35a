//! Forms that several operations of the OpenAPI document share.

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A length of time: seconds, or text such as `"1h30m"`.
pub struct DurationText;

/// A length of time, or `"never"`.
pub struct TtlText;

const SPAN: &str = r"^([0-9]+(\.[0-9]+)?|([0-9]+(ms|s|m|h|d|w))+)$";
const SPAN_OR_NEVER: &str = r"^([0-9]+(\.[0-9]+)?|([0-9]+(ms|s|m|h|d|w))+|never)$";

fn seconds_or_text(description: &str, pattern: &str, example: &str) -> RefOr<Schema> {
    OneOfBuilder::new()
        .description(Some(description))
        .item(
            ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Number))
                .exclusive_minimum(Some(0.0))
                .maximum(Some(3_153_600_000.0)),
        )
        .item(ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(pattern)))
        .examples([example])
        .build()
        .into()
}

impl PartialSchema for DurationText {
    fn schema() -> RefOr<Schema> {
        seconds_or_text("A length of time: seconds, or text such as \"1h30m\" (units ms, s, m, h, d, w).", SPAN, "1h")
    }
}

impl ToSchema for DurationText {
    fn name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
}

impl PartialSchema for TtlText {
    fn schema() -> RefOr<Schema> {
        seconds_or_text("A length of time: seconds, or text such as \"1h30m\"; or \"never\".", SPAN_OR_NEVER, "30d")
    }
}

impl ToSchema for TtlText {
    fn name() -> std::borrow::Cow<'static, str> {
        "Ttl".into()
    }
}
