//! The value at the end of an envelope, and the kind that its head names.
//!
//! Numbers are kept in the shortest form that gives exactly the same number back.

use std::sync::Arc;

use super::CorruptEnvelope;
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::domain::varint::{put_signed, put_unsigned, take_byte, take_signed, take_unsigned};

mod kind {
    pub const DELETED: u8 = 0;
    pub const NULL: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const TRUE: u8 = 3;
    pub const INT: u8 = 4;
    pub const FLOAT: u8 = 5;
    /// A float64 that is exactly a float32.
    pub const FLOAT_SHORT: u8 = 6;
    /// A float64 that is the nearest to a number of up to four decimal places.
    pub const FLOAT_DECIMAL: u8 = 7;
    pub const STRING: u8 = 8;
    pub const TIMESTAMP: u8 = 9;
    pub const EMBEDDING: u8 = 10;
    pub const JSON: u8 = 11;
    /// An embedding whose numbers are of similar magnitude, in 28 bits each, or little more.
    pub const EMBEDDING_SHORT: u8 = 12;
}

/// Appends the value and gives its kind.
pub fn put_value(out: &mut Vec<u8>, value: Option<&Value>) -> u8 {
    match value {
        None => kind::DELETED,
        Some(Value::Null) => kind::NULL,
        Some(Value::Boolean(false)) => kind::FALSE,
        Some(Value::Boolean(true)) => kind::TRUE,
        Some(Value::Int64(number)) => {
            put_signed(out, *number);
            kind::INT
        }
        Some(Value::Float64(number)) => put_float(out, *number),
        Some(Value::String(text)) => {
            out.extend_from_slice(text.as_bytes());
            kind::STRING
        }
        Some(Value::Timestamp(time)) => {
            put_signed(out, time.as_micros());
            kind::TIMESTAMP
        }
        Some(Value::Embedding(numbers)) => match short_embedding(numbers) {
            Some(short) => {
                out.extend_from_slice(&short);
                kind::EMBEDDING_SHORT
            }
            None => {
                out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                kind::EMBEDDING
            }
        },
        Some(Value::Json(text)) => {
            out.extend_from_slice(text.as_bytes());
            kind::JSON
        }
    }
}

fn put_float(out: &mut Vec<u8>, number: f64) -> u8 {
    let short = number as f32;
    if let Some(decimal) = decimal(number) {
        put_signed(out, decimal);
        kind::FLOAT_DECIMAL
    } else if f64::from(short) == number {
        out.extend_from_slice(&short.to_le_bytes());
        kind::FLOAT_SHORT
    } else {
        out.extend_from_slice(&number.to_le_bytes());
        kind::FLOAT
    }
}

pub fn take_value(kind: u8, bytes: &mut &[u8]) -> Result<Option<Value>, CorruptEnvelope> {
    use CorruptEnvelope::{NotUtf8, OutOfRange, RaggedEmbedding, Truncated};
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
        kind::FLOAT_DECIMAL => Value::Float64(from_decimal(take_signed(bytes).ok_or(Truncated)?)),
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
                return Err(RaggedEmbedding);
            }
            let numbers: Arc<[f32]> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if numbers.iter().any(|number| !number.is_finite()) {
                return Err(OutOfRange("number"));
            }
            Value::Embedding(numbers)
        }
        kind::EMBEDDING_SHORT => Value::Embedding(take_short_embedding(bytes)?),
        kind::JSON => Value::Json(text(bytes)?),
        other => return Err(CorruptEnvelope::UnknownKind(other)),
    }))
}

/// A number of up to four decimal places, as counts, prices and scores are: its digits, and in the
/// three bits below how many of them stand behind the point. `None` where that would not be exactly
/// the number, or not shorter.
fn decimal(number: f64) -> Option<i64> {
    const LARGEST: f64 = (1u64 << 44) as f64;
    let mut digits = (number * 1e4).round();
    // The negative zero is a number of its own.
    if digits.abs() >= LARGEST || digits / 1e4 != number || (number == 0.0 && number.is_sign_negative()) {
        return None;
    }
    let mut places = 4;
    while places > 0 && digits % 10.0 == 0.0 {
        digits /= 10.0;
        places -= 1;
    }
    Some((digits as i64) << 3 | places)
}

/// Exact: both sides of the division are, so that its result is the float64 nearest to the quotient.
fn from_decimal(decimal: i64) -> f64 {
    const POWERS: [f64; 8] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
    (decimal >> 3) as f64 / POWERS[(decimal & 0b111) as usize]
}

fn exponent(number: f32) -> u8 {
    (number.to_bits() >> 23) as u8
}

/// The numbers of an embedding have nearly the same magnitude, so that their exponents, 8 bits of 32,
/// say little: four bits are enough to say how far below the largest one each is.
///
/// The count, the largest exponent, the sign and fraction of each number in three bytes, then for
/// each two numbers how far their exponents are below the largest, the first in the low half, then
/// the exponents that are [`FAR`] below. `None` where that is not shorter than the numbers.
fn short_embedding(numbers: &[f32]) -> Option<Vec<u8>> {
    let top = numbers.iter().map(|number| exponent(*number)).max().unwrap_or(0);
    let below = |number: &f32| (top - exponent(*number)).min(FAR);
    let far = numbers.iter().filter(|number| below(number) == FAR);
    let raw = numbers.len() * 4;
    let mut out = Vec::with_capacity(raw);
    put_unsigned(&mut out, numbers.len() as u64);
    out.push(top);
    if out.len() + numbers.len() * 3 + numbers.len().div_ceil(2) + far.clone().count() >= raw {
        return None;
    }
    for number in numbers {
        let bits = number.to_bits();
        let [a, b, c, _] = (bits & 0x7f_ffff | bits >> 8 & 0x80_0000).to_le_bytes();
        out.extend_from_slice(&[a, b, c]);
    }
    out.extend(
        numbers.chunks(2).map(|two| two.iter().rev().fold(0, |code, number| code << 4 | below(number))),
    );
    out.extend(far.map(|number| exponent(*number)));
    Some(out)
}

/// So far or further below the largest, which four bits do not tell.
const FAR: u8 = 15;

fn take_short_embedding(bytes: &mut &[u8]) -> Result<Arc<[f32]>, CorruptEnvelope> {
    use CorruptEnvelope::{OutOfRange, RaggedEmbedding, Truncated};
    let count = take_unsigned(bytes).ok_or(Truncated)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= bytes.len()).ok_or(Truncated)?;
    let top = take_byte(bytes).ok_or(Truncated)?;
    let (fractions, bytes) = bytes.split_at_checked(count * 3).ok_or(Truncated)?;
    let (codes, far) = bytes.split_at_checked(count.div_ceil(2)).ok_or(Truncated)?;
    let codes = codes.iter().flat_map(|two| [two & 0x0f, two >> 4]);
    let mut far = far.iter();
    let mut fits = top < u8::MAX;
    let number = |(fraction, code): (&[u8; 3], u8)| {
        let exponent = match code {
            FAR => far.next().copied(),
            code => top.checked_sub(code),
        };
        fits &= exponent.is_some_and(|exponent| exponent <= top);
        let [a, b, c] = *fraction;
        let fraction = u32::from_le_bytes([a, b, c, 0]);
        let exponent = u32::from(exponent.unwrap_or_default()) << 23;
        f32::from_bits(fraction & 0x7f_ffff | (fraction & 0x80_0000) << 8 | exponent)
    };
    let numbers = fractions.as_chunks::<3>().0.iter().zip(codes).map(number).collect();
    match (fits, far.next()) {
        (true, None) => Ok(numbers),
        (true, Some(_)) => Err(RaggedEmbedding),
        (false, _) => Err(OutOfRange("number")),
    }
}
