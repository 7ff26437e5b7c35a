//! What one evaluation may use, and the meter that everything it does is charged to.
//!
//! Work and memory are paid for *before* they are done, so a bomb is refused before it goes off:
//! `"x" * 10 ** 12` costs the question how long the answer would be.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::fault::{ErrorKind, Fault, Stop};

/// The bounds of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations: every operator, call, loop turn and statement is one; work on long texts and
    /// lists counts by their length.
    pub steps: u64,
    /// Bytes of all values made during the evaluation. Nothing is freed before it ends, so this is
    /// what it allocates in all; what the process holds for it can be a small multiple while a
    /// list or dict grows.
    pub heap_bytes: u64,
    /// Bytes of the result.
    pub output_bytes: u64,
    /// Wall time.
    pub wall_time: Duration,
    /// Calls inside calls.
    pub call_depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 1_000_000,
            heap_bytes: 64 << 20,
            output_bytes: 1 << 20,
            wall_time: Duration::from_millis(250),
            call_depth: 64,
        }
    }
}

/// Steps between two looks at the clock: a step is some 10–100 ns.
const STEPS_PER_CLOCK_LOOK: i64 = 4096;
/// Levels of nested expressions and statements that are being evaluated at once, over all calls.
/// A level takes at most about 1.3 KiB of the native stack in an unoptimised build (`lower` counts
/// what takes more as several); a thread of the runtime has 2 MiB.
pub(super) const MAX_NESTING: u32 = 1000;

/// What is left of the [`Limits`].
pub(super) struct Meter {
    steps: Cell<i64>,
    next_look: Cell<i64>,
    heap: Cell<i64>,
    deadline: Cell<Option<Instant>>,
    limits: Limits,
}

impl Meter {
    pub(super) fn new(limits: &Limits) -> Self {
        let meter = Self {
            steps: Cell::new(0),
            next_look: Cell::new(0),
            heap: Cell::new(0),
            deadline: Cell::new(None),
            limits: limits.clone(),
        };
        meter.reset();
        meter
    }

    pub(super) fn reset(&self) {
        let steps = self.limits.steps.min(i64::MAX as u64) as i64;
        self.steps.set(steps);
        self.next_look.set(steps - STEPS_PER_CLOCK_LOOK);
        self.heap.set(self.limits.heap_bytes.min(i64::MAX as u64) as i64);
        self.deadline.set(None);
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    #[inline(always)]
    pub(super) fn step(&self) -> Result<(), Stop> {
        self.work(1)
    }

    /// Charges so many steps.
    #[inline(always)]
    pub(super) fn work(&self, steps: usize) -> Result<(), Stop> {
        let left = self.steps.get().saturating_sub_unsigned(steps as u64);
        self.steps.set(left);
        if left < self.next_look.get() { self.look(left) } else { Ok(()) }
    }

    /// Charges the copying or scanning of so many bytes.
    pub(super) fn scan(&self, bytes: usize) -> Result<(), Stop> {
        self.work(1 + bytes / 256)
    }

    #[cold]
    fn look(&self, left: i64) -> Result<(), Stop> {
        if left < 0 {
            let message = format!("it takes more than {} steps", self.limits.steps);
            return Err(Fault::new(ErrorKind::Steps, message));
        }
        self.next_look.set(left - STEPS_PER_CLOCK_LOOK);
        self.check_clock()
    }

    /// For work whose steps say too little about its time.
    pub(super) fn check_clock(&self) -> Result<(), Stop> {
        // Counted from the first look: an evaluation too short for one never asks the clock.
        let now = Instant::now();
        match self.deadline.get() {
            None => {
                self.deadline.set(now.checked_add(self.limits.wall_time));
                Ok(())
            }
            Some(deadline) if now < deadline => Ok(()),
            Some(_) => {
                let message = format!("it takes longer than {} ms", self.limits.wall_time.as_millis());
                Err(Fault::new(ErrorKind::Time, message))
            }
        }
    }

    /// Charges memory that is about to be allocated.
    #[inline]
    pub(super) fn alloc(&self, bytes: usize) -> Result<(), Stop> {
        let left = self.heap.get().saturating_sub_unsigned(bytes as u64);
        if left < 0 {
            let message = format!("it needs more than {} of memory", readable(self.limits.heap_bytes));
            return Err(Fault::new(ErrorKind::Memory, message));
        }
        self.heap.set(left);
        Ok(())
    }

    pub(super) fn steps_used(&self) -> u64 {
        self.limits.steps.saturating_add_signed(-self.steps.get())
    }
}

/// `67108864` as `64 MiB`.
pub(super) fn readable(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{} {unit}", bytes / size);
        }
    }
    format!("{bytes} bytes")
}
