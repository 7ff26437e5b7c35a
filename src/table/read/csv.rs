//! Comma-separated values with a line of names, as in RFC 4180. An empty field is null.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use csv::StringRecord;

use super::text::Gathered;
use super::{Batches, Cells, MAX_ROW_BYTES, ReadError};

pub fn open(stream: Box<dyn Read + Send>, max_rows: usize) -> Result<Batches, ReadError> {
    let left = Arc::new(AtomicU64::new(MAX_ROW_BYTES));
    let mut reader = csv::Reader::from_reader(Limited { stream, left: left.clone() });
    let header = reader.headers().map_err(of_csv)?.clone();
    if header.is_empty() {
        return Err(ReadError::malformed("the CSV has no line of column names"));
    }
    let schema: SchemaRef =
        Schema::new(header.iter().map(|name| Cells::Text.field(name)).collect::<Vec<_>>()).into();
    let rows =
        Rows { reader, left, header, record: StringRecord::new(), max_rows, failed: None, ended: false };
    Ok(Batches { inner: Some(Box::new(rows)), schema: Some(schema) })
}

struct Rows {
    reader: csv::Reader<Limited>,
    left: Arc<AtomicU64>,
    header: StringRecord,
    record: StringRecord,
    max_rows: usize,
    /// Comes after the rows before it.
    failed: Option<ReadError>,
    ended: bool,
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.ended {
            return None;
        }
        let mut gathered = Gathered::new(Cells::Text);
        while !gathered.is_full(self.max_rows) {
            self.left.store(MAX_ROW_BYTES, Ordering::Relaxed);
            match self.reader.read_record(&mut self.record) {
                Ok(true) => {
                    for (column, cell) in self.record.iter().enumerate() {
                        let cell = Some(cell).filter(|cell| !cell.is_empty());
                        if gathered.rows() == 0 {
                            gathered.push(&self.header[column], cell);
                        } else {
                            gathered.push_at(column, cell);
                        }
                    }
                    gathered.end_row();
                }
                Ok(false) => {
                    self.ended = true;
                    break;
                }
                Err(error) => {
                    self.ended = true;
                    self.failed = Some(of_csv(error));
                    break;
                }
            }
        }
        match (gathered.rows(), self.failed.take()) {
            (0, error) => error.map(Err),
            (_, error) => {
                self.failed = error;
                Some(gathered.take())
            }
        }
    }
}

/// Ends in an error where one row is too long: an open quote would else take in the rest.
struct Limited {
    stream: Box<dyn Read + Send>,
    left: Arc<AtomicU64>,
}

impl Read for Limited {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let text = format!("a row is longer than {} MiB", MAX_ROW_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.stream.read(&mut into[..most])?;
        self.left.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn of_csv(error: csv::Error) -> ReadError {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(io) if io.kind() == io::ErrorKind::InvalidData => ReadError::malformed(io),
        csv::ErrorKind::Io(io) => ReadError::Source(io),
        csv::ErrorKind::Utf8 { pos, err } => {
            let line = pos.map_or_else(String::new, |pos| format!("line {}: ", pos.line()));
            ReadError::Malformed(format!("{line}not UTF-8: {err}"))
        }
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.map_or_else(String::new, |pos| format!("line {}: ", pos.line()));
            ReadError::Malformed(format!("{line}{len} fields where the line of names has {expected_len}"))
        }
        _ => ReadError::Malformed(text),
    }
}
