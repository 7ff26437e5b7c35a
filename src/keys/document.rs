//! The document that keys are declared in. It holds their hashes, so that reading it lets nobody in.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest as _, Sha256};

use super::{Digest, Rate};
use crate::domain::name::EntityType;
use crate::domain::time::Timestamp;
use crate::service::principal::{Principal, Scope};

const MAX_NAME_BYTES: usize = 128;

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the keys cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("the keys are no document of keys: {0}")]
    Malformed(String),
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    /// JSON is YAML.
    Yaml,
}

impl Format {
    /// By the ending of a file's name.
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|ending| ending == "toml") { Self::Toml } else { Self::Yaml }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keys: Vec<Entry>,
}

/// One key as it is declared.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The actor of what is written with it. Two keys may share a name while one replaces the other.
    pub name: String,
    #[serde(rename = "sha256", deserialize_with = "hexadecimal")]
    pub digest: Digest,
    pub scopes: BTreeSet<Scope>,
    /// All, where it is left out.
    #[serde(default)]
    pub entity_types: Option<Vec<EntityType>>,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Requests a second; goes before the server's `rate_limit`.
    #[serde(default)]
    pub rate_limit: Option<u32>,
    #[serde(default)]
    pub rate_burst: Option<u32>,
}

impl Entry {
    /// The rate of its own; `None` where the server's applies.
    pub fn rate(&self) -> Option<Rate> {
        Rate::new(self.rate_limit?, self.rate_burst)
    }

    pub fn into_principal(self) -> Principal {
        Principal {
            name: Arc::from(self.name),
            scopes: self.scopes,
            entity_types: self.entity_types.map(|types| types.into_iter().collect()),
        }
    }

    fn check(&self) -> Result<(), String> {
        let plain = self.name.chars().all(|c| !c.is_control());
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || !plain {
            return Err(format!("name: 1 to {MAX_NAME_BYTES} bytes without control characters"));
        }
        let refuse = |what: &str| Err(format!("the key {}: {what}", self.name));
        if self.scopes.is_empty() {
            return refuse("scopes: name at least one of read, write, admin");
        }
        if self.entity_types.as_ref().is_some_and(Vec::is_empty) {
            return refuse("entity_types: name at least one, or leave it out to allow all");
        }
        if self.rate_limit == Some(0) || self.rate_burst == Some(0) {
            return refuse("rate_limit and rate_burst are at least 1");
        }
        if self.rate_burst.is_some() && self.rate_limit.is_none() {
            return refuse("rate_burst goes with rate_limit");
        }
        Ok(())
    }
}

/// Reads a document. No part of it is a secret, so that errors may quote it.
pub fn parse(text: &[u8], format: Format) -> Result<Vec<Entry>, KeysError> {
    let malformed = |error: &dyn std::fmt::Display| KeysError::Malformed(error.to_string());
    let document: Document = match format {
        Format::Yaml => yaml_serde::from_slice(text).map_err(|error| malformed(&error))?,
        Format::Toml => {
            let text = std::str::from_utf8(text).map_err(|error| malformed(&error))?;
            Figment::from(Toml::string(text)).extract().map_err(|error| malformed(&error))?
        }
    };
    let mut seen = HashSet::new();
    for entry in &document.keys {
        entry.check().map_err(KeysError::Malformed)?;
        if !seen.insert(entry.digest) {
            return Err(KeysError::Malformed(format!("the key {}: its sha256 is there twice", entry.name)));
        }
    }
    Ok(document.keys)
}

/// What a document says of a key in `sha256`.
pub fn fingerprint(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hexadecimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = text.as_bytes();
    let mut digest = Digest::default();
    if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return Err(de::Error::custom(
            "sha256: 64 hexadecimal digits, as `feature-store keygen` prints them",
        ));
    }
    for (place, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        let digits = std::str::from_utf8(pair).map_err(de::Error::custom)?;
        *place = u8::from_str_radix(digits, 16).map_err(de::Error::custom)?;
    }
    Ok(digest)
}
