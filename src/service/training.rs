//! Training sets: a table of entities and times, and beside each row the features as they were then.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{Field, Schema, SchemaRef};
use arrow_select::take::take;
use indexmap::IndexMap;

use super::FeatureStore;
use super::answer::EntityAnswer;
use super::columns::{Columns, Request};
use super::error::ServiceError;
use super::frame::{Beside, FeatureColumns, width};
use super::selection::{BatchSelection, Selection};
use super::spine::Spine;
use crate::domain::compiled::CompiledFeature;
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureRef};
use crate::domain::record::{EntityRecords, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::value::Value;
use crate::domain::view::{self, Answer, Retracted, Status};
use crate::domain::violation::Violation;
use crate::store::Load;
use crate::trace;

/// Histories are loaded so many bytes and so many entities at a time.
const PAGE_BYTES: usize = 16 << 20;
const PAGE_ENTITIES: usize = 1000;
/// The different values of one training set have at most so many bytes.
const MAX_VALUE_BYTES: usize = 256 << 20;
/// What is put together at a time has about so many bytes and rows at most.
const PART_BYTES: usize = 16 << 20;
const PART_ROWS: usize = 8192;

/// What to join.
#[derive(Clone, Debug)]
pub struct TrainingRequest {
    pub spine: RecordBatch,
    /// Which column holds the ids of an entity type; `product_id` for `product`, if not given.
    pub entity_columns: IndexMap<EntityType, String>,
    pub timestamp_column: String,
    pub features: BatchSelection,
    /// Goes before the schema's.
    pub max_age: Option<Span>,
    /// Whether the past is told with what was retracted.
    pub retracted: Retracted,
    pub beside: Beside,
}

/// A spine with features beside it. Values that several rows share are kept once.
pub struct TrainingSet {
    spine: RecordBatch,
    schema: SchemaRef,
    joined: Vec<Joined>,
    part_rows: usize,
}

/// The columns of one feature.
struct Joined {
    /// The different answers.
    columns: Vec<ArrayRef>,
    /// Which answer each row has.
    rows: UInt32Array,
}

impl FeatureStore {
    /// Joins features to a spine: each as it was true at the row's time, never of a later event.
    pub async fn training_set(&self, request: TrainingRequest) -> Result<TrainingSet, ServiceError> {
        let _span = trace::enter("service.training_set");
        let wanted = self.wanted_features(&request).await?;
        let mut by_type: IndexMap<&EntityType, Vec<String>> = IndexMap::new();
        for feature in &wanted {
            by_type.entry(&feature.entity_type).or_default().push(feature.feature.to_string());
        }
        if let Some(unused) = request.entity_columns.keys().find(|of| !by_type.contains_key(of)) {
            let message = format!("entity_columns: none of the features belongs to the entity type {unused}");
            return Err(ServiceError::InvalidRequest(message));
        }
        let spine = Spine::new(&request)?;
        let mut found: IndexMap<FeatureRef, (Vec<Field>, Joined)> = IndexMap::new();
        let mut left = MAX_VALUE_BYTES;
        let mut largest = 0;
        for (entity_type, names) in by_type {
            let columns = self.columns(entity_type, &Selection::Names(names)).await?;
            let named = request.entity_columns.get(entity_type).cloned();
            let ids = spine.entity_ids(&named.unwrap_or_else(|| format!("{entity_type}_id")))?;
            let mut join = Join::new(columns, &request, spine.times.len(), left);
            self.join(&mut join, &spine, ids).await?;
            (left, largest) = (join.left, largest + join.largest_of.iter().sum::<usize>());
            found.extend(join.finish(entity_type));
        }
        let mut fields: Vec<Arc<Field>> = request.spine.schema().fields().iter().cloned().collect();
        let mut joined = Vec::with_capacity(wanted.len());
        for feature in wanted {
            if let Some((of_feature, column)) = found.swap_remove(&feature) {
                fields.extend(of_feature.into_iter().map(Arc::new));
                joined.push(column);
            }
        }
        check_names(&fields)?;
        let schema = Schema::new_with_metadata(fields, request.spine.schema().metadata().clone());
        let part_rows = (PART_BYTES / largest.max(1)).clamp(1, PART_ROWS);
        Ok(TrainingSet { spine: request.spine, schema: Arc::new(schema), joined, part_rows })
    }

    /// The features asked for, in that order, each once.
    async fn wanted_features(&self, request: &TrainingRequest) -> Result<Vec<FeatureRef>, ServiceError> {
        let all = match &request.features {
            BatchSelection::FeatureService(reference) => self.service_features(reference).await?,
            BatchSelection::Names(names) => {
                let only = request.entity_columns.keys().next().filter(|_| request.entity_columns.len() == 1);
                let parse = |name: &String| {
                    let parsed = match (name.contains('.'), only) {
                        (false, Some(entity_type)) => FeatureRef::parse(&format!("{entity_type}.{name}")),
                        _ => FeatureRef::parse(name),
                    };
                    parsed.map_err(|error| ServiceError::InvalidRequest(format!("features: {error}")))
                };
                names.iter().map(parse).collect::<Result<_, _>>()?
            }
        };
        if all.is_empty() {
            let message = "features: name at least one feature, or a feature_service";
            return Err(ServiceError::InvalidRequest(message.to_owned()));
        }
        self.check_feature_count(all.len())?;
        Ok(indexmap::IndexSet::<FeatureRef>::from_iter(all).into_iter().collect())
    }

    /// Answers the rows of one entity type, having loaded each of its entities once.
    async fn join(
        &self,
        join: &mut Join,
        spine: &Spine<'_>,
        ids: Vec<Option<EntityId>>,
    ) -> Result<(), ServiceError> {
        let context = spine.context_of(&join.columns)?;
        let mut rows_of: IndexMap<EntityId, Vec<usize>> = IndexMap::new();
        for (row, id) in ids.into_iter().enumerate() {
            if let Some(id) = id {
                rows_of.entry(id).or_default().push(row);
            }
        }
        let of_feature =
            |feature: &CompiledFeature| width(feature.feature_type) * (feature.history_limit + 1);
        let bytes: usize = join.columns.field_features().map(of_feature).sum();
        let page = (PAGE_BYTES / bytes.max(1)).clamp(1, PAGE_ENTITIES);
        let mut entities = rows_of.into_iter();
        loop {
            let entities: Vec<_> = entities.by_ref().take(page).collect();
            if entities.is_empty() {
                return Ok(());
            }
            let entity_type = join.columns.entity_type.name();
            let keys: Vec<EntityKey> =
                entities.iter().map(|(id, _)| EntityKey::new(entity_type.clone(), id.clone())).collect();
            let features = join.columns.fields();
            let loads: Vec<Load<'_>> =
                keys.iter().map(|entity| Load { entity, features, history: true }).collect();
            let loaded = self.store.load(&loads).await?;
            for ((entity_id, mut rows), records) in entities.into_iter().zip(loaded) {
                let Some(head) = records.head else { continue };
                rows.sort_unstable_by_key(|row| spine.times[*row]);
                if !join.columns.is_computed_on_read() {
                    join.stored(&records, &rows, &spine.times)?;
                } else {
                    let mut answers: Vec<EntityAnswer> = Vec::with_capacity(rows.len());
                    let mut requests = Vec::with_capacity(rows.len());
                    for row in &rows {
                        let at = spine.times[*row];
                        let answer = join.as_of(&records, at).collect();
                        answers.push(EntityAnswer {
                            entity_id: entity_id.clone(),
                            version: head.version,
                            answers: answer,
                        });
                        let context = join.columns.typed(context.of_row(*row)?).map_err(|wrong| {
                            let of_row = |violation| Violation { row: Some(*row as u64), ..violation };
                            ServiceError::ValidationFailed(wrong.into_iter().map(of_row).collect())
                        })?;
                        requests.push(Request { context, now: Value::Timestamp(at) });
                    }
                    self.compute_on_read(&join.columns, &mut answers, &|index| &requests[index]).await?;
                    join.computed(&answers, &rows)?;
                }
                // An entity may have very many rows: let others have their turn.
                tokio::task::consume_budget().await;
            }
        }
    }
}

fn check_names(fields: &[Arc<Field>]) -> Result<(), ServiceError> {
    let mut names = std::collections::HashSet::new();
    match fields.iter().find(|field| !names.insert(field.name())) {
        None => Ok(()),
        Some(twice) => Err(ServiceError::InvalidRequest(format!(
            "the spine has a column {:?}, as a feature's column would be named: rename it",
            twice.name()
        ))),
    }
}

/// The join of one entity type while it is made.
struct Join {
    columns: Arc<Columns>,
    max_age: Option<Span>,
    retracted: Retracted,
    /// The different answers, per feature. The first is that there is nothing.
    answers: Vec<FeatureColumns>,
    /// Per feature, which answer each row has.
    rows: Vec<Vec<u32>>,
    /// Bytes that values may still take.
    left: usize,
    /// Bytes of the largest value of each feature.
    largest_of: Vec<usize>,
}

/// What tells the answers of two rows of an entity apart.
type Same = (Status, Option<(Timestamp, Version)>);

impl Join {
    fn new(columns: Arc<Columns>, request: &TrainingRequest, rows: usize, left: usize) -> Self {
        let entity_type = columns.entity_type.name();
        let answers = columns.features().map(|feature| {
            let name = format!("{entity_type}.{}", feature.name);
            FeatureColumns::new(name, feature.feature_type, request.beside)
        });
        let answers: Vec<FeatureColumns> = answers.collect();
        let rows = vec![vec![0; rows]; answers.len()];
        let largest_of = vec![8; answers.len()];
        let mut join = Self {
            columns,
            max_age: request.max_age,
            retracted: request.retracted,
            answers,
            rows,
            left,
            largest_of,
        };
        let nothing = Answer::not_found();
        // Null fits every column.
        join.answers.iter_mut().for_each(|column| {
            let _ = column.push(&nothing);
        });
        join
    }

    fn as_of<'a>(&'a self, records: &'a EntityRecords, at: Timestamp) -> impl Iterator<Item = Answer> + 'a {
        let features = self.columns.field_features().zip(&records.features);
        features
            .map(move |(feature, records)| view::as_of(feature, records, at, self.max_age, self.retracted))
    }

    /// Answers rows of one entity, in the order of their times, from what is stored.
    fn stored(
        &mut self,
        records: &EntityRecords,
        rows: &[usize],
        times: &[Timestamp],
    ) -> Result<(), ServiceError> {
        let mut last: Vec<Option<(Same, u32)>> = vec![None; self.answers.len()];
        for row in rows {
            let answers: Vec<Answer> = self.as_of(records, times[*row]).collect();
            for (column, answer) in answers.iter().enumerate() {
                let same: Same = (answer.status, answer.record.as_ref().map(|record| record.order()));
                let at = match last[column] {
                    Some((before, at)) if before == same => at,
                    _ => self.push(column, answer)?,
                };
                last[column] = Some((same, at));
                self.rows[column][*row] = at;
            }
        }
        Ok(())
    }

    /// Takes over answers of which each was computed for its row.
    fn computed(&mut self, entities: &[EntityAnswer], rows: &[usize]) -> Result<(), ServiceError> {
        for (entity, row) in entities.iter().zip(rows) {
            for (column, answer) in entity.answers.iter().enumerate() {
                self.rows[column][*row] = self.push(column, answer)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, column: usize, answer: &Answer) -> Result<u32, ServiceError> {
        let bytes = 8 + match &answer.value {
            Value::String(text) | Value::Json(text) => text.len(),
            Value::Embedding(numbers) => 4 * numbers.len(),
            _ => 0,
        };
        self.largest_of[column] = self.largest_of[column].max(bytes);
        let at = u32::try_from(self.answers[column].count()).ok();
        match (self.left.checked_sub(bytes), at) {
            (Some(left), Some(at)) => {
                self.left = left;
                self.answers[column].push(answer)?;
                Ok(at)
            }
            _ => Err(ServiceError::TooLarge(format!(
                "the values of this training set have more than {} MiB: ask for it in parts, or for fewer features",
                MAX_VALUE_BYTES >> 20
            ))),
        }
    }

    fn finish(mut self, entity_type: &EntityType) -> Vec<(FeatureRef, (Vec<Field>, Joined))> {
        let names: Vec<_> = self.columns.names().cloned().collect();
        let of_feature = names.into_iter().zip(&mut self.answers).zip(self.rows);
        let joined = of_feature.map(|((feature, answers), rows)| {
            let fields = answers.fields();
            let joined = Joined { columns: answers.finish(), rows: UInt32Array::from(rows) };
            (FeatureRef { entity_type: entity_type.clone(), feature }, (fields, joined))
        });
        joined.collect()
    }
}

impl TrainingSet {
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows in parts of a moderate size, in their order.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, part) = (self.spine.num_rows(), self.part_rows);
        (0..rows).step_by(part).map(move |start| start..rows.min(start + part))
    }

    /// Some rows, with all columns.
    pub fn batch(&self, rows: Range<usize>) -> Result<RecordBatch, ServiceError> {
        let columns = (0..self.schema.fields().len()).map(|column| self.column(column, rows.clone()));
        let columns = columns.collect::<Result<_, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(internal)
    }

    /// Some rows of one column, by its place in the schema.
    pub fn column(&self, column: usize, rows: Range<usize>) -> Result<ArrayRef, ServiceError> {
        if let Some(array) = self.spine.columns().get(column) {
            return Ok(array.slice(rows.start, rows.len()));
        }
        let mut columns =
            self.joined.iter().flat_map(|joined| joined.columns.iter().map(|array| (array, &joined.rows)));
        match columns.nth(column - self.spine.num_columns()) {
            Some((answers, of_row)) => {
                take(answers, &of_row.slice(rows.start, rows.len()), None).map_err(internal)
            }
            None => Err(ServiceError::Internal("there is no such column".to_owned())),
        }
    }
}

fn internal(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::Internal(error.to_string())
}
