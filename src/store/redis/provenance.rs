//! Provenance records, each kept once under a small id.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use fred::types::Value as Argument;
use serde_json::Value as Json;

use super::RedisStore;
use super::batch::{Item, run_each};
use super::commit::until;
use super::errors::{corrupt, of_key, unexpected};
use super::reply;
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// So many records are remembered; more, and all are forgotten. One run writes one or a few.
const REMEMBERED: usize = 10_000;

type Digest = [u8; 16];

/// What is known without asking, so that writes and reads of one run cost no round trip each.
#[derive(Default)]
pub(super) struct Memory {
    /// Id, and until when (ms) the server keeps it.
    ids: Remembered<Digest, (ProvenanceId, i64)>,
    records: Remembered<ProvenanceId, Provenance>,
}

/// A map that forgets everything when it is full, and when a connection was made anew: the server
/// behind it may be another, and lack the last that this one was told.
struct Remembered<K, V>(Mutex<(u64, HashMap<K, V>)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::new((0, HashMap::new())))
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn get(&self, generation: u64, key: &K) -> Option<V> {
        // A map is never half-changed by what is done here, so a poisoned lock is as good as any.
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.0 == generation { remembered.1.get(key).cloned() } else { None }
    }

    /// `generation` is that of before the server was asked.
    fn put(&self, generation: u64, key: K, value: V) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.0 < generation || remembered.1.len() >= REMEMBERED {
            remembered.1.clear();
        }
        if remembered.0 <= generation {
            remembered.0 = generation;
            remembered.1.insert(key, value);
        }
    }
}

impl RedisStore {
    pub(super) async fn intern_one(
        &self,
        provenance: &Provenance,
        keep_until: Option<Timestamp>,
    ) -> Result<ProvenanceId, StoreError> {
        let json = canonical(provenance)?;
        let hash = blake3::hash(&json);
        let mut digest: Digest = [0; 16];
        digest.copy_from_slice(&hash.as_bytes()[..16]);
        let generation = self.links.generation();
        // As `until` rounds it: up to whole milliseconds.
        let asked = keep_until.map_or(i64::MAX, |time| time.as_micros().div_euclid(1000) + 1);
        if let Some((id, kept_until)) = self.memory.ids.get(generation, &digest)
            && kept_until >= asked
        {
            return Ok(id);
        }
        let digest_key = self.keys.provenance_digest(&hash.to_hex()[..32]);
        let item = |_| {
            let counter = self.keys.provenance_counter();
            let args = vec![
                Argument::Integer(2),
                Argument::Bytes(counter.clone()),
                Argument::Bytes(digest_key.clone()),
                Argument::Bytes(self.keys.provenance_record_prefix()),
                Argument::Bytes(json.clone().into()),
                until(keep_until),
            ];
            Item { slot: fred::util::redis_keyslot(&counter), key: digest_key.clone(), args }
        };
        let mut runs = run_each(&self.links, &self.replication, &self.scripts.intern, 1, item).await;
        let ran = runs.pop().ok_or_else(|| unexpected("an intern"))??;
        let answer = reply::array(ran.replicated()?).ok_or_else(|| unexpected("an intern"))?;
        let mut answer = answer.into_iter().map(reply::text);
        let mut next = || answer.next().flatten().ok_or_else(|| unexpected("an intern"));
        let id = next()?.parse().map(ProvenanceId);
        let id = id.map_err(|_| corrupt(&digest_key, "", "this is not an id"))?;
        let kept_until = next()?;
        let kept_until = if kept_until.is_empty() { Ok(i64::MAX) } else { kept_until.parse() };
        let kept_until = kept_until.map_err(|_| unexpected("an intern"))?;
        self.memory.ids.put(generation, digest, (id, kept_until));
        Ok(id)
    }

    pub(super) async fn provenance_of(
        &self,
        ids: &[ProvenanceId],
    ) -> Result<Vec<Option<Provenance>>, StoreError> {
        let generation = self.links.generation();
        let mut records: Vec<Option<Provenance>> =
            ids.iter().map(|id| self.memory.records.get(generation, id)).collect();
        let mut unknown: Vec<ProvenanceId> =
            ids.iter().zip(&records).filter(|(_, record)| record.is_none()).map(|(id, _)| *id).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(records);
        }
        let keys: Vec<_> = unknown.iter().map(|id| self.keys.provenance_record(id.0)).collect();
        let slot = keys.first().map_or(0, |key| fred::util::redis_keyslot(key));
        let args = keys.iter().cloned().map(Argument::Bytes).collect();
        let reply = self.links.get()?.command("MGET", slot, args).await;
        let first = keys.first().cloned().unwrap_or_default();
        let found = reply::array(reply.map_err(|error| of_key(error, &first))?);
        let found = found.filter(|found| found.len() == keys.len()).ok_or_else(|| unexpected("MGET"))?;
        let mut read = HashMap::with_capacity(found.len());
        for ((id, key), record) in unknown.into_iter().zip(&keys).zip(found) {
            if let Some(json) = reply::bytes(record) {
                let record: Provenance =
                    serde_json::from_slice(&json).map_err(|reason| corrupt(key, "", reason))?;
                self.memory.records.put(generation, id, record.clone());
                read.insert(id, record);
            }
        }
        for (id, record) in ids.iter().zip(&mut records) {
            if record.is_none() {
                *record = read.get(id).cloned();
            }
        }
        Ok(records)
    }
}

/// The same bytes for equal records, in whatever order their metadata was written.
fn canonical(provenance: &Provenance) -> Result<Vec<u8>, StoreError> {
    let internal = |error: serde_json::Error| StoreError::Internal(error.to_string());
    if provenance.metadata.is_empty() {
        // Its members have one order; every write comes by here.
        return serde_json::to_vec(provenance).map_err(internal);
    }
    let json = serde_json::to_value(provenance).map_err(internal)?;
    serde_json::to_vec(&sorted(json)).map_err(internal)
}

fn sorted(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let mut members: Vec<_> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(members.into_iter().collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        plain => plain,
    }
}
