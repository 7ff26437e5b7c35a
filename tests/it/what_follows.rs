//! What is computed follows from what is deleted, erased, rolled back, late or expired, and is never
//! written twice by one version.

use serde_json::{Value, json};

use crate::test_server::{On, TestServer};

crate::on_both_stores![
    what_is_erased_takes_along_what_needs_it,
    an_erasure_erases_what_it_names,
    a_rollback_writes_each_feature_once,
    a_dry_run_tells_what_a_rollback_does,
    a_rollback_past_the_history_is_refused,
    late_raw_inputs_are_late,
    an_expired_input_is_none,
    the_past_is_computed_at_its_own_time,
    a_feature_called_now_is_no_clock,
    a_context_is_of_the_types_that_are_declared,
    raw_inputs_are_no_features,
    a_feature_keeps_its_type_for_ever,
];

async fn shop(on: On) -> TestServer {
    let server = on.server().await;
    let float = || json!({"type": "float64"});
    let computed = |function: &str| json!({"type": "float64", "computed": {"function": function}});
    let schema = json!({
        "ttl": "never",
        "features": {
            "price": float(), "short": {"type": "float64", "ttl": "1m"}, "t": {"type": "timestamp"},
            "twice": computed("twice"), "scaled": computed("scaled"), "raised": computed("raised"),
            "total": computed("total"),
            "shout": {"type": "string", "computed": {"function": "shout", "on": "read"}},
            "adds": {"type": "float64", "computed": {"function": "adds", "on": "read"}},
            "begins": {"type": "string", "computed": {"function": "begins", "on": "read"}},
            "age": {"type": "float64", "computed": {"function": "age", "on": "read"}},
        },
        "raw_inputs": {"factor": float(), "boost": float(), "start": {"type": "timestamp"}},
        "transformations": "\
def twice(price): return price * 2
def scaled(price, factor=1.0): return price * factor
def raised(boost): return boost
def total(price, short=100.0): return price + short
def shout(price): return str(price) + '!'
def adds(price, boost): return price + boost
def begins(start): return start
def age(t, now): return time.age_days(t, now)
",
    });
    server.declare("product", schema).await;
    server
}

async fn compute(server: &TestServer, raw: Value, at: Option<&str>) -> Value {
    let body = json!({"raw": raw, "event_timestamp": at});
    server.post("/v1/entities/product/1/compute", &body).await.ok()
}

async fn features(server: &TestServer, names: &str) -> Value {
    server.read("product/1", &format!("names={names}")).await["features"].clone()
}

async fn what_is_erased_takes_along_what_needs_it(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 2})).await;
    let erased = server.delete("/v1/entities/product/1/features?names=price&history=true").await.ok();
    let outcomes = json!({"price": "applied", "twice": "applied", "scaled": "applied", "total": "applied"});
    assert_eq!((&erased["version"], &erased["outcomes"]), (&json!(2), &outcomes));
    assert_eq!(features(&server, "price,twice").await, json!({"price": null, "twice": null}));
}

async fn an_erasure_erases_what_it_names(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 2, "short": 3})).await;
    let path = "/v1/entities/product/1/features?names=shout,twice,price&history=true";
    let erased = server.delete(path).await.ok();
    assert_eq!(erased["outcomes"]["shout"], "unchanged", "{erased}");
    assert_eq!(erased["outcomes"]["price"], "applied", "{erased}");
    assert_eq!(
        features(&server, "price,twice,short").await,
        json!({"price": null, "twice": null, "short": 3.0})
    );
    let lineage = server.get("/v1/entities/product/1/features/price/lineage").await.ok();
    assert_eq!((&lineage["current"], &lineage["history"]), (&Value::Null, &json!([])));
    let lineage = server.get("/v1/entities/product/1/features/age/lineage").await.ok();
    assert_eq!(lineage["type"], "float64");
}

async fn a_rollback_writes_each_feature_once(on: On) {
    let server = shop(on).await;
    compute(&server, json!({"price": 10, "factor": 5}), None).await;
    server.advance(1);
    server.write("product/1", json!({"price": 20})).await;
    assert_eq!(features(&server, "scaled").await["scaled"], json!(20.0));
    server.advance(1);
    let back = server.post("/v1/entities/product/1/rollback", &json!({"to_version": 1})).await;
    let text = back.text().to_owned();
    assert_eq!(text.matches("\"scaled\"").count(), 1, "{text}");
    assert_eq!(features(&server, "scaled,twice").await, json!({"scaled": 50.0, "twice": 20.0}));
    let version = server.read("product/1", "names=scaled&version=3").await;
    assert_eq!(version["features"]["scaled"], json!(50.0));
    // A computed feature that was deleted comes back, too.
    server.delete("/v1/entities/product/1/features?names=twice").await.ok();
    assert_eq!(features(&server, "twice").await["twice"], Value::Null);
    server.post("/v1/entities/product/1/rollback", &json!({"to_version": 3})).await.ok();
    assert_eq!(features(&server, "twice").await["twice"], json!(20.0));
}

async fn a_dry_run_tells_what_a_rollback_does(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 10})).await;
    server.advance(1);
    server.write("product/1", json!({"price": 20})).await;
    let path = "/v1/entities/product/1/rollback";
    let body = json!({"to_version": 1, "dry_run": true});
    let planned = server.post(path, &body).await.ok();
    let changes = json!({
        "price": {"from": 20.0, "to": 10.0}, "twice": {"from": 40.0, "to": 20.0},
        "scaled": {"from": 20.0, "to": 10.0}, "total": {"from": 120.0, "to": 110.0}});
    assert_eq!((&planned["version"], &planned["changes"]), (&json!(2), &changes));
    let stale = server.request(reqwest::Method::POST, path).header("if-match", "\"1\"").json(&body);
    server.send(stale).await.problem(412, "version_conflict");
    assert_eq!(server.read("product/1", "").await["version"], 2);
}

async fn a_rollback_past_the_history_is_refused(on: On) {
    let server = on.server().await;
    server.declare("product", json!({"max_versions": 2, "features": {"x": {"type": "int64"}}})).await;
    for year in [2020, 2021, 2022] {
        server.write_at("product/1", &format!("{year}-01-01T00:00:00Z"), json!({"x": year})).await;
    }
    let back =
        async |to: &str| server.post("/v1/entities/product/1/rollback", &json!({ "to_timestamp": to })).await;
    let problem = back("2020-06-01T00:00:00Z").await.problem(404, "version_not_found");
    assert_eq!(problem["errors"][0]["code"], "version_trimmed");
    assert_eq!(server.read("product/1", "").await["features"]["x"], 2022);
    back("2021-06-01T00:00:00Z").await.ok();
    assert_eq!(server.read("product/1", "").await["features"]["x"], 2021);
}

async fn late_raw_inputs_are_late(on: On) {
    let server = shop(on).await;
    let (early, later) = ("2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z");
    let outcome = async |boost: i64, at: &str| {
        compute(&server, json!({ "boost": boost }), Some(at)).await["outcomes"]["raised"].clone()
    };
    assert_eq!(outcome(5, later).await, "applied");
    assert_eq!(outcome(2, early).await, "late");
    assert_eq!(outcome(2, early).await, "unchanged");
    assert_eq!(outcome(5, later).await, "unchanged");
    assert_eq!(features(&server, "raised").await["raised"], json!(5.0));
    let past = server.read("product/1", "names=raised&as_of=2021-06-01T00:00:00Z").await;
    assert_eq!(past["features"]["raised"], json!(2.0));
    assert_eq!(server.read("product/1", "").await["version"], 2);
}

async fn an_expired_input_is_none(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 1, "short": 2})).await;
    assert_eq!(features(&server, "total").await["total"], json!(3.0));
    server.advance(61);
    server.write("product/1", json!({"price": 5})).await;
    assert_eq!(features(&server, "total").await["total"], json!(105.0), "the default stands in");
}

async fn the_past_is_computed_at_its_own_time(on: On) {
    let server = shop(on).await;
    server.write_at("product/1", "2026-01-01T00:00:00Z", json!({"t": "2026-01-01T00:00:00Z"})).await;
    let past = server.read("product/1", "names=age&as_of=2026-01-03T00:00:00Z").await;
    assert_eq!(past["features"]["age"], json!(2.0));
    let body = json!({"entity_type": "product", "features": ["age"], "as_of": "2026-01-03T00:00:00Z"});
    let export = server.post("/v1/features/export", &body).await.ok();
    assert_eq!(export[0]["age"], json!(2.0));
}

async fn a_feature_called_now_is_no_clock(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"t": server.time(-86_400)})).await;
    server.write("product/2", json!({"now": "hijacked"})).await;
    assert_eq!(features(&server, "age").await["age"], json!(1.0));
    assert_eq!(server.read("product/2", "names=now").await["features"]["now"], "hijacked");
}

async fn a_context_is_of_the_types_that_are_declared(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 3})).await;
    let read = async |context: Value| {
        let body =
            json!({"entities": {"product": ["1"]}, "features": ["adds", "begins"], "context": context});
        server.post("/v1/features/read", &body).await
    };
    let answer = read(json!({"boost": 2, "start": "2026-01-01T00:00:00+02:00", "other": 1})).await.ok();
    let features = &answer["results"][0]["features"];
    assert_eq!(features, &json!({"adds": 5.0, "begins": "2025-12-31T22:00:00Z"}), "{answer}");
    let problem = read(json!({"boost": "two", "start": "soon"})).await.problem(422, "validation_failed");
    let named: Vec<&Value> =
        problem["errors"].as_array().expect("errors").iter().map(|e| &e["code"]).collect();
    assert_eq!(named, ["wrong_type", "wrong_type"], "{problem}");
    let spine = json!({"columns": {
        "product_id": ["1", "1"], "event_timestamp": [server.time(1), server.time(1)], "boost": [1, "x"]}});
    let body = json!({"spine": spine, "features": ["product.adds"]});
    let problem = server.post("/v1/features/training-set", &body).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["row"], 1, "{problem}");
}

async fn raw_inputs_are_no_features(on: On) {
    let server = shop(on).await;
    let rows = json!([
        {"entity_id": "1", "features": {"price": 3}}, {"entity_id": "2", "features": {"boost": 3}}]);
    let answer =
        server.post("/v1/features/write", &json!({"entity_type": "product", "rows": rows})).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(1), &json!(1)), "{answer}");
    let error = &answer["results"][1]["error"]["errors"][0];
    assert_eq!((&error["feature"], &error["code"]), (&json!("boost"), &json!("unknown_feature")));
    // What is only shown registers nothing.
    let body = json!({"raw": {"boost": 1, "colour": "red"}, "store": false});
    server.post("/v1/entities/product/1/compute", &body).await.problem(400, "unknown_feature");
    let schema = server.get("/v1/entity-types/product").await.ok();
    assert_eq!(schema["features"].get("colour"), None);
}

async fn a_feature_keeps_its_type_for_ever(on: On) {
    let server = on.server().await;
    let declare = async |features: Value| {
        server.put("/v1/entity-types/product", &json!({ "features": features })).await
    };
    server.write("product/1", json!({"x": 1, "k": 1})).await;
    declare(json!({"k": {"type": "int64"}})).await.ok();
    declare(json!({"k": {"type": "int64"}, "x": {"type": "string"}})).await.problem(409, "schema_conflict");
    // Nor by what a writer sends.
    server.post_features("product/2", &json!({"features": {"x": "a"}})).await.problem(409, "schema_conflict");
    declare(json!({"k": {"type": "int64"}, "x": {"type": "float64"}})).await.ok();
    assert_eq!(server.read("product/1", "names=x").await["features"]["x"], json!(1.0));
}
