//! From source text to syntax tree, with the bounds that keep every later walk of the tree shallow.

use starlark_syntax::codemap::{CodeMap, Span};
use starlark_syntax::dialect::Dialect;
use starlark_syntax::lexer::{Lexer, Token};
use starlark_syntax::syntax::AstModule;
use starlark_syntax::syntax::module::AstModuleFields;

use super::fault::Problem;

/// Longest source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Tokens of one expression that may lie inside each other, commas apart. A bound on the depth of
/// the syntax tree before there is one; `lower` measures the true depth and is stricter.
const MAX_OPEN_TOKENS: usize = 2000;
const MAX_INDENTATION: usize = 50;
/// Branches of `elif` in one function: the parser nests them.
const MAX_ELIF: usize = 250;

fn dialect() -> Dialect {
    Dialect { enable_load: false, enable_f_strings: true, ..Dialect::Standard }
}

/// Parses a module.
pub(super) fn parse(source: &str) -> Result<AstModule, Problem> {
    let lines = Lines::new(source);
    if source.len() > MAX_SOURCE_BYTES {
        return Err(lines.problem(0, format!("the source is longer than {} KiB", MAX_SOURCE_BYTES >> 10)));
    }
    check_shape(source, &lines)?;
    AstModule::parse("transformations", source.to_owned(), &dialect()).map_err(|error| {
        let (line, column) = match error.span() {
            Some(span) => {
                let begin = span.resolve_span().begin;
                (begin.line as u32 + 1, begin.column as u32 + 1)
            }
            None => (1, 1),
        };
        let text = error.without_diagnostic().to_string();
        let message = text.strip_prefix("Parse error: ").unwrap_or(&text).to_owned();
        Problem { line, column, message, function: None }
    })
}

/// Refuses what would nest so deep that parsing it could run out of stack.
fn check_shape(source: &str, lines: &Lines) -> Result<(), Problem> {
    let codemap = CodeMap::new(String::new(), source.to_owned());
    let mut open = vec![0usize];
    let mut total = 0usize;
    let mut indentation = 0usize;
    let mut elifs = 0usize;
    for lexeme in Lexer::new(source, &dialect(), codemap) {
        // What the lexer refuses the parser refuses, with the same message.
        let Ok((position, token, _)) = lexeme else { return Ok(()) };
        match token {
            Token::Comment(_) => continue,
            Token::Def => elifs = 0,
            Token::Elif => elifs += 1,
            Token::Indent => indentation += 1,
            Token::Dedent => indentation = indentation.saturating_sub(1),
            _ => {}
        }
        match token {
            Token::OpeningRound | Token::OpeningSquare | Token::OpeningCurly | Token::FStringStart(_) => {
                total += 1;
                open.push(1);
            }
            Token::ClosingRound | Token::ClosingSquare | Token::ClosingCurly | Token::FStringEnd
                if open.len() > 1 =>
            {
                total -= open.pop().unwrap_or(0);
                // A bracket that closed is an operand (`f()()()` nests by it).
                total += 1;
                if let Some(count) = open.last_mut() {
                    *count += 1;
                }
            }
            Token::Comma | Token::Newline => {
                if let Some(count) = open.last_mut() {
                    total -= std::mem::take(count);
                }
            }
            _ => {
                total += 1;
                if let Some(count) = open.last_mut() {
                    *count += 1;
                }
            }
        }
        let too_deep = if total > MAX_OPEN_TOKENS {
            Some("the expression is too long or too deeply nested; split it into several".to_owned())
        } else if indentation > MAX_INDENTATION {
            Some(format!("blocks are nested more than {MAX_INDENTATION} deep"))
        } else if elifs > MAX_ELIF {
            Some(format!("a function has more than {MAX_ELIF} `elif` branches; use a dict"))
        } else {
            None
        };
        if let Some(message) = too_deep {
            return Err(lines.problem(position as u32, message));
        }
    }
    Ok(())
}

/// Turns byte offsets into lines and columns.
#[derive(Debug)]
pub(super) struct Lines {
    source: Box<str>,
    starts: Vec<u32>,
}

impl Lines {
    pub(super) fn new(source: &str) -> Self {
        let ends = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at as u32 + 1)).collect();
        Self { source: source.into(), starts }
    }

    /// Line and column, both from 1; columns count characters.
    pub(super) fn locate(&self, position: u32) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= position).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0) as usize;
        let before = self.source.get(start..position as usize).unwrap_or("");
        (line as u32, before.chars().count() as u32 + 1)
    }

    pub(super) fn problem(&self, position: u32, message: impl Into<String>) -> Problem {
        let (line, column) = self.locate(position);
        Problem { line, column, message: message.into(), function: None }
    }
}

/// The byte offset at which a span begins.
pub(super) fn begin(span: Span) -> u32 {
    span.begin().get()
}

/// The module's top-level statements.
pub(super) fn statements(module: &AstModule) -> Vec<&starlark_syntax::syntax::ast::AstStmt> {
    fn flatten<'a>(
        statement: &'a starlark_syntax::syntax::ast::AstStmt,
        into: &mut Vec<&'a starlark_syntax::syntax::ast::AstStmt>,
    ) {
        match &statement.node {
            starlark_syntax::syntax::ast::Stmt::Statements(inner) => {
                inner.iter().for_each(|statement| flatten(statement, into));
            }
            _ => into.push(statement),
        }
    }
    let mut all = Vec::new();
    flatten(AstModuleFields::statement(module), &mut all);
    all
}
