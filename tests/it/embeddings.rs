//! Embeddings from a stub of an OpenAI-compatible server: right, slow, wrong, failing and dead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use feature_store::config::{Config, EmbeddingChoice};
use feature_store::domain::time::Span;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::client::{expected, violations};
use crate::redis_process::eventually;
use crate::server_process::Launch;
use crate::test_server::{On, TestServer};

/// What the stub does with a request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Right,
    /// Items in another order, each with its index.
    Shuffled,
    /// Fails so often first.
    FailsFirst(usize, u16),
    Hangs,
    /// Answers when it is let.
    Waits,
    WrongDimension,
    NotFinite,
    Null,
    Short,
    SameIndex,
    NoJson,
    Refuses,
    /// Any request with this text in it.
    RefusesText(&'static str),
}

struct Stub {
    mood: Mood,
    requests: AtomicUsize,
    texts: AtomicUsize,
    let_go: Semaphore,
}

impl Stub {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self { mood, requests: 0.into(), texts: 0.into(), let_go: Semaphore::new(0) })
    }
}

async fn embeddings(
    State(stub): State<Arc<Stub>>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    let number = stub.requests.fetch_add(1, Ordering::SeqCst);
    let texts = body["input"].as_array().expect("a list of texts");
    stub.texts.fetch_add(texts.len(), Ordering::SeqCst);
    assert_eq!(body["model"], "small");
    assert_eq!(headers["authorization"], "Bearer key");
    let vector = |text: &Value| {
        let length = text.as_str().expect("a text").len() as f64;
        json!([length, 0.5, -1.0, 2.0])
    };
    let mut data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}))
        .collect();
    match stub.mood {
        Mood::Right => {}
        Mood::Shuffled => data.reverse(),
        Mood::FailsFirst(times, status) if number < times => {
            return StatusCode::from_u16(status).expect("a status").into_response();
        }
        Mood::FailsFirst(..) => {}
        Mood::Hangs => std::future::pending().await,
        Mood::Waits => drop(stub.let_go.acquire().await.expect("it is open")),
        Mood::WrongDimension => data[0]["embedding"] = json!([1.0, 2.0]),
        Mood::NotFinite => {
            // JSON has no NaN; a number beyond float32 is as bad.
            data[0]["embedding"][0] = json!(1e300);
        }
        Mood::Null => data[0]["embedding"][0] = Value::Null,
        Mood::Short => drop(data.pop()),
        Mood::SameIndex => data.iter_mut().for_each(|item| item["index"] = json!(0)),
        Mood::NoJson => return "<html>NaN</html>".into_response(),
        Mood::Refuses => return StatusCode::UNAUTHORIZED.into_response(),
        Mood::RefusesText(text) if texts.iter().any(|other| other == text) => {
            return StatusCode::BAD_REQUEST.into_response();
        }
        Mood::RefusesText(_) => {}
    }
    axum::Json(json!({"object": "list", "data": data, "model": "small"})).into_response()
}

fn router(stub: &Arc<Stub>) -> axum::Router {
    axum::Router::new().route("/v1/embeddings", post(embeddings)).with_state(stub.clone())
}

/// The stub behind TLS, with a certificate for `localhost` that it signed itself.
struct TlsListener {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.listener.accept().await.expect("a connection");
            // A client that does not trust the certificate goes away here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn tls_stub() -> (Arc<Stub>, String, String) {
    let stub = Stub::new(Mood::Right);
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a certificate with its key");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://localhost:{}/v1", listener.local_addr().expect("an address").port());
    let listener = TlsListener { listener, acceptor: Arc::new(config).into() };
    let router = router(&stub);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (stub, url, own.cert.pem())
}

async fn stub(mood: Mood) -> (Arc<Stub>, String) {
    let stub = Stub::new(mood);
    let router = router(&stub);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (stub, url)
}

async fn server(url: &str) -> TestServer {
    let secret = |text: &str| serde_json::from_value(json!(text)).expect("a secret");
    On::Embedded
        .server_with(|config: &mut Config| {
            config.embedding_provider = EmbeddingChoice::OpenAi;
            config.embedding_url = Some(url.to_owned());
            config.embedding_model = Some("small".to_owned());
            config.embedding_api_key = Some(secret("key"));
            config.embedding_timeout = Span::from_secs(1);
            config.embedding_batch_size = 2;
        })
        .await
}

fn schema(on_error: &str) -> Value {
    json!({
        "features": {
            "text": {"type": "string"},
            "other": {"type": "string"},
            "vector": {"type": "embedding", "dimension": 4, "computed": {"function": "vector", "on_error": on_error}},
            "second": {"type": "embedding", "dimension": 4, "computed": {"function": "second", "on_error": on_error}},
        },
        "transformations": "def vector(text):\n    return embed(text)\n\ndef second(text, other):\n    return vec.add(embed(text), embed(other))\n",
    })
}

#[tokio::test]
async fn embeddings_are_fetched_in_batches_and_kept() {
    for mood in [Mood::Right, Mood::Shuffled] {
        let (stub, url) = stub(mood).await;
        let server = server(&url).await;
        server.declare("item", schema("fail")).await;
        server.write("item/1", json!({"text": "abc", "other": "abcdef"})).await;
        let read = server.read("item/1", "names=vector,second").await;
        assert_eq!(read["features"]["vector"], json!([3.0, 0.5, -1.0, 2.0]), "{mood:?}");
        assert_eq!(read["features"]["second"], json!([9.0, 1.0, -2.0, 4.0]), "{mood:?}");
        let asked = stub.texts.load(Ordering::SeqCst);
        assert_eq!(asked, 2, "each text once");
        server.write("item/2", json!({"text": "abc", "other": "abcdef"})).await;
        assert_eq!(stub.texts.load(Ordering::SeqCst), asked, "they are kept");
        // A batch write asks for all of its texts together, two in a request.
        let before = stub.requests.load(Ordering::SeqCst);
        let rows: Vec<Value> = (0..5)
            .map(|n| json!({"entity_id": n.to_string(), "features": {"text": "x".repeat(10 + n)}}))
            .collect();
        let answer =
            server.post("/v1/features/write", &json!({"entity_type": "item", "rows": rows})).await.ok();
        assert_eq!(answer["written"], 5, "{answer}");
        let requests = stub.requests.load(Ordering::SeqCst) - before;
        // The vector of an entity that has `other` already is asked for with the others.
        assert_eq!(requests, 3, "five texts");
        // So are those of one entity.
        let before = stub.texts.load(Ordering::SeqCst);
        let rows: Vec<Value> = (0..12)
            .map(|n| {
                let features = json!({"text": "y".repeat(30 + n)});
                json!({"entity_id": "many", "features": features, "event_timestamp": server.time(n as i64 - 60)})
            })
            .collect();
        let answer =
            server.post("/v1/features/write", &json!({"entity_type": "item", "rows": rows})).await.ok();
        assert_eq!(answer["written"], 12, "{answer:#}");
        assert_eq!(stub.texts.load(Ordering::SeqCst) - before, 12);
        assert_eq!(server.read("item/many", "names=vector").await["features"]["vector"][0], json!(41.0));
    }
}

#[tokio::test]
async fn a_provider_that_recovers_is_asked_again() {
    for status in [500, 503, 429] {
        let (stub, url) = stub(Mood::FailsFirst(2, status)).await;
        let server = server(&url).await;
        server.declare("item", schema("fail")).await;
        server.write("item/1", json!({"text": "abc"})).await;
        assert_eq!(stub.requests.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn a_text_that_is_refused_fails_nobody_else() {
    let (stub, url) = stub(Mood::RefusesText("boom")).await;
    let server = server(&url).await;
    server.declare("item", schema("fail")).await;
    let texts = ["a1", "boom", "c3", "d4", "e5"].into_iter().enumerate();
    let rows: Vec<Value> =
        texts.map(|(id, text)| json!({"entity_id": id.to_string(), "features": {"text": text}})).collect();
    let answer = server.post("/v1/features/write", &json!({"entity_type": "item", "rows": rows})).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(4), &json!(1)), "{answer}");
    assert_eq!(answer["results"][1]["error"]["code"], "overloaded");
    assert!(stub.requests.load(Ordering::SeqCst) < 20);
}

/// Neither a single write nor a batch keeps the others from an entity while it waits for an embedding.
#[tokio::test]
async fn a_provider_that_is_waited_for_holds_up_nobody_else() {
    let (stub, url) = stub(Mood::Waits).await;
    let server = Arc::new(server(&url).await);
    let mut schema = schema("fail");
    schema["features"]["price"] = json!({"type": "float64"});
    server.declare("item", schema).await;
    let single = ("/v1/entities/item/1/features", json!({"features": {"text": "abc"}}));
    let rows = json!([{"entity_id": "2", "features": {"text": "abcdef"}}]);
    let batch = ("/v1/features/write", json!({"entity_type": "item", "rows": rows}));
    let mut waiting = Vec::new();
    for (path, body) in [single, batch] {
        let asked = stub.requests.load(Ordering::SeqCst);
        let server = server.clone();
        waiting.push(tokio::spawn(async move { server.post(path, &body).await }));
        eventually("the provider is asked", || async {
            (stub.requests.load(Ordering::SeqCst) > asked).then_some(())
        })
        .await;
    }
    for id in ["1", "2"] {
        server.write(&format!("item/{id}"), json!({"price": 1.5})).await;
        let rows = json!([{"entity_id": id, "features": {"price": 2.5}}]);
        let batch = json!({"entity_type": "item", "rows": rows});
        assert_eq!(server.post("/v1/features/write", &batch).await.ok()["written"], 1);
    }
    assert!(waiting.iter().all(|write| !write.is_finished()));
    stub.let_go.add_permits(100);
    for write in waiting {
        write.await.expect("it ends").ok();
    }
    for (id, length) in [("1", 3.0), ("2", 6.0)] {
        let read = server.read(&format!("item/{id}"), "names=price,vector").await;
        assert_eq!(read["features"], json!({"price": 2.5, "vector": [length, 0.5, -1.0, 2.0]}));
    }
}

/// A text may be made of embeddings, but not without end; who asks is told which function does.
#[tokio::test]
async fn a_function_that_asks_again_and_again_is_refused() {
    let (_, url) = stub(Mood::Right).await;
    let server = server(&url).await;
    let deep = |on_error: &str| {
        let computed = json!({"function": "deep", "on_error": on_error});
        json!({
            "features": {
                "text": {"type": "string"}, "more": {"type": "int64"}, "price": {"type": "float64"},
                "vector": {"type": "embedding", "dimension": 4, "computed": computed},
            },
            "transformations": "def deep(text, more):\n    for i in range(more):\n        text += str(embed(text)[0])\n    return embed(text)\n",
        })
    };
    server.declare("item", deep("fail")).await;
    let features = |text: &str, more: u32| json!({"text": text, "more": more});
    server.write("item/1", features("a", 3)).await;
    assert_eq!(server.read("item/1", "names=vector").await["features"]["vector"][0], json!(10.0));
    let refused = server.post_features("item/2", &json!({"features": features("b", 30)})).await;
    let problem = refused.problem(422, "validation_failed");
    assert_eq!(violations(&problem["errors"]), expected(&[("vector", "computation_failed")]));
    let message = problem["errors"][0]["message"].as_str().expect("a message");
    assert!(message.contains("deep (line 3") && message.contains("fetched for it 4 times"), "{message}");
    let rows = json!([
        {"entity_id": "3", "features": {"price": 1.5}},
        {"entity_id": "4", "features": features("c", 30)},
        {"entity_id": "5", "features": features("d", 3)},
    ]);
    let mut batch = json!({"entity_type": "item", "rows": rows, "atomic": true});
    let problem = server.post("/v1/features/write", &batch).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["row"], 1, "{problem}");
    server.get_features("item/3", "").await.problem(404, "entity_not_found");
    batch["atomic"] = json!(false);
    let answer = server.post("/v1/features/write", &batch).await.ok();
    assert_eq!((&answer["written"], &answer["rejected"]), (&json!(2), &json!(1)), "{answer}");
    assert_eq!(answer["results"][1]["error"]["errors"][0]["code"], "computation_failed");
    server.put("/v1/entity-types/item", &deep("skip")).await.ok();
    let written = server.post_features("item/4", &json!({"features": features("e", 30)})).await.ok();
    assert_eq!(written["outcomes"], json!({"text": "applied", "more": "applied", "vector": "skipped"}));
}

/// The write is refused and nothing is kept; or it is kept without the embedding.
async fn fails(url: &str, reason: &str) {
    let server = server(url).await;
    server.declare("item", schema("fail")).await;
    let features = json!({"features": {"text": "abc", "other": "d"}});
    let started = Instant::now();
    let problem = server.post_features("item/1", &features).await.problem(503, "overloaded");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("the embedding provider openai") && detail.contains(reason), "{detail}");
    assert!(!detail.contains("127.0.0.1"), "{detail}");
    server.get_features("item/1", "names=text").await.problem(404, "entity_not_found");
    let rows = json!([{"entity_id": "1", "features": {"text": "abc", "other": "d"}}]);
    let batch = json!({"entity_type": "item", "rows": rows});
    let answer = server.post("/v1/features/write", &batch).await.ok();
    assert_eq!(answer["results"][0]["error"]["code"], "overloaded", "{answer}");
    let atomic = json!({"entity_type": "item", "rows": rows, "atomic": true});
    server.post("/v1/features/write", &atomic).await.problem(503, "overloaded");
    server.put("/v1/entity-types/item", &schema("skip")).await.ok();
    let written = server.post_features("item/1", &features).await.ok();
    let outcomes = json!({"text": "applied", "other": "applied", "vector": "skipped", "second": "skipped"});
    assert_eq!(written["outcomes"], outcomes);
    let statuses = server.statuses("item/1", "names=text,vector,second").await;
    assert_eq!(statuses, json!({"vector": "not_found", "second": "not_found"}));
}

#[tokio::test]
async fn what_is_wrong_is_never_stored() {
    for (mood, reason) in [
        (Mood::WrongDimension, "2 numbers where 4 are wanted"),
        (Mood::NotFinite, "not finite"),
        (Mood::Null, "not finite"),
        (Mood::Short, "answered 1 embeddings for 2 texts"),
        (Mood::SameIndex, "two embeddings for the text 0"),
        (Mood::NoJson, "something else than embeddings"),
        (Mood::Refuses, "answered 401"),
        (Mood::FailsFirst(usize::MAX, 500), "answered 500 (3 attempts)"),
    ] {
        let (_, url) = stub(mood).await;
        fails(&url, reason).await;
    }
}

#[tokio::test]
async fn a_provider_that_hangs_costs_its_timeout() {
    let (stub, url) = stub(Mood::Hangs).await;
    fails(&url, "did not answer within 1000 ms").await;
    assert!(stub.requests.load(Ordering::SeqCst) >= 1);
}

#[tokio::test]
async fn a_provider_that_is_dead_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    drop(listener);
    fails(&url, "cannot be reached").await;
}

/// The real binary asks over TLS; what it trusts are the system's certificates.
#[tokio::test]
async fn a_provider_behind_tls_must_be_trusted() {
    let (stub, url, certificate) = tls_stub().await;
    for trusted in [true, false] {
        let launch = Launch::embedded()
            .with("EMBEDDING_PROVIDER", "openai")
            .with("EMBEDDING_URL", &url)
            .with("EMBEDDING_MODEL", "small")
            .with("EMBEDDING_API_KEY", "key")
            .with("EMBEDDING_RETRIES", "0");
        let (_, _, other) = tls_stub().await;
        let file = launch.dir.path().join("trusted.pem");
        std::fs::write(&file, if trusted { &certificate } else { &other }).expect("a file");
        let launch = launch.with_environment("SSL_CERT_FILE", &file.display().to_string());
        let server = launch.start().await;
        let client = &server.client;
        client.declare("item", schema("fail")).await;
        let features = json!({"features": {"text": "abc"}});
        let answer = client.post("/v1/entities/item/1/features", &features).await;
        if trusted {
            assert_eq!(answer.ok()["outcomes"]["vector"], "applied");
        } else {
            let problem = answer.problem(503, "overloaded");
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains("cannot be reached"), "{detail}");
        }
    }
    assert_eq!(stub.requests.load(Ordering::SeqCst), 1);
}
