//! Commits the groups of a batch, together as far as other writers let it.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::{Drafted, Group, RowResult};
use crate::domain::compiled::SharedEntityType;
use crate::domain::derive::EmbeddingRequest;
use crate::domain::draft::Stamp;
use crate::domain::record::{Commit, EntityRecords};
use crate::service::FeatureStore;
use crate::service::embeddings::Lookup;
use crate::service::error::ServiceError;
use crate::service::write::{Basis, Precondition, Undrafted, back_off};
use crate::store::CommitOutcome;

/// So often an entity is tried together with others before it is taken by itself. The first repetitions may
/// be for want of history, or since what was remembered is not so any more.
const ATTEMPTS_TOGETHER: u32 = 4;
/// So long a batch takes turns with others at what they share. Later it tries all that is left at once.
const PATIENCE: Duration = Duration::from_millis(100);

/// What an attempt leaves to be done.
#[derive(Default)]
struct Left {
    /// Groups that are not settled.
    again: Vec<Group>,
    /// What has to be fetched for them first.
    missing: Vec<EmbeddingRequest>,
}

impl FeatureStore {
    /// Two round trips for all groups together, unless other writes of this process are at some of their
    /// entities: those come after these. What another process overtook goes again.
    pub(super) async fn commit_groups(
        &self,
        entity_type: &SharedEntityType,
        mut groups: Vec<Group>,
        stamp: &Stamp,
        embeddings: &mut Lookup<'_>,
        results: &mut [Option<RowResult>],
    ) -> Result<(), ServiceError> {
        let deadline = Instant::now() + PATIENCE;
        while !groups.is_empty() {
            let began = Instant::now();
            let turns = if began < deadline {
                let turns = self.locks.turns(groups.iter().map(|group| &group.entity));
                timeout_at(deadline.into(), turns).await.ok().flatten()
            } else {
                None
            };
            let mut later = Vec::new();
            if let Some(turns) = &turns {
                let mut turns = turns.iter().map(Option::is_some);
                later = groups.extract_if(.., |_| turns.next() == Some(false)).collect();
            }
            // Some groups begin when others are under way: how often one was fetched for is counted when it
            // is alone.
            embeddings.begin();
            let Left { again, missing } =
                self.commit_together(entity_type, groups, stamp, embeddings, results).await?;
            drop(turns);
            self.locks.took(began.elapsed());
            if !missing.is_empty() {
                embeddings.fetch(missing).await;
            }
            for group in again {
                if group.attempts < ATTEMPTS_TOGETHER {
                    later.push(group);
                } else {
                    self.commit_alone(entity_type, group, stamp, results).await;
                }
            }
            groups = later;
        }
        Ok(())
    }

    /// One attempt to commit groups.
    async fn commit_together(
        &self,
        entity_type: &SharedEntityType,
        groups: Vec<Group>,
        stamp: &Stamp,
        embeddings: &Lookup<'_>,
        results: &mut [Option<RowResult>],
    ) -> Result<Left, ServiceError> {
        let recall = |group: &Group| match group.basis {
            Basis::Recalled => self.store.recall(&group.load()),
            Basis::Loaded | Basis::WithHistory => None,
        };
        let recalled: Vec<Option<EntityRecords>> = groups.iter().map(recall).collect();
        let unknown = groups.iter().zip(&recalled).filter(|(_, recalled)| recalled.is_none());
        let loaded = match self.load_groups(unknown.map(|(group, _)| group), false).await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.refuse(entity_type, groups, error, results)?;
                return Ok(Left::default());
            }
        };
        let mut loaded = loaded.into_iter();
        let mut commits: Vec<Commit> = Vec::with_capacity(groups.len());
        let mut drafted: Vec<(Group, Drafted)> = Vec::with_capacity(groups.len());
        let mut again: Vec<Group> = Vec::new();
        let mut missing: Vec<EmbeddingRequest> = Vec::new();
        for (group, recalled) in groups.into_iter().zip(recalled) {
            let is_recalled = recalled.is_some();
            let Some(records) = recalled.or_else(|| loaded.next()) else {
                return Err(ServiceError::Internal("the store answered no load".to_owned()));
            };
            match self.draft_group(entity_type, &group, records, embeddings, stamp) {
                Ok((draft, outcomes)) => match draft.into_commit(self.settings.history_ttl) {
                    Some(commit) => {
                        commits.push(commit);
                        drafted.push((group, outcomes));
                    }
                    // Unchanged, if it is still what it was.
                    None if is_recalled => again.push(group.again(Basis::Loaded)),
                    None => self.settle(entity_type, group, outcomes, results),
                },
                Err(Undrafted::NeedsHistory) => again.push(group.again(Basis::WithHistory)),
                Err(Undrafted::NeedsEmbeddings(requests)) => {
                    missing.extend(requests);
                    again.push(group.again(Basis::Loaded));
                }
                Err(Undrafted::Refused(error)) => {
                    self.settle_as(entity_type, group, &error, results);
                }
            }
        }
        let mut overtaken = None;
        let committed = if commits.is_empty() { Vec::new() } else { self.store.commit(&commits).await };
        for ((group, outcomes), committed) in drafted.into_iter().zip(committed) {
            match committed {
                Ok(CommitOutcome::Committed) => self.settle(entity_type, group, outcomes, results),
                Ok(CommitOutcome::Conflict) => {
                    self.meters.conflict();
                    overtaken = overtaken.max(Some(group.attempts));
                    again.push(group.again(Basis::Loaded));
                }
                Err(error) => {
                    self.settle_as(entity_type, group, &error.into(), results);
                }
            }
        }
        if let Some(attempt) = overtaken {
            back_off(attempt).await;
        }
        Ok(Left { again, missing })
    }

    /// As single writes are committed.
    async fn commit_alone(
        &self,
        entity_type: &SharedEntityType,
        group: Group,
        stamp: &Stamp,
        results: &mut [Option<RowResult>],
    ) {
        let features = &group.shape.features;
        let committed = self
            .commit_loop(&group.entity, Precondition::None, features, group.basis, |loaded, embeddings| {
                self.draft_group(entity_type, &group, loaded, embeddings, stamp)
            })
            .await;
        match committed {
            Ok(outcomes) => self.settle(entity_type, group, outcomes, results),
            Err(error) => self.settle_as(entity_type, group, &error, results),
        }
    }

    /// Groups that cannot be committed. Where rows of the batch are stored already, each of the others says
    /// that it is not; else the error is the answer to the batch.
    fn refuse(
        &self,
        entity_type: &SharedEntityType,
        groups: Vec<Group>,
        error: ServiceError,
        results: &mut [Option<RowResult>],
    ) -> Result<(), ServiceError> {
        if !results.iter().flatten().any(Result::is_ok) {
            return Err(error);
        }
        for group in groups {
            self.settle_as(entity_type, group, &error, results);
        }
        Ok(())
    }

    /// All rows of a group failed alike.
    fn settle_as(
        &self,
        entity_type: &SharedEntityType,
        group: Group,
        error: &ServiceError,
        results: &mut [Option<RowResult>],
    ) {
        let outcomes = group.rows.iter().map(|_| Err(error.clone())).collect();
        self.settle(entity_type, group, outcomes, results);
    }

    fn settle(
        &self,
        entity_type: &SharedEntityType,
        group: Group,
        outcomes: Drafted,
        results: &mut [Option<RowResult>],
    ) {
        let now = self.clock.now();
        for ((row, events), outcome) in group.rows.into_iter().zip(outcomes) {
            results[row] = Some(outcome.map(|row| {
                let event = events.iter().find_map(|event| event.event_timestamp).unwrap_or(now);
                let written = row.into_written(events);
                self.meters.wrote(entity_type, &written.outcomes, Some(event), now);
                written
            }));
        }
    }
}
