//! Reading: one entity, many of several types, in rows and in columns.

use serde_json::{Value, json};

use crate::client::{names, violations};
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    every_feature_asked_for_is_answered_in_order,
    what_is_not_there_is_said,
    rows_come_in_the_order_asked_for,
    columns_are_one_array_a_feature,
    metadata_stands_beside_values,
    a_batch_must_be_consistent,
    a_feature_service_names_the_features,
];

/// Two products and a user.
async fn shop(on: On) -> TestServer {
    let server = on.server().await;
    let product = json!({"features": {
        "name": {"type": "string"}, "price": {"type": "float64"}, "stock": {"type": "int64", "ttl": "1m"}}});
    server.declare("product", product).await;
    server.declare("user", json!({"features": {"age": {"type": "int64"}, "city": {"type": "string"}}})).await;
    server.write("product/1", json!({"name": "one", "price": 1.5, "stock": 10})).await;
    server.write("product/2", json!({"name": "two", "price": 2.5})).await;
    server.write("product/2", json!({"price": 2.25})).await;
    server.write("user/7", json!({"age": 41})).await;
    server
}

async fn every_feature_asked_for_is_answered_in_order(on: On) {
    let server = shop(on).await;
    let answer = server.get_features("product/1", "names=stock,name,%20price").await;
    let text = answer.text();
    let place = |name: &str| text.find(&format!("\"{name}\":")).expect("the feature is answered");
    assert!(place("stock") < place("name") && place("name") < place("price"), "{text}");
    assert_eq!(answer.header("etag"), "\"1\"");
    assert_eq!(
        answer.ok(),
        json!({"entity_type": "product", "entity_id": "1", "version": 1,
               "features": {"stock": 10, "name": "one", "price": 1.5}, "statuses": {}})
    );
    let all = server.read("product/2", "").await;
    assert_eq!(names(&all["features"]), ["name", "price", "stock"], "no names: the whole schema");
    assert_eq!(all["statuses"], json!({"stock": "not_found"}));
    let twice = server.read("product/1", "names=name,name").await;
    assert_eq!(twice["features"], json!({"name": "one"}));
}

async fn what_is_not_there_is_said(on: On) {
    let server = shop(on).await;
    server.get_features("product/9", "").await.problem(404, "entity_not_found");
    server.get_features("nothing/1", "").await.problem(404, "unknown_entity_type");
    let misspelt = server.get_features("product/1", "names=prise,name,stok").await;
    let problem = misspelt.problem(400, "unknown_feature");
    let unknown = |name: &str| (name.to_owned(), "unknown_feature".to_owned());
    assert_eq!(violations(&problem["errors"]), [unknown("prise"), unknown("stok")]);
}

async fn rows_come_in_the_order_asked_for(on: On) {
    let server = shop(on).await;
    let body = json!({
        "entities": {"user": ["7"], "product": ["2", "nobody", "1", "2"]},
        "features": ["product.price", "user.age", "product.stock"]});
    let results = server.post("/v1/features/read", &body).await.ok()["results"].clone();
    let product = |id: &str, version: i64, price: Value, stock: Value, statuses: Value| {
        json!({"entity_type": "product", "entity_id": id, "version": version,
               "features": {"price": price, "stock": stock}, "statuses": statuses})
    };
    let two = product("2", 2, json!(2.25), json!(null), json!({"stock": "not_found"}));
    let expected = json!([
        {"entity_type": "user", "entity_id": "7", "version": 1, "features": {"age": 41}, "statuses": {}},
        two,
        product("nobody", 0, json!(null), json!(null), json!({"price": "not_found", "stock": "not_found"})),
        product("1", 1, json!(1.5), json!(10), json!({})),
        two,
    ]);
    // A JSON object has no order; the types come as the body names them where its text has one.
    let text = r#"{"entities": {"user": ["7"], "product": ["2", "nobody", "1", "2"]},
                   "features": ["product.price", "user.age", "product.stock"], "layout": "rows"}"#;
    let request = server.request(reqwest::Method::POST, "/v1/features/read");
    let ordered = server.send(request.header("content-type", "application/json").body(text)).await.ok();
    assert_eq!(ordered["results"], expected);
    assert_eq!(results.as_array().map(Vec::len), Some(5));
    let body = json!({"entities": {"product": ["1"]}, "features": ["price"]});
    let short = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(short["results"][0]["features"], json!({"price": 1.5}), "one type needs no prefix");
    let nobody = json!({"entities": {"product": []}, "features": ["price"]});
    assert_eq!(server.post("/v1/features/read", &nobody).await.ok(), json!({"results": []}));
}

async fn columns_are_one_array_a_feature(on: On) {
    let server = shop(on).await;
    server.advance(61);
    let body = json!({
        "entities": {"user": ["7"], "product": ["2", "1", "nobody", "1"]},
        "features": ["product.price", "user.age", "product.stock", "product.name"], "layout": "columns"});
    let answer = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(
        answer["user"],
        json!({"entity_ids": ["7"], "versions": [1], "features": {"age": [41]}, "statuses": {}})
    );
    let product = &answer["product"];
    assert_eq!(product["entity_ids"], json!(["2", "1", "nobody", "1"]));
    assert_eq!(product["versions"], json!([2, 1, 0, 1]));
    assert_eq!(
        product["features"],
        json!({"price": [2.25, 1.5, null, 1.5], "stock": [null, null, null, null],
               "name": ["two", "one", null, "one"]})
    );
    let present = |third: &str| json!(["present", "present", third, "present"]);
    assert_eq!(
        product["statuses"],
        json!({"price": present("not_found"), "name": present("not_found"),
               "stock": ["not_found", "expired", "not_found", "expired"]})
    );
}

async fn metadata_stands_beside_values(on: On) {
    let server = shop(on).await;
    let mut body = json!({
        "entities": {"product": ["1", "nobody", "2"]}, "features": ["price", "stock"], "include": ["metadata"]});
    let rows = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(rows["results"][0]["metadata"]["price"]["version"], 1);
    assert_eq!(rows["results"][1]["metadata"], json!({}));
    assert_eq!(rows["results"][2]["metadata"]["price"]["version"], 2);
    assert_eq!(names(&rows["results"][2]["metadata"]), ["price"], "nothing is behind stock");
    body["layout"] = json!("columns");
    let columns = server.post("/v1/features/read", &body).await.ok();
    let metadata = &columns["product"]["metadata"];
    assert_eq!(metadata["price"][0]["version"], 1);
    assert_eq!(metadata["price"][1], json!(null));
    assert_eq!(metadata["price"][2]["kind"], "write");
    assert_eq!(metadata["stock"][0]["expires_at"], server.time(60));
    assert_eq!(metadata["stock"][2], json!(null));
    let single = server.read("product/1", "").await;
    assert!(single.get("metadata").is_none(), "only where it is asked for: {single}");
}

async fn a_batch_must_be_consistent(on: On) {
    let server = shop(on).await;
    for (body, status, code) in [
        (json!({"entities": {"product": ["1"]}, "features": ["product.prise"]}), 400, "unknown_feature"),
        (json!({"entities": {"product": ["1"]}, "features": ["user.age"]}), 400, "invalid_request"),
        (
            json!({"entities": {"product": ["1"]}, "features": ["product.price", "user.age"]}),
            400,
            "invalid_request",
        ),
        (
            json!({"entities": {"product": ["1"], "user": ["7"]}, "features": ["product.price"]}),
            400,
            "invalid_request",
        ),
        (
            json!({"entities": {"product": ["1"], "user": ["7"]}, "features": ["price", "age"]}),
            400,
            "invalid_request",
        ),
        (json!({"entities": {"nothing": ["1"]}, "features": ["nothing.price"]}), 404, "unknown_entity_type"),
        (json!({"entities": {}, "features": ["product.price"]}), 400, "invalid_request"),
        (json!({"entities": {"product": ["1"]}, "features": []}), 400, "invalid_request"),
        (json!({"entities": {"product": ["1"]}}), 400, "invalid_request"),
        (
            json!({"entities": {"product": ["1"]}, "features": ["price"], "feature_service": "x"}),
            400,
            "invalid_request",
        ),
        (json!({"entities": {"product": ["1"]}, "feature_service": "nothing"}), 404, "invalid_request"),
    ] {
        server.post("/v1/features/read", &body).await.problem(status, code);
    }
}

async fn a_feature_service_names_the_features(on: On) {
    let server = shop(on).await;
    let path = "/v1/feature-services/ranking";
    server.put(path, &json!({"features": ["product.price", "user.age"]})).await.status(201);
    server.put(path, &json!({"features": ["user.city", "product.name"]})).await.ok();
    let read = async |service: &str| {
        let body = json!({
            "entities": {"user": ["7"], "product": ["1"]}, "feature_service": service, "layout": "columns"});
        server.post("/v1/features/read", &body).await
    };
    for (service, product, user) in [
        ("ranking", json!({"name": ["one"]}), json!({"city": [null]})),
        ("ranking@2", json!({"name": ["one"]}), json!({"city": [null]})),
        ("ranking@1", json!({"price": [1.5]}), json!({"age": [41]})),
    ] {
        let answer = read(service).await.ok();
        assert_eq!(answer["product"]["features"], product, "{service}");
        assert_eq!(answer["user"]["features"], user, "{service}");
    }
    read("ranking@3").await.problem(404, "invalid_request");
    read("other").await.problem(404, "invalid_request");
    let single = server.read("product/1", "feature_service=ranking@1").await;
    assert_eq!(single["features"], json!({"price": 1.5}));
    let both = server.get_features("product/1", "feature_service=ranking&names=price").await;
    both.problem(400, "invalid_request");
    server.put("/v1/feature-services/people", &json!({"features": ["user.age"]})).await.status(201);
    let of_others = server.get_features("product/1", "feature_service=people").await;
    of_others.problem(400, "invalid_request");
}
