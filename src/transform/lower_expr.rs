//! Lowering of expressions.

use std::collections::HashSet;
use std::sync::Arc;

use starlark_syntax::codemap::Span;
use starlark_syntax::syntax::ast::{
    Argument, AstArgument, AstExpr, AstLiteral, BinOp, Clause as AstClause, Expr as Ast, ForClause,
};

use super::heap::Val;
use super::ir::{Arguments, Body, Call, Clause, Comprehension, Expr, ExprKind, Method, Piece, Unary, Yields};
use super::lower::Lowerer;
use super::native::{self, Native};
use super::scope;

impl Lowerer<'_> {
    pub(super) fn expr_kind(&mut self, expr: &AstExpr) -> ExprKind {
        match &expr.node {
            Ast::Tuple(items) => ExprKind::Tuple(self.exprs(items)),
            Ast::List(items) => ExprKind::List(self.exprs(items)),
            Ast::Dict(entries) => {
                let entries = entries.iter().map(|(key, value)| (self.expr(key), self.expr(value)));
                ExprKind::Dict(entries.collect())
            }
            Ast::Literal(literal) => ExprKind::Const(self.literal_value(literal, expr.span)),
            Ast::Identifier(name) => self.name(&name.node.ident, expr.span),
            Ast::Not(inner) => self.unary(Unary::Not, inner),
            Ast::Minus(inner) => self.minus(inner),
            Ast::Plus(inner) => self.unary(Unary::Plus, inner),
            Ast::BitNot(inner) => self.unary(Unary::BitNot, inner),
            Ast::Op(left, op, right) => {
                let both = Box::new((self.expr(left), self.expr(right)));
                match op {
                    BinOp::And => ExprKind::And(both),
                    BinOp::Or => ExprKind::Or(both),
                    op => ExprKind::Binary(*op, both),
                }
            }
            Ast::If(parts) => {
                let (condition, then, otherwise) = &**parts;
                ExprKind::If(Box::new((self.expr(condition), self.expr(then), self.expr(otherwise))))
            }
            Ast::Index(pair) => ExprKind::Index(Box::new((self.expr(&pair.0), self.expr(&pair.1)))),
            Ast::Index2(_) => self.refuse(expr.span, "`x[a, b]` is not available"),
            Ast::Slice(object, from, to, step) => {
                let object = self.expr(object);
                let mut bound = |bound: &Option<Box<AstExpr>>| bound.as_ref().map(|bound| self.expr(bound));
                let bounds = [bound(from), bound(to), bound(step)];
                ExprKind::Slice(Box::new((object, bounds)))
            }
            Ast::Lambda(lambda) => {
                let mut shared = HashSet::new();
                scope::shared_in_expr(&lambda.body, &mut shared);
                let function = self.function("lambda", expr.span, &lambda.params, shared, |this| {
                    Body::Expr(this.expr(&lambda.body))
                });
                function.kind
            }
            Ast::Dot(object, name) => match self.helper(object, &name.node, name.span) {
                Some(kind) => kind,
                None => {
                    let message = format!("`.{}` must be called: `.{}(...)`", name.node, name.node);
                    self.refuse(expr.span, message)
                }
            },
            Ast::Call(callee, arguments) => self.call(callee, &arguments.args, expr.span),
            Ast::ListComprehension(item, first, rest) => {
                self.comprehension(first, rest, |this| Yields::Item(this.expr(item)))
            }
            Ast::DictComprehension(entry, first, rest) => self.comprehension(first, rest, |this| {
                let key = this.expr(&entry.0);
                Yields::Entry(key, this.expr(&entry.1))
            }),
            Ast::FString(text) => {
                let pieces = pieces(&text.node.format.node);
                ExprKind::Format(pieces, self.exprs(&text.node.expressions))
            }
        }
    }

    fn refuse(&mut self, span: Span, message: impl Into<String>) -> ExprKind {
        self.problem(span, message);
        ExprKind::Const(Val::None)
    }

    fn unary(&mut self, op: Unary, inner: &AstExpr) -> ExprKind {
        ExprKind::Unary(op, Box::new(self.expr(inner)))
    }

    fn minus(&mut self, inner: &AstExpr) -> ExprKind {
        match &inner.node {
            Ast::Literal(AstLiteral::Int(number)) => match format!("-{}", number.node).parse() {
                Ok(number) => ExprKind::Const(Val::Int(number)),
                Err(_) => self.unary(Unary::Minus, inner),
            },
            Ast::Literal(AstLiteral::Float(number)) => ExprKind::Const(Val::Float(-number.node)),
            _ => self.unary(Unary::Minus, inner),
        }
    }

    fn literal_value(&mut self, literal: &AstLiteral, span: Span) -> Val {
        match literal {
            AstLiteral::Int(number) => match number.node.to_string().parse() {
                Ok(number) => Val::Int(number),
                Err(_) => {
                    self.problem(span, "the number does not fit int64");
                    Val::None
                }
            },
            AstLiteral::Float(number) if number.node.is_finite() => Val::Float(number.node),
            AstLiteral::Float(_) => {
                self.problem(span, "the number does not fit float64");
                Val::None
            }
            AstLiteral::String(text) => self.literal(&text.node),
            AstLiteral::Bytes(_) | AstLiteral::Ellipsis => {
                self.problem(span, "bytes and `...` are not available");
                Val::None
            }
        }
    }

    /// `math.sqrt`, where `math` is the built-in group.
    fn helper(&mut self, object: &AstExpr, name: &str, span: Span) -> Option<ExprKind> {
        let group = self.is_free(&object.node)?;
        if !native::is_namespace(&group) {
            return None;
        }
        let full = format!("{group}.{name}");
        Some(match native::function(&full) {
            Some(id) => ExprKind::Const(Val::Native(id)),
            None => {
                let message = match native::closest(&full, native::names().iter().copied()) {
                    Some(similar) => format!("`{full}` does not exist; did you mean `{similar}`?"),
                    None => format!("`{full}` does not exist"),
                };
                self.refuse(span, message)
            }
        })
    }

    fn call(&mut self, callee: &AstExpr, arguments: &[AstArgument], span: Span) -> ExprKind {
        if let Ast::Dot(object, name) = &callee.node
            && self.is_free(&object.node).is_none_or(|group| !native::is_namespace(&group))
        {
            let receiver = self.expr(object);
            let natives = native::methods(&name.node);
            if natives == [None; 3] {
                return self.refuse(name.span, format!("no value has a method `{}`", name.node));
            }
            let arguments = self.arguments(arguments, span);
            let name: Arc<str> = name.node.as_str().into();
            return ExprKind::Method(Box::new(Method { receiver, name, natives, arguments }));
        }
        let callee = self.expr(callee);
        let arguments = self.arguments(arguments, span);
        if let ExprKind::Const(Val::Native(id)) = callee.kind {
            let native = native::get(id);
            self.check_native(native, &arguments, span);
            if arguments.only_positional() {
                return ExprKind::Native(id, arguments.positional);
            }
        }
        ExprKind::Call(Box::new(Call { callee, arguments }))
    }

    /// What can be said about a call of a native function before it is made.
    fn check_native(&mut self, native: &Native, arguments: &Arguments, span: Span) {
        if let Err(message) = native.check_arguments(arguments) {
            self.problem(span, message);
        }
        let pattern = native.pattern.and_then(|index| arguments.positional.get(index));
        if let Some(Expr { kind: ExprKind::Const(Val::Obj(at)), .. }) = pattern {
            let Some(text) = self.literal_text(*at) else { return };
            match super::helpers::text::compile_pattern(&text) {
                Ok(pattern) => {
                    self.patterns.insert(text, pattern);
                }
                Err(message) => self.problem(span, message),
            }
        }
    }

    fn arguments(&mut self, arguments: &[AstArgument], span: Span) -> Arguments {
        self.deeper(span, 2, |this| this.each_argument(arguments))
    }

    fn each_argument(&mut self, arguments: &[AstArgument]) -> Arguments {
        let mut lowered = Arguments::default();
        for argument in arguments {
            match &argument.node {
                Argument::Positional(value) => lowered.positional.push(self.expr(value)),
                Argument::Named(name, value) => {
                    lowered.named.push((name.node.as_str().into(), self.expr(value)));
                }
                Argument::Args(value) => lowered.args = Some(self.expr(value)),
                Argument::KwArgs(value) => lowered.kwargs = Some(self.expr(value)),
            }
        }
        lowered
    }

    fn comprehension(
        &mut self,
        first: &ForClause,
        rest: &[AstClause],
        yields: impl FnOnce(&mut Self) -> Yields,
    ) -> ExprKind {
        // Each clause runs inside the one before it, all inside the loop.
        let levels = 4 + 4 * rest.len() as u32;
        self.deeper(first.over.span, levels, |this| this.clauses(first, rest, yields))
    }

    fn clauses(
        &mut self,
        first: &ForClause,
        rest: &[AstClause],
        yields: impl FnOnce(&mut Self) -> Yields,
    ) -> ExprKind {
        // The first sequence is evaluated outside: it does not see the comprehension's variables.
        let over = self.expr(&first.over);
        self.scope().enter_comprehension();
        let mut clauses = vec![self.for_clause(first, over)];
        for clause in rest {
            let clause = match clause {
                AstClause::If(condition) => Clause::If(self.expr(condition)),
                AstClause::For(for_) => {
                    let over = self.expr(&for_.over);
                    self.for_clause(for_, over)
                }
            };
            clauses.push(clause);
        }
        let yields = yields(self);
        self.scope().leave_comprehension();
        ExprKind::Comprehension(Box::new(Comprehension { clauses, yields }))
    }

    fn for_clause(&mut self, clause: &ForClause, over: Expr) -> Clause {
        let mut names: Vec<&str> = Vec::new();
        scope::target_names(&clause.var.node, &mut |name| names.push(name));
        for name in names {
            self.scope().declare(name);
        }
        Clause::For(self.target(&clause.var.node, clause.var.span), over)
    }
}

/// The pieces of an f-string, which the parser writes as `text {} text {!r}` with braces doubled.
fn pieces(format: &str) -> Arc<[Piece]> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let tail = &rest[at..];
        let length = if let Some(brace) = ["{{", "}}"].iter().find(|brace| tail.starts_with(**brace)) {
            text.push_str(&brace[..1]);
            2
        } else {
            let repr = tail.starts_with("{!r}");
            pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            pieces.push(Piece::Value { repr });
            if repr { 4 } else { 2 }
        };
        rest = tail.get(length..).unwrap_or("");
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text.into()));
    pieces.into()
}
