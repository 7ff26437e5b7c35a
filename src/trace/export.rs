//! Spans on their way to the collector. A queue that is full loses what comes: no request waits.

use std::collections::HashMap;
use std::time::Duration;

use metrics::counter;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::tls::ClientTls;

/// Spans that wait for the collector.
const QUEUE: usize = 8192;
/// Spans in one message.
const BATCH: usize = 512;
/// How long a message is held back for more.
const LINGER: Duration = Duration::from_secs(1);
/// One message, attempts to repeat it included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server that stops waits for the collector.
const LAST_WORDS: Duration = Duration::from_secs(3);

const SPANS: &str = "feature_store_trace_spans_total";

/// Where traces go, and which.
#[derive(Clone, PartialEq)]
pub struct TraceConfig {
    /// Of the collector, up to before `/v1/traces`.
    pub endpoint: String,
    pub headers: HashMap<String, String>,
    /// Of the traces that no caller has decided about.
    pub sample_ratio: f64,
    pub service_name: String,
    /// Tells the servers of one service apart.
    pub instance: String,
}

/// The task that tells the collector.
pub struct Exporting {
    ending: CancellationToken,
    task: JoinHandle<()>,
}

/// Starts tracing, for the whole process; a second call changes nothing.
pub fn start(config: &TraceConfig) -> Result<Option<Exporting>, String> {
    let connector = ClientTls::default().connector().map_err(|error| error.to_string())?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(HyperClient::new(connector, TIMEOUT, None))
        .with_protocol(Protocol::HttpJson)
        .with_endpoint(format!("{}/v1/traces", config.endpoint.trim_end_matches('/')))
        .with_headers(config.headers.clone())
        .with_timeout(TIMEOUT)
        .build();
    let mut exporter = exporter.map_err(|error| error.to_string())?;
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", config.instance.clone()))
        .build();
    exporter.set_resource(&resource);
    let (sender, spans) = mpsc::channel(QUEUE);
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
        .with_span_processor(Queue(sender))
        .build();
    if super::TRACER.set(provider.tracer("feature-store")).is_err() {
        return Ok(None);
    }
    for outcome in ["exported", "failed", "dropped"] {
        counter!(SPANS, "outcome" => outcome).increment(0);
    }
    let ending = CancellationToken::new();
    let task = tokio::spawn(export(exporter, spans, ending.clone()));
    Ok(Some(Exporting { ending, task }))
}

impl Exporting {
    /// Tells what there is to tell, within bounds.
    pub async fn finish(mut self) {
        self.ending.cancel();
        if tokio::time::timeout(LAST_WORDS, &mut self.task).await.is_err() {
            tracing::warn!("the last spans were not taken by the collector of traces");
            self.task.abort();
        }
    }
}

/// Where spans go when they end.
#[derive(Debug)]
struct Queue(Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.0.try_send(span).is_err() {
            counter!(SPANS, "outcome" => "dropped").increment(1);
        }
    }

    /// See [`Exporting::finish`].
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

async fn export(exporter: SpanExporter, mut spans: Receiver<SpanData>, ending: CancellationToken) {
    let mut failing = false;
    let mut is_last = false;
    while !is_last {
        let mut batch = Vec::with_capacity(BATCH);
        tokio::select! {
            biased;
            () = ending.cancelled() => is_last = true,
            _ = spans.recv_many(&mut batch, BATCH) => {
                let more = async { while batch.len() < BATCH && spans.recv_many(&mut batch, BATCH).await > 0 {} };
                tokio::select! {
                    _ = tokio::time::timeout(LINGER, more) => {}
                    () = ending.cancelled() => is_last = true,
                }
            }
        }
        if is_last {
            while let Ok(span) = spans.try_recv() {
                batch.push(span);
            }
        }
        let count = batch.len() as u64;
        if count == 0 {
            continue;
        }
        match tokio::time::timeout(TIMEOUT, exporter.export(batch)).await.map_err(|late| late.to_string()) {
            Ok(Ok(())) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the collector of traces takes spans again");
                }
                counter!(SPANS, "outcome" => "exported").increment(count);
            }
            failed => {
                if !std::mem::replace(&mut failing, true) {
                    let error = failed.map_or_else(|late| late, |result| format!("{result:?}"));
                    tracing::warn!(error, "the collector of traces takes no spans, which are lost");
                }
                counter!(SPANS, "outcome" => "failed").increment(count);
            }
        }
    }
}
