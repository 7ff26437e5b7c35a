//! Carries out commits and deletions inside the writer's transaction.

use foldhash::HashMap;
use redb::ReadableTable;

use super::entity::{StoredCurrent, StoredEntity, StoredHistory, longer};
use super::fault::Fault;
use super::history::{self, Excess, Table};
use super::key;
use super::prepared::{PreparedCommit, PreparedCurrent};
use super::tables::Tables;
use crate::domain::time::Timestamp;
use crate::store::CommitOutcome;

pub fn apply(tables: &mut Tables, commit: &PreparedCommit) -> Result<CommitOutcome, Fault> {
    let stored = tables.entities.get(commit.entity.as_slice())?.map(|guard| guard.value().to_vec());
    let stored = stored.as_deref().map(StoredEntity::decode).transpose();
    let stored = stored.map_err(|reason| Fault::corrupt(&commit.entity, "", reason))?;
    if stored.as_ref().map(|entity| entity.head) != commit.expected {
        return Ok(CommitOutcome::Conflict);
    }
    // Nothing is refused from here on: only the engine may fail.
    tables.changed = true;
    tables.touched.push(commit.entity.clone());
    let mut entity = match stored {
        Some(stored) => {
            let retain_until = longer(stored.retain_until, commit.retain_until);
            StoredEntity { head: commit.head, retain_until, ..stored }
        }
        None => StoredEntity {
            head: commit.head,
            retain_until: commit.retain_until,
            due: None,
            features: Vec::new(),
        },
    };
    apply_currents(tables, &mut entity, commit)?;
    extend_histories(tables, &mut entity, commit)?;
    entity.forget_empty();
    put(tables, &commit.entity, entity)?;
    Ok(CommitOutcome::Committed)
}

/// Stores the entity, and has the reaper look at it in time.
pub fn put(tables: &mut Tables, key: &[u8], mut entity: StoredEntity<'_>) -> Result<(), Fault> {
    let end = entity.first_end();
    let is_indexed_in_time = match (entity.due, end) {
        (Some(due), Some(end)) => due <= end,
        (_, None) => true,
        (None, Some(_)) => false,
    };
    if !is_indexed_in_time {
        move_due(tables, key, entity.due, end)?;
        entity.due = end;
    }
    tables.entities.insert(key, entity.encode().as_slice())?;
    Ok(())
}

fn move_due(
    tables: &mut Tables,
    key: &[u8],
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<(), Fault> {
    if let Some(from) = from {
        tables.entities_due.remove(key::due(from, key).as_slice())?;
    }
    if let Some(to) = to {
        tables.entities_due.insert(key::due(to, key).as_slice(), ())?;
    }
    Ok(())
}

/// Puts the current records in their places, and drops the histories that are not to go on.
fn apply_currents<'b>(
    tables: &mut Tables,
    entity: &mut StoredEntity<'b>,
    commit: &'b PreparedCommit,
) -> Result<(), Fault> {
    let mut dropped = Vec::new();
    for change in &commit.changes {
        let feature = entity.feature_mut(&change.feature);
        let was_large = feature.current == StoredCurrent::Large;
        match &change.current {
            PreparedCurrent::Keep => {}
            PreparedCurrent::Small(envelope) => feature.current = StoredCurrent::Here(envelope),
            PreparedCurrent::Large(envelope) => {
                tables.large.insert(change.key.as_slice(), envelope.as_slice())?;
                feature.current = StoredCurrent::Large;
            }
            PreparedCurrent::Erase => feature.current = StoredCurrent::Nowhere,
        }
        if was_large && feature.current != StoredCurrent::Large {
            tables.large.remove(change.key.as_slice())?;
        }
        if let Some(history) = &mut feature.history
            && (change.rewrites_history || !change.keeps_history())
        {
            // How long it is kept stays, where it is only rewritten.
            (history.records, history.alone) = (0, false);
            dropped.push(change.feature.as_str());
        }
        if !change.keeps_history() {
            feature.history = None;
        }
    }
    history::drop_features(&mut tables.history, &commit.entity, &dropped)
}

/// Adds what is superseded, and removes what is more than a history holds.
fn extend_histories<'b>(
    tables: &mut Tables,
    entity: &mut StoredEntity<'b>,
    commit: &'b PreparedCommit,
) -> Result<(), Fault> {
    let mut added: HashMap<&str, usize> = HashMap::default();
    for (key, row) in &commit.rows {
        history::put_row(&mut tables.history, key, row, &mut added)?;
    }
    let mut excess = Vec::new();
    for change in commit.changes.iter().filter(|change| change.keeps_history()) {
        let feature = entity.feature_mut(&change.feature);
        let before = feature.history;
        let mut records = before.map_or(0, |history| history.records as usize);
        records += added.get(change.feature.as_str()).copied().unwrap_or(0);
        for (key, envelope) in &change.alone {
            records += usize::from(tables.history.insert(key.as_slice(), envelope.as_slice())?.is_none());
        }
        if records == 0 {
            feature.history = None;
            continue;
        }
        let alone = before.is_some_and(|history| history.alone) || !change.alone.is_empty();
        if records > change.history_limit {
            let too_many = records - change.history_limit;
            excess.push(Excess { feature: &change.feature, records: too_many, alone });
            records = change.history_limit;
        }
        let retain_until = match before {
            Some(history) => longer(history.retain_until, change.retain_until),
            None => change.retain_until,
        };
        // More records than fit are cut to what does: a limit is far below it.
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        feature.history = Some(StoredHistory { records, alone, retain_until });
    }
    if excess.is_empty() { Ok(()) } else { history::trim(&mut tables.history, &commit.entity, excess) }
}

/// Removes an entity with everything that is stored of it, readable or not; says whether it was
/// there.
pub fn delete(tables: &mut Tables, key: &[u8]) -> Result<bool, Fault> {
    let due = match tables.entities.remove(key)? {
        None => return Ok(false),
        // Where it cannot be read, the reaper finds an index entry without an entity and drops it.
        Some(stored) => StoredEntity::decode(stored.value()).ok().and_then(|entity| entity.due),
    };
    tables.changed = true;
    tables.touched.push(key.to_vec());
    move_due(tables, key, due, None)?;
    remove_below(&mut tables.large, key)?;
    remove_below(&mut tables.history, key)?;
    Ok(true)
}

/// Removes everything whose key is below `key`.
pub fn remove_below(table: &mut Table<'_>, key: &[u8]) -> Result<(), Fault> {
    table.retain_in(range_of(&key::below(key)), |_, _| false)?;
    Ok(())
}

/// The same range, of borrowed keys.
pub fn range_of(range: &std::ops::Range<Vec<u8>>) -> std::ops::Range<&[u8]> {
    range.start.as_slice()..range.end.as_slice()
}
