//! Metrics: set up once a process.

use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the latency histograms, in seconds: fine where a feature server should be.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Starts recording metrics; all servers of a process share one recorder.
pub fn init_metrics() -> Result<PrometheusHandle, String> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let recorder = RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&SECONDS).map_err(|error| error.to_string())?;
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        describe();
        Ok(handle)
    });
    recorder.clone()
}

fn describe() {
    describe_counter!("feature_store_http_requests_total", "Requests answered, by method, route and status.");
    describe_histogram!(
        "feature_store_http_request_duration_seconds",
        Unit::Seconds,
        "Time from request to answer, by method and route."
    );
    describe_counter!("feature_store_requests_refused_total", "Requests that were not let in, by reason.");
    describe_gauge!("feature_store_api_keys", "API keys that are known.");
    describe_counter!(
        "feature_store_reload_failures_total",
        "Times that a file which had changed could not be taken over."
    );
    describe_gauge!("feature_store_connections", "Connections that are open.");
    describe_counter!(
        "feature_store_connections_cut_total",
        "Connections that were refused or ended for what their clients did not do, by reason."
    );
    describe_counter!("feature_store_trace_spans_total", "Spans of traces, by what became of them.");
    describe_gauge!("feature_store_http_requests_in_flight", "Requests being answered now.");
    describe_counter!("feature_store_features_read_total", "Features read, by status.");
    describe_counter!("feature_store_features_written_total", "Features written, by outcome.");
    describe_counter!(
        "feature_store_validation_errors_total",
        "Refused values, by what was wrong with them."
    );
    describe_counter!(
        "feature_store_commit_conflicts_total",
        "Commits that were decided anew because another writer was faster."
    );
    describe_histogram!(
        "feature_store_store_operation_duration_seconds",
        Unit::Seconds,
        "Time the store took, by operation."
    );
    describe_counter!(
        "feature_store_serving_log_reads_total",
        "Reads that were drawn for the log of their feature service, by outcome."
    );
    describe_counter!("feature_store_cache_hits_total", "Entities that were answered from the near cache.");
    describe_counter!("feature_store_cache_misses_total", "Entities that the near cache had to load.");
    describe_counter!(
        "feature_store_cache_evictions_total",
        "Entities that had to leave the near cache for want of room."
    );
    describe_counter!(
        "feature_store_cache_invalidations_total",
        "Changes of entities that the near cache was told of."
    );
    describe_counter!(
        "feature_store_cache_stale_total",
        "Entities that were answered while the store could not be reached."
    );
    describe_gauge!("feature_store_cache_entries", "Entities in the near cache.");
    describe_gauge!("feature_store_cache_bytes", Unit::Bytes, "About how much memory they take.");
    describe_gauge!(
        "feature_store_cache_coherent",
        "1 while the near cache may answer, 0 while it stands aside."
    );
    describe_gauge!(
        "feature_store_cache_bypass_seconds",
        Unit::Seconds,
        "How long the near cache has stood aside since the start."
    );
    describe_counter!("feature_store_store_errors_total", "Failures of the store, by operation and kind.");
    describe_gauge!("feature_store_store_circuit_open", "1 while the store is known to be down.");
    describe_counter!(
        "feature_store_store_refused_total",
        "Calls of the store that were refused at once, since it was known to be down."
    );
    describe_counter!("feature_store_store_retries_total", "Calls of the store that were repeated.");
    describe_histogram!(
        "feature_store_retrieval_duration_seconds",
        Unit::Seconds,
        "Time of requests that read features, by entity type."
    );
    describe_histogram!(
        "feature_store_write_duration_seconds",
        Unit::Seconds,
        "Time of requests that write features, by entity type."
    );
    describe_counter!(
        "feature_store_feature_reads_total",
        "Reads of the present of each feature, by status."
    );
    describe_gauge!(
        "feature_store_feature_newest_event_timestamp_seconds",
        Unit::Seconds,
        "Event time of the newest value of each feature that this process wrote or read."
    );
    describe_gauge!(
        "feature_store_feature_max_age_seconds",
        Unit::Seconds,
        "The max_age that the schema gives a feature."
    );
    describe_gauge!("feature_store_build_info", "Always 1; the label is the version.");
    describe_counter!("process_cpu_seconds_total", Unit::Seconds, "Processor time used, user and system.");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory in use.");
    describe_gauge!("process_open_fds", "Open file descriptors.");
    describe_gauge!("process_start_time_seconds", Unit::Seconds, "When the process started.");
    describe_gauge!("feature_store_alert_firing", "1 while an alert fires, by the server's own judgement.");
    describe_counter!(
        "feature_store_alert_webhook_attempts_total",
        "Attempts to tell the receiver of alerts, by outcome."
    );
    describe_gauge!("feature_store_store_up", "Whether the store answered the last ping.");
    describe_gauge!("feature_store_store_ping_seconds", Unit::Seconds, "How long the last ping took.");
    describe_gauge!("feature_store_store_used_bytes", Unit::Bytes, "Memory or disk that the store uses.");
    describe_gauge!("feature_store_store_max_bytes", Unit::Bytes, "Memory that the store may use.");
}
