//! Tables of features, sent in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::{Query, refuse_encoded};
use super::features::origin;
use super::import_told;
use super::jobs::{Accepted, prefers_async};
use super::problem::{ChangeProblems, Code, Problem};
use super::tables::accepted;
use super::upload::{self, spool};
use crate::domain::name::EntityType;
use crate::domain::time::Ttl;
use crate::logs;
use crate::service::error::ServiceError;
use crate::service::import::{Counts, Import, ImportError, ImportFailed, Nulls, Rejection, Report, Tally};
use crate::service::jobs::Progress;
use crate::table::Format;
use crate::table::given::Unit;
use crate::table::read::{ReadError, Source};

const MAX_REJECTIONS: usize = 10_000;

/// What the table is.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportParams {
    /// The entity type that all rows belong to.
    #[param(value_type = EntityType, example = "product")]
    entity_type: EntityType,
    /// The column of the entity ids: texts or whole numbers.
    #[serde(default = "id_column")]
    #[param(required = false, example = "entity_id")]
    id_column: String,
    /// The column of the event times. Without this parameter it is `event_timestamp`, where there is
    /// such a column; rows of a table that has none take place when the import starts.
    #[param(example = "event_timestamp")]
    timestamp_column: Option<String>,
    /// What event times that are whole numbers count since 1970: `s`, `ms`, `us` or `ns`. Without it
    /// they are refused.
    #[param(inline)]
    timestamp_unit: Option<TimestampUnit>,
    /// Columns to import, and the names of their features where they differ: `price,title:name`.
    /// Without it all columns are features.
    #[param(example = "price,title:name")]
    columns: Option<String>,
    /// What a null cell does: `skip` leaves the feature as it is, `write` writes null.
    #[serde(default)]
    #[param(inline, required = false)]
    nulls: NullsParam,
    /// What a float cell that is not a number does: `reject` its row, or be taken as `null`.
    #[serde(default)]
    #[param(inline, required = false)]
    nan: NanParam,
    /// The ttl of everything imported: seconds, text such as `1h`, or `never`.
    #[param(example = "30d")]
    ttl: Option<String>,
    /// Goes into the provenance.
    #[param(max_length = 1024, example = "catalogue-sync")]
    source: Option<String>,
    /// Goes into the provenance.
    #[param(max_length = 1024, example = "2026-01-02")]
    run_id: Option<String>,
    /// So many rejected rows are listed; all are counted.
    #[serde(default = "max_rejections")]
    #[param(required = false, minimum = 0, maximum = 10_000, example = 100)]
    max_rejections: usize,
    /// Whether to answer as soon as the body is here, and import in a job. The header
    /// `Prefer: respond-async` does the same.
    #[serde(default, rename = "async")]
    #[param(required = false)]
    in_background: bool,
}

fn id_column() -> String {
    "entity_id".to_owned()
}

fn max_rejections() -> usize {
    100
}

/// What a whole number counts.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    S,
    Ms,
    Us,
    Ns,
}

impl From<TimestampUnit> for Unit {
    fn from(unit: TimestampUnit) -> Self {
        match unit {
            TimestampUnit::S => Self::Seconds,
            TimestampUnit::Ms => Self::Milliseconds,
            TimestampUnit::Us => Self::Microseconds,
            TimestampUnit::Ns => Self::Nanoseconds,
        }
    }
}

/// What a null cell does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NullsParam {
    #[default]
    Skip,
    Write,
}

/// What a float cell that is not a number does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NanParam {
    #[default]
    Reject,
    Null,
}

impl ImportParams {
    fn into_import(self) -> Result<Import, Problem> {
        if self.max_rejections > MAX_REJECTIONS {
            return Err(Problem::invalid(format!(
                "max_rejections: at most {MAX_REJECTIONS} rows are listed"
            )));
        }
        let ttl = match self.ttl {
            Some(text) => {
                let json = serde_json::Value::from(text);
                Some(Ttl::deserialize(json).map_err(|error| Problem::invalid(format!("ttl: {error}")))?)
            }
            None => None,
        };
        Ok(Import {
            entity_type: self.entity_type,
            id_column: self.id_column,
            timestamp_column: self.timestamp_column,
            timestamp_unit: self.timestamp_unit.map(Into::into),
            columns: self.columns.as_deref().map(parse_columns).transpose()?,
            nulls: match self.nulls {
                NullsParam::Skip => Nulls::Skip,
                NullsParam::Write => Nulls::Write,
            },
            nan_is_null: self.nan == NanParam::Null,
            ttl,
            origin: origin(self.source, self.run_id, None)?,
            max_rejections: self.max_rejections,
        })
    }
}

/// `price,title:name`: columns, and their features where they are called otherwise.
fn parse_columns(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut columns: Vec<(String, String)> = Vec::new();
    for item in text.split(',') {
        let (column, feature) = item.split_once(':').unwrap_or((item, item));
        let (column, feature) = (column.trim(), feature.trim());
        if column.is_empty() || feature.is_empty() {
            return Err(Problem::invalid(
                "columns: write columns separated by commas, as in price,title:name",
            ));
        }
        if columns.iter().any(|(_, earlier)| earlier == feature) {
            return Err(Problem::invalid(format!("columns: the feature {feature:?} is there twice")));
        }
        columns.push((column.to_owned(), feature.to_owned()));
    }
    Ok(columns)
}

/// What became of an import.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ImportResponse {
    #[serde(flatten)]
    counts: Counts,
    /// The first rejected rows, as many as `max_rejections` allows.
    rejections: Vec<Rejection>,
}

/// Import a table
///
/// Rows of one entity type, as Parquet, an Arrow IPC stream, CSV with a line of names, JSON objects
/// one a line, or an array of them; the Content-Type says which. A column of ids, possibly one of
/// event times, and a column for each feature, in any order of rows. Each row is checked and stored
/// on its own; the event time decides what is served. The same import again changes nothing: a row
/// that is there already is `unchanged`. A table that cannot be read to its end is a problem whose
/// `imported` counts what was stored before.
///
/// With `Accept: application/x-ndjson` an import that takes longer than a moment is told of while it
/// runs: lines of `progress`, and at the end one of `report` or `problem`. Without that last line the
/// import ended early.
#[utoipa::path(
    post, path = "/v1/features/import",
    operation_id = "import_features", tag = "features",
    params(ImportParams, ("Prefer" = Option<String>, Header, description = "`respond-async`: as `async=true`", example = "respond-async")),
    request_body(description = "The table", content(
        (String = "application/x-ndjson", example = "{\"entity_id\": \"1\", \"price\": 1.5, \"event_timestamp\": \"2026-01-02T03:04:05Z\"}\n"),
        (String = "text/csv", example = "entity_id,price,event_timestamp\n1,1.5,2026-01-02T03:04:05Z\n"),
        (Vec<serde_json::Value> = "application/json", example = json!([{"entity_id": "1", "price": 1.5, "event_timestamp": "2026-01-02T03:04:05Z"}])),
        (inline(super::schemas::Binary) = "application/vnd.apache.parquet"),
        (inline(super::schemas::Binary) = "application/vnd.apache.arrow.stream"),
    )),
    responses(
        (status = 200, description = "What became of the rows", content(
            (ImportResponse = "application/json",
                example = json!({"rows": 1000, "written": 988, "unchanged": 8, "late": 2, "empty": 0, "rejected": 2,
                    "rejections": [{"row": 17, "entity_id": "x", "errors": [
                        {"feature": "price", "code": "below_minimum", "message": "must be at least 0"}]}]})),
            (String = "application/x-ndjson",
                example = "{\"progress\":{\"rows\":1000,\"written\":990,\"unchanged\":8,\"late\":2,\"empty\":0,\"rejected\":0}}\n"),
        )),
        Accepted,
        ChangeProblems
    )
)]
pub async fn import_features(
    State(app): State<App>,
    Query(params): Query<ImportParams>,
    request: Request,
) -> Result<Response, Problem> {
    refuse_encoded(request.headers())?;
    let format = format(request.headers())?;
    let in_background = params.in_background || prefers_async(request.headers());
    let is_told = accepted(request.headers()) == Some(Format::Ndjson);
    let request_id = logs::request_id();
    let import = params.into_import()?;
    let body = request.into_body();
    if in_background {
        return start_job(&app, import, format, body).await;
    }
    let tally = Arc::new(import.tally());
    let work = import_body(app, import, format, body, tally.clone());
    if is_told {
        return import_told::answer(work, tally, request_id).await;
    }
    Ok(Json(work.await?).into_response())
}

/// Imports a body while it comes.
async fn import_body(
    app: App,
    import: Import,
    format: Format,
    body: Body,
    tally: Arc<Tally>,
) -> Result<ImportResponse, Problem> {
    let limits = &app.uploads;
    let (feed, bytes) = upload::channel();
    let work = async {
        let source = match format {
            Format::Parquet => Source::File(spool(bytes, limits.spool_dir.clone()).await.map_err(unspooled)?),
            Format::Arrow | Format::Csv | Format::Ndjson | Format::Json => Source::Stream(bytes),
        };
        let report = app.store.import(import, format, source, &tally, None).await.map_err(failed)?;
        let Report { counts, rejections } = report;
        Ok(ImportResponse { counts, rejections })
    };
    let (taken, answer) = tokio::join!(feed.take(body, limits), work);
    because_of_body(taken, answer)
}

/// What is wrong with a body is the reason why what was to be done with it failed.
fn because_of_body<T>(taken: Result<(), Problem>, answer: Result<T, Problem>) -> Result<T, Problem> {
    match (taken, answer) {
        (Err(problem), Err(failed)) => Err(Problem { imported: failed.imported, ..problem }),
        (_, answer) => answer,
    }
}

async fn start_job(app: &App, import: Import, format: Format, body: Body) -> Result<Response, Problem> {
    let (feed, bytes) = upload::channel();
    let spooled = async { spool(bytes, app.uploads.spool_dir.clone()).await.map_err(unspooled) };
    let (taken, spooled) = tokio::join!(feed.take(body, &app.uploads), spooled);
    let source = Source::File(because_of_body(taken, spooled)?);
    let store = app.store.clone();
    let entity_type = import.entity_type.clone();
    let work = move |progress: Arc<Progress>| async move {
        let tally = Arc::new(import.tally());
        match store.import(import, format, source, &tally, Some(&progress)).await {
            Ok(_) | Err(ImportFailed { error: ImportError::Cancelled, .. }) => Ok(()),
            Err(ImportFailed { error: ImportError::Read(error), .. }) => {
                Err(ServiceError::InvalidRequest(error.to_string()))
            }
            Err(ImportFailed { error: ImportError::Service(error), .. }) => Err(error),
        }
    };
    let job = app.store.jobs().start("import", entity_type.as_str(), work).await?;
    Ok(Accepted(job).into_response())
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    named.and_then(Format::from_media_type).ok_or_else(|| {
        let known: Vec<&str> = Format::ALL.iter().map(|format| format.media_type()).collect();
        let detail = format!("the body must come with a Content-Type out of {}", known.join(", "));
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidRequest, detail)
    })
}

fn unspooled(error: std::io::Error) -> Problem {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Problem::invalid("the body could not be read to its end");
    }
    tracing::error!(%error, "a body cannot be kept in a file");
    Problem::unavailable("the server has no room for the body; try again, or send it in parts")
}

fn failed(failed: ImportFailed) -> Problem {
    let counts = failed.report.counts;
    let stored = counts.written + counts.late;
    let again = match stored {
        0 => "nothing was stored".to_owned(),
        1 => "1 row was stored, and may be sent again".to_owned(),
        more => format!("{more} rows were stored, and may be sent again"),
    };
    let problem = match failed.error {
        ImportError::Read(ReadError::Malformed(text)) => Problem::invalid(format!("{text}; {again}")),
        // What was wrong with the body is known where it is taken.
        ImportError::Read(ReadError::Source(error)) => {
            tracing::debug!(%error, "an import could not read on");
            Problem::invalid(format!("the body could not be read to its end; {again}"))
        }
        ImportError::Service(error) => {
            let problem = Problem::from(error);
            let detail = format!("{}; {again}", problem.detail);
            Problem { detail, ..problem }
        }
        ImportError::Cancelled => Problem::invalid(format!("the import was cancelled; {again}")),
    };
    Problem { imported: Some(counts), ..problem }
}
