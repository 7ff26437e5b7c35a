//! One step after the other: what is asked, what came back, and whether that is what should.

use std::time::Duration;

use serde_json::Value;

use super::client::{Answer, Call, Client};
use super::json;
use crate::cli::print;
use crate::domain::time::Timestamp;

/// Longer arrays are cut when they are shown.
const LONGEST: usize = 8;
/// So many lines of a text that is not JSON are shown.
const LINES: usize = 12;

/// What a step must answer.
#[derive(Debug)]
pub struct Expected {
    status: u16,
    /// JSON pointers into the answer, and what must be there.
    members: Vec<(&'static str, Value)>,
    /// What a text must contain.
    text: Option<&'static str>,
}

impl Expected {
    pub fn status(status: u16) -> Self {
        Self { status, members: Vec::new(), text: None }
    }

    pub fn ok() -> Self {
        Self::status(200)
    }

    pub fn with(mut self, pointer: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((pointer, value.into()));
        self
    }

    pub fn containing(self, text: &'static str) -> Self {
        Self { text: Some(text), ..self }
    }

    /// Everything that is not as it should be.
    fn missed(&self, answer: &Answer, body: &Value) -> Vec<String> {
        let mut missed = Vec::new();
        if answer.status != self.status {
            missed.push(format!("the status should be {}, not {}", self.status, answer.status));
        }
        for (pointer, wanted) in &self.members {
            let found = body.pointer(pointer);
            if found != Some(wanted) {
                let found = found.map_or("nothing".to_owned(), ToString::to_string);
                missed.push(format!("{pointer} should be {wanted}, not {found}"));
            }
        }
        if let Some(text) = self.text.filter(|text| !answer.body.contains(text)) {
            missed.push(format!("the answer should contain {text:?}"));
        }
        missed
    }
}

/// A walk through a server.
pub struct Walk {
    client: Client,
    began: Timestamp,
    steps: usize,
    missed: Vec<String>,
}

impl Walk {
    pub fn new(client: Client, began: Timestamp) -> Self {
        Self { client, began, steps: 0, missed: Vec::new() }
    }

    /// So many minutes before the walk began, in whole seconds.
    pub fn minutes_ago(&self, minutes: i64) -> Timestamp {
        let seconds = self.began.as_millis() / 1000 - minutes * 60;
        Timestamp::from_millis(seconds * 1000).unwrap_or(self.began)
    }

    pub fn print(&self, text: &str) -> Result<(), String> {
        print(text)
    }

    pub fn chapter(&self, title: &str) -> Result<(), String> {
        self.print(&format!("\n━━━ {title} ━━━"))
    }

    /// A server that has just started needs a moment for its store.
    pub async fn wait_until_ready(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..100 {
            match self.client.send(&Call::get("/readyz")).await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => last = answer.body,
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("the server does not become ready: {last}"))
    }

    /// Takes one step: `says` what it is about, sends `call`, shows both and the answer.
    pub async fn step(&mut self, says: &str, call: Call, expected: Expected) -> Result<Value, String> {
        let curl = call.curl(self.client.base());
        self.take(says, &curl, call, expected, LONGEST).await
    }

    /// As [`Self::step`] for a request too long to be shown: `shown` stands in for it.
    pub async fn long_step(
        &mut self,
        says: &str,
        shown: &Call,
        call: Call,
        expected: Expected,
    ) -> Result<Value, String> {
        let curl = format!("{}\n  (one row of many is shown)", shown.curl(self.client.base()));
        self.take(says, &curl, call, expected, 3).await
    }

    async fn take(
        &mut self,
        says: &str,
        curl: &str,
        call: Call,
        expected: Expected,
        longest: usize,
    ) -> Result<Value, String> {
        self.steps += 1;
        self.print(&format!("\n{}. {says}\n$ {curl}", self.steps))?;
        let answer = self.client.send(&call).await?;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let mut shown = answer.status.to_string();
        if let Some(version) = answer.headers.get("etag").and_then(|value| value.to_str().ok()) {
            shown += &format!("  ETag: {version}");
        }
        if !answer.body.is_empty() {
            let text =
                if body.is_null() { first_lines(&answer.body) } else { json::pretty(&answer.body, longest) };
            shown += &format!("\n{text}");
        }
        self.print(&shown)?;
        for missed in expected.missed(&answer, &body) {
            self.print(&format!("✗ {missed}"))?;
            self.missed.push(format!("step {}: {missed}", self.steps));
        }
        Ok(body)
    }

    /// Says how it went; an error lists every step that did not answer what it should.
    pub fn finish(&self) -> Result<Result<(), String>, String> {
        if self.missed.is_empty() {
            self.print(&format!("\nAll {} steps answered what they should.", self.steps))?;
            return Ok(Ok(()));
        }
        Ok(Err(format!("the walk did not go as it should:\n  {}", self.missed.join("\n  "))))
    }
}

fn first_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().take(LINES).collect();
    let count = text.lines().count();
    let rest = format!("… {count} lines in all");
    if count > LINES {
        lines.push(&rest);
    }
    lines.join("\n")
}
