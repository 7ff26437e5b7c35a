//! The ids of an entity type, each once, however often the store lists it.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::error::ServiceError;
use crate::domain::name::{EntityId, EntityType};
use crate::store::Store;

/// Ids asked of the store at a time.
const PAGE: usize = 1000;
/// So many ids are remembered at most, in about 70 MB. A store that lists an id again after more than
/// so many others has it walked twice, unless the walk is in order.
const REMEMBERED: usize = 3_600_000;

/// Which entities are walked.
pub enum Walk {
    /// Those that were named.
    Named(VecDeque<EntityId>),
    /// All, as the store lists them.
    Listed { listing: Listing, seen: Seen },
    /// All, in the order of their ids, for which all of them have to be gathered first.
    Gathered { listing: Listing, sorted: bool },
}

/// A listing that is under way.
#[derive(Default)]
pub struct Listing {
    found: VecDeque<EntityId>,
    cursor: Option<String>,
    ended: bool,
}

impl Walk {
    pub fn named(mut ids: Vec<EntityId>, ordered: bool) -> Self {
        if ordered {
            ids.sort_unstable();
        }
        let mut once = HashSet::with_capacity(ids.len());
        Self::Named(ids.into_iter().filter(|id| once.insert(id.clone())).collect())
    }

    pub fn all(ordered: bool) -> Self {
        match ordered {
            true => Self::Gathered { listing: Listing::default(), sorted: false },
            false => Self::Listed { listing: Listing::default(), seen: Seen::default() },
        }
    }

    /// At most `limit` further ids; none at the end.
    pub async fn next(
        &mut self,
        store: &dyn Store,
        entity_type: &EntityType,
        limit: usize,
    ) -> Result<Vec<EntityId>, ServiceError> {
        let found = match self {
            Self::Named(ids) => ids,
            Self::Listed { listing, seen } => {
                while listing.found.len() < limit && !listing.ended {
                    let known = listing.found.len();
                    listing.list(store, entity_type).await?;
                    let fresh: Vec<_> = listing.found.drain(known..).filter(|id| seen.insert(id)).collect();
                    listing.found.extend(fresh);
                }
                &mut listing.found
            }
            Self::Gathered { listing, sorted } => {
                while !listing.ended {
                    listing.list(store, entity_type).await?;
                }
                if !*sorted {
                    *sorted = true;
                    let mut ids = Vec::from(std::mem::take(&mut listing.found));
                    ids.sort_unstable();
                    ids.dedup();
                    listing.found = ids.into();
                }
                &mut listing.found
            }
        };
        Ok(found.drain(..limit.min(found.len())).collect())
    }

    /// Asks the store once, so that one that does not answer is noticed early.
    pub async fn begin(&mut self, store: &dyn Store, entity_type: &EntityType) -> Result<(), ServiceError> {
        match self {
            Self::Gathered { listing, .. } => listing.list(store, entity_type).await,
            Self::Named(_) | Self::Listed { .. } => Ok(()),
        }
    }
}

impl Listing {
    async fn list(&mut self, store: &dyn Store, entity_type: &EntityType) -> Result<(), ServiceError> {
        let page = store.list(entity_type, self.cursor.as_deref(), PAGE).await?;
        let Some(page) = page else {
            return Err(ServiceError::Internal("the store does not know its own cursor".to_owned()));
        };
        self.found.extend(page.entity_ids);
        self.cursor = page.next_cursor;
        self.ended = self.cursor.is_none();
        Ok(())
    }
}

/// Which ids were there already, by 128 bits of each: that two ids share them does not happen.
#[derive(Default)]
pub struct Seen {
    hashers: [RandomState; 2],
    prints: HashSet<u128>,
}

impl Seen {
    /// Whether the id is new.
    fn insert(&mut self, id: &EntityId) -> bool {
        if self.prints.len() >= REMEMBERED {
            self.prints.clear();
        }
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.hashers[half].hash_one(id)));
        self.prints.insert(high << 64 | low)
    }
}
