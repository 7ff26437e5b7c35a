//! Tells an Alertmanager, by its API version 2 (`POST /api/v2/alerts`), what fires and what is over.
//!
//! The receiver may be away for hours: what it has to know is kept, newest state only, and sent when
//! it is back. A firing alert is sent again every minute with an end in the near future, so that one
//! whose server died ends by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use metrics::counter;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::alerts::{Alert, Evaluation, RESEND, Standing, State};
use crate::domain::time::{Span, Timestamp};
use crate::tls::ClientTls;
use crate::trace;

/// What a pause after a failure begins with; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// When a firing alert ends unless it is sent again.
const ENDS_AFTER: Span = Span::from_secs(240);
const PATH: &str = "/api/v2/alerts";

/// Whom to tell, and as whom.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    pub url: String,
    /// Of one attempt.
    pub timeout: Duration,
    /// Tells the servers of one store apart: the label `instance`.
    pub instance: String,
}

/// How telling goes.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Delivery {
    /// When the receiver last accepted what it was told.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub last_delivered_at: Option<Timestamp>,
    /// Why the last attempt failed; null where it did not.
    #[schema(required)]
    pub failure: Option<String>,
}

/// See the module's documentation.
pub struct Webhook {
    config: WebhookConfig,
    uri: http::Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    delivery: Mutex<Delivery>,
}

impl Webhook {
    pub fn new(config: WebhookConfig) -> Result<Self, String> {
        let base = config.url.trim_end_matches('/');
        let uri = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
        let uri: http::Uri = uri.parse().map_err(|error| format!("alerts.webhook_url: {error}"))?;
        let connector = ClientTls::default().connector().map_err(|error| error.to_string())?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { config, uri, client, delivery: Mutex::default() })
    }

    pub fn delivery(&self) -> Delivery {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells what there is to tell, until nobody evaluates alerts any more.
    pub async fn run(&self, mut evaluations: watch::Receiver<Arc<Evaluation>>) {
        let mut outbox = Outbox::default();
        let mut failures = 0;
        // Not before this; and not later, if there is anything to tell.
        let mut next = Instant::now();
        loop {
            let at_rest = outbox.is_empty();
            tokio::select! {
                changed = evaluations.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(next), if !at_rest => {}
            }
            let evaluation = evaluations.borrow_and_update().clone();
            let news = outbox.update(&evaluation);
            if news && failures == 0 {
                next = Instant::now();
            }
            if outbox.is_empty() || Instant::now() < next {
                continue;
            }
            let sent = self.send(outbox.messages(&self.config.instance, evaluation.at)).await;
            let outcome = if sent.is_ok() { "delivered" } else { "failed" };
            counter!("feature_store_alert_webhook_attempts_total", "outcome" => outcome).increment(1);
            let mut delivery = self.delivery.lock().unwrap_or_else(PoisonError::into_inner);
            match sent {
                Ok(()) => {
                    outbox.forget_resolved();
                    failures = 0;
                    next = Instant::now() + RESEND.as_duration();
                    *delivery = Delivery { last_delivered_at: Some(evaluation.at), failure: None };
                }
                Err(reason) => {
                    tracing::warn!(reason, failures, "the receiver of alerts was not told");
                    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
                    failures += 1;
                    next = Instant::now() + pause.mul_f64(0.5 + 0.5 * rand::random::<f64>());
                    delivery.failure = Some(reason);
                }
            }
        }
    }

    async fn send(&self, messages: Vec<Message<'_>>) -> Result<(), String> {
        let body = serde_json::to_vec(&messages).map_err(|error| error.to_string())?;
        let mut request = http::Request::post(self.uri.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let span = trace::root("alerts.tell");
        span.write_to(request.headers_mut());
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| {
                // Where it is stays in the log.
                tracing::debug!(%error, "the receiver of alerts cannot be reached");
                "it cannot be reached".to_owned()
            })?;
            let status = response.status();
            span.set("http.response.status_code", || i64::from(status.as_u16()));
            // Read to its end, so that the connection can be used again.
            let _ = Limited::new(response.into_body(), 65_536).collect().await;
            if status.is_success() { Ok(()) } else { Err(format!("it answered {}", status.as_u16())) }
        };
        let late = |_| format!("it did not answer within {} ms", self.config.timeout.as_millis());
        tokio::time::timeout(self.config.timeout, answer).await.map_err(late)?
    }
}

/// What the receiver has to know.
#[derive(Debug, Default)]
struct Outbox(BTreeMap<Alert, Entry>);

#[derive(Clone, Debug)]
struct Entry {
    standing: Standing,
    since: Timestamp,
    /// `None`: it fires.
    resolved_at: Option<Timestamp>,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in how alerts stand now; says whether anything began or ended.
    fn update(&mut self, evaluation: &Evaluation) -> bool {
        let mut news = false;
        for standing in &evaluation.standings {
            let alert = standing.rule.alert;
            if let State::Firing { since, .. } = standing.state {
                let entry = Entry { standing: standing.clone(), since, resolved_at: None };
                let before = self.0.insert(alert, entry);
                news |= before.is_none_or(|before| before.since != since);
            } else if let Some(entry) = self.0.get_mut(&alert)
                && entry.resolved_at.is_none()
            {
                entry.resolved_at = Some(evaluation.at);
                news = true;
            }
        }
        news
    }

    fn forget_resolved(&mut self) {
        self.0.retain(|_, entry| entry.resolved_at.is_none());
    }

    fn messages(&self, instance: &str, now: Timestamp) -> Vec<Message<'_>> {
        let message = |(alert, entry): (&Alert, &Entry)| {
            let rule = &entry.standing.rule;
            let mut annotations = BTreeMap::from([
                ("summary", alert.summary().to_owned()),
                ("threshold", rule.threshold.to_string()),
            ]);
            annotations.extend(entry.standing.reading.map(|reading| ("value", reading.to_string())));
            annotations.extend(entry.standing.detail.clone().map(|detail| ("description", detail)));
            Message {
                labels: BTreeMap::from([
                    ("alertname", alert.alertname().to_owned()),
                    ("severity", alert.severity().to_owned()),
                    ("service", "feature-store".to_owned()),
                    ("instance", instance.to_owned()),
                ]),
                annotations,
                starts_at: entry.since,
                ends_at: entry.resolved_at.unwrap_or(now + ENDS_AFTER),
                generator_url: format!("http://{instance}/v1/alerts"),
            }
        };
        self.0.iter().map(message).collect()
    }
}

/// An alert as Alertmanager takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    labels: BTreeMap<&'a str, String>,
    annotations: BTreeMap<&'a str, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    #[serde(rename = "generatorURL")]
    generator_url: String,
}

#[cfg(test)]
mod tests {
    use super::super::alerts::Rule;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000).unwrap()
    }

    fn evaluation(seconds: i64, state: State) -> Evaluation {
        let rule = Rule::new(Alert::RetrievalSlow, 0.1, 0.1);
        Evaluation {
            at: at(seconds),
            standings: vec![Standing { rule, state, reading: Some(0.2), detail: None }],
        }
    }

    #[test]
    fn what_began_and_ended_while_nobody_listened_is_told_as_ended() {
        let mut outbox = Outbox::default();
        let firing = State::Firing { since: at(0), good_since: None };
        assert!(!outbox.update(&evaluation(0, State::Pending { since: at(0) })));
        assert!(outbox.update(&evaluation(0, firing)));
        assert!(!outbox.update(&evaluation(5, firing)), "nothing new");
        assert_eq!(outbox.messages("a:1", at(5))[0].ends_at, at(245));
        assert!(outbox.update(&evaluation(10, State::Inactive)));
        assert!(!outbox.update(&evaluation(15, State::Inactive)));
        let messages = outbox.messages("a:1", at(15));
        assert_eq!((messages.len(), messages[0].starts_at, messages[0].ends_at), (1, at(0), at(10)));
        // It comes again before anybody was told that it ended: it never did, for them.
        let again = State::Firing { since: at(20), good_since: None };
        assert!(outbox.update(&evaluation(20, again)));
        assert_eq!(outbox.messages("a:1", at(20))[0].ends_at, at(260));
        outbox.forget_resolved();
        assert!(!outbox.is_empty(), "it fires");
        outbox.update(&evaluation(30, State::Inactive));
        outbox.forget_resolved();
        assert!(outbox.is_empty());
    }
}
