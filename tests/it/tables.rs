//! Tables in every format.

use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use arrow_ipc::writer::StreamWriter;
use feature_store::domain::time::Timestamp;
use feature_store::table::Format;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

pub const DIMENSION: usize = 4;

/// The schema of [`products`].
pub fn schema() -> Value {
    json!({"schema_mode": "strict", "ttl": "never", "features": {
        "price": {"type": "float64", "minimum": 0},
        "stock": {"type": "int64"},
        "name": {"type": "string"},
        "active": {"type": "boolean"},
        "seen": {"type": "timestamp"},
        "vector": {"type": "embedding", "dimension": DIMENSION},
        "tags": {"type": "json"}}})
}

/// So many rows of products; row `i` is of the entity `i` and of `i` seconds before `until`. Every
/// seventh price is null.
pub fn products(rows: usize, until: Timestamp) -> Vec<Value> {
    let time = |row: usize| {
        Timestamp::from_millis(until.as_millis() - row as i64 * 1000)
            .expect("a time in the calendar")
            .to_string()
    };
    let row = |row: usize| {
        json!({
            "entity_id": row.to_string(),
            "event_timestamp": time(row),
            "price": if row % 7 == 3 { Value::Null } else { json!(row as f64 + 0.25) },
            "stock": row as i64 - 5,
            "name": format!("a \"name\", {row}\nwith all"),
            "active": row.is_multiple_of(2),
            "seen": time(row + 1),
            "vector": (0..DIMENSION).map(|place| (row * 10 + place) as f32 / 8.0).collect::<Vec<_>>(),
            "tags": {"row": row, "of": ["x", null]}})
    };
    (0..rows).map(row).collect()
}

fn record_batch(rows: &[Value]) -> RecordBatch {
    let text = |name: &str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row[name].as_str().map(str::to_owned)).collect::<StringArray>())
    };
    let micros = |name: &str| {
        rows.iter()
            .map(|row| row[name].as_str().map(|text| Timestamp::parse(text).unwrap().as_micros()))
            .collect::<Vec<_>>()
    };
    let mut vectors = FixedSizeListBuilder::new(Float32Builder::new(), DIMENSION as i32);
    for row in rows {
        for number in row["vector"].as_array().unwrap() {
            vectors.values().append_value(number.as_f64().unwrap() as f32);
        }
        vectors.append(true);
    }
    let nanos = micros("seen").into_iter().map(|at| at.map(|at| at * 1000));
    let columns: [(&str, ArrayRef); 9] = [
        ("entity_id", text("entity_id")),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(micros("event_timestamp")).with_timezone("UTC")),
        ),
        ("price", Arc::new(rows.iter().map(|row| row["price"].as_f64()).collect::<Float64Array>())),
        ("stock", Arc::new(rows.iter().map(|row| row["stock"].as_i64()).collect::<Int64Array>())),
        ("name", text("name")),
        ("active", Arc::new(rows.iter().map(|row| row["active"].as_bool()).collect::<BooleanArray>())),
        ("seen", Arc::new(nanos.collect::<TimestampNanosecondArray>())),
        ("vector", Arc::new(vectors.finish())),
        ("tags", Arc::new(rows.iter().map(|row| Some(row["tags"].to_string())).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
}

/// The rows of [`products`] as bytes.
pub fn encode(format: Format, rows: &[Value]) -> Vec<u8> {
    match format {
        Format::Json => serde_json::to_vec(rows).unwrap(),
        Format::Ndjson => rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect(),
        Format::Csv => csv(rows),
        Format::Parquet => parquet(&record_batch(rows)),
        Format::Arrow => arrow(&record_batch(rows)),
    }
}

pub fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

pub fn arrow(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// Objects with the members of the first one as CSV.
pub fn csv(rows: &[Value]) -> Vec<u8> {
    let names: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&names).unwrap();
    for row in rows {
        let cells = names.iter().map(|name| match &row[name.as_str()] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        writer.write_record(cells).unwrap();
    }
    writer.into_inner().unwrap()
}
