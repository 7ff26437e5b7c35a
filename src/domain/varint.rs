//! Whole numbers in as few bytes as they need. Every reader is total: it returns `None` on bytes
//! that end too soon or do not fit.

/// Appends `number` so that the byte order of two encodings is the order of the numbers.
pub fn put_ordered(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=240 => out.push(number as u8),
        241..=2287 => {
            let rest = number - 240;
            out.extend_from_slice(&[(rest >> 8) as u8 + 241, rest as u8]);
        }
        2288..=67_823 => {
            out.push(249);
            out.extend_from_slice(&((number - 2288) as u16).to_be_bytes());
        }
        _ => {
            let bytes = number.to_be_bytes();
            let skip = (number.leading_zeros() / 8).min(5) as usize;
            out.push(255 - skip as u8);
            out.extend_from_slice(&bytes[skip..]);
        }
    }
}

/// Takes what [`put_ordered`] wrote off the front of `bytes`.
pub fn take_ordered(bytes: &mut &[u8]) -> Option<u64> {
    let first = take_byte(bytes)?;
    match first {
        0..=240 => Some(u64::from(first)),
        241..=248 => Some(240 + (u64::from(first - 241) << 8) + u64::from(take_byte(bytes)?)),
        249 => {
            let (head, rest) = bytes.split_first_chunk::<2>()?;
            *bytes = rest;
            Some(2288 + u64::from(u16::from_be_bytes(*head)))
        }
        _ => {
            let width = usize::from(first) - 247;
            let (head, rest) = bytes.split_at_checked(width)?;
            *bytes = rest;
            Some(head.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
    }
}

/// Appends `number`, seven bits a byte, low bits first.
pub fn put_unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes what [`put_unsigned`] wrote off the front of `bytes`.
pub fn take_unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Appends a signed number: small ones of either sign are short.
pub fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_unsigned(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Takes what [`put_signed`] wrote off the front of `bytes`.
pub fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let folded = take_unsigned(bytes)?;
    Some((folded >> 1) as i64 ^ -((folded & 1) as i64))
}

/// Takes one byte off the front of `bytes`.
pub fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers of every width, not only wide ones.
    fn numbers() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn numbers_survive(number in numbers(), signed in any::<i64>()) {
            let mut out = Vec::new();
            put_ordered(&mut out, number);
            put_unsigned(&mut out, number);
            put_signed(&mut out, signed);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_ordered(&mut rest), Some(number));
            prop_assert_eq!(take_unsigned(&mut rest), Some(number));
            prop_assert_eq!(take_signed(&mut rest), Some(signed));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn ordered_numbers_sort_as_bytes(a in numbers(), b in numbers()) {
            let encode = |number| { let mut out = Vec::new(); put_ordered(&mut out, number); out };
            prop_assert_eq!(a.cmp(&b), encode(a).cmp(&encode(b)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = take_ordered(&mut bytes.as_slice());
            let _ = take_unsigned(&mut bytes.as_slice());
            let _ = take_signed(&mut bytes.as_slice());
        }
    }

    #[test]
    fn the_borders_of_the_ordered_form() {
        for (number, width) in [
            (240, 1),
            (241, 2),
            (2287, 2),
            (2288, 3),
            (67_823, 3),
            (67_824, 4),
            (0xff_ffff, 4),
            (0x100_0000, 5),
            (u64::MAX, 9),
        ] {
            let mut out = Vec::new();
            put_ordered(&mut out, number);
            assert_eq!(out.len(), width, "{number}");
            assert_eq!(take_ordered(&mut out.as_slice()), Some(number));
        }
    }
}
