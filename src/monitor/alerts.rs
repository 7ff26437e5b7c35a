//! When something is wrong enough to tell somebody: from readings to states, without a clock or a
//! network of its own.

use serde::Serialize;

use crate::domain::time::{Span, Timestamp};

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// The cache answers too few reads.
    CacheHitRateLow,
    /// The 99th percentile of retrievals is too long.
    RetrievalSlow,
    /// The store could not be reached, or did not answer in time.
    StoreConnectionFailures,
    /// Too many values were refused.
    ValidationErrors,
    /// Too large a share of the requests failed.
    ErrorRateHigh,
    /// The newest value of a feature is too old.
    StaleFeatures,
    /// The store is running out of memory.
    MemoryNearFull,
}

impl Alert {
    pub const ALL: [Self; 7] = [
        Self::CacheHitRateLow,
        Self::RetrievalSlow,
        Self::StoreConnectionFailures,
        Self::ValidationErrors,
        Self::ErrorRateHigh,
        Self::StaleFeatures,
        Self::MemoryNearFull,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::CacheHitRateLow => "cache_hit_rate_low",
            Self::RetrievalSlow => "retrieval_slow",
            Self::StoreConnectionFailures => "store_connection_failures",
            Self::ValidationErrors => "validation_errors",
            Self::ErrorRateHigh => "error_rate_high",
            Self::StaleFeatures => "stale_features",
            Self::MemoryNearFull => "memory_near_full",
        }
    }

    /// As Alertmanager and the Prometheus rules call it.
    pub fn alertname(self) -> &'static str {
        match self {
            Self::CacheHitRateLow => "FeatureStoreCacheHitRateLow",
            Self::RetrievalSlow => "FeatureStoreRetrievalSlow",
            Self::StoreConnectionFailures => "FeatureStoreStoreConnectionFailures",
            Self::ValidationErrors => "FeatureStoreValidationErrors",
            Self::ErrorRateHigh => "FeatureStoreErrorRateHigh",
            Self::StaleFeatures => "FeatureStoreStaleFeatures",
            Self::MemoryNearFull => "FeatureStoreMemoryNearFull",
        }
    }

    pub fn severity(self) -> &'static str {
        match self {
            Self::StoreConnectionFailures | Self::ErrorRateHigh | Self::MemoryNearFull => "critical",
            Self::CacheHitRateLow | Self::RetrievalSlow | Self::ValidationErrors | Self::StaleFeatures => {
                "warning"
            }
        }
    }

    /// What a reading of it says, for people.
    pub fn summary(self) -> &'static str {
        match self {
            Self::CacheHitRateLow => "The share of reads that the cache answers is low",
            Self::RetrievalSlow => "The 99th percentile of feature retrievals, in seconds, is high",
            Self::StoreConnectionFailures => "The store could not be reached, or did not answer in time",
            Self::ValidationErrors => "Many feature values were refused",
            Self::ErrorRateHigh => "The share of requests that the server could not answer is high",
            Self::StaleFeatures => "The newest value of features is too old: their pipeline may be dead",
            Self::MemoryNearFull => "The store has used nearly all of its memory",
        }
    }
}

/// What was measured of each alert; `None` where there is too little to judge by.
pub type Readings = [Option<f64>; Alert::ALL.len()];

/// What is too much, or too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub alert: Alert,
    /// Whether readings below the threshold are the bad ones, and not those above.
    pub below: bool,
    pub threshold: f64,
    /// A reading is good again only when it is beyond this, on the other side of the threshold.
    pub clear: f64,
}

impl Rule {
    /// `margin` is the share of the threshold by which a reading has to get better than it.
    pub fn new(alert: Alert, threshold: f64, margin: f64) -> Self {
        let below = alert == Alert::CacheHitRateLow;
        // No hit rate is above 1.
        let clear = if below {
            (threshold * (1.0 + margin)).min(threshold.max(1.0))
        } else {
            threshold * (1.0 - margin)
        };
        Self { alert, below, threshold, clear }
    }

    fn is_bad(&self, reading: f64) -> bool {
        if self.below { reading < self.threshold } else { reading > self.threshold }
    }

    fn is_good(&self, reading: f64) -> bool {
        if self.below { reading >= self.clear } else { reading <= self.clear }
    }
}

/// For how long a reading must be bad, or good, before it counts.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub fire: std::time::Duration,
    pub clear: std::time::Duration,
}

/// How an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Inactive,
    /// Bad, but not yet for long enough.
    Pending {
        since: Timestamp,
    },
    Firing {
        since: Timestamp,
        /// Since when it has been good without a break.
        good_since: Option<Timestamp>,
    },
}

impl State {
    /// What a reading at `now` makes of it. Without a reading there is nothing to complain of, but a
    /// firing alert needs as long to calm down as with good ones.
    pub fn step(self, rule: &Rule, reading: Option<f64>, patience: &Patience, now: Timestamp) -> Self {
        let bad = reading.is_some_and(|reading| rule.is_bad(reading));
        let good = reading.is_none_or(|reading| rule.is_good(reading));
        let over =
            |since: Timestamp, wait: std::time::Duration| now.seconds_since(since) >= wait.as_secs_f64();
        match self {
            Self::Inactive | Self::Pending { .. } if !bad => Self::Inactive,
            Self::Inactive if patience.fire.is_zero() => Self::Firing { since: now, good_since: None },
            Self::Inactive => Self::Pending { since: now },
            Self::Pending { since } if over(since, patience.fire) => {
                Self::Firing { since: now, good_since: None }
            }
            Self::Pending { since } => Self::Pending { since },
            Self::Firing { since, good_since } if good => {
                let good_since = good_since.unwrap_or(now);
                if over(good_since, patience.clear) {
                    Self::Inactive
                } else {
                    Self::Firing { since, good_since: Some(good_since) }
                }
            }
            Self::Firing { since, .. } => Self::Firing { since, good_since: None },
        }
    }

    pub fn is_firing(self) -> bool {
        matches!(self, Self::Firing { .. })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending { .. } => "pending",
            Self::Firing { .. } => "firing",
        }
    }

    pub fn since(self) -> Option<Timestamp> {
        match self {
            Self::Inactive => None,
            Self::Pending { since } | Self::Firing { since, .. } => Some(since),
        }
    }
}

/// An alert as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub rule: Rule,
    pub state: State,
    pub reading: Option<f64>,
    /// What it is about, where a number alone does not say: the stale features.
    pub detail: Option<String>,
}

/// All alerts as they stood at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub at: Timestamp,
    pub standings: Vec<Standing>,
}

impl Evaluation {
    /// Nothing was read yet.
    pub fn first(rules: &[Rule], at: Timestamp) -> Self {
        let standing =
            |rule: &Rule| Standing { rule: *rule, state: State::Inactive, reading: None, detail: None };
        Self { at, standings: rules.iter().map(standing).collect() }
    }

    pub fn next(&self, readings: &Readings, stale: &[String], patience: &Patience, at: Timestamp) -> Self {
        let standing = |before: &Standing| {
            let reading = readings[before.rule.alert as usize];
            let detail =
                (before.rule.alert == Alert::StaleFeatures && !stale.is_empty()).then(|| shorten(stale));
            let state = before.state.step(&before.rule, reading, patience, at);
            Standing { rule: before.rule, state, reading, detail }
        };
        Self { at, standings: self.standings.iter().map(standing).collect() }
    }
}

/// The first names of a list that may be long.
fn shorten(names: &[String]) -> String {
    const SHOWN: usize = 10;
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

/// How often one is told again that an alert still fires.
pub const RESEND: Span = Span::from_secs(60);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience { fire: Duration::from_secs(60), clear: Duration::from_secs(120) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000).unwrap()
    }

    /// The states after readings of every ten seconds.
    fn run(rule: &Rule, readings: &[Option<f64>]) -> Vec<State> {
        let mut state = State::Inactive;
        let steps = readings.iter().zip(0..).map(|(reading, step)| {
            state = state.step(rule, *reading, &PATIENCE, at(step * 10));
            state
        });
        steps.collect()
    }

    fn slow() -> Rule {
        Rule::new(Alert::RetrievalSlow, 0.1, 0.1)
    }

    #[test]
    fn it_fires_after_a_while_and_calms_after_a_while() {
        let mut readings = vec![Some(0.2); 10];
        readings.extend([Some(0.01); 20]);
        let states = run(&slow(), &readings);
        assert_eq!(states[0], State::Pending { since: at(0) });
        assert_eq!(states[5], State::Pending { since: at(0) });
        assert_eq!(states[6], State::Firing { since: at(60), good_since: None });
        assert_eq!(states[10], State::Firing { since: at(60), good_since: Some(at(100)) });
        assert!(states[21].is_firing());
        assert_eq!(states[22], State::Inactive);
    }

    #[test]
    fn what_is_neither_good_nor_bad_keeps_it_firing() {
        let mut readings = vec![Some(0.2); 7];
        readings.extend([Some(0.095); 100]);
        assert!(run(&slow(), &readings).last().unwrap().is_firing());
    }

    #[test]
    fn a_rate_is_bad_below_its_threshold() {
        let rule = Rule::new(Alert::CacheHitRateLow, 0.8, 0.1);
        assert!(run(&rule, &[Some(0.79); 7]).last().unwrap().is_firing());
        assert_eq!(run(&rule, &[Some(0.8); 7]).last(), Some(&State::Inactive));
        // However strict, a perfect cache is good.
        assert!(Rule::new(Alert::CacheHitRateLow, 0.95, 0.5).is_good(1.0));
    }

    #[test]
    fn a_count_that_may_not_be_above_zero_is_good_at_zero() {
        let rule = Rule::new(Alert::StoreConnectionFailures, 0.0, 0.1);
        assert!(rule.is_bad(1.0) && rule.is_good(0.0) && !rule.is_bad(0.0));
    }

    #[test]
    fn every_alert_has_its_place_in_the_readings() {
        for (place, alert) in Alert::ALL.into_iter().enumerate() {
            assert_eq!(alert as usize, place);
        }
    }

    fn readings() -> impl Strategy<Value = Vec<Option<f64>>> {
        let reading = prop_oneof![
            1 => Just(None),
            3 => (0.0..0.2).prop_map(Some),
            3 => Just(Some(0.15)),
            3 => Just(Some(0.05)),
        ];
        // Long enough to fire and to calm down, in runs.
        prop::collection::vec((reading, 1_usize..20), 1..12)
            .prop_map(|runs| runs.into_iter().flat_map(|(reading, times)| vec![reading; times]).collect())
    }

    proptest! {
        /// Firing begins only after a minute in which every reading was bad, and ends only after two
        /// minutes in which none was worse than good.
        #[test]
        fn it_neither_fires_nor_calms_rashly(readings in readings()) {
            let rule = slow();
            let states = run(&rule, &readings);
            for (step, pair) in states.windows(2).enumerate().map(|(step, pair)| (step + 1, pair)) {
                match (pair[0].is_firing(), pair[1].is_firing()) {
                    (false, true) => {
                        prop_assert!(step >= 6);
                        prop_assert!(readings[step - 6..=step].iter().all(|r| r.is_some_and(|r| rule.is_bad(r))));
                    }
                    (true, false) => {
                        prop_assert!(step >= 12);
                        prop_assert!(readings[step - 12..=step].iter().all(|r| r.is_none_or(|r| rule.is_good(r))));
                    }
                    _ => {}
                }
            }
        }

        /// And it does fire, and calm down, when these are given.
        #[test]
        fn it_fires_and_calms_in_time(readings in readings()) {
            let rule = slow();
            let states = run(&rule, &readings);
            for (step, state) in states.iter().enumerate() {
                if step >= 6 && readings[step - 6..=step].iter().all(|r| r.is_some_and(|r| rule.is_bad(r))) {
                    prop_assert!(state.is_firing());
                }
                if step >= 12 && readings[step - 12..=step].iter().all(|r| r.is_none_or(|r| rule.is_good(r))) {
                    prop_assert!(!state.is_firing());
                }
            }
        }
    }
}
