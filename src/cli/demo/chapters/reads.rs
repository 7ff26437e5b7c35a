//! Reading: one entity and many.

use serde_json::json;

use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};

pub async fn reads(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Read features")?;
    walk.step(
        "A read answers every feature asked for, and says why where there is no value.",
        Call::get("/v1/entities/product/123/features?names=name,price,rating,popularity_score"),
        Expected::ok()
            .with("/features/price", json!(999.99))
            .with("/statuses/rating", "not_found")
            .with("/statuses/popularity_score", "defaulted"),
    )
    .await?;
    walk.step(
        "With metadata: which version, true since when, written by whom, served until when.",
        Call::get("/v1/entities/product/123/features?names=price&include=metadata"),
        Expected::ok().with("/metadata/price/source", "catalogue-sync").with("/metadata/price/version", 1),
    )
    .await?;
    walk.step(
        "A misspelt feature is an error, never a silent null.",
        Call::get("/v1/entities/product/123/features?names=name,prise"),
        Expected::status(400).with("/code", "unknown_feature").with("/errors/0/feature", "prise"),
    )
    .await?;
    walk.step(
        "An entity that the store has nothing of is a 404.",
        Call::get("/v1/entities/product/no-such-product/features?names=name"),
        Expected::status(404).with("/code", "entity_not_found"),
    )
    .await?;
    walk.step(
        "One call reads many entities of several types. Stock counts older than a day are expired \
         (the schema's max_age), and an unknown entity has version 0.",
        Call::post(
            "/v1/features/read",
            r#"{"entities": {"user": ["7"], "product": ["123", "1005", "no-such-product"]}, "features": ["user.age", "user.country", "product.name", "product.stock"]}"#,
        ),
        Expected::ok()
            .with("/results/0/features/age", 41)
            .with("/results/1/features/stock", 12)
            .with("/results/2/statuses/stock", "expired")
            .with("/results/3/version", 0),
    )
    .await?;
    walk.step(
        "The same in columns: one array a feature, a DataFrame as it is.",
        Call::post(
            "/v1/features/read",
            r#"{"entities": {"user": ["7", "8"], "product": ["123", "1001", "1002"]}, "features": ["user.age", "product.name", "product.price"], "layout": "columns"}"#,
        ),
        Expected::ok()
            .with("/user/entity_ids", json!(["7", "8"]))
            .with("/product/features/name/0", "iPhone 15")
            .with("/product/statuses", json!({})),
    )
    .await?;
    walk.step(
        "Embeddings are features like any other (long arrays are shortened here).",
        Call::get("/v1/entities/product/1001/features?names=text_embedding,image_embedding"),
        Expected::ok().with("/statuses", json!({})),
    )
    .await?;
    Ok(())
}
