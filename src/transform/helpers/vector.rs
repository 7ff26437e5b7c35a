//! `vec`: lists of numbers as vectors, such as embeddings.

use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new(
        "vec.add(a, b)",
        "The sum of two vectors.",
        ("vec.add([1, 2], [3, 4])", "[4.0, 6.0]"),
        |m, a| pairwise(m, a, |x, y| x + y),
    )
    .passes_none(),
    Def::new(
        "vec.cosine(a, b)",
        "The cosine of the angle between two vectors, -1 to 1; 0 where one is all zeros.",
        ("vec.cosine([1, 0], [1, 0])", "1.0"),
        cosine,
    )
    .passes_none(),
    Def::new(
        "vec.distance(a, b)",
        "The Euclidean distance.",
        ("vec.distance([0, 0], [3, 4])", "5.0"),
        distance,
    )
    .passes_none(),
    Def::new("vec.dot(a, b)", "The dot product.", ("vec.dot([1, 2], [3, 4])", "11.0"), dot).passes_none(),
    Def::new(
        "vec.mean(vectors)",
        "The mean of vectors of one length; None of an empty list.",
        ("vec.mean([[1, 2], [3, 4]])", "[2.0, 3.0]"),
        mean,
    )
    .passes_none(),
    Def::new("vec.norm(a)", "The Euclidean length.", ("vec.norm([3, 4])", "5.0"), |m, a| {
        let numbers = m.numbers(a[0], "a")?;
        m.finite(length(&numbers))
    })
    .passes_none(),
    Def::new(
        "vec.normalize(a)",
        "The vector of length 1 in the same direction; all zeros stay.",
        ("vec.normalize([3, 4])", "[0.6, 0.8]"),
        normalize,
    )
    .passes_none(),
    Def::new("vec.scale(a, by)", "The vector times a number.", ("vec.scale([1, 2], 2)", "[2.0, 4.0]"), scale)
        .passes_none(),
    Def::new(
        "vec.sub(a, b)",
        "The difference of two vectors.",
        ("vec.sub([3, 4], [1, 2])", "[2.0, 2.0]"),
        |m, a| pairwise(m, a, |x, y| x - y),
    )
    .passes_none(),
];

fn length(numbers: &[f64]) -> f64 {
    numbers.iter().map(|number| number * number).sum::<f64>().sqrt()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

type Pair = (Vec<f64>, Vec<f64>);

/// Two vectors of one length; `None` where the second is None.
fn both(m: &Machine<'_>, a: &[Val]) -> Result<Option<Pair>, Stop> {
    if matches!(a[1], Val::None) {
        return Ok(None);
    }
    let (first, second) = (m.numbers(a[0], "a")?, m.numbers(a[1], "b")?);
    if first.len() != second.len() {
        return Err(Fault::failed(format!("a has {} numbers, b has {}", first.len(), second.len())));
    }
    Ok(Some((first, second)))
}

fn pairwise(m: &mut Machine<'_>, a: &[Val], with: fn(f64, f64) -> f64) -> Result<Val, Stop> {
    match both(m, a)? {
        Some((first, second)) => {
            let result: Vec<f64> = first.iter().zip(&second).map(|(x, y)| with(*x, *y)).collect();
            m.heap.floats(result.into_iter())
        }
        None => Ok(Val::None),
    }
}

fn dot(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    match both(m, a)? {
        Some((first, second)) => m.finite(product(&first, &second)),
        None => Ok(Val::None),
    }
}

fn cosine(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let Some((first, second)) = both(m, a)? else { return Ok(Val::None) };
    let lengths = length(&first) * length(&second);
    if lengths == 0.0 {
        return Ok(Val::Float(0.0));
    }
    m.finite((product(&first, &second) / lengths).clamp(-1.0, 1.0))
}

fn distance(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let Some((first, second)) = both(m, a)? else { return Ok(Val::None) };
    let differences: Vec<f64> = first.iter().zip(&second).map(|(x, y)| x - y).collect();
    m.finite(length(&differences))
}

fn normalize(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let mut numbers = m.numbers(a[0], "a")?;
    let length = length(&numbers);
    if length > 0.0 {
        numbers.iter_mut().for_each(|number| *number /= length);
    }
    m.heap.floats(numbers.into_iter())
}

fn scale(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let by = m.number(a[1], "by")?;
    let numbers = m.numbers(a[0], "a")?;
    m.heap.floats(numbers.into_iter().map(|number| number * by))
}

fn mean(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let vectors = m.items(a[0], "vectors")?;
    let mut sum: Vec<f64> = Vec::new();
    for (index, vector) in vectors.iter().enumerate() {
        let numbers = m.numbers(*vector, "each vector")?;
        m.heap.meter.work(numbers.len() / 8)?;
        if index == 0 {
            sum = numbers;
        } else if numbers.len() != sum.len() {
            return Err(Fault::failed(format!("vectors of {} and {} numbers", sum.len(), numbers.len())));
        } else {
            sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
    }
    let count = vectors.len() as f64;
    if vectors.is_empty() {
        return Ok(Val::None);
    }
    m.heap.floats(sum.into_iter().map(move |sum| sum / count))
}
