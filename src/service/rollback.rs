//! Going back without erasing anything: old values are written anew, as a version of their own.

use super::FeatureStore;
use super::answer::check_version;
use super::columns::Columns;
use super::embeddings::Lookup;
use super::error::ServiceError;
use super::history::{values_as_of, values_at};
use super::selection::Selection;
use super::write::{Basis, DraftedRow, Origin, Precondition, Undrafted, Written, names, wanted};
use crate::domain::compiled::SharedEntityType;
use crate::domain::derive::{RawInputs, With};
use crate::domain::draft::{Draft, FeatureEvent, Intent, Outcome, Stamp};
use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::provenance::{Kind, Provenance, ProvenanceId, RollbackNote};
use crate::domain::record::{EntityRecords, FeatureRecords, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
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
    /// What a rollback would change, and what follows from it, without doing it.
    pub async fn plan_rollback(
        &self,
        entity: &EntityKey,
        rollback: &Rollback,
        precondition: Precondition,
    ) -> Result<(Version, Vec<PlannedChange>), ServiceError> {
        let _span = trace::enter("service.plan_rollback").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, &selection(rollback)).await?.stored_only();
        let scope = ActScope::of(&columns, rollback.features.is_none());
        // Nothing of it is stored.
        let stamp = Stamp { now: self.clock.now(), provenance: ProvenanceId(0) };
        self.draft_only(entity, precondition, &scope.features, |loaded, embeddings| {
            let version = head_version(entity, &loaded)?;
            let events = acts(&columns, targets(&columns, &loaded, rollback.target)?.into_iter());
            let value = |records: &FeatureRecords| records.current.as_ref()?.record.value.clone();
            let before: Vec<Option<Value>> = loaded.features.iter().map(value).collect();
            let (draft, _) = self.draft_act(entity, &scope, loaded, &events, embeddings, &stamp)?;
            let changes = scope.features.iter().zip(before).filter_map(|((feature, feature_type), from)| {
                let read = |value: Value| value.widened_to(*feature_type);
                let (from, to) = (from.map(read), draft.value(feature).cloned().map(read));
                let same = match (&from, &to) {
                    (Some(from), Some(to)) => from.same_as(to),
                    (from, to) => from.is_none() && to.is_none(),
                };
                (!same).then(|| PlannedChange { feature: feature.clone(), from, to })
            });
            let changes = changes.collect();
            Ok((draft, (version, changes)))
        })
        .await
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
        let scope = ActScope::of(&columns, rollback.features.is_none());
        self.act(entity, &scope, &provenance, precondition, |loaded| {
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
        let scope = ActScope::of(&columns, false);
        self.act(entity, &scope, &provenance, precondition, |_| Ok(nothing(&columns))).await
    }

    /// Commits acts that are decided on an entity with its history, and what follows from them.
    async fn act(
        &self,
        entity: &EntityKey,
        scope: &ActScope,
        provenance: &Provenance,
        precondition: Precondition,
        decide: impl Fn(&EntityRecords) -> Result<Vec<FeatureEvent>, ServiceError>,
    ) -> Result<Written, ServiceError> {
        let now = self.clock.now();
        let stamp =
            Stamp { now, provenance: self.intern(provenance, &scope.entity_type, &scope.blank).await? };
        let written = self
            .commit_loop(entity, precondition, &scope.features, Basis::WithHistory, |loaded, embeddings| {
                head_version(entity, &loaded)?;
                let events = decide(&loaded)?;
                let (draft, row) = self.draft_act(entity, scope, loaded, &events, embeddings, &stamp)?;
                Ok((draft, row.into_written(events)))
            })
            .await?;
        self.meters.wrote(&scope.entity_type, &written.outcomes, None, now);
        Ok(written)
    }

    fn draft_act(
        &self,
        entity: &EntityKey,
        scope: &ActScope,
        loaded: EntityRecords,
        events: &[FeatureEvent],
        embeddings: &Lookup<'_>,
        stamp: &Stamp,
    ) -> Result<(Draft, DraftedRow), Undrafted> {
        let mut draft = Draft::new(entity.clone(), &scope.names, loaded, self.clock.now());
        let raw = RawInputs { everything: scope.whole, ..RawInputs::default() };
        let mut row = self.draft_row(&mut draft, &scope.entity_type, events, &raw, embeddings, stamp)?;
        // Of what is looked at only because all of it is, what stays is not worth a word.
        row.derived.retain(|derived| !scope.whole || derived.outcome != Outcome::Unchanged);
        Ok((draft, row))
    }

    /// Erases features by name with their history; nothing of them can be brought back. The
    /// outcomes say `applied` for what was there. What is computed from them follows.
    pub async fn erase_features(
        &self,
        entity: &EntityKey,
        names: Vec<&str>,
        origin: &Origin,
        precondition: Precondition,
    ) -> Result<Written, ServiceError> {
        let _span = trace::enter("service.erase_features").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, &Selection::Names(names)).await?;
        let names: Vec<FeatureName> = columns.names().cloned().collect();
        let entity_type = &columns.entity_type;
        self.check_not_required(entity_type, &names)?;
        let scope = ActScope::of(&columns, false);
        let provenance = origin.provenance(Kind::Delete, entity_type.registered.schema_version, None);
        let now = self.clock.now();
        let stamp = Stamp { now, provenance: self.intern(&provenance, entity_type, &scope.blank).await? };
        let raw = RawInputs::default();
        self.commit_loop(entity, precondition, &scope.features, Basis::WithHistory, |loaded, embeddings| {
            head_version(entity, &loaded)?;
            let mut draft = Draft::new(entity.clone(), &scope.names, loaded, self.clock.now());
            let before = draft.version();
            let erased = draft.erase(&names);
            let mut outcomes: Vec<(FeatureName, Outcome)> = Vec::with_capacity(names.len());
            let mut changed = Vec::new();
            for (name, was_there) in names.iter().zip(erased) {
                outcomes.push((name.clone(), if was_there { Outcome::Applied } else { Outcome::Unchanged }));
                changed.extend(was_there.then(|| name.clone()));
            }
            if let Some(derivations) = entity_type.derivations.as_deref() {
                let with = With { entity_type, derivations, raw: &raw, embeddings, settled: &names };
                let derived = self.draft_what_follows(&mut draft, before, changed, &with, &stamp)?;
                outcomes.extend(derived.into_iter().map(|derived| (derived.feature, derived.outcome)));
            }
            self.check_required(&draft, entity_type)?;
            let version = draft.version();
            Ok((draft, Written { version, outcomes }))
        })
        .await
    }
}

/// What an act has to look at: its columns first, so that whoever decides finds them at the same places,
/// then what follows from them.
struct ActScope {
    entity_type: SharedEntityType,
    /// The columns, deleted.
    blank: Vec<FeatureEvent>,
    features: Vec<(FeatureName, FeatureType)>,
    names: Vec<FeatureName>,
    /// Whether all that is computed is computed anew, and not only what follows.
    whole: bool,
}

impl ActScope {
    fn of(columns: &Columns, whole: bool) -> Self {
        let blank = nothing(columns);
        let features = wanted(&columns.entity_type, &[&blank], whole);
        let names = names(&features);
        Self { entity_type: columns.entity_type.clone(), blank, features, names, whole }
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
        RollbackTarget::Timestamp(at) => values_as_of(columns, &loaded.features, at),
    }
}

/// Acts that delete each column.
fn nothing(columns: &Columns) -> Vec<FeatureEvent> {
    acts(columns, columns.names().map(|_| None))
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
