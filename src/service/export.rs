//! Exports: the features of many entities as a table, batch by batch. What is in memory at a time
//! does not depend on how many entities there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::FeatureStore;
use super::answer::{EntityAnswer, TypeAnswer, answer_fields};
use super::columns::{Columns, Request};
use super::error::ServiceError;
use super::frame::{Beside, FeatureColumns, width};
use super::read::{ReadOptions, When};
use super::selection::Selection;
use super::walk::Walk;
use crate::domain::name::{EntityId, EntityKey, EntityType};
use crate::domain::record::{EntityRecords, FeatureRecords, Record, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::value::{FeatureType, Value};
use crate::domain::view::{self, Answer, Retracted};
use crate::store::Load;
use crate::table::columns::{ColumnBuilder, field};

/// What is loaded and written at a time is kept to about so many bytes and so many entities.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_ENTITIES: usize = 1000;

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    pub entity_type: EntityType,
    /// `None`: all of them.
    pub entity_ids: Option<Vec<EntityId>>,
    pub selection: Selection,
    /// `None`: what is served now.
    pub as_of: Option<Timestamp>,
    /// Goes before the schema's.
    pub max_age: Option<Span>,
    /// Whether the past is told with what was retracted.
    pub retracted: Retracted,
    /// A row for every version that is kept instead of one for every entity.
    pub history: bool,
    pub beside: Beside,
    /// Rows in the order of entity ids.
    pub ordered: bool,
}

/// A table that is made batch by batch.
pub trait Batches: Send + 'static {
    fn schema(&self) -> &SchemaRef;

    /// The next rows; none at the end. A batch may be empty.
    fn next(&mut self) -> impl Future<Output = Result<Option<RecordBatch>, ServiceError>> + Send;
}

/// An export that is under way.
pub struct Export {
    store: Arc<FeatureStore>,
    columns: Arc<Columns>,
    walk: Walk,
    options: ReadOptions,
    schema: SchemaRef,
    rows: Rows,
    page: usize,
}

impl FeatureStore {
    /// Begins an export: everything that can be wrong with it is found before its first row.
    pub async fn export(self: &Arc<Self>, request: ExportRequest) -> Result<Export, ServiceError> {
        let mut columns = self.columns(&request.entity_type, &request.selection).await?;
        if request.history {
            if request.max_age.is_some() {
                let text = "history tells every version, however old: leave max_age out";
                return Err(ServiceError::InvalidRequest(text.to_owned()));
            }
            columns = with_history(&columns, &request.selection)?;
        }
        let walk = match request.entity_ids {
            Some(ids) => Walk::named(ids, request.ordered),
            None => Walk::all(request.ordered),
        };
        let rows = Rows::new(&columns, request.history, request.beside);
        let schema = Arc::new(Schema::new(rows.fields()));
        let options = ReadOptions {
            when: request.as_of.map_or(When::Now, When::AsOf),
            retracted: request.retracted,
            max_age: request.max_age,
            metadata: false,
            context: Vec::new(),
            no_cache: true,
            request_id: None,
        };
        let past = request.history || request.as_of.is_some();
        let of_feature = |feature: &crate::domain::compiled::CompiledFeature| {
            let versions = if past { feature.history_limit + 1 } else { 1 };
            width(feature.feature_type) * versions
        };
        let bytes: usize = columns.field_features().map(of_feature).sum();
        let page = (PAGE_BYTES / bytes.max(1)).clamp(1, PAGE_ENTITIES);
        let mut export = Export { store: self.clone(), columns, walk, options, schema, rows, page };
        let entity_type = export.columns.entity_type.name();
        export.walk.begin(self.store.as_ref(), entity_type).await?;
        Ok(export)
    }
}

/// What a read answered of the entities of one type, as a table.
pub fn table(read: &TypeAnswer, beside: Beside) -> Result<RecordBatch, ServiceError> {
    let mut rows = Rows::new(&read.columns, false, beside);
    let schema = Arc::new(Schema::new(rows.fields()));
    for entity in read.judged().iter() {
        rows.push(&entity.entity_id, None, &entity.answers)?;
    }
    RecordBatch::try_new(schema, rows.finish()).map_err(|error| ServiceError::Internal(error.to_string()))
}

/// Features that are computed when they are read have no history to export.
fn with_history(columns: &Columns, selection: &Selection) -> Result<Arc<Columns>, ServiceError> {
    let asked = columns.names().len();
    let entity_type = columns.entity_type.name().clone();
    let kept = columns.kept_only();
    if kept.names().len() == asked || (*selection == Selection::All && asked > 0) {
        return Ok(Arc::new(kept));
    }
    Err(ServiceError::InvalidRequest(format!(
        "some of these features of {entity_type} are computed when they are read and have no history: leave them out, or export without history"
    )))
}

impl Batches for Export {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, ServiceError> {
        let entity_type = self.columns.entity_type.name().clone();
        let ids = self.walk.next(self.store.store.as_ref(), &entity_type, self.page).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let keys: Vec<EntityKey> =
            ids.into_iter().map(|id| EntityKey::new(entity_type.clone(), id)).collect();
        let history = self.rows.history.is_some() || self.options.when != When::Now;
        let features = self.columns.fields();
        let loads: Vec<Load<'_>> = keys.iter().map(|entity| Load { entity, features, history }).collect();
        let loaded = self.store.store.load(&loads).await?;
        let now = self.store.now();
        // An entity that is not there (any more) has no row.
        let there = keys.into_iter().zip(loaded).filter(|(_, records)| records.head.is_some());
        if self.rows.history.is_some() {
            for (entity, records) in there {
                self.push_versions(&entity.entity_id, &records)?;
            }
        } else {
            let answers = there.map(|(entity, records)| {
                answer_fields(&self.columns, entity.entity_id, records, &self.options, now)
            });
            let mut entities = answers.collect::<Result<Vec<EntityAnswer>, _>>()?;
            if self.columns.is_computed_on_read() {
                let now = self.options.when.moment(now);
                let request = Request { context: Vec::new(), now: Value::Timestamp(now) };
                self.store.compute_on_read(&self.columns, &mut entities, &|_| &request).await?;
            }
            for entity in &entities {
                self.rows.push(&entity.entity_id, None, &entity.answers)?;
            }
        }
        let batch = RecordBatch::try_new(self.schema.clone(), self.rows.finish());
        batch.map(Some).map_err(|error| ServiceError::Internal(error.to_string()))
    }
}

impl Export {
    /// The versions of an entity: what was known with each of them of the time of its event.
    fn push_versions(&mut self, entity_id: &EntityId, records: &EntityRecords) -> Result<(), ServiceError> {
        let until = match self.options.when {
            When::AsOf(at) => at,
            When::Now | When::Version(_) => Timestamp::MAX,
        };
        let mut todo: Vec<(usize, &Record)> = records
            .features
            .iter()
            .enumerate()
            .flat_map(|(feature, records)| {
                records.newest_first().map(move |record| (feature, records, record))
            })
            .filter(|(_, records, record)| view::is_seen(records, record, self.options.retracted))
            .map(|(feature, _, record)| (feature, record))
            .collect();
        todo.sort_unstable_by_key(|(_, record)| record.version);
        let mut known =
            vec![FeatureRecords { current: None, history: Some(Vec::new()) }; records.features.len()];
        let mut rows: Vec<(Moment, Vec<Answer>)> = Vec::new();
        for written_together in todo.chunk_by(|(_, a), (_, b)| a.version == b.version) {
            let mut moments = BTreeSet::new();
            for (feature, record) in written_together {
                // Which of them are told was decided above.
                let told = Record { retraction: None, ..(*record).clone() };
                known[*feature].history.get_or_insert_default().push(told);
                if record.event_timestamp <= until {
                    moments.insert(Moment::of(record));
                }
            }
            for moment in moments {
                let at = moment.event_timestamp;
                let features = self.columns.field_features().zip(&known);
                let answers = features.map(|(feature, records)| {
                    view::as_of(feature, records, at, self.options.max_age, Retracted::Hidden)
                });
                rows.push((moment, answers.collect()));
            }
        }
        rows.sort_by_key(|(moment, _)| *moment);
        rows.iter().try_for_each(|(moment, answers)| self.rows.push(entity_id, Some(*moment), answers))
    }
}

/// A version and when it was true. One version may hold values of several times: a computed value is
/// as old as the newest of its inputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    event_timestamp: Timestamp,
    version: Version,
    written_at: Timestamp,
}

impl Moment {
    fn of(record: &Record) -> Self {
        Self {
            event_timestamp: record.event_timestamp,
            version: record.version,
            written_at: record.written_at,
        }
    }
}

/// The rows of the next batch, column by column.
struct Rows {
    entity_ids: StringBuilder,
    history: Option<HistoryColumns>,
    features: Vec<FeatureColumns>,
}

struct HistoryColumns {
    event_timestamps: ColumnBuilder,
    written_at: ColumnBuilder,
    versions: ColumnBuilder,
}

const ENTITY_ID: &str = "entity_id";
const OF_HISTORY: [(&str, FeatureType); 3] = [
    ("event_timestamp", FeatureType::Timestamp),
    ("written_at", FeatureType::Timestamp),
    ("version", FeatureType::Int64),
];

impl Rows {
    fn new(columns: &Columns, history: bool, beside: Beside) -> Self {
        let taken = |name: &str| {
            name == ENTITY_ID || (history && OF_HISTORY.iter().any(|(column, _)| *column == name))
        };
        let entity_type = columns.entity_type.name();
        let features = columns.features().map(|feature| {
            let name = match taken(feature.name.as_str()) {
                // A feature of such a name is told apart by its entity type.
                true => format!("{entity_type}.{}", feature.name),
                false => feature.name.to_string(),
            };
            FeatureColumns::new(name, feature.feature_type, beside)
        });
        let [event_timestamps, written_at, versions] =
            OF_HISTORY.map(|(_, of_type)| ColumnBuilder::new(of_type));
        Self {
            entity_ids: StringBuilder::new(),
            history: history.then_some(HistoryColumns { event_timestamps, written_at, versions }),
            features: features.collect(),
        }
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields = vec![Field::new(ENTITY_ID, DataType::Utf8, false)];
        if self.history.is_some() {
            fields.extend(OF_HISTORY.map(|(name, of_type)| field(name, of_type)));
        }
        fields.extend(self.features.iter().flat_map(FeatureColumns::fields));
        fields
    }

    fn push(
        &mut self,
        entity_id: &EntityId,
        moment: Option<Moment>,
        answers: &[Answer],
    ) -> Result<(), ServiceError> {
        self.entity_ids.append_value(entity_id.as_str());
        if let (Some(history), Some(moment)) = (&mut self.history, moment) {
            let version = i64::try_from(moment.version).unwrap_or(i64::MAX);
            let pushed = history
                .event_timestamps
                .push(&Value::Timestamp(moment.event_timestamp))
                .and_then(|()| history.written_at.push(&Value::Timestamp(moment.written_at)))
                .and_then(|()| history.versions.push(&Value::Int64(version)));
            pushed.map_err(|misfit| ServiceError::Internal(misfit.to_string()))?;
        }
        self.features.iter_mut().zip(answers).try_for_each(|(column, answer)| column.push(answer))
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.entity_ids.finish())];
        if let Some(history) = &mut self.history {
            columns.push(history.event_timestamps.finish());
            columns.push(history.written_at.finish());
            columns.push(history.versions.finish());
        }
        columns.extend(self.features.iter_mut().flat_map(FeatureColumns::finish));
        columns
    }
}
