//! Rows of texts, gathered into batches.

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use indexmap::IndexMap;
use std::sync::Arc;

use super::{BATCH_BYTES, Cells, MAX_COLUMNS, ReadError};

/// Rows that need not have the same columns.
pub struct Gathered {
    cells: Cells,
    columns: IndexMap<String, StringBuilder>,
    rows: usize,
    bytes: usize,
}

impl Gathered {
    pub fn new(cells: Cells) -> Self {
        Self { cells, columns: IndexMap::new(), rows: 0, bytes: 0 }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn is_full(&self, max_rows: usize) -> bool {
        self.rows >= max_rows || self.bytes >= BATCH_BYTES
    }

    /// Whether a row with so many columns might make more of them than a batch may have.
    pub fn is_too_wide_for(&self, more: usize) -> bool {
        self.rows > 0 && self.columns.len() + more > MAX_COLUMNS
    }

    /// Adds a cell to the row that is being gathered; `false` where it has that column already.
    pub fn push(&mut self, column: &str, cell: Option<&str>) -> bool {
        let builder = match self.columns.get_mut(column) {
            Some(builder) => builder,
            None => self.columns.entry(column.to_owned()).or_default(),
        };
        push(builder, self.rows, cell, &mut self.bytes)
    }

    /// As [`Self::push`], by the place of the column.
    pub fn push_at(&mut self, column: usize, cell: Option<&str>) {
        if let Some((_, builder)) = self.columns.get_index_mut(column) {
            push(builder, self.rows, cell, &mut self.bytes);
        }
    }

    pub fn end_row(&mut self) {
        self.rows += 1;
    }

    /// The rows that were ended; what was pushed since is lost.
    pub fn take(&mut self) -> Result<RecordBatch, ReadError> {
        let rows = self.rows;
        let columns = std::mem::take(&mut self.columns);
        let fields: Vec<_> = columns.keys().map(|name| self.cells.field(name)).collect();
        let arrays: Vec<ArrayRef> = columns
            .into_values()
            .map(|mut builder| {
                pad(&mut builder, rows);
                let array = builder.finish();
                Arc::new(if array.len() > rows { array.slice(0, rows) } else { array }) as ArrayRef
            })
            .collect();
        (self.rows, self.bytes) = (0, 0);
        record_batch(Schema::new(fields).into(), arrays, rows)
    }
}

/// A batch that may have rows but no columns.
pub fn record_batch(schema: SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ReadError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(ReadError::malformed)
}

fn pad(builder: &mut StringBuilder, rows: usize) {
    use arrow_array::builder::ArrayBuilder;
    while builder.len() < rows {
        builder.append_null();
    }
}

fn push(builder: &mut StringBuilder, row: usize, cell: Option<&str>, bytes: &mut usize) -> bool {
    use arrow_array::builder::ArrayBuilder;
    pad(builder, row);
    if builder.len() > row {
        return false;
    }
    builder.append_option(cell);
    *bytes += cell.map_or(1, str::len) + 4;
    true
}
