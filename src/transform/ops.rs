//! Operators. What an operation makes is paid for before it is made.

use starlark_syntax::syntax::ast::BinOp;

use super::fault::{Fault, Stop};
use super::heap::{ENTRY, Key, Obj, VALUE, Val};
use super::machine::Machine;

impl Machine<'_> {
    pub(super) fn binary(&mut self, op: BinOp, left: Val, right: Val) -> Result<Val, Stop> {
        match op {
            BinOp::Equal => return self.heap.equal(left, right).map(Val::Bool),
            BinOp::NotEqual => return self.heap.equal(left, right).map(|equal| Val::Bool(!equal)),
            BinOp::Less => return self.heap.order(left, right).map(|order| Val::Bool(order.is_lt())),
            BinOp::Greater => return self.heap.order(left, right).map(|order| Val::Bool(order.is_gt())),
            BinOp::LessOrEqual => return self.heap.order(left, right).map(|order| Val::Bool(order.is_le())),
            BinOp::GreaterOrEqual => {
                return self.heap.order(left, right).map(|order| Val::Bool(order.is_ge()));
            }
            BinOp::In => return self.contains(right, left).map(Val::Bool),
            BinOp::NotIn => return self.contains(right, left).map(|found| Val::Bool(!found)),
            _ => {}
        }
        let result = match (left, right) {
            (Val::Int(a), Val::Int(b)) => ints(op, a, b),
            (Val::Float(a), Val::Float(b)) => floats(op, a, b),
            (Val::Int(a), Val::Float(b)) => floats(op, a as f64, b),
            (Val::Float(a), Val::Int(b)) => floats(op, a, b as f64),
            _ => match op {
                BinOp::Add => self.add(left, right),
                BinOp::Multiply => self.repeat(left, right),
                BinOp::Percent => self.percent(left, right),
                BinOp::BitOr => self.merge(left, right),
                _ => Ok(None),
            },
        };
        result?.ok_or_else(|| self.unsupported(op, left, right))
    }

    #[cold]
    fn unsupported(&self, op: BinOp, left: Val, right: Val) -> Stop {
        let (a, b) = (self.heap.type_name(left), self.heap.type_name(right));
        let sign = op.to_string();
        let hint = if a == "NoneType" || b == "NoneType" { "; test `x == None` first" } else { "" };
        let text = a == "string" || b == "string";
        let hint = if text && op == BinOp::Add && a != b { "; use str(x) to make it text" } else { hint };
        Fault::failed(format!("{} cannot be used between {a} and {b}{hint}", sign.trim()))
    }

    fn add(&mut self, left: Val, right: Val) -> Result<Option<Val>, Stop> {
        let (Val::Obj(a), Val::Obj(b)) = (left, right) else { return Ok(None) };
        match (self.heap.get(a), self.heap.get(b)) {
            (Obj::Str(a), Obj::Str(b)) => {
                let length = a.len() + b.len();
                self.heap.meter.scan(length)?;
                self.heap.meter.alloc(length)?;
                let mut text = String::with_capacity(length);
                text.push_str(a);
                text.push_str(b);
                self.heap.push(Obj::Str(text.into())).map(Some)
            }
            (Obj::List(a), Obj::List(b)) => {
                let length = a.items.len() + b.items.len();
                self.heap.meter.work(length / 8)?;
                self.heap.meter.alloc(length * VALUE)?;
                let items = [a.items.as_slice(), b.items.as_slice()].concat();
                self.heap.push(Obj::List(super::heap::List { items, loops: 0 })).map(Some)
            }
            (Obj::Tuple(a), Obj::Tuple(b)) => {
                let length = a.len() + b.len();
                self.heap.meter.work(length / 8)?;
                self.heap.meter.alloc(length * VALUE)?;
                let items = [&**a, &**b].concat();
                self.heap.push(Obj::Tuple(items.into())).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn repeat(&mut self, left: Val, right: Val) -> Result<Option<Val>, Stop> {
        let (object, times) = match (left, right) {
            (Val::Obj(object), Val::Int(times)) | (Val::Int(times), Val::Obj(object)) => (object, times),
            _ => return Ok(None),
        };
        let times = usize::try_from(times.max(0)).map_err(|_| overflow())?;
        match self.heap.get(object) {
            Obj::Str(text) => {
                let length = text.len().saturating_mul(times);
                self.heap.meter.alloc(length)?;
                self.heap.meter.scan(length)?;
                let text = text.repeat(times);
                self.heap.push(Obj::Str(text.into())).map(Some)
            }
            Obj::List(list) => {
                let length = list.items.len().saturating_mul(times);
                self.heap.meter.alloc(length.saturating_mul(VALUE))?;
                self.heap.meter.work(length / 8)?;
                let items = list.items.repeat(times);
                self.heap.push(Obj::List(super::heap::List { items, loops: 0 })).map(Some)
            }
            Obj::Tuple(items) => {
                let length = items.len().saturating_mul(times);
                self.heap.meter.alloc(length.saturating_mul(VALUE))?;
                self.heap.meter.work(length / 8)?;
                let items = items.repeat(times);
                self.heap.push(Obj::Tuple(items.into())).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn merge(&mut self, left: Val, right: Val) -> Result<Option<Val>, Stop> {
        let (Some(a), Some(b)) = (self.heap.dict(left), self.heap.dict(right)) else {
            return Ok(None);
        };
        let length = a.entries.len() + b.entries.len();
        self.heap.meter.work(length)?;
        self.heap.meter.alloc(length * ENTRY)?;
        let mut entries = a.entries.clone();
        for (key, value) in &b.entries {
            entries.insert(key.clone(), *value);
        }
        self.heap.push(Obj::Dict(Box::new(super::heap::Dict { entries, loops: 0 }))).map(Some)
    }

    /// `list += iterable`, `dict |= dict`.
    pub(super) fn modify_in_place(&mut self, object: Val, op: BinOp, other: Val) -> Result<bool, Stop> {
        match (op, object) {
            (BinOp::Add, Val::Obj(at)) if matches!(self.heap.get(at), Obj::List(_)) => {
                let items = self.collect(other)?;
                self.extend(object, items)?;
                Ok(true)
            }
            (BinOp::BitOr, Val::Obj(at)) if matches!(self.heap.get(at), Obj::Dict(_)) => {
                let Some(dict) = self.heap.dict(other) else { return Ok(false) };
                self.heap.meter.work(dict.entries.len())?;
                self.heap.meter.alloc(dict.entries.len() * ENTRY)?;
                let entries: Vec<(Key, (Val, Val))> =
                    dict.entries.iter().map(|(key, value)| (key.clone(), *value)).collect();
                self.dict_mut(object)?.extend(entries);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[cold]
pub(super) fn overflow() -> Stop {
    Fault::failed("the result does not fit an int (64 bits); use float(x) for larger numbers")
}

#[cold]
fn by_zero() -> Stop {
    Fault::failed("division by zero")
}

fn ints(op: BinOp, a: i64, b: i64) -> Result<Option<Val>, Stop> {
    let checked = match op {
        BinOp::Add => a.checked_add(b),
        BinOp::Subtract => a.checked_sub(b),
        BinOp::Multiply => a.checked_mul(b),
        BinOp::Divide if b == 0 => return Err(by_zero()),
        BinOp::Divide => return Ok(Some(Val::Float(a as f64 / b as f64))),
        BinOp::FloorDivide | BinOp::Percent if b == 0 => return Err(by_zero()),
        BinOp::FloorDivide => {
            a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
        }
        BinOp::Percent => {
            a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }).or(Some(0))
        }
        BinOp::BitAnd => Some(a & b),
        BinOp::BitOr => Some(a | b),
        BinOp::BitXor => Some(a ^ b),
        BinOp::LeftShift | BinOp::RightShift if b < 0 => {
            return Err(Fault::failed("a shift cannot be negative"));
        }
        BinOp::LeftShift if a == 0 => Some(0),
        BinOp::LeftShift => u32::try_from(b).ok().filter(|b| *b < 63).and_then(|b| a.checked_mul(1 << b)),
        BinOp::RightShift => Some(a >> b.min(63)),
        _ => return Ok(None),
    };
    checked.map(|number| Some(Val::Int(number))).ok_or_else(overflow)
}

fn floats(op: BinOp, a: f64, b: f64) -> Result<Option<Val>, Stop> {
    Ok(Some(Val::Float(match op {
        BinOp::Add => a + b,
        BinOp::Subtract => a - b,
        BinOp::Multiply => a * b,
        BinOp::Divide | BinOp::FloorDivide | BinOp::Percent if b == 0.0 => return Err(by_zero()),
        BinOp::Divide => a / b,
        BinOp::FloorDivide => (a / b).floor(),
        BinOp::Percent => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        _ => return Ok(None),
    })))
}
