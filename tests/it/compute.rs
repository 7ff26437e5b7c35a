//! Computed features over the API, on both stores.

use serde_json::{Value, json};

use crate::client::{expected, names};
use crate::on_both_stores;
use crate::test_server::{On, TestServer};

on_both_stores!(
    the_seeds_request_gives_all_eight_features,
    showing_stores_nothing_and_explains,
    a_write_computes_what_depends_on_it_in_the_same_version,
    what_lacks_an_input_has_no_value,
    a_rollback_computes_too,
    computed_features_cannot_be_written,
    reads_compute_from_context_and_now,
    errors_refuse_the_write_or_skip_the_feature,
    constraints_hold_for_results,
    lineage_names_inputs_and_the_function_of_then,
    writers_at_the_same_time_never_disagree_with_their_inputs,
);

/// As the example file has it.
pub fn shop() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ecommerce/product.yaml");
    let text = std::fs::read_to_string(path).expect("the example");
    yaml_serde::from_str(&text).expect("the example is YAML")
}

/// A chain: `doubled` of `price`, `sum` of `doubled` and `tax`.
fn chain() -> Value {
    json!({
        "features": {
            "price": {"type": "float64"},
            "tax": {"type": "float64"},
            "doubled": {"type": "float64", "computed": {"function": "doubled"}},
            "sum": {"type": "float64", "computed": {"function": "sum_of"}},
        },
        "transformations": "def doubled(price):\n    return price * 2\n\ndef sum_of(doubled, tax=0.0):\n    return doubled + tax\n",
    })
}

async fn compute(server: &TestServer, entity: &str, body: Value) -> crate::client::Answer {
    server.post(&format!("/v1/entities/{entity}/compute"), &body).await
}

async fn the_seeds_request_gives_all_eight_features(on: On) {
    let server = on.server().await;
    server.declare("product", shop()).await;
    let raw = json!({"name": "iPhone 15", "description": "A phone with a camera", "price": 999.99});
    let answer = compute(&server, "product/123", json!({ "raw": raw })).await.ok();
    assert_eq!((&answer["version"], &answer["stored"]), (&json!(1), &json!(true)), "{answer}");
    assert_eq!(
        names(&answer["features"]),
        [
            "category_similarity",
            "combined_text",
            "feature_completeness",
            "is_premium",
            "name_length",
            "price_range",
            "text_embedding",
            "text_quality_score",
        ]
    );
    assert_eq!(answer["features"]["price_range"], "premium");
    assert_eq!(answer["features"]["combined_text"], "iPhone 15 A phone with a camera");
    let read = server.read("product/123", "include=metadata").await;
    for (name, value) in answer["features"].as_object().expect("features") {
        assert_eq!(&read["features"][name], value, "{name}");
        assert_eq!(read["metadata"][name]["version"], 1, "{name}");
        assert_eq!(read["metadata"][name]["kind"], "compute", "{name}");
    }
    assert_eq!(read["features"]["text_embedding"].as_array().expect("an embedding").len(), 384);
    assert_eq!(read["features"]["name"], "iPhone 15");
    assert!(read["features"].get("description").is_none(), "raw inputs are not kept");
}

async fn showing_stores_nothing_and_explains(on: On) {
    let server = on.server().await;
    server.declare("product", shop()).await;
    let raw = json!({"name": "Shoe", "price": 60});
    let body = json!({"raw": raw, "store": false, "explain": true});
    let answer = compute(&server, "product/1", body).await.ok();
    assert_eq!((&answer["version"], &answer["stored"]), (&json!(0), &json!(false)), "{answer}");
    assert_eq!(answer["outcomes"], json!({}));
    let premium = &answer["explanations"]["is_premium"];
    assert_eq!(premium["function"], "is_premium");
    assert_eq!(premium["inputs"], json!([{"name": "price_range", "value": "mid_range"}]));
    assert!(premium["function_hash"].as_str().is_some_and(|hash| hash.len() >= 16), "{premium}");
    assert!(premium["elapsed_microseconds"].as_f64().is_some_and(|micros| micros > 0.0));
    server.get_features("product/1", "names=name").await.problem(404, "entity_not_found");
    compute(&server, "product/1", json!({"raw": {"nme": 1, "price": "x"}}))
        .await
        .problem(422, "validation_failed");
    server.write("plain/1", json!({"a": 1})).await;
    compute(&server, "plain/1", json!({"raw": {"a": 1}})).await.problem(400, "invalid_request");
}

async fn a_write_computes_what_depends_on_it_in_the_same_version(on: On) {
    let server = on.server().await;
    server.declare("item", chain()).await;
    let written = server.write("item/1", json!({"price": 10.0})).await;
    assert_eq!(written["version"], 1);
    assert_eq!(written["outcomes"], json!({"price": "applied", "doubled": "applied", "sum": "applied"}));
    let written = server.write("item/1", json!({"tax": 1.5})).await;
    assert_eq!(written["outcomes"], json!({"tax": "applied", "sum": "applied"}), "doubled stays");
    let read = server.read("item/1", "names=doubled,sum&include=metadata").await;
    assert_eq!(read["features"], json!({"doubled": 20.0, "sum": 21.5}));
    assert_eq!(
        (&read["metadata"]["doubled"]["version"], &read["metadata"]["sum"]["version"]),
        (&json!(1), &json!(2))
    );
    // A batch goes the same way.
    let rows = json!([{"entity_id": "1", "features": {"price": 1.0}}, {"entity_id": "2", "features": {"price": 2.0, "tax": 1.0}}]);
    server.post("/v1/features/write", &json!({"entity_type": "item", "rows": rows})).await.ok();
    assert_eq!(server.read("item/1", "names=sum").await["features"], json!({"sum": 3.5}));
    assert_eq!(server.read("item/2", "names=sum").await["features"], json!({"sum": 5.0}));
    // An event that is late changes nothing.
    server.write_at("item/1", &server.time(-3600), json!({"price": 100.0})).await;
    assert_eq!(server.read("item/1", "names=price,sum").await["features"], json!({"price": 1.0, "sum": 3.5}));
}

async fn what_lacks_an_input_has_no_value(on: On) {
    let server = on.server().await;
    server.declare("item", chain()).await;
    server.write("item/1", json!({"tax": 1.0})).await;
    let statuses = server.statuses("item/1", "names=doubled,sum").await;
    assert_eq!(statuses, json!({"doubled": "not_found", "sum": "not_found"}));
    server.write("item/1", json!({"price": 1.0})).await;
    assert_eq!(server.read("item/1", "names=sum").await["features"], json!({"sum": 3.0}));
    // An optional input goes: its default stands in. One that is needed goes: all that follows goes.
    server.delete("/v1/entities/item/1/features?names=tax").await.ok();
    assert_eq!(server.read("item/1", "names=sum").await["features"], json!({"sum": 2.0}));
    server.write("item/1", json!({"tax": 1.0})).await;
    server.delete("/v1/entities/item/1/features?names=price").await.ok();
    let statuses = server.statuses("item/1", "names=price,doubled,sum").await;
    assert_eq!(statuses, json!({"price": "not_found", "doubled": "not_found", "sum": "not_found"}));
}

async fn a_rollback_computes_too(on: On) {
    let server = on.server().await;
    server.declare("item", chain()).await;
    server.write("item/1", json!({"price": 1.0})).await;
    server.advance(1);
    server.write("item/1", json!({"price": 5.0, "tax": 1.0})).await;
    server.advance(1);
    server.post("/v1/entities/item/1/rollback", &json!({"to_version": 1, "features": ["price"]})).await.ok();
    let read = server.read("item/1", "include=metadata").await;
    assert_eq!(read["features"], json!({"price": 1.0, "tax": 1.0, "doubled": 2.0, "sum": 3.0}));
    assert_eq!(read["metadata"]["sum"]["version"], 3);
}

async fn computed_features_cannot_be_written(on: On) {
    let server = on.server().await;
    server.declare("item", chain()).await;
    let refused = server.post_features("item/1", &json!({"features": {"price": 1.0, "sum": 1.0}})).await;
    assert_eq!(refused.violations(), expected(&[("sum", "computed_feature")]));
    server.get_features("item/1", "names=price").await.problem(404, "entity_not_found");
}

async fn reads_compute_from_context_and_now(on: On) {
    let server = on.server().await;
    let schema = json!({
        "features": {
            "price": {"type": "float64"},
            "released_at": {"type": "timestamp"},
            "local_price": {"type": "float64", "computed": {"function": "local_price", "on": "read"}},
            "age": {"type": "float64", "computed": {"function": "age", "on": "read"}},
        },
        "raw_inputs": {"rate": {"type": "float64"}},
        "transformations": "def local_price(price, rate):\n    return price * rate\n\ndef age(released_at, now):\n    return time.age_days(released_at, now)\n",
    });
    server.declare("item", schema).await;
    let written = server.write("item/1", json!({"price": 10.0, "released_at": server.time(-86_400)})).await;
    assert_eq!(names(&written["outcomes"]), ["price", "released_at"]);
    let context = "context=%7B%22rate%22%3A1.5%7D";
    let read = server.read("item/1", &format!("names=local_price,age&{context}")).await;
    assert_eq!(read["features"]["local_price"], 15.0, "{read}");
    let age = read["features"]["age"].as_f64().expect("an age");
    assert!((age - 1.0).abs() < 1e-3, "{age}");
    server.advance(1800);
    let later = server.read("item/1", "names=age").await["features"]["age"].as_f64().expect("an age");
    assert!((later - age - 1.0 / 48.0).abs() < 1e-3, "{later}");
    assert_eq!(server.statuses("item/1", "names=local_price").await, json!({"local_price": "not_found"}));
    let body = json!({
        "entities": {"item": ["1", "none"]}, "features": ["item.local_price", "item.price"],
        "context": {"rate": 2.0},
    });
    let answer = server.post("/v1/features/read", &body).await.ok();
    assert_eq!(answer["results"][0]["features"], json!({"local_price": 20.0, "price": 10.0}), "{answer}");
    assert_eq!(answer["results"][1]["statuses"]["local_price"], "not_found");
}

async fn errors_refuse_the_write_or_skip_the_feature(on: On) {
    let server = on.server().await;
    let schema = |on_error: &str| {
        json!({
            "features": {
                "a": {"type": "int64"},
                "b": {"type": "int64", "computed": {"function": "b", "on_error": on_error}},
                "c": {"type": "int64", "computed": {"function": "c"}},
            },
            "transformations": "def b(a):\n    return 10 // a\n\ndef c(b):\n    return b + 1\n",
        })
    };
    server.declare("item", schema("fail")).await;
    server.write("item/1", json!({"a": 2})).await;
    let refused = server.post_features("item/1", &json!({"features": {"a": 0}})).await;
    assert_eq!(refused.violations(), expected(&[("b", "computation_failed")]));
    let message = refused.json()["errors"][0]["message"].to_string();
    assert!(message.contains("b (line 2, column") && message.contains("by zero"), "{message}");
    assert_eq!(server.read("item/1", "").await["features"], json!({"a": 2, "b": 5, "c": 6}));
    server.put("/v1/entity-types/item", &schema("skip")).await.ok();
    let answer = compute(&server, "item/1", json!({"raw": {"a": 0}})).await.ok();
    assert_eq!(answer["outcomes"]["b"], "skipped", "{answer}");
    assert!(answer["messages"]["b"].to_string().contains("by zero"), "{answer}");
    let read = server.read("item/1", "names=a,b,c").await;
    assert_eq!(read["statuses"], json!({"b": "not_found", "c": "not_found"}), "{read}");
    let written = server.write("item/1", json!({"a": 5})).await;
    assert_eq!(written["outcomes"], json!({"a": "applied", "b": "applied", "c": "applied"}));
}

async fn constraints_hold_for_results(on: On) {
    let server = on.server().await;
    let schema = json!({
        "features": {
            "a": {"type": "int64"},
            "b": {"type": "int64", "maximum": 10, "computed": {"function": "b"}},
        },
        "transformations": "def b(a):\n    return a * 2\n",
    });
    server.declare("item", schema).await;
    server.write("item/1", json!({"a": 5})).await;
    let refused = server.post_features("item/1", &json!({"features": {"a": 6}})).await;
    assert_eq!(refused.violations(), expected(&[("b", "computation_failed")]));
    assert!(refused.text().contains("the result of b must be at most 10"), "{}", refused.text());
}

async fn lineage_names_inputs_and_the_function_of_then(on: On) {
    let server = on.server().await;
    let put = server.declare("item", chain()).await;
    assert_eq!(put["schema_version"], 1);
    server.write("item/1", json!({"price": 1.0})).await;
    let lineage = "/v1/entities/item/1/features/doubled/lineage";
    let before = server.get(lineage).await.ok();
    let from = &before["computed_from"];
    assert_eq!(from["function"], "doubled", "{before}");
    assert_eq!(from["inputs"], json!([{"feature": "item.price", "version": 1}]));
    assert_eq!(before["used_by"]["features"], json!(["item.sum"]));
    let mut changed = chain();
    let source =
        changed["transformations"].as_str().expect("functions").replace("price * 2", "price + price");
    changed["transformations"] = json!(source);
    server.put("/v1/entity-types/item", &changed).await.ok();
    let after = server.get(lineage).await.ok();
    assert_eq!(
        after["computed_from"]["function_hash"], from["function_hash"],
        "of the function of then: {after}"
    );
    server.advance(1);
    server.write("item/1", json!({"price": 2.0})).await;
    let now = server.get(lineage).await.ok();
    assert_ne!(now["computed_from"]["function_hash"], from["function_hash"]);
    assert_eq!(now["computed_from"]["inputs"], json!([{"feature": "item.price", "version": 2}]));
}

async fn writers_at_the_same_time_never_disagree_with_their_inputs(on: On) {
    let server = on.server().await;
    server.declare("item", chain()).await;
    let writers = (0..6u32).map(|writer| {
        let client = server.client.clone();
        async move {
            for turn in 0..20u32 {
                let entity = format!("item/{}", (writer + turn) % 3);
                let number = f64::from(writer * 100 + turn);
                match (writer + turn) % 4 {
                    0 => drop(client.write(&entity, json!({"tax": number})).await),
                    1 => drop(client.write(&entity, json!({"price": number, "tax": number / 2.0})).await),
                    2 => {
                        let row = json!({"entity_id": entity.split_once('/').expect("an id").1, "features": {"price": number}});
                        client.post("/v1/features/write", &json!({"entity_type": "item", "rows": [row]})).await.ok();
                    }
                    _ => drop(client.write(&entity, json!({"price": number})).await),
                }
                // Readers, too, only ever see what belongs together.
                let read = client.read(&entity, "").await;
                agrees(&read["features"]);
            }
        }
    });
    futures::future::join_all(writers).await;
    for entity in ["item/0", "item/1", "item/2"] {
        agrees(&server.read(entity, "").await["features"]);
    }
}

#[track_caller]
fn agrees(features: &Value) {
    let number = |name: &str| features[name].as_f64();
    let doubled = number("price").map(|price| price * 2.0);
    assert_eq!(number("doubled"), doubled, "{features}");
    assert_eq!(number("sum"), doubled.map(|doubled| doubled + number("tax").unwrap_or(0.0)), "{features}");
}

/// Found by the fuzz target of requests: it was answered with 500.
#[tokio::test]
async fn a_feature_that_nobody_declared_is_registered_by_the_computation_that_brings_it() {
    let server = On::Embedded.server().await;
    let schema = json!({
        "features": {
            "price": {"type": "float64"},
            "twice": {"type": "float64", "computed": {"function": "twice"}},
        },
        "transformations": "def twice(price):\n    return price * 2\n",
    });
    server.declare("product", schema).await;
    let body = json!({"raw": {"price": 2, "weight": 1}, "store": true});
    let answer = server.post("/v1/entities/product/1/compute", &body).await.ok();
    assert_eq!(answer["features"]["twice"], 4.0);
    assert_eq!(answer["outcomes"]["weight"], "applied");
}
