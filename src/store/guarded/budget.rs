//! How many calls may be repeated. Pure: time is passed in.
//!
//! While a store fails, every call would like another try, and tries upon tries are what keeps a
//! struggling store down. So retries are paid for: each call earns a tenth of one, and one a
//! second comes for free, that a quiet server may retry too.

use std::time::{Duration, Instant};

/// So many calls earn one retry.
pub const CALLS_PER_RETRY: u64 = 10;
/// So often a retry is earned without a call.
pub const FREE_RETRY: Duration = Duration::from_secs(1);
/// So many retries may be saved up.
pub const MOST_SAVED: u64 = 100;

/// The retries that may still be made, as a number of calls' earnings.
#[derive(Clone, Debug)]
pub struct Budget {
    /// In tenths of a retry, of which each call earns one.
    saved: u64,
    counted_calls: u64,
    counted_until: Instant,
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { saved: CALLS_PER_RETRY * 10, counted_calls: 0, counted_until: now }
    }

    /// Takes one retry out of the budget, if there is one. `calls` is how many were ever made.
    pub fn take(&mut self, calls: u64, now: Instant) -> bool {
        let earned = calls.saturating_sub(self.counted_calls);
        self.counted_calls = self.counted_calls.max(calls);
        let seconds = now.saturating_duration_since(self.counted_until).as_secs() / FREE_RETRY.as_secs();
        self.counted_until += FREE_RETRY * u32::try_from(seconds).unwrap_or(u32::MAX);
        let free = seconds.saturating_mul(CALLS_PER_RETRY);
        let saved = self.saved.saturating_add(earned).saturating_add(free);
        self.saved = saved.min(MOST_SAVED * CALLS_PER_RETRY);
        match self.saved.checked_sub(CALLS_PER_RETRY) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However calls and time are spread: retries stay within a tenth of the calls, one a
        /// second, and what was there to begin with; and none is refused that was earned lately.
        #[test]
        fn retries_stay_within_what_was_earned(steps in prop::collection::vec((0u64..200, 0u64..3000, 0u64..50), 1..60)) {
            let start = Instant::now();
            let mut budget = Budget::new(start);
            let (mut calls, mut now, mut retries) = (0, start, 0);
            for (more, millis, wanted) in steps {
                calls += more;
                now += Duration::from_millis(millis);
                let taken = (0..wanted).filter(|_| budget.take(calls, now)).count() as u64;
                prop_assert!(taken >= wanted.min(more / CALLS_PER_RETRY), "earned and not given");
                retries += taken;
                let earned = calls / CALLS_PER_RETRY + (now - start).as_secs() + 10;
                prop_assert!(retries <= earned, "{retries} of {earned}");
            }
        }
    }

    #[test]
    fn saving_has_an_end() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let much_later = now + Duration::from_secs(86_400);
        let taken = (0..1000).filter(|_| budget.take(1_000_000, much_later)).count();
        assert_eq!(taken as u64, MOST_SAVED);
    }
}
