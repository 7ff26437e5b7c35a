//! Truth, equality and order of values.

use std::cmp::Ordering;

use super::fault::{Fault, Stop};
use super::heap::{Heap, Obj, Val};
use super::show::check_depth;

impl Heap<'_> {
    #[inline]
    pub(super) fn truth(&self, value: Val) -> bool {
        match value {
            Val::Unset | Val::None => false,
            Val::Bool(value) => value,
            Val::Int(value) => value != 0,
            Val::Float(value) => value != 0.0,
            Val::Native(_) => true,
            Val::Obj(at) => match self.get(at) {
                Obj::Str(text) => !text.is_empty(),
                Obj::List(list) => !list.items.is_empty(),
                Obj::Tuple(items) => !items.is_empty(),
                Obj::Dict(dict) => !dict.entries.is_empty(),
                Obj::Range(range) => range.len > 0,
                Obj::Function(_) | Obj::Cell(_) => true,
            },
        }
    }

    #[inline]
    pub(super) fn equal(&self, a: Val, b: Val) -> Result<bool, Stop> {
        self.equal_within(a, b, 0)
    }

    fn equal_within(&self, a: Val, b: Val, depth: usize) -> Result<bool, Stop> {
        Ok(match (a, b) {
            (Val::Int(a), Val::Int(b)) => a == b,
            (Val::Float(a), Val::Float(b)) => a == b,
            (Val::Int(a), Val::Float(b)) | (Val::Float(b), Val::Int(a)) => {
                order_mixed(a, b) == Some(Ordering::Equal)
            }
            (Val::None | Val::Unset, Val::None | Val::Unset) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Native(a), Val::Native(b)) => a == b,
            (Val::Obj(a), Val::Obj(b)) => {
                self.meter.step()?;
                match (self.get(a), self.get(b)) {
                    (Obj::Str(a), Obj::Str(b)) => {
                        if a.len() != b.len() {
                            return Ok(false);
                        }
                        self.meter.scan(a.len())?;
                        a == b
                    }
                    (Obj::List(a), Obj::List(b)) => self.equal_items(&a.items, &b.items, depth)?,
                    (Obj::Tuple(a), Obj::Tuple(b)) => self.equal_items(a, b, depth)?,
                    (Obj::Range(a), Obj::Range(b)) => a == b,
                    (Obj::Dict(a), Obj::Dict(b)) => {
                        if a.entries.len() != b.entries.len() {
                            return Ok(false);
                        }
                        check_depth(depth)?;
                        for (key, (_, value)) in &a.entries {
                            self.meter.step()?;
                            match b.entries.get(key) {
                                Some((_, other)) if self.equal_within(*value, *other, depth + 1)? => {}
                                _ => return Ok(false),
                            }
                        }
                        true
                    }
                    _ => a == b,
                }
            }
            _ => false,
        })
    }

    fn equal_items(&self, a: &[Val], b: &[Val], depth: usize) -> Result<bool, Stop> {
        if a.len() != b.len() {
            return Ok(false);
        }
        check_depth(depth)?;
        for (a, b) in a.iter().zip(b) {
            self.meter.step()?;
            if !self.equal_within(*a, *b, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[inline]
    pub(super) fn order(&self, a: Val, b: Val) -> Result<Ordering, Stop> {
        self.order_within(a, b, 0)
    }

    fn order_within(&self, a: Val, b: Val, depth: usize) -> Result<Ordering, Stop> {
        match (a, b) {
            (Val::Int(a), Val::Int(b)) => Ok(a.cmp(&b)),
            (Val::Float(a), Val::Float(b)) => a.partial_cmp(&b).ok_or_else(unordered),
            (Val::Int(a), Val::Float(b)) => order_mixed(a, b).ok_or_else(unordered),
            (Val::Float(a), Val::Int(b)) => order_mixed(b, a).map(Ordering::reverse).ok_or_else(unordered),
            (Val::Bool(a), Val::Bool(b)) => Ok(a.cmp(&b)),
            (Val::Obj(x), Val::Obj(y)) => {
                self.meter.step()?;
                match (self.get(x), self.get(y)) {
                    (Obj::Str(a), Obj::Str(b)) => {
                        self.meter.scan(a.len().min(b.len()))?;
                        Ok(a.cmp(b))
                    }
                    (Obj::List(a), Obj::List(b)) => self.order_items(&a.items, &b.items, depth),
                    (Obj::Tuple(a), Obj::Tuple(b)) => self.order_items(a, b, depth),
                    _ => Err(self.incomparable(a, b)),
                }
            }
            _ => Err(self.incomparable(a, b)),
        }
    }

    fn order_items(&self, a: &[Val], b: &[Val], depth: usize) -> Result<Ordering, Stop> {
        check_depth(depth)?;
        for (a, b) in a.iter().zip(b) {
            self.meter.step()?;
            if !self.equal_within(*a, *b, depth + 1)? {
                return self.order_within(*a, *b, depth + 1);
            }
        }
        Ok(a.len().cmp(&b.len()))
    }

    #[cold]
    fn incomparable(&self, a: Val, b: Val) -> Stop {
        let (a, b) = (self.type_name(a), self.type_name(b));
        let hint = if a == "NoneType" || b == "NoneType" { "; test `x == None` first" } else { "" };
        Fault::failed(format!("cannot compare {a} with {b}{hint}"))
    }

    /// Sorts without ever trusting the order of the values to be a total one.
    pub(super) fn sort(&self, items: &mut Vec<(Val, Val)>, descending: bool) -> Result<(), Stop> {
        let mut source = std::mem::take(items);
        let mut merged: Vec<(Val, Val)> = Vec::with_capacity(source.len());
        let mut width = 1;
        while width < source.len() {
            for run in source.chunks(width * 2) {
                let (mut left, mut right) = run.split_at(width.min(run.len()));
                while let (Some(a), Some(b)) = (left.first(), right.first()) {
                    self.meter.step()?;
                    let order = self.order(a.0, b.0)?;
                    let take_right = if descending { order.is_lt() } else { order.is_gt() };
                    if take_right {
                        merged.push(*b);
                        right = &right[1..];
                    } else {
                        merged.push(*a);
                        left = &left[1..];
                    }
                }
                merged.extend_from_slice(left);
                merged.extend_from_slice(right);
            }
            std::mem::swap(&mut source, &mut merged);
            merged.clear();
            width *= 2;
        }
        *items = source;
        Ok(())
    }
}

#[cold]
fn unordered() -> Stop {
    Fault::failed("nan has no order")
}

/// Exact: an int64 beyond 2^53 is not rounded to a float first.
fn order_mixed(a: i64, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b >= 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if b < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    let whole = b.trunc();
    Some(a.cmp(&(whole as i64)).then_with(|| 0.0_f64.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal)))
}
