//! Frees what no longer has to be kept.
//!
//! The index of what is due when is only moved forward here: a write that lengthens a retention
//! leaves it alone, so that writes stay cheap, and an entity that is found too early is put back
//! at its true time.

use redb::{ReadTransaction, ReadableTable, Table};

use super::commit;
use super::entity::StoredEntity;
use super::fault::Fault;
use super::history;
use super::key;
use super::log;
use super::provenance;
use super::tables::{ENTITIES_DUE, PROVENANCE_DUE, Tables};
use crate::domain::time::Timestamp;

/// So many index entries of each kind are looked at in one call.
const AT_ONCE: usize = 1000;

/// Whether there is anything to look at, so that no transaction is written in vain.
pub fn is_due(transaction: &ReadTransaction, now: Timestamp) -> Result<bool, Fault> {
    let at = now;
    let now = key::due_at(now);
    let entities = transaction.open_table(ENTITIES_DUE)?;
    let provenance = transaction.open_table(PROVENANCE_DUE)?;
    let has_due = |table: &redb::ReadOnlyTable<&'static [u8], ()>| -> Result<bool, Fault> {
        Ok(table.range(..now.end.as_slice())?.next().transpose()?.is_some())
    };
    Ok(has_due(&entities)? || has_due(&provenance)? || log::is_due(transaction, at)?)
}

/// Reaps what is due at `now`; says how many entities, histories, provenance records and entries of
/// logs went.
pub fn reap(tables: &mut Tables, now: Timestamp) -> Result<usize, Fault> {
    let mut freed = 0;
    for entry in due(&tables.entities_due, now)? {
        tables.entities_due.remove(entry.as_slice())?;
        tables.changed = true;
        if let Some((time, key)) = key::parse_due(&entry) {
            freed += reap_entity(tables, time, key, now)?;
        }
    }
    for entry in due(&tables.provenance_due, now)? {
        tables.provenance_due.remove(entry.as_slice())?;
        tables.changed = true;
        if let Some((_, id)) = key::parse_due(&entry) {
            freed += usize::from(provenance::reap(tables, id, now)?);
        }
    }
    Ok(freed + log::reap(tables, now)?)
}

fn due(table: &Table<&'static [u8], ()>, now: Timestamp) -> Result<Vec<Vec<u8>>, Fault> {
    let now = key::due_at(now);
    let mut entries = Vec::new();
    for entry in table.range(..now.end.as_slice())?.take(AT_ONCE) {
        entries.push(entry?.0.value().to_vec());
    }
    Ok(entries)
}

fn reap_entity(tables: &mut Tables, due: Timestamp, key: &[u8], now: Timestamp) -> Result<usize, Fault> {
    let Some(stored) = tables.entities.get(key)?.map(|guard| guard.value().to_vec()) else {
        return Ok(0);
    };
    let mut entity = match StoredEntity::decode(&stored) {
        Ok(entity) => entity,
        Err(reason) => {
            // It stays for its readers to report and for its owner to delete.
            tracing::warn!(entity = key::display(key), %reason, "an entity cannot be read and is not reaped");
            return Ok(0);
        }
    };
    if entity.due != Some(due) {
        // Left behind by an entity of the same name.
        return Ok(0);
    }
    if has_passed(entity.retain_until, now) {
        return commit::delete(tables, key).map(usize::from);
    }
    let mut passed = Vec::new();
    for feature in &mut entity.features {
        if feature.history.is_some_and(|history| has_passed(history.retain_until, now)) {
            feature.history = None;
            passed.push(feature.name);
        }
    }
    history::drop_features(&mut tables.history, key, &passed)?;
    let freed = passed.len();
    entity.forget_empty();
    // Its index entry is gone.
    entity.due = None;
    commit::put(tables, key, entity)?;
    Ok(freed)
}

pub fn has_passed(retain_until: Option<Timestamp>, now: Timestamp) -> bool {
    retain_until.is_some_and(|until| until <= now)
}
