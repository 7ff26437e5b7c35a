//! Log lines: where they go, how they look, and which request they belong to.
//!
//! The request that a task works for is ambient, and looked at only when a line is written. A tracing
//! span would say the same, and render it for every request, most of which never log anything.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, Uri};
use serde::Serialize;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

tokio::task_local! {
    static REQUEST: Arc<RequestLine>;
}

/// What a log line says of the request it belongs to.
#[derive(Debug)]
pub struct RequestLine {
    pub id: HeaderValue,
    pub method: Method,
    pub uri: Uri,
    /// The name of the API key, once it is known.
    pub key: OnceLock<Arc<str>>,
    /// The trace that it is a part of, if it is one.
    pub trace: Option<String>,
}

/// Does `work` so that its log lines say which request they belong to.
pub async fn of_request<F: Future>(request: Arc<RequestLine>, work: F) -> F::Output {
    REQUEST.scope(request, work).await
}

/// As [`of_request`], of what is done at once.
pub fn within<T>(request: Arc<RequestLine>, work: impl FnOnce() -> T) -> T {
    REQUEST.sync_scope(request, work)
}

/// The id of the request that the present task works for; nothing where it works for none.
pub fn request_id() -> String {
    let id = REQUEST.try_with(|line| line.id.to_str().unwrap_or_default().to_owned());
    id.unwrap_or_default()
}

/// Starts logging to standard error. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // An error here means that logging was set up before, as in tests that start several servers.
    let _ = if json {
        let lines = Lines(Format::default().json().flatten_event(true), Style::Json);
        builder.json().event_format(lines).try_init()
    } else {
        builder.event_format(Lines(Format::default(), Style::Text)).try_init()
    };
    Ok(())
}

/// Lines of a format, each with its request at the end.
struct Lines<F>(F, Style);

#[derive(Clone, Copy)]
enum Style {
    Json,
    Text,
}

#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
}

impl<'a> From<&'a RequestLine> for Shown<'a> {
    fn from(line: &'a RequestLine) -> Self {
        Self {
            id: line.id.to_str().unwrap_or_default(),
            method: line.method.as_str(),
            path: line.uri.path(),
            key: line.key.get().map(|key| &**key),
            trace: line.trace.as_deref(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Ok(request) = REQUEST.try_with(Arc::clone) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with_request(&line, &Shown::from(&*request), self.1))
    }
}

fn with_request(line: &str, request: &Shown<'_>, style: Style) -> String {
    let line = line.trim_end();
    match style {
        Style::Json => match (line.strip_suffix('}'), serde_json::to_string(request)) {
            (Some(open), Ok(request)) => format!("{open},\"request\":{request}}}\n"),
            _ => format!("{line}\n"),
        },
        Style::Text => {
            let Shown { id, method, path, key, trace } = request;
            // A path comes from outside: as debug text it cannot break a line.
            let mut text = format!("{line} request.id={id} request.method={method} request.path={path:?}");
            if let Some(key) = key {
                text.push_str(&format!(" request.key={key}"));
            }
            if let Some(trace) = trace {
                text.push_str(&format!(" request.trace={trace}"));
            }
            text.push('\n');
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_their_request() {
        let shown = Shown { id: "7", method: "GET", path: "/a\"b", key: Some("ci"), trace: Some("4b") };
        let json = with_request("{\"level\":\"WARN\",\"message\":\"no\"}\n", &shown, Style::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["message"], "no");
        let request =
            serde_json::json!({"id": "7", "method": "GET", "path": "/a\"b", "key": "ci", "trace": "4b"});
        assert_eq!(json["request"], request);
        let text = with_request("WARN no\n", &shown, Style::Text);
        assert_eq!(
            text,
            "WARN no request.id=7 request.method=GET request.path=\"/a\\\"b\" request.key=ci request.trace=4b\n"
        );
    }
}
