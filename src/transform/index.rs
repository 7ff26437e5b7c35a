//! `in`, indices, slices, and the items of what can be looped over.

use super::fault::{Fault, Stop};
use super::heap::{ENTRY, Key, Obj, Range, StrKey, VALUE, Val, float_key};
use super::machine::Machine;
use super::ops::overflow;
use super::show::brief;

impl Machine<'_> {
    pub(super) fn contains(&self, container: Val, item: Val) -> Result<bool, Stop> {
        if let Some(text) = self.heap.str(container) {
            let Some(part) = self.heap.str(item) else {
                return Err(Fault::failed("`in` a string needs a string on its left"));
            };
            self.heap.meter.scan(text.len() + part.len())?;
            return Ok(text.contains(part));
        }
        if let Some(items) = self.heap.items(container) {
            for other in items {
                self.heap.meter.step()?;
                if self.heap.equal(*other, item)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if let Some(dict) = self.heap.dict(container) {
            return Ok(match self.heap.str(item) {
                Some(text) => {
                    self.heap.meter.scan(text.len())?;
                    dict.entries.contains_key(&StrKey(text))
                }
                None => dict.entries.contains_key(&self.heap.key(item)?),
            });
        }
        match container {
            Val::Obj(at) if let Obj::Range(range) = self.heap.get(at) => {
                let number = match item {
                    Val::Int(number) => number,
                    Val::Float(number) if let Key::Int(number) = float_key(number) => number,
                    _ => return Ok(false),
                };
                let offset = i128::from(number) - i128::from(range.start);
                let step = i128::from(range.step);
                Ok(offset % step == 0 && (0..i128::from(range.len)).contains(&(offset / step)))
            }
            _ => Err(Fault::failed(format!("`in` cannot be used on {}", brief(&self.heap, container)))),
        }
    }

    pub(super) fn index(&mut self, object: Val, index: Val) -> Result<Val, Stop> {
        if let Some(dict) = self.heap.dict(object) {
            let entry = match self.heap.str(index) {
                Some(text) => {
                    self.heap.meter.scan(text.len())?;
                    dict.entries.get(&StrKey(text))
                }
                None => dict.entries.get(&self.heap.key(index)?),
            };
            return entry
                .map(|(_, value)| *value)
                .ok_or_else(|| Fault::failed(format!("the dict has no key {}", brief(&self.heap, index))));
        }
        let Val::Int(at) = index else {
            if matches!(object, Val::Obj(_)) {
                let index = brief(&self.heap, index);
                return Err(Fault::failed(format!("an index must be an int, not {index}")));
            }
            return Err(Fault::failed(format!("{} cannot be indexed", brief(&self.heap, object))));
        };
        if let Some(items) = self.heap.items(object) {
            return Ok(items[position(at, items.len())?]);
        }
        match object {
            Val::Obj(r) => match self.heap.get(r) {
                Obj::Range(range) => Ok(Val::Int(range.item(position(at, range.len as usize)? as i64))),
                Obj::Str(text) => {
                    self.heap.meter.scan(text.len())?;
                    let at = position(at, text.chars().count())?;
                    let character = text.chars().nth(at).unwrap_or_default();
                    self.heap.new_str(character.encode_utf8(&mut [0; 4]) as &str)
                }
                _ => Err(Fault::failed(format!("{} cannot be indexed", brief(&self.heap, object)))),
            },
            _ => Err(Fault::failed(format!("{} cannot be indexed", brief(&self.heap, object)))),
        }
    }

    pub(super) fn set_index(&mut self, object: Val, index: Val, value: Val) -> Result<(), Stop> {
        if self.heap.dict(object).is_some() {
            let key = self.heap.key(index)?;
            self.heap.meter.alloc(ENTRY)?;
            let dict = self.dict_mut(object)?;
            match dict.get_mut(&key) {
                Some(entry) => entry.1 = value,
                None => {
                    dict.insert(key, (index, value));
                }
            }
            return Ok(());
        }
        if !matches!(object, Val::Obj(at) if matches!(self.heap.get(at), Obj::List(_))) {
            let message = format!("{} cannot be changed by index", brief(&self.heap, object));
            return Err(Fault::failed(message));
        }
        let Val::Int(at) = index else { return Err(Fault::failed("an index must be an int")) };
        let items = self.list_mut(object)?;
        let at = position(at, items.len())?;
        items[at] = value;
        Ok(())
    }

    pub(super) fn slice(&mut self, object: Val, bounds: [Val; 3]) -> Result<Val, Stop> {
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            *number = match bound {
                Val::None => None,
                Val::Int(value) => Some(value),
                _ => return Err(Fault::failed("the bounds of a slice must be ints")),
            };
        }
        if numbers[2] == Some(0) {
            return Err(Fault::failed("the step of a slice cannot be 0"));
        }
        if let Some(text) = self.heap.str(object) {
            // By characters, as len() counts them.
            self.heap.meter.work(1 + text.len() / 8)?;
            let sliced = if numbers[2].unwrap_or(1) == 1 {
                let length = if text.is_ascii() { text.len() } else { text.chars().count() };
                let (start, end) = forward(numbers, length);
                text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>()
            } else {
                self.heap.meter.alloc(text.len() * 4)?;
                let characters: Vec<char> = text.chars().collect();
                slice_indices(numbers, characters.len()).map(|index| characters[index]).collect()
            };
            return self.heap.new_str(sliced);
        }
        let Some(items) = self.heap.items(object) else {
            return Err(Fault::failed(format!("{} cannot be sliced", brief(&self.heap, object))));
        };
        self.heap.meter.work(items.len() / 4)?;
        let sliced: Vec<Val> = slice_indices(numbers, items.len()).map(|index| items[index]).collect();
        let is_list = matches!(object, Val::Obj(at) if matches!(self.heap.get(at), Obj::List(_)));
        if is_list { self.heap.new_list(sliced) } else { self.heap.new_tuple(sliced) }
    }

    /// The items of anything that can be looped over.
    pub(super) fn collect(&self, value: Val) -> Result<Vec<Val>, Stop> {
        let object = match value {
            Val::Obj(at) => self.heap.get(at),
            _ => return Err(self.not_iterable(value)),
        };
        let charge = |length: usize| {
            self.heap.meter.alloc(length.saturating_mul(VALUE))?;
            self.heap.meter.work(length / 4)
        };
        match object {
            Obj::List(list) => {
                charge(list.items.len())?;
                Ok(list.items.clone())
            }
            Obj::Tuple(items) => {
                charge(items.len())?;
                Ok(items.to_vec())
            }
            Obj::Dict(dict) => {
                charge(dict.entries.len())?;
                Ok(dict.entries.values().map(|(key, _)| *key).collect())
            }
            Obj::Range(range) => {
                charge(range.len as usize)?;
                Ok((0..range.len).map(|index| Val::Int(range.item(index))).collect())
            }
            _ => Err(self.not_iterable(value)),
        }
    }

    #[cold]
    fn not_iterable(&self, value: Val) -> Stop {
        Fault::failed(format!("{} is not a list, tuple, dict or range", brief(&self.heap, value)))
    }

    pub(super) fn new_range(&mut self, start: i64, stop: i64, step: i64) -> Result<Val, Stop> {
        if step == 0 {
            return Err(Fault::failed("the step cannot be 0"));
        }
        let span = i128::from(stop) - i128::from(start);
        let step_wide = i128::from(step);
        let len = if (span > 0) == (step > 0) && span != 0 {
            (span + step_wide - step_wide.signum()) / step_wide
        } else {
            0
        };
        let len = i64::try_from(len).map_err(|_| overflow())?;
        self.heap.push(Obj::Range(Box::new(Range { start, step, len })))
    }
}

/// The index that `at` means in a sequence of `length`; negative ones count from the end.
pub(super) fn position(at: i64, length: usize) -> Result<usize, Stop> {
    let index = if at < 0 { at + length as i64 } else { at };
    let found = usize::try_from(index).ok().filter(|index| *index < length);
    found.ok_or_else(|| Fault::failed(format!("index {at} is outside a sequence of {length}")))
}

fn forward(numbers: [Option<i64>; 3], length: usize) -> (usize, usize) {
    let clamp = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(length as i64) } else { bound };
        bound.clamp(0, length as i64) as usize
    };
    (numbers[0].map_or(0, clamp), numbers[1].map_or(length, clamp))
}

fn slice_indices(numbers: [Option<i64>; 3], length: usize) -> Box<dyn Iterator<Item = usize>> {
    let step = numbers[2].unwrap_or(1);
    if step > 0 {
        let (start, end) = forward(numbers, length);
        return Box::new((start..end.max(start)).step_by(usize::try_from(step).unwrap_or(usize::MAX)));
    }
    let last = length as i64 - 1;
    let clamp = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(length as i64) } else { bound };
        bound.clamp(-1, last)
    };
    let start = numbers[0].map_or(last, clamp);
    let end = numbers[1].map_or(-1, clamp);
    let step = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    Box::new((end + 1..start + 1).rev().step_by(step).map(|index| index as usize))
}
