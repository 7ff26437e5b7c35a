//! Runs lowered code: the state of an evaluation, and statements. Calls are in `call`, expressions
//! in `eval`.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

use super::embedding::Embeddings;
use super::fault::{At, Fault, Stop};
use super::heap::{Heap, Obj, Ref, Val};
use super::ir::{Block, Code, Stmt, StmtKind, Target};
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
    /// Levels of code and calls under way.
    pub(super) nesting: u32,
    pub(super) calls: u32,
}

pub(super) enum Flow {
    Next,
    Break,
    Continue,
    Return(Val),
}

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
