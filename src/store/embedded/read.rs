//! Reads of entities, each in one transaction and so of one moment.

use std::fmt::Write as _;

use foldhash::HashMap;
use redb::{ReadOnlyTable, ReadTransaction, TableDefinition};

use super::commit::range_of;
use super::entity::{StoredCurrent, StoredEntity, StoredFeature};
use super::fault::Fault;
use super::history;
use super::key;
use super::tables::{ENTITIES, HISTORY, LARGE};
use crate::domain::envelope::{decode_current, decode_superseded};
use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use crate::domain::record::{Current, EntityRecords, FeatureRecords, Record};
use crate::domain::value::FeatureType;
use crate::store::{Load, Page};

/// More look-ups than this in one call are made on a thread that may block: at a microsecond or
/// two each, they would hold up whatever else the caller's thread serves.
pub const LONG: usize = 1000;

pub fn is_long(loads: &[Load<'_>]) -> bool {
    let lookups = |load: &Load<'_>| if load.history { 1 + load.features.len() } else { 1 };
    loads.iter().map(lookups).sum::<usize>() > LONG
}

/// Loads that can be sent to another thread.
pub struct OwnedLoads(Vec<OwnedLoad>);

struct OwnedLoad {
    entity: EntityKey,
    features: Vec<(FeatureName, FeatureType)>,
    history: bool,
}

impl OwnedLoads {
    pub fn new(loads: &[Load<'_>]) -> Self {
        let own = |load: &Load<'_>| OwnedLoad {
            entity: load.entity.clone(),
            features: load.features.to_vec(),
            history: load.history,
        };
        Self(loads.iter().map(own).collect())
    }

    pub fn load(&self, transaction: &ReadTransaction) -> Result<Vec<EntityRecords>, Fault> {
        let loads: Vec<Load<'_>> = self
            .0
            .iter()
            .map(|OwnedLoad { entity, features, history }| Load { entity, features, history: *history })
            .collect();
        load(transaction, &loads)
    }
}

type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

pub fn load(transaction: &ReadTransaction, loads: &[Load<'_>]) -> Result<Vec<EntityRecords>, Fault> {
    let mut reader =
        Reader { transaction, entities: transaction.open_table(ENTITIES)?, large: None, history: None };
    loads.iter().map(|load| reader.load(load)).collect()
}

struct Reader<'t> {
    transaction: &'t ReadTransaction,
    entities: BytesTable,
    // Most reads want neither.
    large: Option<BytesTable>,
    history: Option<BytesTable>,
}

impl Reader<'_> {
    fn load(&mut self, load: &Load<'_>) -> Result<EntityRecords, Fault> {
        let key = key::entity(load.entity);
        let Some(guard) = self.entities.get(key.as_slice())? else {
            let absent = FeatureRecords { current: None, history: load.history.then(Vec::new) };
            return Ok(EntityRecords { head: None, features: vec![absent; load.features.len()] });
        };
        let entity = StoredEntity::decode(guard.value());
        let entity = entity.map_err(|reason| Fault::corrupt(&key, "", reason))?;
        let mut histories =
            if load.history { self.histories(&key, &entity, load)? } else { Vec::new() }.into_iter();
        let features = load.features.iter().map(|(name, _)| {
            let stored = entity.feature(name.as_str());
            Ok(FeatureRecords {
                current: stored.map_or(Ok(None), |stored| self.current(&key, &entity, stored))?,
                history: histories.next(),
            })
        });
        Ok(EntityRecords { head: Some(entity.head), features: features.collect::<Result<_, Fault>>()? })
    }

    fn current(
        &mut self,
        key: &[u8],
        entity: &StoredEntity,
        stored: &StoredFeature,
    ) -> Result<Option<Current>, Fault> {
        let created_at = entity.head.created_at;
        let decoded = match stored.current {
            StoredCurrent::Nowhere => return Ok(None),
            StoredCurrent::Here(envelope) => decode_current(envelope, created_at),
            StoredCurrent::Large => {
                let guard = opened(&mut self.large, self.transaction, LARGE)?
                    .get(key::feature(key, stored.name).as_slice())?;
                let guard = guard.ok_or_else(|| Fault::corrupt(key, stored.name, "its value is missing"))?;
                decode_current(guard.value(), created_at)
            }
        };
        decoded.map(Some).map_err(|reason| Fault::corrupt(key, stored.name, reason))
    }

    /// Of each feature, newest event first.
    fn histories(
        &mut self,
        key: &[u8],
        entity: &StoredEntity,
        load: &Load<'_>,
    ) -> Result<Vec<Vec<Record>>, Fault> {
        let mut histories = vec![Vec::new(); load.features.len()];
        let mut places: HashMap<&str, usize> = HashMap::default();
        let table = opened(&mut self.history, self.transaction, HISTORY)?;
        for (place, (name, _)) in load.features.iter().enumerate() {
            let Some(history) = entity.feature(name.as_str()).and_then(|stored| stored.history) else {
                continue;
            };
            places.insert(name.as_str(), place);
            if history.alone {
                let range = key::below(&key::feature(key, name.as_str()));
                for entry in table.range::<&[u8]>(range_of(&range))? {
                    let (at, envelope) = entry?;
                    histories[place].push(record(key, name.as_str(), at.value(), envelope.value())?);
                }
            }
        }
        if !places.is_empty() {
            let range = key::below(&key::feature(key, ""));
            for entry in table.range::<&[u8]>(range_of(&range))? {
                let (at, row) = entry?;
                for part in history::parts(row.value()) {
                    let (name, envelope) =
                        part.ok_or_else(|| Fault::corrupt(key, "", "a row of its history cannot be read"))?;
                    if let Some(place) = places.get(name) {
                        histories[*place].push(record(key, name, at.value(), envelope)?);
                    }
                }
            }
        }
        for history in &mut histories {
            history.sort_by_key(|record| std::cmp::Reverse(record.order()));
        }
        Ok(histories)
    }
}

/// A superseded record, whose event time is in its key.
fn record(entity: &[u8], feature: &str, key: &[u8], envelope: &[u8]) -> Result<Record, Fault> {
    let time = key::event_time(key)
        .ok_or_else(|| Fault::corrupt(entity, feature, "a key of its history holds no time"))?;
    decode_superseded(time, envelope).map_err(|reason| Fault::corrupt(entity, feature, reason))
}

fn opened<'s>(
    slot: &'s mut Option<BytesTable>,
    transaction: &ReadTransaction,
    definition: TableDefinition<&'static [u8], &'static [u8]>,
) -> Result<&'s BytesTable, Fault> {
    match slot {
        Some(table) => Ok(table),
        None => Ok(slot.insert(transaction.open_table(definition)?)),
    }
}

/// Lists in the order of the ids' bytes. The cursor is the last id, in hexadecimal.
pub fn list(
    transaction: &ReadTransaction,
    entity_type: &EntityType,
    after: Option<&EntityId>,
    limit: usize,
) -> Result<Page, Fault> {
    let range = key::entities_of(entity_type, after);
    let mut page = Page::default();
    for entry in transaction.open_table(ENTITIES)?.range::<&[u8]>(range_of(&range))? {
        let (key, _) = entry?;
        if page.entity_ids.len() == limit.max(1) {
            page.next_cursor = page.entity_ids.last().map(cursor);
            break;
        }
        let id = key::entity_id(key.value());
        page.entity_ids
            .push(id.ok_or_else(|| Fault::corrupt(key.value(), "", "its key holds no entity id"))?);
    }
    Ok(page)
}

fn cursor(id: &EntityId) -> String {
    id.as_str().bytes().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn parse_cursor(text: &str) -> Option<EntityId> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
        return None;
    }
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
    EntityId::parse(std::str::from_utf8(&bytes).ok()?).ok()
}
