//! Entities as a whole, and how the server is.

use serde_json::Value;

use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};

pub async fn operations(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Keep the house")?;
    let page = walk
        .step(
            "The entities of a type, page by page.",
            Call::get("/v1/entities/product?limit=5"),
            Expected::ok().with("/entity_type", "product").containing("next_cursor"),
        )
        .await?;
    let cursor = page.pointer("/next_cursor").and_then(Value::as_str).unwrap_or_default();
    walk.step(
        "The cursor of one page leads to the next.",
        Call::get(format!("/v1/entities/product?limit=5&cursor={cursor}")),
        Expected::ok().containing("next_cursor"),
    )
    .await?;
    walk.step(
        "Deleting an entity erases it with its history.",
        Call::delete("/v1/entities/product/1300"),
        Expected::status(204),
    )
    .await?;
    walk.step(
        "Nothing of it is left.",
        Call::get("/v1/entities/product/1300/features?names=name"),
        Expected::status(404).with("/code", "entity_not_found"),
    )
    .await?;
    walk.step(
        "The health report, for people.",
        Call::get("/health"),
        Expected::ok().with("/status", "healthy").with("/store/backend", "embedded"),
    )
    .await?;
    walk.step(
        "The probe, for machines: it really asks the store.",
        Call::get("/readyz"),
        Expected::ok().with("/status", "ok"),
    )
    .await?;
    walk.step(
        "The metrics, for Prometheus.",
        Call::get("/metrics"),
        Expected::ok().containing("feature_store_features_written_total"),
    )
    .await?;
    Ok(())
}
