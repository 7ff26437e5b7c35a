//! Typed values: what a feature may hold, how JSON becomes one and how one becomes JSON.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::time::Timestamp;

/// The type of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeatureType {
    Int64,
    Float64,
    Boolean,
    String,
    Timestamp,
    /// So many float32 numbers.
    Embedding {
        dimension: u32,
    },
    Json,
}

impl FeatureType {
    pub fn name(self) -> TypeName {
        match self {
            Self::Int64 => TypeName::Int64,
            Self::Float64 => TypeName::Float64,
            Self::Boolean => TypeName::Boolean,
            Self::String => TypeName::String,
            Self::Timestamp => TypeName::Timestamp,
            Self::Embedding { .. } => TypeName::Embedding,
            Self::Json => TypeName::Json,
        }
    }

    /// Whether values stored as `self` can still be read when the schema says `later`.
    pub fn readable_as(self, later: Self) -> bool {
        self == later || (self == Self::Int64 && later == Self::Float64)
    }
}

impl fmt::Display for FeatureType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding { dimension } => write!(f, "embedding of dimension {dimension}"),
            other => f.write_str(other.name().as_str()),
        }
    }
}

/// The word for a type in a schema document; an embedding's dimension stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FeatureType)]
pub enum TypeName {
    Int64,
    Float64,
    Boolean,
    String,
    Timestamp,
    Embedding,
    Json,
}

impl TypeName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Timestamp => "timestamp",
            Self::Embedding => "embedding",
            Self::Json => "json",
        }
    }
}

/// A value of a feature. Cheap to clone; floats are always finite.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    String(Arc<str>),
    Timestamp(Timestamp),
    Embedding(Arc<[f32]>),
    /// Compact JSON text with sorted keys: equal documents are equal texts.
    Json(Arc<str>),
}

/// Why a JSON value is not a value of the wanted type; reads as the end of "feature: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub String);

/// More numbers than this in a list make an inferred feature an embedding.
pub const INFERRED_EMBEDDING_ABOVE: usize = 10;

impl Value {
    /// Reads `json` as a value of `feature_type`. JSON `null` is [`Value::Null`] for every type.
    pub fn parse(json: &RawValue, feature_type: FeatureType) -> Result<Self, ValueError> {
        let text = json.get();
        if text == "null" {
            return Ok(Self::Null);
        }
        let wrong = || ValueError(format!("expected {feature_type}, got {}", describe(text)));
        match feature_type {
            FeatureType::Boolean => match text {
                "true" => Ok(Self::Boolean(true)),
                "false" => Ok(Self::Boolean(false)),
                _ => Err(wrong()),
            },
            FeatureType::Int64 => parse_int(text).map(Self::Int64).ok_or_else(wrong),
            FeatureType::Float64 => {
                if !is_number(text) {
                    return Err(wrong());
                }
                match text.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(Self::Float64(number)),
                    _ => Err(ValueError(format!("the number {} does not fit float64", shorten(text)))),
                }
            }
            FeatureType::String => {
                if !text.starts_with('"') {
                    return Err(wrong());
                }
                let string: std::borrow::Cow<'_, str> = serde_json::from_str(text)
                    .map_err(|e| ValueError(format!("is not a valid string: {}", plain(&e))))?;
                Ok(Self::String(Arc::from(string)))
            }
            FeatureType::Timestamp => {
                if !text.starts_with('"') {
                    return Err(wrong());
                }
                let string: std::borrow::Cow<'_, str> = serde_json::from_str(text).map_err(|_| wrong())?;
                Timestamp::parse(&string).map(Self::Timestamp).map_err(|e| ValueError(e.to_string()))
            }
            FeatureType::Embedding { dimension } => {
                if !text.starts_with('[') {
                    return Err(wrong());
                }
                let numbers: Vec<f32> = serde_json::from_str(text)
                    .map_err(|_| ValueError(format!("expected {feature_type}: a list of numbers only")))?;
                Self::embedding(numbers, dimension)
            }
            FeatureType::Json => {
                let document: serde_json::Value = serde_json::from_str(text).map_err(|e| {
                    ValueError(format!("is not a JSON document that can be stored: {}", plain(&e)))
                })?;
                Self::json(&document)
            }
        }
    }

    /// An embedding, if it has the wanted dimension and every number is finite in float32.
    pub fn embedding(numbers: Vec<f32>, dimension: u32) -> Result<Self, ValueError> {
        if numbers.len() != dimension as usize {
            return Err(ValueError(format!("expected {dimension} numbers, got {}", numbers.len())));
        }
        if let Some(index) = numbers.iter().position(|n| !n.is_finite()) {
            return Err(ValueError(format!("the number at index {index} does not fit float32")));
        }
        Ok(Self::Embedding(numbers.into()))
    }

    /// A JSON document in its one canonical text. Numbers must fit int64, uint64 or float64.
    pub fn json(document: &serde_json::Value) -> Result<Self, ValueError> {
        let mut text = String::new();
        write_canonical(document, &mut text)?;
        Ok(Self::Json(text.into()))
    }

    /// The type that a first write of `json` gives a feature; `None` for null, which has none.
    pub fn infer_type(json: &RawValue) -> Option<FeatureType> {
        let text = json.get();
        match text.as_bytes().first()? {
            b'n' => None,
            b't' | b'f' => Some(FeatureType::Boolean),
            b'"' => Some(FeatureType::String),
            b'[' => Some(match serde_json::from_str::<Vec<f64>>(text) {
                Ok(numbers) if numbers.len() > INFERRED_EMBEDDING_ABOVE => {
                    FeatureType::Embedding { dimension: numbers.len() as u32 }
                }
                _ => FeatureType::Json,
            }),
            b'{' => Some(FeatureType::Json),
            // A whole number beyond int64 is inferred as a float rather than refused.
            _ if !has_fraction(text) && text.parse::<i64>().is_ok() => Some(FeatureType::Int64),
            _ => Some(FeatureType::Float64),
        }
    }

    /// `self` as the schema has it now: an int64 stored before its feature was widened reads as a
    /// float64. Everything else stays.
    pub fn widened_to(self, feature_type: FeatureType) -> Self {
        match (self, feature_type) {
            (Self::Int64(number), FeatureType::Float64) => Self::Float64(number as f64),
            (value, _) => value,
        }
    }

    /// Whether a schema of this type can hold the value. Null fits every type.
    pub fn fits(&self, feature_type: FeatureType) -> bool {
        match (self, feature_type) {
            (Self::Null, _)
            | (Self::Boolean(_), FeatureType::Boolean)
            | (Self::Int64(_), FeatureType::Int64 | FeatureType::Float64)
            | (Self::Float64(_), FeatureType::Float64)
            | (Self::String(_), FeatureType::String)
            | (Self::Timestamp(_), FeatureType::Timestamp)
            | (Self::Json(_), FeatureType::Json) => true,
            (Self::Embedding(numbers), FeatureType::Embedding { dimension }) => {
                numbers.len() == dimension as usize
            }
            _ => false,
        }
    }

    /// Equality of events: an int64 equals the float64 that it was widened to.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int64(a), Self::Float64(b)) | (Self::Float64(b), Self::Int64(a)) => *a as f64 == *b,
            (a, b) => a == b,
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Int64(value) => serializer.serialize_i64(*value),
            Self::Float64(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::Timestamp(value) => value.serialize(serializer),
            Self::Embedding(numbers) => serializer.collect_seq(numbers.iter()),
            // Checked when it was parsed; were it broken, this is an error and not broken output.
            Self::Json(text) => match serde_json::from_str::<&RawValue>(text) {
                Ok(raw) => raw.serialize(serializer),
                Err(error) => Err(serde::ser::Error::custom(error)),
            },
        }
    }
}

fn is_number(text: &str) -> bool {
    text.as_bytes().first().is_some_and(|b| *b == b'-' || b.is_ascii_digit())
}

fn has_fraction(text: &str) -> bool {
    text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
}

/// A whole number of int64; `3.0` and `3e2` count as whole, as in JSON Schema.
fn parse_int(text: &str) -> Option<i64> {
    if !is_number(text) {
        return None;
    }
    if !has_fraction(text) {
        return text.parse().ok();
    }
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it a float no longer says which integer it was
    text.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT).map(|n| n as i64)
}

/// What a JSON text is, for messages: values are echoed only where they are short.
fn describe(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'"') => format!("the string {}", shorten(text)),
        Some(b'[') => "an array".to_owned(),
        Some(b'{') => "an object".to_owned(),
        Some(b't' | b'f') => text.to_owned(),
        _ => format!("the number {}", shorten(text)),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 40 {
        return text.to_owned();
    }
    text.chars().take(37).chain("...".chars()).collect()
}

/// serde_json's message without its position, which would speak of the value and not of the body.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn write_canonical(document: &serde_json::Value, out: &mut String) -> Result<(), ValueError> {
    match document {
        serde_json::Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out)?;
            }
            out.push(']');
        }
        serde_json::Value::Object(members) => {
            // Sorted here rather than relying on the map's type, which a feature flag anywhere in
            // the build could change. The same goes for numbers, which may be kept as text.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(value, out)?;
            }
            out.push('}');
        }
        serde_json::Value::Number(number) => {
            let text = match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), _, _) => whole.to_string(),
                (_, Some(whole), _) => whole.to_string(),
                (_, _, Some(fraction)) if fraction.is_finite() => {
                    serde_json::Value::from(fraction).to_string()
                }
                _ => {
                    return Err(ValueError(format!(
                        "the number {} does not fit float64",
                        shorten(&number.to_string())
                    )));
                }
            };
            out.push_str(&text);
        }
        scalar => out.push_str(&scalar.to_string()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, feature_type: FeatureType) -> Result<Value, String> {
        let raw: Box<RawValue> = serde_json::from_str(json).expect("test input is JSON");
        Value::parse(&raw, feature_type).map_err(|e| e.0)
    }

    fn infer(json: &str) -> Option<FeatureType> {
        Value::infer_type(&serde_json::from_str::<Box<RawValue>>(json).expect("test input is JSON"))
    }

    #[test]
    fn each_type_takes_its_own_and_refuses_the_others() {
        use FeatureType::*;
        assert_eq!(parse("3", Int64), Ok(Value::Int64(3)));
        assert_eq!(parse("3.0", Int64), Ok(Value::Int64(3)));
        assert_eq!(parse("-9223372036854775808", Int64), Ok(Value::Int64(i64::MIN)));
        assert_eq!(parse("3", Float64), Ok(Value::Float64(3.0)));
        assert_eq!(parse("true", Boolean), Ok(Value::Boolean(true)));
        assert_eq!(parse("\"a\\u00e9\"", String), Ok(Value::String("aé".into())));
        assert_eq!(parse("null", Int64), Ok(Value::Null));
        assert_eq!(
            parse("[1, 2.5]", Embedding { dimension: 2 }),
            Ok(Value::Embedding(vec![1.0, 2.5].into()))
        );
        assert_eq!(
            parse("{\"b\": 1.50, \"a\": [true, 18446744073709551615]}", Json),
            Ok(Value::Json("{\"a\":[true,18446744073709551615],\"b\":1.5}".into()))
        );
        let exact = serde_json::Value::from(3e88).to_string();
        assert_eq!(parse("3e88", Json), Ok(Value::Json(exact.as_str().into())));
        for (json, feature_type) in [
            ("3.5", Int64),
            ("9223372036854775808", Int64),
            ("1e300", Int64),
            ("\"3\"", Int64),
            ("1e400", Float64),
            ("true", Float64),
            ("1", Boolean),
            ("1", String),
            ("\"\\ud800\"", String),
            ("\"yesterday\"", Timestamp),
            ("5", Timestamp),
            ("[1]", Embedding { dimension: 2 }),
            ("[1, \"2\"]", Embedding { dimension: 2 }),
            ("[1, null]", Embedding { dimension: 2 }),
            ("[1, 1e39]", Embedding { dimension: 2 }),
            ("{}", Embedding { dimension: 2 }),
            ("{\"a\": 1e400}", Json),
        ] {
            assert!(parse(json, feature_type).is_err(), "{json} as {feature_type}");
        }
    }

    #[test]
    fn deep_json_is_refused_not_overflowed() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let raw = RawValue::from_string(deep).expect("nesting alone is valid JSON");
        assert!(Value::parse(&raw, FeatureType::Json).is_err());
        assert_eq!(Value::infer_type(&raw), Some(FeatureType::Json));
    }

    #[test]
    fn inference_follows_the_promise() {
        assert_eq!(infer("null"), None);
        assert_eq!(infer("true"), Some(FeatureType::Boolean));
        assert_eq!(infer("7"), Some(FeatureType::Int64));
        assert_eq!(infer("7.0"), Some(FeatureType::Float64));
        assert_eq!(infer("1e3"), Some(FeatureType::Float64));
        assert_eq!(infer("99999999999999999999"), Some(FeatureType::Float64));
        assert_eq!(infer("\"x\""), Some(FeatureType::String));
        assert_eq!(infer("[1,2,3,4,5,6,7,8,9,10]"), Some(FeatureType::Json));
        assert_eq!(infer("[1,2,3,4,5,6,7,8,9,10,11]"), Some(FeatureType::Embedding { dimension: 11 }));
        assert_eq!(infer("[1,2,3,4,5,6,7,8,9,10,\"a\"]"), Some(FeatureType::Json));
        assert_eq!(infer("{}"), Some(FeatureType::Json));
    }
}
