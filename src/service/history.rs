//! Looking back: versions of an entity, what changed between two, and the lineage of a feature.

use std::collections::BTreeMap;

use super::FeatureStore;
use super::columns::Columns;
use super::error::ServiceError;
use super::read::{ProvenanceMap, Selection, check_version, whole};
use crate::domain::compiled::SharedEntityType;
use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::record::{EntityRecords, FeatureRecords, Record, Version};
use crate::domain::value::{FeatureType, Value};
use crate::domain::view::{record_as_of, record_at_version};

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
    pub used_by_services: Vec<String>,
    pub provenance: ProvenanceMap,
}

impl FeatureStore {
    /// The versions below `before` (or all), newest first, at most `limit`.
    pub async fn versions(
        &self,
        entity: &EntityKey,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Versions, ServiceError> {
        let (columns, loaded) = self.load_history(entity, &Selection::All).await?;
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
        let ids = entries.iter().flat_map(|entry| &entry.features).map(|(_, record)| record.provenance);
        let provenance = self.provenance_of(ids).await?;
        Ok(Versions { current, entries, more, provenance })
    }

    /// What changed from one version to another.
    pub async fn diff(&self, entity: &EntityKey, from: Version, to: Version) -> Result<Diff, ServiceError> {
        let (columns, loaded) = self.load_history(entity, &Selection::All).await?;
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
        let selection = Selection::Names(vec![feature.to_string()]);
        let (columns, mut loaded) = self.load_history(entity, &selection).await?;
        found(entity, &loaded)?;
        let records = loaded.features.pop().unwrap_or_default();
        let provenance = self.provenance_of(records.newest_first().map(|record| record.provenance)).await?;
        let feature_type = columns.fields()[0].1;
        let snapshot = self.registry.snapshot();
        Ok(Lineage {
            used_by_services: snapshot.services_that_read(&entity.entity_type, Some(feature)),
            entity_type: columns.entity_type,
            feature_type,
            current: records.current.map(|current| current.record),
            history: records.history.unwrap_or_default(),
            provenance,
        })
    }

    pub(super) async fn load_history(
        &self,
        entity: &EntityKey,
        selection: &Selection,
    ) -> Result<(Columns, EntityRecords), ServiceError> {
        let columns = self.columns(&entity.entity_type, selection).await?.kept_only();
        let loaded = self.load_one(entity, columns.fields(), true).await?;
        Ok((columns, loaded))
    }
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
    records: &[FeatureRecords],
    at: crate::domain::time::Timestamp,
) -> Vec<Option<Value>> {
    records.iter().map(|records| record_as_of(records, at).and_then(|record| record.value.clone())).collect()
}
