//! Comma-separated values with a line of names, as in RFC 4180. An empty field is null, in quotes too.

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
    let mut reader =
        csv::Reader::from_reader(Limited { stream, left: left.clone(), quotes: Quotes::default() });
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

/// Ends in an error where one row is too long, and where the stream ends within quotes: they would else
/// take in the rest.
struct Limited {
    stream: Box<dyn Read + Send>,
    left: Arc<AtomicU64>,
    quotes: Quotes,
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
        self.quotes.pass(&into[..read]);
        if let (0, At::Quoted { since }) = (read, &self.quotes.at) {
            let text = format!("the quotes that begin in line {since} are not closed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.left.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Where in a table the bytes are that have been read, as the parser behind sees it.
#[derive(Default)]
struct Quotes {
    at: At,
    /// The line, from 0.
    line: u64,
}

#[derive(Default)]
enum At {
    #[default]
    Start,
    Field,
    BeginOfField,
    Quoted {
        since: u64,
    },
    /// A quote in quotes: their end, or the first half of a quote.
    Quote {
        since: u64,
    },
}

impl Quotes {
    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.at = match (&self.at, byte) {
                // The mark of byte order.
                (At::Start, 0xef | 0xbb | 0xbf) => At::Start,
                (At::Start | At::BeginOfField, b'"') => At::Quoted { since: self.line + 1 },
                (At::Quoted { since }, b'"') => At::Quote { since: *since },
                (At::Quote { since }, b'"') | (At::Quoted { since }, _) => At::Quoted { since: *since },
                (_, b',' | b'\n' | b'\r') => At::BeginOfField,
                _ => At::Field,
            };
            self.line += u64::from(*byte == b'\n');
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a table that comes a byte at a time, or why it cannot be read.
    fn read(text: &'static str) -> Result<usize, String> {
        struct Slow(&'static [u8]);
        impl Read for Slow {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let most = into.len().min(1);
                self.0.read(&mut into[..most])
            }
        }
        let batches = open(Box::new(Slow(text.as_bytes())), 10).map_err(|error| error.to_string())?;
        batches.map(|batch| Ok(batch.map_err(|error| error.to_string())?.num_rows())).sum()
    }

    #[test]
    fn quotes_are_closed_or_the_table_is_cut_off() {
        for (text, rows) in [
            ("a,b\n1,\"x\"\n", 1),
            ("a,b\r\n1,\"x\"\"\r\n,y\"\r\n2,\"\"", 2),
            ("a,b\n\"1\",x\"y\n2,5\"\n", 2),
            ("\u{feff}\"a\",b\n1,\"x\"y\n", 1),
            ("a\n\"x\ny\"\n\"\"\"\"\n", 2),
        ] {
            assert_eq!(read(text), Ok(rows), "{text:?}");
        }
        for (text, line) in [
            ("a,b\n1,\"x\n2,y\n", 2),
            ("a,b\n1,\"x\"\"\n2,y\n", 2),
            ("a\n\"x\ny\"\n\"", 4),
            ("\u{feff}\"a", 1),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(&format!("begin in line {line} are not closed")), "{text:?}: {error}");
        }
    }
}
