//! How many calls may be under way. Pure: time is passed in.
//!
//! A store that is asked for more than it can do answers no fewer calls, but each of them waits for all
//! before it. A queue that never empties shows in the fastest call of a while: if even that took long,
//! there was never a moment without a queue. So the limit sinks below what was under way while that is
//! so, and rises, if there is anybody to profit by it, while it is not. A single slow call, or a store
//! that stumbles for a moment, changes nothing.

use std::time::{Duration, Instant};

/// How long a while is.
const WHILE: Duration = Duration::from_millis(100);
/// The fastest call of a while may take so long.
const TOLERATED: Duration = Duration::from_millis(100);
/// So many may be under way in any case, however slow the store: it may be far away.
pub const FEWEST: usize = 32;
/// Other limits come first.
const MOST: usize = 4096;

#[derive(Clone, Debug)]
pub struct Limit {
    allowed: usize,
    under_way: usize,
    /// In this while.
    most_under_way: usize,
    fastest: Option<Duration>,
    since: Instant,
}

impl Limit {
    pub fn new(now: Instant) -> Self {
        Self { allowed: MOST, under_way: 0, most_under_way: 0, fastest: None, since: now }
    }

    /// Whether one more call may begin; if so, it must [`end`](Self::end).
    pub fn begin(&mut self) -> bool {
        let begins = self.under_way < self.allowed;
        self.under_way += usize::from(begins);
        self.most_under_way = self.most_under_way.max(self.under_way);
        begins
    }

    pub fn end(&mut self, took: Duration, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
        if now.saturating_duration_since(self.since) >= WHILE {
            self.judge();
            self.since = now;
            self.most_under_way = self.under_way;
            self.fastest = None;
        }
    }

    fn judge(&mut self) {
        if self.fastest.is_some_and(|fastest| fastest > TOLERATED) {
            self.allowed = (self.most_under_way.min(self.allowed) * 3 / 4).max(FEWEST);
        } else if self.most_under_way >= self.allowed {
            self.allowed = (self.allowed + self.allowed / 8).min(MOST);
        } else if self.most_under_way < self.allowed / 2 {
            // Nobody is near it: it is of another time.
            self.allowed = (self.allowed * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that works on one call after another, for `each`, while `arriving` come in that time.
    /// Gives the longest time that a call of the last second took, and how many were answered in it.
    fn simulate(each: Duration, arriving: usize, seconds: u32) -> (Duration, usize) {
        let start = Instant::now();
        let (mut limit, mut now, mut queue) = (Limit::new(start), start, std::collections::VecDeque::new());
        let end = start + Duration::from_secs(1) * seconds;
        let (mut slowest, mut answered) = (Duration::ZERO, 0);
        while now < end {
            queue.extend((0..arriving).filter(|_| limit.begin()).map(|_| now));
            now += each;
            if let Some(began) = queue.pop_front() {
                limit.end(now - began, now);
                if now + Duration::from_secs(1) > end {
                    slowest = slowest.max(now - began);
                    answered += 1;
                }
            }
        }
        (slowest, answered)
    }

    #[test]
    fn a_store_that_keeps_up_is_not_limited() {
        let (slowest, answered) = simulate(Duration::from_millis(1), 1, 10);
        assert!(slowest <= Duration::from_millis(1) && answered >= 999, "{slowest:?} {answered}");
    }

    #[test]
    fn four_times_what_a_store_can_do_waits_little_and_wastes_nothing() {
        for micros in [100, 1000, 3000] {
            let each = Duration::from_micros(micros);
            let (slowest, answered) = simulate(each, 4, 20);
            assert!(slowest < TOLERATED * 3, "{each:?}: {slowest:?}");
            assert!(answered as u64 >= 990_000 / micros, "{each:?}: {answered}");
        }
    }

    #[test]
    fn a_store_that_is_slow_for_everybody_keeps_a_few() {
        let (_, answered) = simulate(Duration::from_millis(20), 4, 20);
        assert!(answered >= 49, "{answered}");
        let mut limit = Limit::new(Instant::now());
        limit.allowed = FEWEST;
        assert_eq!((0..1000).filter(|_| limit.begin()).count(), FEWEST);
    }
}
