//! What a schema demands of values, and that every breach is listed.

use serde_json::{Value, json};

use crate::client::expected;
use crate::test_server::On;

crate::on_both_stores![
    every_breach_is_listed,
    each_type_takes_its_own,
    values_at_the_bounds_fit,
    a_required_feature_must_be_there,
    null_is_a_value_where_it_may_be,
    a_default_stands_in,
];

async fn every_breach_is_listed(on: On) {
    let server = on.server().await;
    let schema = json!({"schema_mode": "strict", "features": {
        "low": {"type": "float64", "minimum": 0},
        "high": {"type": "int64", "maximum": 10},
        "category": {"type": "string", "enum": ["smartphones", "laptops"]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}$", "min_length": 3, "max_length": 3},
        "short": {"type": "string", "min_length": 2},
        "long": {"type": "string", "max_length": 4},
        "sure": {"type": "boolean", "nullable": false},
        "vector": {"type": "embedding", "dimension": 3},
        "must": {"type": "int64", "required": true}}});
    server.declare("product", schema).await;
    let body = json!({"event_timestamp": server.time(3600), "features": {
        "low": -0.5, "high": 11, "category": "toys", "code": "abcd", "short": "x", "long": "xxxxx",
        "sure": null, "vector": [1.0, 2.0], "other": 1, "not a name": 1}});
    let refused = server.post_features("product/1", &body).await;
    assert_eq!(
        refused.violations(),
        expected(&[
            ("/event_timestamp", "event_in_future"),
            ("low", "below_minimum"),
            ("high", "above_maximum"),
            ("category", "not_in_enum"),
            ("code", "pattern_mismatch"),
            ("code", "too_long"),
            ("short", "too_short"),
            ("long", "too_long"),
            ("sure", "not_nullable"),
            ("vector", "wrong_type"),
            ("other", "unknown_feature"),
            ("not a name", "invalid_name"),
        ])
    );
    server.get_features("product/1", "").await.problem(404, "entity_not_found");
    let refused = server.post_features("product/1", &json!({"features": {"low": 1.0}})).await;
    assert_eq!(refused.violations(), expected(&[("must", "required_missing")]));
}

async fn each_type_takes_its_own(on: On) {
    let server = on.server().await;
    let kinds = json!({"features": {
        "i": {"type": "int64"}, "f": {"type": "float64"}, "b": {"type": "boolean"}, "s": {"type": "string"},
        "t": {"type": "timestamp"}, "e": {"type": "embedding", "dimension": 2}, "j": {"type": "json"}}});
    server.declare("kind", kinds).await;
    let good: [(&str, Value, Value); 16] = [
        ("i", json!(i64::MAX), json!(i64::MAX)),
        ("i", json!(i64::MIN), json!(i64::MIN)),
        ("i", json!(3.0), json!(3)),
        ("f", json!(3), json!(3.0)),
        ("f", json!(-1.5e300), json!(-1.5e300)),
        ("b", json!(false), json!(false)),
        ("s", json!("é\u{0}\n\"😀"), json!("é\u{0}\n\"😀")),
        ("s", json!(""), json!("")),
        ("t", json!("2026-01-02T03:04:05+02:00"), json!("2026-01-02T01:04:05Z")),
        ("t", json!("2026-01-02T03:04:05.123456Z"), json!("2026-01-02T03:04:05.123456Z")),
        ("e", json!([0.5, -2]), json!([0.5, -2.0])),
        ("j", json!({"b": [1, null, "x"], "a": {}}), json!({"b": [1, null, "x"], "a": {}})),
        ("j", json!([]), json!([])),
        ("j", json!("text"), json!("text")),
        ("j", json!(7), json!(7)),
        ("j", json!(false), json!(false)),
    ];
    for (feature, sent, served) in good {
        server.write("kind/1", json!({ feature: sent })).await;
        let read = server.read("kind/1", &format!("names={feature}")).await;
        assert_eq!(read["features"][feature], served, "{feature} {sent}");
        assert_eq!(read["statuses"], json!({}), "{feature} {sent}");
    }
    let version = server.read("kind/1", "names=i").await["version"].clone();
    for (feature, bad) in [
        ("i", json!(1.5)),
        ("i", json!("1")),
        ("i", json!(true)),
        ("i", json!(u64::MAX)),
        ("f", json!("1.5")),
        ("f", json!([1.5])),
        ("b", json!(0)),
        ("b", json!("true")),
        ("s", json!(1)),
        ("s", json!(["a"])),
        ("t", json!("yesterday")),
        ("t", json!("2026-01-02")),
        ("t", json!("2026-13-02T03:04:05Z")),
        ("t", json!(1_767_323_045)),
        ("e", json!([0.5])),
        ("e", json!([0.5, 1, 2])),
        ("e", json!([0.5, "1"])),
        ("e", json!([0.5, 1e39])),
        ("e", json!([0.5, null])),
        ("e", json!("0.5,1")),
    ] {
        let refused = server.post_features("kind/1", &json!({"features": {feature: bad}})).await;
        assert_eq!(refused.violations(), expected(&[(feature, "wrong_type")]), "{feature} {bad}");
    }
    assert_eq!(server.read("kind/1", "names=i").await["version"], version, "nothing was stored");
}

async fn values_at_the_bounds_fit(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "n": {"type": "int64", "minimum": -5, "maximum": 5},
        "f": {"type": "float64", "minimum": 0.5, "maximum": 1.5},
        "size": {"type": "int64", "enum": [1, 2, 3]},
        "text": {"type": "string", "min_length": 2, "max_length": 3},
        "mail": {"type": "string", "pattern": "@"}}});
    server.declare("product", schema).await;
    for good in [
        json!({"n": -5}),
        json!({"n": 5}),
        json!({"f": 0.5}),
        json!({"f": 1.5}),
        json!({"size": 2}),
        json!({"text": "éé"}),
        json!({"text": "😀😀😀"}),
        json!({"mail": "a@b"}),
    ] {
        server.write("product/1", good).await;
    }
    for (bad, feature, code) in [
        (json!({"n": -6}), "n", "below_minimum"),
        (json!({"n": 6}), "n", "above_maximum"),
        (json!({"f": 0.499}), "f", "below_minimum"),
        (json!({"f": 1.501}), "f", "above_maximum"),
        (json!({"size": 4}), "size", "not_in_enum"),
        (json!({"text": "é"}), "text", "too_short"),
        (json!({"text": "abcd"}), "text", "too_long"),
        (json!({"mail": "ab"}), "mail", "pattern_mismatch"),
    ] {
        let refused = server.post_features("product/1", &json!({ "features": bad })).await;
        assert_eq!(refused.violations(), expected(&[(feature, code)]), "{bad}");
    }
}

async fn a_required_feature_must_be_there(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "category": {"type": "string", "required": true}, "price": {"type": "float64"}}});
    server.declare("product", schema).await;
    let refused = server.post_features("product/1", &json!({"features": {"price": 1.5}})).await;
    assert_eq!(refused.violations(), expected(&[("category", "required_missing")]));
    server.get_features("product/1", "").await.problem(404, "entity_not_found");
    server.write("product/1", json!({"category": "toys", "price": 1.5})).await;
    assert_eq!(server.write("product/1", json!({"price": 2.5})).await["version"], 2, "it has it already");
    for history in [false, true] {
        let path = format!("/v1/entities/product/1/features?names=category&history={history}");
        let refused = server.delete(&path).await;
        assert_eq!(refused.violations(), expected(&[("category", "required_missing")]));
    }
    assert_eq!(server.read("product/1", "").await["features"], json!({"category": "toys", "price": 2.5}));
    server.delete("/v1/entities/product/1").await.no_content();
    let refused = server.post_features("product/1", &json!({"features": {"price": 1.5}})).await;
    assert_eq!(refused.violations(), expected(&[("category", "required_missing")]), "deleted with the rest");
}

async fn null_is_a_value_where_it_may_be(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "may": {"type": "string"}, "may_not": {"type": "string", "nullable": false}}});
    server.declare("product", schema).await;
    server.write("product/1", json!({"may": null, "may_not": "x"})).await;
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"], json!({"may": null, "may_not": "x"}));
    assert_eq!(read["statuses"], json!({"may": "null"}));
    let refused = server.post_features("product/1", &json!({"features": {"may_not": null}})).await;
    assert_eq!(refused.violations(), expected(&[("may_not", "not_nullable")]));
}

async fn a_default_stands_in(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "stock": {"type": "int64", "default": 0},
        "label": {"type": "string", "default": "none", "ttl": "1m"},
        "other": {"type": "string"}}});
    server.declare("product", schema).await;
    server.write("product/1", json!({"other": "x"})).await;
    let read = server.read("product/1", "include=metadata").await;
    assert_eq!(read["features"], json!({"stock": 0, "label": "none", "other": "x"}));
    assert_eq!(read["statuses"], json!({"stock": "defaulted", "label": "defaulted"}));
    assert_eq!(read["metadata"].as_object().map(serde_json::Map::len), Some(1), "{read}");
    server.write("product/1", json!({"stock": null, "label": "new"})).await;
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"], json!({"stock": null, "label": "new", "other": "x"}), "null was meant");
    assert_eq!(read["statuses"], json!({"stock": "null"}));
    server.advance(60);
    let read = server.read("product/1", "names=label").await;
    assert_eq!(
        (&read["features"]["label"], &read["statuses"]["label"]),
        (&json!("none"), &json!("defaulted"))
    );
}
