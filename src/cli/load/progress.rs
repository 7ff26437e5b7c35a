//! How far a load is, on a terminal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::upload::Input;

/// Where a terminal is, a bar that knows the end where the table's size is known.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// Whether the bar counts rows; bytes otherwise, which the server takes as fast as it stores them.
    counts_rows: bool,
    rows: AtomicU64,
    rejected: AtomicU64,
}

const WITH_END: &str = "{prefix} {bar:30} {percent:>3} % {msg}, {eta} left";
const WITHOUT_END: &str = "{prefix} {spinner} {msg}, {elapsed}";

impl Progress {
    pub fn new(input: &Input, is_quiet: bool) -> Self {
        let total = input.rows.or(input.bytes);
        let bar = match (is_quiet, total) {
            (true, _) => ProgressBar::hidden(),
            // To standard error, and hidden by itself where that is no terminal.
            (false, Some(total)) => ProgressBar::new(total),
            (false, None) => ProgressBar::new_spinner(),
        };
        let template = if total.is_some() { WITH_END } else { WITHOUT_END };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(input.name().to_owned());
        Self {
            bar,
            started: Instant::now(),
            counts_rows: input.rows.is_some(),
            rows: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    /// What tells of bytes that were sent.
    pub fn sent(&self) -> impl Fn(u64) + Send + use<> {
        let (bar, counts_rows) = (self.bar.clone(), self.counts_rows);
        move |bytes| {
            if !counts_rows {
                bar.inc(bytes)
            }
        }
    }

    /// What the server has counted so far.
    pub fn counted(&self, rows: u64, rejected: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        self.rejected.store(rejected, Ordering::Relaxed);
        let rate = rows as f64 / self.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!(
            "{} rows, {} a second, {} rejected",
            number(rows),
            number(rate as u64),
            number(rejected)
        ));
        match self.counts_rows {
            true => self.bar.set_position(rows),
            false => self.bar.tick(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes the bar off the terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// With a comma between the thousands.
pub fn number(number: u64) -> HumanCount {
    HumanCount(number)
}
