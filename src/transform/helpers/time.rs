//! `time`: a time is RFC 3339 text, as a timestamp feature gives it, or seconds since 1970.
//! All in UTC. There is no "now": a function is the same whenever it runs.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::domain::time::Timestamp;

use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new(
        "time.age_days(then, now)",
        "Days from one time to another, with a fraction.",
        ("time.age_days(\"2026-01-01T00:00:00Z\", \"2026-01-02T12:00:00Z\")", "1.5"),
        |m, a| age(m, a, 86_400.0),
    )
    .passes_none(),
    Def::new(
        "time.age_seconds(then, now)",
        "Seconds from one time to another, with a fraction.",
        ("time.age_seconds(\"2026-01-01T00:00:00Z\", \"2026-01-01T00:01:30Z\")", "90.0"),
        |m, a| age(m, a, 1.0),
    )
    .passes_none(),
    Def::new(
        "time.cycle_cos(x, period)",
        "cos(2 pi x / period): with `cycle_sin`, an hour or weekday whose last lies next to its first.",
        ("time.cycle_cos(12, 24)", "-1.0"),
        |m, a| cycle(m, a, f64::cos),
    )
    .passes_none(),
    Def::new(
        "time.cycle_sin(x, period)",
        "sin(2 pi x / period).",
        ("time.cycle_sin(6, 24)", "1.0"),
        |m, a| cycle(m, a, f64::sin),
    )
    .passes_none(),
    Def::new(
        "time.day(t)",
        "The day of the month, from 1.",
        ("time.day(\"2026-03-04T05:06:07Z\")", "4"),
        |m, a| part(m, a, |t| t.day().into()),
    )
    .passes_none(),
    Def::new(
        "time.format(t)",
        "The time as RFC 3339 text in UTC.",
        ("time.format(0)", "\"1970-01-01T00:00:00Z\""),
        format,
    )
    .passes_none(),
    Def::new("time.hour(t)", "The hour, 0 to 23.", ("time.hour(\"2026-03-04T05:06:07Z\")", "5"), |m, a| {
        part(m, a, |t| t.hour().into())
    })
    .passes_none(),
    Def::new(
        "time.is_weekend(t)",
        "Whether it is Saturday or Sunday.",
        ("time.is_weekend(\"2026-03-07T00:00:00Z\")", "True"),
        is_weekend,
    )
    .passes_none(),
    Def::new(
        "time.minute(t)",
        "The minute, 0 to 59.",
        ("time.minute(\"2026-03-04T05:06:07Z\")", "6"),
        |m, a| part(m, a, |t| t.minute().into()),
    )
    .passes_none(),
    Def::new(
        "time.month(t)",
        "The month, 1 to 12.",
        ("time.month(\"2026-03-04T05:06:07Z\")", "3"),
        |m, a| part(m, a, |t| t.month().into()),
    )
    .passes_none(),
    Def::new(
        "time.parse(t)",
        "The time as seconds since 1970, with a fraction.",
        ("time.parse(\"1970-01-01T00:01:00.5Z\")", "60.5"),
        parse,
    )
    .passes_none(),
    Def::new(
        "time.weekday(t)",
        "The day of the week: 0 is Monday, 6 is Sunday.",
        ("time.weekday(\"2026-03-04T05:06:07Z\")", "2"),
        |m, a| part(m, a, |t| t.weekday().to_monday_zero_offset().into()),
    )
    .passes_none(),
    Def::new("time.year(t)", "The year.", ("time.year(\"2026-03-04T05:06:07Z\")", "2026"), |m, a| {
        part(m, a, |t| t.year().into())
    })
    .passes_none(),
    Def::new(
        "time.yearday(t)",
        "The day of the year, from 1.",
        ("time.yearday(\"2026-02-01T00:00:00Z\")", "32"),
        |m, a| part(m, a, |t| t.day_of_year().into()),
    )
    .passes_none(),
];

/// Microseconds since 1970 of a time in either form.
fn micros(m: &Machine<'_>, value: Val, name: &str) -> Result<i64, Stop> {
    let out_of_range = || Fault::failed(format!("{name} is outside the years 0000 to 9999"));
    let timestamp = match value {
        Val::Int(seconds) => {
            seconds.checked_mul(1_000_000).and_then(Timestamp::from_micros).ok_or_else(out_of_range)?
        }
        Val::Float(seconds) if !seconds.is_finite() => return Err(out_of_range()),
        Val::Float(seconds) => {
            Timestamp::from_micros((seconds * 1e6).round() as i64).ok_or_else(out_of_range)?
        }
        other => match m.heap.str(other) {
            Some(text) => {
                Timestamp::parse(text).map_err(|error| Fault::failed(format!("{name}: {error}")))?
            }
            None => return Err(m.wrong(name, "RFC 3339 text or seconds since 1970", other)),
        },
    };
    Ok(timestamp.as_micros())
}

fn civil(m: &Machine<'_>, a: &[Val]) -> Result<DateTime, Stop> {
    let micros = micros(m, a[0], "t")?;
    let instant = jiff::Timestamp::from_microsecond(micros);
    instant.map(|instant| Offset::UTC.to_datetime(instant)).map_err(|_| Fault::failed("t is not a time"))
}

fn part(m: &mut Machine<'_>, a: &[Val], part: fn(DateTime) -> i64) -> Result<Val, Stop> {
    civil(m, a).map(|time| Val::Int(part(time)))
}

fn is_weekend(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    civil(m, a).map(|time| Val::Bool(time.weekday().to_monday_zero_offset() >= 5))
}

fn age(m: &mut Machine<'_>, a: &[Val], unit: f64) -> Result<Val, Stop> {
    if matches!(a[1], Val::None) {
        return Ok(Val::None);
    }
    let (then, now) = (micros(m, a[0], "then")?, micros(m, a[1], "now")?);
    m.finite((now - then) as f64 / 1e6 / unit)
}

fn cycle(m: &mut Machine<'_>, a: &[Val], wave: fn(f64) -> f64) -> Result<Val, Stop> {
    let period = m.number(a[1], "period")?;
    if period <= 0.0 {
        return Err(Fault::failed("period must be above 0"));
    }
    m.finite(wave(m.number(a[0], "x")? / period * std::f64::consts::TAU))
}

fn parse(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    Ok(Val::Float(micros(m, a[0], "t")? as f64 / 1e6))
}

fn format(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let micros = micros(m, a[0], "t")?;
    let text = Timestamp::from_micros(micros).map(|time| time.to_string()).unwrap_or_default();
    m.heap.new_str(text)
}
