//! The recent past in slots of equal length.

use std::collections::VecDeque;

use crate::domain::time::Timestamp;

/// Something that can be put together.
pub(super) trait Merge {
    fn merge(&mut self, other: Self);
}

/// What happened in each slot of the recent past; slots in which nothing did are left out.
#[derive(Debug)]
pub(super) struct Ring<T> {
    slot_millis: i64,
    /// So many slots back is remembered.
    reach: i64,
    slots: VecDeque<(i64, T)>,
}

impl<T: Merge> Ring<T> {
    pub fn new(slot_seconds: u32, reach_seconds: u32) -> Self {
        let reach = i64::from(reach_seconds.div_ceil(slot_seconds));
        Self { slot_millis: i64::from(slot_seconds) * 1000, reach, slots: VecDeque::new() }
    }

    pub fn add(&mut self, now: Timestamp, what: T) {
        let slot = self.slot(now);
        match self.slots.back_mut() {
            // A clock that was set back must not put the slots out of order.
            Some((last, into)) if *last >= slot => into.merge(what),
            _ => self.slots.push_back((slot, what)),
        }
        while self.slots.front().is_some_and(|(first, _)| *first <= slot - self.reach) {
            self.slots.pop_front();
        }
    }

    /// What happened in the slots that cover the last seconds, the one that is not over included.
    pub fn last(&self, now: Timestamp, seconds: u32) -> impl Iterator<Item = &T> {
        let (now, slots) = (self.slot(now), i64::from(seconds) * 1000 / self.slot_millis);
        let recent = self.slots.iter().rev();
        recent.take_while(move |(slot, _)| *slot > now - slots).map(|(_, what)| what)
    }

    fn slot(&self, at: Timestamp) -> i64 {
        at.as_millis().div_euclid(self.slot_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Merge for u32 {
        fn merge(&mut self, other: Self) {
            *self += other;
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000).unwrap()
    }

    #[test]
    fn what_is_over_leaves_the_window_and_then_the_memory() {
        let mut ring = Ring::new(5, 60);
        let sum = |ring: &Ring<u32>, now, seconds| ring.last(at(now), seconds).sum::<u32>();
        ring.add(at(0), 1);
        ring.add(at(1), 2);
        ring.add(at(5), 4);
        assert_eq!(sum(&ring, 6, 5), 4);
        assert_eq!(sum(&ring, 6, 10), 7);
        assert_eq!(sum(&ring, 59, 60), 7);
        assert_eq!(sum(&ring, 60, 60), 4);
        assert_eq!(sum(&ring, 65, 60), 0);
        ring.add(at(65), 8);
        assert_eq!(ring.slots.len(), 1);
        // Set back: counted, and later than everything before.
        ring.add(at(30), 16);
        assert_eq!(sum(&ring, 65, 5), 24);
    }
}
