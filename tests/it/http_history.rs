//! Looking back: versions, differences, lineage.

use serde_json::{Value, json};

use crate::test_server::{On, TestServer};

crate::on_both_stores![
    versions_tell_what_each_wrote,
    versions_come_in_pages,
    one_version_is_the_entity_as_it_stood,
    a_diff_says_added_removed_changed,
    lineage_tells_every_value_and_who_wrote_it,
    lineage_tells_who_reads_a_feature,
];

/// A product of four versions: the third late, the fourth a deletion.
async fn product(on: On) -> TestServer {
    let server = on.server().await;
    for (at, run, features) in [
        (-300, "one", json!({"price": 1.5, "name": "a"})),
        (-100, "two", json!({"price": 2.5, "stock": 5})),
        (-200, "three", json!({"price": 1.75})),
    ] {
        let body = json!({"features": features, "event_timestamp": server.time(at), "source": "test", "run_id": run});
        server.post_features("product/1", &body).await.ok();
    }
    let deleted = server.delete("/v1/entities/product/1/features?names=name").await.ok();
    assert_eq!((&deleted["version"], &deleted["outcomes"]), (&json!(4), &json!({"name": "applied"})));
    server
}

async fn versions_tell_what_each_wrote(on: On) {
    let server = product(on).await;
    let answer = server.get("/v1/entities/product/1/versions").await.ok();
    assert_eq!(answer["current_version"], 4);
    assert_eq!(answer["next_before"], json!(null));
    let versions = answer["versions"].as_array().expect("a list of versions");
    let shown: Vec<Value> = versions.iter().map(|v| json!([v["version"], v["features"]])).collect();
    assert_eq!(
        shown,
        [
            json!([4, {"name": null}]),
            json!([3, {"price": 1.75}]),
            json!([2, {"price": 2.5, "stock": 5}]),
            json!([1, {"price": 1.5, "name": "a"}]),
        ]
    );
    assert_eq!(versions[0]["provenance"]["kind"], "delete");
    assert_eq!(versions[1]["event_timestamps"], json!({"price": server.time(-200)}));
    assert_eq!(versions[1]["written_at"], server.time(0));
    assert_eq!(versions[3]["provenance"]["run_id"], "one");
    assert_eq!(versions[3]["provenance"]["kind"], "write");
    server.get("/v1/entities/product/2/versions").await.problem(404, "entity_not_found");
    server.get("/v1/entities/nothing/2/versions").await.problem(404, "unknown_entity_type");
}

async fn versions_come_in_pages(on: On) {
    let server = product(on).await;
    let path = "/v1/entities/product/1/versions";
    let page = server.get(&format!("{path}?limit=3")).await.ok();
    let numbers = |page: &Value| -> Vec<Value> {
        page["versions"].as_array().expect("a list").iter().map(|v| v["version"].clone()).collect()
    };
    assert_eq!(numbers(&page), [4, 3, 2]);
    let next = server.get(&format!("{path}?limit=3&before={}", page["next_before"])).await.ok();
    assert_eq!(numbers(&next), [1]);
    assert_eq!(next["next_before"], json!(null));
    let exact = server.get(&format!("{path}?limit=4")).await.ok();
    assert_eq!(exact["next_before"], json!(null), "there is no fifth");
    for query in ["limit=0", "limit=1001", "before=x", "page=1"] {
        server.get(&format!("{path}?{query}")).await.problem(400, "invalid_request");
    }
}

async fn one_version_is_the_entity_as_it_stood(on: On) {
    let server = product(on).await;
    let at = async |version: i64| server.get(&format!("/v1/entities/product/1/versions/{version}")).await;
    let second = at(2).await.ok();
    assert_eq!(second["version"], 2);
    assert_eq!(second["features"], json!({"price": 2.5, "name": "a", "stock": 5}));
    assert_eq!(second["metadata"]["price"]["run_id"], "two");
    assert_eq!(second["metadata"]["name"]["run_id"], "one");
    let third = at(3).await.ok();
    assert_eq!(third["features"]["price"], json!(2.5), "a late event is never served");
    let fourth = at(4).await.ok();
    assert_eq!(fourth["statuses"], json!({"name": "not_found"}));
    at(5).await.problem(404, "version_not_found");
    at(0).await.problem(404, "version_not_found");
    let nobody = server.get("/v1/entities/product/2/versions/1").await;
    nobody.problem(404, "entity_not_found");
}

async fn a_diff_says_added_removed_changed(on: On) {
    let server = product(on).await;
    let diff = async |from: i64, to: i64| {
        server.get(&format!("/v1/entities/product/1/diff?from={from}&to={to}")).await
    };
    assert_eq!(
        diff(1, 4).await.ok(),
        json!({"entity_type": "product", "entity_id": "1", "from": 1, "to": 4,
               "added": {"stock": 5}, "removed": {"name": "a"}, "changed": {"price": {"from": 1.5, "to": 2.5}}})
    );
    let back = diff(4, 1).await.ok();
    assert_eq!((&back["added"], &back["removed"]), (&json!({"name": "a"}), &json!({"stock": 5})));
    let same = diff(2, 3).await.ok();
    assert_eq!(json!([same["added"], same["removed"], same["changed"]]), json!([{}, {}, {}]));
    diff(1, 5).await.problem(404, "version_not_found");
    diff(0, 1).await.problem(404, "version_not_found");
    server.get("/v1/entities/product/1/diff?from=1").await.problem(400, "invalid_request");
    server.get("/v1/entities/product/2/diff?from=1&to=2").await.problem(404, "entity_not_found");
}

async fn lineage_tells_every_value_and_who_wrote_it(on: On) {
    let server = product(on).await;
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!(
        json!([lineage["entity_type"], lineage["entity_id"], lineage["feature"], lineage["type"]]),
        json!(["product", "1", "price", "float64"])
    );
    assert_eq!(lineage["schema_version"], 2);
    let current = &lineage["current"];
    assert_eq!((&current["version"], &current["value"]), (&json!(2), &json!(2.5)));
    assert_eq!(current["event_timestamp"], server.time(-100));
    assert_eq!(current["provenance"]["source"], "test");
    assert_eq!(current["provenance"]["schema_version"], 2);
    let history: Vec<Value> = lineage["history"]
        .as_array()
        .expect("a history")
        .iter()
        .map(|past| {
            json!([past["version"], past["value"], past["provenance"]["run_id"], past["event_timestamp"]])
        })
        .collect();
    assert_eq!(
        history,
        [json!([3, 1.75, "three", server.time(-200)]), json!([1, 1.5, "one", server.time(-300)])],
        "newest event first"
    );
    let deleted = server.get("/v1/entities/product/1/features/name/lineage").await.ok();
    assert_eq!(deleted["current"]["deleted"], true);
    assert_eq!(deleted["current"]["value"], json!(null));
    assert_eq!(deleted["history"][0]["value"], "a");
    server.write("product/2", json!({"price": 1.5})).await;
    let never = server.get("/v1/entities/product/2/features/stock/lineage").await.ok();
    assert_eq!((&never["current"], &never["history"]), (&json!(null), &json!([])));
    let path = |entity: &str, feature: &str| format!("/v1/entities/{entity}/features/{feature}/lineage");
    server.get(&path("product/1", "colour")).await.problem(400, "unknown_feature");
    server.get(&path("product/9", "price")).await.problem(404, "entity_not_found");
}

async fn lineage_tells_who_reads_a_feature(on: On) {
    let server = product(on).await;
    let ranking = "/v1/feature-services/ranking";
    server.put(ranking, &json!({"features": ["product.price"]})).await.status(201);
    server.put(ranking, &json!({"features": ["product.price", "product.stock"]})).await.ok();
    server.put("/v1/feature-services/other", &json!({"features": ["product.name"]})).await.status(201);
    let used_by = async |feature: &str| {
        let lineage = server.get(&format!("/v1/entities/product/1/features/{feature}/lineage")).await.ok();
        lineage["used_by"]["feature_services"].clone()
    };
    assert_eq!(used_by("price").await, json!(["ranking@1", "ranking@2"]));
    assert_eq!(used_by("stock").await, json!(["ranking@2"]));
    assert_eq!(used_by("name").await, json!(["other@1"]));
}
