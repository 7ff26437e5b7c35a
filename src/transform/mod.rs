//! Features derived by functions: Starlark, the dialect of Python that Bazel and Buck use, on an
//! interpreter that cannot be made to run away.
//!
//! In the order a schema goes through it: [`compile_entity_type`] compiles the functions to a
//! [`Program`], connects them in a [`Graph`] and checks the schema's tests; [`Transformations`]
//! computes features of one entity; [`check_cases`] runs the tests.
//!
//! **Why an interpreter of its own.** The syntax comes from `starlark_syntax`, the parser of the
//! reference implementation in Rust. Its evaluator says of itself that it does not stand up to
//! hostile code, and it does not: `"x" * 10 ** 12` allocates before any hook runs, a list that
//! holds itself sixty times over is printed without end wherever an error message shows it, and a
//! deep one overflows the native stack, which takes the whole server down. Rewriting the source
//! to guard every operator and method would still leave what those call inside. Here each
//! operation is paid for before it is done (`limits`), values live on an arena without
//! destructors or a collector (`heap`), every walk over values is charged and bounded in depth
//! (`show`, `compare`, `convert`), and how deep code may nest is settled when it is compiled
//! (`syntax`, `lower`). The language stays the reference's: the tests hold the two against each
//! other. Ints have 64 bits and overflow is an error; there is no `load`, no clock, no randomness,
//! no I/O.
//!
//! Inside: `syntax` parses; `scope`, `lower` and `lower_expr` turn the tree into code (`ir`);
//! `machine`, `call`, `eval`, `ops` and `index` run it on a `heap`; `native` is the table of built-in functions,
//! whose bodies are in `builtins`, `str_methods`, `str_split`, `collections` and `helpers`; `reference` writes
//! the page about them.

mod args;
mod builtins;
mod call;
mod cases;
mod collections;
mod compare;
mod convert;
mod derivations;
mod embedding;
mod entity_type;
mod eval;
mod fault;
mod fingerprint;
mod format;
mod graph;
mod heap;
mod helpers;
mod index;
mod ir;
mod limits;
mod lower;
mod lower_expr;
mod machine;
mod native;
mod ops;
mod program;
mod reference;
mod scope;
mod show;
mod str_methods;
mod str_split;
mod syntax;

pub use cases::{CaseReport, Difference, check_cases};
pub use derivations::Functions;
pub use embedding::{Hashing, hashing};
pub use entity_type::{ComputeError, Outcome, Transformations, compile_entity_type};
pub use fault::{CallError, ErrorKind, Failure, Frame, Problem};
pub use graph::{Declared, Graph, GraphProblem, NOW, Node, Source};
pub use limits::Limits;
pub use program::{Env, Function, Parameter, Program, Session};
pub use reference::reference_page;
pub use syntax::MAX_SOURCE_BYTES;

#[cfg(test)]
mod tests;
