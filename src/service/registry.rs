//! Entity types and feature services: kept in the store, held in memory, changed by compare and
//! set, so that every server sees one order of changes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use serde::Serialize;

use super::compile::compile;
use super::error::ServiceError;
use super::principal::{permit, permit_all, permit_service};
use super::snapshot::Snapshot;
use crate::clock::Clock;
use crate::domain::compiled::{
    CompiledEntityType, Defaults, SharedEntityType, StoredTypes, schema_conflicts,
};
use crate::domain::feature_service::{FeatureService, FeatureServiceSpec, FeatureServiceVersion};
use crate::domain::name::{EntityType, FeatureName, FeatureServiceName};
use crate::domain::schema::{
    ComputeOn, EntityTypeSchema, FeatureSchema, RegisteredEntityType, SchemaDiff, SchemaMode,
};
use crate::domain::value::{FeatureType, TypeName};
use crate::domain::violation::{Violation, ViolationCode};
use crate::store::{Document, DocumentKind, RegistryChange, Store, StoreError};

/// So often a change is decided anew when other servers change the registry at the same time.
const CHANGE_ATTEMPTS: usize = 32;

pub struct Registry {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    defaults: Defaults,
    snapshot: ArcSwap<Snapshot>,
    /// One loads at a time; the others find its snapshot.
    loading: tokio::sync::Mutex<()>,
    loaded: std::sync::atomic::AtomicBool,
}

/// How putting a document ended, or would end.
#[derive(Clone, Debug, PartialEq)]
pub struct Put<T> {
    pub document: T,
    pub created: bool,
    pub diff: SchemaDiff,
}

impl Registry {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, defaults: Defaults) -> Self {
        Self {
            store,
            clock,
            defaults,
            snapshot: ArcSwap::default(),
            loading: tokio::sync::Mutex::default(),
            loaded: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// What the registry holds, as far as this process has seen.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Whether the registry was read at least once.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Takes over what other processes have changed since.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _loading = self.loading.lock().await;
        let revision = self.store.registry_revision().await?;
        if self.is_loaded() && revision == self.snapshot.load().revision {
            return Ok(());
        }
        self.load().await
    }

    /// Call with `loading` held, so that an older state never replaces a newer one.
    async fn load(&self) -> Result<(), StoreError> {
        let state = self.store.registry().await?;
        self.snapshot.store(Arc::new(Snapshot::build(state, &self.defaults)?));
        self.loaded.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// The entity type, after a second look at the store where it is not known.
    pub async fn entity_type(&self, name: &EntityType) -> Result<SharedEntityType, ServiceError> {
        match self.find_entity_type(name).await? {
            Some(entity_type) => Ok(entity_type),
            None => Err(ServiceError::UnknownEntityType(name.clone())),
        }
    }

    pub async fn find_entity_type(
        &self,
        name: &EntityType,
    ) -> Result<Option<SharedEntityType>, ServiceError> {
        permit(name)?;
        if let Some(entity_type) = self.snapshot.load().entity_type(name) {
            return Ok(Some(entity_type.clone()));
        }
        self.refresh().await?;
        Ok(self.snapshot.load().entity_type(name).cloned())
    }

    /// Puts a whole schema document; with `dry_run` only says what would happen.
    pub async fn put_entity_type(
        &self,
        name: &EntityType,
        schema: EntityTypeSchema,
        dry_run: bool,
    ) -> Result<Put<SharedEntityType>, ServiceError> {
        permit(name)?;
        let stored = self.stored_types(name).await?;
        self.change(dry_run, |snapshot, now| {
            let before = snapshot.entity_type(name);
            let (schema_version, created_at) = match before {
                Some(before) => (before.registered.schema_version + 1, before.registered.created_at),
                None => (1, now),
            };
            let registered = RegisteredEntityType {
                entity_type: name.clone(),
                schema_version,
                created_at,
                updated_at: now,
                schema: schema.clone(),
            };
            let compiled = compile(registered, &self.defaults).map_err(ServiceError::ValidationFailed)?;
            let Some(before) = before else {
                let diff = SchemaDiff::between(&EntityTypeSchema::default(), &schema);
                let change = entity_type_change(&compiled.registered)?;
                return Ok((Some(change), Put { document: Arc::new(compiled), created: true, diff }));
            };
            let diff = SchemaDiff::between(&before.registered.schema, &schema);
            if diff.is_empty() {
                return Ok((None, Put { document: before.clone(), created: false, diff }));
            }
            let mut wrong = conflicts(&stored, before, &compiled);
            for feature in before.features.keys().filter(|feature| !compiled.features.contains_key(*feature))
            {
                let readers = snapshot.services_that_read(name, Some(feature));
                if !readers.is_empty() {
                    let message = format!("cannot be removed: read by {}", readers.join(", "));
                    wrong.push(Violation::of_feature(feature, ViolationCode::TypeConflict, message));
                }
            }
            refuse_conflicts(name, wrong)?;
            let change = entity_type_change(&compiled.registered)?;
            Ok((Some(change), Put { document: Arc::new(compiled), created: false, diff }))
        })
        .await
    }

    /// Registers features with inferred types, and the entity type with them where it is new. A
    /// feature that others registered meanwhile stays as it is, but for the widening of an inferred
    /// int64 to float64.
    pub async fn extend(
        &self,
        name: &EntityType,
        features: &IndexMap<FeatureName, FeatureSchema>,
    ) -> Result<SharedEntityType, ServiceError> {
        let stored = self.stored_types(name).await?;
        self.change(false, |snapshot, now| {
            let before = snapshot.entity_type(name);
            let mut registered = match before {
                Some(before) => before.registered.clone(),
                None => RegisteredEntityType {
                    entity_type: name.clone(),
                    schema_version: 0,
                    created_at: now,
                    updated_at: now,
                    schema: EntityTypeSchema::default(),
                },
            };
            if registered.schema.schema_mode == SchemaMode::Strict {
                // It became strict meanwhile; the caller will find its features unknown.
                if let Some(before) = before {
                    return Ok((None, before.clone()));
                }
            }
            let mut changed = before.is_none();
            for (feature, inferred) in features {
                match registered.schema.features.get_mut(feature) {
                    None => {
                        registered.schema.features.insert(feature.clone(), inferred.clone());
                        changed = true;
                    }
                    Some(known) if widens(known, inferred) => {
                        known.type_name = TypeName::Float64;
                        changed = true;
                    }
                    Some(_) => {}
                }
            }
            if let (false, Some(before)) = (changed, before) {
                return Ok((None, before.clone()));
            }
            registered.schema_version += 1;
            registered.updated_at = now;
            let compiled = compile(registered, &self.defaults).map_err(ServiceError::ValidationFailed)?;
            if let Some(before) = before {
                refuse_conflicts(name, conflicts(&stored, before, &compiled))?;
            }
            Ok((Some(entity_type_change(&compiled.registered)?), Arc::new(compiled)))
        })
        .await
    }

    /// Removes an entity type and its archived schemas; its entities are the caller's business.
    pub async fn delete_entity_type(&self, name: &EntityType) -> Result<(), ServiceError> {
        self.change(false, |snapshot, _| {
            if snapshot.entity_type(name).is_none() {
                return Err(ServiceError::UnknownEntityType(name.clone()));
            }
            let readers = snapshot.services_that_read(name, None);
            if !readers.is_empty() {
                let message = format!("the entity type {name} is read by {}", readers.join(", "));
                return Err(ServiceError::SchemaConflict { message, violations: Vec::new() });
            }
            let change = RegistryChange {
                delete: vec![(DocumentKind::EntityType, name.to_string())],
                drop_archive: vec![name.clone()],
                ..RegistryChange::default()
            };
            Ok((Some(change), ()))
        })
        .await
    }

    /// Every schema version of an entity type, oldest first.
    pub async fn schema_versions(
        &self,
        name: &EntityType,
    ) -> Result<Vec<RegisteredEntityType>, ServiceError> {
        self.entity_type(name).await?;
        let archive = self.store.archive(name).await?;
        let versions = archive.into_iter().map(|(version, body)| {
            serde_json::from_str(&body).map_err(|error| {
                ServiceError::Store(StoreError::Corrupt {
                    key: format!("schema versions of {name}"),
                    field: version.to_string(),
                    reason: error.to_string(),
                })
            })
        });
        versions.collect()
    }

    /// What features are stored as, of every schema that the entity type ever had: the values of one that
    /// was removed stay where they are.
    async fn stored_types(&self, name: &EntityType) -> Result<StoredTypes, ServiceError> {
        if self.find_entity_type(name).await?.is_none() {
            return Ok(StoredTypes::new());
        }
        let schemas = self.schema_versions(name).await?;
        Ok(schemas.iter().flat_map(|registered| types_of(&registered.schema)).collect())
    }

    /// Puts a feature service; a list of features other than the latest one is a new version.
    pub async fn put_feature_service(
        &self,
        name: &FeatureServiceName,
        spec: FeatureServiceSpec,
    ) -> Result<Put<FeatureServiceVersion>, ServiceError> {
        permit_all(&spec.features)?;
        // What another server registered a moment ago counts as known.
        self.refresh().await?;
        self.change(false, |snapshot, now| {
            check_feature_service(snapshot, &spec)?;
            let before = snapshot.feature_service(name);
            let mut service = match before {
                Some(before) => {
                    permit_service(before)?;
                    (**before).clone()
                }
                None => FeatureService { name: name.clone(), versions: Vec::new() },
            };
            if let Some(latest) = service.versions.last()
                && latest.spec == spec
            {
                let document = latest.clone();
                return Ok((None, Put { document, created: false, diff: SchemaDiff::default() }));
            }
            let version = service.versions.last().map_or(1, |latest| latest.version + 1);
            let document = FeatureServiceVersion { version, created_at: now, spec: spec.clone() };
            service.versions.push(document.clone());
            let change = RegistryChange {
                put: vec![Document {
                    kind: DocumentKind::FeatureService,
                    name: name.to_string(),
                    body: to_json(&service)?,
                }],
                ..RegistryChange::default()
            };
            Ok((Some(change), Put { document, created: version == 1, diff: SchemaDiff::default() }))
        })
        .await
    }

    pub async fn delete_feature_service(&self, name: &FeatureServiceName) -> Result<(), ServiceError> {
        self.change(false, |snapshot, _| {
            let Some(service) = snapshot.feature_service(name) else {
                return Err(ServiceError::NotFound { what: "feature service", name: name.to_string() });
            };
            permit_service(service)?;
            let delete = vec![(DocumentKind::FeatureService, name.to_string())];
            Ok((Some(RegistryChange { delete, ..RegistryChange::default() }), ()))
        })
        .await
    }

    /// Decides a change on the latest snapshot and carries it out, again from the start where
    /// another process was faster.
    async fn change<T>(
        &self,
        dry_run: bool,
        decide: impl Fn(
            &Snapshot,
            crate::domain::time::Timestamp,
        ) -> Result<(Option<RegistryChange>, T), ServiceError>,
    ) -> Result<T, ServiceError> {
        let _loading = self.loading.lock().await;
        for _ in 0..CHANGE_ATTEMPTS {
            if !self.is_loaded() || self.store.registry_revision().await? != self.snapshot.load().revision {
                self.load().await?;
            }
            let snapshot = self.snapshot.load_full();
            let (change, outcome) = decide(&snapshot, self.clock.now())?;
            let Some(mut change) = change.filter(|_| !dry_run) else { return Ok(outcome) };
            change.expected_revision = snapshot.revision;
            if self.store.change_registry(&change).await?.is_some() {
                self.load().await?;
                return Ok(outcome);
            }
        }
        Err(ServiceError::Contention)
    }
}

/// The features that are stored, each with its type.
fn types_of(schema: &EntityTypeSchema) -> impl Iterator<Item = (FeatureName, FeatureType)> {
    let is_kept =
        |feature: &FeatureSchema| feature.computed.as_ref().is_none_or(|by| by.on == ComputeOn::Write);
    let kept = schema.features.iter().filter(move |(_, feature)| is_kept(feature));
    kept.filter_map(|(name, feature)| Some((name.clone(), feature.feature_type()?)))
}

/// What stands against a schema in what was stored under earlier ones.
fn conflicts(
    stored: &StoredTypes,
    before: &CompiledEntityType,
    after: &CompiledEntityType,
) -> Vec<Violation> {
    let mut stored = stored.clone();
    stored.extend(types_of(&before.registered.schema));
    schema_conflicts(&stored, after)
}

fn refuse_conflicts(name: &EntityType, violations: Vec<Violation>) -> Result<(), ServiceError> {
    let Some(first) = violations.first() else { return Ok(()) };
    let message = format!("the schema of {name} conflicts with what is there: {first}");
    Err(ServiceError::SchemaConflict { message, violations })
}

/// Whether an inferred float asks for the widening of an inferred int.
pub fn widens(known: &FeatureSchema, inferred: &FeatureSchema) -> bool {
    known.inferred && known.type_name == TypeName::Int64 && inferred.type_name == TypeName::Float64
}

fn check_feature_service(snapshot: &Snapshot, spec: &FeatureServiceSpec) -> Result<(), ServiceError> {
    if spec.features.is_empty() {
        let message = "a feature service reads at least one feature";
        let violation = Violation::at("/features", ViolationCode::InvalidValue, message);
        return Err(ServiceError::ValidationFailed(vec![violation]));
    }
    let mut unknown = Vec::new();
    for (index, reference) in spec.features.iter().enumerate() {
        let pointer = format!("/features/{index}");
        let entity_type = snapshot.entity_type(&reference.entity_type);
        if entity_type.is_none_or(|entity_type| !entity_type.features.contains_key(&reference.feature)) {
            let message = format!("there is no feature {reference}");
            unknown.push(Violation::at(&pointer, ViolationCode::UnknownFeature, message));
        }
        if spec.features[..index].contains(reference) {
            let message = format!("{reference} is listed twice");
            let violation = Violation::at(&pointer, ViolationCode::DuplicateFeature, message);
            return Err(ServiceError::ValidationFailed(vec![violation]));
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(ServiceError::UnknownFeatures(unknown)) }
}

fn entity_type_change(registered: &RegisteredEntityType) -> Result<RegistryChange, ServiceError> {
    let body = to_json(registered)?;
    Ok(RegistryChange {
        put: vec![Document {
            kind: DocumentKind::EntityType,
            name: registered.entity_type.to_string(),
            body: body.clone(),
        }],
        archive: vec![(registered.entity_type.clone(), registered.schema_version, body)],
        ..RegistryChange::default()
    })
}

fn to_json(document: &impl Serialize) -> Result<String, ServiceError> {
    serde_json::to_string(document).map_err(|error| ServiceError::Internal(error.to_string()))
}
