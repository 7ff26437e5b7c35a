//! Deleting features and entities, and listing ids.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::test_server::On;

crate::on_both_stores![
    a_deletion_is_a_version_and_can_be_rolled_back,
    an_erasure_leaves_nothing,
    a_deletion_may_be_conditional,
    a_deleted_entity_begins_anew,
    ids_are_listed_in_pages,
    a_listing_that_cannot_be_is_refused,
    a_page_is_no_longer_than_the_server_allows,
    what_cannot_be_conditional_says_so,
];

async fn a_deletion_is_a_version_and_can_be_rolled_back(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5, "name": "a"})).await;
    let path = "/v1/entities/product/1/features?names=price";
    let deleted = server.delete(path).await.ok();
    assert_eq!((&deleted["version"], &deleted["outcomes"]), (&json!(2), &json!({"price": "applied"})));
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"], json!({"price": null, "name": "a"}));
    assert_eq!(read["statuses"], json!({"price": "not_found"}));
    let again = server.delete(path).await.ok();
    assert_eq!((&again["version"], &again["outcomes"]), (&json!(2), &json!({"price": "unchanged"})));
    server.post("/v1/entities/product/1/rollback", &json!({"to_version": 1})).await.ok();
    assert_eq!(server.read("product/1", "").await["features"], json!({"price": 1.5, "name": "a"}));
    let misspelt = server.delete("/v1/entities/product/1/features?names=prise").await;
    misspelt.problem(400, "unknown_feature");
    server.delete("/v1/entities/product/2/features?names=price").await.problem(404, "entity_not_found");
    server.delete("/v1/entities/product/1/features").await.problem(400, "invalid_request");
}

async fn an_erasure_leaves_nothing(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5, "name": "a"})).await;
    server.write("product/1", json!({"price": 2.5})).await;
    let erased = server.delete("/v1/entities/product/1/features?names=price&history=true").await.ok();
    assert_eq!(erased["outcomes"], json!({"price": "applied"}));
    assert_eq!(erased["version"], 3);
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!((&lineage["current"], &lineage["history"]), (&json!(null), &json!([])));
    let versions = server.get("/v1/entities/product/1/versions").await.ok();
    let kept: Vec<&Value> =
        versions["versions"].as_array().expect("a list").iter().map(|v| &v["features"]).collect();
    assert_eq!(kept, [&json!({"name": "a"})]);
    assert_eq!(versions["current_version"], 3);
    let read = server.read("product/1", &format!("as_of={}", server.time(0))).await;
    assert_eq!(read["features"], json!({"price": null, "name": "a"}));
    let written = server.write("product/1", json!({"price": 9.5})).await;
    assert_eq!((&written["version"], &written["outcomes"]["price"]), (&json!(4), &json!("applied")));
    // Everything erased: the entity is still there, with nothing in it but its version.
    let all = server.delete("/v1/entities/product/1/features?names=price,name&history=true").await.ok();
    assert_eq!(all["version"], 5);
    let none = server.read("product/1", "").await;
    assert_eq!(none["statuses"], json!({"price": "not_found", "name": "not_found"}));
}

async fn a_deletion_may_be_conditional(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5})).await;
    server.write("product/1", json!({"price": 2.5})).await;
    for query in ["names=price", "names=price&history=true"] {
        let path = format!("/v1/entities/product/1/features?{query}");
        let attempt = async |condition: &str| {
            server.send(server.request(Method::DELETE, &path).header("if-match", condition)).await
        };
        let current = attempt("\"1\"").await.problem(412, "version_conflict")["current_version"].clone();
        attempt(&format!("\"{current}\"")).await.ok();
    }
    assert_eq!(server.read("product/1", "").await["version"], 4);
}

async fn a_deleted_entity_begins_anew(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5})).await;
    server.write("product/1", json!({"price": 2.5, "name": "a"})).await;
    server.delete("/v1/entities/product/1").await.no_content();
    server.get_features("product/1", "").await.problem(404, "entity_not_found");
    server.get("/v1/entities/product/1/versions").await.problem(404, "entity_not_found");
    server.delete("/v1/entities/product/1").await.problem(404, "entity_not_found");
    server.delete("/v1/entities/nothing/1").await.problem(404, "unknown_entity_type");
    let listed = server.get("/v1/entities/product").await.ok();
    assert_eq!(listed["entity_ids"], json!([]));
    assert_eq!(server.write("product/1", json!({"price": 3.5})).await["version"], 1);
    let read = server.read("product/1", "").await;
    assert_eq!(read["features"], json!({"price": 3.5, "name": null}));
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!(lineage["history"], json!([]));
}

async fn ids_are_listed_in_pages(on: On) {
    let server = on.server().await;
    let ids: Vec<String> = (0..300).map(|n| format!("id {n}/é")).collect();
    let rows: Vec<Value> = ids.iter().map(|id| json!({"entity_id": id, "features": {"n": 1}})).collect();
    let body = json!({"entity_type": "product", "rows": rows});
    assert_eq!(server.post("/v1/features/write", &body).await.ok()["written"], 300);
    server.write("user/1", json!({"n": 1})).await;
    let mut seen = BTreeSet::new();
    let mut path = "/v1/entities/product?limit=70".to_owned();
    for page in 1.. {
        assert!(page <= 300, "the walk has an end");
        let answer = server.get(&path).await.ok();
        assert_eq!(answer["entity_type"], "product");
        let listed = answer["entity_ids"].as_array().expect("a list of ids");
        seen.extend(listed.iter().map(|id| id.as_str().expect("an id").to_owned()));
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        assert!(!listed.is_empty() && listed.len() >= 70, "a page is full unless it is the last");
        let cursor: String = cursor.bytes().map(|byte| format!("%{byte:02X}")).collect();
        path = format!("/v1/entities/product?limit=70&cursor={cursor}");
    }
    assert_eq!(seen, ids.iter().cloned().collect::<BTreeSet<_>>());
    let listed = server.get("/v1/entities/user").await.ok();
    assert_eq!(listed, json!({"entity_type": "user", "entity_ids": ["1"], "next_cursor": null}));
}

async fn a_listing_that_cannot_be_is_refused(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"n": 1})).await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "cursor=%F0%9F%98%80",
        "cursor=nonsense!",
        "offset=3",
    ] {
        server.get(&format!("/v1/entities/product?{query}")).await.problem(400, "invalid_request");
    }
    server.get("/v1/entities/nothing").await.problem(404, "unknown_entity_type");
}

async fn what_cannot_be_conditional_says_so(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"n": 1})).await;
    let delete = server.request(Method::DELETE, "/v1/entities/product/1").header("if-match", "\"99\"");
    server.send(delete).await.problem(400, "invalid_request");
    let rows = json!({"entity_type": "product", "rows": [{"entity_id": "1", "features": {"n": 2}}]});
    let write = server.request(Method::POST, "/v1/features/write").header("if-match", "\"99\"").json(&rows);
    server.send(write).await.problem(400, "invalid_request");
    assert_eq!(server.read("product/1", "").await["features"]["n"], 1);
}

async fn a_page_is_no_longer_than_the_server_allows(on: On) {
    let server = on.server_with(|config| config.max_page_size = 2).await;
    for n in 0..5 {
        server.write("product/1", json!({ "n": n })).await;
        server.write(&format!("product/{}", n + 10), json!({ "n": n })).await;
    }
    let listed = server.get("/v1/entities/product").await.ok();
    assert_eq!(listed["entity_ids"].as_array().map(Vec::len), Some(2));
    let versions = server.get("/v1/entities/product/1/versions").await.ok();
    assert_eq!(versions["versions"].as_array().map(Vec::len), Some(2));
    server.get("/v1/entities/product?limit=3").await.problem(400, "invalid_request");
}
