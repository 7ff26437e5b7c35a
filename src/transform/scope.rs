//! Which variable a name means: names assigned in a function are its own, names of enclosing
//! functions are captured, then come the module's, then the built-in ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use starlark_syntax::syntax::ast::{AssignTarget, AstExpr, AstStmt, Expr, Parameter, Stmt};

use super::ir::{Capture, ExprKind, Target};

/// The scope of one function, or of the module's top level.
pub(super) struct Scope {
    pub(super) name: Arc<str>,
    /// At the module's top level assigned names are globals.
    pub(super) is_module: bool,
    /// Innermost last: the function's own names, then those of comprehensions under way.
    names: Vec<HashMap<String, u16>>,
    pub(super) slots: Vec<Arc<str>>,
    /// Names that a function inside this one mentions: their variables live in cells.
    shared: HashSet<String>,
    pub(super) cells: Vec<u16>,
    pub(super) captures: Vec<Capture>,
    captured: HashMap<String, u16>,
    /// How deep the expression or statement being lowered lies, and the deepest so far.
    pub(super) level: u32,
    pub(super) depth: u32,
}

impl Scope {
    pub(super) fn new(name: Arc<str>, is_module: bool, shared: HashSet<String>) -> Self {
        Self {
            name,
            is_module,
            names: vec![HashMap::new()],
            slots: Vec::new(),
            shared,
            cells: Vec::new(),
            captures: Vec::new(),
            captured: HashMap::new(),
            level: 0,
            depth: 0,
        }
    }

    /// Makes a variable in the innermost scope, or finds the one that is there.
    pub(super) fn declare(&mut self, name: &str) -> u16 {
        if let Some(slot) = self.names.last().and_then(|names| names.get(name)) {
            return *slot;
        }
        let slot = self.slots.len() as u16;
        self.slots.push(name.into());
        if self.shared.contains(name) {
            self.cells.push(slot);
        }
        if let Some(names) = self.names.last_mut() {
            names.insert(name.to_owned(), slot);
        }
        slot
    }

    pub(super) fn enter_comprehension(&mut self) {
        self.names.push(HashMap::new());
    }

    pub(super) fn leave_comprehension(&mut self) {
        self.names.pop();
    }

    fn slot(&self, name: &str) -> Option<u16> {
        self.names.iter().rev().find_map(|names| names.get(name)).copied()
    }

    fn is_cell(&self, slot: u16) -> bool {
        self.cells.contains(&slot)
    }

    pub(super) fn target(&self, name: &str) -> Option<Target> {
        let slot = self.slot(name)?;
        Some(if self.is_cell(slot) { Target::Cell(slot) } else { Target::Local(slot) })
    }
}

/// Finds the variable of a name as the innermost function of `scopes` sees it.
pub(super) fn resolve(scopes: &mut [Scope], name: &str) -> Option<ExprKind> {
    let scope = scopes.last()?;
    if let Some(slot) = scope.slot(name) {
        return Some(if scope.is_cell(slot) { ExprKind::Cell(slot) } else { ExprKind::Local(slot) });
    }
    capture(scopes, name).map(ExprKind::Captured)
}

fn capture(scopes: &mut [Scope], name: &str) -> Option<u16> {
    let (scope, outer) = scopes.split_last_mut()?;
    if let Some(index) = scope.captured.get(name) {
        return Some(*index);
    }
    let enclosing = outer.last()?;
    let from = match enclosing.slot(name) {
        Some(slot) => Capture::Cell(slot),
        None => Capture::Captured(capture(outer, name)?),
    };
    let index = scope.captures.len() as u16;
    scope.captures.push(from);
    scope.captured.insert(name.to_owned(), index);
    Some(index)
}

/// The names that a function's body assigns: its local variables.
pub(super) fn assigned<'a>(body: &'a AstStmt, found: &mut dyn FnMut(&'a str)) {
    match &body.node {
        Stmt::Assign(assign) => target_names(&assign.lhs.node, found),
        Stmt::AssignModify(target, _, _) => target_names(&target.node, found),
        Stmt::For(for_) => {
            target_names(&for_.var.node, found);
            assigned(&for_.body, found);
        }
        Stmt::Def(def) => found(&def.name.node.ident),
        Stmt::Statements(inner) => inner.iter().for_each(|statement| assigned(statement, found)),
        Stmt::If(_, then) => assigned(then, found),
        Stmt::IfElse(_, branches) => {
            assigned(&branches.0, found);
            assigned(&branches.1, found);
        }
        Stmt::Break | Stmt::Continue | Stmt::Pass | Stmt::Return(_) | Stmt::Expression(_) | Stmt::Load(_) => {
        }
    }
}

pub(super) fn target_names<'a>(target: &'a AssignTarget, found: &mut dyn FnMut(&'a str)) {
    match target {
        AssignTarget::Tuple(items) => items.iter().for_each(|item| target_names(&item.node, found)),
        AssignTarget::Identifier(name) => found(&name.node.ident),
        AssignTarget::Index(_) | AssignTarget::Dot(..) => {}
    }
}

/// Every name that functions inside this body mention.
pub(super) fn shared_in_statement(body: &AstStmt, shared: &mut HashSet<String>) {
    if let Stmt::Def(def) = &body.node {
        mentioned_in_statement(&def.body, shared);
        def.params.iter().for_each(|param| default_of(&param.node, &mut |e| shared_in_expr(e, shared)));
        return;
    }
    body.node.visit_children(|child| match child {
        starlark_syntax::syntax::uniplate::Visit::Stmt(inner) => shared_in_statement(inner, shared),
        starlark_syntax::syntax::uniplate::Visit::Expr(inner) => shared_in_expr(inner, shared),
    });
}

pub(super) fn shared_in_expr(expr: &AstExpr, shared: &mut HashSet<String>) {
    match &expr.node {
        Expr::Lambda(lambda) => {
            mentioned_in_expr(&lambda.body, shared);
            lambda
                .params
                .iter()
                .for_each(|param| default_of(&param.node, &mut |e| shared_in_expr(e, shared)));
        }
        other => other.visit_expr(|inner| shared_in_expr(inner, shared)),
    }
}

/// Every name that is read anywhere in a statement, functions inside it included.
pub(super) fn mentioned_in_statement(body: &AstStmt, names: &mut HashSet<String>) {
    body.node.visit_expr(|expr| mentioned_in_expr(expr, names));
    // `x += 1` reads, too, what the parser shows as a target only.
    assigned(body, &mut |name| {
        names.insert(name.to_owned());
    });
}

pub(super) fn mentioned_in_expr(expr: &AstExpr, names: &mut HashSet<String>) {
    if let Expr::Identifier(name) = &expr.node {
        names.insert(name.node.ident.clone());
    }
    expr.node.visit_expr(|inner| mentioned_in_expr(inner, names));
}

fn default_of<'a>(param: &'a Parameter, found: &mut dyn FnMut(&'a AstExpr)) {
    if let Parameter::Normal(_, _, Some(default)) = param {
        found(default);
    }
}
