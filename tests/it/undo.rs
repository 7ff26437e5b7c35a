//! Undoing what a run wrote, over a whole entity type.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::redis_process::{DEADLINE, eventually};
use crate::test_server::{On, TestServer};

crate::on_both_stores![
    only_what_came_from_the_run_goes_back,
    the_past_is_told_without_it,
    lineage_shows_who_retracted_what,
    a_window_narrows_a_source,
    a_mended_run_is_taken,
    an_undo_can_be_undone,
    what_is_computed_follows,
    only_the_features_asked_for,
    what_is_not_kept_is_not_invented,
    what_is_wrong_with_an_undo_is_said,
];

/// Writes as a run does, of an event so many seconds ago.
async fn run(server: &TestServer, run_id: &str, entity: &str, seconds: i64, features: Value) -> Value {
    let body = json!({"features": features, "event_timestamp": server.time(seconds),
        "run_id": run_id, "source": "sync"});
    server.post_features(entity, &body).await.ok()
}

/// Undoes as asked, and gives the job as it ended.
async fn undo(server: &Client, entity_type: &str, body: Value) -> Value {
    undo_within(DEADLINE, server, entity_type, body).await
}

/// As [`undo`], for one that takes longer than tests are used to.
pub async fn undo_within(most: Duration, server: &Client, entity_type: &str, body: Value) -> Value {
    let answer = server.post(&format!("/v1/entity-types/{entity_type}/rollback"), &body).await;
    let started = answer.status(202);
    assert_eq!((&started["kind"], &started["subject"]), (&json!("undo"), &json!(entity_type)));
    let start = Instant::now();
    let job = loop {
        let job = server.get(answer.header("location")).await.ok();
        if !matches!(job["state"].as_str(), Some("queued" | "running")) {
            break job;
        }
        assert!(start.elapsed() < most, "{job}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((&job["state"], &job["failed"]), (&json!("succeeded"), &json!(0)), "{job}");
    job
}

/// What a job counted, and nothing that is zero.
fn counts(job: &Value) -> Value {
    let report = job["undo"].as_object().expect("a report").iter();
    report
        .filter(|(name, count)| *name != "samples" && count.as_u64().is_some_and(|count| count > 0))
        .map(|(name, count)| (name.clone(), count.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Four products: written before the run and by it; by the run alone; by the run and again after it;
/// never by the run.
async fn shop(on: On) -> TestServer {
    let server = on.server().await;
    let features = json!({"price": {"type": "float64"}, "name": {"type": "string"}});
    server.declare("product", json!({"features": features, "ttl": "30d"})).await;
    for id in ["old", "rewritten", "untouched"] {
        run(&server, "good", &format!("product/{id}"), -3000, json!({"price": 1.5, "name": id})).await;
    }
    server.advance(60);
    for id in ["old", "fresh", "rewritten"] {
        run(&server, "bad", &format!("product/{id}"), -2000, json!({"price": -1.0})).await;
    }
    run(&server, "bad", "product/old", -1000, json!({"price": -2.0})).await;
    server.advance(60);
    run(&server, "next", "product/rewritten", -500, json!({"price": 3.5})).await;
    server.advance(60);
    server
}

async fn prices(server: &TestServer, query: &str) -> Value {
    let mut prices = Vec::new();
    for id in ["old", "fresh", "rewritten", "untouched"] {
        let read = server.read(&format!("product/{id}"), &format!("names=price&{query}")).await;
        prices.push(read["features"]["price"].clone());
    }
    prices.into()
}

async fn only_what_came_from_the_run_goes_back(on: On) {
    let server = shop(on).await;
    assert_eq!(prices(&server, "").await, json!([-2.0, -1.0, 3.5, 1.5]));
    let plan = undo(&server, "product", json!({"run_id": "bad", "dry_run": true})).await;
    let expected = json!({"entities": 3, "restored": 1, "deleted": 1, "newer": 1, "retracted": 4});
    assert_eq!(counts(&plan), expected);
    assert_eq!((&plan["processed"], &plan["changed"]), (&json!(4), &json!(3)), "{plan}");
    assert_eq!(plan["undo"]["dry_run"], true);
    let sample = |job: &Value, id: &str| {
        let samples = job["undo"]["samples"].as_array().expect("samples").clone();
        samples.into_iter().find(|sample| sample["entity_id"] == id).expect("a sample of each kind")
    };
    assert_eq!(
        sample(&plan, "old"),
        json!({"entity_id": "old", "feature": "price", "outcome": "restored", "version": null,
               "from": -2.0, "to": 1.5})
    );
    assert_eq!(prices(&server, "").await, json!([-2.0, -1.0, 3.5, 1.5]), "nothing was done");

    let job = undo(&server, "product", json!({"run_id": "bad", "reason": "prices below zero"})).await;
    assert_eq!(counts(&job), expected);
    assert_eq!(sample(&job, "fresh")["outcome"], "deleted");
    assert_eq!(sample(&job, "rewritten")["outcome"], "newer");
    assert_eq!(sample(&job, "old")["version"], 4);
    assert_eq!(prices(&server, "").await, json!([1.5, null, 3.5, 1.5]));
    assert_eq!(server.statuses("product/fresh", "names=price").await, json!({"price": "not_found"}));
    let meta = server.read("product/old", "include=metadata").await["metadata"].clone();
    assert_eq!(
        (&meta["price"]["kind"], &meta["price"]["run_id"], &meta["price"]["event_timestamp"]),
        (&json!("rollback"), &job["id"], &json!(server.time(-3000 - 180))),
        "as old as it was"
    );
    assert_eq!(meta["name"]["kind"], "write", "the run did not write it");
    assert_eq!(server.read("product/untouched", "").await["version"], 1);

    // Once more there is nothing left to do.
    let again = undo(&server, "product", json!({"run_id": "bad"})).await;
    assert_eq!((counts(&again), &again["changed"]), (json!({}), &json!(0)));
    assert_eq!(server.read("product/old", "").await["version"], 4);
    assert_eq!(server.read("product/rewritten", "").await["version"], 4, "its history was marked");
}

async fn the_past_is_told_without_it(on: On) {
    let server = shop(on).await;
    let during = format!("as_of={}", server.time(-1200));
    let spine = |more: Value| {
        let mut body = json!({"features": ["product.price"], "include": ["status"], "spine": {"columns": {
            "product_id": ["old", "old", "fresh", "rewritten"],
            "event_timestamp": [server.time(-1200), server.time(-700), server.time(-700), server.time(-100)]}}});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let training = async |more: Value| {
        let set = server.post("/v1/features/training-set", &spine(more)).await.ok();
        set["columns"]["product.price"].clone()
    };
    let export = async |query: &str| {
        let path = format!("/v1/entity-types/product/export?order=entity_id&features=price&{query}");
        let rows = server.get(&path).await.ok();
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| json!([row["entity_id"], row["version"], row["price"]])).collect::<Value>()
    };
    let poisoned = training(json!({})).await;
    assert_eq!(poisoned, json!([-1.0, -2.0, -1.0, 3.5]));
    let history = export("history=true").await;
    let read_then = prices(&server, &during).await;
    assert_eq!(read_then, json!([-1.0, -1.0, -1.0, 1.5]));

    undo(&server, "product", json!({"run_id": "bad"})).await;
    assert_eq!(training(json!({})).await, json!([1.5, 1.5, null, 3.5]));
    assert_eq!(prices(&server, &during).await, json!([1.5, null, 1.5, 1.5]));
    let batch = json!({"entities": {"product": ["old"]}, "features": ["price"], "as_of": server.time(-1200)});
    let read = server.post("/v1/features/read", &batch).await.ok();
    assert_eq!(read["results"][0]["features"]["price"], 1.5);
    assert_eq!(
        export("history=true").await,
        json!([
            ["fresh", 2, null],
            ["old", 1, 1.5],
            ["old", 4, 1.5],
            ["rewritten", 1, 1.5],
            ["rewritten", 3, 3.5],
            ["untouched", 1, 1.5]
        ])
    );
    assert_eq!(
        export(&format!("as_of={}", server.time(-1200))).await,
        json!([
            ["fresh", null, null],
            ["old", null, 1.5],
            ["rewritten", null, 1.5],
            ["untouched", null, 1.5]
        ])
    );

    // All of it is there for who asks.
    assert_eq!(training(json!({"include_retracted": true})).await, poisoned);
    assert_eq!(export("history=true&include_retracted=true").await, history);
    let shown = format!("{during}&include_retracted=true");
    assert_eq!(prices(&server, &shown).await, read_then);
    let meta = server.read("product/old", &format!("{shown}&include=metadata")).await;
    assert_eq!(meta["metadata"]["price"]["retracted_at"], server.time(0));
    let batch = json!({"entities": {"product": ["old"]}, "features": ["price"], "as_of": server.time(-1200),
        "include_retracted": true});
    let read = server.post("/v1/features/read", &batch).await.ok();
    assert_eq!(read["results"][0]["features"]["price"], -1.0);
    for version in [2, 3] {
        let then = server.get(&format!("/v1/entities/product/old/versions/{version}")).await.ok();
        assert_eq!(then["features"]["price"], json!(1.0 - f64::from(version)), "as it stood");
    }
}

async fn lineage_shows_who_retracted_what(on: On) {
    let server = shop(on).await;
    let job =
        undo(&server, "product", json!({"run_id": "bad", "source": "sync", "reason": "a bad feed"})).await;
    let lineage = server.get("/v1/entities/product/old/features/price/lineage").await.ok();
    assert_eq!(lineage["current"]["retracted"], Value::Null);
    assert_eq!(lineage["current"]["value"], 1.5);
    let history = lineage["history"].as_array().expect("a history");
    let marks: Vec<_> = history.iter().map(|past| (&past["value"], past["retracted"].is_object())).collect();
    assert_eq!(marks, [(&json!(-2.0), true), (&json!(-1.0), true), (&json!(1.5), false)]);
    let mark = &history[0]["retracted"];
    assert_eq!((&mark["version"], &mark["at"]), (&json!(4), &json!(server.time(0))));
    let by = &mark["provenance"];
    assert_eq!((&by["kind"], &by["run_id"]), (&json!("rollback"), &job["id"]));
    assert_eq!(
        by["rollback"],
        json!({"run": {"run_id": "bad", "source": "sync", "written_to": server.time(0)}, "reason": "a bad feed"})
    );
    let versions = server.get("/v1/entities/product/old/versions").await.ok();
    let retracted: Vec<_> = versions["versions"]
        .as_array()
        .expect("versions")
        .iter()
        .map(|version| (version["version"].as_u64(), version["retracted"]["price"]["version"].as_u64()))
        .collect();
    assert_eq!(retracted, [(Some(4), None), (Some(3), Some(4)), (Some(2), Some(4)), (Some(1), None)]);
}

async fn a_window_narrows_a_source(on: On) {
    let server = on.server().await;
    server.declare("product", json!({"features": {"price": {"type": "float64"}}, "ttl": "30d"})).await;
    let write = async |id: &str, source: &str, price: f64| {
        let body = json!({"features": {"price": price}, "source": source});
        server.post_features(&format!("product/{id}"), &body).await.ok();
    };
    for (price, seconds) in [(1.0, 100), (2.0, 100), (3.0, 100)] {
        write("1", "feed", price).await;
        write("2", "other", price).await;
        server.advance(seconds);
    }
    // Of the three writes, the one of 200 seconds ago.
    let window =
        json!({"source": "feed", "written_from": server.time(-250), "written_to": server.time(-150)});
    let job = undo(&server, "product", window).await;
    assert_eq!(counts(&job), json!({"entities": 1, "newer": 1, "retracted": 1}));
    assert_eq!(server.read("product/1", "").await["features"]["price"], 3.0);
    let then = server.read("product/1", &format!("as_of={}", server.time(-150))).await;
    assert_eq!(then["features"]["price"], 1.0);
    // And all that came since then, exactly.
    let since = json!({"source": "feed", "written_from": server.time(-200)});
    assert_eq!(
        counts(&undo(&server, "product", since).await),
        json!({"entities": 1, "restored": 1, "retracted": 1})
    );
    assert_eq!(server.read("product/1", "").await["features"]["price"], 1.0);
    assert_eq!(server.read("product/2", "").await["features"]["price"], 3.0, "another source");
    let far = json!({"source": "feed", "written_from": server.time(-250), "written_to": server.time(9999)});
    assert_eq!(counts(&undo(&server, "product", far).await), json!({}), "the future is not undone");
}

async fn a_mended_run_is_taken(on: On) {
    let server = shop(on).await;
    undo(&server, "product", json!({"run_id": "bad"})).await;
    // The very events of the bad run, as one of them was right, and others of the same time.
    for (id, seconds, price, outcome) in [
        ("old", -2120, -1.0, "applied"),
        ("old", -2120, -1.0, "unchanged"),
        ("old", -2120, 7.5, "applied"),
        ("fresh", -2500, 8.5, "applied"),
        ("fresh", -2120, -1.0, "applied"),
    ] {
        let written =
            run(&server, "mended", &format!("product/{id}"), seconds, json!({"price": price})).await;
        assert_eq!(written["outcomes"]["price"], outcome, "{id} {seconds} {price}");
    }
    assert_eq!(prices(&server, "").await, json!([7.5, -1.0, 3.5, 1.5]));
}

async fn an_undo_can_be_undone(on: On) {
    let server = shop(on).await;
    let during = format!("as_of={}", server.time(-1200));
    let before = (prices(&server, "").await, prices(&server, &during).await);
    let job = undo(&server, "product", json!({"run_id": "bad"})).await;
    let undone = (prices(&server, "").await, prices(&server, &during).await);
    server.advance(1);
    let back = undo(&server, "product", json!({"run_id": job["id"]})).await;
    assert_eq!(
        counts(&back),
        json!({"entities": 3, "restored": 2, "retracted": 2, "reinstated": 4}),
        "the rewritten one is reinstated alone"
    );
    assert_eq!((prices(&server, "").await, prices(&server, &during).await), before);
    let lineage = server.get("/v1/entities/product/old/features/price/lineage").await.ok();
    assert_eq!(lineage["history"][0]["retracted"]["reinstated"], 5, "{lineage}");
    assert_eq!(server.get("/v1/entities/product/old/versions/4").await.ok()["features"]["price"], 1.5);
    server.advance(1);
    undo(&server, "product", json!({"run_id": back["id"]})).await;
    assert_eq!((prices(&server, "").await, prices(&server, &during).await), undone);
}

async fn what_is_computed_follows(on: On) {
    let server = on.server().await;
    let schema = |margin: &str| {
        json!({"ttl": "30d", "features": {
        "price": {"type": "float64"}, "cost": {"type": "float64"},
        "margin": {"type": "float64", "computed": {"function": "margin"}},
        "good": {"type": "boolean", "computed": {"function": "good"}},
        "shown": {"type": "string", "computed": {"function": "shown", "on": "read"}}},
        "transformations": format!("def margin(price, cost):\n    return {margin}\n\ndef good(margin):\n    return margin > 0\n\ndef shown(margin):\n    return str(margin)\n")})
    };
    server.declare("item", schema("price - cost")).await;
    run(&server, "good", "item/1", -3000, json!({"price": 5.0, "cost": 1.0})).await;
    run(&server, "bad", "item/1", -2000, json!({"price": 0.0})).await;
    // Of another run, and computed from the bad price.
    run(&server, "good", "item/1", -1000, json!({"cost": 2.0})).await;
    let values = async |query: &str| {
        let features = server.read("item/1", query).await["features"].clone();
        json!([features["price"], features["cost"], features["margin"], features["good"], features["shown"]])
    };
    assert_eq!(values("").await, json!([0.0, 2.0, -2.0, false, "-2.0"]));
    let job = undo(&server, "item", json!({"run_id": "bad"})).await;
    assert_eq!(
        counts(&job),
        json!({"entities": 1, "restored": 1, "recomputed": 2, "retracted": 5}),
        "price once, margin and good twice: {job}"
    );
    assert_eq!(values("").await, json!([5.0, 2.0, 3.0, true, "3.0"]));
    assert_eq!(server.read("item/1", "").await["version"], 4, "one version holds all of it");
    let then = values(&format!("as_of={}", server.time(-1500))).await;
    assert_eq!(then, json!([5.0, 1.0, 4.0, true, "4.0"]));
    let shown = values(&format!("as_of={}&include_retracted=true", server.time(-500))).await;
    assert_eq!(shown, json!([0.0, 2.0, -2.0, false, "-2.0"]));
    // A computation is undone by computing anew, with the functions of now.
    server.put("/v1/entity-types/item", &schema("price - cost - 100")).await.ok();
    let recompute = server.post("/v1/entity-types/item/recompute", &json!({})).await.status(202);
    let location = format!("/v1/jobs/{}", recompute["id"].as_str().expect("an id"));
    eventually("the job to end", || async {
        (server.get(&location).await.ok()["state"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(values("names=margin").await[2], json!(-97.0));
    server.put("/v1/entity-types/item", &schema("price - cost")).await.ok();
    undo(&server, "item", json!({"run_id": recompute["id"]})).await;
    assert_eq!(values("").await, json!([5.0, 2.0, 3.0, true, "3.0"]));
}

async fn only_the_features_asked_for(on: On) {
    let server = shop(on).await;
    run(&server, "bad", "product/old", -900, json!({"name": "bad"})).await;
    undo(&server, "product", json!({"run_id": "bad", "features": ["name"]})).await;
    let read = server.read("product/old", "").await;
    assert_eq!(read["features"], json!({"price": -2.0, "name": "old"}));
    let then = server.read("product/old", &format!("names=price&as_of={}", server.time(-1200))).await;
    assert_eq!(then["features"]["price"], -1.0, "another feature's past is as it was");
}

async fn what_is_not_kept_is_not_invented(on: On) {
    let server = on.server().await;
    let features = json!({"plain": {"type": "int64", "versioning": false},
        "short": {"type": "int64", "max_versions": 2}, "long": {"type": "int64"}});
    server.declare("item", json!({"features": features, "ttl": "30d"})).await;
    run(&server, "good", "item/1", -100, json!({"plain": 1, "short": 1, "long": 1})).await;
    for seconds in [-90, -80] {
        let features = json!({"plain": seconds, "short": seconds, "long": seconds});
        run(&server, "bad", "item/1", seconds, features.clone()).await;
        run(&server, "bad", "item/2", seconds, features).await;
    }
    let dry = json!({"run_id": "bad", "dry_run": true});
    let expected = json!({"entities": 2, "restored": 1, "deleted": 2, "not_restorable": 3, "retracted": 6});
    let plan = undo(&server, "item", dry).await;
    assert_eq!(counts(&plan), expected, "{plan}");
    assert_eq!(counts(&undo(&server, "item", json!({"run_id": "bad"})).await), expected);
    let read = async |id: &str| server.read(&format!("item/{id}"), "").await["features"].clone();
    assert_eq!(read("1").await, json!({"plain": -80, "short": -80, "long": 1}), "no value is made up");
    assert_eq!(read("2").await, json!({"plain": -80, "short": null, "long": null}));
    let delete = json!({"run_id": "bad", "not_restorable": "delete"});
    let job = undo(&server, "item", delete).await;
    assert_eq!(counts(&job)["deleted_without_past"], 3, "{job}");
    assert_eq!(read("1").await, json!({"plain": null, "short": null, "long": 1}));
    // What has a history can be had back.
    undo(&server, "item", json!({"run_id": job["id"]})).await;
    assert_eq!(read("1").await, json!({"plain": null, "short": -80, "long": 1}));
}

async fn what_is_wrong_with_an_undo_is_said(on: On) {
    let server = shop(on).await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!({"source": "sync"}), 400, "invalid_request"),
        (json!({"run_id": "bad", "written_from": server.time(10)}), 400, "invalid_request"),
        (
            json!({"run_id": "bad", "written_from": server.time(-1), "written_to": server.time(-2)}),
            400,
            "invalid_request",
        ),
        (json!({"run_id": "bad", "features": ["colour"]}), 400, "unknown_feature"),
        (json!({"run_id": "bad", "features": []}), 400, "invalid_request"),
        (json!({"run_id": "bad", "reason": "x".repeat(1025)}), 400, "invalid_request"),
        (json!({"run_id": "x".repeat(1025)}), 400, "invalid_request"),
        (json!({"run_id": "bad", "not_restorable": "perhaps"}), 400, "invalid_request"),
    ] {
        server.post("/v1/entity-types/product/rollback", &body).await.problem(status, code);
    }
    let nobody = server.post("/v1/entity-types/nothing/rollback", &json!({"run_id": "bad"})).await;
    nobody.problem(404, "unknown_entity_type");
    for path in [
        "/v1/entities/product/old/features?include_retracted=true",
        "/v1/entity-types/product/export?include_retracted=true",
    ] {
        server.get(path).await.problem(400, "invalid_request");
    }
    assert_eq!(prices(&server, "").await, json!([-2.0, -1.0, 3.5, 1.5]));
    assert_eq!(server.get("/v1/jobs").await.ok()["jobs"], json!([]), "no job was started");
}
