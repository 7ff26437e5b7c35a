//! `math`: functions of one number, and a few of two.

use super::super::builtins::whole;
use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new("math.ceil(x)", "The least int that is not below x.", ("math.ceil(1.2)", "2"), |m, a| {
        whole(x(m, a)?.ceil())
    })
    .passes_none(),
    Def::new(
        "math.clip(x, low, high)",
        "x, or the nearer bound where it lies outside.",
        ("math.clip(120, 0, 100)", "100"),
        clip,
    )
    .passes_none(),
    Def::new("math.cos(x)", "The cosine of an angle in radians.", ("math.cos(0)", "1.0"), |m, a| {
        m.finite(x(m, a)?.cos())
    })
    .passes_none(),
    Def::new("math.exp(x)", "e to the power of x.", ("math.exp(0)", "1.0"), |m, a| m.finite(x(m, a)?.exp()))
        .passes_none(),
    Def::new("math.floor(x)", "The greatest int that is not above x.", ("math.floor(-1.2)", "-2"), |m, a| {
        whole(x(m, a)?.floor())
    })
    .passes_none(),
    Def::new(
        "math.is_finite(x)",
        "Whether x is a number other than nan and infinity.",
        ("math.is_finite(1)", "True"),
        |m, a| Ok(Val::Bool(x(m, a)?.is_finite())),
    )
    .passes_none(),
    Def::new(
        "math.log(x, base=None)",
        "The logarithm to the base e, or another one; x above 0.",
        ("math.log(8, 2)", "3.0"),
        log,
    )
    .passes_none(),
    Def::new(
        "math.log10(x)",
        "The logarithm to the base 10; x above 0.",
        ("math.log10(1000)", "3.0"),
        |m, a| m.finite(positive(m, a)?.log10()),
    )
    .passes_none(),
    Def::new(
        "math.log1p(x)",
        "ln(1 + x), exact for small x; x above -1. Tames long tails of counts and prices.",
        ("math.log1p(0)", "0.0"),
        |m, a| m.finite(x(m, a)?.ln_1p()),
    )
    .passes_none(),
    Def::new("math.pi()", "The number pi.", ("math.round(math.pi(), 4)", "3.1416"), |_, _| {
        Ok(Val::Float(std::f64::consts::PI))
    }),
    Def::new("math.pow(x, y)", "x to the power of y, as a float.", ("math.pow(2, 10)", "1024.0"), pow)
        .passes_none(),
    Def::new(
        "math.round(x, digits=0)",
        "x with so many decimals; without digits the nearest int, halves away from zero.",
        ("math.round(2.345, 1)", "2.3"),
        round,
    )
    .passes_none(),
    Def::new(
        "math.safe_div(a, b, default=None)",
        "a / b, or the default where b is 0 or None.",
        ("math.safe_div(1, 0, 0.0)", "0.0"),
        safe_div,
    )
    .passes_none(),
    Def::new(
        "math.sigmoid(x)",
        "1 / (1 + e^-x): any number to one between 0 and 1.",
        ("math.sigmoid(0)", "0.5"),
        sigmoid,
    )
    .passes_none(),
    Def::new("math.sign(x)", "-1, 0 or 1.", ("math.sign(-2.5)", "-1"), sign).passes_none(),
    Def::new("math.sin(x)", "The sine of an angle in radians.", ("math.sin(0)", "0.0"), |m, a| {
        m.finite(x(m, a)?.sin())
    })
    .passes_none(),
    Def::new("math.sqrt(x)", "The square root; x not below 0.", ("math.sqrt(9)", "3.0"), sqrt).passes_none(),
    Def::new(
        "math.tanh(x)",
        "The hyperbolic tangent: any number to one between -1 and 1.",
        ("math.tanh(0)", "0.0"),
        |m, a| m.finite(x(m, a)?.tanh()),
    )
    .passes_none(),
];

fn x(m: &Machine<'_>, a: &[Val]) -> Result<f64, Stop> {
    m.number(a[0], "x")
}

fn positive(m: &Machine<'_>, a: &[Val]) -> Result<f64, Stop> {
    let number = x(m, a)?;
    if number > 0.0 { Ok(number) } else { Err(Fault::failed(format!("x must be above 0, not {number}"))) }
}

fn clip(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    for (value, name) in a.iter().zip(["x", "low", "high"]) {
        m.number(*value, name)?;
    }
    if m.heap.order(a[1], a[2])?.is_gt() {
        return Err(Fault::failed("low is above high"));
    }
    Ok(if m.heap.order(a[0], a[1])?.is_lt() {
        a[1]
    } else if m.heap.order(a[0], a[2])?.is_gt() {
        a[2]
    } else {
        a[0]
    })
}

fn log(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let number = positive(m, a)?;
    match a[1] {
        Val::Unset | Val::None => m.finite(number.ln()),
        base => {
            let base = m.number(base, "base")?;
            // The two exact ones are exact: ln(8) / ln(2) is not 3.
            m.finite(match base {
                2.0 => number.log2(),
                10.0 => number.log10(),
                base => number.ln() / base.ln(),
            })
        }
    }
}

fn pow(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let y = m.number(a[1], "y")?;
    m.finite(x(m, a)?.powf(y))
}

fn round(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let number = x(m, a)?;
    if matches!(a[1], Val::Unset) {
        return whole(number.round());
    }
    let digits = m.int(a[1], "digits")?;
    if !(0..=15).contains(&digits) {
        return Err(Fault::failed("digits must be from 0 to 15"));
    }
    // Through text: multiplying by a power of ten would round numbers that are not halves.
    let text = format!("{number:.*}", digits as usize);
    m.finite(text.parse().unwrap_or(number))
}

fn safe_div(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let dividend = m.number(a[0], "a")?;
    let default = if matches!(a[2], Val::Unset) { Val::None } else { a[2] };
    if matches!(a[1], Val::None) {
        return Ok(default);
    }
    let divisor = m.number(a[1], "b")?;
    if divisor == 0.0 { Ok(default) } else { m.finite(dividend / divisor) }
}

fn sigmoid(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    m.finite(1.0 / (1.0 + (-x(m, a)?).exp()))
}

fn sign(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let number = x(m, a)?;
    Ok(Val::Int(i64::from(number > 0.0) - i64::from(number < 0.0)))
}

fn sqrt(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    let number = x(m, a)?;
    if number < 0.0 {
        return Err(Fault::failed(format!("x must not be below 0, not {number}")));
    }
    m.finite(number.sqrt())
}
