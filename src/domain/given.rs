//! Values as they are given: as JSON, or with a type of their own, as the cells of a column.

use serde_json::value::RawValue;

use super::schema::FeatureSchema;
use super::value::{FeatureType, Value, ValueError};

/// A value of a write, before the schema was asked.
#[derive(Clone, Debug)]
pub enum Given<'a> {
    /// As it stands in a body.
    Json(&'a RawValue),
    Typed(Value),
    /// Something that no feature can hold; the text says why, as the end of "feature: …".
    Unusable(String),
}

impl Given<'_> {
    /// As a value of a feature of that type.
    pub fn to_value(&self, feature_type: FeatureType) -> Result<Value, ValueError> {
        match self {
            Self::Json(json) => Value::parse(json, feature_type),
            Self::Typed(value) => coerce(value, feature_type),
            Self::Unusable(reason) => Err(ValueError(reason.clone())),
        }
    }

    /// The type that a first write of it gives a feature; `None` for null, which has none.
    pub fn infer_type(&self) -> Option<FeatureType> {
        match self {
            Self::Json(json) => Value::infer_type(json),
            Self::Typed(value) => type_of(value),
            Self::Unusable(_) => None,
        }
    }

    /// What a first write of it declares; `None` for null.
    pub fn infer(&self) -> Option<FeatureSchema> {
        self.infer_type().map(FeatureSchema::inferred)
    }
}

/// The type that a value has by itself.
fn type_of(value: &Value) -> Option<FeatureType> {
    Some(match value {
        Value::Null => return None,
        Value::Boolean(_) => FeatureType::Boolean,
        Value::Int64(_) => FeatureType::Int64,
        Value::Float64(_) => FeatureType::Float64,
        Value::String(_) => FeatureType::String,
        Value::Timestamp(_) => FeatureType::Timestamp,
        Value::Embedding(numbers) => FeatureType::Embedding { dimension: numbers.len() as u32 },
        Value::Json(_) => FeatureType::Json,
    })
}

/// A value as one of another type where it says the same there, as [`Value::parse`] would have it:
/// whole floats are integers, integers are floats, texts may be times.
fn coerce(value: &Value, feature_type: FeatureType) -> Result<Value, ValueError> {
    if value.fits(feature_type) {
        return Ok(value.clone().widened_to(feature_type));
    }
    let dimensions = match (value, feature_type) {
        (Value::Embedding(numbers), FeatureType::Embedding { dimension }) => Some((numbers.len(), dimension)),
        _ => None,
    };
    if let Some((found, wanted)) = dimensions {
        return Err(ValueError(format!("expected {wanted} numbers, got {found}")));
    }
    let json = serde_json::value::to_raw_value(value).map_err(|error| ValueError(error.to_string()))?;
    Value::parse(&json, feature_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn a_typed_value_becomes_what_its_json_would() {
        let time = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        let text = |text: &str| Value::String(text.into());
        for (value, feature_type, wanted) in [
            (Value::Int64(7), FeatureType::Float64, Some(Value::Float64(7.0))),
            (Value::Float64(7.0), FeatureType::Int64, Some(Value::Int64(7))),
            (Value::Float64(7.5), FeatureType::Int64, None),
            (Value::Null, FeatureType::Int64, Some(Value::Null)),
            (text("2026-01-02T03:04:05Z"), FeatureType::Timestamp, Some(Value::Timestamp(time))),
            (text("7"), FeatureType::Int64, None),
            (text("x"), FeatureType::Json, Some(Value::Json("\"x\"".into()))),
            (Value::Timestamp(time), FeatureType::String, Some(text("2026-01-02T03:04:05Z"))),
            (Value::Embedding([1.0].into()), FeatureType::Embedding { dimension: 2 }, None),
        ] {
            let given = Given::Typed(value.clone());
            assert_eq!(given.to_value(feature_type).ok(), wanted, "{value:?} as {feature_type}");
        }
        let error = Given::Typed(Value::Float64(7.5)).to_value(FeatureType::Int64).unwrap_err();
        assert_eq!(error.0, "expected int64, got the number 7.5");
    }
}
