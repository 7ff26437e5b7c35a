//! Declaring what there is: schemas, and what models read.

use serde_json::json;

use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};

const PRODUCT: &str = include_str!("../../../../examples/shop/product.yaml");
const USER: &str = include_str!("../../../../examples/shop/user.yaml");

pub async fn schemas(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Declare features")?;
    walk.step(
        "A schema says which features an entity type has, and what their values must be like.",
        Call::put_yaml("/v1/entity-types/product", PRODUCT),
        Expected::status(201).with("/created", true).with("/schema_version", 1),
    )
    .await?;
    walk.step(
        "The shop's users have a schema of their own.",
        Call::put_yaml("/v1/entity-types/user", USER),
        Expected::status(201).with("/schema_version", 1),
    )
    .await?;
    let with_points = format!("{USER}  loyalty_points: {{type: int64, minimum: 0}}\n");
    walk.step(
        "A dry run shows what a changed schema would change, and changes nothing.",
        Call::put_yaml("/v1/entity-types/user?dry_run=true", with_points),
        Expected::ok().with("/dry_run", true).with("/changes/added", json!(["loyalty_points"])),
    )
    .await?;
    let with_text_age = USER.replace("age: {type: int64, minimum: 0, maximum: 130}", "age: {type: string}");
    walk.step(
        "A change that would make stored values unreadable is refused.",
        Call::put_yaml("/v1/entity-types/user", with_text_age),
        Expected::status(409).with("/code", "schema_conflict").with("/errors/0/feature", "age"),
    )
    .await?;
    walk.step(
        "Every accepted change is a schema version; the two last steps made none.",
        Call::get("/v1/entity-types/user/schema-versions"),
        Expected::ok().with("/schema_versions/0/schema_version", 1),
    )
    .await?;
    Ok(())
}

pub async fn feature_services(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Say what a model reads")?;
    walk.step(
        "A feature service is the list of features that one model reads.",
        Call::put(
            "/v1/feature-services/ranking",
            r#"{"owner": "search-team", "features": ["user.age", "product.price", "product.rating"]}"#,
        ),
        Expected::status(201).with("/version", 1),
    )
    .await?;
    walk.step(
        "The next model wants one feature more: a new version, and the old one stays as it is.",
        Call::put(
            "/v1/feature-services/ranking",
            r#"{"owner": "search-team", "features": ["user.age", "product.price", "product.rating", "product.in_sale"]}"#,
        ),
        Expected::ok().with("/version", 2),
    )
    .await?;
    walk.step(
        "The old model goes on reading ranking@1.",
        Call::post(
            "/v1/features/read",
            r#"{"entities": {"user": ["1"], "product": ["1001"]}, "feature_service": "ranking@1"}"#,
        ),
        Expected::ok().with("/results/1/entity_id", "1001").with("/results/1/statuses", json!({})),
    )
    .await?;
    walk.step(
        "The new one reads ranking@2 (ranking alone is the latest).",
        Call::post(
            "/v1/features/read",
            r#"{"entities": {"user": ["1"], "product": ["1001"]}, "feature_service": "ranking@2"}"#,
        ),
        Expected::ok().containing("in_sale"),
    )
    .await?;
    Ok(())
}
