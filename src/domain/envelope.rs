//! The bytes in which a record is stored.
//!
//! ```text
//! version        1–9 bytes, ordered, so that equal scores of a sorted set stand in version order
//! format | kind  1 byte: the format number (high half) and the kind of value (low half)
//! flags          1 byte: which of the following are there, and in which unit
//! written at     signed varint, milliseconds after the base (absent where equal)
//! event time     signed varint, before the write, in the coarsest exact unit (absent where given)
//! expiry         varint, a span after the write with its unit (current records, absent: never)
//! first version  varint, how many versions earlier (current records, absent: this one)
//! provenance     varint
//! retraction     superseded records whose run was undone: varint, how many versions later; signed
//!                varint, milliseconds after the write; varint, the provenance of the undo; the same
//!                again of what reinstated it, relative to that, or a zero
//! value          the rest
//! ```
//! The base of a current record is the creation of its entity, which every load reads with the
//! entity's head: most entities are young when they are written, or all written at once. The base
//! of a superseded record is the sort key of its history, which is its event time. A float64 of a
//! fresh write takes 15 bytes, 7 of them beside the value. Decoding is total: any bytes give a
//! record or a [`CorruptEnvelope`], never a panic.

mod retraction;
mod value;

use self::retraction::{put_retraction, take_retraction};
use self::value::{put_value, take_value};
use super::provenance::ProvenanceId;
use super::record::{Current, Record};
use super::time::Timestamp;
use super::value::Value;
use super::varint::{
    put_ordered, put_signed, put_unsigned, take_byte, take_ordered, take_signed, take_unsigned,
};

const FORMAT: u8 = 2;

mod flag {
    /// Two bits: the unit of the event time.
    pub const EVENT_UNIT: u8 = 0b11;
    pub const SECONDS: u8 = 0;
    pub const MILLIS: u8 = 1;
    pub const MICROS: u8 = 2;
    /// Current records: the time of the write. Superseded ones: the sort key.
    pub const GIVEN: u8 = 3;
    pub const WRITTEN_AT: u8 = 1 << 2;
    pub const EXPIRES: u8 = 1 << 3;
    pub const FIRST_VERSION: u8 = 1 << 4;
    pub const RETRACTED: u8 = 1 << 5;
    /// None of these has a meaning yet.
    pub const UNKNOWN: u8 = 0b1100_0000;
}

/// The units of an expiry, in milliseconds: a ttl is mostly a whole number of hours or days.
const SPANS: [u64; 4] = [1, 1000, 3_600_000, 86_400_000];

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
    #[error("the envelope's embedding has a broken length")]
    RaggedEmbedding,
}

/// The bytes of a current record of an entity that was created at `base`.
pub fn encode_current(current: &Current, base: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(&current.record));
    put_current(&mut out, current, base);
    out
}

/// Appends what [`encode_current`] gives.
pub fn put_current(out: &mut Vec<u8>, current: &Current, base: Timestamp) {
    let record = &current.record;
    let event_is_given = record.event_timestamp == record.written_at;
    let mut flags = if event_is_given { flag::GIVEN } else { event_unit(record.event_timestamp) };
    if current.expires_at.is_some() {
        flags |= flag::EXPIRES;
    }
    let earlier = record.version.saturating_sub(current.first_version);
    if earlier > 0 {
        flags |= flag::FIRST_VERSION;
    }
    put_record(out, record, base, flags, |out| {
        if let Some(expires_at) = current.expires_at {
            put_span(out, (expires_at.as_millis() - record.written_at.as_millis()).max(0) as u64);
        }
        if earlier > 0 {
            put_unsigned(out, earlier);
        }
    });
}

/// The bytes of a superseded record, whose event time is the sort key of the history it goes into
/// and is kept there alone, unless a float64 sort key would not hold it exactly.
pub fn encode_superseded(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity(record));
    put_superseded(&mut out, record);
    out
}

/// Appends what [`encode_superseded`] gives.
pub fn put_superseded(out: &mut Vec<u8>, record: &Record) {
    let time = record.event_timestamp;
    if exact_as_float(time) {
        put_record(out, record, time, flag::GIVEN, |_| ());
    } else {
        // The base is then known to both sides without the sort key.
        put_record(out, record, Timestamp::EPOCH, event_unit(time), |_| ());
    }
}

/// Reads what [`encode_current`] wrote with the same base.
pub fn decode_current(bytes: &[u8], base: Timestamp) -> Result<Current, CorruptEnvelope> {
    let decoded = take_record(bytes, Times::Current { base })?;
    Ok(Current {
        expires_at: decoded.expires_at,
        first_version: decoded.record.version.saturating_sub(decoded.versions_since_first),
        record: decoded.record,
    })
}

/// Reads what [`encode_superseded`] wrote, with the sort key it was stored under.
pub fn decode_superseded(sort_key: Timestamp, bytes: &[u8]) -> Result<Record, CorruptEnvelope> {
    take_record(bytes, Times::Superseded { sort_key }).map(|decoded| decoded.record)
}

/// Whether a float64 sort key holds this event time exactly.
pub fn exact_as_float(time: Timestamp) -> bool {
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

/// Microseconds in a unit of the event time; `None` for [`flag::GIVEN`].
fn event_step(flags: u8) -> Option<i64> {
    match flags & flag::EVENT_UNIT {
        flag::SECONDS => Some(1_000_000),
        flag::MILLIS => Some(1000),
        flag::MICROS => Some(1),
        _ => None,
    }
}

fn put_record(
    out: &mut Vec<u8>,
    record: &Record,
    base: Timestamp,
    mut flags: u8,
    extra: impl FnOnce(&mut Vec<u8>),
) {
    put_ordered(out, record.version);
    let head = out.len();
    out.push(FORMAT << 4);
    let delay = record.written_at.as_millis() - base.as_millis();
    if delay != 0 {
        flags |= flag::WRITTEN_AT;
    }
    if record.retraction.is_some() {
        flags |= flag::RETRACTED;
    }
    out.push(flags);
    if delay != 0 {
        put_signed(out, delay);
    }
    if let Some(step) = event_step(flags) {
        let written_at = record.written_at.as_micros().div_euclid(step);
        put_signed(out, written_at - record.event_timestamp.as_micros() / step);
    }
    extra(out);
    put_unsigned(out, record.provenance.0);
    if let Some(retraction) = &record.retraction {
        put_retraction(out, record, retraction);
    }
    let kind = put_value(out, record.value.as_ref());
    out[head] |= kind;
}

/// A number of the coarsest exact unit, and which unit that is in its two low bits.
fn put_span(out: &mut Vec<u8>, millis: u64) {
    let exact = SPANS.iter().enumerate().rev().find(|(_, unit)| millis.is_multiple_of(**unit));
    let (unit, length) = exact.unwrap_or((0, &1));
    put_unsigned(out, (millis / length) << 2 | unit as u64);
}

fn take_span(bytes: &mut &[u8]) -> Option<u64> {
    let span = take_unsigned(bytes)?;
    (span >> 2).checked_mul(SPANS[(span & 0b11) as usize])
}

/// What the times of a record are relative to.
#[derive(Clone, Copy)]
enum Times {
    Current { base: Timestamp },
    Superseded { sort_key: Timestamp },
}

struct Decoded {
    record: Record,
    expires_at: Option<Timestamp>,
    versions_since_first: u64,
}

fn take_record(mut bytes: &[u8], times: Times) -> Result<Decoded, CorruptEnvelope> {
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
    let step = event_step(flags);
    let base = match (times, step) {
        (Times::Current { base }, _) => base,
        (Times::Superseded { sort_key }, None) => sort_key,
        (Times::Superseded { .. }, Some(_)) => Timestamp::EPOCH,
    };
    let delay = if flags & flag::WRITTEN_AT == 0 { 0 } else { take_signed(bytes).ok_or(Truncated)? };
    let millis = base.as_millis().checked_add(delay);
    let written_at = millis.and_then(Timestamp::from_millis).ok_or(OutOfRange("write time"))?;
    let event_timestamp = match (step, times) {
        (Some(step), _) => {
            let before = take_signed(bytes).ok_or(Truncated)?;
            let count = written_at.as_micros().div_euclid(step).checked_sub(before);
            let micros = count.and_then(|count| count.checked_mul(step));
            micros.and_then(Timestamp::from_micros).ok_or(OutOfRange("event time"))?
        }
        (None, Times::Current { .. }) => written_at,
        (None, Times::Superseded { sort_key }) => sort_key,
    };
    let expires_at = if flags & flag::EXPIRES == 0 {
        None
    } else {
        let span = take_span(bytes).ok_or(Truncated)?;
        let millis = i64::try_from(span).ok().and_then(|span| span.checked_add(written_at.as_millis()));
        Some(millis.and_then(Timestamp::from_millis).ok_or(OutOfRange("expiry"))?)
    };
    let versions_since_first =
        if flags & flag::FIRST_VERSION == 0 { 0 } else { take_unsigned(bytes).ok_or(Truncated)? };
    let provenance = ProvenanceId(take_unsigned(bytes).ok_or(Truncated)?);
    let retraction = if flags & flag::RETRACTED == 0 {
        None
    } else {
        Some(Box::new(take_retraction(bytes, version, written_at)?))
    };
    let value = take_value(head & 0x0f, bytes)?;
    Ok(Decoded {
        record: Record { value, event_timestamp, written_at, version, provenance, retraction },
        expires_at,
        versions_since_first,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{Retraction, UndoAct};
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
            (-1_000_000_000_000i64..1_000_000_000_000, 0u32..6)
                .prop_map(|(n, places)| Some(Value::Float64(n as f64 / 10f64.powi(places as i32)))),
            ".*".prop_map(|text| Some(Value::String(text.into()))),
            times().prop_map(|time| Some(Value::Timestamp(time))),
            proptest::collection::vec(-1e30f32..1e30, 0..40).prop_map(|n| Some(Value::Embedding(n.into()))),
            proptest::collection::vec(prop_oneof![9 => -1f32..1.0, 1 => Just(0.0), 1 => Just(-1e-40)], 0..40)
                .prop_map(|n| Some(Value::Embedding(n.into()))),
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
            retraction in proptest::option::weighted(0.3, (1u64..1 << 20, -1000i64..1_000_000_000, any::<u64>(), any::<bool>())),
        ) -> Option<Current> {
            let written_at = match delay {
                None => Timestamp::from_millis(event_timestamp.as_millis())?,
                Some(delay) => Timestamp::from_millis(event_timestamp.as_millis() + delay)?,
            };
            let expires_at = match ttl {
                None => None,
                Some(ttl) => Some(Timestamp::from_millis(written_at.as_millis() + ttl)?),
            };
            let retraction = match retraction {
                None => None,
                Some((later, delay, by, again)) => {
                    let act = |version, at: Timestamp| Some(UndoAct {
                        version: version + later,
                        at: Timestamp::from_millis(at.as_millis() + delay)?,
                        provenance: ProvenanceId(by),
                    });
                    let undone = act(version, written_at)?;
                    let reinstated = if again { Some(act(undone.version, undone.at)?) } else { None };
                    Some(Box::new(Retraction { undone, reinstated }))
                }
            };
            let provenance = ProvenanceId(provenance);
            let record = Record { value, event_timestamp, written_at, version, provenance, retraction };
            Some(Current { record, expires_at, first_version: version.saturating_sub(earlier).max(1) })
        }
    }

    proptest! {
        #[test]
        fn records_survive(current in currents().prop_filter_map("in range", |c| c), base in times()) {
            prop_assert_eq!(&decode_current(&encode_current(&current, base), base).unwrap(), &current);
            // The negative zero equals the positive one, but is another number.
            prop_assert_eq!(format!("{:?}", decode_current(&encode_current(&current, base), base).unwrap()), format!("{current:?}"));
            let record = current.record;
            // What a sorted set keeps of the event time: a float64.
            let kept = Timestamp::from_micros(record.event_timestamp.as_micros() as f64 as i64).unwrap_or(Timestamp::MAX);
            prop_assert_eq!(decode_superseded(kept, &encode_superseded(&record)).unwrap(), record);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), base in times()) {
            let _ = decode_current(&bytes, base);
            let _ = decode_superseded(base, &bytes);
        }

        #[test]
        fn damaged_envelopes_are_read_or_refused(
            current in currents().prop_filter_map("in range", |c| c),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let base = current.record.written_at;
            let mut bytes = encode_current(&current, base);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_current(&bytes, base);
            let _ = decode_current(&bytes[..cut.index(bytes.len())], base);
        }
    }

    #[test]
    fn a_fresh_scalar_is_small() {
        let now = Timestamp::parse("2026-01-02T03:04:05.678Z").unwrap();
        let length = |value: f64, event: &str| {
            let record = Record {
                value: Some(Value::Float64(value)),
                event_timestamp: Timestamp::parse(event).unwrap(),
                written_at: now,
                version: 7,
                provenance: ProvenanceId(3),
                retraction: None,
            };
            let expires_at = Timestamp::from_millis(now.as_millis() + 7 * 86_400_000);
            let superseded = encode_superseded(&record).len();
            (encode_current(&Current { record, expires_at, first_version: 7 }, now).len(), superseded)
        };
        assert_eq!(length(1.0 / 3.0, "2026-01-02T03:04:05.678Z"), (13, 12));
        assert_eq!(length(1.0 / 3.0, "2026-01-02T02:54:05Z"), (15, 15));
        assert_eq!(length(999.99, "2026-01-02T02:54:05Z"), (10, 10));
    }

    #[test]
    fn similar_magnitudes_make_an_embedding_shorter() {
        let length = |numbers: &[f32]| {
            let mut out = Vec::new();
            put_value(&mut out, Some(&Value::Embedding(numbers.into())));
            out.len()
        };
        let unit: Vec<f32> = (1..=384).map(|n| (n as f32).sin()).collect();
        // One of them, sin(355), is near zero and takes a byte more.
        assert_eq!(length(&unit), 2 + 1 + 384 * 3 + 384 / 2 + 1);
        assert_eq!(length(&unit[..9]), 1 + 1 + 9 * 3 + 5);
        assert_eq!(length(&[0.0; 9]), 1 + 1 + 9 * 3 + 5);
        assert_eq!(length(&[1.0, 1e-9, 0.0, 1e30]), 4 * 4, "too far apart");
    }
}
