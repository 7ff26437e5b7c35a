//! Carries out commits and deletions inside the writer's transaction.

use redb::ReadableTable;

use super::entity::{StoredCurrent, StoredEntity, StoredFeature, StoredHistory, longer};
use super::fault::Fault;
use super::key;
use super::prepared::{PreparedChange, PreparedCommit, PreparedCurrent};
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
    for change in &commit.changes {
        apply_change(tables, entity.feature_mut(&change.feature), change)?;
    }
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

fn apply_change<'b>(
    tables: &mut Tables,
    feature: &mut StoredFeature<'b>,
    change: &'b PreparedChange,
) -> Result<(), Fault> {
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
    if matches!(change.current, PreparedCurrent::Erase) || change.history_limit == 0 {
        return drop_history(tables, &change.key, feature);
    }
    extend_history(tables, feature, change)
}

fn extend_history(
    tables: &mut Tables,
    feature: &mut StoredFeature,
    change: &PreparedChange,
) -> Result<(), Fault> {
    let mut records = feature.history.map_or(0, |history| history.records as usize);
    if change.rewrites_history && records > 0 {
        remove_below(&mut tables.history, &change.key)?;
        records = 0;
    }
    for (key, envelope) in &change.superseded {
        let replaced = tables.history.insert(key.as_slice(), envelope.as_slice())?.is_some();
        records += usize::from(!replaced);
    }
    if records == 0 {
        feature.history = None;
        return Ok(());
    }
    if records > change.history_limit {
        let range = key::below(&change.key);
        let mut oldest = Vec::with_capacity(records - change.history_limit);
        for entry in tables.history.range(range_of(&range))?.take(records - change.history_limit) {
            oldest.push(entry?.0.value().to_vec());
        }
        for key in &oldest {
            tables.history.remove(key.as_slice())?;
        }
        records = change.history_limit;
    }
    let retain_until = match feature.history {
        Some(history) => longer(history.retain_until, change.retain_until),
        None => change.retain_until,
    };
    // More records than fit are cut to what does: a limit is far below it.
    let records = u32::try_from(records).unwrap_or(u32::MAX);
    feature.history = Some(StoredHistory { records, retain_until });
    Ok(())
}

/// Removes all superseded records of a feature.
pub fn drop_history(tables: &mut Tables, key: &[u8], feature: &mut StoredFeature) -> Result<(), Fault> {
    if feature.history.take().is_some() {
        remove_below(&mut tables.history, key)?;
    }
    Ok(())
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

type BytesTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

fn remove_below(table: &mut BytesTable, key: &[u8]) -> Result<(), Fault> {
    table.retain_in(range_of(&key::below(key)), |_, _| false)?;
    Ok(())
}

/// The same range, of borrowed keys.
pub fn range_of(range: &std::ops::Range<Vec<u8>>) -> std::ops::Range<&[u8]> {
    range.start.as_slice()..range.end.as_slice()
}
