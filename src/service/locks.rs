//! Writes to one entity inside one process queue up instead of colliding.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::domain::name::EntityKey;

type Queue = Arc<tokio::sync::Mutex<()>>;

/// One queue for each entity that is being written right now.
#[derive(Default)]
pub struct EntityLocks {
    queues: Mutex<HashMap<EntityKey, Queue>>,
}

/// The turn of one writer; ends when dropped.
pub struct Turn<'a> {
    locks: &'a EntityLocks,
    entity: EntityKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl EntityLocks {
    /// Waits for this writer's turn.
    pub async fn turn(&self, entity: &EntityKey) -> Turn<'_> {
        let queue = self.with(|queues| match queues.get(entity) {
            Some(queue) => queue.clone(),
            None => queues.entry(entity.clone()).or_default().clone(),
        });
        let mut turn = Turn { locks: self, entity: entity.clone(), guard: None };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<EntityKey, Queue>) -> T) -> T {
        // The map is whole between any two calls, so a panic elsewhere does not spoil it.
        act(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        self.locks.with(|queues| {
            // Whoever waits holds the queue too; the last one out takes it down.
            if queues.get(&self.entity).is_some_and(|queue| Arc::strong_count(queue) == 1) {
                queues.remove(&self.entity);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::{EntityId, EntityType};

    fn key(id: &str) -> EntityKey {
        EntityKey::new(EntityType::parse("t").unwrap(), EntityId::parse(id).unwrap())
    }

    #[tokio::test]
    async fn one_writer_of_an_entity_at_a_time_and_nothing_is_left_behind() {
        let locks = EntityLocks::default();
        let first = locks.turn(&key("1")).await;
        let _other = locks.turn(&key("2")).await;
        {
            let entity = key("1");
            let waiting = locks.turn(&entity);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(first);
            assert!(futures::poll!(&mut waiting).is_ready());
        }
        assert_eq!(locks.with(|queues| queues.len()), 1);
    }
}
