//! How far the server is behind: how long what is ready to run has to wait for its turn.
//!
//! A count of the requests under way does not tell. Those that only compute are begun and ended in one
//! turn, so that hardly two are ever under way at a time; the others wait in the runtime's queue and in
//! their sockets, where nobody sees them. So a task wants a turn every [`TICK`] and takes it as everybody
//! does. While it is late by more than [`TOLERATED`], requests are refused. To refuse is so much cheaper
//! than to answer that the queue is soon at its end, the task has its turn, and requests are let in again.

use std::num::NonZero;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(10);
/// So late a turn may be.
const TOLERATED: Duration = Duration::from_millis(100);
/// So many requests a processor are let in between two turns in any case: a few that took long are no
/// crowd, nor is a machine that was busy with something else.
const FEW: u32 = 64;

pub struct Backlog {
    start: Instant,
    /// When the next turn is due, in microseconds from the start.
    due: AtomicU64,
    /// Let in since the last turn.
    let_in: AtomicU32,
    few: u32,
}

impl Backlog {
    /// Begins to take turns, on the runtime that it is called on, for as long as somebody keeps it.
    pub fn watched() -> Arc<Self> {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let backlog = Arc::new(Self::new(Instant::now(), u32::try_from(processors).unwrap_or(1)));
        tokio::spawn(take_turns(Arc::downgrade(&backlog)));
        backlog
    }

    fn new(start: Instant, processors: u32) -> Self {
        Self {
            start,
            due: AtomicU64::new(micros(TICK)),
            let_in: AtomicU32::new(0),
            few: FEW.saturating_mul(processors),
        }
    }

    /// Whether one more request may come in.
    pub fn admits(&self, now: Instant) -> bool {
        let late = micros(now - self.start).saturating_sub(self.due.load(Ordering::Relaxed));
        if late > micros(TOLERATED) && self.let_in.load(Ordering::Relaxed) >= self.few {
            return false;
        }
        self.let_in.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn turn(&self, now: Instant) {
        self.due.store(micros(now - self.start + TICK), Ordering::Relaxed);
        self.let_in.store(0, Ordering::Relaxed);
    }
}

async fn take_turns(of: Weak<Backlog>) {
    while let Some(backlog) = of.upgrade() {
        backlog.turn(Instant::now());
        drop(backlog);
        tokio::time::sleep(TICK).await;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_refused_while_turns_are_late_and_let_in_afterwards() {
        let start = Instant::now();
        let backlog = Backlog::new(start, 2);
        let admitted = |count: u32, at: Duration| (0..count).filter(|_| backlog.admits(start + at)).count();
        let late = TICK + TOLERATED + TICK;
        assert_eq!(admitted(1000, TICK + TOLERATED), 1000, "no turn is late");
        assert_eq!(admitted(1000, late), 0);
        backlog.turn(start + late);
        assert_eq!(admitted(1000, late), 1000);
    }

    #[test]
    fn a_few_are_let_in_however_late_it_is() {
        let start = Instant::now();
        let backlog = Backlog::new(start, 2);
        let admitted = |count: u32| (0..count).filter(|_| backlog.admits(start + 50 * TOLERATED)).count();
        assert_eq!(admitted(1000), 2 * FEW as usize);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_watch_ends_with_whom_it_is_for() {
        let backlog = Backlog::watched();
        let kept = Arc::downgrade(&backlog);
        tokio::task::yield_now().await;
        drop(backlog);
        assert!(kept.upgrade().is_none());
    }
}
