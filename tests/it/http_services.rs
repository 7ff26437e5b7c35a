//! Feature services: versions that never change.

use serde_json::{Value, json};

use crate::client::{expected, violations};
use crate::test_server::On;

crate::on_both_stores![
    another_list_is_another_version,
    what_a_service_reads_must_exist,
    services_are_listed_and_deleted,
];

const RANKING: &str = "/v1/feature-services/ranking";

async fn another_list_is_another_version(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5, "name": "a"})).await;
    let first =
        json!({"features": ["product.price"], "owner": "search", "description": "d", "tags": {"a": "b"}});
    let created = server.put(RANKING, &first).await.status(201);
    assert_eq!(
        created,
        json!({"name": "ranking", "version": 1, "created_at": server.time(0), "features": ["product.price"],
               "owner": "search", "description": "d", "tags": {"a": "b"}})
    );
    assert_eq!(server.put(RANKING, &first).await.ok(), created, "the same is no new version");
    let second = json!({"features": ["product.name", "product.price"]});
    assert_eq!(server.put(RANKING, &second).await.ok()["version"], 2);
    let turned = json!({"features": ["product.price", "product.name"]});
    assert_eq!(server.put(RANKING, &turned).await.ok()["version"], 3, "the order matters");
    let latest = server.get(RANKING).await.ok();
    assert_eq!(json!([latest["name"], latest["version"]]), json!(["ranking", 3]));
    assert_eq!(latest["current"]["features"], turned["features"]);
    let versions: Vec<&Value> =
        latest["versions"].as_array().expect("a list").iter().map(|version| &version["features"]).collect();
    assert_eq!(versions, [&first["features"], &second["features"], &turned["features"]]);
    let old = server.get(&format!("{RANKING}@1")).await.ok();
    assert_eq!(json!([old["version"], old["current"]["owner"]]), json!([1, "search"]));
    server.get(&format!("{RANKING}@4")).await.problem(404, "invalid_request");
    for bad in ["ranking@0", "ranking@x", "@1", "ranking@", "9", "a%20b"] {
        server.get(&format!("/v1/feature-services/{bad}")).await.problem(400, "invalid_request");
    }
}

async fn what_a_service_reads_must_exist(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5})).await;
    let put = async |features: Value| server.put(RANKING, &json!({ "features": features })).await;
    let unknown = put(json!(["product.price", "product.prise", "user.age"])).await;
    let problem = unknown.problem(400, "unknown_feature");
    assert_eq!(
        violations(&problem["errors"]),
        expected(&[("/features/1", "unknown_feature"), ("/features/2", "unknown_feature")])
    );
    let twice = put(json!(["product.price", "product.price"])).await;
    assert_eq!(twice.violations(), expected(&[("/features/1", "duplicate_feature")]));
    assert_eq!(put(json!([])).await.violations(), expected(&[("/features", "invalid_value")]));
    put(json!(["price"])).await.problem(400, "invalid_request");
    put(json!("product.price")).await.problem(400, "invalid_request");
    server.get(RANKING).await.problem(404, "invalid_request");
    server
        .put("/v1/feature-services/ranking@1", &json!({"features": ["product.price"]}))
        .await
        .problem(400, "invalid_request");
}

async fn services_are_listed_and_deleted(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"price": 1.5})).await;
    for name in ["zeta", "alpha-2", "middle"] {
        let path = format!("/v1/feature-services/{name}");
        server.put(&path, &json!({"features": ["product.price"]})).await.status(201);
    }
    let names = async || {
        let listed = server.get("/v1/feature-services").await.ok();
        let listed = listed["feature_services"].as_array().expect("a list").clone();
        listed.into_iter().map(|service| service["name"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(names().await, ["alpha-2", "middle", "zeta"]);
    server.delete("/v1/feature-services/middle").await.no_content();
    assert_eq!(names().await, ["alpha-2", "zeta"]);
    server.delete("/v1/feature-services/middle").await.problem(404, "invalid_request");
    server.get("/v1/feature-services/middle").await.problem(404, "invalid_request");
    let path = "/v1/feature-services/middle";
    let anew = server.put(path, &json!({"features": ["product.price"]})).await.status(201);
    assert_eq!(anew["version"], 1);
}
