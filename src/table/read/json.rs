//! Rows as JSON objects: one a line, or the items of one array.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use arrow_array::RecordBatch;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text::Gathered;
use super::{Batches, Cells, MAX_COLUMNS, MAX_ROW_BYTES, ReadError};

type Reader = BufReader<Box<dyn Read + Send>>;

/// One object a line; empty lines are passed over.
pub fn lines(stream: Box<dyn Read + Send>, max_rows: usize) -> Batches {
    let objects = Lines { reader: BufReader::with_capacity(64 << 10, stream), line: 0 };
    Batches { inner: Some(Box::new(Rows::new(objects, max_rows))), schema: None }
}

/// The items of one array, which are read as they come.
pub fn array(stream: Box<dyn Read + Send>, max_rows: usize) -> Batches {
    let objects =
        Items { reader: BufReader::with_capacity(64 << 10, stream), state: State::Before, read: 0, row: 0 };
    Batches { inner: Some(Box::new(Rows::new(objects, max_rows))), schema: None }
}

/// A source of the texts of objects.
trait Objects {
    /// Reads the next text into `into`; `false` at the end.
    fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, ReadError>;

    /// Where the last text stood, for people.
    fn place(&self) -> String;
}

struct Rows<T> {
    objects: T,
    text: Vec<u8>,
    /// Read already, but belonging into the next batch.
    held: bool,
    max_rows: usize,
    /// Comes after the rows before it.
    failed: Option<ReadError>,
    ended: bool,
}

impl<T: Objects> Rows<T> {
    fn new(objects: T, max_rows: usize) -> Self {
        Self { objects, text: Vec::new(), held: false, max_rows, failed: None, ended: false }
    }

    /// Gathers rows until there are enough of them.
    fn gather(&mut self, gathered: &mut Gathered) -> Result<(), ReadError> {
        while !gathered.is_full(self.max_rows) {
            if !std::mem::take(&mut self.held) {
                self.text.clear();
                if !self.objects.next(&mut self.text)? {
                    self.ended = true;
                    break;
                }
            }
            let at = |what: &dyn fmt::Display| format!("{}: {what}", self.objects.place());
            let Members(members) = serde_json::from_slice(&self.text)
                .map_err(|error| ReadError::Malformed(at(&without_line(&error))))?;
            if members.len() > MAX_COLUMNS {
                let text = format!("{} members, at most {MAX_COLUMNS} are read", members.len());
                return Err(ReadError::Malformed(at(&text)));
            }
            if gathered.is_too_wide_for(members.len()) {
                self.held = true;
                break;
            }
            for (name, value) in members {
                if !gathered.push(&name, Some(value.get())) {
                    return Err(ReadError::Malformed(at(&format_args!("{name:?} is given twice"))));
                }
            }
            gathered.end_row();
        }
        Ok(())
    }
}

impl<T: Objects> Iterator for Rows<T> {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.ended {
            return None;
        }
        let mut gathered = Gathered::new(Cells::Json);
        let failed = self.gather(&mut gathered).err();
        if failed.is_some() {
            self.ended = true;
        }
        if gathered.rows() == 0 {
            return failed.map(Err);
        }
        self.failed = failed;
        Some(gathered.take())
    }
}

/// serde_json counts lines and columns within one object; the column is what helps.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) if error.line() == 1 => format!("{} at column {}", &text[..end], error.column()),
        _ => text,
    }
}

struct Lines {
    reader: Reader,
    line: u64,
}

impl Objects for Lines {
    fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, ReadError> {
        loop {
            into.clear();
            self.line += 1;
            let read = (&mut self.reader).take(MAX_ROW_BYTES + 1).read_until(b'\n', into);
            match read.map_err(ReadError::Source)? {
                0 => return Ok(false),
                read if read as u64 > MAX_ROW_BYTES => return Err(self.too_long()),
                _ if into.iter().all(u8::is_ascii_whitespace) => {}
                _ => {
                    if self.line == 1 && into.starts_with(b"\xef\xbb\xbf") {
                        into.drain(..3);
                    }
                    return Ok(true);
                }
            }
        }
    }

    fn place(&self) -> String {
        format!("line {}", self.line)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    /// After `[`.
    First,
    /// After an item.
    Between,
    After,
}

struct Items {
    reader: Reader,
    state: State,
    /// Bytes taken from the reader.
    read: u64,
    row: u64,
}

impl Items {
    fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        loop {
            match self.reader.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Source(error)),
            }
        }
    }

    fn step(&mut self) {
        self.reader.consume(1);
        self.read += 1;
    }

    /// The next byte that is no white space; it stays unread.
    fn next_mark(&mut self) -> Result<Option<u8>, ReadError> {
        while let Some(byte) = self.peek()? {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(Some(byte));
            }
            self.step();
        }
        Ok(None)
    }

    fn unexpected(&self, wanted: &str) -> ReadError {
        ReadError::Malformed(format!("byte {}: expected {wanted}", self.read))
    }

    /// Reads one object up to the brace that closes it.
    fn read_object(&mut self, into: &mut Vec<u8>) -> Result<(), ReadError> {
        let (mut depth, mut in_text, mut escaped) = (0_u64, false, false);
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok([]) => return Err(self.unexpected("the rest of the object, but the data ends here")),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReadError::Source(error)),
            };
            let mut end = None;
            for (place, byte) in bytes.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_text => escaped = true,
                    b'"' => in_text = !in_text,
                    b'{' if !in_text => depth += 1,
                    b'}' if !in_text => {
                        depth -= 1;
                        if depth == 0 {
                            end = Some(place + 1);
                            break;
                        }
                    }
                    _ => {}
                }
            }
            let taken = end.unwrap_or(bytes.len());
            into.extend_from_slice(&bytes[..taken]);
            self.reader.consume(taken);
            self.read += taken as u64;
            if into.len() as u64 > MAX_ROW_BYTES {
                return Err(self.too_long());
            }
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

impl Objects for Items {
    fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, ReadError> {
        let mark = self.next_mark()?;
        match (self.state, mark) {
            (State::Before, Some(b'[')) => {
                self.step();
                self.state = State::First;
                return self.next(into);
            }
            (State::Before, _) => return Err(self.unexpected("an array of objects")),
            (State::First | State::Between, Some(b']')) => {
                self.step();
                self.state = State::After;
                return match self.next_mark()? {
                    None => Ok(false),
                    Some(_) => Err(self.unexpected("nothing after the array")),
                };
            }
            (State::First, _) => {}
            (State::Between, Some(b',')) => self.step(),
            (State::Between, _) => return Err(self.unexpected("a comma or the end of the array")),
            (State::After, _) => return Ok(false),
        }
        if self.next_mark()? != Some(b'{') {
            return Err(self.unexpected("an object"));
        }
        self.read_object(into)?;
        self.state = State::Between;
        self.row += 1;
        Ok(true)
    }

    fn place(&self) -> String {
        format!("item {}", self.row.saturating_sub(1))
    }
}

trait TooLong: Objects {
    fn too_long(&self) -> ReadError {
        ReadError::Malformed(format!("{}: longer than {} MiB", self.place(), MAX_ROW_BYTES >> 20))
    }
}

impl<T: Objects> TooLong for T {}

/// The members of an object, each value as it stands there.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key that is borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a member for each column")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
