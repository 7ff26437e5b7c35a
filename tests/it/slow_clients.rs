//! Clients that are slow, silent, greedy or too many, byte by byte over real sockets.

use std::time::{Duration, Instant};

use feature_store::config::Config;
use feature_store::domain::time::Span;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Answer;
use crate::raw_http::{RawRequest, read_answer};
use crate::redis_process::eventually;
use crate::test_server::{On, TestServer};

/// Far more than any limit here.
const LONG: Duration = Duration::from_secs(10);

fn millis(millis: u64) -> Span {
    Span::from_millis(millis).expect("a span")
}

async fn server(set: impl FnOnce(&mut Config)) -> TestServer {
    On::Embedded.server_with(set).await
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.address).await.expect("the server listens")
}

/// What is left of a connection; an error of its end counts as its end.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    bytes
}

fn get(target: &str) -> RawRequest {
    RawRequest { method: "GET", target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
}

/// Asks on a connection that the server may close at once; `None`: it did.
async fn ask(server: &TestServer, target: &str) -> Option<Answer> {
    let mut stream = connect(server).await;
    let _ = stream.write_all(&get(target).head()).await;
    let mut first = [0];
    let is_answered = stream.peek(&mut first).await.is_ok_and(|count| count == 1);
    if is_answered { Some(read_answer(stream).await) } else { None }
}

async fn metric(server: &TestServer, series: &str) -> f64 {
    let text = server.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or(" 0");
    line.trim().parse().expect("a number")
}

#[tokio::test]
async fn a_head_that_comes_in_drops_is_cut_off() {
    let server = server(|config| config.header_timeout = millis(300)).await;
    let cut = r#"feature_store_connections_cut_total{reason="head"}"#;
    let before = metric(&server, cut).await;
    let mut stream = connect(&server).await;
    let started = Instant::now();
    let dripping = async {
        for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ".iter().chain(std::iter::repeat(&b'a')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            let mut answered = [0; 1];
            match tokio::time::timeout(Duration::from_millis(20), stream.peek(&mut answered)).await {
                Ok(_) => return,
                Err(_) => continue,
            }
        }
    };
    tokio::time::timeout(LONG, dripping).await.expect("the server cuts it off");
    assert!((Duration::from_millis(300)..Duration::from_secs(8)).contains(&started.elapsed()));
    let answer = read_answer(stream).await;
    answer.problem(408, "timeout");
    assert_eq!(answer.headers["connection"], "close");
    eventually("it to be counted", || async { (metric(&server, cut).await > before).then_some(()) }).await;
}

#[tokio::test]
async fn the_time_for_a_head_does_not_count_the_time_between_requests() {
    let server = server(|config| config.header_timeout = millis(200)).await;
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is still open");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = [0; 1024];
        let _ = stream.read(&mut rest).await;
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_a_busy_one_is_not() {
    let server = server(|config| config.idle_timeout = millis(300)).await;
    let started = Instant::now();
    let mut silent = connect(&server).await;
    let mut used = connect(&server).await;
    used.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is open");
    assert_eq!(rest(&mut silent).await, b"");
    assert!(started.elapsed() >= Duration::from_millis(250));
    let answer = String::from_utf8(rest(&mut used).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
}

#[tokio::test]
async fn a_body_that_stalls_is_refused_and_its_client_let_go() {
    let server = server(|config| config.stall_timeout = millis(300)).await;
    server.declare("product", json!({"features": {"n": {"type": "int64"}}})).await;
    let request = RawRequest {
        method: "POST",
        target: "/v1/entities/product/1/features".to_owned(),
        headers: vec!["Content-Type: application/json".to_owned()],
        body: br#"{"features": {"n": 1}}"#.to_vec(),
    };
    let started = Instant::now();
    let mut stream = connect(&server).await;
    stream.write_all(&request.head()).await.expect("it is open");
    stream.write_all(&request.body[..5]).await.expect("it is open");
    let answer = tokio::time::timeout(LONG, read_answer(stream)).await.expect("the server lets go");
    answer.problem(408, "timeout");
    assert!((Duration::from_millis(250)..Duration::from_secs(8)).contains(&started.elapsed()));
    server.get_features("product/1", "names=n").await.problem(404, "entity_not_found");
}

#[tokio::test]
async fn a_body_that_trickles_has_the_time_of_the_request() {
    let server = server(|config| config.request_timeout = millis(500)).await;
    let mut stream = connect(&server).await;
    let head = "POST /v1/features/read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it is open");
    let (reading, mut writing) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut reading = reading;
    let mut status = [0; 12];
    tokio::time::timeout(LONG, reading.read_exact(&mut status)).await.expect("in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 408");
    trickle.abort();
}

#[tokio::test]
async fn whoever_sends_on_after_an_early_answer_can_read_it() {
    let server = server(|config| config.stall_timeout = millis(500)).await;
    // Far more than the kernel keeps, and refused when its head is seen.
    let piece = vec![b' '; 1 << 20];
    let mut stream = connect(&server).await;
    let head = format!("POST /v1/nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    stream.write_all(head.as_bytes()).await.expect("it is open");
    for _ in 0..64 {
        stream.write_all(&piece).await.expect("the server takes it, and drops it");
    }
    read_answer(stream).await.problem(404, "invalid_request");
    // It is not waited for longer than for one that takes nothing of its answer.
    let cut = r#"feature_store_connections_cut_total{reason="stalled"}"#;
    let before = metric(&server, cut).await;
    let mut stream = connect(&server).await;
    stream.write_all(head.as_bytes()).await.expect("it is open");
    let endless = async { while stream.write_all(&piece).await.is_ok() {} };
    tokio::time::timeout(LONG, endless).await.expect("the server lets go");
    eventually("it to be counted", || async { (metric(&server, cut).await > before).then_some(()) }).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answers_is_let_go() {
    let server = server(|config| config.stall_timeout = millis(300)).await;
    let cut = r#"feature_store_connections_cut_total{reason="stalled"}"#;
    let before = metric(&server, cut).await;
    let mut stream = connect(&server).await;
    // Answers of far more bytes than the kernel keeps for a reader.
    let asked = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    stream.write_all(asked.as_bytes()).await.expect("it is open");
    eventually("the server to give up", || async {
        (metric(&server, cut).await - before >= 1.0).then_some(())
    })
    .await;
    let whole = server.get("/openapi.json").await.body.len() * 200;
    assert!(rest(&mut stream).await.len() < whole);
}

#[tokio::test]
async fn a_head_is_bounded() {
    let server = server(|config| config.max_header_bytes = 8192).await;
    let many: Vec<String> = (0..200).map(|number| format!("X-{number}: 1")).collect();
    assert_eq!(RawRequest { headers: many, ..get("/livez") }.send(server.address).await.status, 431);
    let large = vec![format!("X-Large: {}", "a".repeat(9000))];
    assert_eq!(RawRequest { headers: large, ..get("/livez") }.send(server.address).await.status, 431);
    let fits = vec![format!("X-Fits: {}", "a".repeat(7000))];
    assert_eq!(RawRequest { headers: fits, ..get("/livez") }.send(server.address).await.status, 200);
}

#[tokio::test]
async fn too_many_connections_do_not_stop_probes() {
    let server = server(|config| config.max_connections = 8).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(connect(&server).await);
    }
    let path = "/v1/entity-types";
    let refused = ask(&server, path).await.expect("there is room to refuse");
    refused.problem(503, "overloaded");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(ask(&server, "/readyz").await.expect("probes are answered").status, 200);
    // As many as want to: none of these is answered, and nobody suffers.
    for _ in 0..200 {
        idle.push(connect(&server).await);
    }
    // This client's connection is one of the first.
    assert_eq!(server.get(path).await.status, 200);
    drop(idle);
    eventually("room again", || async {
        ask(&server, path).await.is_some_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn thousands_of_idle_connections_stop_nobody() {
    let server = server(|_| {}).await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(connect(&server).await);
    }
    assert_eq!(ask(&server, "/v1/entity-types").await.expect("an answer").status, 200);
    assert!(metric(&server, "feature_store_connections ").await >= 400.0);
}
