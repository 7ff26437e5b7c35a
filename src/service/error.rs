//! Why a use case was refused or failed.

use crate::domain::name::{EntityKey, EntityType};
use crate::domain::record::Version;
use crate::domain::violation::Violation;
pub use crate::store::StoreError;

/// Why a use case was refused or failed. The texts are for clients, save those of `Store`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServiceError {
    /// The request contradicts itself or lacks something.
    #[error("{0}")]
    InvalidRequest(String),
    /// What was sent does not fit the schema; everything that is wrong is listed.
    #[error("{}", summary(.0))]
    ValidationFailed(Vec<Violation>),
    #[error("there is no entity type {0}")]
    UnknownEntityType(EntityType),
    /// The key that was shown is for other entity types.
    #[error("this key does not allow the entity type {0}")]
    Forbidden(EntityType),
    /// The key that was shown is for some entity types, and this is of all of them.
    #[error("this is of all entity types, and this key allows some of them only")]
    ForbiddenToSome,
    /// Names that no schema knows.
    #[error("{}", summary(.0))]
    UnknownFeatures(Vec<Violation>),
    /// A thing that is named by the path is not there: a feature service, a job.
    #[error("there is no {what} {name}")]
    NotFound { what: &'static str, name: String },
    #[error("the store has nothing of the entity {0}")]
    EntityNotFound(EntityKey),
    #[error("{message}")]
    VersionNotFound { message: String, violations: Vec<Violation> },
    #[error("the entity is at version {current}, not at the one that If-Match asks for")]
    VersionConflict { current: Version },
    #[error("{message}")]
    SchemaConflict { message: String, violations: Vec<Violation> },
    /// More than a limit allows.
    #[error("{0}")]
    TooLarge(String),
    /// Other writers of the same entity won every time.
    #[error("too many writers of one entity at the same time; try again")]
    Contention,
    /// Something else than the store that a request needs, such as a provider of embeddings.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug.
    #[error("{0}")]
    Internal(String),
}

/// One sentence for a list of violations; the list itself goes beside it.
fn summary(violations: &[Violation]) -> String {
    match violations {
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "the request is not valid".to_owned(),
    }
}
