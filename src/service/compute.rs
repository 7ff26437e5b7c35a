//! Computing features from raw data, and anew for a whole entity type.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::FeatureStore;
use super::error::ServiceError;
use super::jobs::{Job, Progress};
use super::rows::Row;
use super::write::{Basis, Origin, Precondition, Undrafted, names, wanted};
use crate::domain::compiled::{CompiledEntityType, SharedEntityType};
use crate::domain::derive::{
    Computed, Derivations, DeriveError, Derived, Embeddings, Evaluate, RawInputs, Source,
};
use crate::domain::draft::{Draft, FeatureEvent, Outcome, Stamp};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::provenance::Kind;
use crate::domain::record::Version;
use crate::domain::value::Value;
use crate::domain::violation::{Violation, ViolationCode};
use crate::monitor;
use crate::trace;

/// So many entities are computed anew at the same time.
const RECOMPUTE_CONCURRENCY: usize = 8;

/// What a compute request asks for.
#[derive(Debug)]
pub struct Compute<'a> {
    /// Features and raw inputs as they were sent; `row.entity_id` is the entity's.
    pub row: Row<'a>,
    /// Whether the results are kept.
    pub store: bool,
    /// Whether inputs and times are wanted.
    pub explain: bool,
}

/// What was computed.
#[derive(Clone, Debug)]
pub struct ComputedAnswer {
    /// The entity's version now (without `store`: the one it has).
    pub version: Version,
    /// Computed values; `None` where there is none.
    pub features: Vec<(FeatureName, Option<Value>)>,
    /// Of everything that was written; empty without `store`.
    pub outcomes: Vec<(FeatureName, Outcome)>,
    /// Why a feature was skipped.
    pub messages: Vec<(FeatureName, String)>,
    pub explanations: Vec<Explanation>,
}

/// How one feature was computed.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub feature: FeatureName,
    pub function: Arc<str>,
    pub function_hash: Arc<str>,
    pub inputs: Vec<(Arc<str>, Option<Value>)>,
    pub elapsed: Duration,
}

impl FeatureStore {
    /// Computes features of one entity from raw data. Members of the data that are features are
    /// written too, in the same version.
    pub async fn compute(
        &self,
        entity: &EntityKey,
        compute: Compute<'_>,
        origin: &Origin,
        precondition: Precondition,
    ) -> Result<ComputedAnswer, ServiceError> {
        let started = Instant::now();
        let _span = trace::enter("service.compute").about(&entity.entity_type);
        self.check_feature_count(compute.row.features.len())?;
        let now = self.clock.now();
        let entity_type = self.knowing(&entity.entity_type, &compute.row, compute.store).await?;
        let Some(derivations) = entity_type.derivations.clone() else {
            let message = format!(
                "the entity type {} computes nothing: its schema has no computed features",
                entity_type.name()
            );
            return Err(ServiceError::InvalidRequest(message));
        };
        let timed = || self.meters.timed(monitor::Kind::Write, started, &entity.entity_type);
        let _timed = compute.store.then(timed);
        let event = compute.row.event_timestamp.unwrap_or(now);
        let (row, raw) = self.split_raw(&entity_type, compute.row)?;
        let (entity_type, events) = if row.features.is_empty() {
            (entity_type, Vec::new())
        } else {
            // What nobody had declared is registered by now, and the type is another one.
            let (entity_type, mut checked) =
                self.check_rows(&entity.entity_type, std::slice::from_ref(&row), now).await?;
            match checked.pop() {
                Some(Ok(events)) => (entity_type, events),
                Some(Err(violations)) => return Err(ServiceError::ValidationFailed(violations)),
                None => return Err(ServiceError::Internal("a row went missing".to_owned())),
            }
        };
        let provenance = origin.provenance(Kind::Compute, entity_type.registered.schema_version, None);
        let stamp = Stamp { now, provenance: self.intern(&provenance, &entity_type, &events).await? };
        let features = wanted(&entity_type, &[&events], true);
        let names = names(&features);
        let decide = |loaded, embeddings: &super::embeddings::Lookup<'_>| {
            let explained = Explained { derivations: &*derivations, log: Mutex::default() };
            let chosen: &dyn Derivations = if compute.explain { &explained } else { &*derivations };
            let mut draft = Draft::new(entity.clone(), &names, loaded, self.clock.now());
            let before = draft.version();
            let row = self.draft_derived(
                &mut draft,
                &entity_type,
                Some(chosen),
                &events,
                &raw,
                embeddings,
                &stamp,
            )?;
            let explanations = explained.log.into_inner().unwrap_or_default();
            Ok::<_, Undrafted>((draft, (before, row, explanations)))
        };
        let (before, row, explanations) = if compute.store {
            self.commit_loop(entity, precondition, &features, Basis::Loaded, decide).await?
        } else {
            self.draft_only(entity, precondition, &features, decide).await?
        };
        let derived = row.derived.clone();
        let version = if compute.store { row.version } else { before };
        let outcomes = if compute.store { row.into_written(events).outcomes } else { Vec::new() };
        if compute.store {
            self.meters.wrote(&entity_type, &outcomes, Some(event), now);
        }
        Ok(ComputedAnswer {
            version,
            features: derived
                .iter()
                .map(|derived| (derived.feature.clone(), derived.value.clone()))
                .collect(),
            outcomes,
            messages: derived
                .into_iter()
                .filter_map(|derived| Some((derived.feature, derived.message?)))
                .collect(),
            explanations,
        })
    }

    /// The entity type as it is now, if a row names what was not known of it; where nothing is to be stored,
    /// nothing is registered either.
    async fn knowing(
        &self,
        name: &EntityType,
        row: &Row<'_>,
        store: bool,
    ) -> Result<SharedEntityType, ServiceError> {
        fn unknown<'a>(of: &CompiledEntityType, row: &'a Row<'_>) -> impl Iterator<Item = &'a str> {
            let names = row.features.iter().map(|(name, _)| name.as_ref());
            names.filter(|name| !of.features.contains_key(*name) && !of.raw_inputs.contains_key(*name))
        }
        let known = self.registry.entity_type(name).await?;
        if unknown(&known, row).next().is_none() {
            return Ok(known);
        }
        self.registry.refresh().await?;
        let known = self.registry.entity_type(name).await?;
        if store {
            return Ok(known);
        }
        let message = "is neither a feature nor a raw input, and is registered only where it is stored";
        let violations: Vec<Violation> = unknown(&known, row)
            .map(|name| Violation::of_name(name, ViolationCode::UnknownFeature, message))
            .collect();
        if violations.is_empty() { Ok(known) } else { Err(ServiceError::UnknownFeatures(violations)) }
    }

    /// Takes the raw inputs out of a row; what remains are features.
    fn split_raw<'a>(
        &self,
        entity_type: &CompiledEntityType,
        mut row: Row<'a>,
    ) -> Result<(Row<'a>, RawInputs), ServiceError> {
        let mut values = Vec::new();
        let mut violations: Vec<Violation> = Vec::new();
        row.features.retain(|(name, given)| {
            let Some(raw) = entity_type.raw_inputs.get(name.as_ref()) else { return true };
            match raw.check(given) {
                Ok(value) => values.push((Arc::from(name.as_ref()), value)),
                Err(wrong) => violations.extend(wrong),
            }
            false
        });
        if !violations.is_empty() {
            self.meters.refused(Some(entity_type.name()), &violations);
            return Err(ServiceError::ValidationFailed(violations));
        }
        let event_timestamp = row.event_timestamp;
        Ok((row, RawInputs { values, event_timestamp, everything: true }))
    }

    /// Starts a job that computes every stored computed feature of an entity type anew.
    pub async fn start_recompute(self: &Arc<Self>, name: &EntityType) -> Result<Job, ServiceError> {
        // With the functions that another server may have got a moment ago.
        self.registry.refresh().await?;
        let entity_type = self.registry.entity_type(name).await?;
        if entity_type.derivations.is_none() {
            let message =
                format!("the entity type {name} computes nothing: its schema has no computed features");
            return Err(ServiceError::InvalidRequest(message));
        }
        let (store, name) = (self.clone(), name.clone());
        let subject = name.to_string();
        let work = |progress: Arc<Progress>| async move { store.recompute_all(&name, &progress).await };
        self.jobs.start("recompute", &subject, work).await
    }

    /// Computes every stored computed feature of an entity type anew, entity by entity. An entity
    /// whose functions fail is counted and left as it is.
    async fn recompute_all(&self, name: &EntityType, progress: &Progress) -> Result<(), ServiceError> {
        let entity_type = self.registry.entity_type(name).await?;
        let mut cursor: Option<String> = None;
        loop {
            let page = self.store.list(name, cursor.as_deref(), 500).await?.unwrap_or_default();
            let entities = futures::stream::iter(page.entity_ids);
            let work = |id: EntityId| self.recompute_one(&entity_type, id, progress);
            entities.map(work).buffer_unordered(RECOMPUTE_CONCURRENCY).for_each(|()| async {}).await;
            cursor = page.next_cursor;
            if cursor.is_none() || progress.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn recompute_one(&self, entity_type: &SharedEntityType, id: EntityId, progress: &Progress) {
        if progress.is_cancelled() {
            return;
        }
        let entity = EntityKey::new(entity_type.name().clone(), id);
        let result = self.recompute_entity(entity_type, &entity, progress).await;
        progress.processed();
        match result {
            Ok(true) => progress.changed(),
            Ok(false) => {}
            Err(error) => progress.failed(format!("{}: {error}", entity.entity_id)),
        }
    }

    async fn recompute_entity(
        &self,
        entity_type: &SharedEntityType,
        entity: &EntityKey,
        progress: &Progress,
    ) -> Result<bool, ServiceError> {
        let origin = Origin {
            run_id: Some(progress.id().to_owned()),
            source: Some("recompute".to_owned()),
            ..Origin::default()
        };
        let provenance = origin.provenance(Kind::Compute, entity_type.registered.schema_version, None);
        let stamp =
            Stamp { now: self.clock.now(), provenance: self.intern(&provenance, entity_type, &[]).await? };
        let features = wanted(entity_type, &[], true);
        let names = names(&features);
        let raw = RawInputs { everything: true, ..RawInputs::default() };
        let derived: Vec<Derived> = self
            .commit_loop(entity, Precondition::Exists, &features, Basis::Loaded, |loaded, embeddings| {
                let mut draft = Draft::new(entity.clone(), &names, loaded, self.clock.now());
                let row = self.draft_row(
                    &mut draft,
                    entity_type,
                    &[] as &[FeatureEvent],
                    &raw,
                    embeddings,
                    &stamp,
                )?;
                Ok((draft, row.derived))
            })
            .await?;
        Ok(derived.iter().any(|derived| derived.outcome == Outcome::Applied))
    }
}

/// Functions that are watched while they are evaluated.
#[derive(Debug)]
struct Explained<'a> {
    derivations: &'a dyn Derivations,
    log: Mutex<Vec<Explanation>>,
}

struct ExplainedSession<'a> {
    session: Box<dyn Evaluate + 'a>,
    explained: &'a Explained<'a>,
}

impl Derivations for Explained<'_> {
    fn computed(&self) -> &[Computed] {
        self.derivations.computed()
    }

    fn session<'a>(&'a self, embeddings: &'a dyn Embeddings) -> Box<dyn Evaluate + 'a> {
        Box::new(ExplainedSession { session: self.derivations.session(embeddings), explained: self })
    }
}

impl Evaluate for ExplainedSession<'_> {
    fn evaluate(&mut self, index: usize, inputs: &[Option<&Value>]) -> Result<Value, DeriveError> {
        let started = Instant::now();
        let result = self.session.evaluate(index, inputs);
        let elapsed = started.elapsed();
        if let (Ok(_), Some(computed)) = (&result, self.explained.computed().get(index)) {
            let inputs = computed.inputs.iter().zip(inputs).map(|(input, value)| {
                let name = match &input.source {
                    Source::Feature(name) => Arc::from(name.as_str()),
                    Source::Raw(name) | Source::Context(name) => name.clone(),
                    Source::Now => Arc::from("now"),
                };
                (name, value.cloned())
            });
            let explanation = Explanation {
                feature: computed.feature.clone(),
                function: computed.function.clone(),
                function_hash: computed.function_hash.clone(),
                inputs: inputs.collect(),
                elapsed,
            };
            if let Ok(mut log) = self.explained.log.lock() {
                log.push(explanation);
            }
        }
        result
    }
}
