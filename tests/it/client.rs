//! An HTTP client whose answers say what they are, and assert what they should be.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// Speaks to one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub address: SocketAddr,
}

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
        Self { http: http.build().expect("a client can be made"), address }
    }

    /// One that shows a key with every request.
    pub fn showing(&self, key: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", key.parse().expect("a key fits a header"));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
        Self {
            http: http.default_headers(headers).build().expect("a client can be made"),
            address: self.address,
        }
    }

    /// The same client, for another server.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { http: self.http.clone(), address }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    /// As [`Self::send`], where there may be nobody to answer.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.expect("the server answers")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Writes an entity such as `product/1` with the whole body given.
    pub async fn post_features(&self, entity: &str, body: &Value) -> Answer {
        self.post(&format!("/v1/entities/{entity}/features"), body).await
    }

    /// Writes features that must be accepted.
    pub async fn write(&self, entity: &str, features: Value) -> Value {
        self.post_features(entity, &json!({ "features": features })).await.ok()
    }

    /// Writes features of an event time, which must be accepted.
    pub async fn write_at(&self, entity: &str, at: &str, features: Value) -> Value {
        self.post_features(entity, &json!({ "features": features, "event_timestamp": at })).await.ok()
    }

    pub async fn get_features(&self, entity: &str, query: &str) -> Answer {
        self.get(&format!("/v1/entities/{entity}/features?{query}")).await
    }

    /// Reads an entity that must be there.
    pub async fn read(&self, entity: &str, query: &str) -> Value {
        self.get_features(entity, query).await.ok()
    }

    /// The status of each feature that is not `present`.
    pub async fn statuses(&self, entity: &str, query: &str) -> Value {
        self.read(entity, query).await["statuses"].clone()
    }

    /// Declares an entity type that must be new.
    pub async fn declare(&self, entity_type: &str, schema: Value) -> Value {
        self.put(&format!("/v1/entity-types/{entity_type}"), &schema).await.status(201)
    }

    /// What the registry counts its changes with.
    pub async fn registry_revision(&self) -> u64 {
        let health = self.get("/health").await.ok();
        health["registry"]["revision"].as_u64().expect("a revision")
    }
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in the answer {} {:?}", self.status, self.text()),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The header's text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body of an answer with that status.
    #[track_caller]
    pub fn status(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        self.status(200)
    }

    #[track_caller]
    pub fn no_content(&self) {
        assert_eq!((self.status, self.text().as_str()), (204, ""));
    }

    /// The body of an answer that is a complete problem of that status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:feature-store:problem:{code}"));
        for member in ["title", "detail", "request_id"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem}");
        }
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        problem
    }

    /// The features and codes of a refused write, sorted.
    #[track_caller]
    pub fn violations(&self) -> Vec<(String, String)> {
        violations(&self.problem(422, "validation_failed")["errors"])
    }
}

/// What is wrong (feature, else pointer; code) in a list of errors, sorted.
#[track_caller]
pub fn violations(errors: &Value) -> Vec<(String, String)> {
    let errors = errors.as_array().expect("a list of errors").iter();
    let mut found: Vec<(String, String)> = errors
        .map(|error| {
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
            let place = error["feature"].as_str().or(error["pointer"].as_str()).unwrap_or_default();
            (place.to_owned(), error["code"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    found.sort();
    found
}

/// For comparison with [`violations`].
pub fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        pairs.iter().map(|(place, code)| ((*place).to_owned(), (*code).to_owned())).collect();
    pairs.sort();
    pairs
}

/// The names of an object's members, sorted.
#[track_caller]
pub fn names(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
