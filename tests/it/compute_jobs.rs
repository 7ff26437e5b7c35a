//! Computing a whole entity type anew as a job, and the graph.

use serde_json::{Value, json};

use crate::client::Client;
use crate::on_both_stores;
use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;
use crate::test_server::On;

on_both_stores!(
    a_changed_function_is_computed_again_by_a_job,
    failures_are_counted,
    the_graph_has_three_forms
);

fn schema(function: &str) -> Value {
    json!({
        "features": {"a": {"type": "int64"}, "b": {"type": "int64", "computed": {"function": "b"}}},
        "transformations": format!("def b(a):\n    return {function}\n"),
    })
}

async fn fill(client: &Client, count: usize) {
    let rows: Vec<Value> =
        (0..count).map(|n| json!({"entity_id": n.to_string(), "features": {"a": n}})).collect();
    for rows in rows.chunks(1000) {
        client.post("/v1/features/write", &json!({"entity_type": "item", "rows": rows})).await.ok();
    }
}

/// Starts the job and gives its location.
async fn recompute(client: &Client) -> String {
    let answer = client.post("/v1/entity-types/item/recompute", &json!({})).await;
    let job = answer.status(202);
    let location = answer.header("location").to_owned();
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().expect("an id")));
    assert_eq!((&job["kind"], &job["subject"]), (&json!("recompute"), &json!("item")));
    location
}

async fn ended(client: &Client, location: &str) -> Value {
    eventually("the job to end", || async {
        let job = client.get(location).await.ok();
        (!matches!(job["state"].as_str(), Some("queued" | "running"))).then_some(job)
    })
    .await
}

async fn a_changed_function_is_computed_again_by_a_job(on: On) {
    let server = on.server().await;
    server.declare("item", schema("a + 1")).await;
    fill(&server, 50).await;
    server.put("/v1/entity-types/item", &schema("a * 10")).await.ok();
    assert_eq!(server.read("item/7", "names=b").await["features"], json!({"b": 8}), "stays until then");
    let location = recompute(&server).await;
    let job = ended(&server, &location).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!((&job["processed"], &job["failed"]), (&json!(50), &json!(0)), "{job}");
    for id in [0, 7, 49] {
        assert_eq!(server.read(&format!("item/{id}"), "names=b").await["features"], json!({"b": id * 10}));
    }
    let meta = server.read("item/7", "names=b&include=metadata").await["metadata"]["b"].clone();
    assert_eq!(
        (&meta["version"], &meta["kind"], &meta["source"]),
        (&json!(2), &json!("compute"), &json!("recompute"))
    );
    assert_eq!(meta["run_id"], job["id"]);
    let jobs = server.get("/v1/jobs").await.ok();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(jobs["jobs"][0], job);
    // Cancelling what is over changes nothing; nothing else is there.
    assert_eq!(server.post(&format!("{location}/cancel"), &json!({})).await.ok()["state"], "succeeded");
    server.get("/v1/jobs/none").await.problem(404, "invalid_request");
    server.post("/v1/entity-types/none/recompute", &json!({})).await.problem(404, "unknown_entity_type");
    server.write("plain/1", json!({"a": 1})).await;
    server.post("/v1/entity-types/plain/recompute", &json!({})).await.problem(400, "invalid_request");
}

async fn failures_are_counted(on: On) {
    let server = on.server().await;
    server.declare("item", schema("a + 1")).await;
    fill(&server, 5).await;
    server.put("/v1/entity-types/item", &schema("10 // a")).await.ok();
    let job = ended(&server, &recompute(&server).await).await;
    assert_eq!(
        (&job["state"], &job["processed"], &job["failed"]),
        (&json!("succeeded"), &json!(5), &json!(1)),
        "{job}"
    );
    assert!(
        job["errors"][0].as_str().is_some_and(|error| error.starts_with("0: ") && error.contains("by zero")),
        "{job}"
    );
    assert_eq!(server.read("item/0", "names=b").await["features"], json!({"b": 1}), "it keeps what it had");
    assert_eq!(server.read("item/2", "names=b").await["features"], json!({"b": 5}));
}

async fn the_graph_has_three_forms(on: On) {
    let server = on.server().await;
    server.declare("product", crate::compute::shop()).await;
    let graph = server.get("/v1/entity-types/product/graph").await.ok();
    let edges = graph["edges"].as_array().expect("edges");
    for (from, to) in [
        ("price", "price_range"),
        ("price_range", "is_premium"),
        ("description", "combined_text"),
        ("now", "age_days"),
    ] {
        assert!(edges.contains(&json!({"from": from, "to": to})), "{from} -> {to}: {graph}");
    }
    let kind = |name: &str| {
        let nodes = graph["nodes"].as_array().expect("nodes");
        nodes.iter().find(|node| node["name"] == name).map(|node| node["kind"].clone())
    };
    assert_eq!(kind("description"), Some(json!("raw_input")));
    assert_eq!(kind("age_days"), Some(json!("computed_on_read")));
    let dot = server.get("/v1/entity-types/product/graph?format=dot").await;
    assert!(dot.text().contains("\"price\" -> \"price_range\";"), "{}", dot.text());
    let mermaid = server.get("/v1/entity-types/product/graph?format=mermaid").await;
    assert!(mermaid.text().contains("price --> price_range"), "{}", mermaid.text());
}

/// Long enough to be caught at work.
const SLOW: &str = "len([x for x in range(60000)]) + a";

/// A server looks for another's change of the schema before it computes, instead of after a second.
#[tokio::test]
async fn a_function_that_another_server_got_is_computed_with() {
    let redis = RedisServer::start(Durability::None);
    let launches = [Launch::on_redis(&redis), Launch::on_redis(&redis)];
    let (one, other) = tokio::join!(launches[0].start(), launches[1].start());
    one.client.declare("item", schema("a")).await;
    fill(&one.client, 3).await;
    for factor in 2..5 {
        one.client.put("/v1/entity-types/item", &schema(&format!("a * {factor}"))).await.ok();
        let location = recompute(&other.client).await;
        assert_eq!(ended(&other.client, &location).await["changed"], 2, "all but 0");
        let read = other.client.read("item/2", "names=b").await;
        assert_eq!(read["features"]["b"], 2 * factor);
    }
}

#[tokio::test]
async fn a_job_can_be_cancelled() {
    let server = On::Embedded.server().await;
    server.declare("item", schema("a")).await;
    fill(&server, 3000).await;
    server.put("/v1/entity-types/item", &schema(SLOW)).await.ok();
    let location = recompute(&server).await;
    eventually("the job to be at work", || async {
        let job = server.get(&location).await.ok();
        (job["processed"].as_u64() > Some(0)).then_some(())
    })
    .await;
    server.post(&format!("{location}/cancel"), &json!({})).await.ok();
    let job = ended(&server, &location).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    assert!(job["processed"].as_u64() < Some(3000), "{job}");
}

#[tokio::test]
async fn a_job_whose_server_was_killed_is_interrupted() {
    let launch = Launch::embedded();
    let mut server = launch.start().await;
    server.client.declare("item", schema("a")).await;
    fill(&server.client, 3000).await;
    server.client.put("/v1/entity-types/item", &schema(SLOW)).await.ok();
    let location = recompute(&server.client).await;
    eventually("the job to be at work", || async {
        let job = server.client.get(&location).await.ok();
        (job["processed"].as_u64() > Some(0)).then_some(())
    })
    .await;
    server.kill();
    let server = launch.start().await;
    let job = server.client.get(&location).await.ok();
    assert_eq!(job["state"], "interrupted", "{job}");
    // It can simply be started again.
    server.client.put("/v1/entity-types/item", &schema("a + 2")).await.ok();
    let job = ended(&server.client, &recompute(&server.client).await).await;
    assert_eq!((&job["state"], &job["processed"]), (&json!("succeeded"), &json!(3000)), "{job}");
}
