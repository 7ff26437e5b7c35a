//! Writing features of one entity, and the compare-and-commit loop that every write goes through.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;

use super::FeatureStore;
use super::error::ServiceError;
use super::rows::Row;
use crate::domain::compiled::CompiledEntityType;
use crate::domain::draft::{Draft, FeatureEvent, NeedsHistory, Outcome, Stamp};
use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::provenance::{Kind, Provenance, ProvenanceId, RollbackNote};
use crate::domain::record::{EntityRecords, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::FeatureType;
use crate::domain::violation::{Violation, ViolationCode};
use crate::store::{CommitOutcome, Load};

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
            actor: self.actor.clone(),
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

impl FeatureStore {
    /// Writes features of one entity: all of them, or none with a list of all that is wrong.
    pub async fn write_features(
        &self,
        entity: &EntityKey,
        row: Row<'_>,
        origin: &Origin,
        precondition: Precondition,
    ) -> Result<Written, ServiceError> {
        self.check_feature_count(row.features.len())?;
        let now = self.clock.now();
        let rows = std::slice::from_ref(&row);
        let (entity_type, mut checked) = self.check_rows(&entity.entity_type, rows, now).await?;
        let events = match checked.pop() {
            Some(Ok(events)) => events,
            Some(Err(violations)) => return Err(ServiceError::ValidationFailed(violations)),
            None => return Err(ServiceError::Internal("a row went missing".to_owned())),
        };
        let provenance = origin.provenance(Kind::Write, entity_type.registered.schema_version, None);
        let stamp = Stamp { now, provenance: self.intern(&provenance, &events).await? };
        self.commit_entity(entity, &entity_type, precondition, &wanted(&entity_type, &[&events]), |draft| {
            let outcomes = draft.write(&events, &stamp)?;
            Ok(self.check_required(draft, &entity_type).map(|()| outcomes))
        })
        .await
        .map(|(version, outcomes)| {
            self.meters.wrote(&outcomes);
            Written { version, outcomes: named(events, outcomes) }
        })
    }

    /// Loads an entity without its history, unless `decide` needs it; drafts and commits, again from
    /// the start where another writer was faster. `decide` may be called several times, each time
    /// with a fresh draft.
    pub(super) async fn commit_entity<T>(
        &self,
        entity: &EntityKey,
        entity_type: &CompiledEntityType,
        precondition: Precondition,
        features: &[(FeatureName, FeatureType)],
        decide: impl Fn(&mut Draft) -> Result<Result<T, ServiceError>, NeedsHistory>,
    ) -> Result<(Version, T), ServiceError> {
        let names = names(features);
        let history = AtomicBool::new(false);
        let decide = |loaded: EntityRecords| {
            let mut draft = Draft::new(entity.clone(), &names, loaded, self.clock.now());
            match decide(&mut draft) {
                Ok(decided) => Ok(Some((draft, decided?))),
                Err(NeedsHistory(_)) if !history.swap(true, Ordering::Relaxed) => Ok(None),
                Err(NeedsHistory(missing)) => {
                    let name = entity_type.name();
                    Err(ServiceError::Internal(format!("{name}: {missing:?} were not loaded")))
                }
            }
        };
        self.commit_loop(entity, precondition, features, &history, decide).await
    }

    /// As [`Self::commit_entity`], with the history loaded from the start and shown to `decide`.
    pub(super) async fn commit_history<T>(
        &self,
        entity: &EntityKey,
        precondition: Precondition,
        features: &[(FeatureName, FeatureType)],
        decide: impl Fn(&mut Draft, &EntityRecords) -> Result<T, ServiceError>,
    ) -> Result<(Version, T), ServiceError> {
        let names = names(features);
        let decide = |loaded: EntityRecords| {
            let mut draft = Draft::new(entity.clone(), &names, loaded.clone(), self.clock.now());
            let outcome = decide(&mut draft, &loaded)?;
            Ok(Some((draft, outcome)))
        };
        self.commit_loop(entity, precondition, features, &AtomicBool::new(true), decide).await
    }

    /// `decide` answers `None` to be asked again with the history loaded, which it has then asked
    /// for through `history`.
    async fn commit_loop<T>(
        &self,
        entity: &EntityKey,
        precondition: Precondition,
        features: &[(FeatureName, FeatureType)],
        history: &AtomicBool,
        decide: impl Fn(EntityRecords) -> Result<Option<(Draft, T)>, ServiceError>,
    ) -> Result<(Version, T), ServiceError> {
        let _turn = self.locks.turn(entity).await;
        for attempt in 0..COMMIT_ATTEMPTS {
            let loaded = self.load_one(entity, features, history.load(Ordering::Relaxed)).await?;
            precondition.check(loaded.head.map_or(0, |head| head.version))?;
            let Some((draft, outcome)) = decide(loaded)? else { continue };
            let version = draft.version();
            let Some(commit) = draft.into_commit(self.settings.history_ttl) else {
                return Ok((version, outcome));
            };
            match self.store.commit(std::slice::from_ref(&commit)).await.pop() {
                Some(Ok(CommitOutcome::Committed)) => return Ok((version, outcome)),
                Some(Ok(CommitOutcome::Conflict)) => {
                    self.meters.conflict();
                    back_off(attempt).await;
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ServiceError::Internal("the store answered no commit".to_owned())),
            }
        }
        Err(ServiceError::Contention)
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
        events: &[FeatureEvent],
    ) -> Result<ProvenanceId, ServiceError> {
        let latest = latest_expiry(events.iter().map(|event| event.expires_at));
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
        self.meters.refused(&violations);
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

    pub(super) fn check_feature_count(&self, count: usize) -> Result<(), ServiceError> {
        let most = self.settings.limits.max_features;
        if count > most {
            return Err(ServiceError::TooLarge(format!(
                "{count} features in one request, at most {most} are allowed"
            )));
        }
        Ok(())
    }
}

fn names(features: &[(FeatureName, FeatureType)]) -> Vec<FeatureName> {
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

/// What must be loaded to decide these events: their features, and the required ones.
pub(super) fn wanted(
    entity_type: &CompiledEntityType,
    rows: &[&Vec<FeatureEvent>],
) -> Vec<(FeatureName, FeatureType)> {
    let mut wanted: Vec<(FeatureName, FeatureType)> =
        Vec::with_capacity(rows.iter().map(|row| row.len()).sum());
    let named = rows.iter().flat_map(|events| events.iter().map(|event| &event.feature));
    for (index, name) in named.chain(&entity_type.required).enumerate() {
        let distinct = rows.len() == 1 && index < rows[0].len();
        if (distinct || wanted.iter().all(|(other, _)| other != name))
            && let Some(feature) = entity_type.features.get(name)
        {
            wanted.push((name.clone(), feature.feature_type));
        }
    }
    wanted
}

pub(super) fn named(events: Vec<FeatureEvent>, outcomes: Vec<Outcome>) -> Vec<(FeatureName, Outcome)> {
    events.into_iter().map(|event| event.feature).zip(outcomes).collect()
}

/// Waits a little, and longer with every attempt, so that competing processes drift apart.
pub(super) async fn back_off(attempt: u32) {
    let most = 200u64 << attempt.min(7);
    let micros = rand::rng().random_range(0..=most);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}
