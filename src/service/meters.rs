//! What the use cases count. The handles are made once, so that counting is one atomic addition.

use metrics::{Counter, counter};

use crate::domain::draft::Outcome;
use crate::domain::name::FeatureName;
use crate::domain::view::Status;
use crate::domain::violation::Violation;

pub struct Meters {
    reads: [Counter; Status::ALL.len()],
    writes: [Counter; 4],
    conflicts: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

impl Meters {
    pub fn new() -> Self {
        let write = |outcome: Outcome| counter!("feature_store_features_written_total", "outcome" => outcome.as_str());
        Self {
            reads: Status::ALL
                .map(|status| counter!("feature_store_features_read_total", "status" => status.as_str())),
            writes: [Outcome::Applied, Outcome::Unchanged, Outcome::Late, Outcome::Skipped].map(write),
            conflicts: counter!("feature_store_commit_conflicts_total"),
        }
    }

    /// Counts the features of a read.
    pub fn read(&self, statuses: impl Iterator<Item = Status>) {
        let mut counts = [0; Status::ALL.len()];
        statuses.for_each(|status| counts[status as usize] += 1);
        self.read_counted(&counts);
    }

    /// Counts the features of a read, by status.
    pub fn read_counted(&self, counts: &[u64; Status::ALL.len()]) {
        for (counter, count) in self.reads.iter().zip(counts).filter(|(_, count)| **count > 0) {
            counter.increment(*count);
        }
    }

    /// Counts the features of a write.
    pub fn wrote(&self, outcomes: &[(FeatureName, Outcome)]) {
        for (_, outcome) in outcomes {
            self.writes[*outcome as usize].increment(1);
        }
    }

    /// Counts a commit that has to be decided anew.
    pub fn conflict(&self) {
        self.conflicts.increment(1);
    }

    /// Counts refused values by what is wrong with them; the codes are a closed list.
    pub fn refused(&self, violations: &[Violation]) {
        for violation in violations {
            counter!("feature_store_validation_errors_total", "code" => violation.code.as_str()).increment(1);
        }
    }
}
