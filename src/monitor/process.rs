//! What the operating system knows of this process, under the names that Prometheus gives it.

use metrics::{counter, gauge};

use crate::domain::time::Timestamp;

/// The unit in which Linux tells processor times to programs.
const TICKS_PER_SECOND: u64 = 100;

/// Publishes what is known now. Where there is no `/proc`, that is the start and the version alone.
pub fn publish(started_at: Timestamp) {
    gauge!("feature_store_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("process_start_time_seconds").set(started_at.as_millis() as f64 / 1000.0);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&read("/proc/self/stat")) {
        counter!("process_cpu_seconds_total").absolute(seconds);
    }
    if let Some(kibibytes) = status(&read("/proc/self/status"), "VmRSS") {
        gauge!("process_resident_memory_bytes").set(kibibytes as f64 * 1024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
}

/// Of `/proc/self/stat`. Its fields are counted from after the name, which stands in parentheses
/// and may hold anything; they are numbered as in proc(5), where the state is the third.
fn cpu_seconds(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?) / TICKS_PER_SECOND)
}

/// A line such as `VmRSS:     123 kB` of `/proc/self/status`.
fn status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_passed_over() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 7 0 100 1000000 25 18446744";
        assert_eq!(cpu_seconds(stat), Some(2));
        assert_eq!(cpu_seconds("nothing"), None);
    }

    #[test]
    fn a_line_of_the_status_is_found_by_its_name() {
        let text = "Name:\ta\nVmRSSs:\t1 kB\nVmRSS:\t  123 kB\n";
        assert_eq!(status(text, "VmRSS"), Some(123));
        assert_eq!(status(text, "VmPeak"), None);
    }
}
