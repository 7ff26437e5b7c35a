//! Traces as a collector receives them (OTLP over HTTP), from real servers on both stores.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::redis_process::{Durability, RedisServer, eventually};
use crate::server_process::Launch;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What came in, and with which headers.
#[derive(Default)]
struct Received {
    messages: Vec<Value>,
    headers: Vec<HeaderMap>,
}

/// A collector; what it was told stays with it.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

type Inbox = State<Arc<Mutex<Received>>>;

async fn take(State(inbox): Inbox, headers: HeaderMap, body: axum::Json<Value>) -> axum::Json<Value> {
    let mut inbox = inbox.lock().expect("nobody panicked");
    inbox.messages.push(body.0);
    inbox.headers.push(headers);
    axum::Json(json!({}))
}

async fn embed(State(inbox): Inbox, headers: HeaderMap, body: axum::Json<Value>) -> axum::Json<Value> {
    inbox.lock().expect("nobody panicked").headers.push(headers);
    let count = body["input"].as_array().expect("texts").len();
    let item = |index| json!({"index": index, "embedding": [1.0, 2.0]});
    axum::Json(json!({"data": (0..count).map(item).collect::<Vec<_>>()}))
}

/// A span, as far as the tests look at it.
#[derive(Clone, Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, Value>,
}

impl Collector {
    /// Also answers as a provider of embeddings and as a receiver of alerts.
    async fn start() -> Self {
        let received = Arc::<Mutex<Received>>::default();
        let router = axum::Router::new()
            .route("/v1/traces", post(take))
            .route("/embeddings", post(embed))
            .route("/api/v2/alerts", post(take))
            .with_state(received.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, received }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn text(&self) -> String {
        let received = self.received.lock().expect("nobody panicked");
        received.messages.iter().map(Value::to_string).collect()
    }

    fn headers(&self, name: &str) -> Vec<String> {
        let received = self.received.lock().expect("nobody panicked");
        let values = received.headers.iter().filter_map(|headers| headers.get(name));
        values.map(|value| value.to_str().expect("text").to_owned()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().expect("nobody panicked");
        let each = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attribute = |pair: &Value| {
            let value = pair["value"].as_object().and_then(|value| value.values().next().cloned());
            (text(&pair["key"]), value.unwrap_or_default())
        };
        let resources = received.messages.iter().flat_map(|message| each(message, "resourceSpans"));
        let scopes = resources.flat_map(|resource| each(&resource, "scopeSpans"));
        let spans = scopes.flat_map(|scope| each(&scope, "spans"));
        let span = |span: Value| Span {
            name: text(&span["name"]),
            trace: text(&span["traceId"]),
            id: text(&span["spanId"]),
            parent: text(&span["parentSpanId"]),
            attributes: each(&span, "attributes").iter().map(attribute).collect(),
        };
        spans.map(span).collect()
    }

    /// Waits for a span of this name.
    async fn span(&self, name: &str) -> Span {
        eventually(name, || async { self.spans().into_iter().find(|span| span.name == name) }).await
    }
}

/// The spans of a write and a read that a caller began.
async fn requests_are_traced(launch: Launch, backend: &str) {
    let collector = Collector::start().await;
    let launch = launch
        .with("OTLP_ENDPOINT", &collector.url())
        .with("OTLP_HEADERS", "X-Tenant=shop, Authorization=Bearer secret")
        .with("CACHE_BYTES", "0");
    let mut server = launch.start().await;
    let path = "/v1/entities/product/confidential-id/features";
    let ask = |method, path: &str| {
        server.client.request(method, path).header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
    };
    let body = json!({"features": {"price": 1234.5678}});
    server.client.send(ask(reqwest::Method::POST, path).json(&body)).await.ok();
    server.client.send(ask(reqwest::Method::GET, &format!("{path}?names=price"))).await.ok();

    let route = "/v1/entities/{entity_type}/{entity_id}/features";
    let read = collector.span(&format!("GET {route}")).await;
    assert_eq!((read.trace.as_str(), read.parent.as_str()), (TRACE, CALLER));
    assert_eq!(read.attributes["http.route"], route);
    assert_eq!(read.attributes["http.response.status_code"].to_string().trim_matches('"'), "200");
    let service = collector.span("service.read").await;
    assert_eq!((&service.trace, &service.parent), (&read.trace, &read.id));
    assert_eq!(service.attributes["feature_store.entity_type"], "product");
    let loads: Vec<Span> = collector.spans().into_iter().filter(|span| span.name == "store.load").collect();
    let load = loads.iter().find(|load| load.parent == service.id).expect("a call of the store");
    assert_eq!(load.attributes["db.system.name"], backend);
    let write = collector.span("service.write").await;
    let commit = collector.span("store.commit").await;
    assert_eq!(commit.parent, write.id);
    assert_eq!(collector.span(&format!("POST {route}")).await.id, write.parent);

    // Nobody asked for these: nothing is traced that no request waits for.
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| span.trace == TRACE || !span.parent.is_empty() || span.name.contains('/')),
        "{:?}",
        collector.spans()
    );
    let text = collector.text();
    assert!(
        text.contains("feature-store") && !text.contains("confidential-id") && !text.contains("1234.5678")
    );
    assert!(collector.headers("x-tenant").iter().all(|tenant| tenant == "shop"));
    assert!(!server.log().contains("secret"));

    // What waits when the server stops is told.
    let before = collector.spans().len();
    server.client.send(ask(reqwest::Method::GET, &format!("{path}?names=price"))).await.ok();
    server.terminate();
    assert!(server.ended().await.success());
    assert!(collector.spans().len() >= before + 3);
}

#[tokio::test]
async fn requests_are_traced_on_the_embedded_store() {
    requests_are_traced(Launch::embedded(), "embedded").await;
}

#[tokio::test]
async fn requests_are_traced_on_redis() {
    let redis = RedisServer::start(Durability::None);
    requests_are_traced(Launch::on_redis(&redis), "redis").await;
}

#[tokio::test]
async fn other_servers_are_told_whom_they_work_for() {
    let collector = Collector::start().await;
    let launch = Launch::embedded()
        .with("OTLP_ENDPOINT", &collector.url())
        .with("EMBEDDING_PROVIDER", "openai")
        .with("EMBEDDING_URL", &collector.url())
        .with("EMBEDDING_MODEL", "small");
    let server = launch.start().await;
    server
        .client
        .declare(
            "product",
            json!({
                "features": {"vector": {"type": "embedding", "dimension": 2, "computed": {"function": "vector"}}},
                "raw_inputs": {"text": {"type": "string"}},
                "transformations": "def vector(text):\n    return embed(text)\n"
            }),
        )
        .await;
    let request = server.client.request(reqwest::Method::POST, "/v1/entities/product/1/compute");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    server.client.send(request.json(&json!({"raw": {"text": "a text"}, "store": true}))).await.ok();
    let span = collector.span("embeddings").await;
    assert_eq!(span.trace, TRACE);
    let told = format!("00-{TRACE}-{}-01", span.id);
    assert!(collector.headers("traceparent").contains(&told), "{:?}", collector.headers("traceparent"));
}

#[tokio::test]
async fn a_caller_that_does_not_sample_is_followed_and_so_is_the_ratio() {
    let collector = Collector::start().await;
    let launch = Launch::embedded().with("OTLP_ENDPOINT", &collector.url()).with("OTLP_SAMPLE_RATIO", "0");
    let mut server = launch.start().await;
    let ask = |flags: &str| {
        let request = server.client.request(reqwest::Method::GET, "/v1/entity-types");
        request.header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"))
    };
    server.client.send(ask("00")).await.ok();
    server.client.get("/v1/entity-types").await.ok();
    server.client.send(ask("01")).await.ok();
    server.terminate();
    assert!(server.ended().await.success());
    let names: Vec<String> = collector.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names.iter().filter(|name| *name == "GET /v1/entity-types").count(), 1, "{names:?}");
}

#[tokio::test]
async fn a_dead_collector_is_told_once_and_costs_nothing() {
    let launch = Launch::embedded().with("OTLP_ENDPOINT", "http://127.0.0.1:9");
    let mut server = launch.start().await;
    let failed = r#"feature_store_trace_spans_total{outcome="failed"} "#;
    for _ in 0..2 {
        let before = count(&server.client.get("/metrics").await.text(), failed);
        server.client.write("product/1", json!({"n": 1})).await;
        eventually("a failure to be counted", || async {
            (count(&server.client.get("/metrics").await.text(), failed) > before).then_some(())
        })
        .await;
    }
    assert_eq!(server.log().matches("the collector of traces takes no spans").count(), 1);
    let started = Instant::now();
    server.terminate();
    assert!(server.ended().await.success());
    assert!(started.elapsed() < Duration::from_secs(8));
}

fn count(text: &str, series: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
