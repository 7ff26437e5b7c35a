//! The hash of a function: what it does, as far as its text says.
//!
//! It covers the tokens of the function and of everything in the module that it reads, directly or
//! through other functions, and the version of this engine. Comments, layout, docstrings and the
//! rest of the module do not change it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use starlark_syntax::codemap::CodeMap;
use starlark_syntax::dialect::Dialect;
use starlark_syntax::lexer::{Lexer, Token};
use starlark_syntax::syntax::ast::AstStmt;

use super::scope;

/// Counts up whenever a helper or the language computes something else than before.
const ENGINE: &str = "feature-store transformations 1";

/// The hashes of the module's names.
pub(super) struct Fingerprints<'a> {
    definitions: BTreeMap<&'a str, Definition>,
}

struct Definition {
    text: String,
    reads: BTreeSet<String>,
}

impl<'a> Fingerprints<'a> {
    pub(super) fn new(source: &str, statements: &[&'a AstStmt]) -> Self {
        let tokens = tokens(source);
        let mut definitions = BTreeMap::new();
        for statement in statements {
            let (begin, end) = (statement.span.begin().get() as usize, statement.span.end().get() as usize);
            let own = tokens.iter().filter(|(at, _)| (begin..end).contains(at));
            let mut own: Vec<&str> = own.map(|(_, token)| token.as_str()).collect();
            // How far a statement's span reaches into the blank lines after it is not its meaning.
            while own.last().is_some_and(|token| matches!(*token, "Newline\n" | "Dedent\n")) {
                own.pop();
            }
            let text = own.concat();
            let mut reads = HashSet::new();
            scope::mentioned_in_statement(statement, &mut reads);
            let reads: BTreeSet<String> = reads.into_iter().collect();
            scope::assigned(statement, &mut |name| {
                definitions.insert(name, Definition { text: text.clone(), reads: reads.clone() });
            });
        }
        Self { definitions }
    }

    /// The hash of a name, in hexadecimal.
    pub(super) fn of(&self, name: &str) -> String {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            if let Some((name, definition)) = self.definitions.get_key_value(name)
                && reached.insert(name)
            {
                open.extend(definition.reads.iter().map(String::as_str));
            }
        }
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(ENGINE);
        add(name);
        for name in reached {
            add(name);
            add(self.definitions.get(name).map_or("", |definition| &definition.text));
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Each token with where it begins, comments and texts without effect left out.
fn tokens(source: &str) -> Vec<(usize, String)> {
    let codemap = CodeMap::new(String::new(), source.to_owned());
    let mut tokens: Vec<(usize, Token)> = Vec::new();
    for (begin, token, _) in Lexer::new(source, &Dialect::Standard, codemap).flatten() {
        match (token, tokens.as_slice()) {
            (Token::Comment(_), _) => {}
            // A docstring: a text that begins a block and is all of its statement.
            (Token::Newline, [.., (_, Token::Indent), (_, Token::String(_))]) => {
                tokens.pop();
            }
            (Token::Newline, [.., (_, Token::Newline | Token::Indent | Token::Dedent)]) => {}
            (token, _) => tokens.push((begin, token)),
        }
    }
    tokens.into_iter().map(|(begin, token)| (begin, format!("{token:?}\n"))).collect()
}
