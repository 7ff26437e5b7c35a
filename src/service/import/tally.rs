//! What became of the rows of an import.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::domain::draft::Outcome;
use crate::domain::violation::Violation;
use crate::service::write::Written;

/// How many rows, and what became of them: every row is counted once besides in `rows`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ImportCounts)]
pub struct Counts {
    /// Rows that were decided.
    #[schema(example = 1000)]
    pub rows: u64,
    /// Something of the row is served now.
    #[schema(example = 988)]
    pub written: u64,
    /// All of the row was there already.
    #[schema(example = 8)]
    pub unchanged: u64,
    /// Nothing of the row is served, since newer values are; something went into the history.
    #[schema(example = 2)]
    pub late: u64,
    /// The row had no value to write.
    #[schema(example = 0)]
    pub empty: u64,
    #[schema(example = 2)]
    pub rejected: u64,
}

/// A row that was not stored.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ImportRejection)]
pub struct Rejection {
    /// From 0, a line of column names not counted.
    #[schema(example = 17)]
    pub row: u64,
    /// Null where it could not be read.
    #[schema(example = "x", required)]
    pub entity_id: Option<String>,
    pub errors: Vec<Violation>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.row)?;
        if let Some(entity_id) = &self.entity_id {
            write!(f, " ({entity_id})")?;
        }
        let mut separator = ": ";
        for error in &self.errors {
            write!(f, "{separator}{error}")?;
            separator = "; ";
        }
        Ok(())
    }
}

/// What became of an import.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub counts: Counts,
    /// The first ones, in the order of their rows.
    pub rejections: Vec<Rejection>,
}

/// Counts from several lanes.
pub struct Tally {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    counts: Counts,
    /// Those of the smallest row numbers.
    rejections: BTreeMap<u64, Rejection>,
}

impl Tally {
    pub fn new(most: usize) -> Self {
        Self { most, inner: Mutex::default() }
    }

    pub fn wrote(&self, written: &Written) {
        let has = |wanted| written.outcomes.iter().any(|(_, outcome)| *outcome == wanted);
        self.count(|counts| {
            if has(Outcome::Applied) {
                counts.written += 1;
            } else if has(Outcome::Late) {
                counts.late += 1;
            } else {
                counts.unchanged += 1;
            }
        });
    }

    pub fn empty(&self) {
        self.count(|counts| counts.empty += 1);
    }

    pub fn reject(&self, row: u64, entity_id: Option<&str>, errors: Vec<Violation>) {
        self.count(|counts| counts.rejected += 1);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let last = inner.rejections.last_key_value().map(|(row, _)| *row);
        if inner.rejections.len() < self.most || last.is_some_and(|last| row < last) {
            let entity_id = entity_id.map(str::to_owned);
            inner.rejections.insert(row, Rejection { row, entity_id, errors });
            if inner.rejections.len() > self.most {
                inner.rejections.pop_last();
            }
        }
    }

    pub fn counts(&self) -> Counts {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    pub fn report(&self) -> Report {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Report { counts: inner.counts, rejections: inner.rejections.values().cloned().collect() }
    }

    fn count(&self, add: impl FnOnce(&mut Counts)) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.counts.rows += 1;
        add(&mut inner.counts);
    }
}
