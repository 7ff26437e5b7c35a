//! The clocks of a read: ttl and max_age now, event time and versions in the past.

use serde_json::json;

use crate::client::violations;
use crate::test_server::On;

crate::on_both_stores![
    the_nearest_ttl_counts,
    a_value_may_be_too_old_by_event_time,
    as_of_answers_what_was_true_then,
    as_of_knows_deletions_and_late_events,
    a_version_is_answered_as_it_stood,
    trimmed_versions_are_not_found,
    without_versioning_there_is_no_history,
    every_status_has_a_reason,
];

async fn the_nearest_ttl_counts(on: On) {
    let server = on.server().await;
    let schema = json!({"ttl": "30m", "features": {
        "own": {"type": "int64", "ttl": 600}, "typed": {"type": "int64"},
        "vector": {"type": "embedding", "dimension": 2}, "kept": {"type": "int64", "ttl": "never"}}});
    server.declare("with_ttl", schema).await;
    let schema =
        json!({"features": {"plain": {"type": "int64"}, "vector": {"type": "embedding", "dimension": 2}}});
    server.declare("bare", schema).await;
    let values = json!({"own": 1, "typed": 2, "vector": [1.0, 2.0], "kept": 3});
    server.write("with_ttl/1", values.clone()).await;
    server.post_features("with_ttl/2", &json!({"features": values, "ttl": "1m"})).await.ok();
    server.write("bare/1", json!({"plain": 1, "vector": [1.0, 2.0]})).await;
    server.post_features("bare/2", &json!({"features": {"plain": 1}, "ttl": "never"})).await.ok();
    let expiries = server.read("with_ttl/1", "include=metadata").await["metadata"].clone();
    assert_eq!(expiries["own"]["expires_at"], server.time(600));
    assert_eq!(expiries["typed"]["expires_at"], server.time(1800));
    assert_eq!(expiries["kept"]["expires_at"], json!(null));
    let mut now = 0;
    for (at, entity, expired) in [
        (59, "with_ttl/2", json!({})),
        (
            60,
            "with_ttl/2",
            json!({"own": "expired", "typed": "expired", "vector": "expired", "kept": "expired"}),
        ),
        (599, "with_ttl/1", json!({})),
        (600, "with_ttl/1", json!({"own": "expired"})),
        (1799, "with_ttl/1", json!({"own": "expired"})),
        (1800, "with_ttl/1", json!({"own": "expired", "typed": "expired", "vector": "expired"})),
        (3599, "bare/1", json!({})),
        (3600, "bare/1", json!({"plain": "expired"})),
        (86_399, "bare/1", json!({"plain": "expired"})),
        (86_400, "bare/1", json!({"plain": "expired", "vector": "expired"})),
    ] {
        server.advance(at - now);
        now = at;
        assert_eq!(server.statuses(entity, "").await, expired, "{entity} after {at} s");
    }
    assert_eq!(server.statuses("with_ttl/1", "names=kept").await, json!({}));
    assert_eq!(server.statuses("bare/2", "names=plain").await, json!({}));
}

async fn a_value_may_be_too_old_by_event_time(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "price": {"type": "float64", "max_age": "1h"}, "name": {"type": "string"}}});
    server.declare("product", schema).await;
    server.write_at("product/young", &server.time(-1800), json!({"price": 1.5, "name": "a"})).await;
    server.write_at("product/old", &server.time(-7200), json!({"price": 1.5, "name": "a"})).await;
    for (entity, query, expired) in [
        ("product/young", "", json!({})),
        ("product/old", "", json!({"price": "expired"})),
        ("product/old", "max_age=3h", json!({})),
        ("product/young", "max_age=10m", json!({"price": "expired", "name": "expired"})),
        ("product/young", "max_age=1800", json!({})),
        ("product/young", "max_age=1799.5", json!({"price": "expired", "name": "expired"})),
    ] {
        assert_eq!(server.statuses(entity, query).await, expired, "{entity} {query}");
    }
    let body = json!({"entities": {"product": ["young", "old"]}, "features": ["name"], "max_age": "1h"});
    let batch = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(batch["results"][0]["features"]["name"], "a");
    assert_eq!(batch["results"][1]["statuses"], json!({"name": "expired"}));
    server.advance(1801);
    assert_eq!(server.statuses("product/young", "").await, json!({"price": "expired"}));
}

async fn as_of_answers_what_was_true_then(on: On) {
    let server = on.server().await;
    let schema = json!({"ttl": "1m", "features": {
        "n": {"type": "int64"}, "aged": {"type": "int64", "max_age": "40s"}}});
    server.declare("product", schema).await;
    let started = server.time(0);
    let t = |seconds: i64| {
        let started = feature_store::domain::time::Timestamp::parse(&started).expect("a timestamp");
        let at = feature_store::domain::time::Timestamp::from_millis(started.as_millis() + seconds * 1000);
        at.expect("a time in the calendar").to_string()
    };
    for (at, value) in [(-300, 1), (-200, 2), (-100, 3)] {
        server.write_at("product/1", &t(at), json!({"n": value, "aged": value})).await;
    }
    // Long after everything has expired: the ttl plays no part in the past.
    server.advance(3600);
    assert_eq!(server.statuses("product/1", "names=n").await, json!({"n": "expired"}));
    for (at, value) in [(-300, json!(1)), (-201, json!(1)), (-200, json!(2)), (-101, json!(2)), (0, json!(3))]
    {
        let read = server.read("product/1", &format!("names=n&as_of={}", t(at))).await;
        assert_eq!(read["features"]["n"], value, "as of {at}");
        assert_eq!(read["statuses"], json!({}), "as of {at}");
    }
    let before = server.read("product/1", &format!("names=n&as_of={}", t(-301))).await;
    assert_eq!(before["statuses"], json!({"n": "not_found"}));
    for (at, max_age, status) in [
        (-260, "", json!({})),
        (-259, "", json!({"aged": "expired"})),
        (-259, "&max_age=1m", json!({})),
        (-250, "&max_age=49s", json!({"aged": "expired"})),
    ] {
        let query = format!("names=aged&as_of={}{max_age}", t(at));
        assert_eq!(server.statuses("product/1", &query).await, status, "{query}");
    }
    let body =
        json!({"entities": {"product": ["1"]}, "features": ["n"], "as_of": t(-150), "layout": "columns"});
    let batch = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(batch["product"]["features"]["n"], json!([2]));
}

async fn as_of_knows_deletions_and_late_events(on: On) {
    let server = on.server().await;
    server.write_at("product/1", &server.time(-300), json!({"n": 1})).await;
    server.write_at("product/1", &server.time(-100), json!({"n": 3})).await;
    server.write_at("product/1", &server.time(-200), json!({"n": 2})).await;
    let (late, past) = (server.time(-150), server.time(-1));
    assert_eq!(server.read("product/1", &format!("as_of={late}")).await["features"]["n"], 2);
    server.delete("/v1/entities/product/1/features?names=n").await.ok();
    assert_eq!(server.read("product/1", "").await["statuses"], json!({"n": "not_found"}));
    assert_eq!(server.read("product/1", &format!("as_of={past}")).await["features"]["n"], 3);
    server.advance(10);
    let deleted = server.read("product/1", &format!("as_of={}", server.time(0))).await;
    assert_eq!(deleted["statuses"], json!({"n": "not_found"}));
}

async fn a_version_is_answered_as_it_stood(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"n": 1, "name": "a"})).await;
    server.write("product/1", json!({"n": 2})).await;
    server.write("product/1", json!({"n": 3, "colour": "red"})).await;
    server.advance(7200);
    for (version, features, statuses) in [
        (1, json!({"n": 1, "name": "a", "colour": null}), json!({"colour": "not_found"})),
        (2, json!({"n": 2, "name": "a", "colour": null}), json!({"colour": "not_found"})),
        (3, json!({"n": 3, "name": "a", "colour": "red"}), json!({})),
    ] {
        let read = server.read("product/1", &format!("version={version}")).await;
        assert_eq!(read["version"], version);
        assert_eq!(read["features"], features, "version {version}");
        assert_eq!(read["statuses"], statuses, "version {version}");
    }
    for version in [0, 4, 99] {
        let missing = server.get_features("product/1", &format!("version={version}")).await;
        missing.problem(404, "version_not_found");
    }
    server.get_features("product/2", "version=1").await.problem(404, "entity_not_found");
}

async fn trimmed_versions_are_not_found(on: On) {
    let server = on.server().await;
    let schema = json!({"max_versions": 3, "features": {
        "n": {"type": "int64"}, "short": {"type": "int64", "max_versions": 1}, "once": {"type": "int64"}}});
    server.declare("product", schema).await;
    server.write("product/1", json!({"once": 1})).await;
    for value in 2..=6 {
        server.write("product/1", json!({ "n": value, "short": value })).await;
    }
    for (version, name, value) in
        [(4, "n", 4), (5, "n", 5), (6, "n", 6), (6, "short", 6), (1, "once", 1), (6, "once", 1)]
    {
        let read = server.read("product/1", &format!("names={name}&version={version}")).await;
        assert_eq!(read["features"][name], value, "{name} at {version}");
    }
    for (version, name) in [(3, "n"), (2, "n"), (5, "short")] {
        let answer = server.get_features("product/1", &format!("names={name}&version={version}")).await;
        let problem = answer.problem(404, "version_not_found");
        assert_eq!(violations(&problem["errors"]), [(name.to_owned(), "version_trimmed".to_owned())]);
    }
    let problem = server.get("/v1/entities/product/1/versions/3").await.problem(404, "version_not_found");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(2), "{problem}");
    let at_one = server.read("product/1", "names=n&version=1").await;
    assert_eq!(at_one["statuses"], json!({"n": "not_found"}), "it was not there yet, which is known");
}

async fn without_versioning_there_is_no_history(on: On) {
    let server = on.server().await;
    let schema = json!({"versioning": false, "features": {"n": {"type": "int64"}}});
    server.declare("product", schema).await;
    server.write("product/1", json!({"n": 1})).await;
    assert_eq!(server.write("product/1", json!({"n": 2})).await["version"], 2);
    server.get_features("product/1", "version=1").await.problem(404, "version_not_found");
    let lineage = server.get("/v1/entities/product/1/features/n/lineage").await.ok();
    assert_eq!(lineage["history"], json!([]));
    let late = server.write_at("product/1", &server.time(-60), json!({"n": 0})).await;
    assert_eq!((&late["outcomes"]["n"], &late["version"]), (&json!("late"), &json!(2)));
}

async fn every_status_has_a_reason(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "present": {"type": "int64"}, "null": {"type": "int64"}, "not_found": {"type": "int64"},
        "expired": {"type": "int64", "ttl": "1m"}, "defaulted": {"type": "int64", "default": 7}}});
    server.declare("product", schema).await;
    server.write("product/1", json!({"present": 1, "null": null, "expired": 2})).await;
    server.advance(61);
    let read = server.read("product/1", "").await;
    assert_eq!(
        read["features"],
        json!({"present": 1, "null": null, "not_found": null, "expired": null, "defaulted": 7})
    );
    assert_eq!(
        read["statuses"],
        json!({"null": "null", "not_found": "not_found", "expired": "expired", "defaulted": "defaulted"})
    );
}
