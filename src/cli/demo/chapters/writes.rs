//! Writing: one entity, many, and what is refused.

use serde_json::{Value, json};

use crate::cli::demo::catalogue;
use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};

pub async fn writes(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Write features")?;
    let at = walk.minutes_ago(120);
    walk.step(
        "A write says what was true when, and where that comes from. Its answer tells what became of each \
         feature.",
        Call::post(
            "/v1/entities/product/123/features",
            format!(
                r#"{{"features": {{"name": "iPhone 15", "category": "smartphones", "price": 999.99, "stock": 12, "description": "A light smartphone with a sharp camera."}}, "event_timestamp": "{at}", "source": "catalogue-sync", "run_id": "run-1", "metadata": {{"file": "prices.csv"}}}}"#
            ),
        ),
        Expected::ok().with("/version", 1).with("/outcomes/price", "applied"),
    )
    .await?;
    walk.step(
        "A write is checked whole: everything that is wrong is listed, and nothing is stored.",
        Call::post(
            "/v1/entities/product/123/features",
            r#"{"features": {"price": -5, "category": "telephones", "image_embedding": [0.1, 0.2], "colour": "blue"}}"#,
        ),
        Expected::status(422).with("/code", "validation_failed").containing("below_minimum"),
    )
    .await?;
    load(walk).await?;
    walk.step(
        "In a batch each row stands alone: the good one is stored, the bad one says why not.",
        Call::post(
            "/v1/features/write",
            r#"{"entity_type": "user", "source": "crm", "rows": [{"entity_id": "7", "features": {"age": 41}}, {"entity_id": "8", "features": {"age": 400}}]}"#,
        ),
        Expected::ok()
            .with("/written", 1)
            .with("/rejected", 1)
            .with("/results/1/error/errors/0/code", "above_maximum"),
    )
    .await?;
    walk.step(
        "With \"atomic\" one bad row refuses all of them.",
        Call::post(
            "/v1/features/write",
            r#"{"entity_type": "user", "atomic": true, "rows": [{"entity_id": "7", "features": {"age": 42}}, {"entity_id": "8", "features": {"age": 400}}]}"#,
        ),
        Expected::status(422).with("/code", "validation_failed"),
    )
    .await?;
    Ok(())
}

/// The catalogue and the customers, as a pipeline would write them.
async fn load(walk: &mut Walk) -> Result<(), String> {
    let now = walk.minutes_ago(0);
    for (entity_type, says, rows) in [
        ("product", "One call loads the whole catalogue, embeddings included.", catalogue::products(now)),
        ("user", "Another one loads the users.", catalogue::users(now)),
    ] {
        let count = rows.len();
        let body = |rows: &[Value]| {
            let document =
                json!({"entity_type": entity_type, "source": "shop", "run_id": "load-1", "rows": rows});
            Call::post("/v1/features/write", document.to_string())
        };
        let (first, all) = (body(&rows[..1]), body(&rows));
        walk.long_step(says, &first, all, Expected::ok().with("/written", count).with("/rejected", 0))
            .await?;
    }
    Ok(())
}
