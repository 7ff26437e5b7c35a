//! Cells of columns as values of features.

use std::borrow::Cow;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray, UInt64Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, TimeUnit};
use serde_json::value::RawValue;

use super::columns::is_json;
use super::read::infer::{boolean, fraction, unsigned, whole};
use super::read::{Cells, ReadError};
use crate::domain::given::Given;
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, INFERRED_EMBEDDING_ABOVE, Value};

/// What counts a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    Days,
}

impl Unit {
    /// `None` for times out of the calendar. What is below a microsecond is cut off.
    pub fn timestamp(self, count: i64) -> Option<Timestamp> {
        let micros = match self {
            Self::Nanoseconds => Some(count.div_euclid(1000)),
            Self::Microseconds => Some(count),
            Self::Milliseconds => count.checked_mul(1000),
            Self::Seconds => count.checked_mul(1_000_000),
            Self::Days => count.checked_mul(86_400_000_000),
        };
        Timestamp::from_micros(micros?)
    }
}

/// One cell.
#[derive(Debug)]
pub enum Cell<'a> {
    /// The row has no such member; only rows of JSON can leave one out.
    Absent,
    Null,
    /// A float that is not a number.
    Nan,
    Given(Given<'a>),
}

/// A column in one of the few forms that values are taken from.
pub struct Column {
    nulls: Option<NullBuffer>,
    content: Content,
}

enum Content {
    Nothing,
    Boolean(BooleanArray),
    Int64(Int64Array),
    Uint64(UInt64Array),
    Float64(Float64Array),
    Time(Int64Array, Unit),
    String(StringArray),
    /// JSON documents.
    Document(StringArray),
    /// Of CSV: what it means is for the feature's type to say.
    Text(StringArray),
    Json(StringArray),
    List(Box<List>),
    Struct(Vec<(String, Column)>),
}

struct List {
    items: Column,
    /// The items as an embedding has them, where they are numbers.
    numbers: Option<Float32Array>,
    ranges: Ranges,
}

enum Ranges {
    Fixed(usize),
    Small(OffsetBuffer<i32>),
    Large(OffsetBuffer<i64>),
}

impl Ranges {
    fn of(&self, row: usize) -> Range<usize> {
        match self {
            Self::Fixed(size) => row * size..(row + 1) * size,
            Self::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Self::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        }
    }
}

impl Column {
    /// An error for a column of a type that no feature has.
    pub fn new(field: &Field, array: &ArrayRef) -> Result<Self, ReadError> {
        let unusable = || {
            let (name, data_type) = (field.name(), array.data_type());
            ReadError::Malformed(format!(
                "the column {name:?} is of the type {data_type}, which no feature has"
            ))
        };
        let to = |data_type: &DataType| {
            cast(array, data_type).map_err(|error| {
                ReadError::Malformed(format!("the column {:?} cannot be read: {error}", field.name()))
            })
        };
        let mut nulls = array.logical_nulls();
        let content = match array.data_type() {
            DataType::Null => Content::Nothing,
            DataType::Boolean => Content::Boolean(array.as_boolean().clone()),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Content::Int64(to(&DataType::Int64)?.as_primitive().clone()),
            DataType::UInt64 => Content::Uint64(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Content::Float64(to(&DataType::Float64)?.as_primitive().clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = to(&DataType::Utf8)?.as_string::<i32>().clone();
                match Cells::of(field) {
                    Cells::Typed if is_json(field) => Content::Document(texts),
                    Cells::Typed => Content::String(texts),
                    Cells::Text => Content::Text(texts),
                    Cells::Json => Content::Json(texts),
                }
            }
            DataType::Timestamp(unit, _) => time(array, *unit),
            DataType::Date32 => {
                let days = array.as_primitive::<Date32Type>().unary::<_, Int64Type>(i64::from);
                Content::Time(days, Unit::Days)
            }
            DataType::Date64 => {
                Content::Time(array.as_primitive::<Date64Type>().reinterpret_cast(), Unit::Milliseconds)
            }
            DataType::Dictionary(_, values) => {
                let inner = Self::new(field, &to(values)?)?;
                nulls = inner.nulls;
                inner.content
            }
            DataType::FixedSizeList(item, size) => {
                let list = array.as_fixed_size_list();
                Content::List(Box::new(List::new(
                    item,
                    list.values(),
                    Ranges::Fixed((*size).max(0) as usize),
                )?))
            }
            DataType::List(item) => {
                let list = array.as_list::<i32>();
                let ranges = Ranges::Small(list.offsets().clone());
                Content::List(Box::new(List::new(item, list.values(), ranges)?))
            }
            DataType::LargeList(item) => {
                let list = array.as_list::<i64>();
                let ranges = Ranges::Large(list.offsets().clone());
                Content::List(Box::new(List::new(item, list.values(), ranges)?))
            }
            DataType::Struct(fields) => {
                let members = fields.iter().zip(array.as_struct().columns());
                let members =
                    members.map(|(field, array)| Ok((field.name().clone(), Self::new(field, array)?)));
                Content::Struct(members.collect::<Result<_, ReadError>>()?)
            }
            _ => return Err(unusable()),
        };
        Ok(Self { nulls, content })
    }

    fn is_null(&self, row: usize) -> bool {
        matches!(self.content, Content::Nothing)
            || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The type of a feature that is first seen in these cells; `None` where they tell none.
    pub fn infer_type(&self, rows: usize) -> Option<FeatureType> {
        let filled = || (0..rows).filter(|row| !self.is_null(*row));
        match &self.content {
            Content::Nothing => None,
            Content::Boolean(_) => Some(FeatureType::Boolean),
            Content::Int64(_) => Some(FeatureType::Int64),
            Content::Uint64(numbers) => {
                let all_fit = filled().all(|row| i64::try_from(numbers.value(row)).is_ok());
                Some(if all_fit { FeatureType::Int64 } else { FeatureType::Float64 })
            }
            Content::Float64(_) => Some(FeatureType::Float64),
            Content::Time(..) => Some(FeatureType::Timestamp),
            Content::String(_) => Some(FeatureType::String),
            Content::Struct(_) | Content::Document(_) => Some(FeatureType::Json),
            Content::Text(texts) => infer_text(|| filled().map(|row| texts.value(row))),
            Content::Json(texts) => {
                filled().filter_map(|row| Value::infer_type(raw(texts.value(row))?)).reduce(wider)
            }
            Content::List(list) => {
                let dimension = match &list.ranges {
                    Ranges::Fixed(size) if list.items.is_float() => return Some(embedding(*size)),
                    ranges => filled().next().map_or(0, |row| ranges.of(row).len()),
                };
                let numbers = list.numbers.is_some() && dimension > INFERRED_EMBEDDING_ABOVE;
                Some(if numbers { embedding(dimension) } else { FeatureType::Json })
            }
        }
    }

    fn is_float(&self) -> bool {
        matches!(self.content, Content::Float64(_))
    }

    /// A cell, as a feature of that type would have it.
    pub fn cell(&self, row: usize, wanted: FeatureType) -> Cell<'_> {
        if self.is_null(row) {
            return match self.content {
                Content::Json(_) => Cell::Absent,
                _ => Cell::Null,
            };
        }
        let typed = |value| Cell::Given(Given::Typed(value));
        match &self.content {
            Content::Nothing => Cell::Null,
            Content::Boolean(values) => typed(Value::Boolean(values.value(row))),
            Content::Int64(values) => typed(Value::Int64(values.value(row))),
            Content::Uint64(values) => match i64::try_from(values.value(row)) {
                Ok(number) => typed(Value::Int64(number)),
                Err(_) => typed(Value::Float64(values.value(row) as f64)),
            },
            Content::Float64(values) => float(values.value(row)),
            Content::Time(counts, unit) => match unit.timestamp(counts.value(row)) {
                Some(at) => typed(Value::Timestamp(at)),
                None => unusable("is a time not from year 0000 to 9999-12-30T22:00:00Z"),
            },
            Content::String(texts) => match wanted {
                FeatureType::Json | FeatureType::Embedding { .. } => json(texts.value(row)),
                FeatureType::Timestamp => timestamp(texts.value(row)),
                _ => typed(Value::String(texts.value(row).into())),
            },
            Content::Document(texts) => json(texts.value(row)),
            Content::Text(texts) => text(texts.value(row), wanted),
            Content::Json(texts) => match texts.value(row) {
                "null" => Cell::Null,
                text => json(text),
            },
            Content::List(list) => match (wanted, &list.numbers) {
                (FeatureType::Embedding { dimension }, Some(numbers)) => {
                    let range = list.ranges.of(row);
                    if numbers.nulls().is_some_and(|nulls| range.clone().any(|item| nulls.is_null(item))) {
                        return unusable("has a null in it");
                    }
                    match Value::embedding(numbers.values()[range].to_vec(), dimension) {
                        Ok(value) => typed(value),
                        Err(error) => unusable(error.0),
                    }
                }
                _ => self.document(row),
            },
            Content::Struct(_) => self.document(row),
        }
    }

    /// The cell as a JSON document.
    fn document(&self, row: usize) -> Cell<'_> {
        match self.to_json(row).and_then(|document| Value::json(&document).map_err(|error| error.0)) {
            Ok(value) => Cell::Given(Given::Typed(value)),
            Err(reason) => unusable(reason),
        }
    }

    fn to_json(&self, row: usize) -> Result<serde_json::Value, String> {
        match (&self.content, self.is_null(row)) {
            (_, true) => Ok(serde_json::Value::Null),
            (Content::List(list), _) => {
                list.ranges.of(row).map(|item| list.items.to_json(item)).collect::<Result<_, _>>()
            }
            (Content::Struct(members), _) => {
                let members = members.iter().map(|(name, column)| Ok((name.clone(), column.to_json(row)?)));
                members.collect::<Result<serde_json::Map<_, _>, String>>().map(Into::into)
            }
            (Content::Uint64(values), _) => Ok(values.value(row).into()),
            _ => match self.cell(row, FeatureType::String) {
                Cell::Given(Given::Typed(value)) => {
                    serde_json::to_value(&value).map_err(|error| error.to_string())
                }
                Cell::Given(Given::Json(raw)) => {
                    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
                }
                Cell::Given(Given::Unusable(reason)) => Err(reason),
                _ => Err("has a number in it that is none (NaN)".to_owned()),
            },
        }
    }

    /// An entity id: a text, or a whole number in digits.
    pub fn id(&self, row: usize) -> Result<Cow<'_, str>, String> {
        if self.is_null(row) {
            return Err("the row has no entity id".to_owned());
        }
        match &self.content {
            Content::String(texts) | Content::Text(texts) => Ok(texts.value(row).into()),
            Content::Int64(numbers) => Ok(numbers.value(row).to_string().into()),
            Content::Uint64(numbers) => Ok(numbers.value(row).to_string().into()),
            Content::Json(texts) => {
                let text = texts.value(row);
                let parsed = match text.as_bytes().first() {
                    Some(b'"') => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
                    _ => (whole(text).is_some() || unsigned(text).is_some()).then_some(Cow::Borrowed(text)),
                };
                parsed.ok_or_else(|| "the entity id is neither a text nor a whole number".to_owned())
            }
            _ => Err("the entity id is neither a text nor a whole number".to_owned()),
        }
    }

    /// A time: of the column's own type, in RFC 3339, or a whole number where `unit` says of what.
    /// `None` where there is none.
    pub fn time(&self, row: usize, unit: Option<Unit>) -> Result<Option<Timestamp>, String> {
        let count = |number: i64| {
            let unit = unit.ok_or("is a number: say of what with timestamp_unit")?;
            let at = unit.timestamp(number);
            at.map(Some).ok_or_else(|| "is not from year 0000 to 9999-12-30T22:00:00Z".to_owned())
        };
        if self.is_null(row) {
            return Ok(None);
        }
        let parse = |text: &str| Timestamp::parse(text).map(Some).map_err(|error| error.to_string());
        match &self.content {
            Content::Nothing => Ok(None),
            Content::Time(counts, unit) => {
                let at = unit.timestamp(counts.value(row));
                at.map(Some).ok_or_else(|| "is not from year 0000 to 9999-12-30T22:00:00Z".to_owned())
            }
            Content::Int64(numbers) => count(numbers.value(row)),
            Content::String(texts) => parse(texts.value(row)),
            Content::Text(texts) => match whole(texts.value(row)) {
                Some(number) => count(number),
                None => parse(texts.value(row)),
            },
            Content::Json(texts) => {
                let text = texts.value(row);
                match (text.as_bytes().first(), whole(text)) {
                    (Some(b'n'), _) => Ok(None),
                    (_, Some(number)) => count(number),
                    (Some(b'"'), _) => parse(&serde_json::from_str::<String>(text).unwrap_or_default()),
                    _ => Err("is neither a text nor a whole number".to_owned()),
                }
            }
            _ => Err("is neither a time, a text nor a whole number".to_owned()),
        }
    }
}

impl List {
    fn new(item: &Field, values: &ArrayRef, ranges: Ranges) -> Result<Self, ReadError> {
        let numbers = match values.data_type() {
            data_type if data_type.is_numeric() => cast(values, &DataType::Float32).ok(),
            _ => None,
        };
        let numbers = numbers.map(|numbers| numbers.as_primitive().clone());
        Ok(Self { items: Column::new(item, values)?, numbers, ranges })
    }
}

fn time(array: &ArrayRef, unit: TimeUnit) -> Content {
    let (counts, unit) = match unit {
        TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().reinterpret_cast(), Unit::Seconds),
        TimeUnit::Millisecond => {
            (array.as_primitive::<TimestampMillisecondType>().reinterpret_cast(), Unit::Milliseconds)
        }
        TimeUnit::Microsecond => {
            (array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(), Unit::Microseconds)
        }
        TimeUnit::Nanosecond => {
            (array.as_primitive::<TimestampNanosecondType>().reinterpret_cast(), Unit::Nanoseconds)
        }
    };
    Content::Time(counts, unit)
}

fn unusable<'a>(reason: impl Into<String>) -> Cell<'a> {
    Cell::Given(Given::Unusable(reason.into()))
}

fn float<'a>(number: f64) -> Cell<'a> {
    match number {
        number if number.is_nan() => Cell::Nan,
        number if number.is_infinite() => unusable("is infinite, which float64 features cannot be"),
        number => Cell::Given(Given::Typed(Value::Float64(number))),
    }
}

fn timestamp<'a>(text: &str) -> Cell<'a> {
    match Timestamp::parse(text) {
        Ok(at) => Cell::Given(Given::Typed(Value::Timestamp(at))),
        Err(error) => unusable(error.to_string()),
    }
}

fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

fn json(text: &str) -> Cell<'_> {
    match serde_json::from_str(text) {
        Ok(raw) => Cell::Given(Given::Json(raw)),
        Err(_) => unusable("is not a JSON text"),
    }
}

/// A text of CSV as the feature's type reads it. One that is of another type becomes what it looks
/// like, so that the message says so, and an inferred int64 may be widened.
fn text(text: &str, wanted: FeatureType) -> Cell<'_> {
    let value = match wanted {
        FeatureType::String => None,
        FeatureType::Boolean => boolean(text).map(Value::Boolean),
        FeatureType::Int64 => match text.parse() {
            Ok(number) => Some(Value::Int64(number)),
            Err(_) => fraction(text).map(Value::Float64),
        },
        FeatureType::Float64 => match text.parse() {
            Ok(number) => return float(number),
            Err(_) => None,
        },
        FeatureType::Timestamp => return timestamp(text),
        FeatureType::Embedding { .. } | FeatureType::Json => return json(text),
    };
    Cell::Given(Given::Typed(value.unwrap_or_else(|| Value::String(text.into()))))
}

fn embedding(dimension: usize) -> FeatureType {
    FeatureType::Embedding { dimension: u32::try_from(dimension).unwrap_or(u32::MAX) }
}

/// The narrowest type that all texts fit; `None` without any.
fn infer_text<'a, I: Iterator<Item = &'a str>>(texts: impl Fn() -> I) -> Option<FeatureType> {
    let first = texts().next()?;
    let all = |fits: &dyn Fn(&str) -> bool| texts().all(fits);
    if all(&|text| boolean(text).is_some()) {
        return Some(FeatureType::Boolean);
    }
    if all(&|text| whole(text).is_some()) {
        return Some(FeatureType::Int64);
    }
    if all(&|text| fraction(text).is_some()) {
        return Some(FeatureType::Float64);
    }
    let document = |text: &str| text.starts_with(['[', '{']) && raw(text).is_some();
    if all(&document) {
        return Value::infer_type(raw(first)?);
    }
    Some(FeatureType::String)
}

/// The type that holds values of both, where one of them does; else the first, whose rows say no
/// to the others.
fn wider(first: FeatureType, second: FeatureType) -> FeatureType {
    match (first, second) {
        (FeatureType::Int64, FeatureType::Float64) => FeatureType::Float64,
        _ => first,
    }
}
