//! Requests that are wrong in every way we know of: each gets the right problem and changes
//! nothing.

use serde_json::json;

use crate::malformed_cases::{Case, cases};
use crate::test_server::{On, TestServer};

crate::on_both_stores![malformed_requests_change_nothing];

async fn malformed_requests_change_nothing(on: On) {
    let server = on.server_with(|config| config.max_body_bytes = 1 << 20).await;
    let schema = json!({"schema_mode": "strict", "features": {
        "price": {"type": "float64", "minimum": 0}, "stock": {"type": "int64"}, "name": {"type": "string"},
        "at": {"type": "timestamp"}, "extra": {"type": "json"}, "sure": {"type": "boolean", "nullable": false},
        "vector": {"type": "embedding", "dimension": 3}}});
    server.declare("product", schema).await;
    server.write("product/sentinel", json!({"price": 1.5, "stock": 1, "vector": [1.0, 2.0, 3.0]})).await;
    server.write("loose/sentinel", json!({"n": 1})).await;
    let cases = cases(&server.time(3600));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let before = state(&server).await;
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = case.request.send(server.address).await;
        wrong.extend(case.check(&answer));
        let after = state(&server).await;
        if after != before {
            wrong.push(format!("{}: changed\n{before:?} to\n{after:?}", case.what));
            break;
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What no malformed request may change.
async fn state(server: &TestServer) -> Vec<String> {
    let mut state = vec![server.registry_revision().await.to_string()];
    for path in [
        "/v1/entities/product/sentinel/features?include=metadata",
        "/v1/entities/loose/sentinel/features?include=metadata",
        "/v1/entities/product",
        "/v1/entities/loose",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        state.push(answer.text());
    }
    state
}

impl Case {
    /// What is wrong with the answer, if anything.
    fn check(&self, answer: &crate::client::Answer) -> Option<String> {
        let text = answer.text();
        let complain = |what: String| Some(format!("{}: {what}: {} {text}", self.what, answer.status));
        if answer.status != self.status {
            return complain(format!("expected {}", self.status));
        }
        if answer.header("content-type") != "application/problem+json" {
            return complain(format!("content type {:?}", answer.header("content-type")));
        }
        let Ok(problem) = serde_json::from_slice::<serde_json::Value>(&answer.body) else {
            return complain("not JSON".to_owned());
        };
        let members = [
            ("type", json!(format!("urn:feature-store:problem:{}", self.code))),
            ("status", json!(self.status)),
            ("code", json!(self.code)),
            ("request_id", json!(answer.header("x-request-id"))),
        ];
        for (member, value) in members {
            if problem[member] != value {
                return complain(format!("{member} is not {value}"));
            }
        }
        for member in ["title", "detail", "request_id"] {
            if problem[member].as_str().is_none_or(str::is_empty) {
                return complain(format!("no {member}"));
            }
        }
        None
    }
}
