//! What the server answers, taken apart.

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::types::Value;

/// The bytes of a string; `None` for anything else, nothing included.
pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(text.into_inner()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

pub(super) fn text(value: Value) -> Option<Str> {
    match value {
        Value::String(text) => Some(text),
        Value::Bytes(bytes) => Str::from_inner(bytes).ok(),
        Value::Integer(number) => Some(number.to_string().into()),
        _ => None,
    }
}

pub(super) fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// Fields and values, as `HGETALL` gives them.
pub(super) fn pairs(value: Value) -> Option<Vec<(Str, Str)>> {
    let values = match value {
        Value::Array(values) => values,
        Value::Map(map) => {
            let pair = |(key, value): (fred::types::Key, Value)| text(key.into()).zip(text(value));
            return map.inner().into_iter().map(pair).collect();
        }
        Value::Null => return Some(Vec::new()),
        _ => return None,
    };
    let mut values = values.into_iter();
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let Some(field) = values.next() {
        pairs.push((text(field)?, text(values.next()?)?));
    }
    Some(pairs)
}
