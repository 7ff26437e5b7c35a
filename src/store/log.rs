//! What a store keeps of what was served: a log a feature service, in the order of time.

use bytes::Bytes;

use crate::domain::time::Timestamp;

/// Something that was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub at: Timestamp,
    /// Tells entries of the same moment apart, and orders them.
    pub id: u64,
    pub body: Bytes,
}

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// What is older goes.
    pub since: Timestamp,
    /// When what is appended now may go, though nobody should append any more.
    pub until: Timestamp,
    /// So many entries stay, the newest.
    pub most: usize,
}

/// Which part of a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    pub from: Timestamp,
    /// Not included.
    pub to: Timestamp,
    /// So many entries of the very time `from` were read already.
    pub skip: usize,
}

impl LogRange {
    /// What is left of it after `read`.
    pub fn after(self, read: &[LogEntry]) -> Self {
        let Some(last) = read.last() else { return self };
        let same = read.iter().rev().take_while(|entry| entry.at == last.at).count();
        let before = if last.at == self.from { self.skip } else { 0 };
        Self { from: last.at, skip: same + before, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_goes_on_where_it_ended_though_times_repeat() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        let entry = |micros| LogEntry { at: at(micros), id: 0, body: Bytes::new() };
        let range = LogRange { from: at(0), to: at(9), skip: 0 };
        assert_eq!(range.after(&[]), range);
        let range = range.after(&[entry(1), entry(2), entry(2)]);
        assert_eq!((range.from, range.skip), (at(2), 2));
        let range = range.after(&[entry(2), entry(2)]);
        assert_eq!((range.from, range.skip), (at(2), 4));
        let range = range.after(&[entry(2), entry(3)]);
        assert_eq!((range.from, range.to, range.skip), (at(3), at(9), 1));
    }
}
