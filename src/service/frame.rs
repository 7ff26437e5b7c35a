//! Answers as typed columns: what exports, training sets and binary reads have in common.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::StringBuilder;
use arrow_schema::{DataType, Field};

use super::error::ServiceError;
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::domain::view::{Answer, Status};
use crate::table::columns::{ColumnBuilder, field};

/// Which columns stand beside each feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// `price.event_timestamp`: when the value was true.
    pub event_timestamp: bool,
    /// `price.status`: why the value is what it is.
    pub status: bool,
}

/// One feature's answers, gathered into columns.
pub struct FeatureColumns {
    name: String,
    feature_type: FeatureType,
    values: ColumnBuilder,
    event_timestamps: Option<ColumnBuilder>,
    statuses: Option<StringBuilder>,
}

impl FeatureColumns {
    pub fn new(name: String, feature_type: FeatureType, beside: Beside) -> Self {
        Self {
            name,
            feature_type,
            values: ColumnBuilder::new(feature_type),
            event_timestamps: beside.event_timestamp.then(|| ColumnBuilder::new(FeatureType::Timestamp)),
            statuses: beside.status.then(StringBuilder::new),
        }
    }

    /// The fields of the columns, the feature's first. No name of a feature has a dot.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = vec![field(self.name.clone(), self.feature_type)];
        if self.event_timestamps.is_some() {
            fields.push(field(format!("{}.event_timestamp", self.name), FeatureType::Timestamp));
        }
        if self.statuses.is_some() {
            fields.push(Field::new(format!("{}.status", self.name), DataType::Utf8, false));
        }
        fields
    }

    /// How many answers were gathered.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    pub fn push(&mut self, answer: &Answer) -> Result<(), ServiceError> {
        let pushed = self.values.push(&answer.value);
        pushed.map_err(|misfit| ServiceError::Internal(format!("{}: {misfit}", self.name)))?;
        if let Some(builder) = &mut self.event_timestamps {
            let time = event_timestamp(answer).map_or(Value::Null, Value::Timestamp);
            builder.push(&time).map_err(|misfit| ServiceError::Internal(misfit.to_string()))?;
        }
        if let Some(builder) = &mut self.statuses {
            builder.append_value(answer.status.as_str());
        }
        Ok(())
    }

    /// The columns in the order of their fields; this is empty then.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        let mut columns = vec![self.values.finish()];
        columns.extend(self.event_timestamps.as_mut().map(ColumnBuilder::finish));
        columns.extend(self.statuses.as_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns
    }
}

/// When the value that was judged was true; `None` where there is none.
fn event_timestamp(answer: &Answer) -> Option<Timestamp> {
    let record = answer.record.as_ref().filter(|_| answer.status != Status::NotFound)?;
    Some(record.event_timestamp)
}

/// About how many bytes an answer of a feature takes, history included: what a page is measured by.
pub fn width(feature_type: FeatureType) -> usize {
    match feature_type {
        FeatureType::Embedding { dimension } => 4 * dimension as usize + 64,
        FeatureType::String | FeatureType::Json => 256,
        _ => 64,
    }
}
