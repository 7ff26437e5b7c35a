//! Provenance records, each kept once under a small id.

use redb::{ReadTransaction, ReadableTable};
use serde_json::Value as Json;

use super::entity::{decode_time, encode_time, longer};
use super::fault::Fault;
use super::key;
use super::reap::has_passed;
use super::tables::{PROVENANCE, PROVENANCE_IDS, Tables, meta};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::time::{Span, Timestamp};
use crate::store::StoreError;

/// A retention is lengthened by this much more than asked, because the same run asks for a little
/// more with every write, and each lengthening is a durable write of its own.
const AHEAD: Span = Span::from_secs(3600);

/// A record to be kept.
pub struct Entry {
    json: Vec<u8>,
    digest: [u8; 32],
    until: Option<Timestamp>,
}

impl Entry {
    pub fn new(provenance: &Provenance, until: Option<Timestamp>) -> Result<Self, StoreError> {
        let unwritable = |error: serde_json::Error| StoreError::Internal(error.to_string());
        let json = serde_json::to_vec(provenance).map_err(unwritable)?;
        let digest = digest(&serde_json::to_value(provenance).map_err(unwritable)?);
        Ok(Self { json, digest, until })
    }
}

/// The same for equal records, whatever the order of the keys in their metadata.
fn digest(json: &Json) -> [u8; 32] {
    let mut text = String::new();
    put_canonical(&mut text, json);
    blake3::hash(text.as_bytes()).into()
}

fn put_canonical(out: &mut String, json: &Json) {
    match json {
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                out.push_str(&Json::from(name.as_str()).to_string());
                out.push(':');
                put_canonical(out, value);
                out.push(',');
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for item in items {
                put_canonical(out, item);
                out.push(',');
            }
            out.push(']');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => out.push_str(&json.to_string()),
    }
}

/// `until` and where the reaper's index has the record, then the JSON.
struct Kept<'b> {
    until: Option<Timestamp>,
    due: Option<Timestamp>,
    json: &'b [u8],
}

impl<'b> Kept<'b> {
    fn encode(&self) -> Vec<u8> {
        [&encode_time(self.until), &encode_time(self.due), self.json].concat()
    }

    fn decode(id: u64, bytes: &'b [u8]) -> Result<Self, Fault> {
        let parts = || {
            let (until, rest) = bytes.split_first_chunk::<8>()?;
            let (due, json) = rest.split_first_chunk::<8>()?;
            Some(Self { until: decode_time(*until)?, due: decode_time(*due)?, json })
        };
        parts().ok_or_else(|| Fault::corrupt_table("provenance", id, "it has no retention"))
    }

    fn lasts(&self, until: Option<Timestamp>) -> bool {
        longer(self.until, until) == self.until
    }
}

/// The id of the record where it is kept long enough already, which costs no write.
pub fn find(transaction: &ReadTransaction, entry: &Entry) -> Result<Option<ProvenanceId>, Fault> {
    let ids = transaction.open_table(PROVENANCE_IDS)?;
    let Some(id) = ids.get(entry.digest.as_slice())?.map(|id| id.value()) else {
        return Ok(None);
    };
    let records = transaction.open_table(PROVENANCE)?;
    let Some(kept) = records.get(id)? else {
        return Ok(None);
    };
    let lasts = Kept::decode(id, kept.value())?.lasts(entry.until);
    Ok(lasts.then_some(ProvenanceId(id)))
}

pub fn keep(tables: &mut Tables, entry: &Entry) -> Result<ProvenanceId, Fault> {
    if let Some((id, stored)) = known(tables, entry)? {
        let kept = Kept::decode(id, &stored)?;
        if !kept.lasts(entry.until) {
            let until = entry.until.map(|until| until + AHEAD);
            put(tables, id, &Kept { until, ..kept })?;
        }
        return Ok(ProvenanceId(id));
    }
    let id = tables.number(meta::NEXT_PROVENANCE)? + 1;
    tables.set_number(meta::NEXT_PROVENANCE, id)?;
    tables.provenance_ids.insert(entry.digest.as_slice(), id)?;
    if let Some(until) = entry.until {
        tables.provenance_due.insert(key::due(until, &id.to_be_bytes()).as_slice(), ())?;
    }
    put(tables, id, &Kept { until: entry.until, due: entry.until, json: &entry.json })?;
    Ok(ProvenanceId(id))
}

fn known(tables: &Tables, entry: &Entry) -> Result<Option<(u64, Vec<u8>)>, Fault> {
    let Some(id) = tables.provenance_ids.get(entry.digest.as_slice())?.map(|id| id.value()) else {
        return Ok(None);
    };
    Ok(tables.provenance.get(id)?.map(|stored| (id, stored.value().to_vec())))
}

fn put(tables: &mut Tables, id: u64, kept: &Kept) -> Result<(), Fault> {
    tables.provenance.insert(id, kept.encode().as_slice())?;
    tables.changed = true;
    Ok(())
}

pub fn load(transaction: &ReadTransaction, ids: &[ProvenanceId]) -> Result<Vec<Option<Provenance>>, Fault> {
    let records = transaction.open_table(PROVENANCE)?;
    let load = |id: &ProvenanceId| {
        let Some(guard) = records.get(id.0)? else {
            return Ok(None);
        };
        let kept = Kept::decode(id.0, guard.value())?;
        let corrupt = |error| Fault::corrupt_table("provenance", id.0, error);
        serde_json::from_slice(kept.json).map(Some).map_err(corrupt)
    };
    ids.iter().map(load).collect()
}

/// Frees a record that was due, or puts it back into the index; says whether it went.
pub fn reap(tables: &mut Tables, id: &[u8], now: Timestamp) -> Result<bool, Fault> {
    let Some(id) = id.try_into().ok().map(u64::from_be_bytes) else {
        return Ok(false);
    };
    let Some(stored) = tables.provenance.get(id)?.map(|guard| guard.value().to_vec()) else {
        return Ok(false);
    };
    let kept = match Kept::decode(id, &stored) {
        Ok(kept) => kept,
        Err(fault) => {
            tracing::warn!(id, error = %fault.into_store_error(), "a provenance record is not reaped");
            return Ok(false);
        }
    };
    if !has_passed(kept.until, now) {
        if let Some(until) = kept.until {
            tables.provenance_due.insert(key::due(until, &id.to_be_bytes()).as_slice(), ())?;
        }
        put(tables, id, &Kept { due: kept.until, ..kept })?;
        return Ok(false);
    }
    if let Ok(json) = serde_json::from_slice(kept.json) {
        tables.provenance_ids.remove(digest(&json).as_slice())?;
    }
    tables.provenance.remove(id)?;
    Ok(true)
}
