//! Values of the domain as values of a function, and back.

use indexmap::IndexMap;

use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};

use super::fault::{ErrorKind, Fault, Stop};
use super::heap::{Heap, Obj, Val};
use super::limits::readable;
use super::machine::Machine;
use super::show::{brief, check_depth};

impl Machine<'_> {
    /// What a function sees of a value: a timestamp is RFC 3339 text, an embedding a list of
    /// floats, a JSON document what it holds, null is None.
    pub(super) fn import(&mut self, value: &Value) -> Result<Val, Stop> {
        Ok(match value {
            Value::Null => Val::None,
            Value::Boolean(value) => Val::Bool(*value),
            Value::Int64(number) => Val::Int(*number),
            Value::Float64(number) => Val::Float(*number),
            Value::String(text) => self.heap.new_str(text.clone())?,
            Value::Timestamp(time) => self.heap.new_str(time.to_string())?,
            Value::Embedding(numbers) => self.heap.floats(numbers.iter().map(|number| f64::from(*number)))?,
            Value::Json(text) => {
                self.heap.meter.work(text.len() / 16)?;
                let document = serde_json::from_str(text)
                    .map_err(|_| Fault::failed("an input is not a JSON document that can be read"))?;
                self.import_json(&document)?
            }
        })
    }

    fn import_json(&mut self, document: &serde_json::Value) -> Result<Val, Stop> {
        self.heap.meter.step()?;
        match document {
            serde_json::Value::Null => Ok(Val::None),
            serde_json::Value::Bool(value) => Ok(Val::Bool(*value)),
            serde_json::Value::Number(number) => Ok(match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Val::Int(number),
                (None, Some(number)) => Val::Float(number),
                (None, None) => Val::None,
            }),
            serde_json::Value::String(text) => self.heap.new_str(text.as_str()),
            serde_json::Value::Array(items) => {
                let items = items.iter().map(|item| self.import_json(item)).collect::<Result<_, Stop>>()?;
                self.heap.new_list(items)
            }
            serde_json::Value::Object(members) => {
                let mut entries = IndexMap::with_capacity(members.len());
                for (name, member) in members {
                    let key = self.heap.new_str(name.as_str())?;
                    let member = self.import_json(member)?;
                    entries.insert(self.heap.key(key)?, (key, member));
                }
                self.heap.new_dict(entries)
            }
        }
    }

    /// A function's result as a value of the wanted type.
    pub(super) fn export(&self, value: Val, wanted: FeatureType) -> Result<Value, Stop> {
        let heap = &self.heap;
        let wrong =
            || mistyped(format!("returned {}, expected {}", described(heap, value), expected(wanted)));
        Ok(match (wanted, value) {
            (_, Val::None) => Value::Null,
            (FeatureType::Boolean, Val::Bool(value)) => Value::Boolean(value),
            (FeatureType::Int64, Val::Int(number)) => Value::Int64(number),
            (FeatureType::Float64, Val::Int(number)) => Value::Float64(number as f64),
            (FeatureType::Float64, Val::Float(number)) if number.is_finite() => Value::Float64(number),
            (FeatureType::String, Val::Obj(at)) => match heap.get(at) {
                Obj::Str(text) => {
                    self.check_output(text.len())?;
                    Value::String(text.clone())
                }
                _ => return Err(wrong()),
            },
            (FeatureType::Timestamp, Val::Int(seconds)) => {
                let time = seconds.checked_mul(1_000_000).and_then(Timestamp::from_micros);
                Value::Timestamp(
                    time.ok_or_else(|| mistyped("returned a time outside the years 0000 to 9999"))?,
                )
            }
            (FeatureType::Timestamp, Val::Float(seconds)) if seconds.is_finite() => {
                let time = Timestamp::from_micros((seconds * 1e6).round() as i64);
                Value::Timestamp(
                    time.ok_or_else(|| mistyped("returned a time outside the years 0000 to 9999"))?,
                )
            }
            (FeatureType::Timestamp, value) => {
                let text = heap.str(value).ok_or_else(wrong)?;
                Value::Timestamp(
                    Timestamp::parse(text).map_err(|error| mistyped(format!("returned {error}")))?,
                )
            }
            (FeatureType::Embedding { dimension }, value) => {
                let items = heap.items(value).ok_or_else(wrong)?;
                self.check_output(items.len() * 4)?;
                let mut numbers = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    numbers.push(match item {
                        Val::Int(number) => *number as f32,
                        Val::Float(number) => *number as f32,
                        other => {
                            let message = format!(
                                "returned {} at index {index}, expected numbers only",
                                described(heap, *other)
                            );
                            return Err(mistyped(message));
                        }
                    });
                }
                Value::embedding(numbers, dimension)
                    .map_err(|error| mistyped(format!("returned an embedding: {error}")))?
            }
            (FeatureType::Json, value) => {
                let mut left = self.heap.meter.limits().output_bytes;
                let document = self.export_json(value, 0, &mut left)?;
                Value::json(&document)
            }
            _ => return Err(wrong()),
        })
    }

    fn check_output(&self, bytes: usize) -> Result<(), Stop> {
        let mut left = self.heap.meter.limits().output_bytes;
        self.take_output(bytes, &mut left)
    }

    fn take_output(&self, bytes: usize, left: &mut u64) -> Result<(), Stop> {
        match left.checked_sub(bytes as u64) {
            Some(less) => {
                *left = less;
                Ok(())
            }
            None => {
                let most = readable(self.heap.meter.limits().output_bytes);
                Err(Fault::new(ErrorKind::Output, format!("returned more than {most}")))
            }
        }
    }

    fn export_json(&self, value: Val, depth: usize, left: &mut u64) -> Result<serde_json::Value, Stop> {
        self.heap.meter.step()?;
        let scalar = 8;
        let sequence = |items: &[Val], left: &mut u64| {
            items
                .iter()
                .map(|item| self.export_json(*item, depth + 1, left))
                .collect::<Result<Vec<_>, Stop>>()
        };
        Ok(match value {
            Val::None | Val::Unset => {
                self.take_output(scalar, left)?;
                serde_json::Value::Null
            }
            Val::Bool(value) => {
                self.take_output(scalar, left)?;
                value.into()
            }
            Val::Int(number) => {
                self.take_output(scalar, left)?;
                number.into()
            }
            Val::Float(number) => {
                self.take_output(scalar, left)?;
                let number = serde_json::Number::from_f64(number);
                number.ok_or_else(|| mistyped("returned a number in JSON that is not finite"))?.into()
            }
            Val::Native(_) => return Err(mistyped("returned a function in JSON")),
            Val::Obj(at) => {
                check_depth(depth)?;
                match self.heap.get(at) {
                    Obj::Str(text) => {
                        self.take_output(text.len() + 2, left)?;
                        serde_json::Value::String(text.as_ref().to_owned())
                    }
                    Obj::List(list) => {
                        self.take_output(scalar, left)?;
                        sequence(&list.items, left)?.into()
                    }
                    Obj::Tuple(items) => {
                        self.take_output(scalar, left)?;
                        sequence(items, left)?.into()
                    }
                    Obj::Dict(dict) => {
                        self.take_output(scalar, left)?;
                        let mut members = serde_json::Map::new();
                        for (key, value) in dict.entries.values() {
                            let Some(name) = self.heap.str(*key) else {
                                let key = brief(&self.heap, *key);
                                return Err(mistyped(format!(
                                    "returned a dict with the key {key}; JSON needs strings"
                                )));
                            };
                            self.take_output(name.len() + 4, left)?;
                            members.insert(name.to_owned(), self.export_json(*value, depth + 1, left)?);
                        }
                        members.into()
                    }
                    Obj::Range(_) | Obj::Function(_) | Obj::Cell(_) => {
                        return Err(mistyped(format!("returned a {} in JSON", self.heap.type_name(value))));
                    }
                }
            }
        })
    }
}

fn mistyped(message: impl Into<String>) -> Stop {
    Fault::new(ErrorKind::WrongResult, message)
}

fn expected(wanted: FeatureType) -> String {
    match wanted {
        FeatureType::Int64 => "an int for int64".to_owned(),
        FeatureType::Float64 => "a number for float64".to_owned(),
        FeatureType::Boolean => "a bool for boolean".to_owned(),
        FeatureType::String => "a string".to_owned(),
        FeatureType::Timestamp => "RFC 3339 text or seconds since 1970 for timestamp".to_owned(),
        FeatureType::Embedding { dimension } => format!("a list of {dimension} numbers for embedding"),
        FeatureType::Json => "JSON".to_owned(),
    }
}

fn described(heap: &Heap<'_>, value: Val) -> String {
    match value {
        Val::Float(number) if !number.is_finite() => format!("{number} (not a finite number)"),
        Val::Int(_) | Val::Float(_) | Val::Bool(_) => {
            format!("{} ({})", brief(heap, value), heap.type_name(value))
        }
        Val::Obj(at) if matches!(heap.get(at), Obj::Str(_)) => format!("the string {}", brief(heap, value)),
        _ => brief(heap, value),
    }
}
