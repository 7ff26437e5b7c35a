//! Writing many entities in one call.

use serde_json::{Value, json};

use crate::client::{Answer, expected, violations};
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    each_row_stands_alone,
    atomic_checks_all_rows_first,
    atomic_looks_at_required_features_too,
    an_entity_may_come_twice,
    rows_register_features_together,
    every_row_may_be_wrong,
    ttl_and_provenance_are_of_the_batch_or_the_row,
    no_rows_are_no_error,
];

async fn priced(on: On) -> TestServer {
    let server = on.server().await;
    let schema = json!({"schema_mode": "strict", "features": {
        "price": {"type": "float64", "minimum": 0}, "name": {"type": "string"}}});
    server.declare("product", schema).await;
    server
}

async fn write(server: &TestServer, atomic: bool, rows: Value) -> Answer {
    let body = json!({"entity_type": "product", "atomic": atomic, "rows": rows});
    server.post("/v1/features/write", &body).await
}

async fn each_row_stands_alone(on: On) {
    let server = priced(on).await;
    let rows = json!([
        {"entity_id": "1", "features": {"price": 1.5}},
        {"entity_id": "2", "features": {"price": -1, "colour": "red"}},
        {"entity_id": "3", "features": {"price": 3.5, "name": "three"}, "event_timestamp": server.time(-60)},
        {"entity_id": "4", "features": {}},
        {"entity_id": "5", "features": {"price": 5.5}, "event_timestamp": server.time(3600)},
    ]);
    let answer = write(&server, false, rows).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(2), &json!(3)));
    let results = &answer["results"];
    assert_eq!(results[0], json!({"entity_id": "1", "version": 1, "outcomes": {"price": "applied"}}));
    assert_eq!(results[2]["outcomes"], json!({"price": "applied", "name": "applied"}));
    for (row, id, errors) in [
        (1, "2", expected(&[("price", "below_minimum"), ("colour", "unknown_feature")])),
        (3, "4", expected(&[("/features", "invalid_value")])),
        (4, "5", expected(&[("/event_timestamp", "event_in_future")])),
    ] {
        assert_eq!(results[row]["entity_id"], id);
        assert!(results[row].get("version").is_none(), "{results}");
        assert_eq!(results[row]["error"]["code"], "validation_failed");
        assert_eq!(violations(&results[row]["error"]["errors"]), errors);
        server.get_features(&format!("product/{id}"), "").await.problem(404, "entity_not_found");
    }
    assert_eq!(server.read("product/3", "").await["features"], json!({"price": 3.5, "name": "three"}));
}

async fn atomic_checks_all_rows_first(on: On) {
    let server = priced(on).await;
    let rows = json!([
        {"entity_id": "1", "features": {"price": 1.5}},
        {"entity_id": "2", "features": {"price": -1}},
        {"entity_id": "3", "features": {"price": 3.5}},
        {"entity_id": "4", "features": {"colour": "red"}},
    ]);
    let problem = write(&server, true, rows.clone()).await.problem(422, "validation_failed");
    let errors: Vec<(Value, Value)> = problem["errors"]
        .as_array()
        .expect("a list of errors")
        .iter()
        .map(|error| (error["row"].clone(), error["code"].clone()))
        .collect();
    assert_eq!(errors, [(json!(1), json!("below_minimum")), (json!(3), json!("unknown_feature"))]);
    for id in 1..=4 {
        server.get_features(&format!("product/{id}"), "").await.problem(404, "entity_not_found");
    }
    let good = json!([rows[0], rows[2]]);
    assert_eq!(write(&server, true, good).await.ok()["written"], 2);
    assert_eq!(server.read("product/3", "").await["features"]["price"], json!(3.5));
}

async fn atomic_looks_at_required_features_too(on: On) {
    let server = on.server().await;
    let schema = json!({"features": {
        "category": {"type": "string", "required": true}, "price": {"type": "float64"}}});
    server.declare("product", schema).await;
    server.write("product/2", json!({"category": "toys"})).await;
    let rows = json!([
        {"entity_id": "1", "features": {"category": "toys", "price": 1.5}},
        {"entity_id": "2", "features": {"price": 2.5}},
        {"entity_id": "3", "features": {"price": 3.5}},
    ]);
    let problem = write(&server, true, rows.clone()).await.problem(422, "validation_failed");
    assert_eq!(violations(&problem["errors"]), expected(&[("category", "required_missing")]));
    assert_eq!(problem["errors"][0]["row"], 2);
    server.get_features("product/1", "").await.problem(404, "entity_not_found");
    let answer = write(&server, false, rows).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(answer["results"][1]["version"], 2);
    assert_eq!(answer["results"][2]["error"]["errors"][0]["code"], "required_missing");
}

async fn an_entity_may_come_twice(on: On) {
    let server = priced(on).await;
    let rows = json!([
        {"entity_id": "1", "features": {"price": 1.5}, "event_timestamp": server.time(-60)},
        {"entity_id": "2", "features": {"price": 2.5}},
        {"entity_id": "1", "features": {"price": 1.75}, "event_timestamp": server.time(-30)},
        {"entity_id": "1", "features": {"price": -1}},
        {"entity_id": "1", "features": {"price": 1.25}, "event_timestamp": server.time(-90)},
        {"entity_id": "1", "features": {"price": 1.75}, "event_timestamp": server.time(-30)},
    ]);
    let results = write(&server, false, rows).await.ok()["results"].clone();
    let shown: Vec<(Value, Value)> = results
        .as_array()
        .expect("a list of results")
        .iter()
        .map(|result| (result["version"].clone(), result["outcomes"]["price"].clone()))
        .collect();
    assert_eq!(
        shown,
        [
            (json!(1), json!("applied")),
            (json!(1), json!("applied")),
            (json!(2), json!("applied")),
            (json!(null), json!(null)),
            (json!(3), json!("late")),
            (json!(3), json!("unchanged")),
        ]
    );
    let read = server.read("product/1", "names=price").await;
    assert_eq!((&read["version"], &read["features"]["price"]), (&json!(3), &json!(1.75)));
    let versions = server.get("/v1/entities/product/1/versions").await.ok();
    assert_eq!(versions["versions"].as_array().map(Vec::len), Some(3));
}

async fn rows_register_features_together(on: On) {
    let server = on.server().await;
    let rows = json!([
        {"entity_id": "1", "features": {"n": 3}},
        {"entity_id": "2", "features": {"n": 3.5, "tag": "x"}},
        {"entity_id": "3", "features": {"tag": 1}},
    ]);
    let answer = write(&server, false, rows).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(answer["results"][2]["error"]["errors"][0]["code"], "wrong_type");
    let schema = server.get("/v1/entity-types/product").await.ok();
    assert_eq!(schema["features"]["n"]["type"], "float64");
    assert_eq!(schema["features"]["tag"]["type"], "string");
    assert_eq!(schema["schema_version"], 1, "one change for the whole batch");
    assert_eq!(server.read("product/1", "names=n").await["features"]["n"], json!(3.0));
}

async fn every_row_may_be_wrong(on: On) {
    let server = on.server().await;
    let rows = json!([
        {"entity_id": "1", "features": {"n": null}},
        {"entity_id": "2", "features": {"not a name": 1}},
    ]);
    let answer = write(&server, false, rows.clone()).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(0), &json!(2)));
    assert_eq!(answer["results"][0]["error"]["errors"][0]["code"], "unknown_feature");
    assert_eq!(answer["results"][1]["error"]["errors"][0]["code"], "invalid_name");
    write(&server, true, rows).await.problem(422, "validation_failed");
    server.get("/v1/entity-types/product").await.problem(404, "unknown_entity_type");
}

async fn ttl_and_provenance_are_of_the_batch_or_the_row(on: On) {
    let server = priced(on).await;
    let body = json!({
    "entity_type": "product", "ttl": "1m", "source": "s", "run_id": "r", "metadata": {"k": "v"},
    "rows": [
        {"entity_id": "1", "features": {"price": 1.5}},
        {"entity_id": "2", "features": {"price": 2.5}, "ttl": "2m"},
    ]});
    server.post("/v1/features/write", &body).await.ok();
    for (id, expires) in [("1", 60), ("2", 120)] {
        let read = server.read(&format!("product/{id}"), "include=metadata").await;
        let price = &read["metadata"]["price"];
        assert_eq!(price["expires_at"], server.time(expires));
        assert_eq!((&price["source"], &price["run_id"]), (&json!("s"), &json!("r")));
        let lineage = server.get(&format!("/v1/entities/product/{id}/features/price/lineage")).await.ok();
        assert_eq!(lineage["current"]["provenance"]["metadata"], json!({"k": "v"}));
    }
}

async fn no_rows_are_no_error(on: On) {
    let server = priced(on).await;
    let answer = write(&server, true, json!([])).await.ok();
    assert_eq!(answer, json!({"written": 0, "rejected": 0, "results": []}));
}
