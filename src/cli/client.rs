//! The HTTP client of every subcommand that speaks to a running server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use axum::body::Body;
use clap::Args;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::Failure;
use super::trust::Trust;
use crate::config::Config;
use crate::tls::{self, TlsError};

/// Answers that are read as a whole have at most so many bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Which server to speak to, and as whom.
#[derive(Debug, Args)]
pub struct Server {
    /// The server, as in https://features.example.com (default: the one that this configuration starts).
    #[arg(long)]
    url: Option<String>,
    /// A file with an API key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

impl Server {
    pub fn client(&self, config: &Config) -> Result<Client, Failure> {
        let url = self.url.clone().unwrap_or_else(|| own_url(config));
        let client = Client::new(&url, &self.trust)?;
        let Some(file) = &self.api_key_file else { return Ok(client) };
        let key = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        client.showing(key.trim())
    }
}

/// Of the server that this configuration starts, as seen from its machine.
pub fn own_url(config: &Config) -> String {
    let scheme = if config.tls().is_some() { "https" } else { "http" };
    format!("{scheme}://{}", reachable(config.listen))
}

/// Where a server that listens on every address can be reached.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Speaks to one server.
pub struct Client {
    base: String,
    authorization: Option<HeaderValue>,
    http: legacy::Client<HttpsConnector<HttpConnector>, Body>,
}

impl Client {
    /// `base` is a URL up to before the path.
    pub fn new(base: &str, trust: &Trust) -> Result<Self, Failure> {
        let tls = if base.starts_with("https:") { trust.tls().config() } else { trusting_nobody() };
        Ok(Self::with(base, tls.map_err(Failure::usage)?))
    }

    /// As [`Self::new`], for a server that may show any certificate.
    pub fn trusting_anybody(base: &str) -> Result<Self, Failure> {
        Ok(Self::with(base, tls::trusting_anybody().map_err(Failure::usage)?))
    }

    fn with(base: &str, tls: ClientConfig) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector.build());
        Self { base, authorization: None, http }
    }

    /// With an API key in every request.
    fn showing(self, key: &str) -> Result<Self, Failure> {
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| Failure::usage("the file of the API key holds more than a key"))?;
        value.set_sensitive(true);
        Ok(Self { authorization: Some(value), ..self })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request, whose URI is a path, and waits for the head of the answer.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Failure> {
        let uri = format!("{}{}", self.base, request.uri());
        *request.uri_mut() = uri.parse().map_err(|error| Failure::usage(format!("{uri}: {error}")))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let answer = self.http.request(request).await.map_err(|error| self.lost(&error))?;
        Ok(answer.map(Body::new))
    }

    /// As [`Self::send`]; an answer that is no success is a failure that says what the server said.
    pub async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let (head, body) = self.send(request).await?.into_parts();
        if head.status.is_success() {
            return Ok(Response::from_parts(head, body));
        }
        let text = self.text(body).await?;
        let problem = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Err(problem_of(head.status, &problem))
    }

    /// A body as text.
    pub async fn text(&self, body: Body) -> Result<String, Failure> {
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let bytes = body.map_err(|error| self.lost(&*error))?.to_bytes();
        String::from_utf8(bytes.into()).map_err(|error| self.lost(&error))
    }

    /// The failure of a connection that could not be made, or broke.
    pub fn lost(&self, error: &dyn std::error::Error) -> Failure {
        let mut text = format!("{}: {error}", self.base);
        let mut source = error.source();
        while let Some(error) = source {
            // Some errors say what their source says.
            let more = error.to_string();
            if !text.ends_with(&more) {
                text += &format!(": {more}");
            }
            source = error.source();
        }
        Failure::server(text)
    }
}

/// What a server says that does not do what it was asked.
pub fn problem_of(status: StatusCode, problem: &Value) -> Failure {
    let mut text = match problem.get("detail").and_then(Value::as_str) {
        Some(detail) => format!("the server answered {}: {detail}", status.as_u16()),
        None => format!("the server answered {status}"),
    };
    if let Some(id) = problem.get("request_id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        text += &format!(" (request id {id})");
    }
    let may_pass = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if status.is_client_error() && !may_pass { Failure::refused(text) } else { Failure::server(text) }
}

/// The system's certificates are read only where they are needed: a container without any can be
/// checked all the same.
fn trusting_nobody() -> Result<ClientConfig, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
