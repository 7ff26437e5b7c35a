//! The keys of the tables. Names and ids hold no control characters, so a zero byte ends each of
//! them, and keys of one type, entity or feature stand together.

use std::ops::Range;

use crate::domain::name::{EntityId, EntityKey, EntityType};
use crate::domain::record::Version;
use crate::domain::time::Timestamp;

const END: u8 = 0;
/// Sorts right after everything that follows an [`END`].
const PAST_END: u8 = 1;

/// `type \0 id`
pub fn entity(entity: &EntityKey) -> Vec<u8> {
    let (entity_type, id) = (entity.entity_type.as_str(), entity.entity_id.as_str());
    [entity_type.as_bytes(), &[END], id.as_bytes()].concat()
}

/// `type:id`, as people write it.
pub fn display(entity: &[u8]) -> String {
    String::from_utf8_lossy(entity).replacen('\0', ":", 1)
}

/// `type \0 id \0 feature`
pub fn feature(entity: &[u8], feature: &str) -> Vec<u8> {
    [entity, &[END], feature.as_bytes()].concat()
}

/// The keys of all entities of a type, after that of one id where it is given.
pub fn entities_of(entity_type: &EntityType, after: Option<&EntityId>) -> Range<Vec<u8>> {
    let mut range = below(entity_type.as_str().as_bytes());
    if let Some(id) = after {
        // The first key that sorts after the id's own.
        range.start.extend_from_slice(id.as_str().as_bytes());
        range.start.push(END);
    }
    range
}

/// Type and id, as [`entity`] put them together.
pub fn names(entity: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(entity).ok()?.split_once('\0')
}

/// The id at the end of an entity's key.
pub fn entity_id(entity: &[u8]) -> Option<EntityId> {
    EntityId::parse(names(entity)?.1).ok()
}

/// All keys that are `key`, a zero byte and more.
pub fn below(key: &[u8]) -> Range<Vec<u8>> {
    [key, &[END]].concat()..[key, &[PAST_END]].concat()
}

/// `type \0 id \0 feature \0 event time, version`, in the order of records.
pub fn superseded(feature: &[u8], event_time: Timestamp, version: Version) -> Vec<u8> {
    [feature, &[END], &ordered_time(event_time), &version.to_be_bytes()].concat()
}

/// The event time in a key that [`superseded`] made.
pub fn event_time(superseded: &[u8]) -> Option<Timestamp> {
    let (rest, _version) = superseded.split_last_chunk::<8>()?;
    let (_, time) = rest.split_last_chunk::<8>()?;
    parse_ordered_time(*time)
}

/// `time, entity or provenance id`, for the indexes of what is due when.
pub fn due(time: Timestamp, of: &[u8]) -> Vec<u8> {
    [&ordered_time(time), of].concat()
}

/// Everything that is due at `now`.
pub fn due_at(now: Timestamp) -> std::ops::RangeTo<Vec<u8>> {
    let past = (ordered_number(now) + 1).to_be_bytes();
    ..past.to_vec()
}

/// Reads what [`due`] wrote.
pub fn parse_due(key: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (time, of) = key.split_first_chunk::<8>()?;
    Some((parse_ordered_time(*time)?, of))
}

/// `service \0 time, id`, in the order of a log's entries.
pub fn logged(service: &str, at: Timestamp, id: u64) -> Vec<u8> {
    [service.as_bytes(), &[END], &ordered_time(at), &id.to_be_bytes()].concat()
}

/// The feature service in a key that [`logged`] made.
pub fn log(logged: &[u8]) -> Option<&str> {
    let end = logged.iter().position(|byte| *byte == END)?;
    std::str::from_utf8(&logged[..end]).ok()
}

/// The time in a key that [`logged`] made.
pub fn logged_at(logged: &[u8]) -> Option<Timestamp> {
    event_time(logged)
}

/// The id in a key that [`logged`] made.
pub fn logged_id(logged: &[u8]) -> Option<u64> {
    logged.last_chunk::<8>().map(|id| u64::from_be_bytes(*id))
}

const SIGN: u64 = 1 << 63;

fn ordered_number(time: Timestamp) -> u64 {
    time.as_micros() as u64 ^ SIGN
}

fn ordered_time(time: Timestamp) -> [u8; 8] {
    ordered_number(time).to_be_bytes()
}

fn parse_ordered_time(bytes: [u8; 8]) -> Option<Timestamp> {
    Timestamp::from_micros((u64::from_be_bytes(bytes) ^ SIGN) as i64)
}
