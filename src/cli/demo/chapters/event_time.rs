//! Event time decides: new, late, corrected and repeated events, and writers that meet.

use serde_json::json;

use crate::cli::demo::client::Call;
use crate::cli::demo::walk::{Expected, Walk};
use crate::domain::time::Timestamp;

const PATH: &str = "/v1/entities/product/123/features";

fn price(price: &str, at: Timestamp) -> Call {
    let body = format!(
        r#"{{"features": {{"price": {price}}}, "event_timestamp": "{at}", "source": "price-feed", "run_id": "run-2"}}"#
    );
    Call::post(PATH, body)
}

pub async fn event_time(walk: &mut Walk) -> Result<(), String> {
    walk.chapter("Event time decides")?;
    let (late, newest) = (walk.minutes_ago(90), walk.minutes_ago(60));
    walk.step(
        "A newer event replaces the served value, and takes the entity's next version.",
        price("949.0", newest),
        Expected::ok().with("/version", 2).with("/outcomes/price", "applied"),
    )
    .await?;
    walk.step(
        "An event that arrives late goes into the history and is never served as current.",
        price("979.0", late),
        Expected::ok().with("/version", 3).with("/outcomes/price", "late"),
    )
    .await?;
    walk.step(
        "Another value for the same time is a correction, and replaces what it corrects.",
        price("959.0", newest),
        Expected::ok().with("/version", 4).with("/outcomes/price", "applied"),
    )
    .await?;
    walk.step(
        "The same event again changes nothing: pipelines may send things twice.",
        price("959.0", newest),
        Expected::ok().with("/version", 4).with("/outcomes/price", "unchanged"),
    )
    .await?;
    walk.step(
        "So it is with one that was superseded meanwhile: the late event once more.",
        price("979.0", late),
        Expected::ok().with("/version", 4).with("/outcomes/price", "unchanged"),
    )
    .await?;
    walk.step(
        "Served is the corrected price.",
        Call::get(format!("{PATH}?names=price")),
        Expected::ok().with("/features/price", json!(959.0)),
    )
    .await?;
    walk.step(
        "If-Match writes only if nobody else has written meanwhile; version 1 is long past.",
        Call::post(PATH, r#"{"features": {"stock": 11}}"#).if_match(1),
        Expected::status(412).with("/code", "version_conflict").with("/current_version", 4),
    )
    .await?;
    walk.step(
        "With the version that the answer named, it succeeds. Without a time of its own, a write takes \
         place now.",
        Call::post(PATH, r#"{"features": {"stock": 11}, "source": "till-3"}"#).if_match(4),
        Expected::ok().with("/version", 5).with("/outcomes/stock", "applied"),
    )
    .await?;
    Ok(())
}
