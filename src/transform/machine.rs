//! Runs lowered code: calls and statements. Expressions are in `eval`.
//!
//! Native stack use is bounded by [`MAX_NESTING`]: each function knows how deep its code nests, and
//! a call that would exceed the sum is refused.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

use super::embedding::Embeddings;
use super::fault::{At, ErrorKind, Fault, Stop};
use super::heap::{Heap, Obj, Ref, Val};
use super::ir::{Block, Body, Code, Stmt, StmtKind, Target};
use super::limits::MAX_NESTING;
use super::native;
use super::show::brief;
use crate::domain::derive::EmbeddingRequest;

/// The module's names: being defined, or all there.
pub(super) enum Globals<'p> {
    Building(Vec<Val>),
    Frozen(&'p [Val]),
}

pub(super) struct Machine<'p> {
    pub(super) heap: Heap<'p>,
    pub(super) code: &'p [Code],
    pub(super) names: &'p [String],
    pub(super) globals: Globals<'p>,
    pub(super) patterns: &'p HashMap<Arc<str>, Regex>,
    /// Patterns made at run time.
    pub(super) own_patterns: HashMap<String, Regex>,
    pub(super) embeddings: Option<&'p dyn Embeddings>,
    /// How many numbers `embed` answers with where the call does not say.
    pub(super) dimension: Option<u32>,
    pub(super) missing: Vec<EmbeddingRequest>,
    /// The variables of all functions under way.
    pub(super) stack: Vec<Val>,
    pub(super) base: usize,
    /// The function under way, where it captures variables.
    pub(super) closure: Option<Ref>,
    nesting: u32,
    calls: u32,
}

pub(super) enum Flow {
    Next,
    Break,
    Continue,
    Return(Val),
}

/// One call more than this many may nest natives that call back (`sorted` with a `key`).
const CALL_OVERHEAD: u32 = 4;

impl<'p> Machine<'p> {
    pub(super) fn new(
        heap: Heap<'p>,
        code: &'p [Code],
        names: &'p [String],
        globals: Globals<'p>,
        patterns: &'p HashMap<Arc<str>, Regex>,
    ) -> Self {
        Self {
            heap,
            code,
            names,
            globals,
            patterns,
            own_patterns: HashMap::new(),
            embeddings: None,
            dimension: None,
            missing: Vec::new(),
            stack: Vec::new(),
            base: 0,
            closure: None,
            nesting: 0,
            calls: 0,
        }
    }

    /// Forgets everything but the capacity it has and the patterns it compiled.
    pub(super) fn reset(&mut self) {
        // A large evaluation must not leave its size behind for good.
        self.heap.live.clear();
        self.heap.live.shrink_to(1024);
        self.heap.meter.reset();
        self.stack.clear();
        self.stack.shrink_to(1024);
        self.missing.clear();
        self.base = 0;
        self.closure = None;
        self.nesting = 0;
        self.calls = 0;
    }

    pub(super) fn global(&self, index: u16) -> Result<Val, Stop> {
        let value = match &self.globals {
            Globals::Frozen(values) => values[usize::from(index)],
            Globals::Building(values) => values[usize::from(index)],
        };
        match value {
            Val::Unset => Err(self.unset(&self.names[usize::from(index)])),
            value => Ok(value),
        }
    }

    #[cold]
    pub(super) fn unset(&self, name: &str) -> Stop {
        Fault::failed(format!("`{name}` is used before it has a value"))
    }

    #[cold]
    pub(super) fn unset_slot(&self, slot: u16) -> Stop {
        let code = match self.closure.map(|at| self.heap.get(at)) {
            Some(Obj::Function(function)) => self.code.get(function.code as usize),
            _ => None,
        };
        self.unset(code.and_then(|code| code.slots.get(usize::from(slot))).map_or("a variable", |name| name))
    }

    /// Runs the module's top level.
    pub(super) fn run_top(&mut self, top: u32) -> Result<(), Stop> {
        let code: &'p Code = &self.code[top as usize];
        let at = self.heap.push(Obj::Function(Box::new(super::heap::Function {
            code: top,
            defaults: Box::default(),
            captured: Box::default(),
        })))?;
        debug_assert!(code.params.is_empty(), "the top level has no parameters");
        self.call(at, &[], &[]).map(drop)
    }

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
        let outer_closure = std::mem::replace(&mut self.closure, Some(at));
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

    pub(super) fn block(&mut self, block: &'p Block) -> Result<Flow, Stop> {
        for statement in block {
            match self.statement(statement).at(statement.position)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'p Stmt) -> Result<Flow, Stop> {
        self.heap.meter.step()?;
        match &statement.kind {
            StmtKind::Pass => {}
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Return(None) => return Ok(Flow::Return(Val::None)),
            StmtKind::Return(Some(value)) => return self.eval(value).at(value.position).map(Flow::Return),
            StmtKind::Expr(value) => {
                self.eval(value).at(value.position)?;
            }
            StmtKind::Assign(target, value) => {
                let value = self.eval(value).at(value.position)?;
                self.assign(target, value)?;
            }
            StmtKind::Modify(target, op, value) => self.modify(target, *op, value)?,
            StmtKind::If(branches, otherwise) => {
                for (condition, then) in branches {
                    let condition = self.eval(condition).at(condition.position)?;
                    if self.heap.truth(condition) {
                        return self.block(then);
                    }
                }
                return self.block(otherwise);
            }
            StmtKind::For(target, over, body) => {
                let over = self.eval(over).at(over.position)?;
                let mut result = Flow::Next;
                self.iterate(over, |this, item| {
                    this.assign(target, item)?;
                    match this.block(body)? {
                        Flow::Next | Flow::Continue => Ok(true),
                        Flow::Break => Ok(false),
                        flow @ Flow::Return(_) => {
                            result = flow;
                            Ok(false)
                        }
                    }
                })?;
                return Ok(result);
            }
        }
        Ok(Flow::Next)
    }

    /// Calls `turn` with each item until it answers false. A list or dict cannot change meanwhile.
    pub(super) fn iterate(
        &mut self,
        over: Val,
        mut turn: impl FnMut(&mut Self, Val) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let at = match over {
            Val::Obj(at) if self.lock(at, 1) => at,
            _ => {
                let hint = match over {
                    Val::Obj(at) if matches!(self.heap.get(at), Obj::Str(_)) => {
                        ": use s.elems() for its characters"
                    }
                    _ => "",
                };
                let message = format!("cannot loop over {}{hint}", brief(&self.heap, over));
                return Err(Fault::failed(message));
            }
        };
        let mut index = 0;
        loop {
            let item = match self.heap.get(at) {
                Obj::List(list) => list.items.get(index).copied(),
                Obj::Tuple(items) => items.get(index).copied(),
                Obj::Dict(dict) => dict.entries.get_index(index).map(|(_, (key, _))| *key),
                Obj::Range(range) => {
                    let index = index as i64;
                    (index < range.len).then(|| Val::Int(range.item(index)))
                }
                _ => None,
            };
            let Some(item) = item else { break };
            self.heap.meter.step()?;
            if !turn(self, item)? {
                break;
            }
            index += 1;
        }
        self.lock(at, -1);
        Ok(())
    }

    /// Whether the object can be iterated; counts the loops over it.
    fn lock(&mut self, at: Ref, change: i32) -> bool {
        match self.heap.get_mut(at) {
            Some(Obj::List(list)) => list.loops = list.loops.saturating_add_signed(change),
            Some(Obj::Dict(dict)) => dict.loops = dict.loops.saturating_add_signed(change),
            Some(Obj::Tuple(_) | Obj::Range(_)) => {}
            Some(_) => return false,
            // Frozen: it cannot change anyway.
            None => {
                let object = self.heap.get(at);
                return matches!(object, Obj::List(_) | Obj::Dict(_) | Obj::Tuple(_) | Obj::Range(_));
            }
        }
        true
    }

    pub(super) fn assign(&mut self, target: &'p Target, value: Val) -> Result<(), Stop> {
        match target {
            Target::Local(slot) => {
                let slot = self.base + usize::from(*slot);
                self.stack[slot] = value;
            }
            Target::Cell(slot) => {
                if let Val::Obj(at) = self.stack[self.base + usize::from(*slot)]
                    && let Some(Obj::Cell(inner)) = self.heap.get_mut(at)
                {
                    *inner = value;
                }
            }
            Target::Global(index) => {
                if let Globals::Building(values) = &mut self.globals {
                    values[usize::from(*index)] = value;
                }
            }
            Target::Tuple(targets) => {
                let Some(items) = self.heap.items(value) else {
                    let message =
                        format!("cannot unpack {} into {}", brief(&self.heap, value), targets.len());
                    return Err(Fault::failed(message));
                };
                if items.len() != targets.len() {
                    let message = format!("cannot unpack {} values into {}", items.len(), targets.len());
                    return Err(Fault::failed(message));
                }
                self.heap.meter.work(items.len())?;
                let items = items.to_vec();
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item)?;
                }
            }
            Target::Index(pair) => {
                let object = self.eval(&pair.0)?;
                let index = self.eval(&pair.1)?;
                self.set_index(object, index, value)?;
            }
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
