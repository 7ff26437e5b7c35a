//! What models got, as a table.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::App;
use super::export;
use super::extract::{Path, Query};
use super::feature_services::ServicePath;
use super::problem::{Problem, ReadProblems};
use super::tables::{FormatName, TableAnswer, wanted};
use crate::domain::name::FeatureServiceRef;
use crate::domain::time::Timestamp;
use crate::service::serving_log::export::{LogInclude, LogRequest};

/// Which part of a serving log is wanted.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServingLogQuery {
    /// What was served from then on; everything that is kept, if not given.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// What was served before then.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Columns beside each feature's values, separated by commas: `event_timestamp`, `status`, `version`.
    #[param(
        example = "event_timestamp,status,version",
        pattern = "^(event_timestamp|status|version)(,(event_timestamp|status|version))*$"
    )]
    include: Option<String>,
    /// The format of the answer; what `Accept` asks for, if not given, else JSON.
    format: Option<FormatName>,
}

/// Export what a feature service served
///
/// The reads of this version that were drawn (`serving_log` of the feature service), as they were
/// answered, in the order of time: `served_at`, `request_id`, an id for each entity type, and the
/// features. In a request of several types, a type with one entity goes with every row, and types with
/// as many entities as each other go together in their order; otherwise each entity has its own row.
#[utoipa::path(
    get, path = "/v1/feature-services/{name}/serving-log",
    operation_id = "export_serving_log", tag = "training",
    params(("name" = FeatureServiceRef, Path, description = "The feature service, as `ranking` (its latest version) or `ranking@2`", example = "ranking"), ServingLogQuery),
    responses(TableAnswer, (status = 406, description = "Accept names no format of tables.", body = Problem, content_type = "application/problem+json"), ReadProblems)
)]
pub async fn export_serving_log(
    State(app): State<App>,
    Path(path): Path<ServicePath>,
    Query(query): Query<ServingLogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = wanted(query.format, &headers)?;
    let service = FeatureServiceRef::parse(&path.name)?;
    let name = format!("{}-served", service.name);
    let include = include(query.include.as_deref())?;
    let request = LogRequest { service, from: query.from, to: query.to, include };
    export::send(app.store.export_serving_log(request).await?, format, &name, true).await
}

fn include(list: Option<&str>) -> Result<LogInclude, Problem> {
    let mut include = LogInclude::default();
    for word in list.into_iter().flat_map(|list| list.split(',')) {
        match word.trim() {
            "event_timestamp" => include.event_timestamp = true,
            "status" => include.status = true,
            "version" => include.version = true,
            other => {
                let detail = format!("include: {other:?} is none of event_timestamp, status, version");
                return Err(Problem::invalid(detail));
            }
        }
    }
    Ok(include)
}
