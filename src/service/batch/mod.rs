//! Writing many entities of one type: every row stands alone, or all are checked before any is
//! stored.

mod commit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::FeatureStore;
use super::embeddings::Lookup;
use super::error::ServiceError;
use super::rows::{CheckedRow, Row};
use super::write::{Basis, DraftedRow, Origin, Undrafted, Written, may_be_refused, names, wanted};
use crate::domain::compiled::CompiledEntityType;
use crate::domain::derive::RawInputs;
use crate::domain::draft::{Draft, FeatureEvent, Stamp};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::provenance::Kind;
use crate::domain::record::EntityRecords;
use crate::domain::value::FeatureType;
use crate::monitor;
use crate::store::Load;
use crate::trace;

/// What became of one row of a batch.
pub type RowResult = Result<Written, ServiceError>;

/// The rows of one entity, in their order, with their places in the batch.
struct Group {
    entity: EntityKey,
    rows: Vec<(usize, Vec<FeatureEvent>)>,
    shape: Arc<Shape>,
    basis: Basis,
    attempts: u32,
}

impl Group {
    fn load(&self) -> Load<'_> {
        let history = self.basis == Basis::WithHistory;
        Load { entity: &self.entity, features: &self.shape.features, history }
    }

    /// After an attempt that did not settle it; never again on what was remembered.
    fn again(mut self, basis: Basis) -> Self {
        self.basis = self.basis.max(basis);
        self.attempts += 1;
        self
    }
}

/// What must be loaded for a group: the same for most groups of a batch, and then shared, so that
/// a store sees that it is asked for the same.
#[derive(Default)]
struct Shape {
    features: Vec<(FeatureName, FeatureType)>,
    names: Vec<FeatureName>,
}

/// What a draft says of the rows of a group.
type Drafted = Vec<Result<DraftedRow, ServiceError>>;

impl FeatureStore {
    /// Writes rows of one entity type; the results are in the order of the rows. With `atomic`, one
    /// bad row refuses all of them before anything is stored.
    pub async fn write_batch(
        &self,
        entity_type: &EntityType,
        rows: Vec<Row<'_>>,
        origin: &Origin,
        atomic: bool,
    ) -> Result<Vec<RowResult>, ServiceError> {
        self.check_batch_size(rows.len())?;
        for row in &rows {
            self.check_feature_count(row.features.len())?;
        }
        self.write_rows(entity_type, rows, origin, Kind::Write, atomic).await
    }

    /// As [`Self::write_batch`], without its limits.
    pub(super) async fn write_rows(
        &self,
        entity_type: &EntityType,
        rows: Vec<Row<'_>>,
        origin: &Origin,
        kind: Kind,
        atomic: bool,
    ) -> Result<Vec<RowResult>, ServiceError> {
        let started = Instant::now();
        let span = trace::enter("service.write_batch").about(entity_type);
        span.set("feature_store.count", || i64::try_from(rows.len()).unwrap_or(i64::MAX));
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let (entity_type, checked) = match self.check_rows(entity_type, &rows, now).await {
            // Nothing could be registered, since every row is bad: each says why by itself.
            Err(ServiceError::ValidationFailed(_)) if !atomic => {
                return Ok(self.refuse_all(entity_type, rows).await);
            }
            other => other?,
        };
        // Somebody waits for a batch; nobody for a part of an import.
        let timed = || self.meters.timed(monitor::Kind::Write, started, entity_type.name());
        let _timed = (kind == Kind::Write).then(timed);
        if atomic {
            refuse_if_any(&checked)?;
        }
        let provenance = origin.provenance(kind, entity_type.registered.schema_version, None);
        let events = checked.iter().flatten().flatten();
        let stamp = Stamp { now, provenance: self.intern(&provenance, &entity_type, events).await? };
        let mut results: Vec<Option<RowResult>> = Vec::new();
        results.resize_with(rows.len(), || None);
        let groups = group(&entity_type, rows.into_iter().map(|row| row.entity_id), checked, &mut results);
        let mut embeddings = Lookup::new(&*self.embedding_provider);
        if atomic {
            self.check_drafts_of_all(&entity_type, &groups, &stamp, &mut embeddings).await?;
        }
        self.commit_groups(&entity_type, groups, &stamp, &mut embeddings, &mut results).await?;
        results
            .into_iter()
            .map(|result| result.ok_or_else(|| ServiceError::Internal("a row has no result".to_owned())))
            .collect()
    }

    async fn refuse_all(&self, entity_type: &EntityType, rows: Vec<Row<'_>>) -> Vec<RowResult> {
        let mut results = Vec::with_capacity(rows.len());
        for row in rows {
            let checked = self.check_rows(entity_type, std::slice::from_ref(&row), self.clock.now()).await;
            results.push(match checked {
                Ok(_) => Err(ServiceError::Contention),
                Err(error) => Err(error),
            });
        }
        results
    }

    pub(super) fn check_batch_size(&self, size: usize) -> Result<(), ServiceError> {
        let most = self.settings.limits.max_batch_size;
        if size > most {
            return Err(ServiceError::TooLarge(format!(
                "{size} rows or entities in one request, at most {most} are allowed"
            )));
        }
        Ok(())
    }

    /// Drafts every group once without storing anything, and lists every row that is refused.
    async fn check_drafts_of_all(
        &self,
        entity_type: &CompiledEntityType,
        groups: &[Group],
        stamp: &Stamp,
        embeddings: &mut Lookup<'_>,
    ) -> Result<(), ServiceError> {
        if !may_be_refused(entity_type) {
            return Ok(());
        }
        loop {
            let loaded = self.load_groups(groups.iter(), true).await?;
            let mut violations = Vec::new();
            let mut missing = Vec::new();
            for (group, records) in groups.iter().zip(loaded) {
                match self.draft_group(entity_type, group, records, embeddings, stamp) {
                    Ok((_, drafted)) => {
                        for ((row, _), result) in group.rows.iter().zip(drafted) {
                            match result {
                                Ok(_) => {}
                                Err(ServiceError::ValidationFailed(wrong)) => {
                                    violations.extend(wrong.into_iter().map(|mut violation| {
                                        violation.row = Some(*row as u64);
                                        violation
                                    }));
                                }
                                Err(error) => return Err(error),
                            }
                        }
                    }
                    Err(Undrafted::NeedsEmbeddings(requests)) => missing.extend(requests),
                    Err(Undrafted::Refused(error)) => return Err(error),
                    Err(Undrafted::NeedsHistory) => {
                        return Err(ServiceError::Internal("the history was not loaded".to_owned()));
                    }
                }
            }
            if !missing.is_empty() {
                embeddings.fetch(missing).await;
                continue;
            }
            return if violations.is_empty() {
                Ok(())
            } else {
                Err(ServiceError::ValidationFailed(violations))
            };
        }
    }

    async fn load_groups(
        &self,
        groups: impl Iterator<Item = &Group>,
        history: bool,
    ) -> Result<Vec<EntityRecords>, ServiceError> {
        let loads: Vec<Load<'_>> = groups
            .map(|group| group.load())
            .map(|load| Load { history: history || load.history, ..load })
            .collect();
        if loads.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.store.load(&loads).await?)
    }

    fn draft_group(
        &self,
        entity_type: &CompiledEntityType,
        group: &Group,
        loaded: EntityRecords,
        embeddings: &Lookup<'_>,
        stamp: &Stamp,
    ) -> Result<(Draft, Drafted), Undrafted> {
        let mut draft = Draft::new(group.entity.clone(), &group.shape.names, loaded, stamp.now);
        let mut results = Vec::with_capacity(group.rows.len());
        let may_be_refused = may_be_refused(entity_type);
        let mut missing = Vec::new();
        for (_, events) in &group.rows {
            // A row that is refused half-way must not leave its half behind.
            let before = may_be_refused.then(|| draft.clone());
            match self.draft_row(&mut draft, entity_type, events, &RawInputs::default(), embeddings, stamp) {
                Ok(row) => results.push(Ok(row)),
                Err(Undrafted::Refused(error)) => {
                    results.push(Err(error));
                    if let Some(before) = before {
                        draft = before;
                    }
                }
                // What the rows after it need is fetched with it.
                Err(Undrafted::NeedsEmbeddings(requests)) => missing.extend(requests),
                Err(Undrafted::NeedsHistory) => return Err(Undrafted::NeedsHistory),
            }
        }
        if missing.is_empty() { Ok((draft, results)) } else { Err(Undrafted::NeedsEmbeddings(missing)) }
    }
}

fn refuse_if_any(checked: &[CheckedRow]) -> Result<(), ServiceError> {
    let mut violations = Vec::new();
    for (row, wrong) in checked.iter().enumerate() {
        for violation in wrong.as_ref().err().into_iter().flatten() {
            violations
                .push(crate::domain::violation::Violation { row: Some(row as u64), ..violation.clone() });
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(ServiceError::ValidationFailed(violations)) }
}

/// Puts the rows of each entity together; rows that were refused get their result at once.
fn group(
    entity_type: &CompiledEntityType,
    ids: impl Iterator<Item = EntityId>,
    checked: Vec<CheckedRow>,
    results: &mut [Option<RowResult>],
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(checked.len());
    let mut shape = Arc::<Shape>::default();
    let mut places: HashMap<EntityId, usize> = HashMap::with_capacity(checked.len());
    for (row, (entity_id, checked)) in ids.zip(checked).enumerate() {
        match checked {
            Err(violations) => results[row] = Some(Err(ServiceError::ValidationFailed(violations))),
            Ok(events) => match places.get(&entity_id) {
                Some(place) => groups[*place].rows.push((row, events)),
                None => {
                    places.insert(entity_id.clone(), groups.len());
                    groups.push(Group {
                        entity: EntityKey::new(entity_type.name().clone(), entity_id),
                        rows: vec![(row, events)],
                        shape: shape.clone(),
                        basis: Basis::of(entity_type),
                        attempts: 0,
                    });
                }
            },
        }
    }
    // Of the last group that the shape was made for: its one row.
    let mut like: Option<usize> = None;
    for index in 0..groups.len() {
        let group = &groups[index];
        let is_like = like.is_some_and(|like| name_the_same(&groups[like], group));
        if !is_like {
            let rows: Vec<&Vec<FeatureEvent>> = group.rows.iter().map(|(_, events)| events).collect();
            let features = wanted(entity_type, &rows, false);
            if features != shape.features {
                shape = Arc::new(Shape { names: names(&features), features });
            }
            like = Some(index);
        }
        groups[index].shape = shape.clone();
    }
    groups
}

/// Whether both have one row each, of the same features in the same order.
fn name_the_same(a: &Group, b: &Group) -> bool {
    match (a.rows.as_slice(), b.rows.as_slice()) {
        ([(_, a)], [(_, b)]) => a.iter().map(|event| &event.feature).eq(b.iter().map(|event| &event.feature)),
        _ => false,
    }
}
