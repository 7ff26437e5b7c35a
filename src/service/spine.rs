//! What a training set is asked for: rows of entities and times.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use serde_json::value::RawValue;

use super::columns::{Columns, Named};
use super::error::ServiceError;
use super::training::TrainingRequest;
use crate::domain::derive::Source;
use crate::domain::name::EntityId;
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::domain::violation::{Violation, ViolationCode};
use crate::table::cells::Cells;
use crate::table::keys;

/// So many bad rows are told of.
const TOLD: usize = 20;

/// A spine that was checked.
pub struct Spine<'a> {
    table: &'a RecordBatch,
    /// One a row.
    pub times: Vec<Timestamp>,
}

impl<'a> Spine<'a> {
    pub fn new(request: &'a TrainingRequest) -> Result<Self, ServiceError> {
        let (table, name) = (&request.spine, request.timestamp_column.as_str());
        let cells = keys::times(column(table, name)?).map_err(|is| of_column(name, &is))?;
        let mut bad = BadRows::new(name);
        let mut times = Vec::with_capacity(cells.len());
        for (row, cell) in cells.into_iter().enumerate() {
            match cell {
                Some(Ok(time)) => times.push(time),
                Some(Err(is)) => bad.push(row, &is),
                None => bad.push(row, "is null, and without a time there is nothing to look up"),
            }
        }
        bad.finish()?;
        Ok(Self { table, times })
    }

    /// The ids in a column; a row may have none.
    pub fn entity_ids(&self, name: &str) -> Result<Vec<Option<EntityId>>, ServiceError> {
        let texts = keys::ids(column(self.table, name)?).map_err(|is| of_column(name, &is))?;
        let mut bad = BadRows::new(name);
        let mut ids = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            match text.map(EntityId::parse).transpose() {
                Ok(id) => ids.push(id),
                Err(error) => bad.push(row, &error.to_string()),
            }
        }
        bad.finish()?;
        Ok(ids)
    }

    /// The columns that functions which run on reads take as their request's context.
    pub fn context_of(&self, columns: &Columns) -> Result<Context, ServiceError> {
        let mut context = Vec::new();
        let on_read = columns.entity_type.computed().iter().filter(|computed| computed.on_read);
        for input in on_read.flat_map(|computed| &computed.inputs) {
            let Source::Context(name) = &input.source else { continue };
            let Ok(at) = self.table.schema().index_of(name) else { continue };
            if columns.is_computed_on_read() && !context.iter().any(|(known, _)| known == name) {
                let cells = Cells::new(self.table.schema().field(at), self.table.column(at));
                let cells = cells.map_err(|error| ServiceError::Internal(error.to_string()))?;
                context.push((name.clone(), cells));
            }
        }
        Ok(Context(context))
    }
}

/// Columns of a spine that computations take.
pub struct Context(Vec<(Arc<str>, Cells)>);

impl Context {
    /// The values of a row, each of the type that its JSON shows, as in a read's context.
    pub fn of_row(&self, row: usize) -> Result<Named, ServiceError> {
        let values = self.0.iter().map(|(name, cells)| {
            let refused = |is: String| ServiceError::InvalidRequest(format!("row {row} of {name}: {is}"));
            let mut json = Vec::new();
            cells.write_json(row, &mut json).map_err(|error| refused(error.to_string()))?;
            let text = String::from_utf8(json).map_err(|error| refused(error.to_string()))?;
            let json = RawValue::from_string(text).map_err(|error| refused(error.to_string()))?;
            let of_type = Value::infer_type(&json).unwrap_or(FeatureType::Json);
            let value = Value::parse(&json, of_type).map_err(|error| refused(error.to_string()))?;
            Ok((name.clone(), value))
        });
        values.collect()
    }
}

fn column<'a>(table: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ServiceError> {
    table.column_by_name(name).ok_or_else(|| {
        let names: Vec<String> =
            table.schema().fields().iter().map(|field| format!("{:?}", field.name())).collect();
        ServiceError::InvalidRequest(format!("the spine has no column {name:?}, it has {}", names.join(", ")))
    })
}

fn of_column(name: &str, is: &str) -> ServiceError {
    ServiceError::InvalidRequest(format!("the column {name:?} {is}"))
}

/// Rows whose cells cannot be used.
struct BadRows<'a> {
    column: &'a str,
    violations: Vec<Violation>,
}

impl<'a> BadRows<'a> {
    fn new(column: &'a str) -> Self {
        Self { column, violations: Vec::new() }
    }

    fn push(&mut self, row: usize, is: &str) {
        if self.violations.len() < TOLD {
            let message = format!("row {row}, column {:?}: {is}", self.column);
            let violation = Violation::new(ViolationCode::InvalidValue, message);
            self.violations.push(Violation { row: Some(row as u64), ..violation });
        }
    }

    fn finish(self) -> Result<(), ServiceError> {
        if self.violations.is_empty() { Ok(()) } else { Err(ServiceError::ValidationFailed(self.violations)) }
    }
}
