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
    cells: Box<[Cell]>,
    /// `"price":9.5,"stock":null`, the members of a JSON object in the order of the fields.
    json: Box<[u8]>,
    /// Whether every field has a value other than null.
    is_full: bool,
    /// When the first value expires; `None`: none ever does.
    first_expiry: Option<Timestamp>,
    weight: u64,
}

/// One feature of an entry.
#[derive(Debug)]
struct Cell {
    current: Option<Current>,
    /// Where in the entry's JSON its value is.
    start: u32,
    end: u32,
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
        let mut cells = Vec::with_capacity(fields.len());
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
            let start = json.len() as u32;
            match current.as_ref().and_then(|current| current.record.value.clone()) {
                None | Some(Value::Null) => {
                    json.extend_from_slice(b"null");
                    is_full = false;
                }
                Some(value) => {
                    serde_json::to_writer(&mut json, &value.widened_to(*feature_type)).map_err(|error| {
                        StoreError::Corrupt {
                            key: entity.to_string(),
                            field: name.to_string(),
                            reason: error.to_string(),
                        }
                    })?;
                }
            }
            if let Some(at) = current.as_ref().and_then(|current| current.expires_at) {
                first_expiry = Some(first_expiry.map_or(at, |first: Timestamp| first.min(at)));
            }
            cells.push(Cell { current, start, end: json.len() as u32 });
        }
        let weight = weigh(entity, &cells, &json);
        Ok(Self { version, fields, cells: cells.into(), json: json.into(), is_full, first_expiry, weight })
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
        self.cells.get(place)?.current.as_ref()
    }

    /// The value at a place as JSON, though it may have expired; `null` where there is none.
    pub fn json(&self, place: usize) -> &[u8] {
        let range = self.cells.get(place).map(|cell| cell.start as usize..cell.end as usize);
        range.and_then(|range| self.json.get(range)).unwrap_or(b"null")
    }

    /// All fields as the members of a JSON object, if each has a value that is kept at `now`.
    pub fn members(&self, now: Timestamp) -> Option<&[u8]> {
        let kept = self.is_full && self.first_expiry.is_none_or(|at| now < at);
        kept.then_some(&*self.json)
    }

    /// About how much memory it takes, with its key.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

fn weigh(entity: &EntityKey, cells: &[Cell], json: &[u8]) -> u64 {
    // The cache's own tables, the counters of shared pointers, the allocator's rounding.
    const OVERHEAD: usize = 160;
    let heap = |cell: &Cell| match cell.current.as_ref().and_then(|current| current.record.value.as_ref()) {
        Some(Value::String(text) | Value::Json(text)) => text.len() + 2 * size_of::<usize>(),
        Some(Value::Embedding(numbers)) => numbers.len() * 4 + 2 * size_of::<usize>(),
        _ => 0,
    };
    let entry = size_of::<Entry>() + size_of_val(cells) + json.len();
    let bytes = OVERHEAD + entity.entity_id.as_str().len() + entry + cells.iter().map(heap).sum::<usize>();
    bytes as u64
}
