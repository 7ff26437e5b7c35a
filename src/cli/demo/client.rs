//! The requests of the walk, sent over HTTP and shown as curl lines.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, header};

use super::json;
use crate::cli::trust::Trust;
use crate::cli::{Failure, client};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    method: &'static str,
    path: String,
    if_match: Option<u64>,
    body: Content,
}

#[derive(Clone, Debug)]
enum Content {
    None,
    Json(String),
    Yaml(String),
}

impl Call {
    fn new(method: &'static str, path: impl Into<String>, body: Content) -> Self {
        Self { method, path: path.into(), if_match: None, body }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path, Content::None)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path, Content::None)
    }

    pub fn post(path: impl Into<String>, json: impl Into<String>) -> Self {
        Self::new("POST", path, Content::Json(json.into()))
    }

    pub fn put(path: impl Into<String>, json: impl Into<String>) -> Self {
        Self::new("PUT", path, Content::Json(json.into()))
    }

    pub fn put_yaml(path: impl Into<String>, yaml: impl Into<String>) -> Self {
        Self::new("PUT", path, Content::Yaml(yaml.into()))
    }

    pub fn if_match(self, version: u64) -> Self {
        Self { if_match: Some(version), ..self }
    }

    /// The request as a line for a shell.
    pub fn curl(&self, base: &str) -> String {
        let mut line = "curl -s".to_owned();
        let implied = match self.body {
            Content::None => "GET",
            Content::Json(_) | Content::Yaml(_) => "POST",
        };
        if self.method != implied {
            line += &format!(" -X {}", self.method);
        }
        line += &format!(" {}", quoted(&format!("{base}{}", self.path)));
        if let Some(version) = self.if_match {
            line += &format!(" \\\n    -H 'If-Match: \"{version}\"'");
        }
        match &self.body {
            Content::None => {}
            Content::Json(text) => {
                let text = json::pretty(text, usize::MAX);
                line += &format!(" \\\n    -H 'Content-Type: application/json' -d {}", quoted(&text));
            }
            Content::Yaml(text) => {
                line += " \\\n    -H 'Content-Type: application/yaml' --data-binary @- <<'YAML'\n";
                line += text.trim_end();
                line += "\nYAML";
            }
        }
        line
    }
}

/// Text as one word of a shell; left bare where it holds nothing that a shell would take apart.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-,=@%".contains(&b);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

/// A client of one server.
pub struct Client(client::Client);

impl Client {
    pub fn new(base: &str) -> Result<Self, Failure> {
        Ok(Self(client::Client::new(base, &Trust::default())?))
    }

    pub fn base(&self) -> &str {
        self.0.base()
    }

    pub async fn send(&self, call: &Call) -> Result<Answer, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{} {}: {error}", call.method, call.path);
        let mut request = Request::builder().method(call.method).uri(&call.path);
        if let Some(version) = call.if_match {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        let (content_type, body) = match &call.body {
            Content::None => (None, Body::empty()),
            Content::Json(text) => (Some("application/json"), Body::from(text.clone())),
            Content::Yaml(text) => (Some("application/yaml"), Body::from(text.clone())),
        };
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(body).map_err(|error| failed(&error))?;
        let exchange = async {
            let (parts, body) = self.0.send(request).await?.into_parts();
            let body = self.0.text(body).await?;
            Ok::<_, Failure>(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(|failure| failed(&failure.message)),
            Err(_) => Err(failed(&"no answer in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_shown_as_lines_for_a_shell() {
        let call = Call::get("/v1/entities/product?limit=5");
        assert_eq!(call.curl("http://h:1"), "curl -s 'http://h:1/v1/entities/product?limit=5'");
        let call = Call::post("/v1/x", r#"{"name":"it's"}"#).if_match(3);
        let line = "curl -s http://h:1/v1/x \\\n    -H 'If-Match: \"3\"' \\\n    \
                    -H 'Content-Type: application/json' -d '{\"name\": \"it'\\''s\"}'";
        assert_eq!(call.curl("http://h:1"), line);
        assert_eq!(Call::delete("/v1/x").curl("http://h:1"), "curl -s -X DELETE http://h:1/v1/x");
    }
}
