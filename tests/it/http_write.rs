//! Writing one entity: event time, conditions, provenance, registration.

use reqwest::Method;
use serde_json::json;

use crate::client::{expected, names};
use crate::test_server::On;

crate::on_both_stores![
    event_time_decides,
    the_same_event_renews_the_expiry,
    writes_without_a_time_follow_each_other,
    if_match_makes_a_write_conditional,
    where_a_value_comes_from_is_kept,
    unknown_features_are_registered_with_inferred_types,
    an_inferred_integer_is_widened,
    a_strict_schema_refuses_unknown_features,
    without_registration_unknown_types_are_refused,
    the_future_is_refused,
    ids_are_opaque,
];

async fn event_time_decides(on: On) {
    let server = on.server().await;
    let t = |seconds| server.time(seconds);
    let body = json!({"features": {"price": 10.5, "name": "a"}, "event_timestamp": t(-100)});
    let first = server.post_features("product/1", &body).await;
    assert_eq!(first.header("etag"), "\"1\"");
    assert_eq!(
        first.ok(),
        json!({"entity_type": "product", "entity_id": "1", "version": 1,
               "outcomes": {"price": "applied", "name": "applied"}})
    );
    // Newer, late, late again, a correction, and the event that was corrected again.
    for (at, price, outcome, version, served) in [
        (-50, 12.5, "applied", 2, 12.5),
        (-75, 11.5, "late", 3, 12.5),
        (-75, 11.5, "unchanged", 3, 12.5),
        (-50, 13.5, "applied", 4, 13.5),
        (-50, 12.5, "unchanged", 4, 13.5),
        (-50, 13.5, "unchanged", 4, 13.5),
        (-100, 10.5, "unchanged", 4, 13.5),
        (-100, 9.5, "late", 5, 13.5),
    ] {
        let written = server.write_at("product/1", &t(at), json!({ "price": price })).await;
        assert_eq!(written["outcomes"], json!({ "price": outcome }), "{price} at {at}");
        assert_eq!(written["version"], version, "{price} at {at}");
        let read = server.read("product/1", "names=price").await;
        assert_eq!(read["features"]["price"], json!(served), "after {price} at {at}");
        assert_eq!(read["version"], version);
    }
    let mixed = server.write_at("product/1", &t(-100), json!({"name": "a", "stock": 5})).await;
    assert_eq!(mixed["outcomes"], json!({"name": "unchanged", "stock": "applied"}));
    assert_eq!(mixed["version"], 6);
}

async fn the_same_event_renews_the_expiry(on: On) {
    let server = on.server().await;
    let at = server.time(-10);
    server.write_at("product/1", &at, json!({"price": 1.5})).await;
    server.advance(3000);
    let again = server.write_at("product/1", &at, json!({"price": 1.5})).await;
    assert_eq!((&again["version"], &again["outcomes"]["price"]), (&json!(1), &json!("unchanged")));
    server.advance(3000);
    assert_eq!(server.statuses("product/1", "").await, json!({}), "an hour after the first write");
    server.advance(600);
    assert_eq!(server.statuses("product/1", "").await, json!({"price": "expired"}));
}

async fn writes_without_a_time_follow_each_other(on: On) {
    let server = on.server().await;
    // The clock stands still: each write takes place after the one before nevertheless.
    for value in 1..=5 {
        let written = server.write("product/1", json!({ "n": value })).await;
        assert_eq!(written["outcomes"]["n"], "applied", "{value}");
        assert_eq!(written["version"], value);
    }
    assert_eq!(server.read("product/1", "").await["features"]["n"], 5);
}

async fn if_match_makes_a_write_conditional(on: On) {
    let server = on.server().await;
    let attempt = async |entity: &str, condition: &str, value: i64| {
        let path = format!("/v1/entities/product/{entity}/features");
        let request = server.request(Method::POST, &path).header("if-match", condition);
        server.send(request.json(&json!({"features": {"n": value}}))).await
    };
    let nobody = attempt("1", "*", 0).await.problem(412, "version_conflict");
    assert_eq!(nobody["current_version"], 0);
    server.get_features("product/1", "").await.problem(404, "entity_not_found");
    attempt("1", "\"0\"", 1).await.ok();
    let taken = attempt("1", "\"0\"", 2).await.problem(412, "version_conflict");
    assert_eq!(taken["current_version"], 1);
    assert_eq!(attempt("1", "\"1\"", 3).await.ok()["version"], 2);
    let old = attempt("1", "\"1\"", 4).await.problem(412, "version_conflict");
    assert_eq!(old["current_version"], 2);
    assert_eq!(attempt("1", "*", 5).await.ok()["version"], 3);
    attempt("1", "\"4\"", 6).await.problem(412, "version_conflict");
    let answer = server.get_features("product/1", "").await;
    assert_eq!(answer.header("etag"), "\"3\"");
    assert_eq!(answer.ok()["features"]["n"], 5);
}

async fn where_a_value_comes_from_is_kept(on: On) {
    let server = on.server().await;
    let event = server.time(-60);
    let body = json!({
        "features": {"price": 1.5}, "event_timestamp": event, "ttl": "2h",
        "source": "catalogue-sync", "run_id": "2026-01-02", "metadata": {"git": "abc", "try": 2}
    });
    server.post_features("product/1", &body).await.ok();
    server.advance(5);
    server.write("product/1", json!({"stock": 3})).await;
    let read = server.read("product/1", "names=price,stock&include=metadata").await;
    let price = &read["metadata"]["price"];
    assert_eq!(
        names(price),
        ["age_seconds", "event_timestamp", "expires_at", "kind", "run_id", "source", "version", "written_at"]
    );
    assert_eq!(price["version"], 1);
    assert_eq!(price["event_timestamp"], event);
    assert_eq!(price["written_at"], server.time(-5));
    assert_eq!(price["expires_at"], server.time(7200 - 5));
    assert_eq!(price["age_seconds"].as_f64(), Some(65.0));
    assert_eq!(price["source"], "catalogue-sync");
    assert_eq!(price["run_id"], "2026-01-02");
    assert_eq!(price["kind"], "write");
    let stock = &read["metadata"]["stock"];
    assert_eq!((&stock["version"], &stock["source"]), (&json!(2), &json!(null)));
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!(lineage["current"]["provenance"]["metadata"], json!({"git": "abc", "try": 2}));
}

async fn unknown_features_are_registered_with_inferred_types(on: On) {
    let server = on.server().await;
    let ten: Vec<f64> = (0..10).map(f64::from).collect();
    let eleven: Vec<f64> = (0..11).map(f64::from).collect();
    let features = json!({
        "flag": true, "count": 3, "price": 1.5, "name": "a", "few": ten, "many": eleven,
        "tags": ["x", "y"], "dims": {"w": 1}, "huge": 12345678901234567890123_f64
    });
    server.write("product/1", features.clone()).await;
    assert_eq!(
        server.read("product/1", "names=flag,count,price,name,tags,dims").await["statuses"],
        json!({})
    );
    let schema = server.get("/v1/entity-types/product").await.ok();
    for (feature, feature_type) in [
        ("flag", "boolean"),
        ("count", "int64"),
        ("price", "float64"),
        ("name", "string"),
        ("few", "json"),
        ("many", "embedding"),
        ("tags", "json"),
        ("dims", "json"),
        ("huge", "float64"),
    ] {
        assert_eq!(schema["features"][feature]["type"], feature_type, "{feature}");
        assert_eq!(schema["features"][feature]["inferred"], true, "{feature}");
    }
    assert_eq!(schema["features"]["many"]["dimension"], 11);
    // What was inferred holds from then on.
    let body =
        json!({"features": {"flag": 1, "count": "three", "many": [1.0, 2.0], "fresh": null, "name": 5}});
    assert_eq!(
        server.post_features("product/2", &body).await.violations(),
        expected(&[
            ("flag", "wrong_type"),
            ("count", "wrong_type"),
            ("many", "wrong_type"),
            ("fresh", "unknown_feature"),
            ("name", "wrong_type"),
        ])
    );
    server.get_features("product/2", "").await.problem(404, "entity_not_found");
    assert_eq!(
        server.get("/v1/entity-types/product").await.ok(),
        schema,
        "a refused write registers nothing"
    );
}

async fn an_inferred_integer_is_widened(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"n": 3})).await;
    server.write("product/2", json!({"n": 3.5})).await;
    let schema = server.get("/v1/entity-types/product").await.ok();
    assert_eq!(schema["features"]["n"]["type"], "float64");
    assert_eq!(schema["schema_version"], 2);
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"]["n"], json!(3.0), "what was an integer reads as a float");
    server.declare("user", json!({"features": {"age": {"type": "int64"}}})).await;
    let refused = server.post_features("user/1", &json!({"features": {"age": 3.5}})).await;
    assert_eq!(refused.violations(), expected(&[("age", "wrong_type")]), "declared integers stay");
}

async fn a_strict_schema_refuses_unknown_features(on: On) {
    let server = on.server().await;
    server
        .declare("product", json!({"schema_mode": "strict", "features": {"price": {"type": "float64"}}}))
        .await;
    let body = json!({"features": {"price": 1.5, "colour": "red"}});
    let refused = server.post_features("product/1", &body).await;
    assert_eq!(refused.violations(), expected(&[("colour", "unknown_feature")]));
    server.get_features("product/1", "").await.problem(404, "entity_not_found");
    server.write("product/1", json!({"price": 1.5})).await;
}

async fn without_registration_unknown_types_are_refused(on: On) {
    let server = on.server_with(|config| config.auto_register = false).await;
    let body = json!({"features": {"price": 1.5}});
    server.post_features("product/1", &body).await.problem(404, "unknown_entity_type");
    server.declare("product", json!({"features": {"price": {"type": "float64"}}})).await;
    server.post_features("product/1", &body).await.ok();
    let refused = server.post_features("product/1", &json!({"features": {"colour": "red"}})).await;
    assert_eq!(refused.violations(), expected(&[("colour", "unknown_feature")]));
}

async fn the_future_is_refused(on: On) {
    let server = on.server().await;
    let (soon, too_late) = (server.time(300), server.time(301));
    let body = json!({"features": {"price": 1.5}, "event_timestamp": too_late});
    let refused = server.post_features("product/1", &body).await;
    assert_eq!(refused.violations(), expected(&[("/event_timestamp", "event_in_future")]));
    server.get("/v1/entity-types/product").await.problem(404, "unknown_entity_type");
    server.write_at("product/1", &soon, json!({"price": 1.5})).await;
}

async fn ids_are_opaque(on: On) {
    let server = on.server().await;
    let long = "x".repeat(256);
    for (path, id) in [
        ("a%2Fb", "a/b"),
        ("%C3%A9%F0%9F%98%80", "é😀"),
        ("a%20b", "a b"),
        ("%7Bx%7D%3A%3A", "{x}::"),
        ("-", "-"),
        (long.as_str(), long.as_str()),
    ] {
        let written = server.write(&format!("product/{path}"), json!({ "id": id })).await;
        assert_eq!((&written["entity_id"], &written["version"]), (&json!(id), &json!(1)));
        let read = server.read(&format!("product/{path}"), "").await;
        assert_eq!((&read["entity_id"], &read["features"]["id"]), (&json!(id), &json!(id)));
    }
}
