//! How native functions read their arguments. The messages say what was wanted and what came.

use std::borrow::Cow;

use indexmap::IndexMap;

use super::fault::{Fault, Stop};
use super::heap::{Key, Obj, VALUE, Val};
use super::machine::Machine;
use super::show::brief;

impl Machine<'_> {
    #[cold]
    pub(super) fn wrong(&self, name: &str, wanted: &str, got: Val) -> Stop {
        Fault::failed(format!("{name} must be {wanted}, not {}", brief(&self.heap, got)))
    }

    pub(super) fn text(&self, value: Val, name: &str) -> Result<&str, Stop> {
        let text = self.heap.str(value).ok_or_else(|| self.wrong(name, "a string", value))?;
        self.heap.meter.scan(text.len())?;
        Ok(text)
    }

    pub(super) fn number(&self, value: Val, name: &str) -> Result<f64, Stop> {
        match value {
            Val::Int(number) => Ok(number as f64),
            Val::Float(number) => Ok(number),
            other => Err(self.wrong(name, "a number", other)),
        }
    }

    pub(super) fn int(&self, value: Val, name: &str) -> Result<i64, Stop> {
        match value {
            Val::Int(number) => Ok(number),
            other => Err(self.wrong(name, "an int", other)),
        }
    }

    pub(super) fn int_or(&self, value: Val, name: &str, default: i64) -> Result<i64, Stop> {
        if matches!(value, Val::Unset) { Ok(default) } else { self.int(value, name) }
    }

    pub(super) fn is_true(&self, value: Val) -> bool {
        !matches!(value, Val::Unset) && self.heap.truth(value)
    }

    pub(super) fn items(&self, value: Val, name: &str) -> Result<&[Val], Stop> {
        let items = self.heap.items(value).ok_or_else(|| self.wrong(name, "a list", value))?;
        self.heap.meter.work(items.len() / 4)?;
        Ok(items)
    }

    /// A list of numbers.
    pub(super) fn numbers(&self, value: Val, name: &str) -> Result<Vec<f64>, Stop> {
        let items = self.items(value, name)?;
        self.heap.meter.alloc(items.len() * 8)?;
        items.iter().map(|item| self.number(*item, name)).collect()
    }

    /// The text of a value, as `str` gives it.
    pub(super) fn shown(&self, value: Val) -> Result<Cow<'_, str>, Stop> {
        match self.heap.str(value) {
            Some(text) => {
                self.heap.meter.scan(text.len())?;
                Ok(Cow::Borrowed(text))
            }
            None => {
                let mut text = super::show::Text::new(&self.heap);
                text.value(value, false)?;
                Ok(Cow::Owned(text.out))
            }
        }
    }

    /// A finite result of arithmetic.
    pub(super) fn finite(&self, number: f64) -> Result<Val, Stop> {
        if number.is_finite() {
            Ok(Val::Float(number))
        } else {
            Err(Fault::failed("the result is not a finite number"))
        }
    }

    /// A list that may be changed now.
    pub(super) fn list_mut(&mut self, value: Val) -> Result<&mut Vec<Val>, Stop> {
        match value {
            Val::Obj(at) => match self.heap.get_mut(at) {
                Some(Obj::List(list)) if list.loops == 0 => Ok(&mut list.items),
                Some(Obj::List(_)) => Err(Fault::failed("the list cannot change while it is looped over")),
                Some(_) => Err(Fault::failed("not a list")),
                None => Err(frozen()),
            },
            _ => Err(Fault::failed("not a list")),
        }
    }

    /// The entries of a dict that may be changed now.
    pub(super) fn dict_mut(&mut self, value: Val) -> Result<&mut IndexMap<Key, (Val, Val)>, Stop> {
        match value {
            Val::Obj(at) => match self.heap.get_mut(at) {
                Some(Obj::Dict(dict)) if dict.loops == 0 => Ok(&mut dict.entries),
                Some(Obj::Dict(_)) => Err(Fault::failed("the dict cannot change while it is looped over")),
                Some(_) => Err(Fault::failed("not a dict")),
                None => Err(frozen()),
            },
            _ => Err(Fault::failed("not a dict")),
        }
    }

    /// Appends items that were not paid for yet.
    pub(super) fn extend(&mut self, list: Val, items: Vec<Val>) -> Result<(), Stop> {
        self.heap.meter.alloc(items.len() * VALUE)?;
        self.list_mut(list)?.extend(items);
        Ok(())
    }
}

#[cold]
fn frozen() -> Stop {
    Fault::failed("a constant of the module cannot be changed; copy it first, such as list(x) or dict(x)")
}
