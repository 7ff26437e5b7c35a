//! How often a key may be used.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock as _, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;

/// So many requests a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    /// `None` where one of them is zero. Without a burst of its own, that of one second.
    pub fn new(per_second: u32, burst: Option<u32>) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let burst = burst.map_or(Some(per_second), NonZeroU32::new)?;
        Some(Self { per_second, burst })
    }
}

/// Our clock, as the limiter reads it.
#[derive(Clone)]
struct Time(Arc<dyn Clock>);

impl governor::clock::Clock for Time {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(u64::try_from(self.0.now().as_micros()).unwrap_or(0).saturating_mul(1000))
    }
}

/// Counts the uses of one key; clones count together.
#[derive(Clone)]
pub struct Limiter {
    rate: Rate,
    time: Time,
    limiter: Arc<RateLimiter<NotKeyed, InMemoryState, Time, NoOpMiddleware<Nanos>>>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rate.fmt(f)
    }
}

impl Limiter {
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let time = Time(clock);
        let limiter = Arc::new(RateLimiter::direct_with_clock(quota, time.clone()));
        Self { rate, time, limiter }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts a use; `Err` is the seconds, rounded up, after which one is allowed again.
    pub fn count(&self) -> Result<(), u32> {
        self.limiter.check().map_err(|until| {
            let wait = until.earliest_possible().duration_since(self.time.now());
            u32::try_from(wait.as_u64().div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
        })
    }
}
