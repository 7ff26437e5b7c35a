//! Looking back and going back.

use serde_json::json;

use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};

const PRODUCT: &str = "/v1/entities/product/123";

pub async fn history(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Look back")?;
    walk.step(
        "The versions of an entity, newest first: what each wrote, and who.",
        Call::get(format!("{PRODUCT}/versions?limit=3")),
        Expected::ok().with("/current_version", 5).with("/versions/0/features/stock", 11),
    )
    .await?;
    walk.step(
        "The entity as it stood at a version.",
        Call::get(format!("{PRODUCT}/features?names=price,stock&version=2")),
        Expected::ok().with("/features/price", json!(949.0)).with("/features/stock", 12),
    )
    .await?;
    walk.step(
        "What changed between two versions.",
        Call::get(format!("{PRODUCT}/diff?from=1&to=5")),
        Expected::ok()
            .with("/changed/price", json!({"from": 999.99, "to": 959.0}))
            .with("/changed/stock", json!({"from": 12, "to": 11})),
    )
    .await?;
    let at = walk.minutes_ago(75);
    walk.step(
        "What was true at a time, by event time: the late price counts here.",
        Call::get(format!("{PRODUCT}/features?names=price,stock&as_of={at}")),
        Expected::ok().with("/features/price", json!(979.0)),
    )
    .await?;
    walk.step(
        "The lineage of a feature: every value with its origin, and which feature services read it.",
        Call::get(format!("{PRODUCT}/features/price/lineage")),
        Expected::ok()
            .with("/current/provenance/source", "price-feed")
            .with("/history/2/provenance/run_id", "run-1")
            .with("/used_by/feature_services", json!(["ranking@1", "ranking@2"])),
    )
    .await?;
    Ok(())
}

pub async fn rollback(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Go back")?;
    walk.step(
        "A dry run says what a rollback of the price to version 1 would change.",
        Call::post(
            format!("{PRODUCT}/rollback"),
            r#"{"to_version": 1, "features": ["price"], "dry_run": true}"#,
        ),
        Expected::ok().with("/version", 5).with("/changes/price", json!({"from": 959.0, "to": 999.99})),
    )
    .await?;
    walk.step(
        "The rollback itself erases nothing: the old value is written anew, as a version.",
        Call::post(
            format!("{PRODUCT}/rollback"),
            r#"{"to_version": 1, "features": ["price"], "reason": "the price feed was wrong"}"#,
        ),
        Expected::ok().with("/version", 6).with("/outcomes/price", "applied"),
    )
    .await?;
    walk.step(
        "The value says that it comes from a rollback.",
        Call::get(format!("{PRODUCT}/features?names=price&include=metadata")),
        Expected::ok().with("/features/price", json!(999.99)).with("/metadata/price/kind", "rollback"),
    )
    .await?;
    walk.step(
        "A deletion is a version too …",
        Call::delete(format!("{PRODUCT}/features?names=description,stock")),
        Expected::ok().with("/version", 7).with("/outcomes/description", "applied"),
    )
    .await?;
    walk.step(
        "… after which the features are not there …",
        Call::get(format!("{PRODUCT}/features?names=description,stock,price")),
        Expected::ok().with("/statuses", json!({"description": "not_found", "stock": "not_found"})),
    )
    .await?;
    walk.step(
        "… until a rollback of the whole entity brings them back.",
        Call::post(format!("{PRODUCT}/rollback"), r#"{"to_version": 6}"#),
        Expected::ok()
            .with("/version", 8)
            .with("/outcomes/description", "applied")
            .with("/outcomes/price", "unchanged"),
    )
    .await?;
    walk.step(
        "Everything is there again.",
        Call::get(format!("{PRODUCT}/features?names=description,stock,price")),
        Expected::ok().with("/features/stock", 11).with("/statuses", json!({})),
    )
    .await?;
    Ok(())
}
