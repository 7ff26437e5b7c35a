//! Points in time and lengths of time, as the API writes them.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: microseconds since 1970-01-01T00:00:00Z, from year 0000 to 9999-12-30T22:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time such as 2026-01-02T03:04:05Z, from year 0000 to 9999-12-30T22:00:00Z")]
pub struct TimestampError(String);

impl Timestamp {
    /// 1970-01-01T00:00:00Z
    pub const EPOCH: Self = Self(0);
    /// 0000-01-01T00:00:00Z
    pub const MIN: Self = Self(-62_167_219_200_000_000);
    /// 9999-12-30T22:00:00Z, the last instant that every UTC offset can still write with four digits.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// `None` outside the years 0000 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1000).and_then(Self::from_micros)
    }

    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds, rounded towards the past.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads RFC 3339 with any offset. Digits below a microsecond are cut off.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError(text.chars().take(64).collect());
        // The parser behind this is more generous than RFC 3339 (no offset seconds, annotations in
        // brackets, ±YYYYYY years), so the outline is checked first.
        let bytes = text.as_bytes();
        let outlined = bytes.len() >= 20
            && bytes.len() <= 40
            && bytes[..4].iter().all(u8::is_ascii_digit)
            && matches!(bytes[10], b'T' | b't' | b' ')
            && bytes[13] == b':'
            && bytes[16] == b':'
            && !bytes.contains(&b'[');
        if !outlined {
            return Err(error());
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| error())?;
        Self::from_micros(instant.as_nanosecond().div_euclid(1000) as i64).ok_or_else(error)
    }

    /// A microsecond later.
    pub fn next(self) -> Self {
        Self((self.0 + 1).min(Self::MAX.0))
    }

    /// `self - earlier`; negative where `earlier` is later.
    pub fn micros_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// Seconds from `earlier` to `self`, as a fraction.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.micros_since(earlier) as f64 / 1e6
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    /// Stops at the end of the calendar.
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.as_micros()).min(Self::MAX.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => fmt::Display::fmt(&instant, f),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// A positive length of time in whole milliseconds: a number of seconds, or text such as `"1h30m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Why a text or number is not a [`Span`] or a [`Ttl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not a duration: write seconds or text such as \"90s\", \"1h30m\", \"7d\" (above zero, at most 36500d)"
)]
pub struct SpanError(String);

const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    const MAX_MILLIS: u64 = 36_500 * 86_400_000;

    /// `None` for zero and for more than 36,500 days.
    pub const fn from_millis(millis: u64) -> Option<Self> {
        if millis >= 1 && millis <= Self::MAX_MILLIS { Some(Self(millis)) } else { None }
    }

    pub const fn from_secs(secs: u32) -> Self {
        assert!(secs > 0, "a span is above zero");
        Self(secs as u64 * 1000)
    }

    pub const fn of_millis(millis: u32) -> Self {
        assert!(millis > 0, "a span is above zero");
        Self(millis as u64)
    }

    pub fn as_millis(self) -> u64 {
        self.0
    }

    pub fn as_micros(self) -> i64 {
        // At most 36,500 days, which is 3.2e15 microseconds: it fits.
        (self.0 * 1000) as i64
    }

    pub fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    pub fn parse(text: &str) -> Result<Self, SpanError> {
        Self::parse_text(text).ok_or_else(|| SpanError(format!("{:?}", shorten(text))))
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut total: u64 = 0;
        // `1e3`, `+5` and the like are no way to write a length of time.
        if rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && let Ok(seconds) = rest.parse::<f64>()
        {
            return Self::from_seconds(seconds);
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let count: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (_, millis) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
            total = total.checked_add(count.checked_mul(*millis)?)?;
            rest = &rest[letters..];
        }
        Self::from_millis(total)
    }

    fn from_seconds(seconds: f64) -> Option<Self> {
        // The bounds keep the cast exact; NaN fails the comparison.
        (seconds >= 0.001 && seconds <= Self::MAX_MILLIS as f64 / 1000.0)
            .then(|| Self::from_millis((seconds * 1000.0).round() as u64))
            .flatten()
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for Span {
    /// The shortest form in one unit: `90s`, `1h`, `7d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, millis) in &UNITS[1..] {
            if self.0.is_multiple_of(*millis) {
                return write!(f, "{}{unit}", self.0 / millis);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct SpanVisitor;

impl<'de> de::Visitor<'de> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration: seconds, or text such as \"1h\"")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
        seconds
            .checked_mul(1000)
            .and_then(Span::from_millis)
            .ok_or_else(|| E::custom(SpanError(seconds.to_string())))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
        let whole = u64::try_from(seconds).map_err(|_| E::custom(SpanError(seconds.to_string())))?;
        self.visit_u64(whole)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
        Span::from_seconds(seconds).ok_or_else(|| E::custom(SpanError(seconds.to_string())))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        Span::parse(text).map_err(E::custom)
    }

    /// How serde_json hands over a number that it keeps as text (its feature `arbitrary_precision`,
    /// which a dependency turns on).
    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Span, A::Error> {
        let number = serde_json::Number::deserialize(de::value::MapAccessDeserializer::new(map))?;
        self.visit_f64(number.as_f64().unwrap_or(f64::NAN))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

/// How long after its write a value is kept and served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    After(Span),
    /// Kept until it is deleted. Written `"never"`.
    Never,
}

impl Ttl {
    /// When a value written at `now` expires; `None` for never.
    pub fn expires_at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::After(span) => Some(now + span),
            Self::Never => None,
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(span) => fmt::Display::fmt(span, f),
            Self::Never => f.write_str("never"),
        }
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct TtlVisitor;

impl<'de> de::Visitor<'de> for TtlVisitor {
    type Value = Ttl;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration: seconds, text such as \"1h\", or \"never\"")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Ttl, E> {
        SpanVisitor.visit_u64(seconds).map(Ttl::After)
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Ttl, E> {
        SpanVisitor.visit_i64(seconds).map(Ttl::After)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Ttl, E> {
        SpanVisitor.visit_f64(seconds).map(Ttl::After)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Ttl, E> {
        if text == "never" { Ok(Ttl::Never) } else { SpanVisitor.visit_str(text).map(Ttl::After) }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Ttl, A::Error> {
        SpanVisitor.visit_map(map).map(Ttl::After)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TtlVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_and_print_rfc_3339() {
        for (text, printed) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), printed);
        }
        for bad in [
            "",
            "now",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05Z[UTC]",
            "+012026-01-02T03:04:05Z",
            "1767323045",
            "2026-01-02T03Z0000000000",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_read_seconds_and_text() {
        let read = |json: &str| serde_json::from_str::<Span>(json).ok().map(Span::as_millis);
        assert_eq!(read("3600"), Some(3_600_000));
        assert_eq!(read("0.5"), Some(500));
        assert_eq!(read("\"1h30m\""), Some(5_400_000));
        assert_eq!(read("\"250ms\""), Some(250));
        assert_eq!(read("\"90\""), Some(90_000));
        for bad in [
            "0",
            "-1",
            "\"\"",
            "\"h\"",
            "\"1x\"",
            "\"1.5.5\"",
            "\"never\"",
            "1e300",
            "\"36501d\"",
            "\"99999999999999999999s\"",
            "null",
            "\"inf\"",
            "\"NaN\"",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(Span::parse("120s").unwrap().to_string(), "2m");
        assert_eq!(Span::parse("14d").unwrap().to_string(), "14d");
        assert_eq!(serde_json::from_str::<Ttl>("\"never\"").unwrap(), Ttl::Never);
    }
}
