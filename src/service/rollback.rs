//! Going back without erasing anything: old values are written anew, as a version of their own.

use super::FeatureStore;
use super::answer::check_version;
use super::columns::Columns;
use super::error::ServiceError;
use super::history::{values_as_of, values_at};
use super::selection::Selection;
use super::write::{Basis, Origin, Precondition, Written, names, wanted};
use crate::domain::derive::RawInputs;
use crate::domain::draft::{Draft, FeatureEvent, Intent, Outcome, Stamp};
use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::provenance::{Kind, Provenance, RollbackNote};
use crate::domain::record::{EntityRecords, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::trace;

/// Where to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollbackTarget {
    Version(Version),
    /// By event time.
    Timestamp(Timestamp),
}

/// What a rollback is asked to do.
#[derive(Clone, Debug)]
pub struct Rollback {
    pub target: RollbackTarget,
    /// `None`: the whole entity.
    pub features: Option<Vec<String>>,
    pub reason: Option<String>,
}

/// What a rollback would change in one feature; `None` where it is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedChange {
    pub feature: FeatureName,
    pub from: Option<Value>,
    pub to: Option<Value>,
}

impl FeatureStore {
    /// What a rollback would change, without doing it.
    pub async fn plan_rollback(
        &self,
        entity: &EntityKey,
        rollback: &Rollback,
    ) -> Result<(Version, Vec<PlannedChange>), ServiceError> {
        let _span = trace::enter("service.plan_rollback").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, &selection(rollback)).await?.stored_only();
        let loaded = self.load_one(entity, columns.fields(), true).await?;
        let version = head_version(entity, &loaded)?;
        let targets = targets(&columns, &loaded, rollback.target)?;
        let changes =
            columns.features().zip(&loaded.features).zip(targets).filter_map(|((feature, records), to)| {
                let from = records.current.as_ref().and_then(|current| current.record.value.clone());
                let same = match (&from, &to) {
                    (Some(from), Some(to)) => from.same_as(to),
                    (None, None) => true,
                    _ => false,
                };
                let read = |value: Value| value.widened_to(feature.feature_type);
                (!same).then(|| PlannedChange {
                    feature: feature.name.clone(),
                    from: from.map(read),
                    to: to.map(read),
                })
            });
        Ok((version, changes.collect()))
    }

    /// Writes the values of the target as a new version, with event time now. Features that the
    /// target did not have are deleted, by that version.
    pub async fn rollback(
        &self,
        entity: &EntityKey,
        rollback: &Rollback,
        origin: &Origin,
        precondition: Precondition,
    ) -> Result<Written, ServiceError> {
        let _span = trace::enter("service.rollback").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, &selection(rollback)).await?.stored_only();
        let (to_version, to_timestamp) = match rollback.target {
            RollbackTarget::Version(version) => (Some(version), None),
            RollbackTarget::Timestamp(at) => (None, Some(at)),
        };
        let note = RollbackNote { to_version, to_timestamp, run: None, reason: rollback.reason.clone() };
        let entity_type = columns.entity_type.clone();
        let provenance = origin.provenance(Kind::Rollback, entity_type.registered.schema_version, Some(note));
        self.act(entity, &columns, &provenance, precondition, |loaded| {
            let targets = targets(&columns, loaded, rollback.target)?;
            Ok(acts(&columns, targets.into_iter()))
        })
        .await
    }

    /// Deletes features by name, as a version: their history stays, and the deletion can be rolled
    /// back.
    pub async fn delete_features(
        &self,
        entity: &EntityKey,
        names: Vec<&str>,
        origin: &Origin,
        precondition: Precondition,
    ) -> Result<Written, ServiceError> {
        let _span = trace::enter("service.delete_features").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, &Selection::Names(names)).await?;
        let names: Vec<FeatureName> = columns.names().cloned().collect();
        self.check_not_required(&columns.entity_type, &names)?;
        let schema_version = columns.entity_type.registered.schema_version;
        let provenance = origin.provenance(Kind::Delete, schema_version, None);
        self.act(entity, &columns, &provenance, precondition, |_| {
            Ok(acts(&columns, names.iter().map(|_| None)))
        })
        .await
    }

    /// Commits acts that are decided on an entity with its history, and what follows from them.
    async fn act(
        &self,
        entity: &EntityKey,
        columns: &Columns,
        provenance: &Provenance,
        precondition: Precondition,
        decide: impl Fn(&EntityRecords) -> Result<Vec<FeatureEvent>, ServiceError>,
    ) -> Result<Written, ServiceError> {
        let entity_type = &columns.entity_type;
        let now = self.clock.now();
        let blank = acts(columns, columns.names().map(|_| None));
        let stamp = Stamp { now, provenance: self.intern(provenance, entity_type, &blank).await? };
        // The columns come first, so that `decide` finds them at the same places.
        let features = wanted(entity_type, &[&blank], false);
        let names = names(&features);
        let written = self
            .commit_loop(entity, precondition, &features, Basis::WithHistory, |loaded, embeddings| {
                head_version(entity, &loaded)?;
                let events = decide(&loaded)?;
                let mut draft = Draft::new(entity.clone(), &names, loaded, self.clock.now());
                let row = self.draft_row(
                    &mut draft,
                    entity_type,
                    &events,
                    &RawInputs::default(),
                    embeddings,
                    &stamp,
                )?;
                Ok((draft, row.into_written(events)))
            })
            .await?;
        self.meters.wrote(entity_type, &written.outcomes, None, now);
        Ok(written)
    }

    /// Erases features by name with their history; nothing of them can be brought back. The
    /// outcomes say `applied` for what was there.
    pub async fn erase_features(
        &self,
        entity: &EntityKey,
        names: Vec<&str>,
        precondition: Precondition,
    ) -> Result<Written, ServiceError> {
        let _span = trace::enter("service.erase_features").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, &Selection::Names(names)).await?;
        let names: Vec<FeatureName> = columns.names().cloned().collect();
        self.check_not_required(&columns.entity_type, &names)?;
        let (version, erased) = self
            .commit_loop(entity, precondition, columns.fields(), Basis::WithHistory, |loaded, _| {
                head_version(entity, &loaded)?;
                let mut draft = Draft::new(entity.clone(), &names, loaded, self.clock.now());
                let erased = draft.erase(&names);
                let version = draft.version();
                Ok((draft, (version, erased)))
            })
            .await?;
        let outcome = |there| if there { Outcome::Applied } else { Outcome::Unchanged };
        let outcomes = names.into_iter().zip(erased.into_iter().map(outcome)).collect();
        Ok(Written { version, outcomes })
    }
}

fn selection(rollback: &Rollback) -> Selection {
    match &rollback.features {
        Some(names) => Selection::Names(names.clone()),
        None => Selection::All,
    }
}

fn head_version(entity: &EntityKey, loaded: &EntityRecords) -> Result<Version, ServiceError> {
    let head = loaded.head.ok_or_else(|| ServiceError::EntityNotFound(entity.clone()))?;
    Ok(head.version)
}

/// The values to go back to, in the order of the columns; `None` where there was none.
fn targets(
    columns: &Columns,
    loaded: &EntityRecords,
    target: RollbackTarget,
) -> Result<Vec<Option<Value>>, ServiceError> {
    match target {
        RollbackTarget::Version(version) => {
            check_version(version, loaded.head.map_or(0, |head| head.version))?;
            values_at(columns, &loaded.features, version)
        }
        RollbackTarget::Timestamp(at) => Ok(values_as_of(&loaded.features, at)),
    }
}

/// Acts that give each column its value, kept as long as a write of now would be.
fn acts(columns: &Columns, values: impl Iterator<Item = Option<Value>>) -> Vec<FeatureEvent> {
    let acts = columns.features().zip(values).map(|(feature, value)| FeatureEvent {
        feature: feature.name.clone(),
        value,
        event_timestamp: None,
        ttl: feature.ttl,
        history_limit: feature.history_limit,
        intent: Intent::Act,
    });
    acts.collect()
}
