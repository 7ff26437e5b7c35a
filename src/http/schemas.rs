//! Forms that several operations of the OpenAPI document share.

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A length of time: seconds, or text such as `"1h30m"`.
pub struct DurationText;

/// A length of time, or `"never"`.
pub struct TtlText;

const SPAN: &str = r"^([0-9]+(\.[0-9]+)?|([0-9]+(ms|s|m|h|d|w))+)$";
const SPAN_OR_NEVER: &str = r"^([0-9]+(\.[0-9]+)?|([0-9]+(ms|s|m|h|d|w))+|never)$";

fn seconds_or_text(description: &str, pattern: &str, example: &str) -> RefOr<Schema> {
    let one_of = OneOfBuilder::new()
        .description(Some(description))
        .item(
            ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Number))
                .exclusive_minimum(Some(0.0))
                .maximum(Some(3_153_600_000.0)),
        )
        .item(ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(pattern)))
        .examples([example])
        .build();
    RefOr::T(Schema::OneOf(one_of))
}

impl PartialSchema for DurationText {
    fn schema() -> RefOr<Schema> {
        seconds_or_text(
            "A length of time: seconds, or text such as \"1h30m\" (units ms, s, m, h, d, w).",
            SPAN,
            "1h",
        )
    }
}

impl ToSchema for DurationText {
    fn name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
}

impl PartialSchema for TtlText {
    fn schema() -> RefOr<Schema> {
        seconds_or_text(
            "A length of time: seconds, or text such as \"1h30m\"; or \"never\".",
            SPAN_OR_NEVER,
            "30d",
        )
    }
}

impl ToSchema for TtlText {
    fn name() -> std::borrow::Cow<'static, str> {
        "Ttl".into()
    }
}

/// Features to write: at least one.
pub struct FeaturesToWrite;

impl PartialSchema for FeaturesToWrite {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some(
                "Values by feature name; names match [A-Za-z_][A-Za-z0-9_]* and have at most 128 bytes.",
            ))
            .min_properties(Some(1))
            .additional_properties(Some(Ref::from_schema_name("FeatureValue")))
            .build()
            .into()
    }
}

impl ToSchema for FeaturesToWrite {
    fn name() -> std::borrow::Cow<'static, str> {
        "FeaturesToWrite".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("FeatureValue".to_owned(), super::values::FeatureValue::schema()));
    }
}

/// Entity ids by entity type: at least one type.
pub struct EntityIdsByType;

impl PartialSchema for EntityIdsByType {
    fn schema() -> RefOr<Schema> {
        let id = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .min_length(Some(1))
            .max_length(Some(256));
        ObjectBuilder::new()
            .description(Some("Entity ids by entity type, in the order the answer is wanted."))
            .min_properties(Some(1))
            .additional_properties(Some(ArrayBuilder::new().items(id)))
            .build()
            .into()
    }
}

impl ToSchema for EntityIdsByType {
    fn name() -> std::borrow::Cow<'static, str> {
        "EntityIdsByType".into()
    }
}
