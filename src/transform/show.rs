//! Values as text: `str`, `repr` and the texts inside messages. Every walk is charged and bounded in
//! depth, so that a list that holds itself sixty times over costs an error.

use super::fault::{ErrorKind, Fault, Stop};
use super::heap::{Heap, Obj, Val};
use super::native;

/// Values nested deeper than this are not printed, compared, or taken as a result.
pub(super) const MAX_VALUE_DEPTH: usize = 100;

#[inline]
pub(super) fn check_depth(depth: usize) -> Result<(), Stop> {
    if depth < MAX_VALUE_DEPTH {
        return Ok(());
    }
    let message = format!("a value is nested more than {MAX_VALUE_DEPTH} levels deep");
    Err(Fault::new(ErrorKind::Depth, message))
}

/// Text under construction: paid for as it grows.
pub(super) struct Text<'a> {
    heap: &'a Heap<'a>,
    pub(super) out: String,
}

impl<'a> Text<'a> {
    pub(super) fn new(heap: &'a Heap<'_>) -> Text<'a> {
        Text { heap, out: String::new() }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Stop> {
        self.heap.meter.scan(text.len())?;
        self.heap.meter.alloc(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    pub(super) fn value(&mut self, value: Val, repr: bool) -> Result<(), Stop> {
        match self.heap.str(value) {
            Some(text) if !repr => self.push(text),
            _ => self.repr(value, 0),
        }
    }

    fn repr(&mut self, value: Val, depth: usize) -> Result<(), Stop> {
        let heap = self.heap;
        match value {
            Val::Unset | Val::None => self.push("None"),
            Val::Bool(value) => self.push(if value { "True" } else { "False" }),
            Val::Int(value) => self.push(&value.to_string()),
            Val::Float(value) => self.push(&float(value)),
            Val::Native(id) => self.push(&format!("<built-in function {}>", native::get(id).name)),
            Val::Obj(at) => {
                check_depth(depth)?;
                match heap.get(at) {
                    Obj::Str(text) => self.push(&quoted(text)),
                    Obj::List(list) => self.sequence("[", &list.items, "]", depth),
                    Obj::Tuple(items) if items.len() == 1 => self.sequence("(", items, ",)", depth),
                    Obj::Tuple(items) => self.sequence("(", items, ")", depth),
                    Obj::Dict(dict) => {
                        self.push("{")?;
                        for (index, (key, value)) in dict.entries.values().enumerate() {
                            if index > 0 {
                                self.push(", ")?;
                            }
                            self.repr(*key, depth + 1)?;
                            self.push(": ")?;
                            self.repr(*value, depth + 1)?;
                        }
                        self.push("}")
                    }
                    Obj::Range(range) => {
                        let stop = range.item(range.len);
                        self.push(&match range.step {
                            1 if range.start == 0 => format!("range({stop})"),
                            1 => format!("range({}, {stop})", range.start),
                            step => format!("range({}, {stop}, {step})", range.start),
                        })
                    }
                    Obj::Function(_) => self.push("<function>"),
                    Obj::Cell(value) => self.repr(*value, depth + 1),
                }
            }
        }
    }

    fn sequence(&mut self, open: &str, items: &[Val], close: &str, depth: usize) -> Result<(), Stop> {
        self.push(open)?;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.push(", ")?;
            }
            self.repr(*item, depth + 1)?;
        }
        self.push(close)
    }
}

/// A value for a message: never long, never deep, never an error of its own.
pub(super) fn brief(heap: &Heap<'_>, value: Val) -> String {
    match value {
        Val::Obj(at) => match heap.get(at) {
            Obj::Str(text) => {
                let short: String = text.chars().take(40).collect();
                let cut = if short.len() < text.len() { "..." } else { "" };
                format!("{}{cut}", quoted(&short))
            }
            Obj::List(list) => format!("a list of {}", list.items.len()),
            Obj::Tuple(items) => format!("a tuple of {}", items.len()),
            Obj::Dict(dict) => format!("a dict of {}", dict.entries.len()),
            _ => format!("a {}", heap.type_name(value)),
        },
        Val::Unset | Val::None => "None".to_owned(),
        Val::Bool(true) => "True".to_owned(),
        Val::Bool(false) => "False".to_owned(),
        Val::Int(value) => value.to_string(),
        Val::Float(value) => float(value),
        Val::Native(_) => "a function".to_owned(),
    }
}

/// As Python prints it: the shortest text that reads back the same.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+inf" } else { "-inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        return exponent(&format!("{value:e}"));
    }
    let text = value.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// `1e7` as `1e+07`.
pub(super) fn exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = match power.strip_prefix('-') {
                Some(power) => ('-', power),
                None => ('+', power),
            };
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\x{:02x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
