//! The server's own TLS: both protocols, certificates that change, clients that show theirs.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feature_store::tls::ClientTls;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, Files, replace};
use crate::redis_process::eventually;
use crate::server_process::Launch;

/// With one protocol offered.
async fn handshake(
    server: std::net::SocketAddr,
    tls: &ClientTls,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = tls.config().expect("files that can be read");
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(server).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn get(mut stream: TlsStream<TcpStream>, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The certificate that the server shows, as DER.
async fn shown(server: std::net::SocketAddr, tls: &ClientTls) -> Vec<u8> {
    let stream = handshake(server, tls, "http/1.1").await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("certificates")[0].to_vec()
}

fn launch(files: &Files) -> Launch {
    Launch::embedded()
        .with("TLS_CERT", &files.certificate.display().to_string())
        .with("TLS_KEY", &files.key.display().to_string())
        .with("METRICS_LISTEN", "127.0.0.1:0")
        .with("RELOAD_INTERVAL", "50ms")
        .with("HEADER_TIMEOUT", "300ms")
}

#[tokio::test]
async fn both_protocols_are_spoken_by_those_who_trust_the_server() {
    let authority = Authority::new("one");
    let launch = launch(&authority.issue("server", &["localhost"]));
    let server = launch.start_unready().await;
    let stream = handshake(server.address, &authority.trusted(), "http/1.1").await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(get(stream, "/livez").await.expect("an answer").starts_with("HTTP/1.1 200"));

    let stream = handshake(server.address, &authority.trusted(), "h2").await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    let driven = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/livez").body(Empty::<bytes::Bytes>::new());
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!((answer.status(), answer.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    answer.into_body().collect().await.expect("a body");
    driven.abort();

    let stranger = Authority::new("another");
    assert!(handshake(server.address, &stranger.trusted(), "h2").await.is_err());
    // Who speaks plain HTTP gets no answer, and the next one does.
    let mut plain = TcpStream::connect(server.address).await.expect("it listens");
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is open");
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    // Nor does who says nothing keep a place.
    let started = Instant::now();
    let mut silent = TcpStream::connect(server.address).await.expect("it listens");
    let _ = silent.read_to_end(&mut bytes).await;
    assert!((Duration::from_millis(250)..Duration::from_secs(8)).contains(&started.elapsed()));
    shown(server.address, &authority.trusted()).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_go_on_and_a_broken_one_is_not_taken() {
    let authority = Authority::new("one");
    let files = authority.issue("server", &["localhost"]);
    let launch = launch(&files);
    let server = launch.start_unready().await;
    let trusted = authority.trusted();
    let first = shown(server.address, &trusted).await;
    let open = handshake(server.address, &trusted, "http/1.1").await.expect("a handshake");

    authority.issue("server", &["localhost"]);
    let second = eventually("the new certificate", || async {
        let now = shown(server.address, &trusted).await;
        (now != first).then_some(now)
    })
    .await;
    assert!(get(open, "/livez").await.expect("an answer").starts_with("HTTP/1.1 200"));

    // A certificate whose key is another's. The pair before may have been met half done, too.
    let refusals = || server.log().matches("the certificate that is shown stays the old one").count();
    let before = refusals();
    let (certificate, key) = authority.make(&["localhost"]);
    replace(&files.certificate, &certificate);
    eventually("the failure to be counted", || async {
        let text = get(handshake(server.address, &trusted, "http/1.1").await.ok()?, "/livez").await.ok()?;
        assert!(text.starts_with("HTTP/1.1 200"));
        (refusals() > before).then_some(())
    })
    .await;
    assert_eq!(shown(server.address, &trusted).await, second);
    replace(&files.key, &key);
    eventually("the pair to be whole", || async {
        (shown(server.address, &trusted).await != second).then_some(())
    })
    .await;
}

#[tokio::test]
async fn clients_are_asked_for_certificates() {
    let authority = Authority::new("servers");
    let clients = Authority::new("clients");
    let files = authority.issue("server", &["localhost", "127.0.0.1"]);
    let client = clients.issue("client", &["somebody"]);
    let strangers = Authority::new("strangers");
    let stranger = strangers.issue("client", &["somebody"]);
    let launch = launch(&files).with("TLS_CLIENT_CA", &clients.ca().display().to_string());
    let server = launch.start_unready().await;
    let ask = async |tls: ClientTls| get(handshake(server.address, &tls, "http/1.1").await?, "/livez").await;
    assert!(ask(authority.trusted_by(&client)).await.expect("an answer").starts_with("HTTP/1.1 200"));
    assert!(ask(authority.trusted()).await.is_err(), "nothing was shown");
    let forged = ClientTls { identity: Some((stranger.certificate, stranger.key)), ..authority.trusted() };
    assert!(ask(forged).await.is_err(), "nobody knows them");

    // The command speaks to it too, by any of its addresses.
    let check = |args: &[&str]| {
        let url = format!("https://{}", server.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_feature-store"));
        command.env_clear().args(["healthcheck", "--path", "/livez", "--url", &url]).args(args);
        command.output().expect("the binary starts").status.success()
    };
    let (ca, certificate, key) = (
        authority.ca().display().to_string(),
        client.certificate.display().to_string(),
        client.key.display().to_string(),
    );
    assert!(check(&["--ca", &ca, "--cert", &certificate, "--key", &key]));
    assert!(!check(&["--ca", &ca]));
    let wrong = clients.ca().display().to_string();
    assert!(!check(&["--ca", &wrong, "--cert", &certificate, "--key", &key]));
}

#[tokio::test]
async fn the_healthcheck_of_a_server_of_ones_own_needs_no_options() {
    let authority = Authority::new("one");
    let files = authority.issue("server", &["features.example.com"]);
    let launch = launch(&files);
    let server = launch.start_unready().await;
    let output = Command::new(env!("CARGO_BIN_EXE_feature-store"))
        .env_clear()
        .env("FEATURE_STORE_LISTEN", server.address.to_string())
        .env("FEATURE_STORE_TLS_CERT", &files.certificate)
        .env("FEATURE_STORE_TLS_KEY", &files.key)
        .args(["healthcheck", "--path", "/livez"])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_server_does_not_start_with_half_a_pair_or_one_that_does_not_fit() {
    let authority = Authority::new("one");
    let files = authority.issue("server", &["localhost"]);
    let other = authority.issue("other", &["localhost"]);
    let half = Launch::embedded().with("TLS_CERT", &files.certificate.display().to_string());
    let (status, log) = half.start_in_vain().await;
    assert!(!status.success() && log.contains("tls_cert") && log.contains("tls_key is not"), "{log}");
    let (status, log) = launch(&Files { key: other.key, ..files.clone() }).start_in_vain().await;
    assert!(!status.success() && log.contains("tls"), "{log}");
    let gone = Files { certificate: files.key.with_extension("gone"), ..files };
    let (status, log) = launch(&gone).start_in_vain().await;
    assert!(!status.success() && log.contains("server.gone"), "{log}");
}

#[tokio::test]
async fn files_go_in_and_out_over_tls() {
    let authority = Authority::new("one");
    let launch = launch(&authority.issue("server", &["127.0.0.1"]));
    let server = launch.start_unready().await;
    let dir = launch.dir.path();
    let (url, ca) = (format!("https://{}", server.address), authority.ca().display().to_string());
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feature-store"));
        command.env_clear().current_dir(dir).args(args).args(["--url", &url, "--ca", &ca]);
        command.output().expect("the binary starts")
    };
    let succeeds = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    eventually("the server to be ready", || async { run(&["healthcheck"]).status.success().then_some(()) })
        .await;
    let table = "entity_id,price\n1,2.5\n2,3.5\n";
    std::fs::write(dir.join("in.csv"), table).expect("a file");
    succeeds(&["load", "in.csv", "--entity-type", "product"]);
    succeeds(&["export", "product", "--output", "out.csv"]);
    assert_eq!(std::fs::read_to_string(dir.join("out.csv")).expect("a file"), table);
    succeeds(&["backup", "--output", "features.backup"]);
    assert!(dir.join("features.backup").is_file());
}
