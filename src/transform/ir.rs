//! A module made ready to run: names are resolved to slots, literals to values, methods to entries
//! of the native table. Made by `lower`, run by `machine`.

use std::sync::Arc;

use starlark_syntax::syntax::ast::BinOp;

use super::heap::Val;

/// Byte offset in the source; turned into a line and column only for messages.
pub(super) type Position = u32;

#[derive(Debug)]
pub(super) struct Expr {
    pub(super) position: Position,
    pub(super) kind: ExprKind,
}

#[derive(Debug)]
pub(super) enum ExprKind {
    Const(Val),
    /// A variable of this function.
    Local(u16),
    /// A variable of this function that inner functions share.
    Cell(u16),
    /// A variable of an enclosing function.
    Captured(u16),
    Global(u16),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Unary(Unary, Box<Expr>),
    Binary(BinOp, Box<(Expr, Expr)>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    /// Condition, then, else.
    If(Box<(Expr, Expr, Expr)>),
    Index(Box<(Expr, Expr)>),
    Slice(Box<(Expr, [Option<Expr>; 3])>),
    Call(Box<Call>),
    /// `f(a, b)` of a native function with positional arguments only.
    Native(u16, Vec<Expr>),
    Method(Box<Method>),
    Function(u32, Vec<Expr>),
    Comprehension(Box<Comprehension>),
    Format(Arc<[Piece]>, Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unary {
    Not,
    Minus,
    Plus,
    BitNot,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) callee: Expr,
    pub(super) arguments: Arguments,
}

#[derive(Debug)]
pub(super) struct Method {
    pub(super) receiver: Expr,
    pub(super) name: Arc<str>,
    /// The entry for a string, list and dict.
    pub(super) natives: [Option<u16>; 3],
    pub(super) arguments: Arguments,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Arc<str>, Expr)>,
    pub(super) args: Option<Expr>,
    pub(super) kwargs: Option<Expr>,
}

impl Arguments {
    pub(super) fn only_positional(&self) -> bool {
        self.named.is_empty() && self.args.is_none() && self.kwargs.is_none()
    }
}

#[derive(Debug)]
pub(super) struct Comprehension {
    pub(super) clauses: Vec<Clause>,
    pub(super) yields: Yields,
}

#[derive(Debug)]
pub(super) enum Yields {
    Item(Expr),
    Entry(Expr, Expr),
}

#[derive(Debug)]
pub(super) enum Clause {
    For(Target, Expr),
    If(Expr),
}

/// A piece of an f-string.
#[derive(Debug)]
pub(super) enum Piece {
    Text(Box<str>),
    /// The next expression, as `str` or as `repr`.
    Value {
        repr: bool,
    },
}

#[derive(Debug)]
pub(super) enum Target {
    Local(u16),
    Cell(u16),
    Global(u16),
    Tuple(Vec<Target>),
    Index(Box<(Expr, Expr)>),
}

#[derive(Debug)]
pub(super) struct Stmt {
    pub(super) position: Position,
    pub(super) kind: StmtKind,
}

pub(super) type Block = Vec<Stmt>;

#[derive(Debug)]
pub(super) enum StmtKind {
    Break,
    Continue,
    Pass,
    Return(Option<Expr>),
    Expr(Expr),
    Assign(Target, Expr),
    /// `target op= value`; a target by index evaluates its object and index once.
    Modify(Target, BinOp, Expr),
    If(Vec<(Expr, Block)>, Block),
    For(Target, Expr, Block),
}

/// Where a function finds a variable that it captures when it is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Capture {
    /// A cell of the enclosing function.
    Cell(u16),
    /// A capture of the enclosing function itself.
    Captured(u16),
}

#[derive(Debug)]
pub(super) struct Param {
    pub(super) name: Arc<str>,
    /// Index into the function value's defaults.
    pub(super) default: Option<u16>,
}

/// The code of a `def`, a `lambda` or the module's top level.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) name: Arc<str>,
    pub(super) position: Position,
    /// Slots 0 and up, in order.
    pub(super) params: Vec<Param>,
    /// How many of `params` can be given by position; the others come after `*args`.
    pub(super) positional: usize,
    pub(super) args: Option<u16>,
    pub(super) kwargs: Option<u16>,
    /// The names of its variables, by slot.
    pub(super) slots: Vec<Arc<str>>,
    /// Slots whose variables inner functions share.
    pub(super) cells: Vec<u16>,
    pub(super) captures: Vec<Capture>,
    pub(super) body: Body,
    /// How deep its expressions and statements nest.
    pub(super) depth: u32,
}

#[derive(Debug)]
pub(super) enum Body {
    Block(Block),
    Expr(Expr),
}
