//! Looking back: versions of an entity, what changed between two, and the lineage of a feature.

use std::collections::{BTreeMap, HashMap};

use super::FeatureStore;
use super::answer::{ProvenanceMap, check_version, whole};
use super::columns::Columns;
use super::compile::compile;
use super::error::ServiceError;
use super::selection::Selection;
use crate::domain::compiled::{CompiledEntityType, SharedEntityType};
use crate::domain::derive::{Computed, Source};
use crate::domain::name::{EntityKey, FeatureName, FeatureRef};
use crate::domain::provenance::ProvenanceId;
use crate::domain::record::{Current, EntityRecords, FeatureRecords, Record, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::domain::view::{Retracted, record_as_of, record_at_version};
use crate::domain::violation::{Violation, ViolationCode};
use crate::trace;

/// One version of an entity: what was written together.
#[derive(Clone, Debug)]
pub struct VersionEntry {
    pub version: Version,
    /// What that version wrote and is still kept, in the schema's order.
    pub features: Vec<(FeatureName, Record)>,
}

/// The versions of an entity that something is still kept of.
#[derive(Clone, Debug)]
pub struct Versions {
    pub current: Version,
    /// Newest first.
    pub entries: Vec<VersionEntry>,
    /// Whether there are older ones.
    pub more: bool,
    pub provenance: ProvenanceMap,
}

/// How an entity differs between two versions; features in the schema's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    pub added: Vec<(FeatureName, Value)>,
    pub removed: Vec<(FeatureName, Value)>,
    /// Before and after.
    pub changed: Vec<(FeatureName, Value, Value)>,
}

/// Where a feature's values came from, and who reads it.
#[derive(Clone, Debug)]
pub struct Lineage {
    pub entity_type: SharedEntityType,
    pub feature_type: FeatureType,
    /// `None` where it was never written or is deleted.
    pub current: Option<Record>,
    /// Superseded records, newest event first.
    pub history: Vec<Record>,
    /// What the current value was computed from, if it was.
    pub computed_from: Option<ComputedFrom>,
    /// Computed features that depend on it, directly.
    pub used_by_features: Vec<FeatureRef>,
    pub used_by_services: Vec<String>,
    pub provenance: ProvenanceMap,
}

/// What a value was computed from.
#[derive(Clone, Debug)]
pub struct ComputedFrom {
    pub function: String,
    /// The function's hash at the time; `None` where that schema version is no longer known.
    pub function_hash: Option<String>,
    /// The schema version whose function it was.
    pub schema_version: Option<u32>,
    /// The features among the inputs, with the version that each had; `None` where it had none, or
    /// its history does not reach back that far.
    pub inputs: Vec<(FeatureRef, Option<Version>)>,
    /// Inputs that are not kept: raw inputs.
    pub raw_inputs: Vec<String>,
}

impl FeatureStore {
    /// The versions below `before` (or all), newest first, at most `limit`.
    pub async fn versions(
        &self,
        entity: &EntityKey,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Versions, ServiceError> {
        let _span = trace::enter("service.versions").about(&entity.entity_type);
        let (columns, loaded) = self.load_history(entity, &Selection::<&str>::All).await?;
        let current = found(entity, &loaded)?;
        let mut by_version: BTreeMap<Version, Vec<(FeatureName, Record)>> = BTreeMap::new();
        for (name, records) in columns.names().zip(&loaded.features) {
            for record in records.newest_first().filter(|r| before.is_none_or(|before| r.version < before)) {
                by_version.entry(record.version).or_default().push((name.clone(), record.clone()));
            }
        }
        let more = by_version.len() > limit;
        let newest = by_version.into_iter().rev().take(limit);
        let entries: Vec<VersionEntry> =
            newest.map(|(version, features)| VersionEntry { version, features }).collect();
        let ids = entries.iter().flat_map(|entry| &entry.features).flat_map(|(_, record)| behind(record));
        let provenance = self.provenance_of(ids).await?;
        Ok(Versions { current, entries, more, provenance })
    }

    /// What changed from one version to another.
    pub async fn diff(&self, entity: &EntityKey, from: Version, to: Version) -> Result<Diff, ServiceError> {
        let _span = trace::enter("service.diff").about(&entity.entity_type);
        let (columns, loaded) = self.load_history(entity, &Selection::<&str>::All).await?;
        let current = found(entity, &loaded)?;
        check_version(from, current)?;
        check_version(to, current)?;
        let before = values_at(&columns, &loaded.features, from)?;
        let after = values_at(&columns, &loaded.features, to)?;
        let mut diff = Diff::default();
        for ((feature, before), after) in columns.features().zip(before).zip(after) {
            let name = feature.name.clone();
            let read = |value: Value| value.widened_to(feature.feature_type);
            match (before.map(read), after.map(read)) {
                (None, Some(value)) => diff.added.push((name, value)),
                (Some(value), None) => diff.removed.push((name, value)),
                (Some(before), Some(after)) if !before.same_as(&after) => {
                    diff.changed.push((name, before, after))
                }
                _ => {}
            }
        }
        Ok(diff)
    }

    /// The lineage of one feature of an entity.
    pub async fn lineage(&self, entity: &EntityKey, feature: &FeatureName) -> Result<Lineage, ServiceError> {
        let _span = trace::enter("service.lineage").about(&entity.entity_type);
        let named = self.columns(&entity.entity_type, &Selection::Names(vec![feature.as_str()])).await?;
        let entity_type = named.entity_type.clone();
        let computation = entity_type.computation(feature);
        let inputs: Vec<FeatureName> =
            computation.map(|computed| computed.input_features().cloned().collect()).unwrap_or_default();
        let names = std::iter::once(feature).chain(&inputs).map(FeatureName::as_str).collect();
        let (columns, loaded) = self.load_history(entity, &Selection::Names(names)).await?;
        found(entity, &loaded)?;
        let by_name: HashMap<&FeatureName, &FeatureRecords> = columns.names().zip(&loaded.features).collect();
        let empty = FeatureRecords::default();
        let records = by_name.get(feature).copied().unwrap_or(&empty);
        let provenance = self.provenance_of(records.newest_first().flat_map(behind)).await?;
        let current = records.current.as_ref().map(|current| current.record.clone());
        let computed_from = match (computation, &current) {
            (Some(computed), Some(current)) => {
                let schema_version = provenance.get(&current.provenance).map(|p| p.schema_version);
                let at = |name: &FeatureName| {
                    let records = by_name.get(name).copied()?;
                    record_at_version(records, current.version).ok().flatten().map(|record| record.version)
                };
                let of = |name: &FeatureName| FeatureRef {
                    entity_type: entity.entity_type.clone(),
                    feature: name.clone(),
                };
                Some(ComputedFrom {
                    function: computed.function.to_string(),
                    function_hash: self.function_hash(&entity_type, feature, schema_version).await?,
                    schema_version,
                    inputs: inputs.iter().map(|name| (of(name), at(name))).collect(),
                    raw_inputs: raw_inputs(computed),
                })
            }
            _ => None,
        };
        let dependents = entity_type
            .computed()
            .iter()
            .filter(|computed| computed.input_features().any(|of| of == feature));
        let used_by_features = dependents.map(|computed| FeatureRef {
            entity_type: entity.entity_type.clone(),
            feature: computed.feature.clone(),
        });
        Ok(Lineage {
            used_by_features: used_by_features.collect(),
            used_by_services: self.registry.snapshot().readers_in_sight(&entity.entity_type, feature),
            feature_type: named.feature(0).map_or(FeatureType::Json, |feature| feature.feature_type),
            current,
            history: records.history.clone().unwrap_or_default(),
            computed_from,
            entity_type,
            provenance,
        })
    }

    /// The hash of the function behind a feature at a schema version.
    async fn function_hash(
        &self,
        now: &SharedEntityType,
        feature: &FeatureName,
        schema_version: Option<u32>,
    ) -> Result<Option<String>, ServiceError> {
        let hash = |of: &CompiledEntityType| {
            of.computation(feature).map(|computed| computed.function_hash.to_string())
        };
        match schema_version {
            Some(version) if version != now.registered.schema_version => {
                let versions = self.registry.schema_versions(now.name()).await?;
                let then = versions.into_iter().find(|registered| registered.schema_version == version);
                let compiled = then.and_then(|then| compile(then, &self.settings.defaults).ok());
                Ok(compiled.as_ref().and_then(hash))
            }
            Some(_) => Ok(hash(now)),
            None => Ok(None),
        }
    }

    pub(super) async fn load_history<S: AsRef<str>>(
        &self,
        entity: &EntityKey,
        selection: &Selection<S>,
    ) -> Result<(Columns, EntityRecords), ServiceError> {
        let columns = self.columns(&entity.entity_type, selection).await?.kept_only();
        let loaded = self.load_one(entity, columns.fields(), true).await?;
        Ok((columns, loaded))
    }
}

fn raw_inputs(computed: &Computed) -> Vec<String> {
    let raw = computed.inputs.iter().filter_map(|input| match &input.source {
        Source::Raw(name) => Some(name.to_string()),
        Source::Feature(_) | Source::Context(_) | Source::Now => None,
    });
    raw.collect()
}

/// Who wrote a record, and who retracted it.
fn behind(record: &Record) -> impl Iterator<Item = ProvenanceId> {
    let mark = record.retraction.as_ref().map(|mark| mark.undone.provenance);
    std::iter::once(record.provenance).chain(mark)
}

/// The version of an entity that is there.
fn found(entity: &EntityKey, loaded: &EntityRecords) -> Result<Version, ServiceError> {
    match loaded.head {
        Some(head) => Ok(head.version),
        None => Err(ServiceError::EntityNotFound(entity.clone())),
    }
}

/// The values of an entity as it stood at a version, in the order of the columns.
pub(super) fn values_at(
    columns: &Columns,
    records: &[FeatureRecords],
    version: Version,
) -> Result<Vec<Option<Value>>, ServiceError> {
    let values = columns.names().zip(records).map(|(name, records)| {
        let record = record_at_version(records, version).map_err(|_| name.clone())?;
        Ok(record.and_then(|record| record.value.clone()))
    });
    whole(values, version)
}

/// The values of an entity as they were true at a time, in the order of the columns.
pub(super) fn values_as_of(
    columns: &Columns,
    records: &[FeatureRecords],
    at: Timestamp,
) -> Result<Vec<Option<Value>>, ServiceError> {
    let mut violations = Vec::new();
    let values = columns.names().zip(records).map(|(name, records)| {
        let record = record_as_of(records, at, Retracted::Hidden);
        let reaches_back =
            |current: &Current| records.newest_first().any(|record| record.version == current.first_version);
        if record.is_none() && !records.current.as_ref().is_none_or(reaches_back) {
            let message = "its history no longer reaches back that far";
            violations.push(Violation::of_feature(name, ViolationCode::VersionTrimmed, message));
        }
        record.and_then(|record| record.value.clone())
    });
    let values = values.collect();
    if violations.is_empty() {
        return Ok(values);
    }
    let message = format!(
        "what was true at {at} is no longer kept as a whole: the history of some features does not reach back that far (see max_versions)"
    );
    Err(ServiceError::VersionNotFound { message, violations })
}
