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

use super::reply;
use crate::domain::envelope::{decode_superseded, encode_superseded, exact_as_float};
use crate::domain::record::{Commit, CurrentChange, FeatureChange, Record};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

use super::errors::{corrupt, unexpected};

/// A longer envelope lies in the sorted set of its feature, so that reading the history of a number
/// does not drag embeddings along.
const LONGEST: usize = 64;
const OLDER: u8 = b'+';

/// The part of a commit that goes into one row.
pub(super) struct Row {
    pub columns: String,
    pub bytes: Vec<u8>,
    /// The greatest limit of a column: so many rows are kept.
    pub greatest: usize,
    /// Which changes of the commit are in it.
    pub has: Vec<bool>,
}

impl Row {
    /// `None` where fewer than two features would share it.
    pub fn of(commit: &Commit) -> Option<Self> {
        // A new entity has no history.
        commit.expected?;
        let time = commit.changes.iter().find_map(candidate)?.event_timestamp;
        let mut columns: Vec<(usize, Vec<u8>)> = Vec::with_capacity(commit.changes.len());
        for (index, change) in commit.changes.iter().enumerate() {
            let record = candidate(change).filter(|record| record.event_timestamp == time);
            if let Some(envelope) = record.map(encode_superseded).filter(|bytes| bytes.len() <= LONGEST) {
                columns.push((index, envelope));
            }
        }
        if columns.len() < 2 {
            return None;
        }
        let change = |index: usize| &commit.changes[index];
        columns.sort_unstable_by(|(a, _), (b, _)| change(*a).feature.cmp(&change(*b).feature));
        let mut row = Self {
            columns: String::with_capacity(columns.len() * 24),
            bytes: Vec::with_capacity(8 + columns.len() * 16),
            greatest: 0,
            has: vec![false; commit.changes.len()],
        };
        row.bytes.extend_from_slice(&time.as_micros().to_le_bytes());
        for (index, envelope) in columns {
            let FeatureChange { feature, history_limit, .. } = change(index);
            row.has[index] = true;
            row.greatest = row.greatest.max(*history_limit);
            row.columns.push_str(feature.as_str());
            row.columns.push(':');
            row.columns.push_str(&history_limit.to_string());
            row.columns.push(',');
            // It is at most `LONGEST`.
            row.bytes.push(envelope.len() as u8);
            row.bytes.extend_from_slice(&envelope);
        }
        Some(row)
    }
}

/// What may go into a row: the one record that a new value superseded.
fn candidate(change: &FeatureChange) -> Option<&Record> {
    match (&change.current, change.superseded.as_slice()) {
        (CurrentChange::Set(_), [record]) => {
            (change.history_limit > 0 && exact_as_float(record.event_timestamp)).then_some(record)
        }
        _ => None,
    }
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
