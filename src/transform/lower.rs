//! From the syntax tree to code that runs: names become slots, mistakes that can be seen without
//! running become [`Problem`]s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use regex::Regex;
use starlark_syntax::codemap::Span;
use starlark_syntax::syntax::ast::{
    AssignOp, AssignTarget, AstExpr, AstParameter, AstStmt, BinOp, Expr as Ast, Parameter,
    Stmt as AstStatement,
};

use super::fault::Problem;
use super::heap::{Obj, Ref, Val};
use super::ir::{Block, Body, Code, Expr, ExprKind, Param, Stmt, StmtKind, Target};
use super::native;
use super::scope::{self, Scope};
use super::syntax::{Lines, begin};

/// How deep expressions and statements of one function may nest.
const MAX_DEPTH: u32 = 150;
/// Variables and parameters of one function.
const MAX_VARIABLES: usize = 1000;
/// So many problems are listed at most.
const MAX_PROBLEMS: usize = 20;

/// A lowered module.
pub(super) struct Lowered {
    pub(super) code: Vec<Code>,
    /// The index of the code of the top level.
    pub(super) top: u32,
    pub(super) globals: Vec<String>,
    /// Texts of literals: the first values of the module's heap.
    pub(super) literals: Vec<Obj>,
    /// The patterns that stand as literals in calls of regular-expression helpers.
    pub(super) patterns: HashMap<Arc<str>, Regex>,
}

pub(super) struct Lowerer<'a> {
    pub(super) lines: &'a Lines,
    pub(super) scopes: Vec<Scope>,
    pub(super) globals: HashMap<String, u16>,
    code: Vec<Code>,
    literals: Vec<Obj>,
    interned: HashMap<String, Ref>,
    pub(super) patterns: HashMap<Arc<str>, Regex>,
    problems: Vec<Problem>,
}

/// Lowers a module's top-level statements.
pub(super) fn lower(statements: &[&AstStmt], lines: &Lines) -> Result<Lowered, Vec<Problem>> {
    let mut lowerer = Lowerer {
        lines,
        scopes: Vec::new(),
        globals: HashMap::new(),
        code: Vec::new(),
        literals: Vec::new(),
        interned: HashMap::new(),
        patterns: HashMap::new(),
        problems: Vec::new(),
    };
    let names = lowerer.declare_globals(statements);
    let mut shared = HashSet::new();
    statements.iter().for_each(|statement| scope::shared_in_statement(statement, &mut shared));
    lowerer.scopes.push(Scope::new("<top level>".into(), true, shared));
    let mut block = Block::new();
    statements.iter().for_each(|statement| lowerer.statement(statement, &mut block));
    let top = lowerer.finish(0, Vec::new(), 0, [None, None], Body::Block(block));
    if !lowerer.problems.is_empty() {
        return Err(lowerer.problems);
    }
    Ok(Lowered {
        code: lowerer.code,
        top,
        globals: names,
        literals: lowerer.literals,
        patterns: lowerer.patterns,
    })
}

impl Lowerer<'_> {
    pub(super) fn problem(&mut self, span: Span, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let mut problem = self.lines.problem(begin(span), message);
            problem.function = self.scopes.get(1).map(|scope| scope.name.to_string());
            self.problems.push(problem);
        }
    }

    fn declare_globals(&mut self, statements: &[&AstStmt]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for statement in statements {
            let mut found: Vec<&str> = Vec::new();
            scope::assigned(statement, &mut |name| found.push(name));
            for name in found {
                if self.globals.contains_key(name) {
                    self.problem(statement.span, format!("`{name}` is already defined in this module"));
                } else if native::is_reserved(name) {
                    let message = format!("`{name}` is a built-in name; choose another one");
                    self.problem(statement.span, message);
                } else if names.len() < usize::from(u16::MAX) {
                    self.globals.insert(name.to_owned(), names.len() as u16);
                    names.push(name.to_owned());
                }
            }
        }
        names
    }

    /// The current scope. There is one from the first statement to the last.
    pub(super) fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::new("<top level>".into(), true, HashSet::new()));
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    pub(super) fn literal(&mut self, text: &str) -> Val {
        if let Some(at) = self.interned.get(text) {
            return Val::Obj(*at);
        }
        let at = self.literals.len() as Ref;
        self.literals.push(Obj::Str(text.into()));
        self.interned.insert(text.to_owned(), at);
        Val::Obj(at)
    }

    pub(super) fn literal_text(&self, at: Ref) -> Option<Arc<str>> {
        match self.literals.get(at as usize) {
            Some(Obj::Str(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Counts one level of nesting around `inner`.
    pub(super) fn nested<T>(&mut self, span: Span, inner: impl FnOnce(&mut Self) -> T) -> T {
        self.deeper(span, 1, inner)
    }

    /// Counts levels of nesting around `inner`: as many as it takes of the native stack when it
    /// runs, one being a frame or two of an operator.
    pub(super) fn deeper<T>(&mut self, span: Span, levels: u32, inner: impl FnOnce(&mut Self) -> T) -> T {
        let scope = self.scope();
        let was_fine = scope.depth <= MAX_DEPTH;
        scope.level += levels;
        scope.depth = scope.depth.max(scope.level);
        if was_fine && scope.depth > MAX_DEPTH {
            self.problem(span, "is nested too deep; split it up");
        }
        let result = inner(self);
        self.scope().level -= levels;
        result
    }

    fn block(&mut self, statement: &AstStmt) -> Block {
        let mut block = Block::new();
        self.statement(statement, &mut block);
        block
    }

    fn statement(&mut self, statement: &AstStmt, into: &mut Block) {
        if let AstStatement::Statements(inner) = &statement.node {
            inner.iter().for_each(|statement| self.statement(statement, into));
            return;
        }
        let kind = self.nested(statement.span, |this| this.statement_kind(statement));
        into.push(Stmt { position: begin(statement.span), kind });
    }

    fn statement_kind(&mut self, statement: &AstStmt) -> StmtKind {
        match &statement.node {
            AstStatement::Break => StmtKind::Break,
            AstStatement::Continue => StmtKind::Continue,
            AstStatement::Pass | AstStatement::Statements(_) => StmtKind::Pass,
            AstStatement::Load(_) => {
                self.problem(statement.span, "load() is not available: a module stands alone");
                StmtKind::Pass
            }
            AstStatement::Return(value) => StmtKind::Return(value.as_ref().map(|value| self.expr(value))),
            AstStatement::Expression(value) => StmtKind::Expr(self.expr(value)),
            AstStatement::Assign(assign) => {
                let value = self.expr(&assign.rhs);
                StmtKind::Assign(self.target(&assign.lhs.node, assign.lhs.span), value)
            }
            AstStatement::AssignModify(target, op, value) => {
                if self.scope().is_module {
                    self.problem(statement.span, "a constant of the module cannot be modified");
                }
                let value = self.expr(value);
                StmtKind::Modify(self.target(&target.node, target.span), binary(*op), value)
            }
            AstStatement::If(condition, then) => {
                let branch = (self.expr(condition), self.block(then));
                StmtKind::If(vec![branch], Block::new())
            }
            AstStatement::IfElse(..) => self.if_else(statement),
            AstStatement::For(for_) => {
                let over = self.expr(&for_.over);
                let target = self.target(&for_.var.node, for_.var.span);
                let body = self.deeper(for_.body.span, 3, |this| this.block(&for_.body));
                StmtKind::For(target, over, body)
            }
            AstStatement::Def(def) => {
                let mut shared = HashSet::new();
                scope::shared_in_statement(&def.body, &mut shared);
                let function =
                    self.function(&def.name.node.ident, def.name.span, &def.params, shared, |this| {
                        let mut locals: Vec<&str> = Vec::new();
                        scope::assigned(&def.body, &mut |name| locals.push(name));
                        for name in locals {
                            this.scope().declare(name);
                        }
                        Body::Block(this.block(&def.body))
                    });
                let name = def.name.node.ident.clone();
                StmtKind::Assign(self.named_target(&name, def.name.span), function)
            }
        }
    }

    /// A chain of `elif` becomes one list of branches, however long it is.
    fn if_else(&mut self, statement: &AstStmt) -> StmtKind {
        let mut branches = Vec::new();
        let mut rest = statement;
        let otherwise = loop {
            match &rest.node {
                AstStatement::IfElse(condition, both) => {
                    branches.push((self.expr(condition), self.block(&both.0)));
                    rest = &both.1;
                }
                AstStatement::If(condition, then) => {
                    branches.push((self.expr(condition), self.block(then)));
                    break Block::new();
                }
                AstStatement::Statements(inner) if inner.len() == 1 => rest = &inner[0],
                _ => break self.block(rest),
            }
        };
        StmtKind::If(branches, otherwise)
    }

    /// Lowers a `def` or a `lambda` to the expression that makes its value.
    pub(super) fn function(
        &mut self,
        name: &str,
        span: Span,
        params: &[AstParameter],
        shared: HashSet<String>,
        body: impl FnOnce(&mut Self) -> Body,
    ) -> Expr {
        let mut defaults = Vec::new();
        let mut list = Vec::new();
        let mut positional = None;
        let (mut args, mut kwargs) = (None, None);
        for param in params {
            if let Parameter::Normal(name, _, default) = &param.node {
                let default = default.as_ref().map(|default| {
                    defaults.push(self.expr(default));
                    (defaults.len() - 1) as u16
                });
                list.push(Param { name: name.node.ident.as_str().into(), default });
            }
        }
        self.scopes.push(Scope::new(name.into(), false, shared));
        for param in params {
            if let Parameter::Normal(name, ..) = &param.node {
                self.scope().declare(&name.node.ident);
            }
        }
        let mut before = 0;
        for param in params {
            match &param.node {
                Parameter::Normal(..) => before += 1,
                Parameter::Args(name, _) => {
                    positional = Some(before);
                    args = Some(self.scope().declare(&name.node.ident));
                }
                Parameter::KwArgs(name, _) => kwargs = Some(self.scope().declare(&name.node.ident)),
                Parameter::NoArgs | Parameter::Slash => {
                    self.problem(param.span, "`*` and `/` between parameters are not available");
                }
            }
        }
        let positional = positional.unwrap_or(list.len());
        let body = self.nested(span, body);
        let code = self.finish(begin(span), list, positional, [args, kwargs], body);
        Expr { position: begin(span), kind: ExprKind::Function(code, defaults) }
    }

    fn finish(
        &mut self,
        position: u32,
        params: Vec<Param>,
        positional: usize,
        [args, kwargs]: [Option<u16>; 2],
        body: Body,
    ) -> u32 {
        let index = self.code.len() as u32;
        if self.scope().slots.len() > MAX_VARIABLES {
            let message = format!("a function has more than {MAX_VARIABLES} variables");
            let mut problem = self.lines.problem(position, message);
            problem.function = Some(self.scope().name.to_string());
            self.problems.push(problem);
        }
        if let Some(scope) = self.scopes.pop() {
            self.code.push(Code {
                name: scope.name,
                position,
                params,
                positional,
                args,
                kwargs,
                slots: scope.slots,
                cells: scope.cells,
                captures: scope.captures,
                body,
                depth: scope.depth,
            });
        }
        index
    }

    pub(super) fn target(&mut self, target: &AssignTarget, span: Span) -> Target {
        match target {
            AssignTarget::Tuple(items) => {
                let items = items.iter().map(|item| self.target(&item.node, item.span)).collect();
                Target::Tuple(items)
            }
            AssignTarget::Index(pair) => {
                let object = self.expr(&pair.0);
                Target::Index(Box::new((object, self.expr(&pair.1))))
            }
            AssignTarget::Dot(_, name) => {
                self.problem(span, format!("`.{}` cannot be assigned: values have no attributes", name.node));
                Target::Tuple(Vec::new())
            }
            AssignTarget::Identifier(name) => self.named_target(&name.node.ident, span),
        }
    }

    fn named_target(&mut self, name: &str, span: Span) -> Target {
        if let Some(target) = self.scope().target(name) {
            return target;
        }
        match self.globals.get(name).copied() {
            Some(global) if self.scope().is_module => Target::Global(global),
            _ => {
                self.problem(span, format!("`{name}` cannot be assigned here"));
                Target::Tuple(Vec::new())
            }
        }
    }

    pub(super) fn exprs(&mut self, items: &[AstExpr]) -> Vec<Expr> {
        items.iter().map(|item| self.expr(item)).collect()
    }

    pub(super) fn expr(&mut self, expr: &AstExpr) -> Expr {
        let kind = self.nested(expr.span, |this| this.expr_kind(expr));
        Expr { position: begin(expr.span), kind }
    }

    pub(super) fn name(&mut self, name: &str, span: Span) -> ExprKind {
        if let Some(variable) = scope::resolve(&mut self.scopes, name) {
            return variable;
        }
        if let Some(global) = self.globals.get(name) {
            return ExprKind::Global(*global);
        }
        match name {
            "None" => return ExprKind::Const(Val::None),
            "True" => return ExprKind::Const(Val::Bool(true)),
            "False" => return ExprKind::Const(Val::Bool(false)),
            _ => {}
        }
        if let Some(id) = native::function(name) {
            return ExprKind::Const(Val::Native(id));
        }
        let message = if native::is_namespace(name) {
            format!("`{name}` is a group of functions; call one, such as `{}`", native::one_of(name))
        } else {
            let own = self.globals.keys().map(String::as_str);
            match native::closest(name, own.chain(native::names().iter().copied())) {
                Some(similar) => format!("`{name}` is not defined; did you mean `{similar}`?"),
                None => format!("`{name}` is not defined"),
            }
        };
        self.problem(span, message);
        ExprKind::Const(Val::None)
    }

    /// Whether a name means what is built in, and no variable hides it.
    pub(super) fn is_free(&mut self, expr: &Ast) -> Option<String> {
        let Ast::Identifier(name) = expr else { return None };
        let name = &name.node.ident;
        let hidden = scope::resolve(&mut self.scopes, name).is_some() || self.globals.contains_key(name);
        (!hidden).then(|| name.clone())
    }
}

fn binary(op: AssignOp) -> BinOp {
    match op {
        AssignOp::Add => BinOp::Add,
        AssignOp::Subtract => BinOp::Subtract,
        AssignOp::Multiply => BinOp::Multiply,
        AssignOp::Divide => BinOp::Divide,
        AssignOp::FloorDivide => BinOp::FloorDivide,
        AssignOp::Percent => BinOp::Percent,
        AssignOp::BitAnd => BinOp::BitAnd,
        AssignOp::BitOr => BinOp::BitOr,
        AssignOp::BitXor => BinOp::BitXor,
        AssignOp::LeftShift => BinOp::LeftShift,
        AssignOp::RightShift => BinOp::RightShift,
    }
}
