//! An import that is told of while it runs, a line of JSON at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use super::answer::Json;
use super::import::ImportResponse;
use super::problem::Problem;
use super::tables::BrokenOff;
use crate::service::import::{Counts, Tally};
use crate::service::principal::{self, on_behalf};
use crate::table::Format;

/// So often it is said how far an import is. One that ends before is answered as any other.
const EVERY: Duration = Duration::from_millis(250);

/// A line of the answer. The last one is a report or a problem.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Counts),
    Report(ImportResponse),
    Problem(Problem),
}

impl Line {
    fn bytes(&self) -> Result<Bytes, BrokenOff> {
        let mut line = serde_json::to_vec(self).map_err(|error| BrokenOff::because(&error))?;
        line.push(b'\n');
        Ok(line.into())
    }
}

/// Does `work`, and tells of it by the counts of `tally`.
pub async fn answer(
    work: impl Future<Output = Result<ImportResponse, Problem>> + Send + 'static,
    tally: Arc<Tally>,
    request_id: String,
) -> Result<Response, Problem> {
    // The body of an answer is made outside of what goes on around its request.
    let mut work = Box::pin(on_behalf(principal::current(), work));
    if let Ok(ended) = tokio::time::timeout(EVERY, &mut work).await {
        return Ok(Json(ended?).into_response());
    }
    let begun = Line::Progress(tally.counts());
    let lines = futures::stream::try_unfold((Some(work), Some(begun)), move |(work, line)| {
        let (tally, request_id) = (tally.clone(), request_id.clone());
        async move {
            let Some(mut work) = work else { return Ok(None) };
            if let Some(line) = line {
                return Ok(Some((line.bytes()?, (Some(work), None))));
            }
            let (line, work) = match tokio::time::timeout(EVERY, &mut work).await {
                Ok(Ok(report)) => (Line::Report(report), None),
                Ok(Err(problem)) => (Line::Problem(Problem { request_id, ..problem }), None),
                Err(_) => (Line::Progress(tally.counts()), Some(work)),
            };
            Ok::<_, BrokenOff>(Some((line.bytes()?, (work, None))))
        }
    });
    let mut response = Body::from_stream(futures::StreamExt::fuse(lines)).into_response();
    let media_type = HeaderValue::from_static(Format::Ndjson.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}
