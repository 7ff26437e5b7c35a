//! Going back, without losing the way forward.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    back_to_a_version,
    back_to_a_time,
    only_some_features,
    a_dry_run_changes_nothing,
    a_rollback_can_be_rolled_back,
    a_rollback_may_be_conditional,
    a_rollback_that_cannot_be_is_refused,
    what_was_rolled_back_to_is_served_anew,
];

async fn product(on: On) -> TestServer {
    let server = on.server().await;
    server.write_at("product/1", &server.time(-300), json!({"price": 1.5, "name": "a"})).await;
    server.write_at("product/1", &server.time(-200), json!({"price": 2.5, "stock": 5})).await;
    server.write_at("product/1", &server.time(-100), json!({"price": 3.5, "name": "b"})).await;
    server
}

async fn rollback(server: &TestServer, body: Value) -> Answer {
    server.post("/v1/entities/product/1/rollback", &body).await
}

async fn back_to_a_version(on: On) {
    let server = product(on).await;
    let done = rollback(&server, json!({"to_version": 1, "reason": "bad price feed"})).await;
    assert_eq!(done.header("etag"), "\"4\"");
    assert_eq!(
        done.ok(),
        json!({"entity_type": "product", "entity_id": "1", "version": 4,
               "outcomes": {"price": "applied", "name": "applied", "stock": "applied"}})
    );
    let read = server.read("product/1", "include=metadata").await;
    assert_eq!(read["features"], json!({"price": 1.5, "name": "a", "stock": null}));
    assert_eq!(read["statuses"], json!({"stock": "not_found"}), "it was not there then");
    assert_eq!(read["metadata"]["price"]["kind"], "rollback");
    assert_eq!(read["metadata"]["price"]["event_timestamp"], server.time(0));
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!(
        lineage["current"]["provenance"]["rollback"],
        json!({"to_version": 1, "reason": "bad price feed"})
    );
    let history: Vec<Value> =
        lineage["history"].as_array().expect("a history").iter().map(|past| past["value"].clone()).collect();
    assert_eq!(history, [json!(3.5), json!(2.5), json!(1.5)], "nothing was erased");
    let again = rollback(&server, json!({"to_version": 1})).await.ok();
    assert_eq!(again["version"], 4);
    assert_eq!(again["outcomes"], json!({"price": "unchanged", "name": "unchanged", "stock": "unchanged"}));
}

async fn back_to_a_time(on: On) {
    let server = product(on).await;
    let at = server.time(-150);
    rollback(&server, json!({ "to_timestamp": at })).await.ok();
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"], json!({"price": 2.5, "name": "a", "stock": 5}));
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!(lineage["current"]["provenance"]["rollback"]["to_timestamp"], at);
    rollback(&server, json!({"to_timestamp": server.time(-301)})).await.ok();
    let read = server.read("product/1", "").await;
    let gone = json!({"price": "not_found", "name": "not_found", "stock": "not_found"});
    assert_eq!(read["statuses"], gone, "before it began");
}

async fn only_some_features(on: On) {
    let server = product(on).await;
    let done = rollback(&server, json!({"to_version": 1, "features": ["price"]})).await.ok();
    assert_eq!(done["outcomes"], json!({"price": "applied"}));
    assert_eq!(
        server.read("product/1", "").await["features"],
        json!({"price": 1.5, "name": "b", "stock": 5})
    );
}

async fn a_dry_run_changes_nothing(on: On) {
    let server = product(on).await;
    let before = server.read("product/1", "include=metadata").await;
    let plan = rollback(&server, json!({"to_version": 2, "dry_run": true})).await.ok();
    assert_eq!(
        plan,
        json!({"entity_type": "product", "entity_id": "1", "version": 3, "dry_run": true,
               "changes": {"price": {"from": 3.5, "to": 2.5}, "name": {"from": "b", "to": "a"}}})
    );
    let plan = rollback(&server, json!({"to_version": 1, "dry_run": true, "features": ["stock"]})).await.ok();
    assert_eq!(plan["changes"], json!({"stock": {"from": 5, "to": null}}));
    assert_eq!(server.read("product/1", "include=metadata").await, before);
}

async fn a_rollback_can_be_rolled_back(on: On) {
    let server = product(on).await;
    rollback(&server, json!({"to_version": 1})).await.ok();
    let forward = rollback(&server, json!({"to_version": 3})).await.ok();
    assert_eq!(forward["version"], 5);
    assert_eq!(
        server.read("product/1", "").await["features"],
        json!({"price": 3.5, "name": "b", "stock": 5})
    );
    rollback(&server, json!({"to_version": 4})).await.ok();
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"], json!({"price": 1.5, "name": "a", "stock": null}));
    // A write that comes after is newer than all of that.
    assert_eq!(server.write("product/1", json!({"price": 9.5})).await["outcomes"]["price"], "applied");
}

async fn a_rollback_may_be_conditional(on: On) {
    let server = product(on).await;
    let attempt = async |condition: &str| {
        let request = server.request(Method::POST, "/v1/entities/product/1/rollback");
        server.send(request.header("if-match", condition).json(&json!({"to_version": 1}))).await
    };
    assert_eq!(attempt("\"2\"").await.problem(412, "version_conflict")["current_version"], 3);
    assert_eq!(server.read("product/1", "names=price").await["features"]["price"], json!(3.5));
    assert_eq!(attempt("\"3\"").await.ok()["version"], 4);
}

async fn a_rollback_that_cannot_be_is_refused(on: On) {
    let server = product(on).await;
    let before = server.read("product/1", "").await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!({"to_version": 1, "to_timestamp": server.time(-10)}), 400, "invalid_request"),
        (json!({"to_version": 0}), 404, "version_not_found"),
        (json!({"to_version": 4}), 404, "version_not_found"),
        (json!({"to_version": 1, "features": ["colour"]}), 400, "unknown_feature"),
        (json!({"to_version": 1, "features": []}), 400, "invalid_request"),
        (json!({"to_version": 1, "reason": "x".repeat(1025)}), 400, "invalid_request"),
    ] {
        rollback(&server, body).await.problem(status, code);
    }
    let nobody = server.post("/v1/entities/product/2/rollback", &json!({"to_version": 1})).await;
    nobody.problem(404, "entity_not_found");
    assert_eq!(server.read("product/1", "").await, before);
    for value in 0..12 {
        server.write("product/1", json!({ "price": value })).await;
    }
    rollback(&server, json!({"to_version": 1})).await.problem(404, "version_not_found");
    rollback(&server, json!({"to_version": 1, "features": ["name"]})).await.ok();
}

async fn what_was_rolled_back_to_is_served_anew(on: On) {
    let server = product(on).await;
    server.advance(3600);
    let expired = json!({"price": "expired", "name": "expired", "stock": "expired"});
    assert_eq!(server.statuses("product/1", "").await, expired);
    rollback(&server, json!({"to_version": 2})).await.ok();
    assert_eq!(server.statuses("product/1", "").await, json!({}));
    server.advance(3600);
    assert_eq!(server.statuses("product/1", "").await, expired, "kept as long as a write of then");
}
