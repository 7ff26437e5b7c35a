//! Importing tables.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use axum::body::Bytes;
use feature_store::clock::Clock;
use feature_store::domain::time::{Span, Timestamp};
use feature_store::table::Format;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::redis_process::eventually;
use crate::tables;
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    every_format_brings_the_same_values_and_repeats_change_nothing,
    rows_of_an_entity_are_all_applied_in_any_order,
    rejected_rows_are_counted_and_listed,
    rows_before_a_broken_place_are_stored,
    a_large_import_is_a_job_where_asked_for,
    a_feature_of_its_own_is_computed_from_what_is_imported,
];

/// Sends a table.
pub async fn import(client: &Client, format: Format, query: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = client.request(Method::POST, &format!("/v1/features/import?{query}"));
    client.send(request.header("content-type", format.media_type()).body(body)).await
}

async fn import_csv(server: &TestServer, query: &str, csv: &str) -> Answer {
    import(server, Format::Csv, query, csv.to_owned()).await
}

/// How an answer counts: rows, written, unchanged, late, empty, rejected.
fn counts(report: &Value) -> [u64; 6] {
    ["rows", "written", "unchanged", "late", "empty", "rejected"]
        .map(|name| report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}")))
}

async fn every_format_brings_the_same_values_and_repeats_change_nothing(on: On) {
    let server = on.server().await;
    let rows = tables::products(50, server.clock.now());
    for format in Format::ALL {
        let entity_type = format!("product_{}", format.name());
        server.declare(&entity_type, tables::schema()).await;
        let body = tables::encode(format, &rows);
        let query = format!("entity_type={entity_type}&source=shop&run_id=r1");
        let report = import(&server, format, &query, body.clone()).await.ok();
        assert_eq!(counts(&report), [50, 50, 0, 0, 0, 0], "{format:?}: {report}");
        assert_eq!(report["rejections"], json!([]));
        for row in [0, 3, 49] {
            let read = server.read(&format!("{entity_type}/{row}"), "include=metadata").await;
            let mut wanted = rows[row].clone();
            let wanted = wanted.as_object_mut().unwrap();
            wanted.remove("entity_id");
            let time = wanted.remove("event_timestamp").unwrap();
            assert_eq!(read["features"], json!(wanted), "{format:?}");
            // Null cells leave a feature alone.
            let price = if row == 3 { json!({"price": "not_found"}) } else { json!({}) };
            assert_eq!(
                read["statuses"].as_object().cloned().unwrap_or_default(),
                *price.as_object().unwrap()
            );
            let stock = &read["metadata"]["stock"];
            assert_eq!((&stock["event_timestamp"], &stock["version"]), (&time, &json!(1)));
            assert_eq!(
                (&stock["kind"], &stock["source"], &stock["run_id"]),
                (&json!("import"), &json!("shop"), &json!("r1"))
            );
        }
        let again = import(&server, format, &query, body).await.ok();
        assert_eq!(counts(&again), [50, 0, 50, 0, 0, 0], "{format:?}");
    }
}

/// Rows of few entities, with many events each, in no order.
fn events(entities: usize, each: usize, until: Timestamp) -> String {
    let mut csv = "entity_id,n,event_timestamp\n".to_owned();
    for place in 0..entities * each {
        // A permutation: the factor and the number of rows have no divisor in common.
        let row = place * 7919 % (entities * each);
        let at = Timestamp::from_millis(until.as_millis() - row as i64 * 1000).unwrap();
        csv += &format!("{},{row},{at}\n", row % entities);
    }
    csv
}

async fn rows_of_an_entity_are_all_applied_in_any_order(on: On) {
    let server = on.server().await;
    server.declare("sensor", json!({"max_versions": 100, "features": {"n": {"type": "int64"}}})).await;
    let csv = events(10, 40, server.clock.now());
    let report = import_csv(&server, "entity_type=sensor", &csv).await.ok();
    assert_eq!((counts(&report)[0], counts(&report)[5]), (400, 0), "{report}");
    assert_eq!(counts(&report)[1] + counts(&report)[3], 400, "{report}");
    for entity in 0..10 {
        let read = server.read(&format!("sensor/{entity}"), "").await;
        assert_eq!((&read["features"]["n"], &read["version"]), (&json!(entity), &json!(40)));
        let lineage = server.get(&format!("/v1/entities/sensor/{entity}/features/n/lineage")).await.ok();
        let history: Vec<u64> =
            lineage["history"].as_array().unwrap().iter().map(|old| old["value"].as_u64().unwrap()).collect();
        assert_eq!(history, (1..40).map(|age| entity + age * 10).collect::<Vec<_>>());
    }
    let again = import_csv(&server, "entity_type=sensor", &csv).await.ok();
    assert_eq!(counts(&again), [400, 0, 400, 0, 0, 0]);
}

async fn rejected_rows_are_counted_and_listed(on: On) {
    let server = on.server().await;
    server.declare("product", tables::schema()).await;
    let (now, future) = (server.time(-60), server.time(3600));
    let csv = format!(
        "entity_id,price,stock,event_timestamp\n\
         1,1.5,1,{now}\n2,-1,x,{now}\n,1,1,{now}\n3,2.5,3,\n4,2.5,4,soon\n5,2.5,5,{future}\n6,,,{now}\n7,1e999,7,{now}\n"
    );
    let report = import_csv(&server, "entity_type=product&max_rejections=5", &csv).await.ok();
    assert_eq!(counts(&report), [8, 1, 0, 0, 1, 6], "{report}");
    let listed: Vec<(Value, Value, Vec<String>)> = report["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rejection| {
            let errors = rejection["errors"].as_array().unwrap().iter();
            let code = |error: &Value| {
                format!(
                    "{} {}",
                    error["feature"].as_str().or(error["pointer"].as_str()).unwrap_or("-"),
                    error["code"].as_str().unwrap()
                )
            };
            (rejection["row"].clone(), rejection["entity_id"].clone(), errors.map(code).collect())
        })
        .collect();
    let wanted = [
        (1, json!("2"), vec!["price below_minimum", "stock wrong_type"]),
        (2, Value::Null, vec!["- invalid_name"]),
        (3, json!("3"), vec!["/event_timestamp invalid_value"]),
        (4, json!("4"), vec!["/event_timestamp invalid_value"]),
        (5, json!("5"), vec!["/event_timestamp event_in_future"]),
    ];
    let wanted: Vec<(Value, Value, Vec<String>)> = wanted
        .into_iter()
        .map(|(row, id, codes)| (json!(row), id, codes.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(listed, wanted);
    assert_eq!(server.get_features("product/2", "").await.status, 404);
}

async fn rows_before_a_broken_place_are_stored(on: On) {
    let server = on.server().await;
    let at = server.time(-60);
    let rows: String = (0..5000).map(|row| format!("{row},{row}.5,{at}\n")).collect();
    let header = "entity_id,price,event_timestamp\n";
    let broken = format!("{header}{rows}5000,1\n5001,2,{at}\n");
    let problem = import_csv(&server, "entity_type=product", &broken).await;
    let problem = problem.problem(400, "invalid_request");
    let detail =
        "line 5002: 2 fields where the line of names has 3; 5000 rows were stored, and may be sent again";
    assert_eq!(problem["detail"], detail);
    assert_eq!(problem["imported"]["written"], 5000);
    assert_eq!(server.read("product/4999", "").await["features"], json!({"price": 4999.5}));
    assert_eq!(server.get_features("product/5001", "").await.status, 404);
    let whole = format!("{header}{rows}5000,1,{at}\n");
    let report = import_csv(&server, "entity_type=product", &whole).await.ok();
    assert_eq!(counts(&report), [5001, 1, 5000, 0, 0, 0]);
}

async fn a_large_import_is_a_job_where_asked_for(on: On) {
    let server = on.server().await;
    server.declare("product", tables::schema()).await;
    let mut rows = tables::products(100, server.clock.now());
    rows[40]["price"] = json!(-1);
    let answer = import(&server, Format::Csv, "entity_type=product&async=true", tables::csv(&rows)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let location = answer.header("location").to_owned();
    let job = eventually("the import to end", || async {
        let job = server.get(&location).await.ok();
        (!["queued", "running"].contains(&job["state"].as_str().unwrap())).then_some(job)
    })
    .await;
    assert_eq!(
        (&job["state"], &job["kind"], &job["subject"]),
        (&json!("succeeded"), &json!("import"), &json!("product"))
    );
    assert_eq!((&job["processed"], &job["changed"], &job["failed"]), (&json!(100), &json!(99), &json!(1)));
    assert_eq!(job["errors"], json!(["row 40 (40): price: must be at least 0"]));
    let request = server.request(Method::POST, "/v1/features/import?entity_type=product");
    let request = request.header("content-type", "text/csv").header("prefer", "respond-async, wait=1");
    let answer = server.send(request.body("entity_id,stock\n\"1\n")).await;
    assert_eq!(answer.status, 202);
    let location = answer.header("location").to_owned();
    eventually("the import to end", || async {
        let job = server.get(&location).await.ok();
        (job["state"] != "queued" && job["state"] != "running").then_some(job)
    })
    .await;
}

async fn a_feature_of_its_own_is_computed_from_what_is_imported(on: On) {
    let server = on.server().await;
    server
        .declare(
            "product",
            json!({"features": {"price": {"type": "float64"},
        "twice": {"type": "float64", "computed": {"function": "twice"}}},
        "transformations": "def twice(price):\n    return price * 2\n"}),
        )
        .await;
    let report = import_csv(&server, "entity_type=product", "entity_id,price\n1,1.5\n2,2\n").await.ok();
    assert_eq!(counts(&report)[..2], [2, 2]);
    assert_eq!(server.read("product/1", "").await["features"], json!({"price": 1.5, "twice": 3.0}));
    let problem = import_csv(&server, "entity_type=product", "entity_id,twice\n1,1.5\n").await;
    assert_eq!(problem.problem(422, "validation_failed")["errors"][0]["code"], "computed_feature");
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    tables::arrow(&RecordBatch::try_from_iter_with_nullable(columns).unwrap())
}

fn ids(ids: &[&str]) -> (&'static str, ArrayRef) {
    ("entity_id", Arc::new(StringArray::from(ids.to_vec())))
}

#[tokio::test]
async fn what_cannot_be_imported_says_why() {
    let server = On::Embedded.server_with(|config| config.max_import_bytes = 4096).await;
    server.declare("product", tables::schema()).await;
    let csv = "entity_id,stock\n1,1\n";
    for (query, body, status, wanted) in [
        ("entity_type=product&nonsense=1", csv, 400, "nonsense"),
        ("", csv, 400, "entity_type"),
        ("entity_type=product&columns=stock,,x", csv, 400, "columns"),
        ("entity_type=product&columns=a:stock,b:stock", csv, 400, "twice"),
        (
            "entity_type=product&columns=sold",
            csv,
            422,
            "there is no column \"sold\"; there are entity_id, stock",
        ),
        ("entity_type=product&id_column=id", csv, 422, "there is no column \"id\""),
        ("entity_type=product&timestamp_column=t", csv, 422, "there is no column \"t\""),
        ("entity_type=product&ttl=soon", csv, 400, "ttl"),
        ("entity_type=product&max_rejections=100000", csv, 400, "max_rejections"),
        ("entity_type=product", "entity_id,colour\n1,red\n", 422, "colour: is not in the schema"),
        ("entity_type=product", "entity_id,the colour\n1,red\n", 422, "name the columns that are features"),
        ("entity_type=product", "", 400, "no line of column names"),
        ("entity_type=product", "entity_id,stock,stock\n", 400, "there twice"),
        ("entity_type=product", "entity_id,name\n1,\"a\n2,b\n", 400, "begin in line 2 are not closed"),
    ] {
        let answer = import_csv(&server, query, body).await;
        let problem = answer.json();
        assert_eq!(answer.status, status, "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{query}: {problem}");
    }
    let packed = server.request(Method::POST, "/v1/features/import?entity_type=product");
    let packed = packed.header("content-type", "text/csv").header("content-encoding", "gzip").body(csv);
    server.send(packed).await.problem(415, "invalid_request");
    let binary = batch(vec![ids(&["1"]), ("stock", Arc::new(BinaryArray::from(vec![&b"x"[..]])))]);
    let problem = import(&server, Format::Arrow, "entity_type=product", binary).await;
    assert!(
        problem.problem(400, "invalid_request")["detail"]
            .as_str()
            .unwrap()
            .contains("Binary, which no feature has")
    );
    let large = format!("{csv}{}", "1,1\n".repeat(2000));
    import_csv(&server, "entity_type=product", &large).await.problem(413, "payload_too_large");
    let parts =
        futures::stream::iter(large.as_bytes().chunks(512).map(Bytes::copy_from_slice).collect::<Vec<_>>());
    let body = reqwest::Body::wrap_stream(futures::StreamExt::map(parts, Ok::<_, std::io::Error>));
    import(&server, Format::Csv, "entity_type=product", body).await.problem(413, "payload_too_large");
    for format in Format::ALL {
        let answer = import(&server, format, "entity_type=product", "nonsense, \u{0}").await;
        assert!([400, 422].contains(&answer.status), "{format:?}: {}", answer.text());
    }
    let request = server.request(Method::POST, "/v1/features/import?entity_type=product").body("x");
    server.send(request).await.problem(415, "invalid_request");
    let strict = On::Embedded.server_with(|config| config.auto_register = false).await;
    import_csv(&strict, "entity_type=nothing", csv).await.problem(404, "unknown_entity_type");
}

#[tokio::test]
async fn unknown_columns_are_registered_with_the_type_of_all_their_cells() {
    let server = On::Embedded.server().await;
    let csv =
        "id,i,f,b,s,zip,v,none\n1,1,1,true,x,010,\"[1,2,3,4,5,6,7,8,9,10,11]\",\n2,,2.5,False,7,020,,\n";
    let report = import_csv(&server, "entity_type=csv&id_column=id", csv).await.ok();
    assert_eq!(counts(&report)[1], 2, "{report}");
    let arrow = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("i", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ("f", Arc::new(Float64Array::from(vec![Some(1.0), None]))),
        ("__index_level_0__", Arc::new(Int64Array::from(vec![0, 1]))),
    ]);
    import(&server, Format::Arrow, "entity_type=arrow&id_column=id", arrow).await.ok();
    let lines = "{\"entity_id\":1,\"f\":1,\"late\":null}\n{\"entity_id\":2,\"f\":1.5,\"o\":{\"a\":1}}\n";
    import(&server, Format::Ndjson, "entity_type=lines", lines).await.ok();
    for (entity_type, wanted) in [
        (
            "csv",
            json!({"i": "int64", "f": "float64", "b": "boolean", "s": "string", "zip": "string", "v": "embedding"}),
        ),
        ("arrow", json!({"i": "int64", "f": "float64"})),
        ("lines", json!({"f": "float64", "o": "json"})),
    ] {
        let schema = server.get(&format!("/v1/entity-types/{entity_type}")).await.ok();
        let features = schema["features"].as_object().unwrap();
        let types: serde_json::Map<_, _> =
            features.iter().map(|(name, f)| (name.clone(), f["type"].clone())).collect();
        assert_eq!(Value::from(types), wanted);
    }
    assert_eq!(server.read("csv/1", "").await["features"]["zip"], "010");
    // An inferred int64 is widened by a later import.
    let report = import_csv(&server, "entity_type=arrow&id_column=id", "id,i\n1,1.5\n3,\n").await.ok();
    assert_eq!(counts(&report), [2, 1, 0, 0, 1, 0], "{report}");
    assert_eq!(server.read("arrow/1", "names=i").await["features"]["i"], 1.5);
}

#[tokio::test]
async fn nulls_and_nan_do_what_the_parameters_say() {
    let server = On::Embedded.server().await;
    server.declare("product", tables::schema()).await;
    let table = || {
        let prices = vec![Some(1.0), None, Some(f64::NAN), Some(f64::INFINITY)];
        let stocks = vec![1, 2, 3, 4];
        batch(vec![
            ids(&["a", "b", "c", "d"]),
            ("price", Arc::new(Float64Array::from(prices))),
            ("stock", Arc::new(Int64Array::from(stocks))),
        ])
    };
    let report = import(&server, Format::Arrow, "entity_type=product", table()).await.ok();
    assert_eq!(counts(&report), [4, 2, 0, 0, 0, 2], "{report}");
    assert_eq!(server.statuses("product/b", "names=price").await, json!({"price": "not_found"}));
    let report =
        import(&server, Format::Arrow, "entity_type=product&nulls=write&nan=null", table()).await.ok();
    assert_eq!(counts(&report)[5], 1, "{report}");
    for entity in ["product/b", "product/c"] {
        assert_eq!(server.statuses(entity, "names=price").await, json!({"price": "null"}));
    }
    let lines = "{\"entity_id\":\"b\",\"price\":7,\"stock\":null}\n{\"entity_id\":\"a\",\"stock\":null}\n";
    import(&server, Format::Ndjson, "entity_type=product&nulls=write", lines).await.ok();
    assert_eq!(
        server.read("product/b", "names=price,stock").await["features"],
        json!({"price": 7.0, "stock": null})
    );
    assert_eq!(
        server.read("product/a", "names=price,stock").await["features"],
        json!({"price": 1.0, "stock": null})
    );
}

#[tokio::test]
async fn times_are_texts_columns_of_time_or_numbers_of_a_unit() {
    let server = On::Embedded.server().await;
    let at = Timestamp::from_millis(server.clock.now().as_millis() / 1000 * 1000 - 60_000).unwrap();
    let seconds = at.as_millis() / 1000;
    for (unit, count) in
        [("s", seconds), ("ms", seconds * 1000), ("us", seconds * 1_000_000), ("ns", seconds * 1_000_000_000)]
    {
        let lines = format!("{{\"entity_id\":\"{unit}\",\"n\":1,\"t\":{count}}}\n");
        let query = "entity_type=reading&timestamp_column=t";
        let refused = import(&server, Format::Ndjson, query, lines.clone()).await.ok();
        assert_eq!(counts(&refused)[5], 1);
        let query = format!("{query}&timestamp_unit={unit}");
        assert_eq!(counts(&import(&server, Format::Ndjson, &query, lines).await.ok())[1], 1);
        let csv = format!("entity_id,n,t\ncsv_{unit},1,{count}\n");
        assert_eq!(counts(&import_csv(&server, &query, &csv).await.ok())[1], 1);
        for entity in [unit.to_owned(), format!("csv_{unit}")] {
            let read = server.read(&format!("reading/{entity}"), "include=metadata").await;
            assert_eq!(read["metadata"]["n"]["event_timestamp"], at.to_string());
        }
    }
    // Without a column of times everything takes place when the import starts.
    let present = server.clock.now();
    import_csv(&server, "entity_type=reading&columns=n&ttl=10", "entity_id,n,x\nnow,1,2\n").await.ok();
    let read = server.read("reading/now", "include=metadata").await;
    assert_eq!(read["features"], json!({"n": 1}));
    let metadata = &read["metadata"]["n"];
    assert_eq!(metadata["event_timestamp"], present.to_string());
    assert_eq!(metadata["expires_at"], (present + Span::from_secs(10)).to_string());
}

/// A body that pauses between its parts.
fn slowly(parts: Vec<String>, pause: Duration) -> reqwest::Body {
    let parts = futures::stream::unfold(parts.into_iter(), move |mut parts| async move {
        let part = parts.next()?;
        tokio::time::sleep(pause).await;
        Some((Ok::<_, std::io::Error>(part), parts))
    });
    reqwest::Body::wrap_stream(parts)
}

#[tokio::test]
async fn an_import_may_take_longer_than_requests_may_but_not_stall() {
    let timeout = Duration::from_millis(400);
    let server = On::Embedded
        .server_with(|config| {
            config.request_timeout = Span::from_millis(400).unwrap();
            config.stall_timeout = Span::from_millis(400).unwrap();
        })
        .await;
    let mut parts = vec!["entity_id,n\n".to_owned()];
    parts.extend((0..4).map(|row| format!("{row},{row}\n")));
    let body = slowly(parts, timeout / 3);
    let report = import(&server, Format::Csv, "entity_type=product", body).await.ok();
    assert_eq!(counts(&report)[1], 4);
    let body = slowly(vec!["entity_id,n\n9,9\n".to_owned(), "10,1".to_owned()], timeout * 10);
    let problem = import(&server, Format::Csv, "entity_type=product", body).await;
    problem.problem(408, "timeout");
    assert_eq!(server.get_features("product/10", "").await.status, 404);
}
