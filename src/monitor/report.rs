//! Windows of what was recorded, put together for people and for alerts.

use super::latency::Distribution;
use super::performance::{Of, Performance, Tallies, Tally, TypeRecorder};
use super::ring::Merge;
use crate::domain::time::Timestamp;

/// One window of time.
#[derive(Clone, Debug)]
pub struct Window {
    /// How much of it lies behind: less than asked for while the server is young.
    pub seconds: f64,
    pub retrieval: Distribution,
    pub write: Distribution,
    pub tallies: Tallies,
}

impl Window {
    /// `None` where nothing was asked of a cache.
    pub fn cache_hit_rate(&self) -> Option<f64> {
        self.share(Tally::CacheHits, self.tallies.of(Tally::CacheHits) + self.tallies.of(Tally::CacheMisses))
    }

    /// `None` without requests.
    pub fn error_rate(&self) -> Option<f64> {
        self.share(Tally::ServerErrors, self.tallies.of(Tally::Requests))
    }

    fn share(&self, part: Tally, whole: u64) -> Option<f64> {
        (whole > 0).then(|| self.tallies.of(part) as f64 / whole as f64)
    }
}

impl Performance {
    /// The last seconds of everything, as of what was settled.
    pub fn window(&self, now: Timestamp, seconds: u32) -> Window {
        self.window_of(Of::Total, now, seconds)
    }

    /// The last seconds of each entity type that was read or written in the last hour.
    pub fn windows_by_type(&self, now: Timestamp, seconds: &[u32]) -> Vec<(String, Vec<Window>)> {
        let windows = |recorder: &TypeRecorder| -> Vec<Window> {
            seconds.iter().map(|seconds| self.window_of(Of::Type(recorder), now, *seconds)).collect()
        };
        self.types().into_iter().map(|(name, recorder)| (name, windows(&recorder))).collect()
    }

    fn window_of(&self, of: Of<'_>, now: Timestamp, seconds: u32) -> Window {
        let lived = now.seconds_since(self.since).max(0.0);
        let mut window = Window {
            seconds: f64::from(seconds).min(lived),
            retrieval: Distribution::default(),
            write: Distribution::default(),
            tallies: Tallies::default(),
        };
        self.last(of, now, seconds, |sample| {
            window.retrieval.add(&sample.retrieval);
            window.write.add(&sample.write);
            window.tallies.merge(sample.tallies);
        });
        window
    }
}
