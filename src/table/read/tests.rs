use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::DataType;
use parquet::arrow::ArrowWriter;

use super::*;

fn text(bytes: &str) -> Source {
    Source::Stream(Box::new(io::Cursor::new(bytes.to_owned().into_bytes())))
}

fn read(format: Format, bytes: &str, max_rows: usize) -> (Vec<RecordBatch>, Option<ReadError>) {
    let mut read = Vec::new();
    match batches(format, text(bytes), max_rows) {
        Err(error) => return (read, Some(error)),
        Ok(batches) => {
            for batch in batches {
                match batch {
                    Ok(batch) => read.push(batch),
                    Err(error) => return (read, Some(error)),
                }
            }
        }
    }
    (read, None)
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn cells(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|cell| cell.map(str::to_owned)).collect()
}

fn some(cells: &[&str]) -> Vec<Option<String>> {
    cells.iter().map(|cell| Some((*cell).to_owned())).collect()
}

fn sample(rows: i64) -> RecordBatch {
    let ids: StringArray = (0..rows).map(|row| Some(format!("e{row}"))).collect();
    let numbers: Int64Array = (0..rows).map(Some).collect();
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("n", Arc::new(numbers) as ArrayRef)])
        .unwrap()
}

fn arrow_bytes(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn csv_is_texts_with_nulls_where_fields_are_empty() {
    let (batches, error) = read(Format::Csv, "\u{feff}id,a,b\r\n1,,\"x,\ny\"\r\n2,7,\"q\"\"q\"\n", 10);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(cells(&batches[0], "id"), some(&["1", "2"]));
    assert_eq!(cells(&batches[0], "a"), [None, Some("7".to_owned())]);
    assert_eq!(cells(&batches[0], "b"), some(&["x,\ny", "q\"q"]));
    assert_eq!(Cells::of(batches[0].schema().field(1)), Cells::Text);
}

#[test]
fn rows_before_a_broken_place_are_read_and_the_place_is_named() {
    let (batches, error) = read(Format::Csv, "id,a\n1,2\n2,3\n3\n4,5\n", 10);
    assert_eq!(rows(&batches), 2);
    assert_eq!(error.unwrap().to_string(), "line 4: 1 fields where the line of names has 2");
    let (batches, error) = read(Format::Ndjson, "{\"id\":1}\n\n{\"id\":2}\n{\"id\":\n{}", 10);
    assert_eq!(rows(&batches), 2);
    let text = error.unwrap().to_string();
    assert!(text.starts_with("line 4: EOF while parsing"), "{text}");
    let (batches, error) = read(Format::Json, "[{\"id\":1}, {\"id\":2} {", 1);
    assert_eq!(rows(&batches), 2);
    assert_eq!(error.unwrap().to_string(), "byte 20: expected a comma or the end of the array");
}

#[test]
fn objects_need_not_have_the_same_members() {
    let lines = "{\"id\":\"1\",\"a\":1.50}\n{\"b\":null,\"id\":\"2\"}\n{\"a\":[1, 2],\"id\":\"}\\\"\"}";
    let array = format!(" [{}] ", lines.replace('\n', ","));
    for (format, bytes) in [(Format::Ndjson, lines), (Format::Json, array.as_str())] {
        let (batches, error) = read(format, bytes, 10);
        assert!(error.is_none(), "{error:?}");
        let [batch] = batches.as_slice() else { panic!("one batch") };
        assert_eq!(cells(batch, "id"), some(&["\"1\"", "\"2\"", "\"}\\\"\""]));
        assert_eq!(cells(batch, "a"), [Some("1.50".to_owned()), None, Some("[1, 2]".to_owned())]);
        assert_eq!(cells(batch, "b"), [None, Some("null".to_owned()), None]);
    }
}

#[test]
fn what_is_no_table_is_refused() {
    for (format, bytes, wanted) in [
        (Format::Csv, "", "the CSV has no line of column names"),
        (Format::Csv, "a,a\n1,2\n", "the column \"a\" is there twice"),
        (Format::Ndjson, "{\"a\":1,\"a\":2}", "line 1: \"a\" is given twice"),
        (Format::Ndjson, "[1]", "line 1: invalid type"),
        (Format::Json, "{}", "byte 0: expected an array of objects"),
        (Format::Json, "[1]", "byte 1: expected an object"),
        (Format::Json, "[{\"a\":1", "byte 7: expected the rest"),
        (Format::Json, "[]]", "byte 2: expected nothing"),
        (Format::Arrow, "ARROW1\0\0", "this is an Arrow file"),
        (Format::Arrow, "not arrow at all, whatever", "the data is not readable"),
        (Format::Arrow, "", "the Arrow stream has no schema"),
    ] {
        let (batches, error) = read(format, bytes, 10);
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(batches.is_empty() && text.starts_with(wanted), "{format:?} {bytes:?}: {text:?}");
    }
    let parquet = batches(Format::Parquet, Source::Bytes(Bytes::from_static(b"PAR1nonsensePAR1")), 10);
    assert!(matches!(parquet.err(), Some(ReadError::Malformed(_))));
}

#[test]
fn a_row_without_end_is_refused_before_it_fills_the_memory() {
    let endless = || Source::Stream(Box::new(io::Cursor::new(b"a\n\"".to_vec()).chain(io::repeat(b'x'))));
    let error = batches(Format::Csv, endless(), 10).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a row is longer than 16 MiB");
    let endless = || Source::Stream(Box::new(io::repeat(b'{')));
    for (format, wanted) in [(Format::Ndjson, "line 1: longer"), (Format::Json, "byte 0: expected")] {
        let error = batches(format, endless(), 10).unwrap().next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
    let endless = Source::Stream(Box::new(io::Cursor::new(b"[".to_vec()).chain(io::repeat(b'{'))));
    let error = batches(Format::Json, endless, 10).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().ends_with("longer than 16 MiB"), "{error}");
    // A message that says it has two gigabytes.
    let lying = [0xff, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0x7f];
    let endless = Source::Stream(Box::new(io::Cursor::new(lying.to_vec()).chain(io::repeat(0))));
    let error = batches(Format::Arrow, endless, 10).err().unwrap();
    assert!(error.to_string().contains("larger than 256 MiB"), "{error}");
}

#[test]
fn columnar_batches_are_cut_and_put_together() {
    let all = sample(1000);
    let mut parquet = ArrowWriter::try_new(Vec::new(), all.schema(), None).unwrap();
    parquet.write(&all).unwrap();
    let parquet = parquet.into_inner().unwrap();
    let small: Vec<RecordBatch> = (0..100).map(|part| all.slice(part * 10, 10)).collect();
    for (format, bytes) in [
        (Format::Parquet, parquet),
        (Format::Arrow, arrow_bytes(std::slice::from_ref(&all))),
        (Format::Arrow, arrow_bytes(&small)),
    ] {
        let read: Vec<RecordBatch> = batches(format, Source::Bytes(bytes.clone().into()), 300)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let sizes: Vec<usize> = read.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(sizes, [300, 300, 300, 100], "{format:?}");
        assert_eq!(whole(format, Source::Bytes(bytes.into()), 1000).unwrap(), all);
    }
}

#[test]
fn a_cut_arrow_stream_ends_in_an_error() {
    let bytes = arrow_bytes(&[sample(10), sample(10)]);
    let whole_batches = |cut: usize| {
        let source = Source::Bytes(bytes[..cut].to_vec().into());
        let read: Vec<_> = batches(Format::Arrow, source, 10).into_iter().flatten().collect();
        (read.iter().filter(|batch| batch.is_ok()).count(), read.iter().any(Result::is_err))
    };
    assert_eq!(whole_batches(bytes.len()), (2, false));
    assert_eq!(whole_batches(bytes.len() - 100), (1, true));
}

#[test]
fn a_table_of_texts_gets_types() {
    let csv = "i,f,b,z,s,n\n1,1,true,007,x,\n,2.5,False,8,1,\n-3,1e3,,9,,\n";
    let table = whole(Format::Csv, text(csv), 10).unwrap();
    let types: Vec<DataType> =
        table.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    use DataType::{Boolean, Float64, Int64, Utf8};
    assert_eq!(types, [Int64, Float64, Boolean, Utf8, Utf8, Utf8]);
    let numbers: Vec<_> = table.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(1), None, Some(-3)]);
    let numbers: Vec<_> = table.column(1).as_primitive::<Float64Type>().iter().collect();
    assert_eq!(numbers, [Some(1.0), Some(2.5), Some(1000.0)]);
    let lines = "{\"a\":\"x\\n\",\"b\":1}\n{\"b\":null,\"c\":1.5}\n";
    let table = whole(Format::Ndjson, text(lines), 10).unwrap();
    assert_eq!(cells(&table, "a"), [Some("x\n".to_owned()), None]);
    assert_eq!(table.column(1).data_type(), &Int64);
    assert_eq!(table.column(2).data_type(), &Float64);
    assert!(whole(Format::Csv, text(csv), 2).is_err());
    let empty = whole(Format::Csv, text("a,b\n"), 10).unwrap();
    assert_eq!((empty.num_columns(), empty.num_rows()), (2, 0));
}
