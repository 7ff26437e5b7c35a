//! Feature services: what one model reads.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Json;
use super::extract::{Document, Path};
use super::problem::{ChangeProblems, Problem, ReadProblems};
use crate::domain::feature_service::{FeatureService, FeatureServiceSpec, FeatureServiceVersion};
use crate::domain::name::{FeatureServiceName, FeatureServiceRef};
use crate::service::error::ServiceError;
use crate::service::principal::permit_service;

/// A feature service with its versions.
#[derive(Serialize, utoipa::ToSchema)]
pub struct FeatureServiceResponse<'a> {
    name: &'a str,
    /// The latest version, or the one asked for.
    version: u32,
    #[schema(value_type = FeatureServiceVersion)]
    current: &'a FeatureServiceVersion,
    /// Every version, oldest first.
    #[schema(value_type = Vec<FeatureServiceVersion>)]
    versions: &'a [FeatureServiceVersion],
}

impl<'a> FeatureServiceResponse<'a> {
    fn of(service: &'a FeatureService, version: Option<u32>) -> Option<Self> {
        let current = service.version(version)?;
        Some(Self {
            name: service.name.as_str(),
            version: current.version,
            current,
            versions: &service.versions,
        })
    }
}

/// Every feature service.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListFeatureServicesResponse<'a> {
    /// In the order of their names.
    feature_services: Vec<FeatureServiceResponse<'a>>,
}

/// List feature services
#[utoipa::path(
    get, path = "/v1/feature-services",
    operation_id = "list_feature_services", tag = "registry",
    responses((status = 200, description = "Every feature service", body = inline(ListFeatureServicesResponse)), ReadProblems)
)]
pub async fn list_feature_services(State(app): State<App>) -> Result<Response, Problem> {
    app.store.registry().refresh().await?;
    let snapshot = app.store.registry().snapshot();
    let visible = snapshot.feature_services().filter(|service| permit_service(service).is_ok());
    let services = visible.filter_map(|service| FeatureServiceResponse::of(service, None));
    Ok(Json(ListFeatureServicesResponse { feature_services: services.collect() }).into_response())
}

/// The name of a feature service, possibly with a version, in the path.
#[derive(Deserialize)]
pub struct ServicePath {
    pub name: String,
}

/// Get a feature service
///
/// By name (its latest version) or as `name@2`.
#[utoipa::path(
    get, path = "/v1/feature-services/{name}",
    operation_id = "get_feature_service", tag = "registry",
    params(("name" = FeatureServiceRef, Path, description = "The feature service, as `ranking` or `ranking@2`", example = "ranking")),
    responses((status = 200, description = "The feature service", body = inline(FeatureServiceResponse)), ReadProblems)
)]
pub async fn get_feature_service(
    State(app): State<App>,
    Path(path): Path<ServicePath>,
) -> Result<Response, Problem> {
    let reference = FeatureServiceRef::parse(&path.name)?;
    app.store.registry().refresh().await?;
    let snapshot = app.store.registry().snapshot();
    let service = snapshot.feature_service(&reference.name);
    if let Some(service) = service {
        permit_service(service)?;
    }
    match service.and_then(|service| FeatureServiceResponse::of(service, reference.version)) {
        Some(response) => Ok(Json(response).into_response()),
        None => Err(ServiceError::NotFound { what: "feature service", name: path.name }.into()),
    }
}

/// What putting a feature service made.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PutFeatureServiceResponse {
    name: FeatureServiceName,
    #[serde(flatten)]
    version: FeatureServiceVersion,
}

/// Put a feature service
///
/// A list or description other than the latest makes a new version; versions never change.
#[utoipa::path(
    put, path = "/v1/feature-services/{name}",
    operation_id = "put_feature_service", tag = "registry",
    params(("name" = FeatureServiceName, Path, description = "The feature service", example = "ranking")),
    request_body(content((FeatureServiceSpec = "application/json"), (FeatureServiceSpec = "application/yaml"))),
    responses(
        (status = 200, description = "A new version, or unchanged", body = PutFeatureServiceResponse),
        (status = 201, description = "Created", body = PutFeatureServiceResponse),
        ChangeProblems,
    )
)]
pub async fn put_feature_service(
    State(app): State<App>,
    Path(name): Path<FeatureServiceName>,
    Document(spec): Document<FeatureServiceSpec>,
) -> Result<Response, Problem> {
    app.store.check_feature_count(spec.features.len())?;
    let put = app.store.registry().put_feature_service(&name, spec).await?;
    let mut response = Json(PutFeatureServiceResponse { name, version: put.document }).into_response();
    if put.created {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Delete a feature service
///
/// All its versions, and what was kept of what it served.
#[utoipa::path(
    delete, path = "/v1/feature-services/{name}",
    operation_id = "delete_feature_service", tag = "registry",
    params(("name" = FeatureServiceName, Path, description = "The feature service", example = "ranking")),
    responses((status = 204, description = "Deleted"), ChangeProblems)
)]
pub async fn delete_feature_service(
    State(app): State<App>,
    Path(name): Path<FeatureServiceName>,
) -> Result<Response, Problem> {
    app.store.delete_feature_service(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
