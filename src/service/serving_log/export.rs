//! The log of a feature service as a table: a row for everything that a model was asked about.
//!
//! A request of one entity is a row. In a request of several types, a type with one entity goes with
//! every row, and types with as many entities as each other go together in their order. Where neither
//! is so, nobody can know which goes with which: each entity has a row of its own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::entry::{EntryOfEntity, Kept, Served};
use crate::domain::given::Given;
use crate::domain::name::{EntityType, FeatureRef, FeatureServiceName, FeatureServiceRef};
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::service::FeatureStore;
use crate::service::error::{ServiceError, StoreError};
use crate::service::export::Batches;
use crate::store::log::{LogEntry, LogRange};
use crate::table::columns::{ColumnBuilder, field};

/// Entries loaded at a time; each has at most [`super::MAX_ENTRY_BYTES`].
const PAGE: usize = 32;

/// Which columns stand beside each feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogInclude {
    pub event_timestamp: bool,
    pub status: bool,
    pub version: bool,
}

/// What to export of a log.
#[derive(Clone, Debug)]
pub struct LogRequest {
    /// The latest version, if none is named.
    pub service: FeatureServiceRef,
    pub from: Option<Timestamp>,
    /// Not included.
    pub to: Option<Timestamp>,
    pub include: LogInclude,
}

/// An export of a log that is under way.
pub struct LogExport {
    store: Arc<FeatureStore>,
    service: FeatureServiceName,
    version: u32,
    version_created_at: Timestamp,
    /// `None`: everything was read.
    range: Option<LogRange>,
    rows: Rows,
    schema: SchemaRef,
}

impl FeatureStore {
    /// Begins the export of a serving log.
    pub async fn export_serving_log(
        self: &Arc<Self>,
        request: LogRequest,
    ) -> Result<LogExport, ServiceError> {
        // Refuses what the key is not for.
        let features = self.service_features(&request.service).await?;
        let snapshot = self.registry.snapshot();
        let version = snapshot
            .feature_service(&request.service.name)
            .and_then(|service| service.version(request.service.version))
            .ok_or_else(|| ServiceError::NotFound {
                what: "feature service",
                name: request.service.name.to_string(),
            })?;
        let mut typed = Vec::with_capacity(features.len());
        for feature in features {
            let entity_type = self.registry.entity_type(&feature.entity_type).await?;
            let known = entity_type.features.get(&feature.feature);
            let feature_type = known.map(|known| known.feature_type).ok_or_else(|| {
                ServiceError::InvalidRequest(format!("the feature {feature} is no longer in the schema"))
            })?;
            typed.push((feature, feature_type));
        }
        // What was served a moment ago is to be there.
        self.serving_log.flush().await;
        let rows = Rows::new(&typed, request.include);
        let schema = Arc::new(Schema::new(rows.fields()));
        let range = LogRange {
            from: request.from.unwrap_or(Timestamp::MIN),
            to: request.to.unwrap_or(Timestamp::MAX),
            skip: 0,
        };
        Ok(LogExport {
            store: self.clone(),
            service: request.service.name,
            version: version.version,
            version_created_at: version.created_at,
            range: Some(range),
            rows,
            schema,
        })
    }
}

impl Batches for LogExport {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, ServiceError> {
        let Some(range) = self.range else { return Ok(None) };
        let entries = self.store.store.read_log(&self.service, range, PAGE).await?;
        self.range = (entries.len() == PAGE).then(|| range.after(&entries));
        for entry in &entries {
            self.push(entry)?;
        }
        let batch = RecordBatch::try_new(self.schema.clone(), self.rows.finish());
        batch.map(Some).map_err(|error| ServiceError::Internal(error.to_string()))
    }
}

impl LogExport {
    fn push(&mut self, entry: &LogEntry) -> Result<(), ServiceError> {
        let kept: Kept<'_> = serde_json::from_slice(&entry.body).map_err(|error| {
            ServiceError::Store(StoreError::Corrupt {
                key: format!("the serving log of {}", self.service),
                field: entry.at.to_string(),
                reason: error.to_string(),
            })
        })?;
        if kept.version != self.version || kept.version_created_at != self.version_created_at {
            return Ok(());
        }
        let counts: Vec<usize> = kept.types.iter().map(|of_type| of_type.entities.len()).collect();
        let most = counts.iter().copied().max().unwrap_or(0);
        let go_together = counts.iter().all(|count| *count == 1 || *count == most);
        let rows = if go_together { most } else { counts.iter().sum() };
        let mut begin = 0;
        for row in 0..rows {
            self.rows.begin(entry.at, &kept.request_id);
            for of_type in &kept.types {
                let place = match (go_together, of_type.entities.len()) {
                    (true, 1) => Some(0),
                    (true, _) => Some(row),
                    (false, count) => {
                        let place = row.checked_sub(begin).filter(|place| *place < count);
                        begin += count;
                        place
                    }
                };
                if let Some(entity) = place.and_then(|place| of_type.entities.get(place)) {
                    self.rows.fill(&of_type.entity_type, &of_type.features, entity)?;
                }
            }
            begin = 0;
            self.rows.end()?;
        }
        Ok(())
    }
}

/// The rows of the next batch, column by column.
struct Rows {
    served_at: ColumnBuilder,
    request_ids: StringBuilder,
    ids: Vec<(EntityType, StringBuilder)>,
    features: Vec<Feature>,
    /// Where a feature is among them.
    places: HashMap<FeatureRef, usize>,
    // What is known of the row that is being filled.
    row_ids: Vec<Option<String>>,
    row: Vec<Option<Known>>,
}

/// Value, status, event time in microseconds and version.
type Known = (Value, &'static str, Option<i64>, Option<u64>);

struct Feature {
    name: String,
    feature_type: FeatureType,
    values: ColumnBuilder,
    event_timestamps: Option<ColumnBuilder>,
    statuses: Option<StringBuilder>,
    versions: Option<ColumnBuilder>,
}

impl Rows {
    fn new(typed: &[(FeatureRef, FeatureType)], include: LogInclude) -> Self {
        let mut ids: Vec<(EntityType, StringBuilder)> = Vec::new();
        for (feature, _) in typed {
            if !ids.iter().any(|(known, _)| *known == feature.entity_type) {
                ids.push((feature.entity_type.clone(), StringBuilder::new()));
            }
        }
        let features = typed.iter().map(|(feature, feature_type)| Feature {
            name: feature.to_string(),
            feature_type: *feature_type,
            values: ColumnBuilder::new(*feature_type),
            event_timestamps: include.event_timestamp.then(|| ColumnBuilder::new(FeatureType::Timestamp)),
            statuses: include.status.then(StringBuilder::new),
            versions: include.version.then(|| ColumnBuilder::new(FeatureType::Int64)),
        });
        let places = typed.iter().enumerate().map(|(place, (feature, _))| (feature.clone(), place));
        Self {
            served_at: ColumnBuilder::new(FeatureType::Timestamp),
            request_ids: StringBuilder::new(),
            row_ids: vec![None; ids.len()],
            ids,
            row: vec![None; typed.len()],
            features: features.collect(),
            places: places.collect(),
        }
    }

    /// Names with a dot are those of features: no other column can be mistaken for one.
    fn fields(&self) -> Vec<Field> {
        let mut fields =
            vec![field("served_at", FeatureType::Timestamp), Field::new("request_id", DataType::Utf8, false)];
        fields.extend(self.ids.iter().map(|(of, _)| Field::new(format!("{of}_id"), DataType::Utf8, true)));
        for Feature { name, feature_type, event_timestamps, statuses, versions, .. } in &self.features {
            fields.push(field(name.clone(), *feature_type));
            if event_timestamps.is_some() {
                fields.push(field(format!("{name}.event_timestamp"), FeatureType::Timestamp));
            }
            if statuses.is_some() {
                fields.push(Field::new(format!("{name}.status"), DataType::Utf8, true));
            }
            if versions.is_some() {
                fields.push(field(format!("{name}.version"), FeatureType::Int64));
            }
        }
        fields
    }

    fn begin(&mut self, at: Timestamp, request_id: &str) {
        // A builder of times takes times.
        let _ = self.served_at.push(&Value::Timestamp(at));
        self.request_ids.append_value(request_id);
        self.row_ids.fill(None);
        self.row.fill(None);
    }

    fn fill(
        &mut self,
        entity_type: &EntityType,
        features: &[crate::domain::name::FeatureName],
        entity: &EntryOfEntity<Box<serde_json::value::RawValue>>,
    ) -> Result<(), ServiceError> {
        if let Some(place) = self.ids.iter().position(|(known, _)| known == entity_type) {
            self.row_ids[place] = Some(entity.id.to_string());
        }
        for (name, Served(value, status, event, version)) in features.iter().zip(&entity.answers) {
            let reference = FeatureRef { entity_type: entity_type.clone(), feature: name.clone() };
            let Some(place) = self.places.get(&reference) else { continue };
            let feature_type = self.features[*place].feature_type;
            let value = Given::Json(value).to_value(feature_type);
            let value = value.map_err(|error| ServiceError::Internal(format!("{reference}: {}", error.0)))?;
            self.row[*place] = Some((value, status.as_str(), *event, *version));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ServiceError> {
        for ((_, builder), id) in self.ids.iter_mut().zip(&self.row_ids) {
            builder.append_option(id.as_deref());
        }
        for (feature, known) in self.features.iter_mut().zip(&mut self.row) {
            let (value, status, event, version) = match known.take() {
                Some((value, status, event, version)) => (value, Some(status), event, version),
                None => (Value::Null, None, None, None),
            };
            let time = event.and_then(Timestamp::from_micros).map_or(Value::Null, Value::Timestamp);
            let version =
                version.and_then(|version| i64::try_from(version).ok()).map_or(Value::Null, Value::Int64);
            let beside = [(&mut feature.event_timestamps, time), (&mut feature.versions, version)];
            let mut pushed = feature.values.push(&value);
            for (builder, value) in beside {
                if let Some(builder) = builder {
                    pushed = pushed.and(builder.push(&value));
                }
            }
            pushed.map_err(|misfit| ServiceError::Internal(format!("{}: {misfit}", feature.name)))?;
            if let Some(builder) = &mut feature.statuses {
                builder.append_option(status);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = vec![self.served_at.finish(), Arc::new(self.request_ids.finish())];
        columns.extend(self.ids.iter_mut().map(|(_, builder)| Arc::new(builder.finish()) as ArrayRef));
        for feature in &mut self.features {
            columns.push(feature.values.finish());
            columns.extend(feature.event_timestamps.as_mut().map(ColumnBuilder::finish));
            columns.extend(feature.statuses.as_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
            columns.extend(feature.versions.as_mut().map(ColumnBuilder::finish));
        }
        columns
    }
}
