//! Requests byte by byte: what no HTTP library would send.

use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Answer;

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct RawRequest {
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// `Name: value`, without those that every request has.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl RawRequest {
    pub fn head(&self) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", self.method, self.target);
        if !self.headers.iter().any(|header| header.starts_with("Transfer-Encoding")) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Sends it on a connection of its own.
    pub async fn send(&self, to: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(to).await.expect("the server listens");
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        // A server that refuses early may stop reading; what it answered counts.
        let _ = stream.write_all(&bytes).await;
        read_answer(stream).await
    }
}

/// Reads an answer up to the end of the connection.
pub async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no HTTP in {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    Answer { status: status.expect("a status"), headers, body: bytes[end + 4..].to_vec() }
}
