//! `feature-store healthcheck`

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Uri;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::trust::Trust;
use crate::config::Config;
use crate::tls::trusting_anybody;

#[derive(Debug, Args)]
pub struct Options {
    /// The server, as in https://features.example.com (default: the one that this configuration
    /// starts, whatever certificate it shows).
    #[arg(long)]
    url: Option<String>,
    /// The probe to ask.
    #[arg(long, default_value = "/readyz")]
    path: String,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 4)]
    timeout: u64,
    #[command(flatten)]
    trust: Trust,
}

/// Asks a server whether it is well.
pub fn run(config: &Config, options: &Options) -> Result<(), String> {
    let target = match &options.url {
        Some(url) => Target::parse(url, &options.trust)?,
        None => Target::own(config, &options.trust)?,
    };
    let status = target
        .ask(&options.path, Duration::from_secs(options.timeout.max(1)))
        .map_err(|error| format!("no answer from {}: {error}", target.host))?;
    if status == 200 { Ok(()) } else { Err(format!("{}{} answered {status}", target.host, options.path)) }
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

/// Whom to ask.
struct Target {
    /// Host and port, as in the header `Host`.
    host: String,
    /// The host alone.
    name: String,
    port: u16,
    /// `None`: plain HTTP.
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    fn own(config: &Config, trust: &Trust) -> Result<Self, String> {
        let address = reachable(config.listen);
        let is_plain = config.tls().is_none();
        let tls = if is_plain {
            None
        } else if *trust == Trust::default() {
            Some(trusting_anybody())
        } else {
            Some(trust.tls().config())
        };
        let tls = tls.transpose().map_err(|error| error.to_string())?;
        let name = address.ip().to_string();
        Ok(Self { host: address.to_string(), name, port: address.port(), tls: tls.map(Arc::new) })
    }

    fn parse(url: &str, trust: &Trust) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let (default_port, is_tls) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            _ => return Err(format!("{url} must start with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?;
        let tls = is_tls.then(|| trust.tls().config()).transpose().map_err(|error| error.to_string())?;
        Ok(Self {
            host: authority.to_string(),
            name: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            tls: tls.map(Arc::new),
        })
    }

    /// One request, of which only the status line is read: not worth an HTTP client.
    fn ask(&self, path: &str, timeout: Duration) -> Result<u16, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut addresses = (self.name.as_str(), self.port).to_socket_addrs().map_err(text)?;
        let address = addresses.next().ok_or("the host has no address")?;
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(text)?;
        stream.set_read_timeout(Some(timeout)).map_err(text)?;
        stream.set_write_timeout(Some(timeout)).map_err(text)?;
        let Some(tls) = &self.tls else { return self.converse(stream, path) };
        let name = ServerName::try_from(self.name.clone()).map_err(|error| error.to_string())?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(|error| error.to_string())?;
        self.converse(StreamOwned::new(connection, stream), path)
    }

    fn converse(&self, mut stream: impl Read + Write, path: &str) -> Result<u16, String> {
        let host = &self.host;
        let text = |error: std::io::Error| error.to_string();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(text)?;
        let mut answer = Vec::new();
        let ended = stream.take(1024).read_to_end(&mut answer);
        let line = String::from_utf8_lossy(&answer);
        match line.split(' ').nth(1).and_then(|status| status.parse().ok()) {
            Some(status) => Ok(status),
            None => Err(ended.err().map_or_else(|| "the answer is not HTTP".to_owned(), text)),
        }
    }
}
