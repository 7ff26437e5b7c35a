//! Record batches as bytes of any format, as they come: what is held back is bounded.
//!
//! A table that was cut off shows it: Parquet lacks its footer, an Arrow stream its end, JSON its
//! closing bracket. CSV and lines of JSON have no end of their own; whoever sends them has to break
//! off the transfer.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::Format;
use super::cells::Cells;

/// A row group of Parquet is closed at so many rows or bytes, whichever comes first. It is what the
/// writer holds back.
const ROW_GROUP_ROWS: usize = 100_000;
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// Writes one table.
pub struct Writer(Inner);

enum Inner {
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Csv { header: Vec<u8> },
    Json(JsonRows),
}

/// JSON objects, one a row: each on a line of its own, or together as an array.
struct JsonRows {
    array: bool,
    begun: bool,
    /// The members' names as JSON writes them, colon included.
    names: Vec<Vec<u8>>,
}

impl Writer {
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self, WriteError> {
        let rows =
            |array| JsonRows { array, begun: false, names: schema.fields().iter().map(member).collect() };
        Ok(Self(match format {
            Format::Parquet => {
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties(schema)))?;
                Inner::Parquet(Box::new(writer))
            }
            Format::Arrow => Inner::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
            Format::Csv => Inner::Csv { header: csv_header(schema) },
            Format::Ndjson => Inner::Json(rows(false)),
            Format::Json => Inner::Json(rows(true)),
        }))
    }

    /// Takes a batch of the schema, and gives the bytes that are ready: none, perhaps.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<Bytes, WriteError> {
        Ok(match &mut self.0 {
            Inner::Parquet(writer) => {
                writer.write(batch)?;
                writer.sync().map_err(ParquetError::from)?;
                std::mem::take(writer.inner_mut())
            }
            Inner::Arrow(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
            Inner::Csv { header } => {
                let mut out = std::mem::take(header);
                write_csv(batch, &mut out)?;
                out
            }
            Inner::Json(rows) => rows.push(batch)?,
        }
        .into())
    }

    /// The last bytes, without which the table is not whole.
    pub fn finish(self) -> Result<Bytes, WriteError> {
        Ok(match self.0 {
            Inner::Parquet(writer) => writer.into_inner()?,
            Inner::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()?
            }
            Inner::Csv { header } => header,
            Inner::Json(rows) => match (rows.array, rows.begun) {
                (true, true) => b"\n]\n".to_vec(),
                (true, false) => b"[]\n".to_vec(),
                (false, _) => Vec::new(),
            },
        }
        .into())
    }
}

fn properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("feature-store ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES));
    // Numbers of embeddings hardly ever repeat: a dictionary of them is work for nothing.
    for field in schema.fields() {
        if let DataType::FixedSizeList(item, _) = field.data_type() {
            let path = [field.name().as_str(), "list", item.name()].map(str::to_owned);
            properties = properties.set_column_dictionary_enabled(ColumnPath::new(path.to_vec()), false);
        }
    }
    properties.build()
}

/// The columns of a batch, cell by cell.
fn cells(batch: &RecordBatch) -> Result<Vec<Cells>, ArrowError> {
    let schema = batch.schema();
    schema.fields().iter().zip(batch.columns()).map(|(field, column)| Cells::new(field, column)).collect()
}

fn member(field: &Arc<Field>) -> Vec<u8> {
    let mut name = serde_json::Value::from(field.name().as_str()).to_string().into_bytes();
    name.push(b':');
    name
}

impl JsonRows {
    fn push(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let columns = cells(batch)?;
        let mut out = Vec::with_capacity(batch.num_rows() * columns.len() * 24);
        for row in 0..batch.num_rows() {
            match (self.array, self.begun) {
                (true, false) => out.extend_from_slice(b"[\n"),
                (true, true) => out.extend_from_slice(b",\n"),
                (false, _) => {}
            }
            self.begun = true;
            out.push(b'{');
            for (index, (name, column)) in self.names.iter().zip(&columns).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(name);
                column.write_json(row, &mut out)?;
            }
            out.push(b'}');
            if !self.array {
                out.push(b'\n');
            }
        }
        Ok(out)
    }
}

fn csv_header(schema: &Schema) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let start = out.len();
        out.extend_from_slice(field.name().as_bytes());
        quote_from(&mut out, start);
    }
    out.push(b'\n');
    out
}

/// Null is an empty field, empty text is `""`: so the two stay apart.
fn write_csv(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let columns = cells(batch)?;
    out.reserve(batch.num_rows() * columns.len() * 12);
    for row in 0..batch.num_rows() {
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if !column.is_null(row) {
                let start = out.len();
                column.write_text(row, out)?;
                quote_from(out, start);
            }
        }
        out.push(b'\n');
    }
    Ok(())
}

/// Puts quotes around the field that begins at `start`, where it needs them.
fn quote_from(out: &mut Vec<u8>, start: usize) {
    let field = &out[start..];
    if !field.is_empty() && !field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return;
    }
    let field = out.split_off(start);
    out.push(b'"');
    for byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// One column of a table as the members of a JSON array, without its brackets.
pub fn json_members(field: &Field, column: &arrow_array::ArrayRef) -> Result<Vec<u8>, WriteError> {
    let cells = Cells::new(field, column)?;
    let mut out = Vec::with_capacity(column.len() * 12);
    for row in 0..column.len() {
        if row > 0 {
            out.push(b',');
        }
        cells.write_json(row, &mut out)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use arrow_array::ArrayRef;
    use arrow_ipc::reader::StreamReader;
    use arrow_select::concat::concat_batches;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::super::columns::{ColumnBuilder, field};
    use super::*;
    use crate::domain::time::Timestamp;
    use crate::domain::value::{FeatureType, Value};

    fn columns() -> Vec<(&'static str, FeatureType, Vec<Value>)> {
        let time = Timestamp::parse("2026-01-02T03:04:05.25Z").unwrap();
        vec![
            ("id", FeatureType::String, vec![Value::String("a,\"b\"\n".into()), Value::String("".into())]),
            ("n", FeatureType::Int64, vec![Value::Int64(i64::MIN), Value::Null]),
            ("f", FeatureType::Float64, vec![Value::Float64(0.25), Value::Null]),
            ("b", FeatureType::Boolean, vec![Value::Boolean(false), Value::Null]),
            ("t", FeatureType::Timestamp, vec![Value::Timestamp(time), Value::Null]),
            (
                "e",
                FeatureType::Embedding { dimension: 2 },
                vec![Value::Embedding(vec![0.1, -2.0].into()), Value::Null],
            ),
            ("j", FeatureType::Json, vec![Value::Json("{\"k\":[null]}".into()), Value::Null]),
        ]
    }

    fn batch() -> RecordBatch {
        let fields: Vec<Field> = columns().iter().map(|(name, of_type, _)| field(*name, *of_type)).collect();
        let arrays = columns().into_iter().map(|(_, of_type, values)| -> ArrayRef {
            let mut builder = ColumnBuilder::new(of_type);
            values.iter().for_each(|value| builder.push(value).unwrap());
            builder.finish()
        });
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect()).unwrap()
    }

    /// The pieces of a table of so many batches; the last is what `finish` gives.
    fn pieces(format: Format, batch: &RecordBatch, count: usize) -> Vec<Bytes> {
        let mut writer = Writer::new(format, &batch.schema()).unwrap();
        let mut pieces: Vec<Bytes> = (0..count).map(|_| writer.push(batch).unwrap()).collect();
        pieces.push(writer.finish().unwrap());
        pieces
    }

    fn text(format: Format, count: usize) -> String {
        String::from_utf8(pieces(format, &batch(), count).concat()).unwrap()
    }

    fn from_parquet(bytes: Vec<u8>) -> Result<RecordBatch, WriteError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))?;
        let schema = reader.schema().clone();
        let batches: Vec<RecordBatch> = reader.build()?.collect::<Result<_, ArrowError>>()?;
        Ok(concat_batches(&schema, &batches)?)
    }

    fn from_arrow(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
        let reader = StreamReader::try_new(bytes, None)?;
        let schema = reader.schema();
        let batches: Vec<RecordBatch> = reader.collect::<Result<_, ArrowError>>()?;
        concat_batches(&schema, &batches)
    }

    #[test]
    fn binary_tables_come_back_with_their_types() {
        let twice = concat_batches(&batch().schema(), [&batch(), &batch()]).unwrap();
        assert_eq!(from_parquet(pieces(Format::Parquet, &batch(), 2).concat()).unwrap(), twice);
        assert_eq!(from_arrow(&pieces(Format::Arrow, &batch(), 2).concat()).unwrap(), twice);
        let none = batch().slice(0, 0);
        assert_eq!(from_parquet(pieces(Format::Parquet, &batch(), 0).concat()).unwrap(), none);
        assert_eq!(from_arrow(&pieces(Format::Arrow, &batch(), 0).concat()).unwrap(), none);
    }

    #[test]
    fn lines_of_json_hold_json() {
        let line = r#"{"id":"a,\"b\"\n","n":-9223372036854775808,"f":0.25,"b":false,"t":"2026-01-02T03:04:05.25Z","e":[0.1,-2.0],"j":{"k":[null]}}"#;
        let nulls = r#"{"id":"","n":null,"f":null,"b":null,"t":null,"e":null,"j":null}"#;
        assert_eq!(text(Format::Ndjson, 1), format!("{line}\n{nulls}\n"));
        assert_eq!(text(Format::Ndjson, 0), "");
        assert_eq!(text(Format::Json, 2), format!("[\n{line},\n{nulls},\n{line},\n{nulls}\n]\n"));
        assert_eq!(text(Format::Json, 0), "[]\n");
    }

    #[test]
    fn csv_tells_null_from_empty_text() {
        let header = "id,n,f,b,t,e,j\n";
        let row = "\"a,\"\"b\"\"\n\",-9223372036854775808,0.25,false,2026-01-02T03:04:05.25Z,\"[0.1,-2.0]\",\"{\"\"k\"\":[null]}\"\n";
        assert_eq!(text(Format::Csv, 1), format!("{header}{row}\"\",,,,,,\n"));
        assert_eq!(text(Format::Csv, 0), header);
    }

    /// A slice of a batch writes its own rows, in lists as well.
    #[test]
    fn slices_are_written_as_they_are() {
        let whole = concat_batches(&batch().schema(), [&batch(), &batch()]).unwrap();
        let lines = |batch: &RecordBatch| pieces(Format::Ndjson, batch, 1).concat();
        assert_eq!(lines(&whole.slice(2, 1)), lines(&batch().slice(0, 1)));
        assert_eq!(
            lines(&whole.slice(1, 2)),
            [lines(&batch().slice(1, 1)), lines(&batch().slice(0, 1))].concat()
        );
    }

    #[test]
    fn what_was_cut_off_shows_it() {
        for format in [Format::Parquet, Format::Arrow, Format::Json] {
            let whole = pieces(format, &batch(), 3);
            let cut = whole[..3].concat();
            assert!(!whole[3].is_empty(), "{format:?}");
            match format {
                Format::Parquet => assert!(from_parquet(cut).is_err()),
                // A reader takes the end of the bytes for the end of the stream, unless it looks.
                Format::Arrow => assert_eq!(whole[3][..], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
                _ => assert!(serde_json::from_slice::<serde_json::Value>(&cut).is_err()),
            }
        }
    }

    #[test]
    fn little_is_held_back() {
        let mut writer = Writer::new(Format::Parquet, &batch().schema()).unwrap();
        let many = concat_batches(&batch().schema(), &vec![batch(); 2000]).unwrap();
        let mut sent = 0;
        let (mut rows, mut longest) = (0, 0);
        while sent < 3 {
            let bytes = writer.push(&many).unwrap();
            rows += many.num_rows();
            longest = longest.max(bytes.len());
            sent += usize::from(!bytes.is_empty());
        }
        assert!(rows <= 3 * ROW_GROUP_ROWS + many.num_rows(), "{rows} rows for three pieces");
        assert!(longest <= ROW_GROUP_BYTES + (1 << 20), "{longest} bytes at once");
    }
}
