//! Looks at the store and at what was recorded, every few seconds, and judges by the alerts' rules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use tokio::sync::watch;

use super::FeatureStore;
use crate::domain::time::{Span, Timestamp};
use crate::monitor::alerts::{Alert, Evaluation, Patience, Readings, Rule};
use crate::monitor::report::Window;
use crate::monitor::{Performance, Tally};
use crate::store::StoreDescription;

/// When something is wrong.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    pub rules: Vec<Rule>,
    pub patience: Patience,
    /// What is judged: the last so many seconds.
    pub window_seconds: u32,
    /// With fewer retrievals, requests or cache look-ups there is nothing to judge.
    pub min_samples: u64,
    /// Where the schema gives no `max_age`.
    pub stale_after: Option<Span>,
    /// How long the store may take to answer.
    pub timeout: Duration,
}

/// Watches over a feature store.
pub struct Watch {
    store: Arc<FeatureStore>,
    performance: Arc<Performance>,
    settings: WatchSettings,
    latest: watch::Sender<Arc<Evaluation>>,
    firing: Vec<Gauge>,
}

impl Watch {
    pub fn new(store: Arc<FeatureStore>, performance: Arc<Performance>, settings: WatchSettings) -> Self {
        let firing = |rule: &Rule| gauge!("feature_store_alert_firing", "alert" => rule.alert.as_str());
        let firing = settings.rules.iter().map(firing).collect();
        let latest = watch::Sender::new(Arc::new(Evaluation::first(&settings.rules, store.now())));
        Self { store, performance, settings, latest, firing }
    }

    pub fn settings(&self) -> &WatchSettings {
        &self.settings
    }

    pub fn latest(&self) -> Arc<Evaluation> {
        self.latest.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Evaluation>> {
        self.latest.subscribe()
    }

    /// Looks once.
    pub async fn look(&self) {
        // Its failure is counted among those of the store.
        let description = self.ask_store().await;
        self.store.settle_performance();
        let now = self.store.now();
        let window = self.performance.window(now, self.settings.window_seconds);
        let stale = self.stale_features(now);
        let readings = self.readings(&window, &description, stale.len());
        let next = self.latest().next(&readings, &stale, &self.settings.patience, now);
        for (before, after) in self.latest().standings.iter().zip(&next.standings) {
            if before.state.is_firing() != after.state.is_firing() {
                let (alert, state) = (after.rule.alert.as_str(), after.state.as_str());
                tracing::warn!(
                    alert,
                    state,
                    reading = after.reading,
                    threshold = after.rule.threshold,
                    "alert"
                );
            }
        }
        for (gauge, standing) in self.firing.iter().zip(&next.standings) {
            gauge.set(if standing.state.is_firing() { 1.0 } else { 0.0 });
        }
        self.latest.send_replace(Arc::new(next));
    }

    async fn ask_store(&self) -> StoreDescription {
        let started = Instant::now();
        let pinged = tokio::time::timeout(self.settings.timeout, self.store.ping()).await;
        if pinged.is_err() {
            self.performance.count(Tally::StoreFailures, 1);
        }
        let up = matches!(pinged, Ok(Ok(())));
        gauge!("feature_store_store_up").set(if up { 1.0 } else { 0.0 });
        if !up {
            return StoreDescription::default();
        }
        gauge!("feature_store_store_ping_seconds").set(started.elapsed().as_secs_f64());
        let described = tokio::time::timeout(self.settings.timeout, self.store.describe_store()).await;
        let description = described.ok().and_then(Result::ok).unwrap_or_default();
        if let Some(used) = description.used_bytes {
            gauge!("feature_store_store_used_bytes").set(used as f64);
        }
        if let Some(max) = description.max_bytes {
            gauge!("feature_store_store_max_bytes").set(max as f64);
        }
        description
    }

    fn readings(&self, window: &Window, store: &StoreDescription, stale: usize) -> Readings {
        let enough = |count: u64| count >= self.settings.min_samples;
        let count = |tally| window.tallies.of(tally);
        Alert::ALL.map(|alert| match alert {
            Alert::CacheHitRateLow => {
                let asked = count(Tally::CacheHits) + count(Tally::CacheMisses);
                window.cache_hit_rate().filter(|_| enough(asked))
            }
            Alert::RetrievalSlow => {
                window.retrieval.quantile(0.99).filter(|_| enough(window.retrieval.count()))
            }
            Alert::StoreConnectionFailures => Some(count(Tally::StoreFailures) as f64),
            Alert::ValidationErrors => Some(count(Tally::ValidationErrors) as f64),
            Alert::ErrorRateHigh => window.error_rate().filter(|_| enough(count(Tally::Requests))),
            Alert::StaleFeatures => Some(stale as f64),
            Alert::MemoryNearFull => {
                let limit = store.max_bytes.filter(|max| *max > 0);
                store.used_bytes.zip(limit).map(|(used, max)| used as f64 / max as f64)
            }
        })
    }

    /// The features whose newest known value is older than it may be. One that this process has not
    /// seen may be as fresh as any.
    fn stale_features(&self, now: Timestamp) -> Vec<String> {
        let snapshot = self.store.registry().snapshot();
        let mut stale = Vec::new();
        for schema in snapshot.entity_types() {
            let recorder = self.performance.known_type(schema.name());
            let Some(table) = recorder.and_then(|of| self.performance.features_of(&of, schema)) else {
                continue;
            };
            for (feature, recorder) in schema.features.values().zip(&table.by_place) {
                let newest = recorder.as_ref().and_then(|recorder| recorder.seen().newest_event);
                let may_be = feature.max_age.or(self.settings.stale_after);
                if newest.zip(may_be).is_some_and(|(newest, may_be)| newest + may_be < now) {
                    stale.push(format!("{}.{}", schema.name(), feature.name));
                }
            }
        }
        stale
    }
}
