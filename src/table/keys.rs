//! Columns that say which entity, and when.

use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampMicrosecondType, TimestampNanosecondType};
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};

use crate::domain::time::Timestamp;

/// Entity ids: text, or whole numbers as their digits. The error says what the column is instead.
pub fn ids(column: &ArrayRef) -> Result<StringArray, String> {
    let of_ids = |data_type: &DataType| {
        data_type.is_integer() || data_type.is_string() || matches!(data_type, DataType::Null)
    };
    let ok = match column.data_type() {
        DataType::Dictionary(_, values) => of_ids(values),
        data_type => of_ids(data_type),
    };
    if !ok {
        return Err(format!("must be text or whole numbers, not {}", column.data_type()));
    }
    let texts = cast(column, &DataType::Utf8).map_err(|error| error.to_string())?;
    Ok(texts.as_string::<i32>().clone())
}

/// Points in time: timestamps (without a time zone: in UTC), dates, or RFC 3339 texts. The error
/// says what the column is instead; a cell that is none is one as well.
pub fn times(column: &ArrayRef) -> Result<Vec<Option<Result<Timestamp, String>>>, String> {
    match column.data_type() {
        // A cast would cut off towards 1970, and what is earlier than that would become later.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let nanos = column.as_primitive::<TimestampNanosecondType>().iter();
            Ok(nanos.map(|cell| cell.map(|nanos| instant(nanos.div_euclid(1000)))).collect())
        }
        DataType::Timestamp(_, zone) => {
            let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
            micros.map(|micros| instants(&micros)).map_err(|error| error.to_string())
        }
        DataType::Date32 | DataType::Date64 => {
            let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None));
            micros.map(|micros| instants(&micros)).map_err(|error| error.to_string())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            let texts = cast(column, &DataType::Utf8).map_err(|error| error.to_string())?;
            let parse = |text: &str| Timestamp::parse(text).map_err(|error| error.to_string());
            Ok(texts.as_string::<i32>().iter().map(|text| text.map(parse)).collect())
        }
        other => Err(format!("must be timestamps, or RFC 3339 texts, not {other}")),
    }
}

fn instants(micros: &ArrayRef) -> Vec<Option<Result<Timestamp, String>>> {
    micros.as_primitive::<TimestampMicrosecondType>().iter().map(|cell| cell.map(instant)).collect()
}

fn instant(micros: i64) -> Result<Timestamp, String> {
    Timestamp::from_micros(micros).ok_or_else(|| "is not from year 0000 to 9999-12-30T22:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        Date32Array, DictionaryArray, Float64Array, Int32Array, Int64Array, TimestampNanosecondArray,
    };

    use super::*;

    #[test]
    fn ids_are_text_or_whole_numbers() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        assert_eq!(ids(&column).unwrap(), StringArray::from(vec![Some("7"), None]));
        let column: ArrayRef = Arc::new(DictionaryArray::new(
            Int32Array::from(vec![1, 0]),
            Arc::new(StringArray::from(vec!["a", "b"])),
        ));
        assert_eq!(ids(&column).unwrap(), StringArray::from(vec!["b", "a"]));
        let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(ids(&column).unwrap_err().contains("Float64"));
    }

    #[test]
    fn times_come_in_several_forms() {
        let at = |text: &str| Some(Ok(Timestamp::parse(text).unwrap()));
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(1_500), None, Some(-1)]));
        let expected = [at("1970-01-01T00:00:00.000001Z"), None, at("1969-12-31T23:59:59.999999Z")];
        assert_eq!(times(&nanos).unwrap(), expected);
        let zoned: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![1_500]).with_timezone("Europe/Berlin"));
        assert_eq!(times(&zoned).unwrap(), [at("1970-01-01T00:00:00.000001Z")]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        assert_eq!(times(&days).unwrap(), [at("1970-01-02T00:00:00Z")]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["2026-01-02 03:04:05+01:00", "monday"]));
        let times_of_texts = times(&texts).unwrap();
        assert_eq!(times_of_texts[0], at("2026-01-02T02:04:05Z"));
        assert!(times_of_texts[1].as_ref().unwrap().is_err());
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert!(times(&numbers).is_err());
    }
}
