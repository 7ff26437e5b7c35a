//! `feature-store healthcheck`

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use crate::config::Config;

#[derive(Debug, Args)]
pub struct Options {
    /// The probe to ask.
    #[arg(long, default_value = "/readyz")]
    path: String,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 4)]
    timeout: u64,
}

/// Asks the server that listens where this configuration says.
pub fn run(config: &Config, options: &Options) -> Result<(), String> {
    let address = reachable(config.listen);
    let status = ask(address, &options.path, Duration::from_secs(options.timeout.max(1)))
        .map_err(|error| format!("no answer from {address}: {error}"))?;
    if status == 200 { Ok(()) } else { Err(format!("{address}{} answered {status}", options.path)) }
}

/// Where a server that listens on every address can be reached.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// One request, of which only the status line is read: not worth an HTTP client.
fn ask(address: SocketAddr, path: &str, timeout: Duration) -> Result<u16, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(text)?;
    stream.set_read_timeout(Some(timeout)).map_err(text)?;
    stream.set_write_timeout(Some(timeout)).map_err(text)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(text)?;
    let mut answer = Vec::new();
    stream.take(1024).read_to_end(&mut answer).map_err(text)?;
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| "the answer is not HTTP".to_owned())
}
