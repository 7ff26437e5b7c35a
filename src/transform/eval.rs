//! Runs expressions.

use std::borrow::Cow;

use indexmap::IndexMap;
use starlark_syntax::syntax::ast::BinOp;

use super::fault::{At, Fault, Stop};
use super::heap::{Function, Obj, Ref, Val};
use super::ir::{
    Arguments, Call, Capture, Clause, Comprehension, Expr, ExprKind, Method, Piece, Target, Unary, Yields,
};
use super::machine::Machine;
use super::show::{Text, brief};

/// Calls of native functions with at most so many arguments need no list of them.
const FEW: usize = 4;

impl<'p> Machine<'p> {
    /// The value of an expression. Errors get the position of the innermost one.
    #[inline]
    pub(super) fn eval(&mut self, expr: &'p Expr) -> Result<Val, Stop> {
        match &expr.kind {
            ExprKind::Const(value) => Ok(*value),
            ExprKind::Local(slot) => match self.stack[self.base + usize::from(*slot)] {
                Val::Unset => Err(self.unset_slot(*slot)).at(expr.position),
                value => Ok(value),
            },
            ExprKind::Global(index) => self.global(*index).at(expr.position),
            _ => self.eval_compound(expr).at(expr.position),
        }
    }

    /// Only hands over: each kind has a frame of its own, as the native stack is what bounds nesting.
    #[inline(never)]
    fn eval_compound(&mut self, expr: &'p Expr) -> Result<Val, Stop> {
        self.heap.meter.step()?;
        match &expr.kind {
            ExprKind::Const(_) | ExprKind::Local(_) | ExprKind::Global(_) => self.eval(expr),
            ExprKind::Cell(slot) => self.eval_cell(*slot),
            ExprKind::Captured(index) => self.eval_captured(*index),
            ExprKind::Binary(op, both) => self.eval_binary(*op, both),
            ExprKind::And(both) => self.eval_logic(both, false),
            ExprKind::Or(both) => self.eval_logic(both, true),
            ExprKind::If(parts) => self.eval_if(parts),
            ExprKind::Unary(op, inner) => self.eval_unary(*op, inner),
            ExprKind::Native(id, arguments) => self.eval_native(*id, arguments),
            ExprKind::Index(pair) => self.eval_index(pair),
            ExprKind::Tuple(items) => self.eval_sequence(items, false),
            ExprKind::List(items) => self.eval_sequence(items, true),
            ExprKind::Dict(entries) => self.eval_dict(entries),
            ExprKind::Slice(parts) => self.eval_slice(parts),
            ExprKind::Call(call) => self.eval_call(call),
            ExprKind::Method(method) => self.eval_method(method),
            ExprKind::Function(code, defaults) => self.make_function(*code, defaults),
            ExprKind::Comprehension(comprehension) => self.comprehension(comprehension),
            ExprKind::Format(pieces, values) => self.eval_format(pieces, values),
        }
    }

    fn eval_cell(&mut self, slot: u16) -> Result<Val, Stop> {
        match self.stack[self.base + usize::from(slot)] {
            Val::Obj(at) => self.cell(at).ok_or_else(|| self.unset_slot(slot)),
            _ => Err(self.unset_slot(slot)),
        }
    }

    fn eval_captured(&mut self, index: u16) -> Result<Val, Stop> {
        let value = self.captured(index).and_then(|at| self.cell(at));
        value.ok_or_else(|| self.unset("a variable of the enclosing function"))
    }

    #[inline(never)]
    fn eval_binary(&mut self, op: BinOp, both: &'p (Expr, Expr)) -> Result<Val, Stop> {
        let left = self.eval(&both.0)?;
        let right = self.eval(&both.1)?;
        self.binary(op, left, right)
    }

    /// `and` and `or`: the left one where its truth is `ends_on`, else the right one.
    #[inline(never)]
    fn eval_logic(&mut self, both: &'p (Expr, Expr), ends_on: bool) -> Result<Val, Stop> {
        let left = self.eval(&both.0)?;
        if self.heap.truth(left) == ends_on { Ok(left) } else { self.eval(&both.1) }
    }

    #[inline(never)]
    fn eval_if(&mut self, parts: &'p (Expr, Expr, Expr)) -> Result<Val, Stop> {
        let condition = self.eval(&parts.0)?;
        if self.heap.truth(condition) { self.eval(&parts.1) } else { self.eval(&parts.2) }
    }

    #[inline(never)]
    fn eval_unary(&mut self, op: Unary, inner: &'p Expr) -> Result<Val, Stop> {
        let value = self.eval(inner)?;
        self.unary(op, value)
    }

    #[inline(never)]
    fn eval_index(&mut self, pair: &'p (Expr, Expr)) -> Result<Val, Stop> {
        let object = self.eval(&pair.0)?;
        let index = self.eval(&pair.1)?;
        self.index(object, index)
    }

    #[inline(never)]
    fn eval_native(&mut self, id: u16, arguments: &'p [Expr]) -> Result<Val, Stop> {
        if arguments.len() <= FEW {
            let mut values = [Val::None; FEW];
            for (value, argument) in values.iter_mut().zip(arguments) {
                *value = self.eval(argument)?;
            }
            return self.call_native(id, &values[..arguments.len()], &[]);
        }
        let values = self.values(arguments)?;
        self.call_native(id, &values, &[])
    }

    #[inline(never)]
    fn eval_sequence(&mut self, items: &'p [Expr], is_list: bool) -> Result<Val, Stop> {
        let items = self.values(items)?;
        if is_list { self.heap.new_list(items) } else { self.heap.new_tuple(items) }
    }

    #[inline(never)]
    fn eval_dict(&mut self, entries: &'p [(Expr, Expr)]) -> Result<Val, Stop> {
        let mut dict = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            let (position, key) = (key.position, self.eval(key)?);
            let value = self.eval(value)?;
            let by = self.heap.key(key).at(position)?;
            if dict.insert(by, (key, value)).is_some() {
                let message = format!("the key {} stands twice", brief(&self.heap, key));
                return Err(Fault::failed(message)).at(position);
            }
        }
        self.heap.new_dict(dict)
    }

    #[inline(never)]
    fn eval_slice(&mut self, parts: &'p (Expr, [Option<Expr>; 3])) -> Result<Val, Stop> {
        let object = self.eval(&parts.0)?;
        let mut bounds = [Val::None; 3];
        for (bound, expr) in bounds.iter_mut().zip(&parts.1) {
            if let Some(expr) = expr {
                *bound = self.eval(expr)?;
            }
        }
        self.slice(object, bounds)
    }

    #[inline(never)]
    fn eval_call(&mut self, call: &'p Call) -> Result<Val, Stop> {
        let callee = self.eval(&call.callee)?;
        self.call_with(callee, None, &call.arguments)
    }

    #[inline(never)]
    fn eval_method(&mut self, method: &'p Method) -> Result<Val, Stop> {
        let receiver = self.eval(&method.receiver)?;
        let native = match receiver {
            Val::Obj(at) => match self.heap.get(at) {
                Obj::Str(_) => method.natives[0],
                Obj::List(_) => method.natives[1],
                Obj::Dict(_) => method.natives[2],
                _ => None,
            },
            _ => None,
        };
        match native {
            Some(id) => self.call_with(Val::Native(id), Some(receiver), &method.arguments),
            None => {
                let message = format!("{} has no method `{}`", brief(&self.heap, receiver), method.name);
                Err(Fault::failed(message))
            }
        }
    }

    #[inline(never)]
    fn eval_format(&mut self, pieces: &'p [Piece], values: &'p [Expr]) -> Result<Val, Stop> {
        let values = self.values(values)?;
        let mut values = values.into_iter();
        let mut text = Text::new(&self.heap);
        for piece in pieces {
            match piece {
                Piece::Text(literal) => text.push(literal)?,
                Piece::Value { repr } => text.value(values.next().unwrap_or(Val::None), *repr)?,
            }
        }
        let text = text.out;
        self.heap.push(Obj::Str(text.into()))
    }

    fn values(&mut self, exprs: &'p [Expr]) -> Result<Vec<Val>, Stop> {
        let mut values = Vec::with_capacity(exprs.len());
        for expr in exprs {
            values.push(self.eval(expr)?);
        }
        self.heap.meter.work(values.len())?;
        Ok(values)
    }

    fn call_with(&mut self, callee: Val, first: Option<Val>, arguments: &'p Arguments) -> Result<Val, Stop> {
        let mut positional: Vec<Val> = Vec::with_capacity(arguments.positional.len() + 1);
        positional.extend(first);
        for argument in &arguments.positional {
            positional.push(self.eval(argument)?);
        }
        if arguments.only_positional() {
            return self.call(callee, &positional, &[]);
        }
        let names = self.named_arguments(arguments, &mut positional)?;
        let named: Vec<(&str, Val)> = names.iter().map(|(name, value)| (&**name, *value)).collect();
        self.call(callee, &positional, &named)
    }

    /// Evaluates `name=value`, `*args` and `**kwargs`.
    #[inline(never)]
    fn named_arguments(
        &mut self,
        arguments: &'p Arguments,
        positional: &mut Vec<Val>,
    ) -> Result<Vec<(Cow<'p, str>, Val)>, Stop> {
        let mut named: Vec<(Cow<'p, str>, Val)> = Vec::with_capacity(arguments.named.len());
        for (name, argument) in &arguments.named {
            named.push((Cow::Borrowed(name), self.eval(argument)?));
        }
        if let Some(args) = &arguments.args {
            let args = self.eval(args)?;
            let more = self.collect(args)?;
            self.heap.meter.alloc(more.len() * size_of::<Val>())?;
            positional.extend(more);
        }
        if let Some(kwargs) = &arguments.kwargs {
            let kwargs = self.eval(kwargs)?;
            let Some(dict) = self.heap.dict(kwargs) else {
                return Err(Fault::failed("`**` needs a dict"));
            };
            for (key, value) in dict.entries.values() {
                let Some(name) = self.heap.str(*key) else {
                    return Err(Fault::failed("`**` needs a dict whose keys are strings"));
                };
                self.heap.meter.scan(name.len())?;
                self.heap.meter.alloc(name.len())?;
                self.heap.meter.work(named.len() / 4)?;
                if named.iter().any(|(other, _)| *other == *name) {
                    return Err(Fault::failed(format!("`{}` is given twice", brief(&self.heap, *key))));
                }
                named.push((Cow::Owned(name.to_owned()), *value));
            }
        }
        Ok(named)
    }

    fn cell(&self, at: Ref) -> Option<Val> {
        match self.heap.get(at) {
            Obj::Cell(Val::Unset) => None,
            Obj::Cell(value) => Some(*value),
            _ => None,
        }
    }

    fn captured(&self, index: u16) -> Option<Ref> {
        match self.heap.get(self.closure?) {
            Obj::Function(function) => function.captured.get(usize::from(index)).copied(),
            _ => None,
        }
    }

    fn make_function(&mut self, code: u32, defaults: &'p [Expr]) -> Result<Val, Stop> {
        let defaults = self.values(defaults)?;
        let mut captured = Vec::new();
        for capture in &self.code[code as usize].captures {
            let cell = match capture {
                Capture::Cell(slot) => match self.stack[self.base + usize::from(*slot)] {
                    Val::Obj(at) => Some(at),
                    _ => None,
                },
                Capture::Captured(index) => self.captured(*index),
            };
            captured.push(cell.ok_or_else(|| self.unset("a variable"))?);
        }
        self.heap.meter.alloc((captured.len() + defaults.len()) * size_of::<Val>())?;
        let function = Function { code, defaults: defaults.into(), captured: captured.into() };
        self.heap.push(Obj::Function(Box::new(function)))
    }

    fn comprehension(&mut self, comprehension: &'p Comprehension) -> Result<Val, Stop> {
        match &comprehension.yields {
            Yields::Item(item) => {
                let mut items = Vec::new();
                self.clauses(&comprehension.clauses, &mut |this| {
                    this.heap.meter.alloc(size_of::<Val>())?;
                    items.push(this.eval(item)?);
                    Ok(())
                })?;
                self.heap.push(Obj::List(super::heap::List { items, loops: 0 }))
            }
            Yields::Entry(key, value) => {
                let mut entries = IndexMap::new();
                self.clauses(&comprehension.clauses, &mut |this| {
                    this.heap.meter.alloc(super::heap::ENTRY)?;
                    let (position, key) = (key.position, this.eval(key)?);
                    let value = this.eval(value)?;
                    entries.insert(this.heap.key(key).at(position)?, (key, value));
                    Ok(())
                })?;
                let dict = super::heap::Dict { entries, loops: 0 };
                self.heap.push(Obj::Dict(Box::new(dict)))
            }
        }
    }

    fn clauses(
        &mut self,
        clauses: &'p [Clause],
        yields: &mut dyn FnMut(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        match clauses.split_first() {
            None => yields(self),
            Some((Clause::If(condition), rest)) => {
                let condition = self.eval(condition)?;
                if self.heap.truth(condition) { self.clauses(rest, yields) } else { Ok(()) }
            }
            Some((Clause::For(target, over), rest)) => {
                let over_value = self.eval(over)?;
                let each = |this: &mut Self, item| {
                    this.assign(target, item)?;
                    this.clauses(rest, yields)?;
                    Ok(true)
                };
                self.iterate(over_value, each).at(over.position)
            }
        }
    }

    /// `target op= value`. A list grows in place by `+=`, a dict by `|=`.
    pub(super) fn modify(&mut self, target: &'p Target, op: BinOp, value: &'p Expr) -> Result<(), Stop> {
        let change = |this: &mut Self, old: Val| -> Result<Val, Stop> {
            let new = this.eval(value)?;
            if this.modify_in_place(old, op, new)? { Ok(old) } else { this.binary(op, old, new) }
        };
        match target {
            Target::Local(slot) => {
                let old = self.stack[self.base + usize::from(*slot)];
                if matches!(old, Val::Unset) {
                    return Err(self.unset_slot(*slot));
                }
                let new = change(self, old)?;
                self.assign(target, new)
            }
            Target::Cell(slot) => {
                let old = match self.stack[self.base + usize::from(*slot)] {
                    Val::Obj(at) => self.cell(at),
                    _ => None,
                };
                let old = old.ok_or_else(|| self.unset_slot(*slot))?;
                let new = change(self, old)?;
                self.assign(target, new)
            }
            Target::Index(pair) => {
                let object = self.eval(&pair.0)?;
                let index = self.eval(&pair.1)?;
                let old = self.index(object, index)?;
                let new = change(self, old)?;
                self.set_index(object, index, new)
            }
            Target::Global(_) | Target::Tuple(_) => Err(Fault::failed("this cannot be modified")),
        }
    }

    fn unary(&mut self, op: Unary, value: Val) -> Result<Val, Stop> {
        match (op, value) {
            (Unary::Not, value) => Ok(Val::Bool(!self.heap.truth(value))),
            (Unary::Minus, Val::Int(number)) => {
                number.checked_neg().map(Val::Int).ok_or_else(super::ops::overflow)
            }
            (Unary::Minus, Val::Float(number)) => Ok(Val::Float(-number)),
            (Unary::Plus, Val::Int(_) | Val::Float(_)) => Ok(value),
            (Unary::BitNot, Val::Int(number)) => Ok(Val::Int(!number)),
            (op, value) => {
                let sign = match op {
                    Unary::Minus => "-",
                    Unary::Plus => "+",
                    Unary::BitNot => "~",
                    Unary::Not => "not",
                };
                Err(Fault::failed(format!("{sign} cannot be applied to {}", brief(&self.heap, value))))
            }
        }
    }
}
