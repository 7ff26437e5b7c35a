//! How a subcommand fails.

use std::fmt::Display;
use std::process::ExitCode;

/// The exit code of what may work later.
const SERVER: u8 = 3;

/// Why a subcommand did not do all that it was asked, and its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    code: u8,
}

impl Failure {
    /// Something was done, but not all of it.
    pub fn partly(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    /// The command line, or a file that it names, is wrong. Nothing was asked of a server.
    pub fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 2 }
    }

    /// The server could not be reached, went away, or is not able to. The same may work later.
    pub fn server(message: impl Display) -> Self {
        Self { message: message.to_string(), code: SERVER }
    }

    /// The server refused, and would refuse the same again.
    pub fn refused(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 4 }
    }

    /// Whether the same may work later.
    pub fn may_pass(&self) -> bool {
        self.code == SERVER
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// With what it is about.
    pub fn about(self, what: impl Display) -> Self {
        Self { message: format!("{what}{}", self.message), code: self.code }
    }

    /// With more to say.
    pub fn and(self, more: impl Display) -> Self {
        Self { message: format!("{}; {more}", self.message), code: self.code }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::partly(message)
    }
}
