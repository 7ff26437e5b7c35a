//! `cat`: categories as numbers.

use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;
use super::super::str_methods::hex;

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new(
        "cat.hash_bucket(x, buckets)",
        "A stable number from 0 to below `buckets` for any text or number.",
        ("cat.hash_bucket(\"smartphones\", 100)", "7"),
        hash_bucket,
    )
    .passes_none(),
    Def::new(
        "cat.hex_digest(s)",
        "The BLAKE3 hash of the text, in 64 hexadecimal digits: an identity that cannot be read back.",
        ("cat.hex_digest(\"a\")[:8]", "\"17762fdd\""),
        hex_digest,
    )
    .passes_none(),
    Def::new(
        "cat.multi_hot(items, categories)",
        "1.0 for each category that is among the items, else 0.0.",
        ("cat.multi_hot([\"b\"], [\"a\", \"b\"])", "[0.0, 1.0]"),
        multi_hot,
    )
    .passes_none(),
    Def::new(
        "cat.one_hot(x, categories)",
        "1.0 for the category that x is, 0.0 for the others; all 0.0 where x is none of them, or None.",
        ("cat.one_hot(\"b\", [\"a\", \"b\", \"c\"])", "[0.0, 1.0, 0.0]"),
        one_hot,
    ),
    Def::new(
        "cat.ordinal(x, categories, default=-1)",
        "Where x stands among the categories, from 0; the default where it does not, or is None.",
        ("cat.ordinal(\"b\", [\"a\", \"b\"])", "1"),
        ordinal,
    ),
];

fn hash_bucket(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let buckets = m.int(a[1], "buckets")?;
    let Some(buckets) = u64::try_from(buckets).ok().filter(|buckets| *buckets > 0) else {
        return Err(Fault::failed("buckets must be above 0"));
    };
    if !matches!(a[0], Val::Int(_) | Val::Float(_) | Val::Bool(_)) && m.heap.str(a[0]).is_none() {
        return Err(m.wrong("x", "a string, number or bool", a[0]));
    }
    let hash = blake3::hash(m.shown(a[0])?.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    Ok(Val::Int((u64::from_le_bytes(first) % buckets) as i64))
}

fn hex_digest(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let hash = blake3::hash(m.text(a[0], "s")?.as_bytes());
    m.heap.new_str(hex(hash.as_bytes()))
}

fn flags(
    m: &mut Machine<'_>,
    categories: Val,
    is: impl Fn(&Machine<'_>, Val) -> Result<bool, Stop>,
) -> Result<Val, Stop> {
    let mut flags = Vec::new();
    for category in m.items(categories, "categories")? {
        m.heap.meter.step()?;
        flags.push(f64::from(u8::from(is(m, *category)?)));
    }
    m.heap.floats(flags.into_iter())
}

fn one_hot(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    flags(m, a[1], |m, category| m.heap.equal(category, a[0]))
}

fn multi_hot(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    flags(m, a[1], |m, category| m.contains(a[0], category))
}

fn ordinal(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    for (index, category) in m.items(a[1], "categories")?.iter().enumerate() {
        m.heap.meter.step()?;
        if m.heap.equal(*category, a[0])? {
            return Ok(Val::Int(index as i64));
        }
    }
    Ok(if matches!(a[2], Val::Unset) { Val::Int(-1) } else { a[2] })
}
