//! How far the server is behind: how long what is ready to run has to wait for its turn.
//!
//! A count of the requests under way does not tell. Those that only compute are begun and ended in one
//! turn, so that hardly two are ever under way at a time; the others wait in the runtime's queues and in
//! their sockets, where nobody sees them. So a task is sent through both queues of the runtime every
//! [`TICK`], the one for what comes from outside and then a worker's own, as its turn comes. While it is
//! late by more than [`TOLERATED`], requests are refused. To refuse is so much cheaper than to answer that
//! the queues are soon at their end, the task has its turn, and requests are let in again.

use std::convert::Infallible;
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

const TICK: Duration = Duration::from_millis(10);
/// So late a turn may be.
const TOLERATED: Duration = Duration::from_millis(100);
/// So many requests a processor are let in between two turns in any case: a few that took long are no
/// crowd, nor is a machine that was busy with something else.
const FEW: u32 = 64;

pub struct Backlog {
    start: Instant,
    /// Since when a task waits for its turn, in microseconds from the start.
    waits_since: AtomicU64,
    /// Let in since the last turn.
    let_in: AtomicU32,
    few: u32,
}

/// Nobody waits.
const NEVER: u64 = u64::MAX;

impl Backlog {
    /// Begins to take turns, on the runtime that it is called on, for as long as somebody keeps it.
    pub fn watched() -> Arc<Self> {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let backlog = Arc::new(Self::new(Instant::now(), u32::try_from(processors).unwrap_or(1)));
        let (of, runtime) = (Arc::downgrade(&backlog), Handle::current());
        let watch =
            thread::Builder::new().name("backlog".to_owned()).spawn(move || take_turns(&of, &runtime));
        if let Err(error) = watch {
            tracing::warn!(%error, "no thread to see how far the server is behind: no request is refused for that");
        }
        backlog
    }

    fn new(start: Instant, processors: u32) -> Self {
        Self {
            start,
            waits_since: AtomicU64::new(NEVER),
            let_in: AtomicU32::new(0),
            few: FEW.saturating_mul(processors),
        }
    }

    /// Whether one more request may come in.
    pub fn admits(&self, now: Instant) -> bool {
        let late = micros(now - self.start).saturating_sub(self.waits_since.load(Ordering::Relaxed));
        if late > micros(TOLERATED) && self.let_in.load(Ordering::Relaxed) >= self.few {
            return false;
        }
        self.let_in.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn wait(&self, now: Instant) {
        self.waits_since.store(micros(now - self.start), Ordering::Relaxed);
    }

    fn turn(&self) {
        self.waits_since.store(NEVER, Ordering::Relaxed);
        self.let_in.store(0, Ordering::Relaxed);
    }
}

fn take_turns(of: &Weak<Backlog>, runtime: &Handle) {
    while let Some(backlog) = of.upgrade() {
        backlog.wait(Instant::now());
        let (turned, turn) = mpsc::channel::<Infallible>();
        runtime.spawn(async move {
            tokio::task::yield_now().await;
            backlog.turn();
            drop(turned);
        });
        // Until it had its turn, or there is no runtime any more.
        let _ = turn.recv();
        thread::sleep(TICK);
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
        let late = 2 * TOLERATED;
        assert_eq!(admitted(1000, late), 1000, "nobody waits");
        backlog.wait(start + TICK);
        assert_eq!(admitted(1000, TICK + TOLERATED), 1000, "no turn is late");
        assert_eq!(admitted(1000, late), 0);
        backlog.turn();
        assert_eq!(admitted(1000, late), 1000);
    }

    #[test]
    fn a_few_are_let_in_however_late_it_is() {
        let start = Instant::now();
        let backlog = Backlog::new(start, 2);
        backlog.wait(start);
        let admitted = |count: u32| (0..count).filter(|_| backlog.admits(start + 50 * TOLERATED)).count();
        assert_eq!(admitted(1000), 2 * FEW as usize);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn turns_come_while_there_is_a_runtime_and_end_with_whom_they_are_for() {
        let backlog = Backlog::watched();
        let few = backlog.few;
        backlog.let_in.store(few, Ordering::Relaxed);
        while backlog.let_in.load(Ordering::Relaxed) == few {
            tokio::task::yield_now().await;
        }
        let kept = Arc::downgrade(&backlog);
        drop(backlog);
        while kept.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }
}
