//! Feature types as Arrow has them, and values of features as typed columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, FixedSizeListBuilder, Float32Builder, Float64Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, TimeUnit};

use crate::domain::value::{FeatureType, TypeName, Value};

/// What the metadata of a field calls its feature's type, which tells `json` from other text.
const FEATURE_TYPE: &str = "feature_type";

/// A value that is not of its column's type: what is stored no longer fits the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored value is not of the column's type {0}")]
pub struct Misfit(FeatureType);

/// The column type of a feature type. `json` is text.
pub fn data_type(feature_type: FeatureType) -> DataType {
    match feature_type {
        FeatureType::Int64 => DataType::Int64,
        FeatureType::Float64 => DataType::Float64,
        FeatureType::Boolean => DataType::Boolean,
        FeatureType::String | FeatureType::Json => DataType::Utf8,
        FeatureType::Timestamp => utc_micros(),
        FeatureType::Embedding { dimension } => {
            DataType::FixedSizeList(Arc::new(item()), i32::try_from(dimension).unwrap_or(i32::MAX))
        }
    }
}

/// Points in time: microseconds in UTC.
pub fn utc_micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The element of an embedding. Never null in fact, but declared as pyarrow declares its lists.
fn item() -> Field {
    Field::new_list_field(DataType::Float32, true)
}

/// The column of a feature.
pub fn field(name: impl Into<String>, feature_type: FeatureType) -> Field {
    let field = Field::new(name, data_type(feature_type), true);
    match feature_type {
        FeatureType::Json => {
            let json = TypeName::Json.as_str().to_owned();
            field.with_metadata(HashMap::from([(FEATURE_TYPE.to_owned(), json)]))
        }
        _ => field,
    }
}

/// Whether the text in this column is JSON documents.
pub fn is_json(field: &Field) -> bool {
    field.metadata().get(FEATURE_TYPE).is_some_and(|name| name == TypeName::Json.as_str())
}

/// The feature type that a column of this kind declares by itself; `None` where it has none, such as
/// a column of nothing but nulls. Numbers too wide for a feature type are taken for the nearest one:
/// whether a value fits is seen when it is read.
pub fn feature_type(field: &Field) -> Option<FeatureType> {
    if is_json(field) {
        return Some(FeatureType::Json);
    }
    let of_values = |data_type: &DataType| feature_type(&Field::new("", data_type.clone(), true));
    match field.data_type() {
        DataType::Boolean => Some(FeatureType::Boolean),
        data_type if data_type.is_integer() => Some(FeatureType::Int64),
        data_type if data_type.is_floating() => Some(FeatureType::Float64),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(FeatureType::String),
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => Some(FeatureType::Timestamp),
        DataType::FixedSizeList(item, length) if item.data_type().is_floating() => {
            u32::try_from(*length).ok().map(|dimension| FeatureType::Embedding { dimension })
        }
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(_, _)
        | DataType::Struct(_)
        | DataType::Map(_, _) => Some(FeatureType::Json),
        DataType::Dictionary(_, values) => of_values(values),
        DataType::RunEndEncoded(_, values) => of_values(values.data_type()),
        _ => None,
    }
}

/// Gathers values of one feature into a column.
pub struct ColumnBuilder {
    feature_type: FeatureType,
    builder: Builder,
}

enum Builder {
    Int64(Int64Builder),
    Float64(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Embedding(FixedSizeListBuilder<Float32Builder>),
}

impl ColumnBuilder {
    pub fn new(feature_type: FeatureType) -> Self {
        let builder = match feature_type {
            FeatureType::Int64 => Builder::Int64(Int64Builder::new()),
            FeatureType::Float64 => Builder::Float64(Float64Builder::new()),
            FeatureType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            FeatureType::String | FeatureType::Json => Builder::Text(StringBuilder::new()),
            FeatureType::Timestamp => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(utc_micros()))
            }
            FeatureType::Embedding { dimension } => {
                let length = i32::try_from(dimension).unwrap_or(i32::MAX);
                let list = FixedSizeListBuilder::new(Float32Builder::new(), length);
                Builder::Embedding(list.with_field(item()))
            }
        };
        Self { feature_type, builder }
    }

    pub fn push(&mut self, value: &Value) -> Result<(), Misfit> {
        match (&mut self.builder, value) {
            (_, Value::Null) => self.push_null(),
            (Builder::Int64(builder), Value::Int64(number)) => builder.append_value(*number),
            (Builder::Float64(builder), Value::Float64(number)) => builder.append_value(*number),
            // Stored before its feature was widened.
            (Builder::Float64(builder), Value::Int64(number)) => builder.append_value(*number as f64),
            (Builder::Boolean(builder), Value::Boolean(value)) => builder.append_value(*value),
            (Builder::Text(builder), Value::String(text) | Value::Json(text)) => builder.append_value(text),
            (Builder::Timestamp(builder), Value::Timestamp(time)) => builder.append_value(time.as_micros()),
            (Builder::Embedding(builder), Value::Embedding(numbers))
                if usize::try_from(builder.value_length()) == Ok(numbers.len()) =>
            {
                builder.values().append_slice(numbers);
                builder.append(true);
            }
            _ => return Err(Misfit(self.feature_type)),
        }
        Ok(())
    }

    pub fn push_null(&mut self) {
        match &mut self.builder {
            Builder::Int64(builder) => builder.append_null(),
            Builder::Float64(builder) => builder.append_null(),
            Builder::Boolean(builder) => builder.append_null(),
            Builder::Text(builder) => builder.append_null(),
            Builder::Timestamp(builder) => builder.append_null(),
            Builder::Embedding(builder) => {
                let length = usize::try_from(builder.value_length()).unwrap_or_default();
                builder.values().append_nulls(length);
                builder.append(false);
            }
        }
    }

    pub fn len(&self) -> usize {
        match &self.builder {
            Builder::Int64(builder) => builder.len(),
            Builder::Float64(builder) => builder.len(),
            Builder::Boolean(builder) => builder.len(),
            Builder::Text(builder) => builder.len(),
            Builder::Timestamp(builder) => builder.len(),
            Builder::Embedding(builder) => builder.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column; the builder is empty then.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Int64(builder) => Arc::new(builder.finish()),
            Builder::Float64(builder) => Arc::new(builder.finish()),
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder) => Arc::new(builder.finish()),
            Builder::Embedding(builder) => Arc::new(builder.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;

    use super::*;
    use crate::domain::time::Timestamp;

    const TYPES: [FeatureType; 7] = [
        FeatureType::Int64,
        FeatureType::Float64,
        FeatureType::Boolean,
        FeatureType::String,
        FeatureType::Timestamp,
        FeatureType::Embedding { dimension: 2 },
        FeatureType::Json,
    ];

    fn values() -> [Value; 7] {
        [
            Value::Int64(-3),
            Value::Float64(0.5),
            Value::Boolean(true),
            Value::String("".into()),
            Value::Timestamp(Timestamp::parse("2026-01-02T03:04:05.000006Z").unwrap()),
            Value::Embedding(vec![1.0, 2.5].into()),
            Value::Json("{\"a\":1}".into()),
        ]
    }

    #[test]
    fn each_type_has_its_column_and_the_column_its_type() {
        for (of_type, value) in TYPES.into_iter().zip(values()) {
            let mut builder = ColumnBuilder::new(of_type);
            builder.push(&value).unwrap();
            builder.push(&Value::Null).unwrap();
            assert_eq!(builder.len(), 2);
            let column = builder.finish();
            assert_eq!(column.data_type(), &data_type(of_type));
            assert_eq!((column.len(), column.null_count(), column.is_null(1)), (2, 1, true), "{of_type}");
            assert_eq!(feature_type(&field("x", of_type)), Some(of_type));
            assert!(builder.is_empty());
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        for of_type in TYPES {
            let mut builder = ColumnBuilder::new(of_type);
            for value in values().into_iter().filter(|value| !value.fits(of_type)) {
                let text = matches!(value, Value::String(_) | Value::Json(_));
                if text && matches!(of_type, FeatureType::String | FeatureType::Json) {
                    continue;
                }
                assert_eq!(builder.push(&value), Err(Misfit(of_type)), "{value:?}");
            }
        }
        let mut builder = ColumnBuilder::new(FeatureType::Embedding { dimension: 3 });
        assert!(builder.push(&Value::Embedding(vec![1.0].into())).is_err());
    }
}
