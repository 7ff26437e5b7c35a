//! Loads that are under way: whoever wants the same meanwhile waits for them, and what was changed
//! meanwhile is not kept.
//!
//! A flight is the marker that is put before reading. A change takes it away, whenever it is heard
//! of, so that what was read before the change can be kept neither before nor after.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;

use super::entry::{Entry, Fields};
use crate::domain::name::EntityKey;
use crate::store::StoreError;

const SHARDS: usize = 64;

/// A load of one entity.
#[derive(Debug)]
pub struct Flight {
    pub entity: EntityKey,
    pub fields: Fields,
    /// `None`: it was given up.
    outcome: SetOnce<Option<Result<Arc<Entry>, StoreError>>>,
}

impl Flight {
    /// What it brought; `None` where it was given up.
    pub async fn outcome(&self) -> Option<Result<Arc<Entry>, StoreError>> {
        self.outcome.wait().await.clone()
    }

    fn brings(&self, fields: &Fields) -> bool {
        Arc::ptr_eq(&self.fields, fields)
            || fields.iter().all(|field| self.fields.iter().any(|other| other == field))
    }
}

/// The flights of a cache.
#[derive(Debug)]
pub struct Flights {
    hasher: RandomState,
    // Few fly at a time, so that a list is searched faster than a table.
    shards: [Mutex<Vec<Arc<Flight>>>; SHARDS],
}

impl Default for Flights {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

/// Whose turn it is to load.
pub enum Turn {
    /// The caller's.
    Lead(Lead),
    /// Somebody else's, to be waited for.
    Wait(Arc<Flight>),
}

/// The duty to end a flight. Dropped before, it gives the flight up.
pub struct Lead {
    flights: Arc<Flights>,
    pub flight: Arc<Flight>,
}

impl Flights {
    fn shard(&self, entity_type: &str, entity_id: &str) -> MutexGuard<'_, Vec<Arc<Flight>>> {
        let hash = self.hasher.hash_one((entity_type, entity_id));
        // A list is never half-changed, so a poisoned lock is as good as any.
        self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_of(&self, entity: &EntityKey) -> MutexGuard<'_, Vec<Arc<Flight>>> {
        self.shard(entity.entity_type.as_str(), entity.entity_id.as_str())
    }

    /// Joins a flight that brings these fields, or starts one.
    pub fn join(self: &Arc<Self>, entity: &EntityKey, fields: &Fields) -> Turn {
        let mut shard = self.shard_of(entity);
        let known = shard.iter().find(|flight| flight.entity == *entity && flight.brings(fields));
        if let Some(flight) = known {
            return Turn::Wait(flight.clone());
        }
        let flight =
            Arc::new(Flight { entity: entity.clone(), fields: fields.clone(), outcome: SetOnce::new() });
        shard.push(flight.clone());
        Turn::Lead(Lead { flights: self.clone(), flight })
    }

    /// Takes the markers of an entity away, and does `also` before anybody can put a new one.
    pub fn forget(&self, entity_type: &str, entity_id: &str, also: impl FnOnce()) {
        let mut shard = self.shard(entity_type, entity_id);
        shard.retain(|flight| {
            flight.entity.entity_id.as_str() != entity_id || flight.entity.entity_type.as_str() != entity_type
        });
        also();
    }

    /// Takes all markers away.
    pub fn forget_all(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

impl Lead {
    /// Ends the flight; `keep` is called if its marker is still there.
    pub fn land(self, outcome: Result<Arc<Entry>, StoreError>, keep: impl FnOnce(&Arc<Entry>)) {
        let flight = &self.flight;
        {
            let mut shard = self.flights.shard_of(&flight.entity);
            if let Some(at) = shard.iter().position(|other| Arc::ptr_eq(other, flight)) {
                shard.swap_remove(at);
                if let Ok(entry) = &outcome {
                    keep(entry);
                }
            }
        }
        // Nobody else sets it.
        let _ = flight.outcome.set(Some(outcome));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.flight.outcome.initialized() {
            self.flights.shard_of(&self.flight.entity).retain(|other| !Arc::ptr_eq(other, &self.flight));
            let _ = self.flight.outcome.set(None);
        }
    }
}
