//! Who asks, and what they may.
//!
//! The one who asks is ambient, as the span of a log line is: it goes along with the task that works
//! for them, into jobs too. So the registry can refuse an entity type wherever one is looked up, which
//! every use case has to do, and no use case can forget to ask. Where nobody is set (without API keys,
//! in the server's own upkeep) everything is allowed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::ServiceError;
use crate::domain::feature_service::FeatureService;
use crate::domain::name::{EntityType, FeatureRef};

tokio::task_local! {
    static CURRENT: Arc<Principal>;
}

/// What a key allows. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Features, history and the registry, without changing anything.
    Read,
    /// Writes, computes, deletes and rolls back features.
    Write,
    /// Changes the registry, and whole entity types.
    Admin,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Somebody who showed a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The key's name: the actor of what is written with it.
    pub name: Arc<str>,
    pub scopes: BTreeSet<Scope>,
    /// `None`: all of them.
    pub entity_types: Option<BTreeSet<EntityType>>,
}

impl Principal {
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    pub fn may_use(&self, entity_type: &EntityType) -> bool {
        self.entity_types.as_ref().is_none_or(|allowed| allowed.contains(entity_type))
    }
}

/// Who the present task works for; `None` where nobody asked, or nobody is asked who they are.
pub fn current() -> Option<Arc<Principal>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Does `work` for `principal`.
pub async fn on_behalf<F: Future>(principal: Option<Arc<Principal>>, work: F) -> F::Output {
    match principal {
        Some(principal) => CURRENT.scope(principal, work).await,
        None => work.await,
    }
}

/// Whether whoever asks may use some entity types only.
pub fn is_restricted() -> bool {
    CURRENT.try_with(|principal| principal.entity_types.is_some()).unwrap_or(false)
}

/// Whether whoever asks may use an entity type.
pub fn may_use(entity_type: &EntityType) -> bool {
    CURRENT.try_with(|principal| principal.may_use(entity_type)).unwrap_or(true)
}

/// Refuses an entity type that whoever asks may not use, whether it is there or not.
pub fn permit(entity_type: &EntityType) -> Result<(), ServiceError> {
    if may_use(entity_type) { Ok(()) } else { Err(ServiceError::Forbidden(entity_type.clone())) }
}

/// Refuses what is of all entity types to whoever may use some of them only.
pub fn permit_everything() -> Result<(), ServiceError> {
    if is_restricted() { Err(ServiceError::ForbiddenToSome) } else { Ok(()) }
}

/// As [`permit`], for every entity type that features belong to.
pub fn permit_all(features: &[FeatureRef]) -> Result<(), ServiceError> {
    features.iter().try_for_each(|feature| permit(&feature.entity_type))
}

/// As [`permit_all`], over all versions of a feature service.
pub fn permit_service(service: &FeatureService) -> Result<(), ServiceError> {
    service.versions.iter().try_for_each(|version| permit_all(&version.spec.features))
}
