//! The built-in functions of Starlark.

use super::fault::{Fault, Stop};
use super::heap::{ENTRY, Obj, Val};
use super::machine::Machine;
use super::native::Def;
use super::ops::overflow;

pub(super) const FUNCTIONS: &[Def] = &[
    Def::new("abs(x)", "The number without its sign.", ("abs(-3)", "3"), abs),
    Def::new("all(items)", "Whether every item is true.", ("all([1, True, \"a\"])", "True"), all),
    Def::new("any(items)", "Whether an item is true.", ("any([0, None, 2])", "True"), any),
    Def::new(
        "bool(x=False)",
        "Whether the value is true: not None, 0 or empty.",
        ("bool(\"\")", "False"),
        bool_,
    ),
    Def::raw(
        "dict(*pairs)",
        "A new dict, from a dict, from pairs, from names.",
        ("dict([(\"a\", 1)], b=2)", "{\"a\": 1, \"b\": 2}"),
        dict,
    ),
    Def::new(
        "enumerate(items, start=0)",
        "Pairs of number and item.",
        ("enumerate([\"a\", \"b\"])", "[(0, \"a\"), (1, \"b\")]"),
        enumerate,
    ),
    Def::new(
        "fail(*values)",
        "Ends the function with an error of this text.",
        ("\"fail(\\\"no price\\\")\"", "\"fail(\\\"no price\\\")\""),
        fail,
    ),
    Def::new("float(x)", "The value as a float; reads text.", ("float(\"2.5\")", "2.5"), float),
    Def::new(
        "hash(s)",
        "A number that depends on the text alone (that of Java's `hashCode`).",
        ("hash(\"a\")", "97"),
        hash,
    ),
    Def::new(
        "int(x, base=10)",
        "The value as an int: floats are cut towards zero, text is read.",
        ("int(-2.7)", "-2"),
        int,
    ),
    Def::new("len(x)", "How many items, entries or characters.", ("len(\"abc\")", "3"), len),
    Def::new("list(items=[])", "A new list of the items.", ("list(range(3))", "[0, 1, 2]"), list),
    Def::new(
        "max(*values, key=None)",
        "The greatest, of the arguments or of one list.",
        ("max(3, 7, 5)", "7"),
        max,
    ),
    Def::new(
        "min(*values, key=None)",
        "The least, of the arguments or of one list.",
        ("min([3, 7, 5])", "3"),
        min,
    ),
    Def::new(
        "range(start, stop=None, step=1)",
        "Whole numbers from start (0 where only stop is given) up to before stop.",
        ("list(range(1, 7, 2))", "[1, 3, 5]"),
        range,
    ),
    Def::new("repr(x)", "The value as text that shows its type.", ("repr(\"a\")", "\"\\\"a\\\"\""), repr),
    Def::new(
        "reversed(items)",
        "The items from last to first, as a list.",
        ("reversed([1, 2])", "[2, 1]"),
        reversed,
    ),
    Def::new(
        "sorted(items, key=None, reverse=False)",
        "The items in order, as a list; equal ones keep theirs.",
        ("sorted([\"bb\", \"a\"], key=len)", "[\"a\", \"bb\"]"),
        sorted,
    ),
    Def::new("str(x)", "The value as text.", ("str(1.0)", "\"1.0\""), str_),
    Def::new("sum(items)", "The sum of the numbers.", ("sum([1, 2, 3.5])", "6.5"), sum),
    Def::new("tuple(items=())", "A tuple of the items.", ("tuple([1, 2])", "(1, 2)"), tuple),
    Def::new("type(x)", "The name of the value's type.", ("type(1)", "\"int\""), type_),
    Def::new(
        "zip(*lists)",
        "Tuples of the first items, the second items, and so on.",
        ("zip([1, 2], [\"a\", \"b\"])", "[(1, \"a\"), (2, \"b\")]"),
        zip,
    ),
];

fn abs(_: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    match a[0] {
        Val::Int(number) => number.checked_abs().map(Val::Int).ok_or_else(overflow),
        Val::Float(number) => Ok(Val::Float(number.abs())),
        _ => Err(Fault::failed("x must be a number")),
    }
}

fn all(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = m.collect(a[0])?;
    Ok(Val::Bool(items.iter().all(|item| m.heap.truth(*item))))
}

fn any(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = m.collect(a[0])?;
    Ok(Val::Bool(items.iter().any(|item| m.heap.truth(*item))))
}

fn bool_(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    Ok(Val::Bool(m.heap.truth(a[0])))
}

fn dict(m: &mut Machine<'_>, positional: &[Val], named: &[(&str, Val)]) -> Result<Val, Stop> {
    let dict = m.heap.new_dict(indexmap::IndexMap::new())?;
    super::collections::update(m, dict, positional, named)?;
    Ok(dict)
}

fn enumerate(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = m.collect(a[0])?;
    let start = m.int_or(a[1], "start", 0)?;
    let mut pairs = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        m.heap.meter.step()?;
        let number = start.checked_add(index as i64).ok_or_else(overflow)?;
        pairs.push(m.heap.new_tuple(vec![Val::Int(number), item])?);
    }
    m.heap.new_list(pairs)
}

fn fail(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let mut message = String::new();
    for value in m.items(a[0], "values")? {
        if !message.is_empty() {
            message.push(' ');
        }
        message.push_str(&m.shown(*value)?);
    }
    const LONGEST: usize = 1000;
    if message.chars().count() > LONGEST {
        message = message.chars().take(LONGEST).chain("...".chars()).collect();
    }
    Err(Fault::failed(message))
}

fn float(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    match a[0] {
        Val::Bool(value) => Ok(Val::Float(f64::from(u8::from(value)))),
        Val::Int(_) | Val::Float(_) => m.number(a[0], "x").map(Val::Float),
        other => {
            let text = m.text(other, "x")?;
            match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Val::Float(number)),
                _ => Err(m.wrong("x", "text of a number", other)),
            }
        }
    }
}

fn hash(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let text = m.text(a[0], "s")?;
    let hash =
        text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    Ok(Val::Int(hash.into()))
}

fn int(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    match a[0] {
        Val::Bool(value) => Ok(Val::Int(value.into())),
        Val::Int(number) => Ok(Val::Int(number)),
        Val::Float(number) => whole(number.trunc()),
        other => {
            let base = m.int_or(a[1], "base", 10)?;
            if !(2..=36).contains(&base) {
                return Err(Fault::failed("base must be from 2 to 36"));
            }
            let text = m.text(other, "x")?;
            let number = i64::from_str_radix(text.trim(), base as u32);
            number.map(Val::Int).map_err(|_| m.wrong("x", "text of a whole number (64 bits)", other))
        }
    }
}

/// A float without a fraction as an int.
pub(super) fn whole(number: f64) -> Result<Val, Stop> {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) {
        Ok(Val::Int(number as i64))
    } else {
        Err(overflow())
    }
}

fn len(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let length = match a[0] {
        Val::Obj(at) => match m.heap.get(at) {
            Obj::Str(text) => {
                m.heap.meter.scan(text.len())?;
                text.chars().count() as i64
            }
            Obj::List(list) => list.items.len() as i64,
            Obj::Tuple(items) => items.len() as i64,
            Obj::Dict(dict) => dict.entries.len() as i64,
            Obj::Range(range) => range.len,
            _ => return Err(m.wrong("x", "a string, list, tuple, dict or range", a[0])),
        },
        other => return Err(m.wrong("x", "a string, list, tuple, dict or range", other)),
    };
    Ok(Val::Int(length))
}

fn list(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = if matches!(a[0], Val::Unset) { Vec::new() } else { m.collect(a[0])? };
    m.heap.new_list(items)
}

fn max(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    extreme(m, a, std::cmp::Ordering::Greater)
}

fn min(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    extreme(m, a, std::cmp::Ordering::Less)
}

fn extreme(m: &mut Machine<'_>, a: &[Val], wanted: std::cmp::Ordering) -> Result<Val, Stop> {
    let given = m.collect(a[0])?;
    let values = match given.as_slice() {
        [one] => m.collect(*one)?,
        _ => given,
    };
    let mut best: Option<(Val, Val)> = None;
    for (by, value) in with_keys(m, values, a[1])? {
        m.heap.meter.step()?;
        match best {
            Some((best_by, _)) if m.heap.order(by, best_by)? != wanted => {}
            _ => best = Some((by, value)),
        }
    }
    best.map(|(_, value)| value).ok_or_else(|| Fault::failed("there is no value to choose from"))
}

/// Each value with what it is ordered by.
fn with_keys(m: &mut Machine<'_>, values: Vec<Val>, key: Val) -> Result<Vec<(Val, Val)>, Stop> {
    let mut keyed = Vec::with_capacity(values.len());
    for value in values {
        let by = match key {
            Val::Unset | Val::None => value,
            key => m.call(key, &[value], &[])?,
        };
        keyed.push((by, value));
    }
    Ok(keyed)
}

fn range(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let first = m.int(a[0], "start")?;
    let step = m.int_or(a[2], "step", 1)?;
    match a[1] {
        Val::Unset | Val::None => m.new_range(0, first, step),
        stop => {
            let stop = m.int(stop, "stop")?;
            m.new_range(first, stop, step)
        }
    }
}

fn repr(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let mut text = super::show::Text::new(&m.heap);
    text.value(a[0], true)?;
    let text = text.out;
    m.heap.new_str(text)
}

fn reversed(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let mut items = m.collect(a[0])?;
    items.reverse();
    m.heap.new_list(items)
}

fn sorted(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = m.collect(a[0])?;
    m.heap.meter.alloc(items.len() * 64)?;
    let mut keyed = with_keys(m, items, a[1])?;
    m.heap.sort(&mut keyed, m.is_true(a[2]))?;
    m.heap.new_list(keyed.into_iter().map(|(_, value)| value).collect())
}

fn str_(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    if m.heap.str(a[0]).is_some() {
        return Ok(a[0]);
    }
    let text = m.shown(a[0])?.into_owned();
    m.heap.new_str(text)
}

fn sum(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = m.collect(a[0])?;
    let mut total = Val::Int(0);
    for item in items {
        if !matches!(item, Val::Int(_) | Val::Float(_)) {
            return Err(m.wrong("each item", "a number", item));
        }
        total = m.binary(starlark_syntax::syntax::ast::BinOp::Add, total, item)?;
    }
    Ok(total)
}

fn tuple(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = if matches!(a[0], Val::Unset) { Vec::new() } else { m.collect(a[0])? };
    m.heap.new_tuple(items)
}

fn type_(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let name = m.heap.type_name(a[0]);
    m.heap.new_str(name)
}

fn zip(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let lists = m.collect(a[0])?;
    let lists = lists.into_iter().map(|list| m.collect(list)).collect::<Result<Vec<_>, Stop>>()?;
    let length = lists.iter().map(Vec::len).min().unwrap_or(0);
    let mut rows = Vec::new();
    for index in 0..length {
        m.heap.meter.work(lists.len())?;
        m.heap.meter.alloc(ENTRY / 4)?;
        rows.push(m.heap.new_tuple(lists.iter().map(|list| list[index]).collect())?);
    }
    m.heap.new_list(rows)
}
