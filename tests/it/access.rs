//! Who is let in: every route with every kind of key, entity types that a key is not for, keys that
//! change while the server runs, rates, and places.

use std::path::Path;

use feature_store::config::{Config, Secret};
use feature_store::domain::time::Span;
use feature_store::keys::fingerprint;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Answer;
use crate::on_both_stores;
use crate::redis_process::eventually;
use crate::test_server::{On, TestServer};

/// A key is its name here, so that tests can be read.
pub fn document(keys: &[(&str, Value)]) -> String {
    let keys = keys.iter().map(|(name, more)| {
        let mut entry = json!({"name": name, "sha256": fingerprint(name)});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    });
    json!({"keys": keys.collect::<Vec<_>>()}).to_string()
}

fn everybody() -> String {
    document(&[
        ("reader", json!({"scopes": ["read"]})),
        ("writer", json!({"scopes": ["write"]})),
        ("admin", json!({"scopes": ["admin"]})),
        ("all", json!({"scopes": ["read", "write", "admin"]})),
        ("products", json!({"scopes": ["read", "write", "admin"], "entity_types": ["product"]})),
        ("expiring", json!({"scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z"})),
        ("slow", json!({"scopes": ["read"], "rate_limit": 1, "rate_burst": 2})),
    ])
}

fn with_everybody(config: &mut Config) {
    config.api_keys = Some(Secret::new(everybody()));
}

async fn send(server: &TestServer, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let mut request = server.request(method, path);
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    server.send(request).await
}

async fn get(server: &TestServer, key: &str, path: &str) -> Answer {
    send(server, key, Method::GET, path, None).await
}

async fn post(server: &TestServer, key: &str, path: &str, body: Value) -> Answer {
    send(server, key, Method::POST, path, Some(&body)).await
}

async fn put(server: &TestServer, key: &str, path: &str, body: Value) -> Answer {
    send(server, key, Method::PUT, path, Some(&body)).await
}

/// Method, path with everything filled in, and what the document says that it needs.
fn operations(entity_type: &str) -> Vec<(Method, String, String)> {
    let document = serde_json::to_value(feature_store::http::openapi()).unwrap();
    let placeholder = regex::Regex::new(r"\{[a-z_]+\}").unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(access) = operation["x-access"].as_str() else {
                panic!("{method} {path} does not say what it needs")
            };
            let path = path.replace("{entity_type}", entity_type).replace("{version}", "1");
            let path = placeholder.replace_all(&path, "x").into_owned();
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            operations.push((method, path, access.to_owned()));
        }
    }
    assert!(operations.len() >= 30, "{operations:?}");
    operations
}

#[tokio::test]
async fn every_route_lets_in_the_keys_of_its_scope_and_no_other() {
    let server = On::Embedded.server_with(with_everybody).await;
    for (method, path, access) in operations("product") {
        let what = format!("{method} {path}");
        for key in ["", "nobody", "reader", "writer", "admin"] {
            let answer = send(&server, key, method.clone(), &path, None).await;
            let open = matches!(access.as_str(), "probe" | "docs" | "metrics");
            let allowed = open
                || matches!(
                    (key, access.as_str()),
                    ("reader", "read") | ("writer", "write") | ("admin", "admin")
                );
            match (allowed, key) {
                (true, _) => {
                    assert!(![401, 403].contains(&answer.status), "{what} as {key:?}: {}", answer.text())
                }
                (false, "" | "nobody") => drop(answer.problem(401, "unauthorized")),
                (false, _) => drop(answer.problem(403, "forbidden")),
            }
        }
    }
    // HEAD is GET without its body.
    let head = send(&server, "", Method::HEAD, "/v1/entity-types", None).await;
    assert_eq!(head.status, 401);
    // What is not there needs no key, and the documentation works without one.
    server.get("/no/such/path").await.problem(404, "invalid_request");
    assert_eq!(server.get("/docs/").await.status, 200);
}

#[tokio::test]
async fn a_key_for_other_entity_types_is_refused_by_every_route_that_names_one() {
    let server = On::Embedded.server_with(with_everybody).await;
    let named: Vec<_> =
        operations("user").into_iter().filter(|(_, path, _)| path.contains("/user")).collect();
    assert!(named.len() >= 15, "{named:?}");
    for (method, path, _) in named {
        let answer = send(&server, "products", method.clone(), &path, None).await;
        let problem = answer.problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("user"), "{method} {path}: {problem}");
    }
}

async fn a_key_reads_and_writes_its_entity_types_alone(on: On) {
    let server = on.server_with(with_everybody).await;
    let features = |n: i64| json!({"features": {"n": n}});
    post(&server, "writer", "/v1/entities/product/1/features", features(1)).await.ok();
    post(&server, "writer", "/v1/entities/user/7/features", features(2)).await.ok();
    let services = "/v1/feature-services";
    put(&server, "admin", &format!("{services}/mixed"), json!({"features": ["product.n", "user.n"]}))
        .await
        .status(201);
    put(&server, "admin", &format!("{services}/plain"), json!({"features": ["product.n"]})).await.status(201);

    let key = "products";
    // One entity.
    assert_eq!(get(&server, key, "/v1/entities/product/1/features").await.ok()["features"]["n"], 1);
    get(&server, key, "/v1/entities/user/7/features").await.problem(403, "forbidden");
    // Whether it is there or not is nothing to learn.
    get(&server, key, "/v1/entities/nothing/7/features").await.problem(403, "forbidden");
    post(&server, key, "/v1/entities/user/7/features", features(3)).await.problem(403, "forbidden");
    // Batches.
    let read = |entities: Value, rest: Value| {
        let mut body = json!({ "entities": entities });
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        body
    };
    let read_path = "/v1/features/read";
    post(&server, key, read_path, read(json!({"product": ["1"]}), json!({"features": ["product.n"]})))
        .await
        .ok();
    for entities in [json!({"user": ["7"]}), json!({"product": ["1"], "user": ["7"]})] {
        let body = read(entities, json!({"features": ["product.n", "user.n"]}));
        post(&server, key, read_path, body).await.problem(403, "forbidden");
    }
    let rows = |entity_type: &str| json!({"entity_type": entity_type, "rows": [{"entity_id": "9", "features": {"n": 5}}]});
    post(&server, key, "/v1/features/write", rows("product")).await.ok();
    post(&server, key, "/v1/features/write", rows("user")).await.problem(403, "forbidden");
    // Feature services, with all that they span.
    let of = |service: &str| read(json!({"product": ["1"]}), json!({ "feature_service": service }));
    post(&server, key, read_path, of("plain")).await.ok();
    post(&server, key, read_path, of("mixed")).await.problem(403, "forbidden");
    get(&server, key, "/v1/entities/product/1/features?feature_service=mixed")
        .await
        .problem(403, "forbidden");
    get(&server, key, &format!("{services}/mixed")).await.problem(403, "forbidden");
    put(&server, key, &format!("{services}/mixed"), json!({"features": ["product.n"]}))
        .await
        .problem(403, "forbidden");
    put(&server, key, &format!("{services}/new"), json!({"features": ["user.n"]}))
        .await
        .problem(403, "forbidden");
    send(&server, key, Method::DELETE, &format!("{services}/mixed"), None).await.problem(403, "forbidden");
    // Listings show what the key is for.
    let listed = get(&server, key, "/v1/entity-types").await.ok();
    assert_eq!(listed["entity_types"].as_array().unwrap().len(), 1, "{listed}");
    let listed = get(&server, key, services).await.ok();
    assert_eq!(listed["feature_services"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["feature_services"][0]["name"], "plain");
    let lineage = get(&server, key, "/v1/entities/product/1/features/n/lineage").await.ok();
    assert_eq!(lineage["used_by"]["feature_services"], json!(["plain@1"]));
    // What is of everything.
    post(&server, key, "/v1/admin/backup", json!({})).await.problem(403, "forbidden");
    // The registry.
    put(&server, key, "/v1/entity-types/user", json!({"features": {}})).await.problem(403, "forbidden");
    assert_eq!(
        get(&server, "reader", "/v1/entities/user/7/features").await.ok()["features"]["n"],
        2,
        "untouched"
    );
}

async fn jobs_are_seen_by_those_who_may_see_their_subject(on: On) {
    let server = on.server_with(with_everybody).await;
    let schema = json!({"features": {"n": {"type": "int64"}, "double": {"type": "int64", "computed": {"function": "double"}}},
        "transformations": "def double(n):\n    return n * 2\n"});
    for entity_type in ["product", "user"] {
        put(&server, "admin", &format!("/v1/entity-types/{entity_type}"), schema.clone()).await.status(201);
        let path = format!("/v1/entity-types/{entity_type}/recompute");
        send(&server, "admin", Method::POST, &path, None).await.status(202);
    }
    let all = get(&server, "reader", "/v1/jobs").await.ok();
    assert_eq!(all["jobs"].as_array().unwrap().len(), 2);
    let seen = get(&server, "products", "/v1/jobs").await.ok();
    assert_eq!(seen["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(seen["jobs"][0]["subject"], "product");
    let hidden = all["jobs"].as_array().unwrap().iter().find(|job| job["subject"] == "user").unwrap();
    let path = format!("/v1/jobs/{}", hidden["id"].as_str().unwrap());
    get(&server, "products", &path).await.problem(404, "invalid_request");
}

async fn a_run_is_undone_in_the_entity_types_of_the_key(on: On) {
    let server = on.server_with(with_everybody).await;
    for entity in ["product/1", "user/1"] {
        let body = json!({"features": {"n": 1}, "run_id": "bad"});
        post(&server, "writer", &format!("/v1/entities/{entity}/features"), body).await.ok();
    }
    let undo = async |key: &str, of: &str| {
        post(&server, key, &format!("/v1/entity-types/{of}/rollback"), json!({"run_id": "bad"})).await
    };
    undo("writer", "product").await.problem(403, "forbidden");
    undo("products", "user").await.problem(403, "forbidden");
    let job = undo("products", "product").await.status(202);
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let job = eventually("the job to end", || async {
        let job = get(&server, "products", &path).await.ok();
        (!matches!(job["state"].as_str(), Some("queued" | "running"))).then_some(job)
    })
    .await;
    assert_eq!((&job["state"], &job["undo"]["deleted"]), (&json!("succeeded"), &json!(1)), "{job}");
    let lineage = get(&server, "reader", "/v1/entities/product/1/features/n/lineage").await.ok();
    assert_eq!(lineage["history"][0]["retracted"]["provenance"]["actor"], "products");
    assert_eq!(get(&server, "reader", "/v1/entities/user/1/features").await.ok()["features"]["n"], 1);
}

async fn the_actor_of_a_write_is_the_name_of_its_key(on: On) {
    let server = on.server_with(with_everybody).await;
    post(&server, "writer", "/v1/entities/product/1/features", json!({"features": {"n": 1}})).await.ok();
    post(&server, "all", "/v1/entities/product/1/features", json!({"features": {"n": 2}})).await.ok();
    post(&server, "writer", "/v1/entities/product/1/rollback", json!({"to_version": 1})).await.ok();
    let versions = get(&server, "reader", "/v1/entities/product/1/versions").await.ok();
    let actors: Vec<&str> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["provenance"]["actor"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(actors, ["writer", "all", "writer"]);
}

on_both_stores!(
    a_key_reads_and_writes_its_entity_types_alone,
    jobs_are_seen_by_those_who_may_see_their_subject,
    a_run_is_undone_in_the_entity_types_of_the_key,
    the_actor_of_a_write_is_the_name_of_its_key,
);

#[tokio::test]
async fn every_bad_key_gets_the_same_answer() {
    let server = On::Embedded.server_with(with_everybody).await;
    let path = "/v1/entity-types";
    let shape = |answer: &Answer| {
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"feature-store\"");
        let mut problem = answer.problem(401, "unauthorized");
        problem.as_object_mut().unwrap().remove("request_id");
        problem
    };
    let missing = shape(&server.get(path).await);
    get(&server, "expiring", path).await.ok();
    server.advance(40_000_000_000);
    for (name, value) in [
        ("authorization", "Bearer nobody"),
        ("authorization", "Bearer expiring"),
        ("authorization", "Bearer "),
        ("authorization", "Basic cmVhZGVyOg=="),
        ("authorization", "reader"),
        ("x-api-key", "nobody"),
        ("x-api-key", ""),
    ] {
        let answer = server.send(server.request(Method::GET, path).header(name, value)).await;
        assert_eq!(shape(&answer), missing, "{name}: {value}");
    }
    for (name, value) in [("authorization", "bearer reader"), ("x-api-key", "reader")] {
        server.send(server.request(Method::GET, path).header(name, value)).await.ok();
    }
}

fn write(path: &Path, text: &str) {
    // As a whole, as every careful writer does it.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn keys_change_without_a_restart() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("keys.yaml");
    write(&file, &document(&[("old", json!({"scopes": ["read"]}))]));
    let server = On::Embedded
        .server_with(|config| {
            config.api_keys_file = Some(file.clone());
            config.reload_interval = Span::from_millis(10).unwrap();
        })
        .await;
    let status = async |key: &str| get(&server, key, "/v1/entity-types").await.status;
    let becomes = async |key: &str, wanted: u16| {
        eventually("the keys to be read again", || async { (status(key).await == wanted).then_some(()) })
            .await;
    };
    assert_eq!((status("old").await, status("new").await), (200, 401));
    // Both while one replaces the other, then the new one alone.
    write(&file, &document(&[("old", json!({"scopes": ["read"]})), ("new", json!({"scopes": ["read"]}))]));
    becomes("new", 200).await;
    assert_eq!(status("old").await, 200);
    write(&file, &document(&[("new", json!({"scopes": ["read"]}))]));
    becomes("old", 401).await;
    // A file that is no good, or gone, leaves the keys as they are, and says so in the metrics.
    let failed = || async {
        let text = server.get("/metrics").await.text();
        let series = "feature_store_reload_failures_total{what=\"api_keys\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(series)?.parse::<u64>().ok());
        (count? > 0).then_some(())
    };
    write(&file, "keys: [");
    eventually("the failure to show", failed).await;
    assert_eq!(status("new").await, 200);
    std::fs::remove_file(&file).unwrap();
    write(&file, &document(&[("newer", json!({"scopes": ["read"]}))]));
    becomes("newer", 200).await;
    assert_eq!(status("new").await, 401);
}

#[tokio::test]
async fn a_key_is_used_as_often_as_its_rate_allows() {
    let server = On::Embedded.server_with(with_everybody).await;
    let path = "/v1/entity-types";
    for _ in 0..2 {
        get(&server, "slow", path).await.ok();
    }
    let refused = get(&server, "slow", path).await;
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "1");
    get(&server, "reader", path).await.ok();
    server.advance(1);
    get(&server, "slow", path).await.ok();
    get(&server, "slow", path).await.problem(429, "rate_limited");
}

#[tokio::test]
async fn what_is_too_much_is_refused_while_the_rest_is_answered() {
    let server = On::Embedded
        .server_with(|config| {
            config.max_concurrent_requests = 1;
            config.request_timeout = Span::from_secs(60);
        })
        .await;
    // Takes the only place and keeps it: a body that does not come.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/features/read HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    eventually("the place to be taken", || async {
        (server.get("/v1/entity-types").await.status == 503).then_some(())
    })
    .await;
    let refused = server.get("/v1/entity-types").await;
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    // Probes are answered at any load.
    server.get("/livez").await.ok();
    server.get("/readyz").await.ok();
    assert_eq!(server.get("/metrics").await.status, 200);
    drop(slow);
    eventually("the place to be free", || async {
        (server.get("/v1/entity-types").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn changes_that_matter_are_noted() {
    let dir = tempfile::TempDir::new().unwrap();
    let log = dir.path().join("audit.jsonl");
    let server = On::Embedded
        .server_with(|config| {
            with_everybody(config);
            config.audit_log = Some(log.clone());
        })
        .await;
    put(&server, "admin", "/v1/entity-types/product", json!({"features": {"n": {"type": "int64"}}}))
        .await
        .status(201);
    put(&server, "reader", "/v1/entity-types/product", json!({"features": {}}))
        .await
        .problem(403, "forbidden");
    post(&server, "writer", "/v1/entities/product/1/features", json!({"features": {"n": 1}})).await.ok();
    let deleted = send(&server, "writer", Method::DELETE, "/v1/entities/product/1?", None).await;
    deleted.no_content();
    send(&server, "", Method::DELETE, "/v1/entities/product/2", None).await.problem(401, "unauthorized");
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["actor"].as_str().unwrap(),
                line["method"].as_str().unwrap(),
                line["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("admin", "PUT", "ok"),
            ("reader", "PUT", "refused"),
            ("writer", "DELETE", "ok"),
            ("", "DELETE", "refused")
        ]
    );
    assert_eq!(lines[2]["request_id"], deleted.header("x-request-id"));
    assert_eq!(lines[2]["path"], "/v1/entities/product/1");
    assert!(!text.contains("Bearer"));
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_where_they_are_named() {
    let preflight = async |server: &TestServer, origin: &str| {
        let request = server.request(Method::OPTIONS, "/v1/features/read");
        let request = request.header("origin", origin).header("access-control-request-method", "POST");
        server.send(request.header("access-control-request-headers", "authorization,content-type")).await
    };
    let closed = On::Embedded.server().await;
    assert_eq!(preflight(&closed, "https://a.example").await.header("access-control-allow-origin"), "");
    let server = On::Embedded
        .server_with(|config| {
            with_everybody(config);
            config.cors_origins = vec!["https://a.example".to_owned()];
        })
        .await;
    let allowed = preflight(&server, "https://a.example").await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, "https://a.example"));
    for header in ["authorization", "prefer"] {
        assert!(allowed.header("access-control-allow-headers").contains(header), "{header}");
    }
    assert_eq!(preflight(&server, "https://b.example").await.header("access-control-allow-origin"), "");
    let request = server.request(Method::GET, "/v1/entity-types").header("origin", "https://a.example");
    let refused = server.send(request).await;
    refused.problem(401, "unauthorized");
    assert_eq!(refused.header("access-control-allow-origin"), "https://a.example", "the page may read why");
    server.get("/livez").await.ok();
}
