//! JSON for people: members in the order they came in, short things on one line, long arrays cut.

use indexmap::IndexMap;
use serde_json::value::RawValue;

const WIDTH: usize = 100;
const INDENT: &str = "  ";
/// So many items of a cut array are shown.
const SHOWN: usize = 3;

/// Lays out a JSON text. Arrays of more than `longest` items are cut. What is no JSON stays as it is.
pub fn pretty(text: &str, longest: usize) -> String {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => lay_out(value, longest, 0),
        Err(_) => text.to_owned(),
    }
}

enum Parts<'a> {
    Scalar(&'a str),
    Array(Vec<&'a RawValue>),
    Object(IndexMap<String, &'a RawValue>),
}

fn take_apart(value: &RawValue) -> Parts<'_> {
    let text = value.get();
    let parts = match text.as_bytes().first() {
        Some(b'[') => serde_json::from_str(text).map(Parts::Array),
        Some(b'{') => serde_json::from_str(text).map(Parts::Object),
        _ => Ok(Parts::Scalar(text)),
    };
    parts.unwrap_or(Parts::Scalar(text))
}

fn lay_out(value: &RawValue, longest: usize, depth: usize) -> String {
    let line = on_one_line(value, longest);
    let (open, items, close) = match take_apart(value) {
        _ if line.chars().count() + depth * INDENT.len() <= WIDTH => return line,
        Parts::Scalar(_) => return line,
        Parts::Array(items) if items.iter().all(|item| matches!(take_apart(item), Parts::Scalar(_))) => {
            return line;
        }
        Parts::Array(items) => {
            let lay_out_item = |item: &&RawValue| lay_out(item, longest, depth + 1);
            ("[", cut(&items, longest, lay_out_item), "]")
        }
        Parts::Object(members) => {
            let laid_out =
                members.iter().map(|(name, value)| member(name, &lay_out(value, longest, depth + 1)));
            ("{", laid_out.collect(), "}")
        }
    };
    let margin = INDENT.repeat(depth + 1);
    let end = INDENT.repeat(depth);
    format!("{open}\n{margin}{}\n{end}{close}", items.join(&format!(",\n{margin}")))
}

fn on_one_line(value: &RawValue, longest: usize) -> String {
    match take_apart(value) {
        Parts::Scalar(text) => text.to_owned(),
        Parts::Array(items) => {
            format!("[{}]", cut(&items, longest, |item| on_one_line(item, longest)).join(", "))
        }
        Parts::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(name, value)| member(name, &on_one_line(value, longest))).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

fn member(name: &str, value: &str) -> String {
    format!("{}: {value}", serde_json::Value::from(name))
}

/// The items, or the first of many and how many there are.
fn cut<T>(items: &[T], longest: usize, show: impl Fn(&T) -> String) -> Vec<String> {
    if items.len() <= longest {
        return items.iter().map(show).collect();
    }
    let mut shown: Vec<String> = items.iter().take(SHOWN).map(show).collect();
    shown.push(format!("… {} in all", items.len()));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_numbers_and_cuts_only_what_is_long() {
        let text = r#"{"b":1.50,"a":[1,2,3,4],"c":{"x":null}}"#;
        assert_eq!(pretty(text, 4), r#"{"b": 1.50, "a": [1, 2, 3, 4], "c": {"x": null}}"#);
        assert_eq!(pretty(r"[1,2,3,4,5]", 4), "[1, 2, 3, … 5 in all]");
        assert_eq!(pretty("not json", 4), "not json");
    }

    #[test]
    fn breaks_what_does_not_fit_a_line() {
        let name = "n".repeat(60);
        let text = format!(r#"{{"rows":[{{"name":"{name}"}},{{"name":"{name}"}}],"z":"é\n"}}"#);
        let laid_out = pretty(&text, 9);
        let expected = format!(
            "{{\n  \"rows\": [\n    {{\"name\": \"{name}\"}},\n    {{\"name\": \"{name}\"}}\n  ],\n  \"z\": \"é\\n\"\n}}"
        );
        assert_eq!(laid_out, expected);
    }
}
