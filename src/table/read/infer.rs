//! Columns of texts as the narrowest type that all their cells fit.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use indexmap::IndexMap;

use super::text::record_batch;
use super::{Cells, ReadError};

/// One batch out of all, with the columns of any of them.
pub fn typed(batches: Vec<RecordBatch>, empty: SchemaRef) -> Result<RecordBatch, ReadError> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut fields: IndexMap<String, Arc<Field>> = IndexMap::new();
    for schema in batches.iter().map(RecordBatch::schema).chain([empty]) {
        for field in schema.fields() {
            fields.entry(field.name().clone()).or_insert_with(|| field.clone());
        }
    }
    let mut arrays = Vec::with_capacity(fields.len());
    for field in fields.values_mut() {
        let parts: Vec<ArrayRef> = batches
            .iter()
            .map(|batch| match batch.column_by_name(field.name()) {
                Some(column) => column.clone(),
                None => arrow_array::new_null_array(field.data_type(), batch.num_rows()),
            })
            .collect();
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        let column = match parts.as_slice() {
            [] => arrow_array::new_empty_array(field.data_type()),
            parts => concat(parts).map_err(ReadError::malformed)?,
        };
        let cells = Cells::of(field);
        let column = match column.as_string_opt::<i32>() {
            Some(texts) if cells != Cells::Typed => infer(texts, cells),
            _ => column,
        };
        if cells != Cells::Typed {
            *field = Field::new(field.name(), column.data_type().clone(), true).into();
        }
        arrays.push(column);
    }
    record_batch(Schema::new(fields.into_values().collect::<Vec<_>>()).into(), arrays, rows)
}

/// A column of texts as booleans, whole numbers or fractions, where all of them are such; else as
/// texts.
fn infer(texts: &StringArray, cells: Cells) -> ArrayRef {
    let cells: Vec<Option<Cow<'_, str>>> = texts.iter().map(|cell| plain(cell, cells)).collect();
    let all = |is: &dyn Fn(&str) -> bool| cells.iter().flatten().all(|cell| is(cell));
    if cells.iter().all(Option::is_none) {
        return Arc::new(StringArray::from_iter(cells));
    }
    if all(&|cell| boolean(cell).is_some()) {
        return Arc::new(cells.iter().map(|cell| boolean(cell.as_deref()?)).collect::<BooleanArray>());
    }
    // An id may be -0, and no number says that.
    if all(&|cell| whole(cell).is_some() && cell != "-0") {
        return Arc::new(cells.iter().map(|cell| whole(cell.as_deref()?)).collect::<Int64Array>());
    }
    if all(&|cell| unsigned(cell).is_some()) {
        return Arc::new(cells.iter().map(|cell| unsigned(cell.as_deref()?)).collect::<UInt64Array>());
    }
    if all(&|cell| fraction(cell).is_some()) {
        return Arc::new(cells.iter().map(|cell| fraction(cell.as_deref()?)).collect::<Float64Array>());
    }
    Arc::new(StringArray::from_iter(cells))
}

/// A JSON string without its quotes; a JSON null as null. Everything else as it stands.
fn plain(cell: Option<&str>, cells: Cells) -> Option<Cow<'_, str>> {
    let cell = cell?;
    if cells != Cells::Json {
        return Some(cell.into());
    }
    match cell.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => Some(serde_json::from_str::<String>(cell).map_or(cell.into(), Cow::Owned)),
        _ => Some(cell.into()),
    }
}

/// `true` or `false`, as Python and JSON write them.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A whole number of int64. With a leading zero it is a text: `007` is not 7.
pub fn whole(text: &str) -> Option<i64> {
    if has_leading_zero(text) || text.starts_with('+') { None } else { text.parse().ok() }
}

/// A whole number of uint64, as ids often are.
pub fn unsigned(text: &str) -> Option<u64> {
    if has_leading_zero(text) || text.starts_with('+') { None } else { text.parse().ok() }
}

/// A finite number in digits, as JSON would write it.
pub fn fraction(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = !has_leading_zero(text) && digits.starts_with(|c: char| c.is_ascii_digit());
    text.parse::<f64>().ok().filter(|parsed| number && parsed.is_finite())
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    matches!(digits, [b'0', b'0'..=b'9', ..])
}
