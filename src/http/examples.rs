//! Examples of the OpenAPI document for bodies whose types have none of their own. The linter holds
//! them against their schemas.

use serde_json::{Value, json};

/// The body of a request.
pub fn request(operation_id: &str) -> Option<Value> {
    Some(match operation_id {
        "put_entity_type" => schema(),
        "put_feature_service" => {
            json!({"description": "What the ranking model reads", "owner": "search-team",
                "features": ["user.age", "product.price"]})
        }
        _ => return None,
    })
}

/// The body of a success.
pub fn response(operation_id: &str) -> Option<Value> {
    Some(match operation_id {
        "compute_features" => {
            json!({"entity_type": "product", "entity_id": "123", "version": 8, "stored": true,
                "features": {"price_range": "premium"}, "outcomes": {"price": "applied", "price_range": "applied"}})
        }
        "diff_versions" => {
            json!({"entity_type": "product", "entity_id": "123", "from": 6, "to": 7, "added": {"stock": 12},
                "removed": {}, "changed": {"price": {"from": 949.0, "to": 999.99}}})
        }
        "get_feature_lineage" => {
            json!({"entity_type": "product", "entity_id": "123", "feature": "price", "type": "float64",
                "schema_version": 2, "current": version_of_price(7, 999.99), "history": [version_of_price(6, 949.0)],
                "computed_from": null,
                "used_by": {"features": ["product.price_range"], "feature_services": ["ranking@2"]}})
        }
        "list_versions" => {
            json!({"entity_type": "product", "entity_id": "123", "current_version": 7, "versions": [{
                "version": 7, "written_at": "2026-01-02T03:04:06Z", "features": {"price": 999.99},
                "event_timestamps": {"price": "2026-01-02T03:04:05Z"}, "provenance": provenance()}],
                "next_before": null})
        }
        "get_version" => {
            json!({"entity_type": "product", "entity_id": "123", "version": 3, "features": {"price": 949.0},
                "statuses": {}, "metadata": {}})
        }
        "get_features_batch" => {
            json!({"results": [{"entity_type": "product", "entity_id": "1", "version": 3,
                "features": {"price": 9.5}, "statuses": {}}]})
        }
        "export_features" | "export_entity_type" | "get_job_result" => {
            json!([{"entity_id": "1", "price": 9.5}])
        }
        "export_serving_log" => {
            json!([{"served_at": "2026-01-02T03:04:05Z", "request_id": "6f1c9a7e2b3d4c5f",
            "user_id": "7", "product_id": "1", "user.age": 41, "product.price": 9.5}])
        }
        "rollback_entity" => {
            json!({"entity_type": "product", "entity_id": "123", "version": 8, "outcomes": {"price": "applied"}})
        }
        "list_entity_types" => json!({"entity_types": [registered()]}),
        "list_schema_versions" => json!({"schema_versions": [registered()]}),
        "get_entity_type" => registered(),
        "put_entity_type" => {
            json!({"schema_version": 1, "dry_run": false, "created": true,
                "changes": {"added": ["price", "text_embedding"], "removed": [], "changed": [], "settings": ["ttl"]},
                "entity_type": registered()})
        }
        "get_graph" => {
            json!({"entity_type": "product", "schema_version": 1,
                "nodes": [{"name": "price", "kind": "feature"},
                    {"name": "price_range", "kind": "computed_on_write", "function": "price_range"}],
                "edges": [{"from": "price", "to": "price_range"}]})
        }
        "list_feature_services" => json!({"feature_services": [service()]}),
        "get_feature_service" => service(),
        "put_feature_service" => {
            let mut version = service_version();
            version["name"] = json!("ranking");
            version
        }
        "list_jobs" => json!({"jobs": [job()]}),
        "get_job" | "cancel_job" => job(),
        "get_health" => {
            json!({"status": "healthy", "warnings": [],
                "checks": [{"name": "store", "status": "pass", "message": "answered within 0.2 ms"}], "version": "0.1.0", "started_at": "2026-01-02T03:00:00Z",
                "uptime_seconds": 3600.5, "redis_connected": true,
                "store": {"backend": "redis", "connected": true, "latency_ms": 0.2, "server_version": "7.2.4",
                    "role": "master", "used_bytes": 1_048_576, "eviction_policy": "noeviction"},
                "registry": {"loaded": true, "revision": 4, "entity_types": 2, "feature_services": 1}})
        }
        "list_alerts" => {
            json!({"evaluated_at": "2026-01-02T04:00:00Z", "window_seconds": 300, "firing": 1, "alerts": [{
                "alert": "stale_features", "alertname": "FeatureStoreStaleFeatures", "severity": "warning",
                "state": "firing", "since": "2026-01-02T03:50:00Z", "reading": 1.0, "bad": "above", "threshold": 0.0,
                "clears_at": 0.0, "summary": "The newest value of features is too old: their pipeline may be dead",
                "detail": "product.price"}],
                "webhook": {"last_delivered_at": "2026-01-02T03:59:30Z", "failure": null}})
        }
        "get_performance_metrics" => {
            let mut window = window_of_type();
            let more = [
                ("requests", json!(1200)),
                ("requests_per_second", json!(20.0)),
                ("server_errors", json!(0)),
                ("store_failures", json!(0)),
                ("cache_hit_rate", json!(null)),
            ];
            more.into_iter().for_each(|(name, value)| window[name] = value);
            json!({"cache_hit_rate": null, "cache_hit_rate_reason": "no cache was asked in this window",
                "average_computation_time": 0.21, "now": "2026-01-02T04:00:00Z", "since": "2026-01-02T03:00:00Z",
                "windows": [window], "entity_types": [{"entity_type": "product", "windows": [window_of_type()]}]})
        }
        "get_freshness" => {
            json!({"entity_type": "product", "now": "2026-01-02T04:00:00Z", "since": "2026-01-02T03:00:00Z",
                "features": [{"feature": "price", "watched": true, "newest_event_timestamp": "2026-01-02T03:58:00Z",
                    "age_seconds": 120.0, "max_age": "1d", "stale": false, "last_written_at": "2026-01-02T03:58:01Z",
                    "values_written": 40, "reads": [{"minutes": 1, "count": 4, "present": 0.75, "null": 0.0,
                        "not_found": 0.0, "expired": 0.25, "defaulted": 0.0}]}]})
        }
        "get_openapi" => {
            json!({"openapi": "3.1.0", "info": {"title": "Feature store", "version": "0.1.0"}, "paths": {}})
        }
        _ => return None,
    })
}

fn window_of_type() -> Value {
    let latency = json!({"count": 600, "per_second": 10.0, "mean_ms": 0.21, "p50_ms": 0.19, "p95_ms": 0.4, "p99_ms": 0.9});
    json!({"minutes": 1, "seconds": 60.0, "retrieval": latency, "write": latency, "features_read": 6000,
        "features_read_per_second": 100.0, "features_written": 1200, "features_written_per_second": 20.0,
        "validation_errors": 0})
}

fn schema() -> Value {
    json!({"description": "What the shop sells", "owner": "catalogue-team", "schema_mode": "flexible", "ttl": "30d",
        "features": {
            "price": {"type": "float64", "minimum": 0, "unit": "EUR", "max_age": "1d"},
            "text_embedding": {"type": "embedding", "dimension": 384, "ttl": "24h"}}})
}

fn registered() -> Value {
    let mut registered = schema();
    registered["entity_type"] = json!("product");
    registered["schema_version"] = json!(1);
    registered["created_at"] = json!("2026-01-01T00:00:00Z");
    registered["updated_at"] = json!("2026-01-01T00:00:00Z");
    registered
}

fn service_version() -> Value {
    json!({"version": 1, "created_at": "2026-01-01T00:00:00Z", "features": ["user.age", "product.price"]})
}

fn service() -> Value {
    json!({"name": "ranking", "version": 1, "current": service_version(), "versions": [service_version()]})
}

fn provenance() -> Value {
    json!({"kind": "write", "source": "catalogue-sync", "run_id": "2026-01-02", "schema_version": 1})
}

fn version_of_price(version: u64, price: f64) -> Value {
    json!({"version": version, "value": price, "deleted": false, "event_timestamp": "2026-01-02T03:04:05Z",
        "written_at": "2026-01-02T03:04:06Z", "provenance": provenance()})
}

/// A job that is done.
fn job() -> Value {
    json!({"id": "6f1c9a7e2b3d4c5f", "kind": "recompute", "subject": "product", "state": "succeeded",
        "created_at": "2026-01-02T03:04:05Z", "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:04:07Z", "updated_at": "2026-01-02T03:04:07Z",
        "processed": 1000, "changed": 17, "failed": 0, "rate": 500, "errors": [], "error": null})
}
