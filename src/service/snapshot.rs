//! The registry as it is held in memory: immutable, shared, swapped as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use super::compile::compile;
use super::principal::permit_service;
use crate::domain::compiled::{Defaults, SharedEntityType};
use crate::domain::feature_service::FeatureService;
use crate::domain::name::{EntityType, FeatureName, FeatureServiceName, FeatureServiceRef};
use crate::domain::schema::RegisteredEntityType;
use crate::store::{Document, DocumentKind, RegistryState, StoreError};

/// Everything that the registry held at one revision.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: u64,
    entity_types: HashMap<EntityType, SharedEntityType>,
    feature_services: BTreeMap<FeatureServiceName, Arc<FeatureService>>,
}

impl Snapshot {
    /// Makes the documents of a store ready for use. One that cannot be read is a corrupt store.
    pub fn build(state: RegistryState, defaults: &Defaults) -> Result<Self, StoreError> {
        let mut snapshot = Self { revision: state.revision, ..Self::default() };
        for document in state.documents {
            match document.kind {
                DocumentKind::EntityType => {
                    let registered: RegisteredEntityType = read(&document)?;
                    let compiled = compile(registered, defaults)
                        .map_err(|violations| corrupt(&document, &violations[0]))?;
                    snapshot.entity_types.insert(compiled.name().clone(), Arc::new(compiled));
                }
                DocumentKind::FeatureService => {
                    let service: FeatureService = read(&document)?;
                    if service.versions.is_empty() {
                        return Err(corrupt(&document, &"it has no versions"));
                    }
                    snapshot.feature_services.insert(service.name.clone(), Arc::new(service));
                }
            }
        }
        Ok(snapshot)
    }

    pub fn entity_type(&self, name: &EntityType) -> Option<&SharedEntityType> {
        self.entity_types.get(name)
    }

    /// As [`Self::entity_type`], by a text that may be no name at all.
    pub fn by_name(&self, text: &str) -> Option<&SharedEntityType> {
        self.entity_types.get(text)
    }

    /// In the order of their names.
    pub fn entity_types(&self) -> Vec<&SharedEntityType> {
        let mut all: Vec<_> = self.entity_types.values().collect();
        all.sort_unstable_by_key(|entity_type| entity_type.name());
        all
    }

    pub fn feature_service(&self, name: &FeatureServiceName) -> Option<&Arc<FeatureService>> {
        self.feature_services.get(name)
    }

    /// In the order of their names.
    pub fn feature_services(&self) -> impl Iterator<Item = &Arc<FeatureService>> {
        self.feature_services.values()
    }

    /// The feature services that read a feature, each with the version that does.
    pub fn services_that_read(&self, entity_type: &EntityType, feature: Option<&FeatureName>) -> Vec<String> {
        readers(self.feature_services.values(), entity_type, feature)
    }

    /// As [`Self::services_that_read`], those alone that whoever asks may use.
    pub fn readers_in_sight(&self, entity_type: &EntityType, feature: &FeatureName) -> Vec<String> {
        let in_sight = self.feature_services.values().filter(|service| permit_service(service).is_ok());
        readers(in_sight, entity_type, Some(feature))
    }

    /// Whether a reference such as `ranking@2` is known here.
    pub fn knows_service(&self, reference: &FeatureServiceRef) -> bool {
        self.feature_service(&reference.name)
            .is_some_and(|service| service.version(reference.version).is_some())
    }
}

/// The versions of feature services that read an entity type, or a feature of it.
fn readers<'a>(
    services: impl Iterator<Item = &'a Arc<FeatureService>>,
    entity_type: &EntityType,
    feature: Option<&FeatureName>,
) -> Vec<String> {
    let versions =
        services.flat_map(|service| service.versions.iter().map(|version| (&service.name, version)));
    let readers = versions.filter(|(_, version)| {
        version.spec.features.iter().any(|reference| {
            reference.entity_type == *entity_type && feature.is_none_or(|name| reference.feature == *name)
        })
    });
    readers.map(|(name, version)| format!("{name}@{}", version.version)).collect()
}

fn read<'a, T: serde::Deserialize<'a>>(document: &'a Document) -> Result<T, StoreError> {
    serde_json::from_str(&document.body).map_err(|error| corrupt(document, &error))
}

fn corrupt(document: &Document, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        key: match document.kind {
            DocumentKind::EntityType => "entity types",
            DocumentKind::FeatureService => "feature services",
        }
        .to_owned(),
        field: document.name.clone(),
        reason: reason.to_string(),
    }
}
