//! Scripts, run by their digest and sent whole where the server does not have them (any more).

use fred::bytes_utils::Str;
use fred::types::Value;

/// A script and its digest.
pub(super) struct Script {
    source: Str,
    digest: Str,
}

/// The scripts of the store.
pub(super) struct Scripts {
    pub commit: Script,
    pub commit_several: Script,
    pub delete: Script,
    pub intern: Script,
    pub change_registry: Script,
    pub read_registry: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            commit: Script::new(concat!(include_str!("commit.lua"), "return run(KEYS[1], ARGV[1])\n")),
            commit_several: Script::new(concat!(include_str!("commit.lua"), include_str!("several.lua"))),
            delete: Script::new(include_str!("delete.lua")),
            intern: Script::new(include_str!("intern.lua")),
            change_registry: Script::new(include_str!("change_registry.lua")),
            read_registry: Script::new(include_str!("read_registry.lua")),
        }
    }
}

/// How a script is named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Digest,
    /// The server keeps it from then on.
    Source,
}

impl By {
    pub fn command(self) -> &'static str {
        match self {
            Self::Digest => "EVALSHA",
            Self::Source => "EVAL",
        }
    }
}

impl Script {
    fn new(source: &str) -> Self {
        Self { source: source.into(), digest: fred::util::sha1_hash(source).into() }
    }

    /// The first argument of [`By::command`].
    pub fn named(&self, by: By) -> Value {
        Value::String(match by {
            By::Digest => self.digest.clone(),
            By::Source => self.source.clone(),
        })
    }
}
