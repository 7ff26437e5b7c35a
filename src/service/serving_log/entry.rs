//! A read as its log keeps it: JSON, which says by itself what is in it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Read;
use crate::domain::name::{EntityId, EntityType, FeatureName};
use crate::domain::record::Version;
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::domain::view::{Answer, Status};
use crate::service::answer::TypeAnswer;

/// What one request was answered.
#[derive(Serialize, Deserialize)]
pub struct Entry<'a, V> {
    pub version: u32,
    pub version_created_at: Timestamp,
    #[serde(borrow)]
    pub request_id: std::borrow::Cow<'a, str>,
    pub types: Vec<EntryOfType<V>>,
}

/// What it was answered of the entities of one type.
#[derive(Serialize, Deserialize)]
pub struct EntryOfType<V> {
    pub entity_type: EntityType,
    pub features: Vec<FeatureName>,
    pub entities: Vec<EntryOfEntity<V>>,
}

#[derive(Serialize, Deserialize)]
pub struct EntryOfEntity<V> {
    pub id: EntityId,
    /// In the order of the features.
    pub answers: Vec<Served<V>>,
}

/// Value, status, event time in microseconds and version of a feature.
#[derive(Serialize, Deserialize)]
pub struct Served<V>(pub V, pub Status, pub Option<i64>, pub Option<Version>);

/// An entry that was read; its values are for the schema to understand.
pub type Kept<'a> = Entry<'a, Box<RawValue>>;

pub(super) fn encode(read: &Read) -> serde_json::Result<Vec<u8>> {
    let judged: Vec<_> = read.types.iter().map(TypeAnswer::judged).collect();
    let types = read.types.iter().zip(&judged).map(|(of_type, judged)| EntryOfType {
        entity_type: of_type.columns.entity_type.name().clone(),
        features: of_type.columns.names().cloned().collect(),
        entities: judged
            .iter()
            .map(|entity| EntryOfEntity {
                id: entity.entity_id.clone(),
                answers: entity.answers.iter().map(served).collect(),
            })
            .collect(),
    });
    serde_json::to_vec(&Entry::<&Value> {
        version: read.version,
        version_created_at: read.version_created_at,
        request_id: (&*read.request_id).into(),
        types: types.collect(),
    })
}

fn served(answer: &Answer) -> Served<&Value> {
    let record = answer.record.as_ref().filter(|_| answer.status != Status::NotFound);
    let event = record.map(|record| record.event_timestamp.as_micros());
    Served(&answer.value, answer.status, event, record.map(|record| record.version))
}
