//! What one write superseded, as one row: most writes name the same features again and again, and a
//! row costs Redis one command where a sorted set a feature costs several each.
//!
//! ```text
//! columns  feature:limit, for each feature in the order of their names
//! row      event time (8 bytes, µs, little-endian), then for each column the length of the envelope
//!          (1 byte) and the envelope
//! ```
//! An entity's rows are a list that begins with the columns, preceded by a `+` where some of them have
//! older records in sorted sets of their own. `commit.lua` says when that is so.

use std::collections::HashMap;

use bytes::Bytes;

use super::errors::{corrupt, unexpected};
use super::reply;
use crate::domain::envelope::{decode_superseded, encode_superseded, exact_as_float, put_superseded};
use crate::domain::record::{Commit, CurrentChange, FeatureChange, Record};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// A longer envelope lies in the sorted set of its feature, so that reading the history of a number
/// does not drag embeddings along.
const LONGEST: usize = 64;
const OLDER: u8 = b'+';

/// So many at most are put into one commit: a script cannot take any number at once.
const MOST: usize = 1000;

/// The part of a commit that goes into rows: one, unless it is several writes in one.
pub(super) struct NewRows {
    pub columns: String,
    /// Oldest first.
    pub rows: Vec<Vec<u8>>,
    /// The greatest limit of a column: so many rows are kept.
    pub greatest: usize,
    /// Which changes of the commit are in them.
    pub has: Vec<bool>,
}

impl NewRows {
    /// `None` where fewer than two features would share them.
    pub fn of(commit: &Commit) -> Option<Self> {
        // A new entity has no history.
        commit.expected?;
        let model = commit.changes.iter().find_map(superseded)?;
        let fits =
            |change: &FeatureChange| superseded(change).is_some_and(|records| same_times(records, model));
        let feature = |index: usize| &commit.changes[index].feature;
        let mut candidates: Vec<usize> =
            (0..commit.changes.len()).filter(|index| fits(&commit.changes[*index])).collect();
        candidates.sort_unstable_by(|a, b| feature(*a).cmp(feature(*b)));
        let start = |record: &Record| {
            let mut row = Vec::with_capacity(8 + candidates.len() * 16);
            row.extend_from_slice(&record.event_timestamp.as_micros().to_le_bytes());
            row
        };
        let mut new = Self {
            columns: String::with_capacity(candidates.len() * 24),
            rows: model.iter().rev().map(start).collect(),
            greatest: 0,
            has: vec![false; commit.changes.len()],
        };
        let mut limit = (usize::MAX, String::new());
        for index in candidates {
            let change = &commit.changes[index];
            if !new.take(&change.superseded) {
                continue;
            }
            if limit.0 != change.history_limit {
                limit = (change.history_limit, change.history_limit.to_string());
            }
            new.has[index] = true;
            new.greatest = new.greatest.max(change.history_limit);
            for part in [change.feature.as_str(), ":", &limit.1, ","] {
                new.columns.push_str(part);
            }
        }
        (new.has.iter().filter(|has| **has).count() >= 2).then_some(new)
    }

    /// Adds a column; not, where one of its envelopes is too long.
    fn take(&mut self, records: &[Record]) -> bool {
        let mut fit = true;
        for (row, record) in self.rows.iter_mut().zip(records.iter().rev()) {
            let at = row.len();
            row.push(0);
            put_superseded(row, record);
            let length = row.len() - at - 1;
            fit &= length <= LONGEST;
            row[at] = u8::try_from(length).unwrap_or(u8::MAX);
        }
        if !fit {
            for (row, record) in self.rows.iter_mut().zip(records.iter().rev()) {
                row.truncate(row.len() - 1 - encode_superseded(record).len());
            }
        }
        fit
    }
}

/// What a change has for rows: the records that new values superseded, newest first.
fn superseded(change: &FeatureChange) -> Option<&[Record]> {
    let records = change.superseded.as_slice();
    let fit = matches!(change.current, CurrentChange::Set(_))
        && !change.rewrites_history
        && (1..=MOST).contains(&records.len())
        && change.history_limit > 0
        && records.iter().all(|record| exact_as_float(record.event_timestamp))
        && records.is_sorted_by(|a, b| a.event_timestamp > b.event_timestamp);
    fit.then_some(records)
}

fn same_times(a: &[Record], b: &[Record]) -> bool {
    let time = |record: &Record| record.event_timestamp;
    a.iter().map(time).eq(b.iter().map(time))
}

/// The rows of one entity, taken apart.
#[derive(Default)]
pub(super) struct Rows {
    columns: HashMap<String, Column>,
}

struct Column {
    limit: usize,
    records: Vec<Record>,
}

impl Rows {
    /// Reads the list under `key`.
    pub fn read(key: &Bytes, reply: Vec<fred::types::Value>) -> Result<Self, StoreError> {
        let mut elements = Vec::with_capacity(reply.len());
        for element in reply {
            elements.push(reply::bytes(element).ok_or_else(|| unexpected("LRANGE"))?);
        }
        let Some((columns, rows)) = elements.split_first() else { return Ok(Self::default()) };
        let columns = columns.strip_prefix(&[OLDER]).unwrap_or(columns);
        let mut names = parse_columns(columns).ok_or_else(|| corrupt(key, "", "these are no columns"))?;
        for row in rows {
            let rest = &mut row.as_ref();
            let time = take_time(rest).ok_or_else(|| corrupt(key, "", "a row has no time"))?;
            for (name, column) in &mut names {
                let envelope =
                    take_envelope(rest).ok_or_else(|| corrupt(key, name, "a row ends too soon"))?;
                let record = decode_superseded(time, envelope);
                column.records.push(record.map_err(|reason| corrupt(key, name, reason))?);
            }
        }
        Ok(Self { columns: names.into_iter().collect() })
    }

    /// Adds what the rows have of a feature to its `records`, which become newest first and no more
    /// than its limit.
    pub fn add_to(&mut self, feature: &str, records: &mut Vec<Record>) {
        let Some(column) = self.columns.remove(feature) else { return };
        records.extend(column.records);
        records.sort_by_key(|record| std::cmp::Reverse(record.order()));
        // Rows that were spilled in between have been read in both places.
        records.dedup_by_key(|record| record.order());
        records.truncate(column.limit);
    }
}

fn parse_columns(bytes: &[u8]) -> Option<Vec<(String, Column)>> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix(',')?;
    let column = |text: &str| {
        let (name, limit) = text.split_once(':')?;
        Some((name.to_owned(), Column { limit: limit.parse().ok()?, records: Vec::new() }))
    };
    text.split(',').map(column).collect()
}

fn take_time(bytes: &mut &[u8]) -> Option<Timestamp> {
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Timestamp::from_micros(i64::from_le_bytes(*time))
}

fn take_envelope<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first()?;
    let (envelope, rest) = rest.split_at_checked(usize::from(*length))?;
    *bytes = rest;
    Some(envelope)
}
