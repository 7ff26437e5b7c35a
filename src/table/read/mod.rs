//! Tables from bytes: whatever the format, out come `RecordBatch`es of a moderate size.
//!
//! Parquet and Arrow bring their types. The text formats bring none: their columns are texts that
//! say so ([`Cells`]), for the schema of whoever reads them to decide, or for [`whole`] to infer.

mod columnar;
mod csv;
pub(super) mod infer;
mod json;
mod text;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use bytes::Bytes;

use super::Format;

/// A row of a text format has at most so many bytes.
const MAX_ROW_BYTES: u64 = 16 << 20;
/// A batch of an Arrow stream has at most so many bytes.
const MAX_MESSAGE_BYTES: usize = 256 << 20;
/// A table has at most so many columns.
pub const MAX_COLUMNS: usize = 4096;
/// Batches are kept to about so many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Where the bytes of a table are.
pub enum Source {
    Bytes(Bytes),
    File(File),
    /// Bytes that are still coming. Parquet cannot be read from these: its index stands at the end.
    Stream(Box<dyn Read + Send>),
}

impl Source {
    fn into_read(self) -> Box<dyn Read + Send> {
        match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Self::File(file) => Box::new(file),
            Self::Stream(stream) => stream,
        }
    }
}

/// Why a table cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes stopped coming.
    #[error("the data could not be read to its end: {0}")]
    Source(io::Error),
    /// They are not what they should be; the text says where.
    #[error("{0}")]
    Malformed(String),
}

impl ReadError {
    fn malformed(text: impl std::fmt::Display) -> Self {
        Self::Malformed(text.to_string())
    }
}

/// What the cells of a column are, in the metadata of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// Values of the column's own type.
    Typed,
    /// Texts of CSV: what they mean is for the reader to say. An empty one is null.
    Text,
    /// JSON texts, checked; null where the row has no such member, the text `null` where it is null.
    Json,
}

const CELLS: &str = "feature-store:cells";

impl Cells {
    pub fn of(field: &Field) -> Self {
        match field.metadata().get(CELLS).map(String::as_str) {
            Some("text") => Self::Text,
            Some("json") => Self::Json,
            _ => Self::Typed,
        }
    }

    fn field(self, name: &str) -> Field {
        let field = Field::new(name, arrow_schema::DataType::Utf8, true);
        let word = match self {
            Self::Typed => return field,
            Self::Text => "text",
            Self::Json => "json",
        };
        field.with_metadata([(CELLS.to_owned(), word.to_owned())])
    }
}

/// The batches of a table, none of more than `max_rows` rows. After an error there are no more.
pub struct Batches {
    inner: Option<Box<dyn Iterator<Item = Result<RecordBatch, ReadError>> + Send>>,
    schema: Option<SchemaRef>,
}

impl Batches {
    /// The columns, where the format tells them before the first row.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.as_mut()?;
        let next = guarded(|| inner.next().transpose()).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.inner = None;
        }
        next
    }
}

/// Opens a table. Errors of its beginning may come now or with the first batch.
pub fn batches(format: Format, source: Source, max_rows: usize) -> Result<Batches, ReadError> {
    let max_rows = max_rows.max(1);
    let batches = guarded(|| match format {
        Format::Parquet => columnar::parquet(source, max_rows),
        Format::Arrow => columnar::arrow(source.into_read(), max_rows),
        Format::Csv => csv::open(source.into_read(), max_rows),
        Format::Ndjson => Ok(json::lines(source.into_read(), max_rows)),
        Format::Json => Ok(json::array(source.into_read(), max_rows)),
    })?;
    if let Some(schema) = &batches.schema {
        check_columns(schema)?;
    }
    Ok(batches)
}

/// How many rows a Parquet file says it has.
pub fn parquet_rows(file: File) -> Result<u64, ReadError> {
    guarded(|| columnar::parquet_rows(file))
}

/// A table as one batch, of at most `max_rows` rows; the columns of text formats get the narrowest
/// type that all their cells fit: boolean, int64, float64, else text.
pub fn whole(format: Format, source: Source, max_rows: usize) -> Result<RecordBatch, ReadError> {
    let mut all = Vec::new();
    let mut rows = 0;
    let batches = batches(format, source, usize::MAX)?;
    let empty = batches.schema().cloned().unwrap_or_else(|| Schema::empty().into());
    for batch in batches {
        let batch = batch?;
        rows += batch.num_rows();
        if rows > max_rows {
            return Err(ReadError::Malformed(format!("there are more than {max_rows} rows")));
        }
        all.push(batch);
    }
    guarded(|| infer::typed(all, empty))
}

/// The formats' own libraries are not meant for hostile bytes: where one gives up by a panic, that
/// is an error as any other.
fn guarded<T>(act: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(ReadError::Malformed("the data is not readable".to_owned())))
}

fn check_columns(schema: &Schema) -> Result<(), ReadError> {
    if schema.fields().len() > MAX_COLUMNS {
        let count = schema.fields().len();
        return Err(ReadError::Malformed(format!(
            "there are {count} columns, at most {MAX_COLUMNS} are read"
        )));
    }
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(twice) => Err(ReadError::Malformed(format!("the column {:?} is there twice", twice.name()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
