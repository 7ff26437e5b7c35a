//! What the server says of an import: while it runs, and at its end.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::count;
use super::progress::{Progress, number};
use crate::cli::Failure;
use crate::cli::client::{Client, problem_of};

/// How an import ended, or where it goes on.
pub enum Answer {
    Report(Report),
    /// The path of a job.
    Job(String),
}

/// What became of a table.
pub struct Report {
    counts: Value,
    pub rejected: u64,
    pub rejections: Vec<Value>,
}

impl Report {
    fn new(mut report: Value) -> Self {
        let rejections = match report.get_mut("rejections").map(Value::take) {
            Some(Value::Array(rejections)) => rejections,
            _ => Vec::new(),
        };
        Self { rejected: count(&report, "rejected"), rejections, counts: report }
    }

    /// In a line.
    pub fn summary(&self, took: Duration) -> String {
        let of = |name| count(&self.counts, name);
        let rows = of("rows");
        let rate = rows as f64 / took.as_secs_f64().max(0.001);
        let noun = if rows == 1 { "row" } else { "rows" };
        let seconds = took.as_secs_f64();
        let mut text =
            format!("{} {noun} in {seconds:.1} s ({} a second)", number(rows), number(rate as u64));
        let words = ["written", "unchanged", "late", "empty", "rejected"];
        let said = words.into_iter().filter(|word| of(word) > 0);
        let said: Vec<String> = said.map(|word| format!("{} {word}", number(of(word)))).collect();
        if !said.is_empty() {
            text += &format!(": {}", said.join(", "));
        }
        text
    }
}

/// Sends an import and waits for its end, telling `progress` what the server tells.
pub async fn follow(client: &Client, request: Request<Body>, progress: &Progress) -> Result<Answer, Failure> {
    let answer = client.ask(request).await?;
    if answer.status() == StatusCode::ACCEPTED {
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        return Ok(Answer::Job(location.unwrap_or("/v1/jobs").to_owned()));
    }
    let is_told =
        answer.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/x-ndjson");
    match is_told {
        true => told(client, answer, progress).await,
        false => Ok(Answer::Report(Report::new(json(&client.text(answer.into_body()).await?)?))),
    }
}

async fn told(client: &Client, answer: Response<Body>, progress: &Progress) -> Result<Answer, Failure> {
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| client.lost(&error))?.into_data() else { continue };
        text.extend_from_slice(&data);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let mut line = json(&String::from_utf8_lossy(&line))?;
            if let Some(report) = line.get_mut("report") {
                return Ok(Answer::Report(Report::new(report.take())));
            }
            if let Some(problem) = line.get("problem") {
                let status = u16::try_from(count(problem, "status")).ok();
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                return Err(problem_of(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem));
            }
            if let Some(counts) = line.get("progress") {
                progress.counted(count(counts, "rows"), count(counts, "rejected"));
            }
        }
    }
    Err(Failure::server(format!("{}: the answer ended before the import did", client.base())))
}

fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::server(format!("the server's answer is no JSON: {error}")))
}
