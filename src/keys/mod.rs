//! API keys: read from a document, found by what a request shows, changed without a restart.

mod document;
mod limit;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::service::principal::Principal;

pub use self::document::{Entry, Format, KeysError, fingerprint, parse};
use self::limit::Limiter;
pub use self::limit::Rate;
pub use self::watch::Watched;

/// Counts files that had changed and could not be taken over, by `what` they are.
pub const RELOAD_FAILURES: &str = "feature_store_reload_failures_total";

/// The SHA-256 of a key. Keys are long and random, so that nothing slower is needed.
type Digest = [u8; 32];

/// One key as the server knows it, which is not the key itself.
#[derive(Debug)]
pub struct Key {
    pub principal: Arc<Principal>,
    digest: Digest,
    expires_at: Option<Timestamp>,
    limiter: Option<Limiter>,
}

impl Key {
    /// Counts a request; `Err` is the seconds after which one is allowed again.
    pub fn count(&self) -> Result<(), u32> {
        self.limiter.as_ref().map_or(Ok(()), Limiter::count)
    }
}

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum Source {
    File(PathBuf),
    /// The document itself, as JSON or YAML.
    Text(String),
}

/// All keys, of which a new set takes the place of the old as a whole.
pub struct Keys {
    ring: ArcSwap<Vec<Arc<Key>>>,
    clock: Arc<dyn Clock>,
    default_rate: Option<Rate>,
    file: Option<tokio::sync::Mutex<Watched>>,
}

impl Keys {
    /// Reads the keys for the first time, which must succeed.
    pub fn open(
        source: &Source,
        default_rate: Option<Rate>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeysError> {
        let (text, format, file) = match source {
            Source::Text(text) => (text.clone().into_bytes(), Format::Yaml, None),
            Source::File(path) => {
                let mut watched = Watched::new(vec![path.clone()]);
                let mut contents = watched.read()?;
                (contents.pop().unwrap_or_default(), Format::of(path), Some(watched))
            }
        };
        let keys =
            Self { ring: ArcSwap::default(), clock, default_rate, file: file.map(tokio::sync::Mutex::new) };
        keys.replace(parse(&text, format)?);
        counter!(RELOAD_FAILURES, "what" => "api_keys").increment(0);
        Ok(keys)
    }

    /// Takes over what the file says by now. One that cannot be read or understood leaves the keys as
    /// they are.
    pub async fn refresh(&self) {
        let Some(file) = &self.file else { return };
        let mut file = file.lock().await;
        let changed = match file.changed().await {
            Ok(None) => return,
            Ok(Some(contents)) => {
                let format = file.paths().first().map_or(Format::Yaml, |path| Format::of(path));
                parse(contents.first().map_or(&[][..], Vec::as_slice), format)
            }
            Err(error) => Err(error.into()),
        };
        match changed {
            Ok(entries) => {
                let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                tracing::info!(target: "audit", action = "reload_keys", outcome = "ok", keys = entries.len(), names, "audit");
                self.replace(entries);
            }
            Err(error) => {
                tracing::error!(target: "audit", action = "reload_keys", outcome = "failed", %error, "audit");
                counter!(RELOAD_FAILURES, "what" => "api_keys").increment(1);
            }
        }
    }

    fn replace(&self, entries: Vec<Entry>) {
        let before = self.ring.load();
        let ring = entries.into_iter().map(|entry| {
            let rate = entry.rate().or(self.default_rate);
            let known = before.iter().find(|key| key.digest == entry.digest);
            // Who has used up their rate does not get it back by a change of the file.
            let kept =
                known.and_then(|key| key.limiter.as_ref()).filter(|limiter| Some(limiter.rate()) == rate);
            let limiter = kept.cloned().or_else(|| rate.map(|rate| Limiter::new(rate, self.clock.clone())));
            Arc::new(Key {
                digest: entry.digest,
                expires_at: entry.expires_at,
                limiter,
                principal: Arc::new(entry.into_principal()),
            })
        });
        let ring: Vec<Arc<Key>> = ring.collect();
        gauge!("feature_store_api_keys").set(ring.len() as f64);
        self.ring.store(Arc::new(ring));
    }

    /// The key that a request shows, if it is one and has not expired. Every key is compared, and
    /// each to its end, so that the time this takes tells nothing.
    pub fn find(&self, shown: &[u8]) -> Option<Arc<Key>> {
        let digest: Digest = Sha256::digest(shown).into();
        let ring = self.ring.load();
        let mut found = None;
        for key in ring.iter() {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        let now = self.clock.now();
        found.filter(|key| key.expires_at.is_none_or(|expires_at| now < expires_at)).cloned()
    }
}
