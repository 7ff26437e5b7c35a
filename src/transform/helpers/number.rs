//! `num`: scaling and bucketing.

use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new(
        "num.bucketize(x, boundaries)",
        "The number of boundaries (ascending) that are not above x: 0 is below the first.",
        ("num.bucketize(75, [50, 100, 200])", "1"),
        bucketize,
    )
    .passes_none(),
    Def::new(
        "num.label(x, boundaries, labels)",
        "The label of x's bucket; one label more than boundaries.",
        ("num.label(75, [50, 100], [\"low\", \"mid\", \"high\"])", "\"mid\""),
        label,
    )
    .passes_none(),
    Def::new(
        "num.min_max(x, low, high)",
        "(x - low) / (high - low), kept between 0 and 1.",
        ("num.min_max(5, 0, 10)", "0.5"),
        min_max,
    )
    .passes_none(),
    Def::new(
        "num.standardize(x, mean, std)",
        "(x - mean) / std.",
        ("num.standardize(12, 10, 4)", "0.5"),
        standardize,
    )
    .passes_none(),
    Def::new(
        "num.mean(items)",
        "The mean of the numbers; None of an empty list.",
        ("num.mean([1, 2, 6])", "3.0"),
        mean,
    )
    .passes_none(),
    Def::new(
        "num.median(items)",
        "The median of the numbers; None of an empty list.",
        ("num.median([5, 1, 3])", "3.0"),
        median,
    )
    .passes_none(),
    Def::new(
        "num.std(items)",
        "The standard deviation of the numbers (of all of them, not of a sample); None of an empty list.",
        ("num.std([2, 4])", "1.0"),
        std,
    )
    .passes_none(),
    Def::new(
        "num.percentile(items, p)",
        "The number below which p percent lie, interpolated; None of an empty list.",
        ("num.percentile([0, 10], 25)", "2.5"),
        percentile,
    )
    .passes_none(),
];

fn bucket(m: &Machine<'_>, a: &[Val]) -> Result<usize, Stop> {
    let x = m.number(a[0], "x")?;
    let boundaries = m.numbers(a[1], "boundaries")?;
    if boundaries.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Fault::failed("boundaries must ascend"));
    }
    Ok(boundaries.partition_point(|boundary| *boundary <= x))
}

fn bucketize(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    Ok(Val::Int(bucket(m, a)? as i64))
}

fn label(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let (boundaries, labels) = (m.items(a[1], "boundaries")?.len(), m.items(a[2], "labels")?);
    if labels.len() != boundaries + 1 {
        let message = format!("{boundaries} boundaries need {} labels, not {}", boundaries + 1, labels.len());
        return Err(Fault::failed(message));
    }
    Ok(labels[bucket(m, a)?])
}

fn min_max(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let (x, low, high) = (m.number(a[0], "x")?, m.number(a[1], "low")?, m.number(a[2], "high")?);
    if high <= low {
        return Err(Fault::failed("high must be above low"));
    }
    m.finite(((x - low) / (high - low)).clamp(0.0, 1.0))
}

fn standardize(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let (x, mean, std) = (m.number(a[0], "x")?, m.number(a[1], "mean")?, m.number(a[2], "std")?);
    if std <= 0.0 {
        return Err(Fault::failed("std must be above 0"));
    }
    m.finite((x - mean) / std)
}

fn mean_of(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

fn mean(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    match mean_of(&m.numbers(a[0], "items")?) {
        Some(mean) => m.finite(mean),
        None => Ok(Val::None),
    }
}

fn std(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let numbers = m.numbers(a[0], "items")?;
    match mean_of(&numbers) {
        Some(mean) => {
            let squares = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>();
            m.finite((squares / numbers.len() as f64).sqrt())
        }
        None => Ok(Val::None),
    }
}

fn quantile(m: &Machine<'_>, items: Val, fraction: f64) -> Result<Val, Stop> {
    let mut numbers = m.numbers(items, "items")?;
    m.heap.meter.work(numbers.len() * 2)?;
    numbers.sort_by(f64::total_cmp);
    let Some(last) = numbers.len().checked_sub(1) else { return Ok(Val::None) };
    let at = fraction * last as f64;
    let (below, above) = (numbers[at.floor() as usize], numbers[at.ceil() as usize]);
    m.finite(below + (above - below) * at.fract())
}

fn median(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    quantile(m, a[0], 0.5)
}

fn percentile(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let p = m.number(a[1], "p")?;
    if !(0.0..=100.0).contains(&p) {
        return Err(Fault::failed("p must be from 0 to 100"));
    }
    quantile(m, a[0], p / 100.0)
}
