//! Entity types: put, compare, conflict, delete.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{expected, names, violations};
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    a_schema_is_served_as_it_was_put,
    a_change_is_a_schema_version,
    a_dry_run_says_what_would_change,
    what_is_stored_must_stay_readable,
    a_schema_that_contradicts_itself_is_refused,
    a_schema_may_be_yaml,
    an_entity_type_goes_when_it_is_empty,
    a_cascade_takes_the_entities_with_it,
    what_a_feature_service_reads_stays,
    types_are_listed_by_name,
];

const PRODUCT: &str = "/v1/entity-types/product";

fn product() -> Value {
    json!({
        "description": "What the shop sells", "owner": "catalogue-team", "tags": {"domain": "commerce"},
        "schema_mode": "strict", "ttl": "30d", "max_versions": 5,
        "features": {
            "price": {"type": "float64", "minimum": 0, "unit": "EUR", "description": "Gross", "max_age": "1d"},
            "category": {"type": "string", "enum": ["smartphones", "laptops"], "required": true},
            "vector": {"type": "embedding", "dimension": 4, "ttl": "1d"}}})
}

async fn put(server: &TestServer, schema: &Value) -> Value {
    server.put(PRODUCT, schema).await.ok()
}

async fn a_schema_is_served_as_it_was_put(on: On) {
    let server = on.server().await;
    let created = server.declare("product", product()).await;
    assert_eq!(created["created"], true);
    assert_eq!((&created["schema_version"], &created["dry_run"]), (&json!(1), &json!(false)));
    let mut added: Vec<&str> =
        created["changes"]["added"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    added.sort_unstable();
    assert_eq!(added, ["category", "price", "vector"]);
    let mut served = server.get(PRODUCT).await.ok();
    assert_eq!(served, created["entity_type"]);
    for (member, value) in [
        ("entity_type", json!("product")),
        ("schema_version", json!(1)),
        ("created_at", json!(server.time(0))),
        ("updated_at", json!(server.time(0))),
    ] {
        assert_eq!(served.as_object_mut().expect("an object").remove(member), Some(value), "{member}");
    }
    assert_eq!(served, product());
    server.get("/v1/entity-types/nothing").await.problem(404, "unknown_entity_type");
}

async fn a_change_is_a_schema_version(on: On) {
    let server = on.server().await;
    server.declare("product", product()).await;
    server.advance(10);
    let revision = server.registry_revision().await;
    let same = put(&server, &product()).await;
    assert_eq!((&same["schema_version"], &same["created"]), (&json!(1), &json!(false)));
    assert_eq!(server.registry_revision().await, revision, "putting the same changes nothing");
    let mut changed = product();
    changed["features"]["stock"] = json!({"type": "int64"});
    changed["features"]["price"]["minimum"] = json!(1);
    changed["features"].as_object_mut().expect("features").remove("vector");
    changed["owner"] = json!("other-team");
    let answer = put(&server, &changed).await;
    assert_eq!(answer["schema_version"], 2);
    assert_eq!(
        answer["changes"],
        json!({"added": ["stock"], "removed": ["vector"], "changed": ["price"], "settings": ["owner"]})
    );
    let served = server.get(PRODUCT).await.ok();
    assert_eq!(
        json!([served["created_at"], served["updated_at"]]),
        json!([server.time(-10), server.time(0)])
    );
    let versions = server.get(&format!("{PRODUCT}/schema-versions")).await.ok();
    let versions = versions["schema_versions"].as_array().expect("a list").clone();
    let numbers: Vec<&Value> = versions.iter().map(|version| &version["schema_version"]).collect();
    assert_eq!(numbers, [&json!(1), &json!(2)]);
    assert_eq!(versions[0]["features"], product()["features"]);
    assert_eq!(versions[1]["features"], changed["features"]);
    let body = json!({"features": {"category": "laptops", "price": 0.5}});
    let refused = server.post_features("product/1", &body).await;
    assert_eq!(refused.violations(), expected(&[("price", "below_minimum")]), "the change holds at once");
    server.get("/v1/entity-types/nothing/schema-versions").await.problem(404, "unknown_entity_type");
}

async fn a_dry_run_says_what_would_change(on: On) {
    let server = on.server().await;
    let dry = format!("{PRODUCT}?dry_run=true");
    let new = server.put(&dry, &product()).await.ok();
    assert_eq!(json!([new["created"], new["dry_run"], new["schema_version"]]), json!([true, true, 1]));
    server.get(PRODUCT).await.problem(404, "unknown_entity_type");
    server.declare("product", product()).await;
    let revision = server.registry_revision().await;
    let mut changed = product();
    changed["ttl"] = json!("1h");
    changed["features"]["stock"] = json!({"type": "int64"});
    let answer = server.put(&dry, &changed).await.ok();
    assert_eq!(answer["schema_version"], 2);
    assert_eq!(
        answer["changes"],
        json!({"added": ["stock"], "removed": [], "changed": [], "settings": ["ttl"]})
    );
    changed["features"]["price"] = json!({"type": "string"});
    server.put(&dry, &changed).await.problem(409, "schema_conflict");
    assert_eq!(server.get(PRODUCT).await.ok()["schema_version"], 1);
    assert_eq!(server.registry_revision().await, revision);
}

async fn what_is_stored_must_stay_readable(on: On) {
    let server = on.server().await;
    let mut schema = product();
    schema["features"]["stock"] = json!({"type": "int64"});
    server.declare("product", schema.clone()).await;
    server.write("product/1", json!({"category": "laptops", "stock": 3, "vector": [1, 2, 3, 4]})).await;
    let mut conflicting = schema.clone();
    conflicting["features"]["price"] = json!({"type": "string"});
    conflicting["features"]["vector"]["dimension"] = json!(8);
    let problem = server.put(PRODUCT, &conflicting).await.problem(409, "schema_conflict");
    assert_eq!(
        violations(&problem["errors"]),
        expected(&[("price", "type_conflict"), ("vector", "type_conflict")]),
        "every conflict is listed"
    );
    assert_eq!(server.get(PRODUCT).await.ok()["schema_version"], 1);
    schema["features"]["stock"] = json!({"type": "float64"});
    assert_eq!(put(&server, &schema).await["changes"]["changed"], json!(["stock"]));
    assert_eq!(server.read("product/1", "names=stock").await["features"]["stock"], json!(3.0));
}

async fn a_schema_that_contradicts_itself_is_refused(on: On) {
    let server = on.server().await;
    for (feature, member) in [
        (json!({"type": "embedding"}), "dimension"),
        (json!({"type": "embedding", "dimension": 0}), "dimension"),
        (json!({"type": "embedding", "dimension": 65_537}), "dimension"),
        (json!({"type": "float64", "dimension": 3}), "dimension"),
        (json!({"type": "string", "minimum": 3}), "minimum"),
        (json!({"type": "float64", "minimum": 3, "maximum": 2}), "minimum"),
        (json!({"type": "int64", "pattern": "a"}), "pattern"),
        (json!({"type": "string", "pattern": "("}), "pattern"),
        (json!({"type": "string", "min_length": 3, "max_length": 2}), "min_length"),
        (json!({"type": "string", "enum": []}), "enum"),
        (json!({"type": "string", "enum": ["a", 1]}), "enum/1"),
        (json!({"type": "int64", "default": "many"}), "default"),
        (json!({"type": "int64", "minimum": 1, "default": 0}), "default"),
        (json!({"type": "int64", "max_versions": 0}), "max_versions"),
    ] {
        let answer = server.put(PRODUCT, &json!({"features": {"f": feature}})).await;
        let place = format!("/features/f/{member}");
        assert_eq!(answer.violations(), expected(&[(place.as_str(), "invalid_schema")]), "{feature}");
    }
    let all = json!({"max_versions": 0, "features": {"a": {"type": "embedding"}, "b": {"type": "string", "minimum": 1}}});
    assert_eq!(
        server.put(PRODUCT, &all).await.violations(),
        expected(&[
            ("/max_versions", "invalid_schema"),
            ("/features/a/dimension", "invalid_schema"),
            ("/features/b/minimum", "invalid_schema"),
        ])
    );
    server.get(PRODUCT).await.problem(404, "unknown_entity_type");
}

async fn a_schema_may_be_yaml(on: On) {
    let server = on.server().await;
    let yaml = "description: What the shop sells\nttl: 30d\nfeatures:\n  price:\n    type: float64\n    \
                minimum: 0.5\n  vector: {type: embedding, dimension: 4, ttl: 3600}\n  \
                stock: {type: int64, default: 3, enum: [1, 2, 3]}\n";
    let send = async |content_type: &str, body: &str| {
        let request = server.request(Method::PUT, PRODUCT).header("content-type", content_type);
        server.send(request.body(body.to_owned())).await
    };
    let created = send("application/yaml", yaml).await.status(201);
    assert_eq!(names(&created["entity_type"]["features"]), ["price", "stock", "vector"]);
    assert_eq!(created["entity_type"]["features"]["vector"]["ttl"], "1h");
    assert_eq!(created["entity_type"]["features"]["stock"]["enum"], json!([1, 2, 3]));
    let refused = server.post_features("product/1", &json!({"features": {"price": 0.25}})).await;
    assert_eq!(refused.violations(), expected(&[("price", "below_minimum")]));
    server.write("product/1", json!({"price": 0.5})).await;
    assert_eq!(server.read("product/1", "names=stock").await["features"]["stock"], 3);
    let served = server.get(PRODUCT).await.ok();
    let json = json!({"description": served["description"], "ttl": "30d", "features": served["features"]});
    assert_eq!(put(&server, &json).await["schema_version"], 1, "the same document as JSON changes nothing");
    send("text/yaml", "features: {price: {type: string}}").await.problem(409, "schema_conflict");
    for bad in ["features: [", "a: b", "[]", "features: {price: {type: decimal}}", "&a [*a]", "- 1", ""] {
        assert!([400, 422].contains(&send("application/yaml", bad).await.status), "{bad:?}");
    }
    send("text/plain", yaml).await.problem(415, "invalid_request");
}

async fn an_entity_type_goes_when_it_is_empty(on: On) {
    let server = on.server().await;
    server.write("product/1", json!({"n": 1})).await;
    server.delete(PRODUCT).await.problem(409, "schema_conflict");
    assert_eq!(server.read("product/1", "").await["features"]["n"], 1);
    server.delete("/v1/entities/product/1").await.no_content();
    server.delete(PRODUCT).await.no_content();
    server.delete(PRODUCT).await.problem(404, "unknown_entity_type");
    server.get_features("product/1", "").await.problem(404, "unknown_entity_type");
    server.get(&format!("{PRODUCT}/schema-versions")).await.problem(404, "unknown_entity_type");
    // The name is free again, for another schema.
    server.write("product/1", json!({"n": "text"})).await;
    assert_eq!(server.get(PRODUCT).await.ok()["schema_version"], 1);
    let versions = server.get(&format!("{PRODUCT}/schema-versions")).await.ok();
    assert_eq!(versions["schema_versions"].as_array().map(Vec::len), Some(1));
}

async fn a_cascade_takes_the_entities_with_it(on: On) {
    let server = on.server().await;
    let rows: Vec<Value> =
        (0..150).map(|id| json!({"entity_id": id.to_string(), "features": {"n": 1}})).collect();
    server.post("/v1/features/write", &json!({"entity_type": "product", "rows": rows})).await.ok();
    server.write("user/1", json!({"n": 1})).await;
    server.delete(&format!("{PRODUCT}?cascade=true")).await.no_content();
    server.get(PRODUCT).await.problem(404, "unknown_entity_type");
    server.write("product/new", json!({"m": 1})).await;
    assert_eq!(server.get("/v1/entities/product").await.ok()["entity_ids"], json!(["new"]));
    server.get_features("product/7", "").await.problem(404, "entity_not_found");
    assert_eq!(server.read("user/1", "").await["features"]["n"], 1);
}

async fn what_a_feature_service_reads_stays(on: On) {
    let server = on.server().await;
    server.declare("product", product()).await;
    let service = "/v1/feature-services/ranking";
    server.put(service, &json!({"features": ["product.price"]})).await.status(201);
    for path in [PRODUCT.to_owned(), format!("{PRODUCT}?cascade=true")] {
        let problem = server.delete(&path).await.problem(409, "schema_conflict");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("ranking@1")), "{problem}");
    }
    let mut without = product();
    without["features"].as_object_mut().expect("features").remove("price");
    let problem = server.put(PRODUCT, &without).await.problem(409, "schema_conflict");
    assert!(
        problem["errors"][0]["message"].as_str().is_some_and(|text| text.contains("ranking@1")),
        "{problem}"
    );
    server.delete(service).await.no_content();
    put(&server, &without).await;
    server.delete(PRODUCT).await.no_content();
}

async fn types_are_listed_by_name(on: On) {
    let server = on.server().await;
    assert_eq!(server.get("/v1/entity-types").await.ok(), json!({"entity_types": []}));
    for name in ["user", "product", "_hidden"] {
        server.declare(name, json!({"features": {}})).await;
    }
    let listed = server.get("/v1/entity-types").await.ok();
    let listed: Vec<&Value> =
        listed["entity_types"].as_array().expect("a list").iter().map(|t| &t["entity_type"]).collect();
    assert_eq!(listed, [&json!("_hidden"), &json!("product"), &json!("user")]);
}
