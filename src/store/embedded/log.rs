//! The logs of what was served: `service \0 time, id` → when it may go, and the entry.

use redb::{ReadTransaction, ReadableTable};

use super::fault::Fault;
use super::key;
use super::tables::{SERVING_LOG, Tables};
use crate::domain::time::Timestamp;
use crate::store::log::{LogBounds, LogEntry, LogRange};

/// So many old entries of a log go in one call at most, besides as many as come.
const AT_ONCE: usize = 1000;

/// The number, in `meta`, of the entries of a log.
fn count_of(log: &str) -> String {
    format!("log:{log}")
}

pub fn append(tables: &mut Tables, log: &str, entries: &[LogEntry], bounds: LogBounds) -> Result<(), Fault> {
    let mut count = tables.number(&count_of(log))?;
    for entry in entries {
        let value = [&bounds.until.as_micros().to_le_bytes(), entry.body.as_ref()].concat();
        let known =
            tables.serving_log.insert(key::logged(log, entry.at, entry.id).as_slice(), value.as_slice())?;
        count += u64::from(known.is_none());
    }
    let surplus = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(bounds.most);
    let mut old = Vec::new();
    for entry in tables
        .serving_log
        .range(super::commit::range_of(&key::below(log.as_bytes())))?
        .take(AT_ONCE + entries.len())
    {
        let key = entry?.0.value().to_vec();
        if old.len() >= surplus && key::logged_at(&key).is_none_or(|at| at >= bounds.since) {
            break;
        }
        old.push(key);
    }
    remove(tables, log, count, &old)
}

/// Removes entries of a log that had `count`.
fn remove(tables: &mut Tables, log: &str, count: u64, keys: &[Vec<u8>]) -> Result<(), Fault> {
    for key in keys {
        tables.serving_log.remove(key.as_slice())?;
    }
    tables.set_number(&count_of(log), count.saturating_sub(keys.len() as u64))
}

pub fn read(
    transaction: &ReadTransaction,
    log: &str,
    range: LogRange,
    limit: usize,
) -> Result<Vec<LogEntry>, Fault> {
    let table = transaction.open_table(SERVING_LOG)?;
    let (from, to) = (key::logged(log, range.from, 0), key::logged(log, range.to, 0));
    if from >= to {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    for found in table.range(from.as_slice()..to.as_slice())?.skip(range.skip).take(limit) {
        let (key, value) = found?;
        let (key, value) = (key.value(), value.value());
        let unreadable = || Fault::corrupt_table("serving_log", log, "this is no entry of a log");
        let (at, id) = key::logged_at(key).zip(key::logged_id(key)).ok_or_else(unreadable)?;
        let (_, body) = value.split_first_chunk::<8>().ok_or_else(unreadable)?;
        entries.push(LogEntry { at, id, body: body.to_vec().into() });
    }
    Ok(entries)
}

pub fn delete(tables: &mut Tables, log: &str) -> Result<(), Fault> {
    tables.serving_log.retain_in(super::commit::range_of(&key::below(log.as_bytes())), |_, _| false)?;
    tables.meta.remove(count_of(log).as_str())?;
    tables.changed = true;
    Ok(())
}

/// The logs whose oldest entry may go at `now`.
fn due_logs(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    now: Timestamp,
) -> Result<Vec<String>, Fault> {
    let mut due = Vec::new();
    let mut from = Vec::new();
    loop {
        let Some(first) = table.range(from.as_slice()..)?.next() else { return Ok(due) };
        let (key, value) = first?;
        let Some(log) = key::log(key.value()) else { return Ok(due) };
        if may_go(value.value(), now) {
            due.push(log.to_owned());
        }
        from = key::below(log.as_bytes()).end;
    }
}

fn may_go(value: &[u8], now: Timestamp) -> bool {
    value.first_chunk::<8>().is_none_or(|until| i64::from_le_bytes(*until) <= now.as_micros())
}

pub fn is_due(transaction: &ReadTransaction, now: Timestamp) -> Result<bool, Fault> {
    Ok(!due_logs(&transaction.open_table(SERVING_LOG)?, now)?.is_empty())
}

/// Removes what may go at `now`, a bounded amount; says how many entries went.
pub fn reap(tables: &mut Tables, now: Timestamp) -> Result<usize, Fault> {
    let mut freed = 0;
    for log in due_logs(&tables.serving_log, now)? {
        let mut old = Vec::new();
        for entry in
            tables.serving_log.range(super::commit::range_of(&key::below(log.as_bytes())))?.take(AT_ONCE)
        {
            let (key, value) = entry?;
            if !may_go(value.value(), now) {
                break;
            }
            old.push(key.value().to_vec());
        }
        freed += old.len();
        let count = tables.number(&count_of(&log))?;
        remove(tables, &log, count, &old)?;
    }
    Ok(freed)
}
