//! Taking texts apart: the methods that give several strings.

use std::sync::Arc;

use super::fault::{Fault, Stop};
use super::heap::Val;
use super::machine::Machine;

type Out = Result<Val, Stop>;

fn parts(m: &mut Machine<'_>, a: &[Val], from_end: bool) -> Out {
    let (text, separator) = (m.text(a[0], "self")?, m.text(a[1], "sep")?);
    if separator.is_empty() {
        return Err(Fault::failed("sep must not be empty"));
    }
    let found = if from_end { text.rsplit_once(separator) } else { text.split_once(separator) };
    let [before, middle, after] = match found {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    }
    .map(str::to_owned);
    let parts = vec![m.heap.new_str(before)?, m.heap.new_str(middle)?, m.heap.new_str(after)?];
    m.heap.new_tuple(parts)
}

pub(super) fn partition(m: &mut Machine<'_>, a: &[Val]) -> Out {
    parts(m, a, false)
}

pub(super) fn rpartition(m: &mut Machine<'_>, a: &[Val]) -> Out {
    parts(m, a, true)
}

/// A list of texts: each is one value.
pub(super) fn texts(m: &mut Machine<'_>, parts: Vec<Arc<str>>) -> Out {
    let mut items = Vec::with_capacity(parts.len());
    for part in parts {
        m.heap.meter.step()?;
        items.push(m.heap.new_str(part)?);
    }
    m.heap.new_list(items)
}

/// Copies parts of a text, charging for each: a text of commas has as many parts as bytes.
pub(super) fn own<'a>(m: &Machine<'_>, parts: impl Iterator<Item = &'a str>) -> Result<Vec<Arc<str>>, Stop> {
    let mut owned = Vec::new();
    for part in parts {
        m.heap.meter.step()?;
        m.heap.meter.alloc(size_of::<Arc<str>>())?;
        owned.push(part.into());
    }
    Ok(owned)
}

pub(super) fn split(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "self")?;
    let most =
        usize::try_from(m.int_or(a[2], "maxsplit", -1)?).map_or(usize::MAX, |most| most.saturating_add(1));
    let parts = match a[1] {
        Val::Unset | Val::None if most == usize::MAX => own(m, text.split_whitespace())?,
        Val::Unset | Val::None => {
            let mut rest = text.trim_start();
            let mut parts = Vec::new();
            while !rest.is_empty() {
                m.heap.meter.step()?;
                let end = if parts.len() + 1 >= most {
                    rest.len()
                } else {
                    rest.find(char::is_whitespace).unwrap_or(rest.len())
                };
                parts.push(&rest[..end]);
                rest = rest[end..].trim_start();
            }
            own(m, parts.into_iter())?
        }
        separator => {
            let separator = m.text(separator, "sep")?;
            if separator.is_empty() {
                return Err(Fault::failed("sep must not be empty"));
            }
            own(m, text.splitn(most, separator))?
        }
    };
    texts(m, parts)
}

pub(super) fn rsplit(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "self")?;
    let most =
        usize::try_from(m.int_or(a[2], "maxsplit", -1)?).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts = match a[1] {
        Val::Unset | Val::None => {
            let mut rest = text.trim_end();
            let mut parts = Vec::new();
            while !rest.is_empty() {
                m.heap.meter.step()?;
                let after = |(at, space): (usize, char)| at + space.len_utf8();
                let found = rest.char_indices().rev().find(|(_, character)| character.is_whitespace());
                let start = if parts.len() + 1 >= most { 0 } else { found.map_or(0, after) };
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end();
            }
            own(m, parts.into_iter())?
        }
        separator => {
            let separator = m.text(separator, "sep")?;
            if separator.is_empty() {
                return Err(Fault::failed("sep must not be empty"));
            }
            own(m, text.rsplitn(most, separator))?
        }
    };
    parts.reverse();
    texts(m, parts)
}

pub(super) fn splitlines(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "self")?;
    let parts = own(m, text.lines())?;
    texts(m, parts)
}
