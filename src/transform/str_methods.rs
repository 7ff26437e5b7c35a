//! The methods of strings. Positions count characters.

use std::fmt::Write as _;

use super::fault::{Fault, Stop};
use super::heap::{Obj, Val};
use super::machine::Machine;
use super::native::Def;
use super::str_split::{partition, rpartition, rsplit, split, splitlines};

pub(super) const METHODS: &[Def] = &[
    Def::new(
        "str.capitalize()",
        "The first letter upper case, the others lower.",
        ("\"hELLO\".capitalize()", "\"Hello\""),
        capitalize,
    ),
    Def::new("str.count(part)", "How often the part occurs.", ("\"banana\".count(\"an\")", "2"), count),
    Def::new(
        "str.elems()",
        "The characters, as a list.",
        ("\"abc\".elems()", "[\"a\", \"b\", \"c\"]"),
        elems,
    ),
    Def::new(
        "str.endswith(end)",
        "Whether it ends so; the end may be a tuple of ends.",
        ("\"a.jpg\".endswith((\".jpg\", \".png\"))", "True"),
        endswith,
    ),
    Def::new("str.find(part)", "Where the part first occurs, or -1.", ("\"banana\".find(\"n\")", "2"), find),
    Def::raw(
        "str.format(*values)",
        "Fills `{}`, `{0}` and `{name}`; `{:.2f}` rounds a number.",
        ("\"{} costs {:.2f}\".format(\"tea\", 3)", "\"tea costs 3.00\""),
        format,
    ),
    Def::new(
        "str.index(part)",
        "Where the part first occurs; fails where it does not.",
        ("\"banana\".index(\"n\")", "2"),
        index,
    ),
    Def::new(
        "str.isalnum()",
        "Whether all are letters or digits, and there is one.",
        ("\"a1\".isalnum()", "True"),
        isalnum,
    ),
    Def::new(
        "str.isalpha()",
        "Whether all are letters, and there is one.",
        ("\"a1\".isalpha()", "False"),
        isalpha,
    ),
    Def::new(
        "str.isdigit()",
        "Whether all are digits, and there is one.",
        ("\"12\".isdigit()", "True"),
        isdigit,
    ),
    Def::new(
        "str.islower()",
        "Whether its letters are lower case, and there is one.",
        ("\"ab1\".islower()", "True"),
        islower,
    ),
    Def::new(
        "str.isspace()",
        "Whether all is white space, and there is some.",
        ("\" \".isspace()", "True"),
        isspace,
    ),
    Def::new(
        "str.isupper()",
        "Whether its letters are upper case, and there is one.",
        ("\"AB1\".isupper()", "True"),
        isupper,
    ),
    Def::new(
        "str.join(items)",
        "The strings of a list, with this between them.",
        ("\", \".join([\"a\", \"b\"])", "\"a, b\""),
        join,
    ),
    Def::new("str.lower()", "In lower case.", ("\"AbC\".lower()", "\"abc\""), lower),
    Def::new(
        "str.lstrip(chars=None)",
        "Without white space, or these characters, at its beginning.",
        ("\" a \".lstrip()", "\"a \""),
        lstrip,
    ),
    Def::new(
        "str.partition(sep)",
        "What stands before the separator, it, and what stands after.",
        ("\"a=b\".partition(\"=\")", "(\"a\", \"=\", \"b\")"),
        partition,
    ),
    Def::new(
        "str.removeprefix(prefix)",
        "Without the prefix, where it has it.",
        ("\"re-do\".removeprefix(\"re-\")", "\"do\""),
        removeprefix,
    ),
    Def::new(
        "str.removesuffix(suffix)",
        "Without the suffix, where it has it.",
        ("\"a.jpg\".removesuffix(\".jpg\")", "\"a\""),
        removesuffix,
    ),
    Def::new(
        "str.replace(old, new, count=-1)",
        "With one part in place of another, at most `count` times.",
        ("\"aaa\".replace(\"a\", \"b\", 2)", "\"bba\""),
        replace,
    ),
    Def::new(
        "str.rfind(part)",
        "Where the part last occurs, or -1.",
        ("\"banana\".rfind(\"n\")", "4"),
        rfind,
    ),
    Def::new(
        "str.rpartition(sep)",
        "As `partition`, at the last separator.",
        ("\"a=b=c\".rpartition(\"=\")", "(\"a=b\", \"=\", \"c\")"),
        rpartition,
    ),
    Def::new(
        "str.rsplit(sep=None, maxsplit=-1)",
        "As `split`, counted from the end.",
        ("\"a b c\".rsplit(None, 1)", "[\"a b\", \"c\"]"),
        rsplit,
    ),
    Def::new(
        "str.rstrip(chars=None)",
        "Without white space, or these characters, at its end.",
        ("\" a \".rstrip()", "\" a\""),
        rstrip,
    ),
    Def::new(
        "str.split(sep=None, maxsplit=-1)",
        "The parts between separators, or between white space.",
        ("\"a, b\".split(\", \")", "[\"a\", \"b\"]"),
        split,
    ),
    Def::new(
        "str.splitlines()",
        "The lines, without their ends.",
        ("\"a\\nb\\n\".splitlines()", "[\"a\", \"b\"]"),
        splitlines,
    ),
    Def::new(
        "str.startswith(start)",
        "Whether it begins so; the start may be a tuple of starts.",
        ("\"abc\".startswith(\"ab\")", "True"),
        startswith,
    ),
    Def::new(
        "str.strip(chars=None)",
        "Without white space, or these characters, at both ends.",
        ("\"--a-\".strip(\"-\")", "\"a\""),
        strip,
    ),
    Def::new(
        "str.title()",
        "Each word with an upper-case letter first.",
        ("\"iphone 15 pro\".title()", "\"Iphone 15 Pro\""),
        title,
    ),
    Def::new("str.upper()", "In upper case.", ("\"AbC\".upper()", "\"ABC\""), upper),
];

type Out = Result<Val, Stop>;

/// Makes a text from the receiver, which may grow by a small factor only.
fn map(m: &mut Machine<'_>, a: &[Val], change: impl FnOnce(&str) -> String) -> Out {
    let text = m.text(a[0], "self")?;
    m.heap.meter.work(text.len() / 8)?;
    m.heap.meter.alloc(text.len())?;
    let changed = change(text);
    m.heap.new_str(changed)
}

fn test(m: &mut Machine<'_>, a: &[Val], test: impl Fn(&str) -> bool) -> Out {
    let text = m.text(a[0], "self")?;
    m.heap.meter.work(text.len() / 8)?;
    Ok(Val::Bool(test(text)))
}

pub(super) fn lower(m: &mut Machine<'_>, a: &[Val]) -> Out {
    map(m, a, str::to_lowercase)
}

pub(super) fn upper(m: &mut Machine<'_>, a: &[Val]) -> Out {
    map(m, a, str::to_uppercase)
}

pub(super) fn title(m: &mut Machine<'_>, a: &[Val]) -> Out {
    map(m, a, |text| {
        let mut inside = false;
        let mut out = String::with_capacity(text.len());
        for character in text.chars() {
            if character.is_alphabetic() {
                if inside {
                    out.extend(character.to_lowercase())
                } else {
                    out.extend(character.to_uppercase())
                }
                inside = true;
            } else {
                out.push(character);
                inside = false;
            }
        }
        out
    })
}

fn capitalize(m: &mut Machine<'_>, a: &[Val]) -> Out {
    map(m, a, |text| {
        let mut characters = text.chars();
        let first = characters.next().into_iter().flat_map(char::to_uppercase);
        first.chain(characters.flat_map(char::to_lowercase)).collect()
    })
}

fn isalnum(m: &mut Machine<'_>, a: &[Val]) -> Out {
    test(m, a, |text| !text.is_empty() && text.chars().all(char::is_alphanumeric))
}

fn isalpha(m: &mut Machine<'_>, a: &[Val]) -> Out {
    test(m, a, |text| !text.is_empty() && text.chars().all(char::is_alphabetic))
}

fn isdigit(m: &mut Machine<'_>, a: &[Val]) -> Out {
    test(m, a, |text| !text.is_empty() && text.chars().all(char::is_numeric))
}

fn isspace(m: &mut Machine<'_>, a: &[Val]) -> Out {
    test(m, a, |text| !text.is_empty() && text.chars().all(char::is_whitespace))
}

fn islower(m: &mut Machine<'_>, a: &[Val]) -> Out {
    test(m, a, |text| text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase))
}

fn isupper(m: &mut Machine<'_>, a: &[Val]) -> Out {
    test(m, a, |text| text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase))
}

fn count(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (text, part) = (m.text(a[0], "self")?, m.text(a[1], "part")?);
    let found = if part.is_empty() { text.chars().count() + 1 } else { text.matches(part).count() };
    Ok(Val::Int(found as i64))
}

fn position(m: &Machine<'_>, a: &[Val], find: fn(&str, &str) -> Option<usize>) -> Result<Option<i64>, Stop> {
    let (text, part) = (m.text(a[0], "self")?, m.text(a[1], "part")?);
    Ok(find(text, part).map(|at| text[..at].chars().count() as i64))
}

fn find(m: &mut Machine<'_>, a: &[Val]) -> Out {
    Ok(Val::Int(position(m, a, |text, part| text.find(part))?.unwrap_or(-1)))
}

fn rfind(m: &mut Machine<'_>, a: &[Val]) -> Out {
    Ok(Val::Int(position(m, a, |text, part| text.rfind(part))?.unwrap_or(-1)))
}

fn index(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let found = position(m, a, |text, part| text.find(part))?;
    found.map(Val::Int).ok_or_else(|| Fault::failed("the part does not occur"))
}

fn elems(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let text = m.text(a[0], "self")?;
    m.heap.meter.alloc(text.len() * 4)?;
    let characters: Vec<char> = text.chars().collect();
    let mut items = Vec::new();
    for character in characters {
        m.heap.meter.step()?;
        items.push(m.heap.new_str(character.encode_utf8(&mut [0; 4]) as &str)?);
    }
    m.heap.new_list(items)
}

fn ends(m: &Machine<'_>, a: &[Val], test: fn(&str, &str) -> bool) -> Out {
    let text = m.text(a[0], "self")?;
    let one = [a[1]];
    let parts = match a[1] {
        Val::Obj(at) => match m.heap.get(at) {
            Obj::Tuple(items) => items,
            _ => one.as_slice(),
        },
        _ => &one,
    };
    for part in parts {
        m.heap.meter.step()?;
        if test(text, m.text(*part, "each part")?) {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

fn startswith(m: &mut Machine<'_>, a: &[Val]) -> Out {
    ends(m, a, |text, part| text.starts_with(part))
}

fn endswith(m: &mut Machine<'_>, a: &[Val]) -> Out {
    ends(m, a, |text, part| text.ends_with(part))
}

fn format(m: &mut Machine<'_>, positional: &[Val], named: &[(&str, Val)]) -> Out {
    match positional.split_first() {
        Some((pattern, values)) => m.format(*pattern, values, named),
        None => Err(Fault::failed("a string is needed")),
    }
}

fn join(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let items = m.collect(a[1])?;
    let separator = m.text(a[0], "self")?;
    let mut length = separator.len().saturating_mul(items.len().saturating_sub(1));
    for item in &items {
        m.heap.meter.step()?;
        let item = m.heap.str(*item).ok_or_else(|| m.wrong("each item", "a string", *item))?;
        length = length.saturating_add(item.len());
    }
    m.heap.meter.alloc(length)?;
    m.heap.meter.scan(length)?;
    let mut out = String::with_capacity(length);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(m.heap.str(*item).unwrap_or_default());
    }
    m.heap.push(Obj::Str(out.into()))
}

fn trim(m: &mut Machine<'_>, a: &[Val], left: bool, right: bool) -> Out {
    let text = m.text(a[0], "self")?;
    let chars = match a[1] {
        Val::Unset | Val::None => None,
        chars => Some(m.text(chars, "chars")?),
    };
    if let Some(chars) = chars {
        m.heap.meter.work(text.len().saturating_mul(chars.len()) / 64)?;
    }
    let strips = |character: char| match chars {
        Some(chars) => chars.contains(character),
        None => character.is_whitespace(),
    };
    let mut trimmed = text;
    if left {
        trimmed = trimmed.trim_start_matches(strips);
    }
    if right {
        trimmed = trimmed.trim_end_matches(strips);
    }
    if trimmed.len() == text.len() {
        return Ok(a[0]);
    }
    let trimmed = trimmed.to_owned();
    m.heap.new_str(trimmed)
}

pub(super) fn strip(m: &mut Machine<'_>, a: &[Val]) -> Out {
    trim(m, a, true, true)
}

fn lstrip(m: &mut Machine<'_>, a: &[Val]) -> Out {
    trim(m, a, true, false)
}

fn rstrip(m: &mut Machine<'_>, a: &[Val]) -> Out {
    trim(m, a, false, true)
}

fn removeprefix(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (text, prefix) = (m.text(a[0], "self")?, m.text(a[1], "prefix")?);
    match text.strip_prefix(prefix).map(str::to_owned) {
        Some(rest) => m.heap.new_str(rest),
        None => Ok(a[0]),
    }
}

fn removesuffix(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (text, suffix) = (m.text(a[0], "self")?, m.text(a[1], "suffix")?);
    match text.strip_suffix(suffix).map(str::to_owned) {
        Some(rest) => m.heap.new_str(rest),
        None => Ok(a[0]),
    }
}

fn replace(m: &mut Machine<'_>, a: &[Val]) -> Out {
    let (text, old, new) = (m.text(a[0], "self")?, m.text(a[1], "old")?, m.text(a[2], "new")?);
    let limit = usize::try_from(m.int_or(a[3], "count", -1)?).unwrap_or(usize::MAX);
    let occurrences = text.matches(old).count().min(limit);
    let length = text.len().saturating_add(occurrences.saturating_mul(new.len()));
    m.heap.meter.alloc(length)?;
    m.heap.meter.scan(length)?;
    let replaced = text.replacen(old, new, limit);
    m.heap.push(Obj::Str(replaced.into()))
}

/// Hexadecimal digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
