//! Calls: of native functions and of the module's own.
//!
//! Native stack use is bounded by [`MAX_NESTING`]: each function knows how deep its code nests, and
//! a call that would exceed the sum is refused.

use super::fault::{At, ErrorKind, Fault, Stop};
use super::heap::{Obj, Ref, Val};
use super::ir::{Body, Code};
use super::limits::MAX_NESTING;
use super::machine::{Flow, Machine};
use super::native;

/// Levels of nesting that a call takes beside those of the function's code.
const CALL_OVERHEAD: u32 = 4;

impl<'p> Machine<'p> {
    /// Calls any value that can be called.
    pub(super) fn call(
        &mut self,
        callee: Val,
        positional: &[Val],
        named: &[(&str, Val)],
    ) -> Result<Val, Stop> {
        self.heap.meter.step()?;
        match callee {
            Val::Native(id) => self.call_native(id, positional, named),
            Val::Obj(at) => match self.heap.get(at) {
                Obj::Function(function) => {
                    let index = function.code;
                    self.call_function(at, index, positional, named)
                }
                _ => Err(self.not_callable(callee)),
            },
            _ => Err(self.not_callable(callee)),
        }
    }

    #[cold]
    fn not_callable(&self, callee: Val) -> Stop {
        Fault::failed(format!("a {} cannot be called", self.heap.type_name(callee)))
    }

    pub(super) fn call_native(
        &mut self,
        id: u16,
        positional: &[Val],
        named: &[(&str, Val)],
    ) -> Result<Val, Stop> {
        let native = native::get(id);
        if native.def.passes_none && matches!(positional.first(), Some(Val::None)) {
            return Ok(Val::None);
        }
        let result = match native.def.body {
            native::Body::Bound(body) => match native.bind(self, positional, named) {
                Ok(bound) => body(self, &bound),
                Err(stop) => Err(stop),
            },
            native::Body::Raw(body) => body(self, positional, named),
        };
        result.map_err(|stop| titled(stop, native.name))
    }

    fn call_function(
        &mut self,
        at: Ref,
        index: u32,
        positional: &[Val],
        named: &[(&str, Val)],
    ) -> Result<Val, Stop> {
        let code: &'p Code = &self.code[index as usize];
        let limit = self.heap.meter.limits().call_depth;
        if self.calls >= limit {
            let message = format!("calls are nested more than {limit} deep");
            return Err(Fault::new(ErrorKind::Depth, message));
        }
        let cost = code.depth + CALL_OVERHEAD;
        if self.nesting + cost > MAX_NESTING {
            return Err(Fault::new(ErrorKind::Depth, "calls and expressions are nested too deep"));
        }
        let base = self.stack.len();
        self.heap.meter.alloc(code.slots.len() * 2)?;
        self.bind(at, code, base, positional, named)?;
        let outer_base = std::mem::replace(&mut self.base, base);
        let outer_closure = self.closure.replace(at);
        self.nesting += cost;
        self.calls += 1;
        let result = match &code.body {
            Body::Expr(expr) => self.eval(expr).at(expr.position),
            Body::Block(block) => match self.block(block) {
                Ok(Flow::Return(value)) => Ok(value),
                Ok(Flow::Next | Flow::Break | Flow::Continue) => Ok(Val::None),
                Err(stop) => Err(stop),
            },
        };
        self.calls -= 1;
        self.nesting -= cost;
        self.base = outer_base;
        self.closure = outer_closure;
        self.stack.truncate(base);
        result.map_err(|mut stop| {
            let position = stop.position.take().unwrap_or(code.position);
            stop.trace.push((index, position));
            stop
        })
    }

    /// Puts the arguments into the slots of a new frame.
    fn bind(
        &mut self,
        at: Ref,
        code: &'p Code,
        base: usize,
        positional: &[Val],
        named: &[(&str, Val)],
    ) -> Result<(), Stop> {
        let mismatch = |message: String| Fault::failed(format!("{}(): {message}", code.name));
        self.stack.resize(base + code.slots.len(), Val::Unset);
        let by_position = positional.len().min(code.positional);
        self.stack[base..base + by_position].copy_from_slice(&positional[..by_position]);
        let rest = &positional[by_position..];
        match code.args {
            Some(slot) => {
                self.heap.meter.work(rest.len())?;
                let rest = self.heap.new_tuple(rest.to_vec())?;
                self.stack[base + usize::from(slot)] = rest;
            }
            None if rest.is_empty() => {}
            None => {
                let (takes, given) = (code.positional, positional.len());
                return Err(mismatch(format!("takes {takes} arguments, {given} were given")));
            }
        }
        let mut others = indexmap::IndexMap::new();
        for (name, value) in named {
            match code.params.iter().position(|param| *param.name == **name) {
                Some(index) if matches!(self.stack[base + index], Val::Unset) => {
                    self.stack[base + index] = *value;
                }
                Some(_) => return Err(mismatch(format!("`{name}` is given twice"))),
                None if code.kwargs.is_some() => {
                    let key = self.heap.new_str(*name)?;
                    others.insert(self.heap.key(key)?, (key, *value));
                }
                None => return Err(mismatch(format!("has no parameter `{name}`"))),
            }
        }
        if let Some(slot) = code.kwargs {
            self.stack[base + usize::from(slot)] = self.heap.new_dict(others)?;
        }
        for (index, param) in code.params.iter().enumerate() {
            if matches!(self.stack[base + index], Val::Unset) {
                let default = param.default.and_then(|default| match self.heap.get(at) {
                    Obj::Function(function) => function.defaults.get(usize::from(default)).copied(),
                    _ => None,
                });
                match default {
                    Some(value) => self.stack[base + index] = value,
                    None => return Err(mismatch(format!("`{}` is missing", param.name))),
                }
            }
        }
        for slot in &code.cells {
            let slot = base + usize::from(*slot);
            self.stack[slot] = self.heap.push(Obj::Cell(self.stack[slot]))?;
        }
        Ok(())
    }
}

/// Says which function it was; once, where natives call natives.
fn titled(mut stop: Stop, name: &str) -> Stop {
    let own = stop.kind == ErrorKind::Failed && stop.trace.is_empty() && stop.position.is_none();
    if own && name != "fail" {
        stop.message = format!("{name}(): {}", stop.message);
    }
    stop
}
