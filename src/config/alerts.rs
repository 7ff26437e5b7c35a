//! The table `alerts`.

use serde::{Deserialize, Serialize};

use super::Duration0;
use crate::domain::time::Span;
use crate::monitor::alerts::{Alert, Patience, Rule};

/// When something is wrong, and whom to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertsConfig {
    /// How often alerts are judged.
    pub interval: Span,
    /// Over how much of the past.
    pub window: Span,
    /// For so long a reading must be bad before the alert fires.
    #[serde(rename = "for")]
    pub fire_after: Duration0,
    /// For so long it must be good before the alert ends.
    pub clear_after: Duration0,
    /// By this share of the threshold a reading must be better than it to be good.
    pub margin: f64,
    /// Fewer retrievals, requests or cache look-ups in the window are not judged.
    pub min_samples: u64,
    /// Least share of reads that the cache answers.
    pub cache_hit_rate: f64,
    /// Longest 99th percentile of retrievals.
    pub retrieval_p99: Span,
    /// Most failed operations of the store in a window.
    pub store_failures: u64,
    /// Most refused values in a window.
    pub validation_errors: u64,
    /// Largest share of requests answered with 500 or more.
    pub error_rate: f64,
    /// Most features whose newest value is too old.
    pub stale_features: u64,
    /// When a feature without a `max_age` in its schema is stale; not set: never.
    pub stale_after: Option<Span>,
    /// Largest used share of the store's memory.
    pub memory: f64,
    /// Of an Alertmanager.
    pub webhook_url: Option<String>,
    /// Of one attempt.
    pub webhook_timeout: Span,
    /// The label `instance`; not set: the machine's name and the port.
    pub instance: Option<String>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            interval: Span::from_secs(5),
            window: Span::from_secs(300),
            fire_after: Duration0(std::time::Duration::from_secs(60)),
            clear_after: Duration0(std::time::Duration::from_secs(60)),
            margin: 0.1,
            min_samples: 20,
            cache_hit_rate: 0.8,
            retrieval_p99: Span::of_millis(100),
            store_failures: 0,
            validation_errors: 10,
            error_rate: 0.01,
            stale_features: 0,
            stale_after: None,
            memory: 0.9,
            webhook_url: None,
            webhook_timeout: Span::from_secs(10),
            instance: None,
        }
    }
}

impl AlertsConfig {
    pub fn rules(&self) -> Vec<Rule> {
        let rule = |alert| {
            let threshold = match alert {
                Alert::CacheHitRateLow => self.cache_hit_rate,
                Alert::RetrievalSlow => self.retrieval_p99.as_duration().as_secs_f64(),
                Alert::StoreConnectionFailures => self.store_failures as f64,
                Alert::ValidationErrors => self.validation_errors as f64,
                Alert::ErrorRateHigh => self.error_rate,
                Alert::StaleFeatures => self.stale_features as f64,
                Alert::MemoryNearFull => self.memory,
            };
            Rule::new(alert, threshold, self.margin)
        };
        Alert::ALL.map(rule).into()
    }

    pub fn patience(&self) -> Patience {
        Patience { fire: self.fire_after.0, clear: self.clear_after.0 }
    }
}
