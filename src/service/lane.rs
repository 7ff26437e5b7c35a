//! Keeps long evaluations out of everybody's way.
//!
//! Functions are evaluated where the request runs, which is best for the microseconds they take.
//! One that once took long is from then on evaluated in the slow lane: on a thread that the runtime
//! can spare, a few at a time, so that a processor is left for the other requests.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::domain::derive::{Computed, Derivations, DeriveError, Embeddings, Evaluate};
use crate::domain::value::Value;

/// An evaluation that takes longer than this is a long one.
const LONG: Duration = Duration::from_millis(2);
/// So many short evaluations in a row take a function out of the slow lane.
const HEAT: u8 = 100;
/// So many evaluations may wait for the slow lane, each on a thread; the next ones are refused.
const MOST_WAITING: usize = 64;

/// The one slow lane of the process: what it protects are the process's processors.
static LANE: LazyLock<Lane> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Lane { width: (processors / 2).max(1), state: Mutex::default(), left: Condvar::new() }
});

/// Functions whose long evaluations go to the slow lane.
pub struct Paced {
    functions: Arc<dyn Derivations>,
    /// Of each computed feature; above 0: its function was slow not long ago.
    heat: Vec<AtomicU8>,
}

impl Paced {
    pub fn new(functions: Arc<dyn Derivations>) -> Self {
        let heat = functions.computed().iter().map(|_| AtomicU8::new(0)).collect();
        Self { functions, heat }
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.functions.fmt(f)
    }
}

impl Derivations for Paced {
    fn computed(&self) -> &[Computed] {
        self.functions.computed()
    }

    fn session<'a>(&'a self, embeddings: &'a dyn Embeddings) -> Box<dyn Evaluate + 'a> {
        Box::new(PacedSession { session: self.functions.session(embeddings), heat: &self.heat })
    }
}

struct PacedSession<'a> {
    session: Box<dyn Evaluate + 'a>,
    heat: &'a [AtomicU8],
}

impl Evaluate for PacedSession<'_> {
    fn evaluate(&mut self, index: usize, inputs: &[Option<&Value>]) -> Result<Value, DeriveError> {
        let Some(heat) = self.heat.get(index) else { return self.session.evaluate(index, inputs) };
        let hot = heat.load(Ordering::Relaxed);
        let (result, elapsed) = if hot > 0 && can_block() {
            let work = || {
                let _turn = LANE.enter()?;
                let started = Instant::now();
                Some((self.session.evaluate(index, inputs), started.elapsed()))
            };
            let Some(done) = tokio::task::block_in_place(work) else {
                let message = "too many long computations are under way; try again later";
                return Err(DeriveError::Unavailable(message.to_owned()));
            };
            done
        } else {
            let started = Instant::now();
            (self.session.evaluate(index, inputs), started.elapsed())
        };
        if elapsed > LONG {
            heat.store(HEAT, Ordering::Relaxed);
        } else if hot > 0 {
            heat.store(hot - 1, Ordering::Relaxed);
        }
        result
    }
}

/// Whether this thread's other work can be handed to another thread.
fn can_block() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

struct Lane {
    width: usize,
    state: Mutex<LaneState>,
    left: Condvar,
}

#[derive(Default)]
struct LaneState {
    inside: usize,
    waiting: usize,
}

/// A place in the lane; given back when dropped.
struct Turn<'a>(&'a Lane);

impl Lane {
    /// Waits for a place; `None` where too many wait already.
    fn enter(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.inside >= self.width && state.waiting >= MOST_WAITING {
            return None;
        }
        state.waiting += 1;
        let full = |state: &mut LaneState| state.inside >= self.width;
        let mut state = self.left.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.inside += 1;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).inside -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_inside_than_the_lane_is_wide_and_no_more_wait_than_may() {
        let lane = Lane { width: 2, state: Mutex::default(), left: Condvar::new() };
        let most = Mutex::new((0usize, 0usize, 0usize)); // inside now, most inside, refused
        std::thread::scope(|scope| {
            let first = (lane.enter(), lane.enter());
            for _ in 0..MOST_WAITING + 3 {
                scope.spawn(|| {
                    let Some(_turn) = lane.enter() else {
                        most.lock().unwrap().2 += 1;
                        return;
                    };
                    let mut counts = most.lock().unwrap();
                    counts.0 += 1;
                    counts.1 = counts.1.max(counts.0);
                    drop(counts);
                    std::thread::yield_now();
                    most.lock().unwrap().0 -= 1;
                });
            }
            // The lane is full: those beyond the limit are refused while the others wait.
            while most.lock().unwrap().2 < 3 {
                std::thread::yield_now();
            }
            assert_eq!(most.lock().unwrap().0, 0);
            drop(first);
        });
        let (inside, most_inside, refused) = most.into_inner().unwrap();
        assert!(most_inside <= 2, "{most_inside}");
        assert_eq!((inside, refused), (0, 3));
        let state = lane.state.lock().unwrap();
        assert_eq!((state.inside, state.waiting), (0, 0));
    }
}
