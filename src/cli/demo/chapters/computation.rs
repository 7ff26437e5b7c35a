//! Features that are derived by functions.

use serde_json::json;

use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};

const SCHEMA: &str = include_str!("../../../../examples/ecommerce/product.yaml");
const ARTICLE: &str = "/v1/entities/article/1";

pub async fn computation(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Derive")?;
    walk.step(
        "A schema may carry functions, in Python syntax: this one derives features of an article.",
        Call::put_yaml("/v1/entity-types/article", SCHEMA),
        Expected::status(201).with("/created", true),
    )
    .await?;
    walk.step(
        "Raw data goes in; what the functions make of it is checked and kept.",
        Call::post(
            format!("{ARTICLE}/compute"),
            r#"{"raw": {"name": "iPhone 15", "category": "smartphones", "description": "A phone with a good camera", "price": 999.99}}"#,
        ),
        Expected::ok()
            .with("/version", 1)
            .with("/features/price_range", "premium")
            .with("/features/name_length", 9)
            .with("/outcomes/price", "applied"),
    )
    .await?;
    walk.step(
        "An ordinary write of an input derives anew what depends on it, in the same version.",
        Call::post(format!("{ARTICLE}/features"), r#"{"features": {"price": 39.0}}"#),
        Expected::ok().with("/version", 2).with("/outcomes/price_range", "applied"),
    )
    .await?;
    walk.step(
        "So a derived feature never disagrees with its inputs.",
        Call::get(format!("{ARTICLE}/features?names=price,price_range,is_premium")),
        Expected::ok().with("/features/price_range", "budget").with("/features/is_premium", false),
    )
    .await?;
    walk.step(
        "Its lineage names the function, the function's hash and the versions of the inputs.",
        Call::get(format!("{ARTICLE}/features/price_range/lineage")),
        Expected::ok()
            .with("/computed_from/function", "price_range")
            .with("/computed_from/inputs", json!([{"feature": "article.price", "version": 2}])),
    )
    .await?;
    walk.step(
        "Functions that were changed run again over every entity, as a job.",
        Call::post("/v1/entity-types/article/recompute".to_owned(), ""),
        Expected::status(202).with("/kind", "recompute"),
    )
    .await?;
    Ok(())
}
