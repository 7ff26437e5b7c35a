//! From a batch of columns to rows of features: which column is what, and what its cells are.

use std::borrow::Cow;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use indexmap::IndexMap;

use super::tally::Tally;
use super::{Import, ImportError, Nulls, Untimed, wrong};
use crate::domain::compiled::CompiledEntityType;
use crate::domain::given::Given;
use crate::domain::name::{EntityId, FeatureName};
use crate::domain::schema::FeatureSchema;
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::domain::violation::{Violation, ViolationCode};
use crate::service::FeatureStore;
use crate::service::error::ServiceError;
use crate::service::rows::Row;
use crate::table::given::{Cell, Column};
use crate::table::read::Cells;

/// What the columns of a table are called where nothing else is said.
const TIMESTAMP_COLUMN: &str = "event_timestamp";

/// A batch whose entity ids and times are read, and whose cells are ready to be.
pub struct Mapped {
    /// The number of the first row.
    first: u64,
    rows: usize,
    /// `None` for rows that are rejected already.
    keys: Vec<Option<(EntityId, Timestamp)>>,
    features: Vec<(FeatureName, FeatureType, Column)>,
}

impl Mapped {
    /// The rows that are not rejected yet.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|row| self.keys[*row].is_some())
    }

    pub fn id(&self, row: usize) -> Option<&str> {
        self.keys[row].as_ref().map(|(id, _)| id.as_str())
    }

    /// The number of a row in its table.
    pub fn number(&self, row: usize) -> u64 {
        self.first + row as u64
    }

    /// A row as it is written; `None`, counted as empty, where it has nothing to write.
    pub fn row(&self, row: usize, import: &Import, tally: &Tally) -> Option<Row<'_>> {
        let (entity_id, event_timestamp) = self.keys[row].as_ref()?;
        let null = match import.nulls {
            Nulls::Skip => None,
            Nulls::Write => Some(Given::Typed(Value::Null)),
        };
        let mut features = Vec::with_capacity(self.features.len());
        for (name, feature_type, column) in &self.features {
            let given = match column.cell(row, *feature_type) {
                Cell::Absent => None,
                Cell::Null => null.clone(),
                Cell::Nan if import.nan_is_null => null.clone(),
                Cell::Nan => Some(Given::Unusable("is NaN, which no feature can be".to_owned())),
                Cell::Given(given) => Some(given),
            };
            if let Some(given) = given {
                features.push((Cow::Borrowed(name.as_str()), given));
            }
        }
        if features.is_empty() {
            tally.empty();
            return None;
        }
        Some(Row {
            entity_id: entity_id.clone(),
            features,
            event_timestamp: Some(*event_timestamp),
            ttl: import.ttl,
        })
    }
}

/// Which column of a batch is what.
struct Places<'a> {
    id: usize,
    timestamp: Option<usize>,
    /// Column and feature.
    features: Vec<(usize, &'a str)>,
}

impl FeatureStore {
    /// Finds out what the columns of a batch are, registers those that are unknown, and reads
    /// entity ids and times.
    pub(super) async fn map_batch(
        &self,
        import: &Import,
        batch: RecordBatch,
        first: u64,
        started: Timestamp,
        tally: &Tally,
    ) -> Result<Mapped, ImportError> {
        let schema = batch.schema();
        let places = places(import, &schema)?;
        let column = |place: usize| Column::new(schema.field(place), batch.column(place));
        let rows = batch.num_rows();
        let mut unknown = IndexMap::new();
        let mut columns = Vec::with_capacity(places.features.len());
        let mut violations = Vec::new();
        let entity_type = self.registry.find_entity_type(&import.entity_type).await?;
        if entity_type.is_none() && !self.settings.auto_register {
            return Err(ServiceError::UnknownEntityType(import.entity_type.clone()).into());
        }
        for (place, name) in places.features {
            match self.feature(entity_type.as_deref(), name) {
                Err(violation) => violations.push(violation),
                Ok((name, known)) => {
                    let column = column(place)?;
                    let feature_type = known.or_else(|| column.infer_type(rows));
                    if let (None, Some(inferred)) = (known, feature_type) {
                        unknown.insert(name.clone(), FeatureSchema::inferred(inferred));
                    }
                    columns.push((name, feature_type, column));
                }
            }
        }
        if !violations.is_empty() {
            return Err(ServiceError::ValidationFailed(violations).into());
        }
        self.check_feature_count(columns.len())?;
        // Once and by whole columns, so that it does not depend on which row comes first.
        if !unknown.is_empty() {
            self.registry.extend(&import.entity_type, &unknown).await?;
        }
        let ids = column(places.id)?;
        let times = places.timestamp.map(column).transpose()?;
        let lacking =
            match (places.timestamp.map(|place| Cells::of(schema.field(place))), &import.timestamp_column) {
                (None, _) | (Some(Cells::Json), None) => Untimed::At(started),
                _ => Untimed::Rejected,
            };
        let key = |row: usize| -> Result<(EntityId, Timestamp), (Option<String>, Violation)> {
            let text =
                ids.id(row).map_err(|text| (None, Violation::new(ViolationCode::InvalidName, text)))?;
            let id = EntityId::parse(&text).map_err(|error| {
                (
                    Some(text.chars().take(256).collect()),
                    Violation::new(ViolationCode::InvalidName, error.to_string()),
                )
            })?;
            let wrong = |text| {
                (
                    Some(id.as_str().to_owned()),
                    Violation::at("/event_timestamp", ViolationCode::InvalidValue, text),
                )
            };
            let time = match &times {
                Some(times) => times.time(row, import.timestamp_unit).map_err(wrong)?,
                None => None,
            };
            match (time, lacking) {
                (Some(time), _) | (None, Untimed::At(time)) => Ok((id, time)),
                (None, Untimed::Rejected) => Err(wrong("the row has no event timestamp".to_owned())),
            }
        };
        let keys = (0..rows).map(|row| {
            let key = key(row);
            key.map_err(|(id, violation)| tally.reject(first + row as u64, id.as_deref(), vec![violation]))
                .ok()
        });
        let keys = keys.collect();
        // A column that tells no type has only nulls.
        let features = columns
            .into_iter()
            .map(|(name, feature_type, column)| (name, feature_type.unwrap_or(FeatureType::Json), column));
        Ok(Mapped { first, rows, keys, features: features.collect() })
    }

    /// The feature that a column is: known with its type, or one that may be registered.
    fn feature(
        &self,
        entity_type: Option<&CompiledEntityType>,
        name: &str,
    ) -> Result<(FeatureName, Option<FeatureType>), Violation> {
        let violation = |code, message: String| Violation {
            feature: Some(name.to_owned()),
            ..Violation::new(code, message)
        };
        let parsed = FeatureName::parse(name).map_err(|error| {
            let hint = "name the columns that are features with the parameter columns";
            violation(ViolationCode::InvalidName, format!("{error}; {hint}"))
        })?;
        match entity_type.and_then(|entity_type| Some((entity_type, entity_type.features.get(&parsed)?))) {
            Some((of, _)) if of.computation(&parsed).is_some() => Err(violation(
                ViolationCode::ComputedFeature,
                "is computed: import its inputs instead".to_owned(),
            )),
            Some((_, known)) => Ok((parsed, Some(known.feature_type))),
            None if self.settings.auto_register
                && !entity_type.is_some_and(CompiledEntityType::is_strict) =>
            {
                Ok((parsed, None))
            }
            None => {
                let message = "is not in the schema, and unknown features are not registered here";
                Err(violation(ViolationCode::UnknownFeature, message.to_owned()))
            }
        }
    }
}

fn places<'a>(import: &'a Import, schema: &'a Schema) -> Result<Places<'a>, ImportError> {
    let find = |name: &str| schema.column_with_name(name).map(|(place, _)| place);
    let missing = |name: &str| {
        let names: Vec<&str> = schema.fields().iter().take(20).map(|field| field.name().as_str()).collect();
        wrong(format!("there is no column {name:?}; there are {}", names.join(", ")))
    };
    // A row of JSON may lack any member.
    let is_json = schema.fields().iter().any(|field| Cells::of(field) == Cells::Json);
    let id = find(&import.id_column).ok_or_else(|| missing(&import.id_column))?;
    let timestamp = match &import.timestamp_column {
        Some(name) => Some(find(name).ok_or_else(|| missing(name))?),
        None => find(TIMESTAMP_COLUMN),
    };
    let features = match &import.columns {
        Some(columns) => {
            let mut features = Vec::with_capacity(columns.len());
            for (column, feature) in columns {
                match find(column) {
                    Some(place) => features.push((place, feature.as_str())),
                    None if is_json => {}
                    None => return Err(missing(column)),
                }
            }
            features
        }
        None => {
            let all = schema.fields().iter().enumerate().map(|(place, field)| (place, field.name().as_str()));
            all.filter(|(place, name)| *place != id && Some(*place) != timestamp && !is_pandas_index(name))
                .collect()
        }
    };
    Ok(Places { id, timestamp, features })
}

/// The index of a DataFrame, which pandas writes as a column of its own.
fn is_pandas_index(name: &str) -> bool {
    name.strip_prefix("__index_level_").is_some_and(|rest| rest.ends_with("__"))
}
