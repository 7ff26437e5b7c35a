//! Columns of JSON values as typed columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use serde_json::value::RawValue;

use super::columns::field;
use crate::domain::value::{FeatureType, Value};

/// A table of these columns. A column is of the narrowest type that all its values are of: boolean,
/// int64, float64, string; a mixture, arrays and objects stay JSON.
pub fn table(columns: &[(impl AsRef<str>, Vec<&RawValue>)]) -> Result<RecordBatch, String> {
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for (name, values) in columns {
        let name = name.as_ref();
        if values.len() != rows {
            return Err(format!("the column {name:?} has {} values, others have {rows}", values.len()));
        }
        let (field, array) = typed(name, values);
        fields.push(field);
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|error| error.to_string())
}

fn typed(name: &str, values: &[&RawValue]) -> (Field, ArrayRef) {
    let parse = |of_type| -> Option<Vec<Value>> {
        values.iter().map(|json| Value::parse(json, of_type).ok()).collect()
    };
    // A fraction makes numbers of all of them, though it be 1.0.
    let whole = values.iter().all(|json| !json.get().contains(['.', 'e', 'E']));
    let types = [FeatureType::Boolean, FeatureType::Int64, FeatureType::Float64, FeatureType::String];
    let unsigned = |json: &&RawValue| match json.get() {
        "null" => Some(None),
        digits => digits.parse::<u64>().ok().map(Some),
    };
    for of_type in types.into_iter().filter(|of_type| whole || *of_type != FeatureType::Int64) {
        // What is no int64 may be a uint64 yet, as ids often are.
        if of_type == FeatureType::Float64
            && whole
            && let Some(numbers) = values.iter().map(unsigned).collect::<Option<UInt64Array>>()
            && arrow_array::Array::null_count(&numbers) < values.len()
        {
            return (Field::new(name, DataType::UInt64, true), Arc::new(numbers));
        }
        if let Some(values) = parse(of_type) {
            let array: ArrayRef = match of_type {
                FeatureType::Boolean => Arc::new(values.iter().map(boolean).collect::<BooleanArray>()),
                FeatureType::Int64 => Arc::new(values.iter().map(int64).collect::<Int64Array>()),
                FeatureType::Float64 => Arc::new(values.iter().map(float64).collect::<Float64Array>()),
                _ => Arc::new(values.iter().map(text).collect::<StringArray>()),
            };
            // Nothing but nulls fits the first type, and is as well any other: call it text.
            let nulls = arrow_array::Array::null_count(array.as_ref()) == values.len();
            if !nulls || of_type == FeatureType::String {
                return (field(name, of_type), array);
            }
        }
    }
    let texts = values.iter().map(|json| Some(json.get()).filter(|text| *text != "null"));
    (field(name, FeatureType::Json), Arc::new(texts.collect::<StringArray>()))
}

fn boolean(value: &Value) -> Option<bool> {
    if let Value::Boolean(value) = value { Some(*value) } else { None }
}

fn int64(value: &Value) -> Option<i64> {
    if let Value::Int64(value) = value { Some(*value) } else { None }
}

fn float64(value: &Value) -> Option<f64> {
    if let Value::Float64(value) = value { Some(*value) } else { None }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::String(value) = value { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::columns::is_json;

    fn column(json: &str) -> (Field, ArrayRef) {
        let values: Vec<&RawValue> = serde_json::from_str(json).unwrap();
        typed("x", &values)
    }

    #[test]
    fn each_column_has_the_narrowest_type() {
        for (json, of_type) in [
            ("[1, null]", DataType::Int64),
            ("[1, 2.0]", DataType::Float64),
            ("[9223372036854775808, 1, null]", DataType::UInt64),
            ("[9223372036854775808, -1]", DataType::Float64),
            ("[18446744073709551616]", DataType::Float64),
            ("[true, false, null]", DataType::Boolean),
            ("[\"1\", \"e\", null]", DataType::Utf8),
            ("[null]", DataType::Utf8),
            ("[]", DataType::Utf8),
        ] {
            let (field, array) = column(json);
            assert_eq!(field.data_type(), &of_type, "{json}");
            assert_eq!(array.data_type(), &of_type, "{json}");
            assert!(!is_json(&field), "{json}");
        }
        for json in ["[1, \"a\"]", "[[1], null]", "[{\"a\": 1}]", "[1, true]"] {
            assert!(is_json(&column(json).0), "{json}");
        }
    }

    #[test]
    fn columns_are_equally_long() {
        let values: Vec<&RawValue> = serde_json::from_str("[1, 2]").unwrap();
        let table = |columns: &[(&str, Vec<&RawValue>)]| super::table(columns);
        assert!(table(&[("a", values.clone()), ("b", values[..1].to_vec())]).is_err());
        assert_eq!(table(&[("a", values)]).unwrap().num_rows(), 2);
        assert_eq!(table(&[]).unwrap().num_rows(), 0);
    }
}
