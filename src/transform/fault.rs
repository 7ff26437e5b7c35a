//! What can go wrong: [`Problem`]s of a source, [`CallError`]s of an evaluation.

use std::fmt;

use crate::domain::derive::EmbeddingRequest;

/// Something wrong with a source, found when it is compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    pub message: String,
    /// The function it is in.
    pub function: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if let Some(function) = &self.function {
            write!(f, "in {function}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Why an evaluation ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The function itself failed: a wrong type, a division by zero, a call of `fail`.
    Failed,
    /// The result does not fit the wanted type.
    WrongResult,
    /// More steps than allowed.
    Steps,
    /// More memory than allowed.
    Memory,
    /// More wall time than allowed.
    Time,
    /// Calls or nested values deeper than allowed.
    Depth,
    /// A larger result than allowed.
    Output,
    /// The provider of embeddings failed; not the function's fault.
    Provider,
}

impl ErrorKind {
    /// Whether a bound was hit rather than a mistake made.
    pub fn is_bound(self) -> bool {
        match self {
            Self::Steps | Self::Memory | Self::Time | Self::Depth | Self::Output => true,
            Self::Failed | Self::WrongResult | Self::Provider => false,
        }
    }
}

/// A call that was under way when an evaluation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub function: String,
    pub line: u32,
    pub column: u32,
}

/// An evaluation that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    pub kind: ErrorKind,
    /// The function that was asked for.
    pub function: String,
    pub message: String,
    /// The innermost call first; shortened in the middle where it is long. The last one is of
    /// `function`. Empty where nothing ran, such as for a result of the wrong type.
    pub stack: Vec<Frame>,
    /// Where it happened: of the innermost call, or of the function's definition.
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}, column {}): {}", self.function, self.line, self.column, self.message)?;
        if self.stack.len() > 1 {
            f.write_str("; called")?;
            for (index, frame) in self.stack.iter().enumerate() {
                let arrow = if index == 0 { "" } else { " <-" };
                write!(f, "{arrow} {} line {}", frame.function, frame.line)?;
            }
        }
        Ok(())
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Failed(Box<Failure>),
    /// Get these and call again.
    #[error("the embeddings of {} texts are needed first", .0.len())]
    NeedsEmbeddings(Vec<EmbeddingRequest>),
}

impl CallError {
    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::NeedsEmbeddings(_) => None,
        }
    }
}

/// An evaluation under way that has to end.
pub(super) type Stop = Box<Fault>;

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    /// Innermost first: function (by index into the code) and position.
    pub(super) trace: Vec<(u32, u32)>,
    pub(super) position: Option<u32>,
}

impl Fault {
    #[cold]
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Stop {
        Box::new(Self { kind, message: message.into(), trace: Vec::new(), position: None })
    }

    #[cold]
    pub(super) fn failed(message: impl Into<String>) -> Stop {
        Self::new(ErrorKind::Failed, message)
    }
}

/// Gives a fault the position of the innermost expression that knows its own.
pub(super) trait At {
    fn at(self, position: u32) -> Self;
}

impl<T> At for Result<T, Stop> {
    #[inline(always)]
    fn at(self, position: u32) -> Self {
        match self {
            Ok(value) => Ok(value),
            Err(mut stop) => {
                stop.position.get_or_insert(position);
                Err(stop)
            }
        }
    }
}
