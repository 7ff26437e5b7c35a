//! An entity as reads want it: its records, and the values ready as JSON.

use std::sync::Arc;

use crate::domain::name::{EntityKey, FeatureName};
use crate::domain::record::{Current, EntityRecords, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::{FeatureType, Value};
use crate::store::StoreError;

/// Features with the types that the schema gives them. Whoever asks for the same ones again shares
/// the list, and is then known by its address.
pub type Fields = Arc<[(FeatureName, FeatureType)]>;

/// What a store holds of some features of one entity, at one moment.
#[derive(Debug)]
pub struct Entry {
    /// 0: the store has nothing of the entity.
    version: Version,
    fields: Fields,
    /// As many as fields.
    currents: Box<[Option<Current>]>,
    /// `"price":9.5,"stock":null`, the members of a JSON object in the order of the fields.
    json: Box<[u8]>,
    /// Where the member of each field ends in `json`.
    ends: Box<[u32]>,
    /// Whether every field has a value other than null.
    is_full: bool,
    /// When the first value expires; `None`: none ever does.
    first_expiry: Option<Timestamp>,
    weight: u64,
}

/// Where the features of a request are in an entry.
#[derive(Clone, Debug)]
pub enum Slots {
    /// They are its fields.
    Same,
    /// At these places.
    At(Arc<[u32]>),
}

impl Slots {
    /// Whether they are the entry's fields as they stand there.
    pub fn are_all(&self) -> bool {
        matches!(self, Self::Same)
    }

    pub fn get(&self, index: usize) -> usize {
        match self {
            Self::Same => index,
            Self::At(places) => places.get(index).map_or(usize::MAX, |place| *place as usize),
        }
    }
}

impl Entry {
    /// Renders what was loaded. A stored document that is no JSON is a corrupt store.
    pub fn new(entity: &EntityKey, fields: Fields, records: EntityRecords) -> Result<Self, StoreError> {
        let version = records.head.map_or(0, |head| head.version);
        let mut json = Vec::with_capacity(fields.len() * 32);
        let mut ends = Vec::with_capacity(fields.len());
        let mut currents = Vec::with_capacity(fields.len());
        let mut is_full = version > 0;
        let mut first_expiry = None;
        let mut records = records.features.into_iter();
        for (index, (name, feature_type)) in fields.iter().enumerate() {
            let current = records.next().and_then(|records| records.current);
            if index > 0 {
                json.push(b',');
            }
            json.push(b'"');
            json.extend_from_slice(name.as_str().as_bytes());
            json.extend_from_slice(b"\":");
            let value = current.as_ref().and_then(|current| current.record.value.as_ref());
            is_full &= value.is_some_and(|value| *value != Value::Null);
            write_value(&mut json, value.unwrap_or(&Value::Null), *feature_type).map_err(|error| {
                StoreError::Corrupt {
                    key: entity.to_string(),
                    field: name.to_string(),
                    reason: error.to_string(),
                }
            })?;
            if let Some(at) = current.as_ref().and_then(|current| current.expires_at) {
                first_expiry = Some(first_expiry.map_or(at, |first: Timestamp| first.min(at)));
            }
            currents.push(current);
            ends.push(json.len() as u32);
        }
        let weight = weigh(entity, &currents, &json);
        let (currents, json, ends) = (currents.into(), json.into(), ends.into());
        Ok(Self { version, fields, currents, json, ends, is_full, first_expiry, weight })
    }

    /// 0: the store has nothing of the entity.
    pub fn version(&self) -> Version {
        self.version
    }

    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Where these features are; `None` where one of them is not here, or of another type.
    pub fn locate(&self, fields: &Fields) -> Option<Slots> {
        if Arc::ptr_eq(&self.fields, fields) || self.fields == *fields {
            return Some(Slots::Same);
        }
        let place = |field: &(FeatureName, FeatureType)| {
            self.fields.iter().position(|other| other == field).map(|place| place as u32)
        };
        fields.iter().map(place).collect::<Option<_>>().map(Slots::At)
    }

    /// The record at a place.
    pub fn current(&self, place: usize) -> Option<&Current> {
        self.currents.get(place)?.as_ref()
    }

    /// The member of a JSON object at a place, `"price":9.5`, though the value may have expired.
    pub fn member(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before));
        // A comma stands between two of them.
        let start = start.map_or(0, |end| *end as usize + 1);
        self.ends.get(place).and_then(|end| self.json.get(start..*end as usize)).unwrap_or_default()
    }

    /// The value at a place as JSON, though it may have expired; `null` where there is none.
    pub fn json(&self, place: usize) -> &[u8] {
        let name = self.fields.get(place).map_or(0, |(name, _)| name.as_str().len());
        self.member(place).get(name + 3..).unwrap_or(b"null")
    }

    /// All fields as the members of a JSON object, `"price":9.5,"stock":null`.
    pub fn members(&self) -> &[u8] {
        &self.json
    }

    /// Whether every field has a value that is kept at `now`.
    pub fn is_whole(&self, now: Timestamp) -> bool {
        self.is_full && self.first_expiry.is_none_or(|at| now < at)
    }

    /// About how much memory it takes, with its key.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

/// Writes a value as the schema has its type now.
fn write_value(
    json: &mut Vec<u8>,
    value: &Value,
    feature_type: FeatureType,
) -> Result<(), serde_json::Error> {
    match value {
        Value::Int64(_) => serde_json::to_writer(json, &value.clone().widened_to(feature_type)),
        value => serde_json::to_writer(json, value),
    }
}

fn weigh(entity: &EntityKey, currents: &[Option<Current>], json: &[u8]) -> u64 {
    // The cache's own tables, the counters of shared pointers, the allocator's rounding.
    const OVERHEAD: usize = 160;
    let heap = |current: &Current| match &current.record.value {
        Some(Value::String(text) | Value::Json(text)) => text.len() + 2 * size_of::<usize>(),
        Some(Value::Embedding(numbers)) => numbers.len() * 4 + 2 * size_of::<usize>(),
        _ => 0,
    };
    let values: usize = currents.iter().flatten().map(heap).sum();
    let entry = size_of::<Entry>() + size_of_val(currents) + currents.len() * size_of::<u32>() + json.len();
    (OVERHEAD + entity.entity_id.as_str().len() + entry + values) as u64
}
