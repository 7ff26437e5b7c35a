//! When to stop asking a store that does not answer, and when to ask again. Pure: time is passed in.

use std::time::{Duration, Instant};

/// A store that answers nothing for so long is down. Shorter than this, a broken connection among
/// several would do: everything on it fails at once.
pub const SILENCE: Duration = Duration::from_millis(200);
/// How long nothing is asked of a store that has just been found to be down. Doubled after each
/// probe that fails.
pub const FIRST_WAIT: Duration = Duration::from_millis(100);
/// And at most so long, which bounds how long a recovery goes unseen.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How a call ended, as far as the circuit cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The store answered, though it be with an error.
    Answered,
    /// It did not, or refused to work.
    Failed,
    /// Nobody waited for the end.
    Abandoned,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Like any other.
    Call,
    /// The one that finds out whether the store is back.
    Probe,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls go through. How many failed since the last answer, and when the first of them did.
    Closed { failures: u32, since: Option<Instant> },
    /// Calls are refused until then; the next one after that is a probe.
    Open { until: Instant, wait: Duration },
    /// A probe is under way; everything else is refused.
    Probing { wait: Duration },
}

/// Opens when so many calls in a row failed and the store was silent for [`SILENCE`]; closes with
/// the first answer.
#[derive(Clone, Debug)]
pub struct Circuit {
    /// 0: never opens.
    failures_to_open: u32,
    state: State,
}

impl Circuit {
    pub fn new(failures_to_open: u32) -> Self {
        Self { failures_to_open, state: State::Closed { failures: 0, since: None } }
    }

    /// Whether nothing is wrong at all.
    pub fn is_calm(&self) -> bool {
        matches!(self.state, State::Closed { failures: 0, .. })
    }

    /// Whether calls are refused, save for probes.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::Probing { .. })
    }

    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Call,
            State::Open { until, wait } if now >= until => {
                self.state = State::Probing { wait };
                Admission::Probe
            }
            State::Open { .. } | State::Probing { .. } => Admission::Refused,
        }
    }

    /// Takes note of how an admitted call ended.
    pub fn ended(&mut self, admission: Admission, ended: Ended, now: Instant) {
        match (self.state, ended) {
            // Whatever was thought of the store: it answers. That holds for calls, too, that were
            // admitted before the circuit opened.
            (_, Ended::Answered) => self.state = State::Closed { failures: 0, since: None },
            (State::Closed { failures, since }, Ended::Failed) => {
                let (failures, since) = (failures.saturating_add(1), since.unwrap_or(now));
                let is_down = self.failures_to_open > 0
                    && failures >= self.failures_to_open
                    && now.saturating_duration_since(since) >= SILENCE;
                self.state = match is_down {
                    true => State::Open { until: now + FIRST_WAIT, wait: FIRST_WAIT },
                    false => State::Closed { failures, since: Some(since) },
                };
            }
            (State::Probing { wait }, Ended::Failed) if admission == Admission::Probe => {
                let wait = (wait * 2).min(LONGEST_WAIT);
                self.state = State::Open { until: now + wait, wait };
            }
            // Nothing was learned: the next call probes.
            (State::Probing { wait }, Ended::Abandoned) if admission == Admission::Probe => {
                self.state = State::Open { until: now, wait };
            }
            // Late news of what is known already.
            (State::Open { .. } | State::Probing { .. }, Ended::Failed) | (_, Ended::Abandoned) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILURES: u32 = 3;

    fn start() -> Instant {
        Instant::now()
    }

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(FAILURES);
        for at in [now, now + SILENCE / 2, now + SILENCE] {
            assert_eq!(circuit.admit(at), Admission::Call);
            circuit.ended(Admission::Call, Ended::Failed, at);
        }
        assert!(circuit.is_open());
        circuit
    }

    #[test]
    fn one_connection_that_breaks_opens_nothing() {
        let (mut circuit, now) = (Circuit::new(FAILURES), start());
        for _ in 0..100 {
            circuit.ended(Admission::Call, Ended::Failed, now);
        }
        assert_eq!(circuit.admit(now), Admission::Call);
        circuit.ended(Admission::Call, Ended::Answered, now);
        circuit.ended(Admission::Call, Ended::Failed, now + SILENCE);
        assert_eq!(circuit.admit(now + SILENCE), Admission::Call);
    }

    #[test]
    fn an_open_circuit_asks_once_at_a_time_and_less_and_less_often() {
        let now = start();
        let mut circuit = opened(now);
        let mut now = now + SILENCE;
        let mut wait = FIRST_WAIT;
        for _ in 0..8 {
            assert_eq!(circuit.admit(now + wait - Duration::from_nanos(1)), Admission::Refused);
            now += wait;
            assert_eq!(circuit.admit(now), Admission::Probe);
            assert_eq!(circuit.admit(now), Admission::Refused, "one probe is enough");
            circuit.ended(Admission::Call, Ended::Failed, now);
            assert_eq!(circuit.admit(now), Admission::Refused, "late news does not end a probe");
            circuit.ended(Admission::Probe, Ended::Failed, now);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        assert_eq!(wait, LONGEST_WAIT);
        assert_eq!(circuit.admit(now + wait), Admission::Probe);
        circuit.ended(Admission::Probe, Ended::Abandoned, now + wait);
        assert_eq!(circuit.admit(now + wait), Admission::Probe, "nobody waited for the last one");
        circuit.ended(Admission::Probe, Ended::Answered, now + wait);
        assert!(circuit.is_calm());
    }

    #[test]
    fn zero_failures_mean_no_circuit() {
        let (mut circuit, now) = (Circuit::new(0), start());
        for second in 0..100 {
            circuit.ended(Admission::Call, Ended::Failed, now + Duration::from_secs(second));
        }
        assert_eq!(circuit.admit(now + Duration::from_secs(100)), Admission::Call);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// Milliseconds go by.
        Pass(u64),
        Admit,
        /// One of the calls under way ends.
        End(usize, Ended),
    }

    fn event() -> impl Strategy<Value = Event> {
        let ended = prop_oneof![
            4 => Just(Ended::Failed),
            1 => Just(Ended::Answered),
            1 => Just(Ended::Abandoned),
        ];
        prop_oneof![
            (0u64..400).prop_map(Event::Pass),
            Just(Event::Admit),
            (any::<usize>(), ended).prop_map(|(which, ended)| Event::End(which, ended)),
        ]
    }

    proptest! {
        /// Against a plain account of what happened: it refuses only after enough failures without
        /// an answer in between, never lets two probes out, and never refuses for longer than
        /// [`LONGEST_WAIT`] while no probe is under way.
        #[test]
        fn refusals_have_a_reason_and_an_end(events in prop::collection::vec(event(), 1..200)) {
            let mut now = start();
            let mut circuit = Circuit::new(FAILURES);
            let mut under_way: Vec<Admission> = Vec::new();
            let mut failures_in_a_row = 0;
            let mut silent_since: Option<Instant> = None;
            let mut refused_since: Option<Instant> = None;
            for event in events {
                let probes = under_way.iter().filter(|one| **one == Admission::Probe).count();
                prop_assert!(probes <= 1);
                match event {
                    Event::Pass(millis) => now += Duration::from_millis(millis),
                    Event::Admit => match circuit.admit(now) {
                        Admission::Refused => {
                            prop_assert!(failures_in_a_row >= FAILURES);
                            prop_assert!(silent_since.is_some_and(|since| now - since >= SILENCE));
                            let since = *refused_since.get_or_insert(now);
                            prop_assert!(probes == 1 || now - since < LONGEST_WAIT);
                        }
                        admission => {
                            refused_since = None;
                            under_way.push(admission);
                        }
                    },
                    Event::End(which, ended) if !under_way.is_empty() => {
                        let admission = under_way.swap_remove(which % under_way.len());
                        circuit.ended(admission, ended, now);
                        match ended {
                            Ended::Answered => {
                                (failures_in_a_row, silent_since, refused_since) = (0, None, None);
                                prop_assert!(circuit.is_calm());
                                // A probe of before is an ordinary call from here on.
                                under_way.fill(Admission::Call);
                            }
                            Ended::Failed => {
                                failures_in_a_row += 1;
                                silent_since.get_or_insert(now);
                            }
                            Ended::Abandoned => {}
                        }
                        if admission == Admission::Probe {
                            refused_since = None;
                        }
                    }
                    Event::End(..) => {}
                }
            }
        }
    }
}
