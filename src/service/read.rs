//! Reading features: of one entity or of many, now, at a time, or at a version.

use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;

use super::FeatureStore;
use super::answer::{
    Entities, EntityAnswer, Moment, PresentEntity, ProvenanceMap, ReadAnswer, TypeAnswer, answer_fields,
    judge,
};
use super::columns::{Columns, Named, Request};
use super::embeddings::Lookup;
use super::error::ServiceError;
use super::selection::{BatchSelection, Selection, by_entity_type};
use crate::domain::derive::{Derivations, DeriveError, EmbeddingRequest};
use crate::domain::name::{EntityId, EntityKey, EntityType};
use crate::domain::provenance::ProvenanceId;
use crate::domain::record::Version;
use crate::domain::time::{Span, Timestamp};
use crate::domain::value::Value;
use crate::domain::view::{Answer, Retracted};
use crate::domain::violation::{Violation, ViolationCode};
use crate::monitor::Kind;
use crate::store::cache::{self, Found, Wanted};
use crate::store::{Load, StoreError};
use crate::trace;

/// The time a read speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    Now,
    /// By event time.
    AsOf(Timestamp),
    /// As the entity stood at that version.
    Version(Version),
}

impl When {
    /// What is the present of functions that run on the read: a look at the past is from there.
    pub fn moment(self, now: Timestamp) -> Timestamp {
        if let Self::AsOf(at) = self { at } else { now }
    }
}

/// How a read is to be answered; by default as things are now.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    pub when: When,
    /// Whether a read of the past sees what was retracted.
    pub retracted: Retracted,
    /// Goes before the schema's.
    pub max_age: Option<Span>,
    /// Whether the provenance of each value is wanted.
    pub metadata: bool,
    /// For features that are computed when they are read.
    pub context: Named,
    /// Whether the store itself is to answer, and no copy of what it has.
    pub no_cache: bool,
    /// For the log of what was served.
    pub request_id: Option<Box<str>>,
}

/// A read of many entities, possibly of several types.
#[derive(Clone, Debug)]
pub struct BatchRead<S> {
    pub entities: IndexMap<EntityType, Vec<EntityId>>,
    pub features: BatchSelection<S>,
    pub options: ReadOptions,
}

/// Columns of entities, all of one type.
type WantedOfType = (Arc<Columns>, Vec<EntityKey>);

impl FeatureStore {
    /// Reads one entity; not found where the store has nothing of it.
    pub async fn read_features<S: AsRef<str>>(
        &self,
        entity: &EntityKey,
        selection: &Selection<S>,
        options: ReadOptions,
    ) -> Result<ReadAnswer<TypeAnswer>, ServiceError> {
        let started = Instant::now();
        let _span = trace::enter("service.read").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, selection).await?;
        let _timed = self.meters.timed(Kind::Retrieval, started, &entity.entity_type);
        let mut answers = self.read_columns(vec![(columns, vec![entity.clone()])], &options).await?;
        let answer =
            answers.answer.pop().ok_or_else(|| ServiceError::Internal("a read went missing".to_owned()))?;
        if answer.heads().any(|(_, version)| version == 0) {
            return Err(ServiceError::EntityNotFound(entity.clone()));
        }
        if let (Selection::FeatureService(service), When::Now) = (selection, options.when) {
            let types = std::slice::from_ref(&answer);
            self.log_served(service, options.request_id.as_deref(), &answers, types);
        }
        Ok(ReadAnswer { answer, provenance: answers.provenance, now: answers.now, stale: answers.stale })
    }

    /// Reads many entities, possibly of several types, in one round trip.
    pub async fn read_batch<S: AsRef<str>>(
        &self,
        batch: BatchRead<S>,
    ) -> Result<ReadAnswer<Vec<TypeAnswer>>, ServiceError> {
        let started = Instant::now();
        let _span = trace::enter("service.read_batch");
        if batch.entities.is_empty() {
            return Err(ServiceError::InvalidRequest("entities: name at least one entity type".to_owned()));
        }
        self.check_batch_size(batch.entities.values().map(Vec::len).sum())?;
        let wanted = match &batch.features {
            BatchSelection::Names(names) => self.wanted(batch.entities, names).await?,
            BatchSelection::FeatureService(reference) => {
                let features = self.service_features(reference).await?;
                let names: Vec<String> = features.iter().map(ToString::to_string).collect();
                self.wanted(batch.entities, &names).await?
            }
        };
        let entity_types = wanted.iter().map(|(columns, _)| columns.entity_type.name());
        let _timed = self.meters.timed_batch(Kind::Retrieval, started, entity_types);
        let read = self.read_columns(wanted, &batch.options).await?;
        if let (BatchSelection::FeatureService(service), When::Now) = (&batch.features, batch.options.when) {
            self.log_served(service, batch.options.request_id.as_deref(), &read, &read.answer);
        }
        Ok(read)
    }

    /// Brings the entities of a batch together with their features.
    async fn wanted<S: AsRef<str>>(
        &self,
        entities: IndexMap<EntityType, Vec<EntityId>>,
        features: &[S],
    ) -> Result<Vec<WantedOfType>, ServiceError> {
        let mut by_type = by_entity_type(features, entities.keys().next().filter(|_| entities.len() == 1))?;
        let mut wanted = Vec::with_capacity(entities.len());
        for (entity_type, ids) in &entities {
            let named = by_type.iter().position(|(name, _)| *name == entity_type.as_str());
            let Some((_, names)) = named.map(|at| by_type.swap_remove(at)) else {
                let message = format!(
                    "none of the features belongs to the entity type {entity_type}, whose entities are asked for"
                );
                return Err(ServiceError::InvalidRequest(message));
            };
            let columns = self.columns(entity_type, &Selection::Names(names)).await?;
            // By the schema's own name, which all keys then share.
            let name = columns.entity_type.name();
            let keys = ids.iter().map(|id| EntityKey::new(name.clone(), id.clone())).collect();
            wanted.push((columns, keys));
        }
        if let Some((entity_type, _)) = by_type.first() {
            let message = format!("features of {entity_type} are asked for, but none of its entities");
            return Err(ServiceError::InvalidRequest(message));
        }
        Ok(wanted)
    }

    async fn read_columns(
        &self,
        wanted: Vec<WantedOfType>,
        options: &ReadOptions,
    ) -> Result<ReadAnswer<Vec<TypeAnswer>>, ServiceError> {
        let ReadAnswer { mut answer, now, stale, .. } = match options.when {
            When::Now => self.read_present(wanted, options).await?,
            When::AsOf(_) | When::Version(_) => self.read_past(wanted, options).await?,
        };
        for of_type in &mut answer {
            if of_type.columns.is_computed_on_read() {
                let mut entities = of_type.judged().into_owned();
                let now = options.when.moment(now);
                let context = of_type.columns.typed(options.context.clone());
                let context = context.map_err(ServiceError::ValidationFailed)?;
                let request = Request { context, now: Value::Timestamp(now) };
                self.compute_on_read(&of_type.columns, &mut entities, &|_| &request).await?;
                of_type.entities = Entities::Judged(entities);
            }
            self.meters.read(of_type, options.when == When::Now);
        }
        let mut provenance = ProvenanceMap::new();
        if options.metadata {
            for of_type in &mut answer {
                of_type.entities = Entities::Judged(of_type.judged().into_owned());
            }
            let entities = answer.iter().map(TypeAnswer::judged);
            let ids = entities.flat_map(|entities| {
                let records = entities.iter().flat_map(|entity| &entity.answers);
                let records = records.filter_map(|answer| answer.record.as_ref());
                records.map(|record| record.provenance).collect::<Vec<_>>()
            });
            provenance = self.provenance_of(ids).await?;
        }
        Ok(ReadAnswer { answer, provenance, now, stale })
    }

    async fn read_present(
        &self,
        wanted: Vec<WantedOfType>,
        options: &ReadOptions,
    ) -> Result<ReadAnswer<Vec<TypeAnswer>>, ServiceError> {
        let (found, stale) = {
            let fields = wanted.iter().flat_map(|(columns, keys)| {
                keys.iter().map(|entity| Wanted { entity, fields: columns.fields() })
            });
            self.find(&fields.collect::<Vec<_>>(), options.no_cache).await?
        };
        // Judged after the answer came: what expired meanwhile is not served.
        let now = self.clock.now();
        let moment = Moment { now, max_age: options.max_age, stale: stale.is_some() };
        let mut found = found.into_iter();
        let of_type = |(columns, keys): WantedOfType| {
            let found = keys.into_iter().map(|key| key.entity_id).zip(&mut found);
            let entities = if columns.is_computed_on_read() {
                Entities::Judged(found.map(|(id, found)| judge(&columns, id, &found, moment)).collect())
            } else {
                let entities = found.map(|(id, found)| PresentEntity::new(&columns, id, found, moment));
                Entities::Present(entities.collect(), moment)
            };
            TypeAnswer { columns, entities }
        };
        let answer = wanted.into_iter().map(of_type).collect();
        Ok(ReadAnswer { answer, provenance: ProvenanceMap::new(), now, stale })
    }

    async fn read_past(
        &self,
        wanted: Vec<WantedOfType>,
        options: &ReadOptions,
    ) -> Result<ReadAnswer<Vec<TypeAnswer>>, ServiceError> {
        let loaded = {
            let loads = wanted.iter().flat_map(|(columns, keys)| {
                keys.iter().map(|entity| Load { entity, features: columns.fields(), history: true })
            });
            self.store.load(&loads.collect::<Vec<_>>()).await?
        };
        let now = self.clock.now();
        let mut loaded = loaded.into_iter();
        let mut answer = Vec::with_capacity(wanted.len());
        for (columns, keys) in wanted {
            let entities = keys.into_iter().zip(&mut loaded);
            let entities = entities
                .map(|(key, records)| answer_fields(&columns, key.entity_id, records, options, now))
                .collect::<Result<_, _>>()?;
            answer.push(TypeAnswer { columns, entities: Entities::Judged(entities) });
        }
        Ok(ReadAnswer { answer, provenance: ProvenanceMap::new(), now, stale: None })
    }

    /// Entities as they are: from the cache, else from the store. Where the store cannot be reached
    /// and that is allowed, as they were when it was reached last, and how long ago that was.
    pub(super) async fn find(
        &self,
        wanted: &[Wanted<'_>],
        no_cache: bool,
    ) -> Result<(Vec<Found>, Option<Span>), ServiceError> {
        let Some(cache) = self.cache.as_ref().filter(|_| !no_cache) else {
            return Ok((cache::load(&*self.store, wanted).await?, None));
        };
        match cache.read(&*self.store, wanted).await {
            Ok(found) => Ok((found, None)),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout)) => match cache.stale(wanted) {
                Some((found, age)) => Ok((found, Some(age))),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Completes answers whose columns are not all stored, each for a request of its own.
    pub(super) async fn compute_on_read<'a>(
        &self,
        columns: &Columns,
        entities: &mut [EntityAnswer],
        requests: &(dyn Fn(usize) -> &'a Request + Sync),
    ) -> Result<(), ServiceError> {
        let Some(derivations) = &columns.entity_type.derivations else { return Ok(()) };
        let mut embeddings = Lookup::new(&*self.embedding_provider);
        loop {
            let missing = match complete(columns, entities, requests, derivations.as_ref(), &embeddings)? {
                Completed::All(completed) => {
                    for (entity, answers) in entities.iter_mut().zip(completed) {
                        entity.answers = answers;
                    }
                    return Ok(());
                }
                Completed::Missing(missing) => missing,
            };
            embeddings.fetch(missing).await;
        }
    }

    /// The provenance records of these ids, each asked for once.
    pub(super) async fn provenance_of(
        &self,
        ids: impl Iterator<Item = ProvenanceId>,
    ) -> Result<ProvenanceMap, ServiceError> {
        let mut ids: Vec<ProvenanceId> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(ProvenanceMap::new());
        }
        let records = self.store.provenance(&ids).await?;
        Ok(ids.into_iter().zip(records).filter_map(|(id, record)| Some((id, record?))).collect())
    }
}

/// The answers of all entities, or what has to be fetched for them first.
enum Completed {
    All(Vec<Vec<Answer>>),
    Missing(Vec<EmbeddingRequest>),
}

fn complete<'a>(
    columns: &Columns,
    entities: &[EntityAnswer],
    requests: &dyn Fn(usize) -> &'a Request,
    derivations: &dyn Derivations,
    embeddings: &Lookup<'_>,
) -> Result<Completed, ServiceError> {
    let mut session = derivations.session(embeddings);
    let mut missing = Vec::new();
    let mut completed = Vec::with_capacity(entities.len());
    for (index, entity) in entities.iter().enumerate() {
        if entity.version == 0 {
            completed.push(columns.names().map(|_| Answer::not_found()).collect());
            continue;
        }
        match columns.complete(entity.answers.clone(), requests(index), session.as_mut()) {
            Ok(answers) => completed.push(answers),
            Err((_, DeriveError::NeedsEmbeddings(requests))) => missing.extend(requests),
            Err((_, DeriveError::Unavailable(reason))) => return Err(ServiceError::Unavailable(reason)),
            Err((feature, DeriveError::Failed(reason))) => {
                let message = format!("of the entity {}: {reason}", entity.entity_id);
                let violation = Violation::of_feature(&feature, ViolationCode::ComputationFailed, message);
                return Err(ServiceError::ValidationFailed(vec![violation]));
            }
        }
    }
    Ok(if missing.is_empty() { Completed::All(completed) } else { Completed::Missing(missing) })
}
