//! Writing features of one entity, and the compare-and-commit loop that every write goes through.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::FeatureStore;
use super::embeddings::Lookup;
use super::error::ServiceError;
use super::principal;
use super::rows::Row;
use crate::domain::compiled::CompiledEntityType;
use crate::domain::derive::{
    Derivations, Derived, EmbeddingRequest, Embeddings, RawInputs, Undecided, With, derive, involved,
};
use crate::domain::draft::{Draft, FeatureEvent, Intent, NeedsHistory, Outcome, Stamp};
use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::provenance::{Kind, Provenance, ProvenanceId, RollbackNote};
use crate::domain::record::{Commit, EntityRecords, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::FeatureType;
use crate::domain::violation::{Violation, ViolationCode};
use crate::monitor;
use crate::store::{CommitOutcome, Load};
use crate::trace;

/// So often a write is decided anew when other processes write the same entity.
pub(super) const COMMIT_ATTEMPTS: u32 = 64;

/// Where a write comes from, in the writer's words.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub source: Option<String>,
    pub run_id: Option<String>,
    pub actor: Option<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl Origin {
    pub fn provenance(&self, kind: Kind, schema_version: u32, rollback: Option<RollbackNote>) -> Provenance {
        Provenance {
            kind,
            source: self.source.clone(),
            run_id: self.run_id.clone(),
            actor: self.actor.clone().or_else(|| Some(principal::current()?.name.to_string())),
            metadata: self.metadata.clone(),
            schema_version,
            rollback,
        }
    }
}

/// What `If-Match` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    None,
    /// The entity exists.
    Exists,
    /// The entity is at this version; 0: it does not exist.
    Version(Version),
}

impl Precondition {
    pub(super) fn check(self, current: Version) -> Result<(), ServiceError> {
        let holds = match self {
            Self::None => true,
            Self::Exists => current > 0,
            Self::Version(version) => current == version,
        };
        if holds { Ok(()) } else { Err(ServiceError::VersionConflict { current }) }
    }
}

/// What became of a write of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The entity's version now.
    pub version: Version,
    /// In the order of the write's features.
    pub outcomes: Vec<(FeatureName, Outcome)>,
}

/// What a write is decided on at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Basis {
    /// What the store remembers, if it does.
    Recalled,
    Loaded,
    WithHistory,
}

impl Basis {
    /// For a write that needs no history: where it may be refused, it is not for what is remembered.
    pub fn of(entity_type: &CompiledEntityType) -> Self {
        if may_be_refused(entity_type) { Self::Loaded } else { Self::Recalled }
    }
}

/// Whether a row of right values may be refused for what the entity has already.
pub(super) fn may_be_refused(entity_type: &CompiledEntityType) -> bool {
    !entity_type.required.is_empty() || entity_type.derivations.is_some()
}

/// Why a draft is not decided yet, or never will be.
pub(super) enum Undrafted {
    NeedsHistory,
    NeedsEmbeddings(Vec<EmbeddingRequest>),
    Refused(ServiceError),
}

impl From<Undecided> for Undrafted {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::NeedsHistory(_) => Self::NeedsHistory,
            Undecided::NeedsEmbeddings(requests) => Self::NeedsEmbeddings(requests),
            Undecided::Failed(violations) => Self::Refused(ServiceError::ValidationFailed(violations)),
            Undecided::Unavailable(reason) => Self::Refused(ServiceError::Unavailable(reason)),
        }
    }
}

impl From<NeedsHistory> for Undrafted {
    fn from(_: NeedsHistory) -> Self {
        Self::NeedsHistory
    }
}

impl From<ServiceError> for Undrafted {
    fn from(error: ServiceError) -> Self {
        Self::Refused(error)
    }
}

/// What one row did to a draft.
#[derive(Clone, Debug)]
pub(super) struct DraftedRow {
    pub version: Version,
    /// In the order of the events.
    pub outcomes: Vec<Outcome>,
    pub derived: Vec<Derived>,
}

impl DraftedRow {
    /// The outcomes by name: those of the events first, then those of what follows from them.
    pub fn into_written(self, events: Vec<FeatureEvent>) -> Written {
        let written = events.into_iter().map(|event| event.feature).zip(self.outcomes);
        let derived = self.derived.into_iter().map(|derived| (derived.feature, derived.outcome));
        Written { version: self.version, outcomes: written.chain(derived).collect() }
    }
}

impl FeatureStore {
    /// Writes features of one entity: all of them, or none with a list of all that is wrong.
    pub async fn write_features(
        &self,
        entity: &EntityKey,
        row: Row<'_>,
        origin: &Origin,
        precondition: Precondition,
    ) -> Result<Written, ServiceError> {
        let started = Instant::now();
        let _span = trace::enter("service.write").about(&entity.entity_type);
        self.check_feature_count(row.features.len())?;
        let now = self.clock.now();
        let rows = std::slice::from_ref(&row);
        let (entity_type, mut checked) = self.check_rows(&entity.entity_type, rows, now).await?;
        let _timed = self.meters.timed(monitor::Kind::Write, started, &entity.entity_type);
        let events = match checked.pop() {
            Some(Ok(events)) => events,
            Some(Err(violations)) => return Err(ServiceError::ValidationFailed(violations)),
            None => return Err(ServiceError::Internal("a row went missing".to_owned())),
        };
        let provenance = origin.provenance(Kind::Write, entity_type.registered.schema_version, None);
        let stamp = Stamp { now, provenance: self.intern(&provenance, &entity_type, &events).await? };
        let features = wanted(&entity_type, &[&events], false);
        let names = names(&features);
        let raw = RawInputs::default();
        let drafted = self
            .commit_loop(entity, precondition, &features, Basis::of(&entity_type), |loaded, embeddings| {
                let mut draft = Draft::new(entity.clone(), &names, loaded, self.clock.now());
                let row = self.draft_row(&mut draft, &entity_type, &events, &raw, embeddings, &stamp)?;
                Ok((draft, row))
            })
            .await?;
        let written = drafted.into_written(events);
        let event = row.event_timestamp.unwrap_or(now);
        self.meters.wrote(&entity_type, &written.outcomes, Some(event), now);
        Ok(written)
    }

    /// Drafts one row, and all that follows from it, as one version.
    pub(super) fn draft_row(
        &self,
        draft: &mut Draft,
        entity_type: &CompiledEntityType,
        events: &[FeatureEvent],
        raw: &RawInputs,
        embeddings: &dyn Embeddings,
        stamp: &Stamp,
    ) -> Result<DraftedRow, Undrafted> {
        let derivations = entity_type.derivations.as_deref();
        self.draft_derived(draft, entity_type, derivations, events, raw, embeddings, stamp)
    }

    /// As [`Self::draft_row`], with the functions given.
    #[expect(clippy::too_many_arguments, reason = "one row and everything it depends on; used in two places")]
    pub(super) fn draft_derived(
        &self,
        draft: &mut Draft,
        entity_type: &CompiledEntityType,
        derivations: Option<&dyn Derivations>,
        events: &[FeatureEvent],
        raw: &RawInputs,
        embeddings: &dyn Embeddings,
        stamp: &Stamp,
    ) -> Result<DraftedRow, Undrafted> {
        // Decided now, and not when the request came: what waited its turn is not late for it.
        let stamp = &Stamp { now: self.clock.now(), ..*stamp };
        let before = draft.version();
        let outcomes = draft.write(events, stamp)?;
        let derived = if let Some(derivations) = derivations {
            let applied = events.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Applied);
            let changed = applied.map(|(event, _)| event.feature.clone()).collect();
            // Nobody else names what is computed.
            let acts = events.iter().filter(|event| event.intent == Intent::Act);
            let settled: Vec<FeatureName> = acts.map(|event| event.feature.clone()).collect();
            let with = With { entity_type, derivations, raw, embeddings, settled: &settled };
            self.draft_what_follows(draft, before, changed, &with, stamp)?
        } else {
            Vec::new()
        };
        self.check_required(draft, entity_type)?;
        Ok(DraftedRow { version: draft.version(), outcomes, derived })
    }

    /// Drafts what follows from features that changed since version `before`.
    pub(super) fn draft_what_follows(
        &self,
        draft: &mut Draft,
        before: Version,
        changed: Vec<FeatureName>,
        with: &With<'_>,
        stamp: &Stamp,
    ) -> Result<Vec<Derived>, Undecided> {
        derive(draft, before, changed, with, stamp).inspect_err(|undecided| {
            if let Undecided::Failed(violations) = undecided {
                self.meters.refused(Some(with.entity_type.name()), violations);
            }
        })
    }

    /// Loads an entity, lets `decide` draft, and commits; again from the start where another writer
    /// was faster, or where `decide` needs the history or embeddings.
    pub(super) async fn commit_loop<T>(
        &self,
        entity: &EntityKey,
        precondition: Precondition,
        features: &[(FeatureName, FeatureType)],
        basis: Basis,
        decide: impl Fn(EntityRecords, &Lookup<'_>) -> Result<(Draft, T), Undrafted>,
    ) -> Result<T, ServiceError> {
        let mut turn = self.locks.turn(entity).await;
        let mut embeddings = Lookup::new(&*self.embedding_provider);
        // What is decided on what is remembered counts if it is committed, and is forgotten otherwise.
        if basis == Basis::Recalled
            && let Some(recalled) = self.store.recall(&Load { entity, features, history: false })
            && precondition.check(recalled.head.map_or(0, |head| head.version)).is_ok()
            && let Ok((draft, outcome)) = decide(recalled, &embeddings)
            && let Some(commit) = draft.into_commit(self.settings.history_ttl)
        {
            match self.commit_one(commit).await? {
                CommitOutcome::Committed => return Ok(outcome),
                CommitOutcome::Conflict => self.meters.conflict(),
            }
        }
        let mut history = basis == Basis::WithHistory;
        let mut decided_on = None;
        let mut attempt = 0;
        while attempt < COMMIT_ATTEMPTS {
            let loaded = self.load_one(entity, features, history).await?;
            let version = loaded.head.map_or(0, |head| head.version);
            precondition.check(version)?;
            if decided_on.replace(version) != Some(version) {
                embeddings.begin();
            }
            let (draft, outcome) = match decide(loaded, &embeddings) {
                Ok(decided) => decided,
                Err(Undrafted::Refused(error)) => return Err(error),
                Err(Undrafted::NeedsHistory) if !history => {
                    history = true;
                    continue;
                }
                Err(Undrafted::NeedsHistory) => {
                    return Err(ServiceError::Internal(format!("the history of {entity} was not loaded")));
                }
                Err(Undrafted::NeedsEmbeddings(requests)) => {
                    // Others need not wait for the provider.
                    drop(turn);
                    embeddings.fetch(requests).await;
                    turn = self.locks.turn(entity).await;
                    attempt += 1;
                    continue;
                }
            };
            let Some(commit) = draft.into_commit(self.settings.history_ttl) else { return Ok(outcome) };
            match self.commit_one(commit).await? {
                CommitOutcome::Committed => return Ok(outcome),
                CommitOutcome::Conflict => {
                    self.meters.conflict();
                    back_off(attempt).await;
                    attempt += 1;
                }
            }
        }
        Err(ServiceError::Contention)
    }

    async fn commit_one(&self, commit: Commit) -> Result<CommitOutcome, ServiceError> {
        let outcome = self.store.commit(std::slice::from_ref(&commit)).await.pop();
        let missing = || ServiceError::Internal("the store answered no commit".to_owned());
        Ok(outcome.ok_or_else(missing)??)
    }

    /// Lets `decide` draft as [`Self::commit_loop`] does, and throws the draft away.
    pub(super) async fn draft_only<T>(
        &self,
        entity: &EntityKey,
        precondition: Precondition,
        features: &[(FeatureName, FeatureType)],
        decide: impl Fn(EntityRecords, &Lookup<'_>) -> Result<(Draft, T), Undrafted>,
    ) -> Result<T, ServiceError> {
        let mut embeddings = Lookup::new(&*self.embedding_provider);
        let loaded = self.load_one(entity, features, true).await?;
        precondition.check(loaded.head.map_or(0, |head| head.version))?;
        loop {
            match decide(loaded.clone(), &embeddings) {
                Ok((_, outcome)) => return Ok(outcome),
                Err(Undrafted::Refused(error)) => return Err(error),
                Err(Undrafted::NeedsHistory) => {
                    return Err(ServiceError::Internal(format!("the history of {entity} was not loaded")));
                }
                Err(Undrafted::NeedsEmbeddings(requests)) => embeddings.fetch(requests).await,
            }
        }
    }

    pub(super) async fn load_one(
        &self,
        entity: &EntityKey,
        features: &[(FeatureName, FeatureType)],
        history: bool,
    ) -> Result<EntityRecords, ServiceError> {
        let loaded = self.store.load(&[Load { entity, features, history }]).await?.pop();
        loaded.ok_or_else(|| ServiceError::Internal("the store answered no load".to_owned()))
    }

    /// The id of a provenance, kept as long as anything of these events is.
    pub(super) async fn intern(
        &self,
        provenance: &Provenance,
        entity_type: &CompiledEntityType,
        events: impl IntoIterator<Item = &FeatureEvent>,
    ) -> Result<ProvenanceId, ServiceError> {
        let now = self.clock.now();
        let computed =
            entity_type.computed().iter().filter_map(|computed| entity_type.features.get(&computed.feature));
        let derived = computed.map(|feature| feature.ttl.expires_at(now));
        let written = events.into_iter().map(|event| event.ttl.expires_at(now));
        let latest = latest_expiry(written.chain(derived).chain([Some(now)]));
        let until = latest.map(|at| at + self.settings.history_ttl);
        Ok(self.store.intern(provenance, until).await?)
    }

    pub(super) fn check_required(
        &self,
        draft: &Draft,
        entity_type: &CompiledEntityType,
    ) -> Result<(), ServiceError> {
        let missing = entity_type.required.iter().filter(|name| !draft.has(name));
        let violations: Vec<Violation> = missing
            .map(|name| {
                let message = "is required, and the entity does not have it yet";
                Violation::of_feature(name, ViolationCode::RequiredMissing, message)
            })
            .collect();
        if violations.is_empty() {
            return Ok(());
        }
        self.meters.refused(Some(entity_type.name()), &violations);
        Err(ServiceError::ValidationFailed(violations))
    }

    /// Refuses a deletion that takes away a required feature.
    pub(super) fn check_not_required(
        &self,
        entity_type: &CompiledEntityType,
        features: &[FeatureName],
    ) -> Result<(), ServiceError> {
        let required = features.iter().filter(|feature| entity_type.required.contains(feature));
        let violations: Vec<Violation> = required
            .map(|feature| {
                let message = "is required: it can only go with the whole entity";
                Violation::of_feature(feature, ViolationCode::RequiredMissing, message)
            })
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(ServiceError::ValidationFailed(violations)) }
    }

    /// Refuses more features in one request than the limit allows.
    pub fn check_feature_count(&self, count: usize) -> Result<(), ServiceError> {
        let most = self.settings.limits.max_features;
        if count > most {
            return Err(ServiceError::TooLarge(format!(
                "{count} features in one request, at most {most} are allowed"
            )));
        }
        Ok(())
    }
}

pub(super) fn names(features: &[(FeatureName, FeatureType)]) -> Vec<FeatureName> {
    features.iter().map(|(name, _)| name.clone()).collect()
}

/// `None` (never) is later than any time.
fn latest_expiry(expiries: impl Iterator<Item = Option<Timestamp>>) -> Option<Timestamp> {
    let mut latest = None;
    for expiry in expiries {
        latest = latest.max(Some(expiry?));
    }
    latest
}

/// What must be loaded to decide these events: their features, what is computed from them with its
/// inputs (`everything`: all that is computed), and the required features.
pub(super) fn wanted(
    entity_type: &CompiledEntityType,
    rows: &[&Vec<FeatureEvent>],
    everything: bool,
) -> Vec<(FeatureName, FeatureType)> {
    let mut named: Vec<FeatureName> =
        rows.iter().flat_map(|events| events.iter().map(|event| event.feature.clone())).collect();
    // One row names each feature once, so only what is added to it can repeat.
    let mut distinct = if rows.len() == 1 { named.len() } else { 0 };
    if entity_type.derivations.is_some() {
        named.extend(involved(entity_type, &named, everything));
    }
    named.extend(entity_type.required.iter().cloned());
    let mut wanted: Vec<(FeatureName, FeatureType)> = Vec::with_capacity(named.len());
    for name in named {
        let new = distinct > 0 || wanted.iter().all(|(other, _)| *other != name);
        distinct = distinct.saturating_sub(1);
        if let (true, Some(feature)) = (new, entity_type.features.get(&name)) {
            wanted.push((name, feature.feature_type));
        }
    }
    wanted
}

/// Waits a little, and longer with every attempt, so that competing processes drift apart.
pub(super) async fn back_off(attempt: u32) {
    let most = 200u64 << attempt.min(7);
    let micros = rand::rng().random_range(0..=most);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}
