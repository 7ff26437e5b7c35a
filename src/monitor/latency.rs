//! Latencies as histograms: recorded by an atomic addition, kept as the few buckets that were hit.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The finest that is told apart.
const UNIT_NANOS: u64 = 100;
/// Buckets of one doubling; a bucket is at most 1/32 of its value wide.
const PER_DOUBLING: u64 = 32;
/// Up to 2^36 units, about two hours; what is longer counts as that.
const LARGEST: u64 = (1 << 36) - 1;
const BUCKETS: usize = 1024;

fn bucket_of(units: u64) -> usize {
    let units = units.min(LARGEST);
    if units < PER_DOUBLING {
        return units as usize;
    }
    let shift = units.ilog2() - PER_DOUBLING.ilog2();
    (PER_DOUBLING as usize) * shift as usize + (units >> shift) as usize
}

/// The middle of a bucket, in seconds.
fn seconds_of(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    let (low, width) = if bucket < 2 * PER_DOUBLING {
        (bucket, 1_u64)
    } else {
        let shift = bucket / PER_DOUBLING - 1;
        ((bucket - PER_DOUBLING * shift) << shift, 1 << shift)
    };
    (low as f64 + width as f64 / 2.0) * UNIT_NANOS as f64 / 1e9
}

/// Where latencies are recorded.
#[derive(Debug)]
pub struct Latencies {
    counts: Box<[AtomicU32]>,
    nanos: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        let counts = (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self { counts, nanos: AtomicU64::new(0) }
    }
}

impl Latencies {
    pub fn record(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).min(LARGEST * UNIT_NANOS);
        self.counts[bucket_of(nanos / UNIT_NANOS)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was recorded since it was last taken.
    pub(super) fn take(&self) -> Sparse {
        let hit = self.counts.iter().enumerate().filter(|(_, count)| count.load(Ordering::Relaxed) > 0);
        let counts = hit.map(|(bucket, count)| (bucket as u16, count.swap(0, Ordering::Relaxed)));
        Sparse { counts: counts.collect(), nanos: self.nanos.swap(0, Ordering::Relaxed) }
    }
}

/// The buckets that were hit, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    counts: Vec<(u16, u32)>,
    nanos: u64,
}

impl Sparse {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn add(&mut self, other: Self) {
        for (bucket, count) in other.counts {
            match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
                Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
                Err(at) => self.counts.insert(at, (bucket, count)),
            }
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

/// Latencies of a window, put together.
#[derive(Clone, Debug)]
pub struct Distribution {
    counts: Vec<u64>,
    count: u64,
    nanos: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, nanos: 0 }
    }
}

impl Distribution {
    pub(super) fn add(&mut self, sparse: &Sparse) {
        for (bucket, count) in &sparse.counts {
            self.counts[usize::from(*bucket)] += u64::from(*count);
            self.count += u64::from(*count);
        }
        self.nanos = self.nanos.saturating_add(sparse.nanos);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// In seconds; `None` where nothing was recorded.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.nanos as f64 / 1e9 / self.count as f64)
    }

    /// The latency, in seconds, that the given share of them did not exceed; within 2%.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += count;
                *count > 0 && seen >= rank
            })
            .map(seconds_of)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn distribution(millis: impl Iterator<Item = f64>) -> Distribution {
        let latencies = Latencies::default();
        millis.for_each(|millis| latencies.record(Duration::from_secs_f64(millis / 1e3)));
        let (mut whole, mut first) = (Distribution::default(), latencies.take());
        assert!(latencies.take().is_empty(), "it was taken");
        first.add(Sparse::default());
        whole.add(&first);
        whole
    }

    #[test]
    fn quantiles_and_mean_of_a_hundred() {
        let whole = distribution((1..=100).map(f64::from));
        assert_eq!(whole.count(), 100);
        assert!((whole.mean().unwrap() - 0.0505).abs() < 1e-9);
        for (share, seconds) in [(0.5, 0.05), (0.95, 0.095), (0.99, 0.099), (1.0, 0.1), (0.0, 0.001)] {
            let found = whole.quantile(share).unwrap();
            assert!((found / seconds - 1.0).abs() < 0.02, "{share}: {found}");
        }
    }

    #[test]
    fn nothing_has_no_quantile() {
        let nothing = distribution(std::iter::empty());
        assert_eq!((nothing.count(), nothing.mean(), nothing.quantile(0.5)), (0, None, None));
    }

    #[test]
    fn the_longest_and_the_shortest_have_buckets() {
        let latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.take().counts.len(), 2);
    }

    proptest! {
        #[test]
        fn a_bucket_is_close_to_what_it_holds(units in 0..=LARGEST) {
            let bucket = bucket_of(units);
            prop_assert!(bucket < BUCKETS);
            let (seconds, exact) = (seconds_of(bucket), units as f64 * UNIT_NANOS as f64 / 1e9);
            prop_assert!((seconds - exact).abs() <= exact / 60.0 + 1e-7, "{exact} became {seconds}");
        }

        #[test]
        fn buckets_are_in_order(a in 0..=LARGEST, b in 0..=LARGEST) {
            prop_assert!(bucket_of(a.min(b)) <= bucket_of(a.max(b)));
        }
    }
}
