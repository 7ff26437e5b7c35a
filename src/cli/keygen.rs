//! `feature-store keygen`

use std::io::Write;

use clap::{Args, ValueEnum};

use crate::domain::name::EntityType;
use crate::domain::time::Timestamp;
use crate::keys::{Format, fingerprint, parse};

#[derive(Debug, Args)]
pub struct Options {
    /// Who is to use the key: the actor of what is written with it.
    name: String,
    /// What it allows.
    #[arg(long = "scope", required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Only these entity types; all of them, if not given.
    #[arg(long = "entity-type", value_delimiter = ',')]
    entity_types: Vec<EntityType>,
    /// Until when it is valid, such as 2027-01-31T00:00:00Z.
    #[arg(long, value_parser = |text: &str| Timestamp::parse(text))]
    expires_at: Option<Timestamp>,
    /// Requests a second; goes before the server's `rate_limit`.
    #[arg(long)]
    rate_limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    Read,
    Write,
    Admin,
}

/// Makes a key: the key goes to standard error, once; its entry for the file of keys, which does not
/// hold the key, to standard output, so that it can be appended.
pub fn run(options: &Options) -> Result<(), String> {
    let key = new_key();
    let entry = entry(options, &key);
    parse(format!("keys:\n{entry}").as_bytes(), Format::Yaml).map_err(|error| error.to_string())?;
    eprintln!("the key, which nobody can show again:\n{key}\nits entry under `keys:` in api_keys_file:");
    // Written rather than printed: a reader that closes the pipe early is no reason to panic.
    std::io::stdout().write_all(entry.as_bytes()).map_err(|error| error.to_string())
}

fn new_key() -> String {
    let random: [u8; 32] = rand::random();
    random.iter().fold("fsk_".to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

/// An item of the list `keys`, as YAML.
fn entry(options: &Options, key: &str) -> String {
    let list = |names: Vec<String>| names.join(", ");
    let scopes = options.scopes.iter().map(|scope| match scope {
        Scope::Read => "read".to_owned(),
        Scope::Write => "write".to_owned(),
        Scope::Admin => "admin".to_owned(),
    });
    let mut lines = vec![
        // What JSON writes as text, YAML reads as text.
        format!("  - name: {}", serde_json::Value::from(options.name.as_str())),
        format!("    sha256: \"{}\"", fingerprint(key)),
        format!("    scopes: [{}]", list(scopes.collect())),
    ];
    if !options.entity_types.is_empty() {
        let types = options.entity_types.iter().map(ToString::to_string).collect();
        lines.push(format!("    entity_types: [{}]", list(types)));
    }
    if let Some(expires_at) = options.expires_at {
        lines.push(format!("    expires_at: \"{expires_at}\""));
    }
    if let Some(rate_limit) = options.rate_limit {
        lines.push(format!("    rate_limit: {rate_limit}"));
    }
    lines.join("\n") + "\n"
}
