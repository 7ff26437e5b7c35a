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
    WrongDimension,
    NotFinite,
    Null,
    Short,
    SameIndex,
    NoJson,
    Refuses,
}

struct Stub {
    mood: Mood,
    requests: AtomicUsize,
    texts: AtomicUsize,
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
    let stub =
        Arc::new(Stub { mood: Mood::Right, requests: AtomicUsize::new(0), texts: AtomicUsize::new(0) });
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
    let stub = Arc::new(Stub { mood, requests: AtomicUsize::new(0), texts: AtomicUsize::new(0) });
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
