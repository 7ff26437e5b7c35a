//! The bytes in which a record is stored.
//!
//! ```text
//! version        1–9 bytes, ordered, so that equal scores of a sorted set stand in version order
//! format | kind  1 byte: the format number (high half) and the kind of value (low half)
//! flags          1 byte: which of the following are there, and in which unit
//! event time     signed varint, in the coarsest exact unit (absent where it is the sort key)
//! written at     signed varint, milliseconds after the event (absent where equal)
//! expiry         varint, seconds or milliseconds after the write (current records, absent: never)
//! first version  varint, how many versions earlier (current records, absent: this one)
//! provenance     varint
//! value          the rest
//! ```
//! A scalar of a fresh write takes about 20 bytes. Decoding is total: any bytes give a record or a
//! [`CorruptEnvelope`], never a panic.

use std::sync::Arc;

use super::provenance::ProvenanceId;
use super::record::{Current, Record};
use super::time::Timestamp;
use super::value::Value;
use super::varint::{
    put_ordered, put_signed, put_unsigned, take_byte, take_ordered, take_signed, take_unsigned,
};

const FORMAT: u8 = 1;

mod kind {
    pub const DELETED: u8 = 0;
    pub const NULL: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const TRUE: u8 = 3;
    pub const INT: u8 = 4;
    pub const FLOAT: u8 = 5;
    /// A float64 that is exactly a float32.
    pub const FLOAT_SHORT: u8 = 6;
    /// A float64 that is exactly a whole number.
    pub const FLOAT_WHOLE: u8 = 7;
    pub const STRING: u8 = 8;
    pub const TIMESTAMP: u8 = 9;
    pub const EMBEDDING: u8 = 10;
    pub const JSON: u8 = 11;
}

mod flag {
    /// Two bits: the unit of the event time.
    pub const EVENT_UNIT: u8 = 0b11;
    pub const SECONDS: u8 = 0;
    pub const MILLIS: u8 = 1;
    pub const MICROS: u8 = 2;
    /// The event time is kept outside, as the sort key of the history.
    pub const OUTSIDE: u8 = 3;
    pub const WRITTEN_AT: u8 = 1 << 2;
    pub const EXPIRES: u8 = 1 << 3;
    pub const EXPIRY_IN_MILLIS: u8 = 1 << 4;
    pub const FIRST_VERSION: u8 = 1 << 5;
    /// None of these has a meaning yet.
    pub const UNKNOWN: u8 = 0b1100_0000;
}

/// Why stored bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CorruptEnvelope {
    #[error("the envelope ends too soon")]
    Truncated,
    #[error("the envelope has the unknown format {0}")]
    UnknownFormat(u8),
    #[error("the envelope has unknown flags {0:#010b}")]
    UnknownFlags(u8),
    #[error("the envelope has the unknown kind of value {0}")]
    UnknownKind(u8),
    #[error("the envelope's {0} is out of range")]
    OutOfRange(&'static str),
    #[error("the envelope's text is not UTF-8")]
    NotUtf8,
    #[error("the envelope's embedding is not whole numbers of float32")]
    RaggedEmbedding,
}

/// The bytes of a current record.
pub fn encode_current(current: &Current) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(&current.record));
    let mut flags = event_unit(current.record.event_timestamp);
    let mut expiry = 0;
    if let Some(expires_at) = current.expires_at {
        flags |= flag::EXPIRES;
        let millis = (expires_at.as_millis() - current.record.written_at.as_millis()).max(0);
        if millis % 1000 == 0 {
            expiry = millis / 1000;
        } else {
            flags |= flag::EXPIRY_IN_MILLIS;
            expiry = millis;
        }
    }
    let earlier = current.record.version.saturating_sub(current.first_version);
    if earlier > 0 {
        flags |= flag::FIRST_VERSION;
    }
    put_record(&mut out, &current.record, flags, |out| {
        if flags & flag::EXPIRES != 0 {
            put_unsigned(out, expiry as u64);
        }
        if earlier > 0 {
            put_unsigned(out, earlier);
        }
    });
    out
}

/// The bytes of a superseded record, whose event time is the sort key of the history it goes into
/// and is kept there alone, unless a float64 sort key would not hold it exactly.
pub fn encode_superseded(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(record));
    let unit = if exact_as_float(record.event_timestamp) {
        flag::OUTSIDE
    } else {
        event_unit(record.event_timestamp)
    };
    put_record(&mut out, record, unit, |_| ());
    out
}

/// Reads what [`encode_current`] wrote.
pub fn decode_current(bytes: &[u8]) -> Result<Current, CorruptEnvelope> {
    let decoded = take_record(bytes, None)?;
    Ok(Current {
        expires_at: decoded.expires_at,
        first_version: decoded.record.version.saturating_sub(decoded.versions_since_first),
        record: decoded.record,
    })
}

/// Reads what [`encode_superseded`] wrote, with the sort key it was stored under.
pub fn decode_superseded(sort_key: Timestamp, bytes: &[u8]) -> Result<Record, CorruptEnvelope> {
    take_record(bytes, Some(sort_key)).map(|decoded| decoded.record)
}

fn exact_as_float(time: Timestamp) -> bool {
    time.as_micros().unsigned_abs() <= 1 << 53
}

fn capacity(record: &Record) -> usize {
    24 + match &record.value {
        Some(Value::String(text) | Value::Json(text)) => text.len(),
        Some(Value::Embedding(numbers)) => numbers.len() * 4,
        _ => 8,
    }
}

fn event_unit(time: Timestamp) -> u8 {
    match time.as_micros() {
        micros if micros % 1_000_000 == 0 => flag::SECONDS,
        micros if micros % 1000 == 0 => flag::MILLIS,
        _ => flag::MICROS,
    }
}

fn put_record(out: &mut Vec<u8>, record: &Record, mut flags: u8, extra: impl FnOnce(&mut Vec<u8>)) {
    put_ordered(out, record.version);
    out.push(FORMAT << 4 | kind_of(record.value.as_ref()));
    let delay = record.written_at.as_millis() - record.event_timestamp.as_millis();
    let exact = delay == 0 && record.written_at == record.event_timestamp;
    if !exact {
        flags |= flag::WRITTEN_AT;
    }
    out.push(flags);
    let micros = record.event_timestamp.as_micros();
    match flags & flag::EVENT_UNIT {
        flag::SECONDS => put_signed(out, micros / 1_000_000),
        flag::MILLIS => put_signed(out, micros / 1000),
        flag::MICROS => put_signed(out, micros),
        _ => {}
    }
    if !exact {
        put_signed(out, delay);
    }
    extra(out);
    put_unsigned(out, record.provenance.0);
    put_value(out, record.value.as_ref());
}

fn kind_of(value: Option<&Value>) -> u8 {
    match value {
        None => kind::DELETED,
        Some(Value::Null) => kind::NULL,
        Some(Value::Boolean(false)) => kind::FALSE,
        Some(Value::Boolean(true)) => kind::TRUE,
        Some(Value::Int64(_)) => kind::INT,
        Some(Value::Float64(number)) if whole(*number) => kind::FLOAT_WHOLE,
        Some(Value::Float64(number)) if f64::from(*number as f32) == *number => kind::FLOAT_SHORT,
        Some(Value::Float64(_)) => kind::FLOAT,
        Some(Value::String(_)) => kind::STRING,
        Some(Value::Timestamp(_)) => kind::TIMESTAMP,
        Some(Value::Embedding(_)) => kind::EMBEDDING,
        Some(Value::Json(_)) => kind::JSON,
    }
}

/// Short enough as a varint to beat four bytes of float32, exact, and not the negative zero.
fn whole(number: f64) -> bool {
    number.fract() == 0.0
        && number.abs() < f64::from(1 << 20)
        && !(number == 0.0 && number.is_sign_negative())
}

fn put_value(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None | Some(Value::Null | Value::Boolean(_)) => {}
        Some(Value::Int64(number)) => put_signed(out, *number),
        Some(Value::Float64(number)) => match kind_of(value) {
            kind::FLOAT_WHOLE => put_signed(out, *number as i64),
            kind::FLOAT_SHORT => out.extend_from_slice(&(*number as f32).to_le_bytes()),
            _ => out.extend_from_slice(&number.to_le_bytes()),
        },
        Some(Value::String(text) | Value::Json(text)) => out.extend_from_slice(text.as_bytes()),
        Some(Value::Timestamp(time)) => put_signed(out, time.as_micros()),
        Some(Value::Embedding(numbers)) => {
            for number in numbers.iter() {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

struct Decoded {
    record: Record,
    expires_at: Option<Timestamp>,
    versions_since_first: u64,
}

fn take_record(mut bytes: &[u8], sort_key: Option<Timestamp>) -> Result<Decoded, CorruptEnvelope> {
    use CorruptEnvelope::{OutOfRange, Truncated};
    let bytes = &mut bytes;
    let version = take_ordered(bytes).ok_or(Truncated)?;
    let head = take_byte(bytes).ok_or(Truncated)?;
    if head >> 4 != FORMAT {
        return Err(CorruptEnvelope::UnknownFormat(head >> 4));
    }
    let flags = take_byte(bytes).ok_or(Truncated)?;
    if flags & flag::UNKNOWN != 0 {
        return Err(CorruptEnvelope::UnknownFlags(flags));
    }
    let scaled = |bytes: &mut &[u8], unit: i64| {
        let count = take_signed(bytes).ok_or(Truncated)?;
        count.checked_mul(unit).and_then(Timestamp::from_micros).ok_or(OutOfRange("event time"))
    };
    let event_timestamp = match flags & flag::EVENT_UNIT {
        flag::SECONDS => scaled(bytes, 1_000_000)?,
        flag::MILLIS => scaled(bytes, 1000)?,
        flag::MICROS => scaled(bytes, 1)?,
        _ => sort_key.ok_or(OutOfRange("event time"))?,
    };
    let written_at = if flags & flag::WRITTEN_AT == 0 {
        event_timestamp
    } else {
        let delay = take_signed(bytes).ok_or(Truncated)?;
        let millis = event_timestamp.as_millis().checked_add(delay);
        millis.and_then(Timestamp::from_millis).ok_or(OutOfRange("write time"))?
    };
    let expires_at = if flags & flag::EXPIRES == 0 {
        None
    } else {
        let count = take_unsigned(bytes).ok_or(Truncated)?;
        let unit = if flags & flag::EXPIRY_IN_MILLIS == 0 { 1000 } else { 1 };
        let millis = i64::try_from(count).ok().and_then(|count| count.checked_mul(unit));
        let at = millis.and_then(|millis| millis.checked_add(written_at.as_millis()));
        Some(at.and_then(Timestamp::from_millis).ok_or(OutOfRange("expiry"))?)
    };
    let versions_since_first =
        if flags & flag::FIRST_VERSION == 0 { 0 } else { take_unsigned(bytes).ok_or(Truncated)? };
    let provenance = ProvenanceId(take_unsigned(bytes).ok_or(Truncated)?);
    let value = take_value(head & 0x0f, bytes)?;
    Ok(Decoded {
        record: Record { value, event_timestamp, written_at, version, provenance },
        expires_at,
        versions_since_first,
    })
}

fn take_value(kind: u8, bytes: &mut &[u8]) -> Result<Option<Value>, CorruptEnvelope> {
    use CorruptEnvelope::{NotUtf8, OutOfRange, Truncated};
    let finite = |number: f64| {
        if number.is_finite() { Ok(Value::Float64(number)) } else { Err(OutOfRange("number")) }
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(Arc::<str>::from).map_err(|_| NotUtf8);
    Ok(Some(match kind {
        kind::DELETED => return Ok(None),
        kind::NULL => Value::Null,
        kind::FALSE => Value::Boolean(false),
        kind::TRUE => Value::Boolean(true),
        kind::INT => Value::Int64(take_signed(bytes).ok_or(Truncated)?),
        kind::FLOAT_WHOLE => Value::Float64(take_signed(bytes).ok_or(Truncated)? as f64),
        kind::FLOAT_SHORT => finite(f64::from(f32::from_le_bytes(*bytes.first_chunk().ok_or(Truncated)?)))?,
        kind::FLOAT => finite(f64::from_le_bytes(*bytes.first_chunk().ok_or(Truncated)?))?,
        kind::STRING => Value::String(text(bytes)?),
        kind::TIMESTAMP => {
            let micros = take_signed(bytes).ok_or(Truncated)?;
            Value::Timestamp(Timestamp::from_micros(micros).ok_or(OutOfRange("timestamp"))?)
        }
        kind::EMBEDDING => {
            let (numbers, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(CorruptEnvelope::RaggedEmbedding);
            }
            let numbers: Arc<[f32]> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if numbers.iter().any(|number| !number.is_finite()) {
                return Err(OutOfRange("number"));
            }
            Value::Embedding(numbers)
        }
        kind::JSON => Value::Json(text(bytes)?),
        other => return Err(CorruptEnvelope::UnknownKind(other)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times() -> impl Strategy<Value = Timestamp> {
        let any_time = Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros();
        (any_time, prop_oneof![Just(1i64), Just(1000), Just(1_000_000)])
            .prop_filter_map("in range", |(micros, unit)| Timestamp::from_micros(micros / unit * unit))
    }

    fn values() -> impl Strategy<Value = Option<Value>> {
        prop_oneof![
            Just(None),
            Just(Some(Value::Null)),
            any::<bool>().prop_map(|b| Some(Value::Boolean(b))),
            any::<i64>().prop_map(|n| Some(Value::Int64(n))),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| Some(Value::Float64(n))),
            any::<f32>()
                .prop_filter("finite", |n| n.is_finite())
                .prop_map(|n| Some(Value::Float64(n.into()))),
            (-2_000_000i32..2_000_000).prop_map(|n| Some(Value::Float64(n.into()))),
            ".*".prop_map(|text| Some(Value::String(text.into()))),
            times().prop_map(|time| Some(Value::Timestamp(time))),
            proptest::collection::vec(-1e30f32..1e30, 0..40).prop_map(|n| Some(Value::Embedding(n.into()))),
            Just(Some(Value::Json("{\"a\":[1]}".into()))),
        ]
    }

    prop_compose! {
        fn currents()(
            value in values(),
            event_timestamp in times(),
            delay in prop_oneof![Just(None), (-1_000_000i64..1_000_000_000_000).prop_map(Some)],
            ttl in proptest::option::of(prop_oneof![1i64..10_000_000, (1i64..100_000).prop_map(|s| s * 1000)]),
            version in 1u64..1 << 40,
            earlier in 0u64..100,
            provenance in any::<u64>(),
        ) -> Option<Current> {
            let written_at = match delay {
                None => Timestamp::from_millis(event_timestamp.as_millis())?,
                Some(delay) => Timestamp::from_millis(event_timestamp.as_millis() + delay)?,
            };
            let expires_at = match ttl {
                None => None,
                Some(ttl) => Some(Timestamp::from_millis(written_at.as_millis() + ttl)?),
            };
            let record = Record { value, event_timestamp, written_at, version, provenance: ProvenanceId(provenance) };
            Some(Current { record, expires_at, first_version: version.saturating_sub(earlier).max(1) })
        }
    }

    proptest! {
        #[test]
        fn records_survive(current in currents().prop_filter_map("in range", |c| c)) {
            prop_assert_eq!(&decode_current(&encode_current(&current)).unwrap(), &current);
            let record = current.record;
            // What a sorted set keeps of the event time: a float64.
            let kept = Timestamp::from_micros(record.event_timestamp.as_micros() as f64 as i64).unwrap_or(Timestamp::MAX);
            prop_assert_eq!(decode_superseded(kept, &encode_superseded(&record)).unwrap(), record);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_current(&bytes);
            let _ = decode_superseded(Timestamp::MIN, &bytes);
        }

        #[test]
        fn damaged_envelopes_are_read_or_refused(
            current in currents().prop_filter_map("in range", |c| c),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode_current(&current);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_current(&bytes);
            let _ = decode_current(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn a_fresh_scalar_is_small() {
        let now = Timestamp::parse("2026-01-02T03:04:05.678Z").unwrap();
        let record = Record {
            value: Some(Value::Float64(999.99)),
            event_timestamp: now,
            written_at: now,
            version: 7,
            provenance: ProvenanceId(3),
        };
        assert_eq!(encode_superseded(&record).len(), 12);
        let current = Current {
            record,
            expires_at: Timestamp::from_millis(now.as_millis() + 3_600_000),
            first_version: 7,
        };
        assert_eq!(encode_current(&current).len(), 20);
    }
}
