//! `"%s" % x` and `"{}".format(x)`.

use super::fault::{Fault, Stop};
use super::heap::{Obj, StrKey, Val};
use super::machine::Machine;
use super::show::{Text, brief, exponent};

impl Machine<'_> {
    /// `format % values`.
    pub(super) fn percent(&mut self, format: Val, values: Val) -> Result<Option<Val>, Stop> {
        let Some(pattern) = self.heap.str(format) else { return Ok(None) };
        let one = [values];
        let values: &[Val] = match values {
            Val::Obj(at) => match self.heap.get(at) {
                Obj::Tuple(items) => items,
                _ => &one,
            },
            _ => &one,
        };
        let dict = match values {
            [single] => self.heap.dict(*single),
            _ => None,
        };
        let mut next = values.iter();
        let mut text = Text::new(&self.heap);
        let mut rest = pattern;
        let mut by_name = false;
        while let Some(at) = rest.find('%') {
            text.push(&rest[..at])?;
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                text.push("%")?;
                rest = after;
                continue;
            }
            let value = if let Some(after) = rest.strip_prefix('(') {
                let Some((name, after)) = after.split_once(')') else {
                    return Err(Fault::failed("`%(` without `)` in the format"));
                };
                let entry = dict.and_then(|dict| dict.entries.get(&StrKey(name)));
                let Some((_, value)) = entry else {
                    return Err(Fault::failed("the format names a key that the dict does not have"));
                };
                rest = after;
                by_name = true;
                *value
            } else {
                *next.next().ok_or_else(|| Fault::failed("the format needs more values"))?
            };
            let mut characters = rest.chars();
            match characters.next() {
                Some('s') => text.value(value, false)?,
                Some('r') => text.value(value, true)?,
                Some('d') => match value {
                    Val::Int(number) => text.push(&number.to_string())?,
                    Val::Float(number) if number.is_finite() => {
                        text.push(&format!("{:.0}", number.trunc()))?
                    }
                    other => {
                        return Err(Fault::failed(format!(
                            "%d needs a number, not {}",
                            brief(&self.heap, other)
                        )));
                    }
                },
                Some(letter @ ('x' | 'X' | 'o')) => {
                    let Val::Int(number) = value else {
                        return Err(Fault::failed(format!("%{letter} needs an int")));
                    };
                    let sign = if number < 0 { "-" } else { "" };
                    let number = number.unsigned_abs();
                    text.push(&match letter {
                        'x' => format!("{sign}{number:x}"),
                        'X' => format!("{sign}{number:X}"),
                        _ => format!("{sign}{number:o}"),
                    })?;
                }
                Some(letter @ ('f' | 'F' | 'e' | 'E' | 'g' | 'G')) => {
                    let number = match value {
                        Val::Int(number) => number as f64,
                        Val::Float(number) => number,
                        other => {
                            let other = brief(&self.heap, other);
                            return Err(Fault::failed(format!("%{letter} needs a number, not {other}")));
                        }
                    };
                    let shown = match letter {
                        'f' | 'F' => format!("{number:.6}"),
                        'e' | 'E' => exponent(&format!("{number:.6e}")),
                        _ => super::show::float(number),
                    };
                    text.push(&if letter.is_ascii_uppercase() { shown.to_uppercase() } else { shown })?;
                }
                Some(other) => return Err(Fault::failed(format!("`%{other}` is not a format"))),
                None => return Err(Fault::failed("the format ends in `%`; write `%%` for a percent sign")),
            }
            rest = characters.as_str();
        }
        if !by_name && next.next().is_some() {
            return Err(Fault::failed("the format needs fewer values"));
        }
        text.push(rest)?;
        let out = text.out;
        self.heap.push(Obj::Str(out.into())).map(Some)
    }

    /// `pattern.format(...)`: `{}`, `{0}`, `{name}`, `{!r}`, and `{:.2f}` for a fixed number of decimals.
    pub(super) fn format(
        &mut self,
        pattern: Val,
        positional: &[Val],
        named: &[(&str, Val)],
    ) -> Result<Val, Stop> {
        let Some(pattern) = self.heap.str(pattern) else { return Err(Fault::failed("needs a string")) };
        let mut text = Text::new(&self.heap);
        let mut rest = pattern;
        let mut next = 0;
        while let Some(at) = rest.find(['{', '}']) {
            text.push(&rest[..at])?;
            rest = &rest[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                text.push(&rest[..1])?;
                rest = &rest[2..];
                continue;
            }
            let field = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let Some((field, after)) = field else {
                return Err(Fault::failed("a lone brace in the format; write `{{` or `}}`"));
            };
            rest = after;
            let (field, spec) = field.split_once(':').unwrap_or((field, ""));
            let (name, conversion) = field.split_once('!').unwrap_or((field, "s"));
            let value = if name.is_empty() {
                next += 1;
                positional.get(next - 1)
            } else if let Ok(index) = name.parse::<usize>() {
                positional.get(index)
            } else {
                named.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
            };
            let Some(value) = value else {
                let name: String = name.chars().take(40).collect();
                return Err(Fault::failed(format!("no value for `{{{name}}}`")));
            };
            match (conversion, spec) {
                ("s", "") => text.value(*value, false)?,
                ("r", "") => text.value(*value, true)?,
                ("s", spec) => {
                    let decimals = spec.strip_prefix('.').and_then(|spec| spec.strip_suffix('f'));
                    let decimals =
                        decimals.and_then(|decimals| decimals.parse::<usize>().ok()).filter(|n| *n <= 20);
                    let number = match *value {
                        Val::Int(number) => Some(number as f64),
                        Val::Float(number) => Some(number),
                        _ => None,
                    };
                    match (decimals, number) {
                        (Some(decimals), Some(number)) => text.push(&format!("{number:.decimals$}"))?,
                        (None, _) => {
                            return Err(Fault::failed("after `:` only `.Nf` is available, such as {:.2f}"));
                        }
                        (_, None) => {
                            let value = brief(&self.heap, *value);
                            return Err(Fault::failed(format!("`{{:.2f}}` needs a number, not {value}")));
                        }
                    }
                }
                _ => return Err(Fault::failed("after `!` only `s` and `r` are available")),
            }
        }
        text.push(rest)?;
        let out = text.out;
        self.heap.push(Obj::Str(out.into()))
    }
}
