//! Exports and training sets over a real socket, on both stores.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use feature_store::table::Format;
use feature_store::table::read::{Source, whole};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::on_both_stores;
use crate::test_server::{On, TestServer};

on_both_stores!(
    exports_have_typed_columns,
    every_format_says_the_same,
    exports_look_back,
    a_large_export_has_every_entity_once,
    training_sets_know_no_future,
    ids_are_whole_numbers_of_any_kind,
    spines_come_in_every_format,
    what_is_wrong_is_said,
    binary_batch_reads,
);

const PARQUET: &str = "application/vnd.apache.parquet";
const ARROW: &str = "application/vnd.apache.arrow.stream";

fn table(format: Format, answer: &Answer) -> RecordBatch {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), format.media_type());
    whole(format, Source::Bytes(Bytes::from(answer.body.clone())), usize::MAX).expect("a whole table")
}

async fn shop(on: On) -> TestServer {
    let server = on.server().await;
    let features = json!({
        "price": {"type": "float64", "max_age": "1d"}, "stock": {"type": "int64", "default": 0},
        "name": {"type": "string"}, "since": {"type": "timestamp"}, "sold": {"type": "boolean"},
        "vector": {"type": "embedding", "dimension": 2}, "extra": {"type": "json"}});
    server.declare("product", json!({"features": features, "ttl": "never"})).await;
    server
}

async fn exports_have_typed_columns(on: On) {
    let server = shop(on).await;
    let time = server.time(-10);
    server
        .write(
            "product/1",
            json!({"price": 1.5, "stock": 3, "name": "", "since": time, "sold": true,
            "vector": [0.5, -1.0], "extra": {"a": [1]}}),
        )
        .await;
    server.write("product/2", json!({"name": null})).await;
    let body =
        json!({"entity_type": "product", "order": "entity_id", "format": "parquet", "include": ["status"]});
    let batch = table(Format::Parquet, &server.post("/v1/features/export", &body).await);
    let types = |name: &str| batch.column_by_name(name).expect(name).data_type().clone();
    assert_eq!(types("entity_id"), DataType::Utf8);
    assert_eq!(types("price"), DataType::Float64);
    assert_eq!(types("stock"), DataType::Int64);
    assert_eq!(types("sold"), DataType::Boolean);
    assert!(matches!(types("since"), DataType::Timestamp(_, Some(_))));
    assert!(matches!(types("vector"), DataType::FixedSizeList(_, 2)));
    assert_eq!(batch.num_rows(), 2);
    assert!(batch.column_by_name("price").expect("price").is_null(1));
    let statuses = |name: &str| -> Vec<String> {
        let column = batch.column_by_name(name).expect(name).as_string::<i32>().clone();
        column.iter().flatten().map(str::to_owned).collect()
    };
    assert_eq!(statuses("name.status"), ["present", "null"]);
    assert_eq!(statuses("stock.status"), ["present", "defaulted"]);
    assert_eq!(statuses("price.status"), ["present", "not_found"]);
}

async fn every_format_says_the_same(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 1.5, "extra": {"a": [1]}, "vector": [1, 2]})).await;
    let path = "/v1/entity-types/product/export?features=price,extra,vector,name";
    let expected =
        json!({"entity_id": "1", "price": 1.5, "extra": {"a": [1]}, "vector": [1.0, 2.0], "name": null});
    assert_eq!(server.get(path).await.ok(), json!([expected]));
    let lines = server.get(&format!("{path}&format=ndjson")).await;
    assert_eq!(serde_json::from_str::<Value>(&lines.text()).expect("one line"), expected);
    let csv = server.get(&format!("{path}&format=csv")).await.text();
    assert_eq!(csv, "entity_id,price,extra,vector,name\n1,1.5,\"{\"\"a\"\":[1]}\",\"[1.0,2.0]\",\n");
    for (format, media_type) in [(Format::Parquet, PARQUET), (Format::Arrow, ARROW)] {
        let request = server.request(Method::GET, path).header("accept", media_type);
        let batch = table(format, &server.send(request).await);
        assert_eq!((batch.num_rows(), batch.num_columns()), (1, 5));
        assert_eq!(batch.column(1).as_primitive::<Float64Type>().value(0), 1.5);
    }
    let empty =
        server.post("/v1/features/export", &json!({"entity_type": "product", "entity_ids": ["9"]})).await;
    assert_eq!(empty.ok(), json!([]));
}

async fn exports_look_back(on: On) {
    let server = shop(on).await;
    let at = |hours: i64| server.time(hours * 3600);
    server.write_at("product/1", &at(-30), json!({"price": 1.0, "stock": 1})).await;
    server.write_at("product/1", &at(-10), json!({"price": 2.0})).await;
    server.write_at("product/1", &at(-20), json!({"price": 3.0})).await;
    let export = async |more: Value| {
        let mut body = json!({"entity_type": "product", "features": ["product.price", "stock"]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        server.post("/v1/features/export", &body).await.ok()
    };
    let row = |price: Value, stock: i64| json!([{"entity_id": "1", "price": price, "stock": stock}]);
    assert_eq!(export(json!({})).await, row(json!(2.0), 1));
    assert_eq!(export(json!({"as_of": at(-15)})).await, row(json!(3.0), 1));
    assert_eq!(export(json!({"as_of": at(-15), "max_age": "1h"})).await, row(Value::Null, 0));
    let history = export(json!({"history": true})).await;
    let seen: Vec<(i64, f64)> = history
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["version"].as_i64().expect("a version"), row["price"].as_f64().expect("a price")))
        .collect();
    assert_eq!(seen, [(1, 1.0), (3, 3.0), (2, 2.0)], "in the order of events");
    assert_eq!(history[1]["event_timestamp"], json!(at(-20)));
    assert_eq!(history[1]["stock"], 1);
    let until = export(json!({"history": true, "as_of": at(-25)})).await;
    assert_eq!(until.as_array().map(Vec::len), Some(1));
}

async fn a_large_export_has_every_entity_once(on: On) {
    let server = on.server().await;
    let many = 20_000;
    for start in (0..many).step_by(1000) {
        let rows: Vec<Value> = (start..start + 1000)
            .map(
                |n| json!({"entity_id": n.to_string(), "features": {"n": n, "text": format!("text of {n}")}}),
            )
            .collect();
        let answer = server.post("/v1/features/write", &json!({"entity_type": "item", "rows": rows})).await;
        assert_eq!(answer.ok()["written"], 1000);
    }
    for query in ["format=parquet", "format=arrow&order=entity_id"] {
        let answer = server.get(&format!("/v1/entity-types/item/export?{query}")).await;
        let format = if query.contains("parquet") { Format::Parquet } else { Format::Arrow };
        let batch = table(format, &answer);
        let ids: Vec<&str> = batch.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(ids.len(), many as usize, "{query}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), many as usize, "{query}");
        assert!(ids.is_sorted() || !query.contains("order"), "{query}");
    }
}

async fn training_sets_know_no_future(on: On) {
    let server = shop(on).await;
    server.declare("user", json!({"features": {"age": {"type": "int64"}}, "ttl": "never"})).await;
    let at = |hours: i64| server.time(hours * 3600);
    server.write_at("product/1", &at(-30), json!({"price": 1.0})).await;
    server.write_at("product/1", &at(-10), json!({"price": 2.0})).await;
    server.write_at("user/7", &at(-20), json!({"age": 41})).await;
    let spec = json!({"features": ["user.age", "product.price"]});
    server.put("/v1/feature-services/ranking", &spec).await;
    let times = [at(-31), at(-30), at(-11), at(-5), at(20)];
    let body = json!({
        "spine": {"columns": {"product_id": ["1", "1", "1", "1", "1"], "buyer": [7, 7, 7, 7, null],
            "event_timestamp": times, "label": [0, 1, 0, 1, 0], "note": ["a", null, "c", "", "1"]}},
        "entity_columns": {"user": "buyer"}, "feature_service": "ranking",
        "include": ["status", "event_timestamp"]});
    let answer = server.post("/v1/features/training-set", &body).await.ok();
    let columns = &answer["columns"];
    let names: Vec<&String> = columns.as_object().expect("columns").keys().collect();
    assert_eq!(names.len(), 11, "{names:?}");
    assert_eq!(columns["product.price"], json!([null, 1.0, 1.0, 2.0, null]));
    assert_eq!(
        columns["product.price.status"],
        json!(["not_found", "present", "present", "present", "expired"])
    );
    assert_eq!(columns["product.price.event_timestamp"], json!([null, at(-30), at(-30), at(-10), at(-10)]));
    assert_eq!(columns["user.age"], json!([null, null, 41, 41, null]));
    for name in ["product_id", "buyer", "label", "note"] {
        assert_eq!(columns[name], body["spine"]["columns"][name], "{name} is kept");
    }
    assert_eq!(columns["event_timestamp"], json!(times));
}

/// Ids are often hashes: whole numbers of 64 bits without a sign.
async fn ids_are_whole_numbers_of_any_kind(on: On) {
    let server = shop(on).await;
    let (large, at) = (12_345_678_901_234_567_890_u64, server.time(-60));
    let row = json!({"entity_id": large, "price": 1.5, "event_timestamp": at}).to_string();
    let import = server.request(Method::POST, "/v1/features/import?entity_type=product");
    let import = import.header("content-type", "application/x-ndjson").body(row);
    assert_eq!(server.send(import).await.ok()["written"], 1);
    server.write_at("product/-0", &at, json!({"price": 2.5})).await;
    let now = server.time(0);
    let columns = json!({"product_id": [7, large], "event_timestamp": [now, now]});
    let body = json!({"spine": {"columns": columns}, "features": ["product.price"]});
    let joined = server.post("/v1/features/training-set", &body).await.ok();
    assert_eq!(joined["columns"]["product.price"], json!([null, 1.5]));
    assert_eq!(joined["columns"]["product_id"], json!([7, large]));
    let ask = async |format: &str, spine: String| {
        let path = "/v1/features/training-set?features=product.price&format=json";
        server.send(server.request(Method::POST, path).header("content-type", format).body(spine)).await
    };
    let spine = format!("product_id,event_timestamp\n{large},{now}\n1,{now}\n");
    let joined = ask("text/csv", spine).await.ok();
    assert_eq!(joined["columns"]["product.price"], json!([1.5, null]));
    // Never an answer about another entity.
    ask("text/csv", format!("product_id,event_timestamp\n-0,{now}\n")).await.problem(400, "invalid_request");
    let joined = ask("text/csv", format!("product_id,event_timestamp\n-0,{now}\na,{now}\n")).await.ok();
    assert_eq!(joined["columns"]["product.price"], json!([2.5, null]));
}

async fn spines_come_in_every_format(on: On) {
    let server = shop(on).await;
    let early = server.time(-100);
    server.write_at("product/1", &early, json!({"price": 1.0, "vector": [1, 2]})).await;
    let time = server.time(-50);
    let csv = format!("product_id,event_timestamp,label\n1,{time},x\n2,{time},\n");
    let query = "features=product.price,product.vector";
    let send = async |content_type: &str, body: Vec<u8>, format: &str| {
        let path = format!("/v1/features/training-set?{query}&format={format}");
        server.send(server.request(Method::POST, &path).header("content-type", content_type).body(body)).await
    };
    let answer = send("text/csv", csv.into_bytes(), "csv").await.text();
    let header = "product_id,event_timestamp,label,product.price,product.vector\n";
    assert_eq!(answer, format!("{header}1,{time},x,1.0,\"[1.0,2.0]\"\n2,{time},,,\n"));
    let line = json!({"product_id": 1, "event_timestamp": time});
    let answer = send("application/x-ndjson", line.to_string().into_bytes(), "ndjson").await;
    let row: Value = serde_json::from_str(&answer.text()).expect("a line");
    assert_eq!(row["product.price"], 1.0);
    // What one training set answers can be the spine of the next.
    for (format, media_type) in [(Format::Parquet, PARQUET), (Format::Arrow, ARROW)] {
        let export = server
            .get(&format!(
                "/v1/entity-types/product/export?history=true&features=price,vector&format={}",
                format.name()
            ))
            .await;
        let path = format!(
            "/v1/features/training-set?features=price,vector&entity_columns=product:entity_id&format={}",
            format.name()
        );
        let request =
            server.request(Method::POST, &path).header("content-type", media_type).body(export.body.clone());
        let batch = table(format, &server.send(request).await);
        let spine = table(format, &export);
        assert_eq!(&batch.columns()[..spine.num_columns()], spine.columns(), "the spine is kept");
        let price = batch.column_by_name("product.price").map(|column| column.data_type().clone());
        assert_eq!((spine.num_rows(), price), (1, Some(DataType::Float64)));
    }
}

async fn what_is_wrong_is_said(on: On) {
    let server = shop(on).await;
    let training = async |body: Value| server.post("/v1/features/training-set", &body).await;
    let spine = |columns: Value| json!({"spine": {"columns": columns}, "features": ["product.price"]});
    let time = "2026-01-02T00:00:00Z";
    let missing = training(spine(json!({"product_id": ["1"]}))).await.problem(400, "invalid_request");
    assert!(missing["detail"].as_str().is_some_and(|text| text.contains("event_timestamp")), "{missing}");
    training(spine(json!({"product_id": ["1", "2"], "event_timestamp": [time]})))
        .await
        .problem(400, "invalid_request");
    training(spine(json!({"product_id": [1.5], "event_timestamp": [time]})))
        .await
        .problem(400, "invalid_request");
    let rows = training(spine(json!({"product_id": ["1", ""], "event_timestamp": [time, time]}))).await;
    assert_eq!(rows.problem(422, "validation_failed")["errors"][0]["row"], 1);
    let rows = training(spine(json!({"product_id": ["1", "1"], "event_timestamp": [time, "monday"]}))).await;
    assert_eq!(rows.problem(422, "validation_failed")["errors"][0]["row"], 1);
    let taken = json!({"product_id": ["1"], "event_timestamp": [time], "product.price": [1]});
    training(spine(taken)).await.problem(400, "invalid_request");
    let twice = r#"{"spine": {"columns": {"product_id": ["1"], "product_id": ["2"], "event_timestamp": ["2026-01-02T00:00:00Z"]}}, "features": ["product.price"]}"#;
    let twice = server.request(Method::POST, "/v1/features/training-set").body(twice);
    let twice = server.send(twice.header("content-type", "application/json")).await;
    assert!(
        twice.problem(400, "invalid_request")["detail"]
            .as_str()
            .unwrap()
            .contains("product_id is there twice")
    );
    let mut unknown = spine(json!({"product_id": ["1"], "event_timestamp": [time]}));
    unknown["features"] = json!(["product.prise"]);
    training(unknown).await.problem(400, "unknown_feature");
    let path = "/v1/entity-types/product/export";
    server.get(&format!("{path}?format=xlsx")).await.problem(400, "invalid_request");
    let accept = server.request(Method::GET, path).header("accept", "image/png");
    server.send(accept).await.problem(406, "invalid_request");
    server.get(&format!("{path}?history=true&max_age=1d")).await.problem(400, "invalid_request");
    server.get(&format!("{path}?features=prise")).await.problem(400, "unknown_feature");
    server.get("/v1/entity-types/nothing/export").await.problem(404, "unknown_entity_type");
    let garbage = server.request(Method::POST, "/v1/features/training-set?features=product.price");
    let garbage = garbage.header("content-type", PARQUET).body("PAR1 of a kind");
    server.send(garbage).await.problem(400, "invalid_request");
    let text = server.request(Method::POST, "/v1/features/training-set").header("content-type", "text/html");
    server.send(text.body("x")).await.problem(415, "invalid_request");
}

async fn binary_batch_reads(on: On) {
    let server = shop(on).await;
    server.write("product/1", json!({"price": 1.5, "vector": [1, 2]})).await;
    let read = async |body: Value| {
        let request = server.request(Method::POST, "/v1/features/read").header("accept", ARROW).json(&body);
        server.send(request).await
    };
    let body = json!({"entities": {"product": ["2", "1"]}, "features": ["vector", "price"], "include": ["metadata"]});
    let batch = table(Format::Arrow, &read(body).await);
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let beside = [
        "vector",
        "vector.event_timestamp",
        "vector.status",
        "price",
        "price.event_timestamp",
        "price.status",
    ];
    assert_eq!(names, [["entity_id"].as_slice(), &beside].concat());
    let prices = batch.column_by_name("price").expect("price").as_primitive::<Float64Type>();
    assert_eq!(prices.iter().collect::<Vec<_>>(), [None, Some(1.5)]);
    server.declare("user", json!({"features": {"age": {"type": "int64"}}})).await;
    let two =
        json!({"entities": {"product": ["1"], "user": ["7"]}, "features": ["product.price", "user.age"]});
    read(two).await.problem(400, "invalid_request");
}
