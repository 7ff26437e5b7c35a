//! Columns cell by cell, as JSON writes them.

use std::io::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    LargeListArray, ListArray, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow_cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_schema::{ArrowError, DataType, Field, TimeUnit};
use serde::Serialize;

use super::columns::is_json;
use crate::domain::time::Timestamp;

/// A column made ready for being written cell by cell.
pub enum Cells {
    Boolean(BooleanArray),
    Int64(Int64Array),
    UInt64(UInt64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Text(StringArray),
    /// Text that is JSON already.
    Json(StringArray),
    /// In UTC, or without a time zone.
    Timestamp(TimestampMicrosecondArray, bool),
    FixedSizeList(FixedSizeListArray, Box<Cells>),
    List(ListArray, Box<Cells>),
    LargeList(LargeListArray, Box<Cells>),
    Struct(StructArray, Vec<(String, Cells)>),
    /// As text, whatever it is.
    Other(ArrayRef),
}

impl Cells {
    pub fn new(field: &Field, column: &ArrayRef) -> Result<Self, ArrowError> {
        let to = |data_type: &DataType| cast(column, data_type);
        let items = |item: &Field, values: &ArrayRef| Self::new(item, values).map(Box::new);
        Ok(match column.data_type() {
            DataType::Boolean => Self::Boolean(column.as_boolean().clone()),
            DataType::UInt64 => Self::UInt64(column.as_primitive::<UInt64Type>().clone()),
            data_type if data_type.is_integer() => {
                Self::Int64(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::Float16 | DataType::Float32 => {
                Self::Float32(to(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Float64 => Self::Float64(column.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let text = to(&DataType::Utf8)?.as_string::<i32>().clone();
                if is_json(field) { Self::Json(text) } else { Self::Text(text) }
            }
            DataType::Timestamp(_, zone) => {
                let micros = to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                Self::Timestamp(micros.as_primitive::<TimestampMicrosecondType>().clone(), zone.is_some())
            }
            DataType::FixedSizeList(item, _) => {
                let list = column.as_fixed_size_list();
                Self::FixedSizeList(list.clone(), items(item, list.values())?)
            }
            DataType::List(item) => {
                let list = column.as_list::<i32>();
                Self::List(list.clone(), items(item, list.values())?)
            }
            DataType::LargeList(item) => {
                let list = column.as_list::<i64>();
                Self::LargeList(list.clone(), items(item, list.values())?)
            }
            DataType::Struct(fields) => {
                let structs = column.as_struct();
                let members = fields.iter().zip(structs.columns());
                let members =
                    members.map(|(field, member)| Ok((field.name().clone(), Self::new(field, member)?)));
                Self::Struct(structs.clone(), members.collect::<Result<_, ArrowError>>()?)
            }
            DataType::Dictionary(_, values) => {
                let field = field.clone().with_data_type(values.as_ref().clone());
                Self::new(&field, &to(values)?)?
            }
            DataType::Date32 | DataType::Date64 | DataType::Decimal128(_, _) => {
                Self::Text(to(&DataType::Utf8)?.as_string::<i32>().clone())
            }
            _ => Self::Other(column.clone()),
        })
    }

    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::UInt64(array) => array.is_null(row),
            Self::Float32(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Text(array) | Self::Json(array) => array.is_null(row),
            Self::Timestamp(array, _) => array.is_null(row),
            Self::FixedSizeList(array, _) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::LargeList(array, _) => array.is_null(row),
            Self::Struct(array, _) => array.is_null(row),
            // A null among the values of a dictionary is one as well.
            Self::Other(array) => array.logical_nulls().is_some_and(|nulls| nulls.is_null(row)),
        }
    }

    /// The cell as a JSON value. A float that JSON has no number for is null.
    pub fn write_json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        let list = |out: &mut Vec<u8>, items: &Self, range: std::ops::Range<usize>| {
            out.push(b'[');
            for at in range.clone() {
                if at > range.start {
                    out.push(b',');
                }
                items.write_json(at, out)?;
            }
            out.push(b']');
            Ok(())
        };
        match self {
            Self::Boolean(array) => put(out, &array.value(row)),
            Self::Int64(array) => put(out, &array.value(row)),
            Self::UInt64(array) => put(out, &array.value(row)),
            Self::Float32(array) => put(out, &array.value(row)),
            Self::Float64(array) => put(out, &array.value(row)),
            Self::Text(array) => put(out, array.value(row)),
            Self::Json(array) => {
                out.extend_from_slice(array.value(row).as_bytes());
                Ok(())
            }
            Self::Timestamp(array, zoned) => put(out, &time_text(array.value(row), *zoned)),
            Self::FixedSizeList(array, items) => {
                let length = usize::try_from(array.value_length()).unwrap_or_default();
                let start = array.value_offset_at(row);
                list(out, items, start..start + length)
            }
            Self::List(array, items) => {
                let offsets = array.value_offsets();
                list(out, items, bound(offsets[row].into())..bound(offsets[row + 1].into()))
            }
            Self::LargeList(array, items) => {
                let offsets = array.value_offsets();
                list(out, items, bound(offsets[row])..bound(offsets[row + 1]))
            }
            Self::Struct(_, members) => {
                out.push(b'{');
                for (index, (name, member)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    put(out, name)?;
                    out.push(b':');
                    member.write_json(row, out)?;
                }
                out.push(b'}');
                Ok(())
            }
            Self::Other(array) => put(out, &array_value_to_string(array, row)?),
        }
    }

    /// The cell as text: what JSON writes, without quotes around what is text alone.
    pub fn write_text(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self {
            Self::Text(array) if array.is_valid(row) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::Timestamp(array, zoned) if array.is_valid(row) => {
                out.extend_from_slice(time_text(array.value(row), *zoned).as_bytes());
            }
            Self::Float32(array) if !array.value(row).is_finite() => write!(out, "{}", array.value(row))?,
            Self::Float64(array) if !array.value(row).is_finite() => write!(out, "{}", array.value(row))?,
            Self::Other(array) => out.extend_from_slice(array_value_to_string(array, row)?.as_bytes()),
            _ => self.write_json(row, out)?,
        }
        Ok(())
    }
}

fn bound(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or_default()
}

/// RFC 3339, without the `Z` where the column has no time zone.
fn time_text(micros: i64, zoned: bool) -> String {
    let Some(time) = Timestamp::from_micros(micros) else { return format!("{micros}us") };
    let mut text = time.to_string();
    if !zoned && text.ends_with('Z') {
        text.pop();
    }
    text
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), ArrowError> {
    serde_json::to_writer(out, value).map_err(|error| ArrowError::JsonError(error.to_string()))
}
