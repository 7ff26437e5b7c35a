//! The methods of lists and dicts.

use super::fault::{Fault, Stop};
use super::heap::{ENTRY, VALUE, Val};
use super::machine::Machine;
use super::native::Def;
use super::show::brief;

pub(super) const METHODS: &[Def] = &[
    Def::new(
        "list.append(x)",
        "Adds an item at the end.",
        ("[x for x in [[1]] if x.append(2) == None]", "[[1, 2]]"),
        append,
    ),
    Def::new("list.clear()", "Takes all items out.", ("[1].clear()", "None"), clear),
    Def::new(
        "list.extend(items)",
        "Adds all items at the end.",
        ("[x for x in [[1]] if x.extend([2, 3]) == None]", "[[1, 2, 3]]"),
        extend,
    ),
    Def::new(
        "list.index(x, start=0, end=None)",
        "Where the item is first found.",
        ("[\"a\", \"b\"].index(\"b\")", "1"),
        index,
    ),
    Def::new(
        "list.insert(i, x)",
        "Puts an item before the one at `i`.",
        ("[x for x in [[1, 3]] if x.insert(1, 2) == None]", "[[1, 2, 3]]"),
        insert,
    ),
    Def::new("list.pop(i=-1)", "Takes an item out.", ("[1, 2].pop()", "2"), list_pop),
    Def::new(
        "list.remove(x)",
        "Takes the first such item out.",
        ("[x for x in [[1, 2, 1]] if x.remove(1) == None]", "[[2, 1]]"),
        remove,
    ),
    Def::new("dict.clear()", "Takes all entries out.", ("{\"a\": 1}.clear()", "None"), clear),
    Def::new(
        "dict.get(key, default=None)",
        "The value of a key, or the default.",
        ("{\"a\": 1}.get(\"b\", 0)", "0"),
        get,
    ),
    Def::new("dict.items()", "Pairs of key and value.", ("{\"a\": 1}.items()", "[(\"a\", 1)]"), items),
    Def::new("dict.keys()", "The keys.", ("{\"a\": 1}.keys()", "[\"a\"]"), keys),
    Def::new(
        "dict.pop(key, default=None)",
        "Takes a key out and gives its value; without a default a missing key fails.",
        ("{\"a\": 1}.pop(\"a\")", "1"),
        dict_pop,
    ),
    Def::new("dict.popitem()", "Takes the first entry out.", ("{\"a\": 1}.popitem()", "(\"a\", 1)"), popitem),
    Def::new(
        "dict.setdefault(key, default=None)",
        "The value of a key, which is put in where it is missing.",
        ("{}.setdefault(\"a\", 1)", "1"),
        setdefault,
    ),
    Def::raw(
        "dict.update(*pairs)",
        "Puts in the entries of a dict, of pairs, of names.",
        ("{}.update([(\"a\", 1)], b=2)", "None"),
        update_method,
    ),
    Def::new("dict.values()", "The values.", ("{\"a\": 1}.values()", "[1]"), values),
];

fn append(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    m.heap.meter.alloc(VALUE)?;
    m.list_mut(a[0])?.push(a[1]);
    Ok(Val::None)
}

fn clear(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    if m.heap.dict(a[0]).is_some() {
        m.dict_mut(a[0])?.clear()
    } else {
        m.list_mut(a[0])?.clear()
    }
    Ok(Val::None)
}

fn extend(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let items = m.collect(a[1])?;
    m.extend(a[0], items)?;
    Ok(Val::None)
}

fn index(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let start = m.int_or(a[2], "start", 0)?;
    let items = m.items(a[0], "self")?;
    let length = items.len() as i64;
    let end = if matches!(a[3], Val::None) { length } else { m.int_or(a[3], "end", length)? };
    let clamp =
        |bound: i64| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(0, length) as usize;
    for (at, item) in items.iter().enumerate().take(clamp(end)).skip(clamp(start)) {
        m.heap.meter.step()?;
        if m.heap.equal(*item, a[1])? {
            return Ok(Val::Int(at as i64));
        }
    }
    Err(Fault::failed(format!("{} is not in the list", brief(&m.heap, a[1]))))
}

fn insert(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let at = m.int(a[1], "i")?;
    let length = m.items(a[0], "self")?.len() as i64;
    m.heap.meter.work(length as usize / 8)?;
    m.heap.meter.alloc(VALUE)?;
    let at = (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length) as usize;
    m.list_mut(a[0])?.insert(at, a[2]);
    Ok(Val::None)
}

fn list_pop(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let at = m.int_or(a[1], "i", -1)?;
    let length = m.items(a[0], "self")?.len();
    let at = super::index::position(at, length)?;
    m.heap.meter.work((length - at) / 8)?;
    Ok(m.list_mut(a[0])?.remove(at))
}

fn remove(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let Val::Int(at) = index(m, &[a[0], a[1], Val::Unset, Val::Unset])? else { return Ok(Val::None) };
    m.list_mut(a[0])?.remove(at as usize);
    Ok(Val::None)
}

fn get(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let default = if matches!(a[2], Val::Unset) { Val::None } else { a[2] };
    let key = m.heap.key(a[1])?;
    let Some(dict) = m.heap.dict(a[0]) else { return Err(m.wrong("self", "a dict", a[0])) };
    Ok(dict.entries.get(&key).map_or(default, |(_, value)| *value))
}

fn entries(m: &Machine<'_>, dict: Val) -> Result<Vec<(Val, Val)>, Stop> {
    let Some(dict) = m.heap.dict(dict) else { return Err(m.wrong("self", "a dict", dict)) };
    m.heap.meter.work(dict.entries.len() / 4)?;
    m.heap.meter.alloc(dict.entries.len() * VALUE)?;
    Ok(dict.entries.values().copied().collect())
}

fn items(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let mut pairs = Vec::new();
    for (key, value) in entries(m, a[0])? {
        m.heap.meter.step()?;
        pairs.push(m.heap.new_tuple(vec![key, value])?);
    }
    m.heap.new_list(pairs)
}

fn keys(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let keys = entries(m, a[0])?.into_iter().map(|(key, _)| key).collect();
    m.heap.new_list(keys)
}

fn values(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let values = entries(m, a[0])?.into_iter().map(|(_, value)| value).collect();
    m.heap.new_list(values)
}

fn dict_pop(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let key = m.heap.key(a[1])?;
    let length = m.heap.dict(a[0]).map_or(0, |dict| dict.entries.len());
    m.heap.meter.work(length / 8)?;
    match m.dict_mut(a[0])?.shift_remove(&key) {
        Some((_, value)) => Ok(value),
        None if matches!(a[2], Val::Unset) => {
            Err(Fault::failed(format!("the dict has no key {}", brief(&m.heap, a[1]))))
        }
        None => Ok(a[2]),
    }
}

fn popitem(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let length = m.heap.dict(a[0]).map_or(0, |dict| dict.entries.len());
    m.heap.meter.work(length / 8)?;
    match m.dict_mut(a[0])?.shift_remove_index(0) {
        Some((_, (key, value))) => m.heap.new_tuple(vec![key, value]),
        None => Err(Fault::failed("the dict is empty")),
    }
}

fn setdefault(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let default = if matches!(a[2], Val::Unset) { Val::None } else { a[2] };
    let key = m.heap.key(a[1])?;
    m.heap.meter.alloc(ENTRY)?;
    let (_, value) = m.dict_mut(a[0])?.entry(key).or_insert((a[1], default));
    Ok(*value)
}

fn update_method(m: &mut Machine<'_>, positional: &[Val], named: &[(&str, Val)]) -> Result<Val, Stop> {
    let Some((dict, rest)) = positional.split_first() else {
        return Err(Fault::failed("a dict is needed"));
    };
    update(m, *dict, rest, named)?;
    Ok(Val::None)
}

/// Puts entries of a dict or of pairs, and named ones, into a dict.
pub(super) fn update(
    m: &mut Machine<'_>,
    dict: Val,
    positional: &[Val],
    named: &[(&str, Val)],
) -> Result<(), Stop> {
    if positional.len() > 1 {
        return Err(Fault::failed("at most one dict or list of pairs can be given"));
    }
    for source in positional {
        let pairs = match m.heap.dict(*source) {
            Some(_) => entries(m, *source)?,
            None => {
                let mut pairs = Vec::new();
                for pair in m.collect(*source)? {
                    match m.heap.items(pair) {
                        Some([key, value]) => pairs.push((*key, *value)),
                        _ => return Err(m.wrong("each item", "a pair of key and value", pair)),
                    }
                }
                pairs
            }
        };
        m.heap.meter.alloc(pairs.len() * ENTRY)?;
        for (key, value) in pairs {
            let by = m.heap.key(key)?;
            m.dict_mut(dict)?.entry(by).and_modify(|entry| entry.1 = value).or_insert((key, value));
        }
    }
    for (name, value) in named {
        m.heap.meter.alloc(ENTRY)?;
        let key = m.heap.new_str(*name)?;
        let by = m.heap.key(key)?;
        m.dict_mut(dict)?.entry(by).and_modify(|entry| entry.1 = *value).or_insert((key, *value));
    }
    Ok(())
}
