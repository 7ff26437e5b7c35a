//! Reading features: of one entity or of many, now, at a time, or at a version.

use std::collections::HashMap;
use std::time::Instant;

use indexmap::IndexMap;

use super::FeatureStore;
use super::columns::{Columns, Named, Request};
use super::embeddings::Lookup;
use super::error::ServiceError;
use super::principal::permit_all;
use crate::domain::compiled::SharedEntityType;
use crate::domain::derive::{Derivations, DeriveError, EmbeddingRequest};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName, FeatureRef, FeatureServiceRef};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{EntityRecords, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::value::Value;
use crate::domain::view::{self, Answer};
use crate::domain::violation::{Violation, ViolationCode};
use crate::monitor::Kind;
use crate::store::cache::{self, Found, Wanted};
use crate::store::{Load, StoreError};
use crate::trace;

/// Which features of an entity type are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every feature in the schema.
    All,
    Names(Vec<String>),
    FeatureService(FeatureServiceRef),
}

/// The time a read speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    /// By event time.
    AsOf(Timestamp),
    /// As the entity stood at that version.
    Version(Version),
}

/// How a read is to be answered.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub when: When,
    /// Goes before the schema's.
    pub max_age: Option<Span>,
    /// Whether the provenance of each value is wanted.
    pub metadata: bool,
    /// For features that are computed when they are read.
    pub context: Named,
    /// Whether the store itself is to answer, and no copy of what it has.
    pub no_cache: bool,
}

/// What a read answers of one entity.
#[derive(Clone, Debug)]
pub struct EntityAnswer {
    pub entity_id: EntityId,
    /// 0: the store has nothing of it.
    pub version: Version,
    /// In the order of the columns.
    pub answers: Vec<Answer>,
}

/// What a read answers of the entities of one type.
#[derive(Clone, Debug)]
pub struct TypeAnswer {
    pub columns: Columns,
    /// In the order asked for.
    pub entities: Vec<EntityAnswer>,
}

/// An answer, and what is needed to render its metadata.
#[derive(Clone, Debug)]
pub struct ReadAnswer<T> {
    pub answer: T,
    pub provenance: ProvenanceMap,
    /// The time that ages are counted to.
    pub now: Timestamp,
    /// How long ago this was true for certain, where the store could not be reached.
    pub stale: Option<Span>,
}

/// The provenance records that an answer mentions.
pub type ProvenanceMap = HashMap<ProvenanceId, Provenance>;

/// A read of many entities, possibly of several types.
#[derive(Clone, Debug)]
pub struct BatchRead {
    pub entities: IndexMap<EntityType, Vec<EntityId>>,
    pub features: BatchSelection,
    pub options: ReadOptions,
}

/// Which features a batch read asks for.
#[derive(Clone, Debug)]
pub enum BatchSelection {
    /// As `product.price`, or `price` alone where only one entity type is read.
    Names(Vec<String>),
    FeatureService(FeatureServiceRef),
}

impl FeatureStore {
    /// Reads one entity; not found where the store has nothing of it.
    pub async fn read_features(
        &self,
        entity: &EntityKey,
        selection: &Selection,
        options: ReadOptions,
    ) -> Result<ReadAnswer<TypeAnswer>, ServiceError> {
        let started = Instant::now();
        let _span = trace::enter("service.read").about(&entity.entity_type);
        let columns = self.columns(&entity.entity_type, selection).await?;
        let _timed = self.meters.timed(Kind::Retrieval, started, &entity.entity_type);
        let entities = std::slice::from_ref(&entity.entity_id);
        let mut answers = self.read_columns(vec![(columns, entities.to_vec())], &options).await?;
        let answer =
            answers.answer.pop().ok_or_else(|| ServiceError::Internal("a read went missing".to_owned()))?;
        if answer.entities.iter().any(|entity| entity.version == 0) {
            return Err(ServiceError::EntityNotFound(entity.clone()));
        }
        Ok(ReadAnswer { answer, provenance: answers.provenance, now: answers.now, stale: answers.stale })
    }

    /// Reads many entities, possibly of several types, in one round trip.
    pub async fn read_batch(&self, batch: BatchRead) -> Result<ReadAnswer<Vec<TypeAnswer>>, ServiceError> {
        let started = Instant::now();
        let _span = trace::enter("service.read_batch");
        if batch.entities.is_empty() {
            return Err(ServiceError::InvalidRequest("entities: name at least one entity type".to_owned()));
        }
        self.check_batch_size(batch.entities.values().map(Vec::len).sum())?;
        let mut names = self.batch_names(&batch).await?;
        let mut wanted = Vec::with_capacity(batch.entities.len());
        for (entity_type, entity_ids) in batch.entities {
            let Some(names) = names.swap_remove(&entity_type) else {
                let message = format!(
                    "none of the features belongs to the entity type {entity_type}, whose entities are asked for"
                );
                return Err(ServiceError::InvalidRequest(message));
            };
            let columns = self.columns(&entity_type, &Selection::Names(names)).await?;
            wanted.push((columns, entity_ids));
        }
        if let Some((entity_type, _)) = names.first() {
            let message = format!("features of {entity_type} are asked for, but none of its entities");
            return Err(ServiceError::InvalidRequest(message));
        }
        let entity_types = wanted.iter().map(|(columns, _)| columns.entity_type.name());
        let _timed = self.meters.timed_batch(Kind::Retrieval, started, entity_types);
        self.read_columns(wanted, &batch.options).await
    }

    /// The features asked for, by entity type.
    async fn batch_names(
        &self,
        batch: &BatchRead,
    ) -> Result<IndexMap<EntityType, Vec<String>>, ServiceError> {
        let mut names: IndexMap<EntityType, Vec<String>> = IndexMap::new();
        match &batch.features {
            BatchSelection::FeatureService(reference) => {
                for feature in self.service_features(reference).await? {
                    names.entry(feature.entity_type).or_default().push(feature.feature.to_string());
                }
            }
            BatchSelection::Names(features) => {
                let only = match batch.entities.keys().collect::<Vec<_>>().as_slice() {
                    [only] => Some((*only).clone()),
                    _ => None,
                };
                for text in features {
                    let (entity_type, name) = match (text.split_once('.'), &only) {
                        (Some((entity_type, name)), _) => {
                            let entity_type = EntityType::parse(entity_type).map_err(|error| {
                                ServiceError::InvalidRequest(format!("features: {error}"))
                            })?;
                            (entity_type, name)
                        }
                        (None, Some(only)) => (only.clone(), text.as_str()),
                        (None, None) => {
                            let message = format!(
                                "features: write {text:?} as entity_type.feature, since several entity types are read"
                            );
                            return Err(ServiceError::InvalidRequest(message));
                        }
                    };
                    names.entry(entity_type).or_default().push(name.to_owned());
                }
                if names.is_empty() {
                    return Err(ServiceError::InvalidRequest(
                        "features: name at least one feature, or a feature_service".to_owned(),
                    ));
                }
            }
        }
        Ok(names)
    }

    pub(super) async fn service_features(
        &self,
        reference: &FeatureServiceRef,
    ) -> Result<Vec<FeatureRef>, ServiceError> {
        if !self.registry.snapshot().knows_service(reference) {
            self.registry.refresh().await?;
        }
        let snapshot = self.registry.snapshot();
        let service = snapshot.feature_service(&reference.name);
        match service.and_then(|service| service.version(reference.version)) {
            Some(version) => {
                permit_all(&version.spec.features)?;
                Ok(version.spec.features.clone())
            }
            None => {
                let name = match reference.version {
                    Some(version) => format!("{}@{version}", reference.name),
                    None => reference.name.to_string(),
                };
                Err(ServiceError::NotFound { what: "feature service", name })
            }
        }
    }

    /// Finds the features asked for in the schema; a misspelt one is an error, not a null.
    pub(super) async fn columns(
        &self,
        entity_type: &EntityType,
        selection: &Selection,
    ) -> Result<Columns, ServiceError> {
        let mut schema = self.registry.entity_type(entity_type).await?;
        let names = match selection {
            Selection::All => {
                let places = (0..schema.features.len()).collect();
                return Ok(Columns::new(schema, places));
            }
            Selection::Names(names) => names.clone(),
            Selection::FeatureService(reference) => {
                let features = self.service_features(reference).await?;
                let own = features.into_iter().filter(|feature| feature.entity_type == *entity_type);
                own.map(|feature| feature.feature.to_string()).collect()
            }
        };
        if names.is_empty() {
            return Err(ServiceError::InvalidRequest(format!("no feature of {entity_type} is asked for")));
        }
        self.check_feature_count(names.len())?;
        match places(&schema, &names) {
            Ok(places) => Ok(Columns::new(schema, places)),
            Err(_) => {
                // Another server may have registered it a moment ago.
                self.registry.refresh().await?;
                schema = self.registry.entity_type(entity_type).await?;
                let places = places(&schema, &names).map_err(ServiceError::UnknownFeatures)?;
                Ok(Columns::new(schema, places))
            }
        }
    }

    async fn read_columns(
        &self,
        wanted: Vec<(Columns, Vec<EntityId>)>,
        options: &ReadOptions,
    ) -> Result<ReadAnswer<Vec<TypeAnswer>>, ServiceError> {
        let keys = keys_of(&wanted);
        let (mut loaded, stale) = self.load_for(&wanted, &keys, options).await?;
        // Judged after the answer came: what expired meanwhile is not served.
        let now = self.clock.now();
        let mut answer = Vec::with_capacity(wanted.len());
        for (columns, ids) in wanted {
            let mut entities = Vec::with_capacity(ids.len());
            for (entity_id, loaded) in ids.into_iter().zip(&mut loaded) {
                entities.push(match loaded {
                    Loaded::Records(records) => answer_fields(&columns, entity_id, records, options, now)?,
                    Loaded::Found(found) => answer_now(&columns, entity_id, &found, options, now, stale),
                });
            }
            if columns.is_computed_on_read() {
                let request = Request { context: options.context.clone(), now: Value::Timestamp(now) };
                self.compute_on_read(&columns, &mut entities, &|_| &request).await?;
            }
            self.meters.read(&columns, &entities, options.when == When::Now);
            answer.push(TypeAnswer { columns, entities });
        }
        let provenance = if options.metadata {
            let records =
                answer.iter().flat_map(|of_type| &of_type.entities).flat_map(|entity| &entity.answers);
            self.provenance_of(records.filter_map(|answer| answer.record.as_ref()).map(|r| r.provenance))
                .await?
        } else {
            ProvenanceMap::new()
        };
        Ok(ReadAnswer { answer, provenance, now, stale })
    }

    /// Loads what a read needs, with how long ago it was true for certain if the store is out of reach.
    async fn load_for(
        &self,
        wanted: &[(Columns, Vec<EntityId>)],
        keys: &[EntityKey],
        options: &ReadOptions,
    ) -> Result<(std::vec::IntoIter<Loaded>, Option<Span>), ServiceError> {
        let fields = wanted
            .iter()
            .flat_map(|(columns, ids)| std::iter::repeat_n(columns.fields(), ids.len()))
            .zip(keys);
        if options.when != When::Now {
            let loads: Vec<Load<'_>> =
                fields.map(|(features, entity)| Load { entity, features, history: true }).collect();
            let loaded = self.store.load(&loads).await?.into_iter().map(Loaded::Records);
            return Ok((loaded.collect::<Vec<_>>().into_iter(), None));
        }
        let wanted: Vec<Wanted<'_>> = fields.map(|(fields, entity)| Wanted { entity, fields }).collect();
        let (found, stale) = self.find(&wanted, options.no_cache).await?;
        Ok((found.into_iter().map(Loaded::Found).collect::<Vec<_>>().into_iter(), stale))
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
            let mut missing = match complete(columns, entities, requests, derivations.as_ref(), &embeddings)?
            {
                Completed::All(completed) => {
                    for (entity, answers) in entities.iter_mut().zip(completed) {
                        entity.answers = answers;
                    }
                    return Ok(());
                }
                Completed::Missing(missing) => missing,
            };
            missing.sort_unstable();
            missing.dedup();
            if !embeddings.fetch(missing).await {
                return Err(ServiceError::Internal("embeddings are asked for without end".to_owned()));
            }
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

fn keys_of(wanted: &[(Columns, Vec<EntityId>)]) -> Vec<EntityKey> {
    let keys = wanted.iter().flat_map(|(columns, ids)| {
        ids.iter().map(|id| EntityKey::new(columns.entity_type.name().clone(), id.clone()))
    });
    keys.collect()
}

/// What is known of one entity.
enum Loaded {
    /// With its history.
    Records(EntityRecords),
    /// As it is.
    Found(Found),
}

/// The present of one entity, judged.
fn answer_now(
    columns: &Columns,
    entity_id: EntityId,
    found: &Found,
    options: &ReadOptions,
    now: Timestamp,
    stale: Option<Span>,
) -> EntityAnswer {
    let version = found.entry.version();
    if version == 0 {
        return not_there(columns, entity_id);
    }
    let answers = columns.field_features().enumerate().map(|(index, feature)| {
        let current = found.entry.current(found.slots.get(index)).cloned();
        let mut answer = view::at_present(feature, current, now, options.max_age);
        if stale.is_some() {
            answer.status = answer.status.when_stale();
        }
        answer
    });
    EntityAnswer { entity_id, version, answers: answers.collect() }
}

/// No default stands in for features of an entity that nobody has heard of.
fn not_there(columns: &Columns, entity_id: EntityId) -> EntityAnswer {
    let answers = columns.fields().iter().map(|_| Answer::not_found()).collect();
    EntityAnswer { entity_id, version: 0, answers }
}

/// What is stored of one entity, judged.
pub(super) fn answer_fields(
    columns: &Columns,
    entity_id: EntityId,
    records: EntityRecords,
    options: &ReadOptions,
    now: Timestamp,
) -> Result<EntityAnswer, ServiceError> {
    let Some(head) = records.head else { return Ok(not_there(columns, entity_id)) };
    let features = columns.field_features().zip(records.features);
    let (version, answers) = match options.when {
        When::Now => {
            let answers =
                features.map(|(feature, r)| view::at_present(feature, r.current, now, options.max_age));
            (head.version, answers.collect::<Vec<_>>())
        }
        When::AsOf(at) => {
            let answers = features.map(|(feature, r)| view::as_of(feature, &r, at, options.max_age));
            (head.version, answers.collect())
        }
        When::Version(version) => {
            check_version(version, head.version)?;
            let answers = features
                .map(|(feature, r)| view::at_version(feature, &r, version).map_err(|_| feature.name.clone()));
            (version, whole(answers, version)?)
        }
    };
    Ok(EntityAnswer { entity_id, version, answers })
}

/// Refuses a version that the entity never had.
pub(super) fn check_version(version: Version, current: Version) -> Result<(), ServiceError> {
    if (1..=current).contains(&version) {
        return Ok(());
    }
    let message = format!("the entity has the versions 1 to {current}, not {version}");
    Err(ServiceError::VersionNotFound { message, violations: Vec::new() })
}

/// All answers of a version, or the list of features that its history no longer reaches.
pub(super) fn whole<T>(
    answers: impl Iterator<Item = Result<T, FeatureName>>,
    version: Version,
) -> Result<Vec<T>, ServiceError> {
    let mut violations = Vec::new();
    let mut found = Vec::new();
    for answer in answers {
        match answer {
            Ok(answer) => found.push(answer),
            Err(feature) => {
                let message = "the value at that version was trimmed from the history";
                violations.push(Violation::of_feature(&feature, ViolationCode::VersionTrimmed, message));
            }
        }
    }
    if violations.is_empty() {
        return Ok(found);
    }
    let message = format!(
        "version {version} is no longer kept as a whole: the history of some features does not reach back that far (see max_versions)"
    );
    Err(ServiceError::VersionNotFound { message, violations })
}

/// The places of these names in the schema, each name once, or everything that is misspelt.
fn places(schema: &SharedEntityType, names: &[String]) -> Result<Vec<usize>, Vec<Violation>> {
    let mut places = Vec::with_capacity(names.len());
    let mut unknown = Vec::new();
    for name in names {
        match schema.features.get_index_of(name.as_str()) {
            // A list of hundreds is short enough to be searched, and nearly always free of repeats.
            Some(place) if places.contains(&place) => {}
            Some(place) => places.push(place),
            None => {
                let message = format!("the entity type {} has no feature {name:?}", schema.name());
                unknown.push(Violation {
                    feature: Some(name.clone()),
                    ..Violation::new(ViolationCode::UnknownFeature, message)
                });
            }
        }
    }
    if unknown.is_empty() { Ok(places) } else { Err(unknown) }
}
