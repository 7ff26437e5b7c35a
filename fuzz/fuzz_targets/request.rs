//! Any request to any operation, over a socket to a real server on its embedded store: path, query,
//! headers and body may be anything, and no answer says that the server is at fault.
#![no_main]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use feature_store::clock::SystemClock;
use feature_store::config::Config;
use feature_store::domain::time::Span;
use feature_store::server;
use libfuzzer_sys::fuzz_target;

/// Method and path of every operation of the document, in an order that seeds can count on.
static OPERATIONS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let document = serde_json::to_value(feature_store::http::openapi()).unwrap();
    let operations = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let methods = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "put", "post", "delete"].contains(&key.as_str()));
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    });
    let mut operations: Vec<(String, String)> = operations.collect();
    operations.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    operations
});

const MEDIA_TYPES: [&str; 7] = [
    "application/json",
    "application/yaml",
    "text/csv",
    "application/x-ndjson",
    "application/vnd.apache.parquet",
    "application/vnd.apache.arrow.stream",
    "text/plain",
];

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: data.path().to_owned(), ..Config::default() };
        // A body that is announced and never sent is not waited for.
        config.request_timeout = Span::from_millis(500).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            server::run(&config, listener, Arc::new(SystemClock), std::future::pending()).await.unwrap();
        });
    });
    let address = told.recv().unwrap();
    let body = r#"{"features": {"price": {"type": "float64"}, "name": {"type": "string"}}}"#;
    let length = body.len();
    let put = format!(
        "PUT /v1/entity-types/product HTTP/1.1\r\nHost: fuzz\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
    );
    while ask(address, put.as_bytes()).is_none_or(|status| status >= 500) {
        std::thread::sleep(Duration::from_millis(20));
    }
    address
});

/// Kept between requests.
static CONNECTION: Mutex<Option<TcpStream>> = Mutex::new(None);

/// The status of the answer; `None` where the server closed the connection without one.
fn ask(address: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut kept = CONNECTION.lock().unwrap();
    let mut stream = kept.take().unwrap_or_else(|| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        stream
    });
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let read = stream.read(&mut chunk).ok()?;
        answer.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let so_far =
                answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| answer.len() - at - 4);
            match length {
                Some(length) if so_far == Some(length) => *kept = Some(stream),
                _ if read == 0 || status == 204 => {}
                None if answer.ends_with(b"\r\n0\r\n\r\n") => *kept = Some(stream),
                _ => continue,
            }
            return Some(status);
        }
        if read == 0 {
            return None;
        }
    }
}

/// Everything up to a character, and what comes after it.
fn until(bytes: &[u8], end: u8) -> (String, &[u8]) {
    let at = bytes.iter().position(|byte| *byte == end).unwrap_or(bytes.len());
    (String::from_utf8_lossy(&bytes[..at]).into_owned(), bytes.get(at + 1..).unwrap_or_default())
}

// Operation, type of the body and of the answer as a byte each; a line of names, separated by slashes,
// for what stands in braces in the path; a line that is the query; the body.
fuzz_target!(|input: &[u8]| {
    let [operation, media_type, accept, rest @ ..] = input else { return };
    let (operation, media_type, accept) = (*operation, *media_type, *accept);
    let (named, rest) = until(rest, b'\n');
    let (query, body) = until(rest, b'\n');
    let (method, path) = &OPERATIONS[operation as usize % OPERATIONS.len()];
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut names = named.splitn(3, '/');
    // A name that is there now and then, so that requests get beyond it.
    let path: String = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{') {
            Some(segment) => match names.next().unwrap_or("") {
                "" if segment.starts_with("entity_type") => "/product".to_owned(),
                "" => "/1".to_owned(),
                name => format!("/{}", encoded(name)),
            },
            None if segment.is_empty() => String::new(),
            None => format!("/{segment}"),
        })
        .collect();
    let query: String = query.chars().filter(|c| c.is_ascii_graphic() && *c != '#').collect();
    let mut request = format!("{method} {path}?{query} HTTP/1.1\r\nHost: fuzz\r\n").into_bytes();
    let media = |at: u8| MEDIA_TYPES[at as usize % MEDIA_TYPES.len()];
    if accept < 128 {
        request.extend_from_slice(format!("Accept: {}\r\n", media(accept)).as_bytes());
    }
    let length = body.len();
    request.extend_from_slice(
        format!("Content-Type: {}\r\nContent-Length: {length}\r\n\r\n", media(media_type)).as_bytes(),
    );
    request.extend_from_slice(body);
    if let Some(status) = ask(*SERVER, &request) {
        assert!(status < 500 || status == 503 || status == 504, "{status}: {}", request.escape_ascii());
    }
});
