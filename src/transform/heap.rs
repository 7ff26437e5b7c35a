//! The values of an evaluation and the heap they live on.
//!
//! A value is 16 bytes and `Copy`; what does not fit lies on the heap, an append-only vector that
//! goes away as a whole when the evaluation ends. There is no collector to run out of stack on a
//! deep structure and no destructor that recurses, and what was allocated is what was charged.
//! The heap of the evaluated module is the frozen front part that all later evaluations read.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};

use super::fault::{Fault, Stop};
use super::limits::Meter;

/// Index into the frozen part and then the live part of a heap.
pub(super) type Ref = u32;

#[derive(Clone, Copy, Debug)]
pub(super) enum Val {
    /// A variable before its first assignment, an argument that was not given.
    Unset,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Native(u16),
    Obj(Ref),
}

#[derive(Debug)]
pub(super) enum Obj {
    Str(Arc<str>),
    List(List),
    Tuple(Box<[Val]>),
    Dict(Box<Dict>),
    Range(Box<Range>),
    Function(Box<Function>),
    Cell(Val),
}

#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) items: Vec<Val>,
    /// Loops over it that are under way; it cannot change meanwhile.
    pub(super) loops: u32,
}

#[derive(Debug, Default)]
pub(super) struct Dict {
    /// Each entry holds its key as a value, too.
    pub(super) entries: IndexMap<Key, (Val, Val)>,
    pub(super) loops: u32,
}

#[derive(Debug, PartialEq)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) step: i64,
    pub(super) len: i64,
}

impl Range {
    /// The item at an index below `len`, which was checked not to overflow when it was made.
    pub(super) fn item(&self, index: i64) -> i64 {
        self.start.wrapping_add(self.step.wrapping_mul(index))
    }
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) code: u32,
    pub(super) defaults: Box<[Val]>,
    pub(super) captured: Box<[Ref]>,
}

/// A dict key by content. Numbers that are equal are one key, whether int or float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    None,
    Bool(bool),
    Int(i64),
    /// Bits of a float that is not a whole number of int64.
    Float(u64),
    Str(Arc<str>),
    Tuple(Arc<[Key]>),
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::None => state.write_u8(0),
            Self::Bool(value) => state.write_u8(1 + u8::from(*value)),
            Self::Int(value) => state.write_i64(*value),
            Self::Float(bits) => state.write_u64(*bits),
            Self::Str(text) => StrKey(text).hash(state),
            Self::Tuple(items) => items.iter().for_each(|item| item.hash(state)),
        }
    }
}

/// A text as a key, without owning it.
pub(super) struct StrKey<'a>(pub(super) &'a str);

impl Hash for StrKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

impl Equivalent<Key> for StrKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Str(text) if **text == *self.0)
    }
}

pub(super) fn float_key(value: f64) -> Key {
    if value == value.trunc() && value.abs() < 9.2e18 {
        Key::Int(value as i64)
    } else {
        Key::Float(value.to_bits())
    }
}

/// Bytes charged for an object beside its contents.
const OBJECT: usize = 48;
pub(super) const VALUE: usize = size_of::<Val>();
pub(super) const ENTRY: usize = 96;

pub(super) struct Heap<'p> {
    frozen: &'p [Obj],
    pub(super) live: Vec<Obj>,
    pub(super) meter: Meter,
}

impl<'p> Heap<'p> {
    pub(super) fn new(frozen: &'p [Obj], live: Vec<Obj>, meter: Meter) -> Self {
        Self { frozen, live, meter }
    }

    #[inline]
    pub(super) fn get(&self, at: Ref) -> &Obj {
        let index = at as usize;
        match self.frozen.get(index) {
            Some(object) => object,
            None => &self.live[index - self.frozen.len()],
        }
    }

    /// `None` for what belongs to the frozen module.
    #[inline]
    pub(super) fn get_mut(&mut self, at: Ref) -> Option<&mut Obj> {
        let index = (at as usize).checked_sub(self.frozen.len())?;
        self.live.get_mut(index)
    }

    pub(super) fn push(&mut self, object: Obj) -> Result<Val, Stop> {
        self.meter.alloc(OBJECT)?;
        let index = self.frozen.len() + self.live.len();
        let at = Ref::try_from(index).map_err(|_| Fault::failed("it makes too many values"))?;
        self.live.push(object);
        Ok(Val::Obj(at))
    }

    pub(super) fn new_str(&mut self, text: impl Into<Arc<str>>) -> Result<Val, Stop> {
        let text = text.into();
        self.meter.alloc(text.len())?;
        self.push(Obj::Str(text))
    }

    pub(super) fn new_list(&mut self, items: Vec<Val>) -> Result<Val, Stop> {
        self.meter.alloc(items.len() * VALUE)?;
        self.push(Obj::List(List { items, loops: 0 }))
    }

    pub(super) fn new_tuple(&mut self, items: Vec<Val>) -> Result<Val, Stop> {
        self.meter.alloc(items.len() * VALUE)?;
        self.push(Obj::Tuple(items.into()))
    }

    pub(super) fn new_dict(&mut self, entries: IndexMap<Key, (Val, Val)>) -> Result<Val, Stop> {
        self.meter.alloc(entries.len() * ENTRY)?;
        self.push(Obj::Dict(Box::new(Dict { entries, loops: 0 })))
    }

    pub(super) fn floats(&mut self, numbers: impl ExactSizeIterator<Item = f64>) -> Result<Val, Stop> {
        self.meter.work(numbers.len() / 16)?;
        self.meter.alloc(numbers.len() * VALUE)?;
        self.push(Obj::List(List { items: numbers.map(Val::Float).collect(), loops: 0 }))
    }

    pub(super) fn str(&self, value: Val) -> Option<&str> {
        match value {
            Val::Obj(at) => match self.get(at) {
                Obj::Str(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub(super) fn items(&self, value: Val) -> Option<&[Val]> {
        match value {
            Val::Obj(at) => match self.get(at) {
                Obj::List(list) => Some(&list.items),
                Obj::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: Val) -> Option<&Dict> {
        match value {
            Val::Obj(at) => match self.get(at) {
                Obj::Dict(dict) => Some(dict),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn type_name(&self, value: Val) -> &'static str {
        match value {
            Val::Unset | Val::None => "NoneType",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Float(_) => "float",
            Val::Native(_) => "function",
            Val::Obj(at) => match self.get(at) {
                Obj::Str(_) => "string",
                Obj::List(_) => "list",
                Obj::Tuple(_) => "tuple",
                Obj::Dict(_) => "dict",
                Obj::Range(_) => "range",
                Obj::Function(_) => "function",
                Obj::Cell(_) => "variable",
            },
        }
    }

    /// A value as a dict key.
    pub(super) fn key(&self, value: Val) -> Result<Key, Stop> {
        self.key_within(value, 0)
    }

    fn key_within(&self, value: Val, depth: usize) -> Result<Key, Stop> {
        self.meter.step()?;
        Ok(match value {
            Val::None => Key::None,
            Val::Bool(value) => Key::Bool(value),
            Val::Int(value) => Key::Int(value),
            Val::Float(value) => float_key(value),
            Val::Obj(at) => match self.get(at) {
                Obj::Str(text) => {
                    self.meter.scan(text.len())?;
                    Key::Str(text.clone())
                }
                Obj::Tuple(items) => {
                    super::show::check_depth(depth)?;
                    self.meter.alloc(OBJECT + items.len() * size_of::<Key>())?;
                    let keys: Result<Vec<Key>, Stop> =
                        items.iter().map(|item| self.key_within(*item, depth + 1)).collect();
                    Key::Tuple(keys?.into())
                }
                _ => return Err(self.unhashable(value)),
            },
            Val::Native(_) | Val::Unset => return Err(self.unhashable(value)),
        })
    }

    #[cold]
    fn unhashable(&self, value: Val) -> Stop {
        let hint = match self.type_name(value) {
            "list" => ": make it a tuple",
            _ => "",
        };
        Fault::failed(format!("a {} cannot be a key of a dict{hint}", self.type_name(value)))
    }
}
