//! Undoing what a run wrote, over a whole entity type, as a job.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;

use super::FeatureStore;
use super::columns::Columns;
use super::error::ServiceError;
use super::frame::width;
use super::jobs::{Job, Progress};
use super::selection::Selection;
use super::walk::Walk;
use super::write::{Basis, Origin, Precondition, Undrafted};
use crate::domain::draft::undo::{Fate, Run, Scope, Undo, Undone, WithoutPast, undo};
use crate::domain::draft::{Draft, Outcome, Stamp};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::provenance::{Kind, ProvenanceId, RollbackNote, RunNote};
use crate::domain::record::{EntityRecords, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::FeatureType;
use crate::store::Load;

/// So many entities are undone at the same time.
const CONCURRENCY: usize = 8;
/// Histories are loaded so many bytes and so many entities at a time.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_ENTITIES: usize = 500;

/// What to undo.
#[derive(Clone, Debug)]
pub struct UndoRequest {
    pub run: RunNote,
    /// `None`: all of them.
    pub features: Option<Vec<String>>,
    pub without_past: WithoutPast,
    pub reason: Option<String>,
    /// Only counts and samples.
    pub dry_run: bool,
}

/// One undo that is under way.
struct Work {
    request: UndoRequest,
    columns: Columns,
    scope: Scope,
    /// What is loaded: all of the scope, in its order.
    names: Vec<FeatureName>,
    fields: Vec<(FeatureName, FeatureType)>,
    stamp: Stamp,
    runs: RwLock<Runs>,
}

/// Which provenance records are of the run, as far as they were met.
#[derive(Default)]
struct Runs {
    met: HashSet<ProvenanceId>,
    meant: HashSet<ProvenanceId>,
}

impl FeatureStore {
    /// Starts a job that undoes a run.
    pub async fn start_undo(
        self: &Arc<Self>,
        name: &EntityType,
        request: UndoRequest,
    ) -> Result<Job, ServiceError> {
        let selection = request.features.clone().map_or(Selection::All, Selection::Names);
        let columns = self.columns(name, &selection).await?;
        let asked = columns.names().len();
        let columns = columns.kept_only();
        if request.features.is_some() && columns.names().len() < asked {
            return Err(ServiceError::InvalidRequest(format!(
                "some of these features of {name} are computed when they are read: there is nothing of them to undo"
            )));
        }
        let (store, subject) = (self.clone(), name.to_string());
        let work = |progress: Arc<Progress>| async move { store.undo_all(columns, request, &progress).await };
        self.jobs.start("undo", &subject, work).await
    }

    async fn undo_all(
        &self,
        columns: Columns,
        request: UndoRequest,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        progress.report_undo(|report| {
            report.dry_run = request.dry_run;
            report.run = Some(request.run.clone());
        });
        let work = self.undo_work(columns, request, progress.id()).await?;
        let entity_type = work.columns.entity_type.clone();
        let versions = |name: &FeatureName| {
            entity_type
                .features
                .get(name)
                .map_or(0, |feature| width(feature.feature_type) * feature.history_limit.saturating_add(1))
        };
        let bytes: usize = work.names.iter().map(versions).fold(0, usize::saturating_add);
        let page = (PAGE_BYTES / bytes.max(1)).clamp(1, PAGE_ENTITIES);
        let mut walk = Walk::all(false);
        while !progress.is_cancelled() {
            let ids = walk.next(self.store.as_ref(), entity_type.name(), page).await?;
            if ids.is_empty() {
                return Ok(());
            }
            let looked_at = ids.len();
            let concerned = self.concerned(&work, ids).await?;
            (concerned.len()..looked_at).for_each(|_| progress.processed());
            let undo = |entity: EntityKey| self.undo_one(&work, entity, progress);
            let undone = futures::stream::iter(concerned).map(undo).buffer_unordered(CONCURRENCY);
            undone.for_each(|()| async {}).await;
        }
        Ok(())
    }

    async fn undo_work(
        &self,
        columns: Columns,
        request: UndoRequest,
        job: &str,
    ) -> Result<Work, ServiceError> {
        let entity_type = columns.entity_type.clone();
        let scope = Scope::new(&entity_type, columns.names().cloned().collect());
        let names: Vec<FeatureName> = scope.loaded().cloned().collect();
        let typed = |name: &FeatureName| Some((name.clone(), entity_type.features.get(name)?.feature_type));
        let fields = names.iter().filter_map(typed).collect();
        let note = RollbackNote {
            to_version: None,
            to_timestamp: None,
            run: Some(request.run.clone()),
            reason: request.reason.clone(),
        };
        let origin = Origin { run_id: Some(job.to_owned()), ..Origin::default() };
        let provenance = origin.provenance(Kind::Rollback, entity_type.registered.schema_version, Some(note));
        // One record a job, kept for ever: the marks that point to it may be kept that long.
        let provenance =
            if request.dry_run { ProvenanceId(0) } else { self.store.intern(&provenance, None).await? };
        let stamp = Stamp { now: self.clock.now(), provenance };
        Ok(Work { request, columns, scope, names, fields, stamp, runs: RwLock::default() })
    }

    /// Those of these entities in which there may be something to undo.
    async fn concerned(&self, work: &Work, ids: Vec<EntityId>) -> Result<Vec<EntityKey>, ServiceError> {
        let name = work.columns.entity_type.name();
        let entities: Vec<EntityKey> = ids.into_iter().map(|id| EntityKey::new(name.clone(), id)).collect();
        let loads: Vec<Load<'_>> =
            entities.iter().map(|entity| Load { entity, features: &work.fields, history: true }).collect();
        let loaded = self.store.load(&loads).await?;
        self.meet(work, loaded.iter().flat_map(|records| work.unmet(records)).collect()).await?;
        let concerns = |(entity, records): (EntityKey, EntityRecords)| {
            work.with_run(|run| {
                let affected = records.features.iter().take(work.scope.affected().count());
                affected.into_iter().any(|records| run.concerns(records))
            })
            .then_some(entity)
        };
        Ok(entities.into_iter().zip(loaded).filter_map(concerns).collect())
    }

    /// Finds out which of these provenance records are of the run.
    async fn meet(&self, work: &Work, ids: HashSet<ProvenanceId>) -> Result<(), ServiceError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<ProvenanceId> = ids.into_iter().collect();
        // One that is no longer kept names no run.
        let found: HashMap<ProvenanceId, bool> = ids
            .iter()
            .zip(self.store.provenance(&ids).await?)
            .map(|(id, found)| (*id, found.is_some_and(|found| work.request.run.names(&found))))
            .collect();
        let mut runs = work.runs.write().unwrap_or_else(PoisonError::into_inner);
        runs.meant.extend(found.iter().filter(|(_, meant)| **meant).map(|(id, _)| *id));
        runs.met.extend(found.into_keys());
        Ok(())
    }

    async fn undo_one(&self, work: &Work, entity: EntityKey, progress: &Progress) {
        if progress.is_cancelled() {
            return;
        }
        let result = self.undo_entity(work, &entity).await;
        progress.processed();
        match result {
            Ok((version, undone)) => {
                let changed = undone.retracted + undone.reinstated > 0
                    || undone
                        .features
                        .iter()
                        .any(|done| !matches!(done.fate, Fate::NotRestorable | Fate::Newer));
                if changed {
                    progress.changed();
                }
                if changed || !undone.features.is_empty() {
                    let version = (changed && !work.request.dry_run).then_some(version);
                    progress.report_undo(|report| report.add(&entity.entity_id, version, &undone));
                }
            }
            // Deleted meanwhile: there is nothing to undo any more.
            Err(ServiceError::VersionConflict { .. }) => {}
            Err(error) => progress.failed(format!("{}: {error}", entity.entity_id)),
        }
    }

    /// Undoes the run in one entity, on what is there when it is committed.
    async fn undo_entity(&self, work: &Work, entity: &EntityKey) -> Result<(Version, Undone), ServiceError> {
        let entity_type = &work.columns.entity_type;
        loop {
            let decide = |loaded: EntityRecords, embeddings: &super::embeddings::Lookup<'_>| {
                let unmet = work.unmet(&loaded);
                let mut draft = Draft::new(entity.clone(), &work.names, loaded, self.clock.now());
                if !unmet.is_empty() {
                    // Somebody wrote under another provenance meanwhile: nothing is drafted.
                    return Ok((draft, Err(unmet)));
                }
                let stamp = Stamp { now: self.clock.now(), ..work.stamp };
                let undone = work.with_run(|run| {
                    let what = Undo {
                        run,
                        scope: &work.scope,
                        without_past: work.request.without_past,
                        entity_type,
                    };
                    undo(&mut draft, &what, embeddings, &stamp)
                })?;
                let version = draft.version();
                Ok::<_, Undrafted>((draft, Ok((version, undone))))
            };
            let undone = match work.request.dry_run {
                true => self.draft_only(entity, Precondition::Exists, &work.fields, decide).await?,
                false => {
                    self.commit_loop(entity, Precondition::Exists, &work.fields, Basis::WithHistory, decide)
                        .await?
                }
            };
            match undone {
                Err(unmet) => self.meet(work, unmet).await?,
                Ok((version, undone)) => {
                    if !work.request.dry_run {
                        self.count_undone(work, &undone);
                    }
                    return Ok((version, undone));
                }
            }
        }
    }

    fn count_undone(&self, work: &Work, undone: &Undone) {
        let back =
            undone.features.iter().filter(|done| !matches!(done.fate, Fate::NotRestorable | Fate::Newer));
        let written = back.map(|done| (done.feature.clone(), Outcome::Applied));
        let derived = undone.derived.iter().map(|derived| (derived.feature.clone(), derived.outcome));
        let outcomes: Vec<(FeatureName, Outcome)> = written.chain(derived).collect();
        self.meters.wrote(&work.columns.entity_type, &outcomes, None, self.clock.now());
    }
}

impl Work {
    /// Provenance that was not looked up yet.
    fn unmet(&self, records: &EntityRecords) -> HashSet<ProvenanceId> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let records = records.features.iter().flat_map(|records| records.newest_first());
        let ids = records.flat_map(|record| {
            let mark = record.retraction.as_ref();
            let reinstated = mark.and_then(|mark| mark.reinstated);
            let acts = mark.map(|mark| mark.undone).into_iter().chain(reinstated);
            std::iter::once(record.provenance).chain(acts.map(|act| act.provenance))
        });
        ids.filter(|id| !runs.met.contains(id)).collect()
    }

    fn with_run<T>(&self, act: impl FnOnce(Run<'_>) -> T) -> T {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        act(Run {
            ids: &runs.meant,
            from: self.request.run.written_from.unwrap_or(Timestamp::MIN),
            to: self.request.run.written_to,
        })
    }
}
