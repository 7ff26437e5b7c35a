//! Forms that several operations of the OpenAPI document share: the validated types of the domain as
//! JSON Schema sees them, and forms of their own.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::values::FeatureValue;
use crate::domain::name::{
    EntityId, EntityType, FeatureName, FeatureRef, FeatureServiceName, FeatureServiceRef,
};
use crate::domain::record::Version;
use crate::domain::time::{Span, Ttl};

const NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

/// A schema with a name of its own in the document.
macro_rules! named_schema {
    ($type:ty, $name:literal, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    };
}

/// Bytes, which no schema describes.
pub struct Binary;

named_schema!(
    Binary,
    "Binary",
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
);

fn text(description: &str, pattern: &str, lengths: RangeInclusive<usize>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some(description))
        .pattern(Some(pattern))
        .min_length(Some(*lengths.start()))
        .max_length(Some(*lengths.end()))
}

named_schema!(EntityType, "EntityType", text("The name of an entity type.", NAME, 1..=128));
named_schema!(FeatureName, "FeatureName", text("The name of a feature.", NAME, 1..=128));
named_schema!(
    EntityId,
    "EntityId",
    text(
        "Which entity of its type: 1 to 256 bytes of UTF-8 without control characters.",
        r"^[^\u0000-\u001f\u007f-\u009f]*$",
        1..=256
    )
);
named_schema!(
    FeatureRef,
    "FeatureRef",
    text(
        "A feature with its entity type, as in `product.price`.",
        r"^[A-Za-z_][A-Za-z0-9_]{0,127}\.[A-Za-z_][A-Za-z0-9_]{0,127}$",
        3..=257
    )
);
named_schema!(
    FeatureServiceName,
    "FeatureServiceName",
    text("The name of a feature service.", "^[A-Za-z_][A-Za-z0-9_-]*$", 1..=128)
);
named_schema!(
    FeatureServiceRef,
    "FeatureServiceRef",
    text(
        "A feature service, as `ranking` (its latest version) or `ranking@2`.",
        "^[A-Za-z_][A-Za-z0-9_-]{0,127}(@[1-9][0-9]{0,8})?$",
        1..=138
    )
);

/// Names separated by commas, as in `names=price,category`.
pub struct FeatureNames;

named_schema!(
    FeatureNames,
    "FeatureNames",
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some("Feature names, separated by commas."))
        .pattern(Some("^[A-Za-z_][A-Za-z0-9_]{0,127}(,[A-Za-z_][A-Za-z0-9_]{0,127})*$"))
);

/// A version that an entity may have.
pub struct VersionNumber;

impl VersionNumber {
    /// What every language's 64-bit integer holds.
    pub const RANGE: RangeInclusive<Version> = 1..=i64::MAX.unsigned_abs();
}

named_schema!(
    VersionNumber,
    "VersionNumber",
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some("A version of an entity: 1, 2, 3 …"))
        .minimum(Some(*Self::RANGE.start()))
        .maximum(Some(*Self::RANGE.end()))
);

/// What `If-Match` may say.
pub struct VersionMatch;

named_schema!(
    VersionMatch,
    "VersionMatch",
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some("A version in quotes, or `*`: any, but there must be one."))
        .pattern(Some(r#"^(\*|"[0-9]{1,18}")$"#))
);

/// The units of a length of time, each with the most of it that fits into 36,500 days.
const UNITS: [(&str, &str); 6] = [
    ("ms", "3153600000000"),
    ("s", "3153600000"),
    ("m", "52560000"),
    ("h", "876000"),
    ("d", "36500"),
    ("w", "5214"),
];

/// Lengths of time as text: seconds, one unit up to the limit, or several units with fewer digits.
fn duration_pattern(or: &str) -> String {
    let one_unit = UNITS.map(|(unit, most)| format!("({}){unit}", up_to(most))).join("|");
    let several = "([1-9][0-9]{0,6}(ms|s|m)|[1-9][0-9]{0,3}[hd]|[1-9][0-9]{0,2}w){2,3}";
    let seconds = r"[1-9][0-9]{0,8}(\.[0-9]+)?|0\.[0-9]{0,2}[1-9]";
    format!("^({seconds}|{one_unit}|{several}{or})$")
}

/// A pattern of the whole numbers from 1 to `most`.
fn up_to(most: &str) -> String {
    let mut forms = vec![format!("[1-9][0-9]{{0,{}}}", most.len() - 2)];
    for (place, digit) in most.bytes().enumerate() {
        let least = if place == 0 { b'1' } else { b'0' };
        if digit > least {
            let (before, below) = (&most[..place], char::from(digit - 1));
            let after = most.len() - place - 1;
            forms.push(format!("{before}[{}-{below}][0-9]{{{after}}}", char::from(least)));
        }
    }
    forms.push(most.to_owned());
    forms.join("|")
}

fn seconds_or_text(description: &str, or: &str, example: &str) -> Schema {
    let one_of = OneOfBuilder::new()
        .description(Some(description))
        .item(
            ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Number))
                .minimum(Some(0.001))
                .maximum(Some(3_153_600_000_u64)),
        )
        .item(
            ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::String))
                .pattern(Some(duration_pattern(or))),
        )
        .examples([example])
        .build();
    Schema::OneOf(one_of)
}

named_schema!(
    Span,
    "Duration",
    seconds_or_text(
        "A length of time: seconds, or text such as \"1h30m\" (units ms, s, m, h, d, w).",
        "",
        "1h"
    )
);
named_schema!(
    Ttl,
    "Ttl",
    seconds_or_text("A length of time: seconds, or text such as \"1h30m\"; or \"never\".", "|never", "30d")
);

/// Features to write to one entity: at least one.
pub struct FeaturesToWrite;

impl PartialSchema for FeaturesToWrite {
    fn schema() -> RefOr<Schema> {
        let name = text("The name of a feature.", NAME, 1..=128).build();
        ObjectBuilder::new()
            .description(Some("Values by feature name."))
            .min_properties(Some(1))
            .property_names(Some(name))
            .additional_properties(Some(Ref::from_schema_name("FeatureValue")))
            .build()
            .into()
    }
}

impl ToSchema for FeaturesToWrite {
    fn name() -> Cow<'static, str> {
        "FeaturesToWrite".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("FeatureValue".to_owned(), FeatureValue::schema()));
    }
}

/// Features of one row of a batch, where a bad name is that row's error and not the request's.
pub struct FeaturesOfRow;

impl PartialSchema for FeaturesOfRow {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some(
                "Values by feature name. A row without any, or with one that is not a name, is refused by itself.",
            ))
            .additional_properties(Some(Ref::from_schema_name("FeatureValue")))
            .build()
            .into()
    }
}

impl ToSchema for FeaturesOfRow {
    fn name() -> Cow<'static, str> {
        "FeaturesOfRow".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("FeatureValue".to_owned(), FeatureValue::schema()));
    }
}

/// Entity ids by entity type: at least one type.
pub struct EntityIdsByType;

impl PartialSchema for EntityIdsByType {
    fn schema() -> RefOr<Schema> {
        let entity_type = text("The name of an entity type.", NAME, 1..=128).build();
        ObjectBuilder::new()
            .description(Some("Entity ids by entity type, in the order the answer is wanted."))
            .min_properties(Some(1))
            .property_names(Some(entity_type))
            .additional_properties(Some(ArrayBuilder::new().items(Ref::from_schema_name("EntityId"))))
            .build()
            .into()
    }
}

impl ToSchema for EntityIdsByType {
    fn name() -> Cow<'static, str> {
        "EntityIdsByType".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("EntityId".to_owned(), EntityId::schema()));
    }
}

/// Columns of a spine by the entity type whose ids they hold.
pub struct ColumnByEntityType;

impl PartialSchema for ColumnByEntityType {
    fn schema() -> RefOr<Schema> {
        let entity_type = text("The name of an entity type.", NAME, 1..=128).build();
        ObjectBuilder::new()
            .description(Some("Column names by entity type."))
            .property_names(Some(entity_type))
            .additional_properties(Some(Schema::from(
                ObjectBuilder::new().schema_type(SchemaType::new(Type::String)),
            )))
            .build()
            .into()
    }
}

impl ToSchema for ColumnByEntityType {
    fn name() -> Cow<'static, str> {
        "ColumnByEntityType".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pattern in the document and the parser know the same lengths of time.
    #[test]
    fn durations_match_their_pattern() {
        let pattern = regex::Regex::new(&duration_pattern("")).unwrap();
        for text in
            ["1", "90", "0.5", "1h30m", "36500d", "5214w", "3153600000s", "3153599999s", "876000h", "1ms"]
        {
            assert!(pattern.is_match(text), "{text}");
            let span = Span::parse(text).unwrap();
            assert!(pattern.is_match(&span.to_string()), "{span}");
        }
        for text in ["0", "0s", "", "h", "never", "-1", "36501d", "3153600001s", "40000d", "1x", "1e3"] {
            assert!(!pattern.is_match(text), "{text}");
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }
}
