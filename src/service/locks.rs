//! Writes to one entity inside one process queue up instead of colliding.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::oneshot;

use crate::domain::name::EntityKey;

/// Where turns last longer than this, several of them are not taken: the store has more to do than it can.
/// Whoever collides instead has to load, and loads are what is refused then.
const SLOW: Duration = Duration::from_millis(50);

/// The entities that are being written right now, with those who wait to write them.
#[derive(Clone, Default)]
pub struct EntityLocks(Arc<State>);

#[derive(Default)]
struct State {
    queues: Mutex<Queues>,
    /// Whether what was done last, with several turns or none, took long.
    is_slow: AtomicBool,
}

type Queues = HashMap<EntityKey, VecDeque<oneshot::Sender<Turn>>>;

/// The turn of one writer; ends when dropped, and is the next one's then.
pub struct Turn(Option<(EntityLocks, EntityKey)>);

impl EntityLocks {
    /// Waits for this writer's turn.
    pub async fn turn(&self, entity: &EntityKey) -> Turn {
        let waits = match self.enter(entity) {
            Ok(turn) => return turn,
            Err(waits) => waits,
        };
        // Whoever has the turn passes it on, unless there is nobody any more who could have it.
        waits.await.unwrap_or(Turn(None))
    }

    /// The turns of those entities that nobody is writing, without waiting for the others; where all of
    /// them are being written, it waits for the first. So nobody waits while having a turn. As many as
    /// entities; `None` where turns last too long.
    pub async fn turns<'a>(
        &self,
        mut entities: impl Iterator<Item = &'a EntityKey> + Clone,
    ) -> Option<Vec<Option<Turn>>> {
        if self.0.is_slow.load(Ordering::Relaxed) {
            return None;
        }
        let mut turns: Vec<Option<Turn>> = {
            let mut queues = self.queues();
            let free = entities.clone().map(|entity| match queues.contains_key(entity) {
                true => None,
                false => Some(self.begin(&mut queues, entity)),
            });
            free.collect()
        };
        if let (Some(first), true) = (entities.next(), turns.iter().all(Option::is_none)) {
            turns[0] = Some(self.turn(first).await);
        }
        Some(turns)
    }

    /// How long something took that is done with several turns, or without where turns last too long.
    pub fn took(&self, time: Duration) {
        self.0.is_slow.store(time > SLOW, Ordering::Relaxed);
    }

    fn enter(&self, entity: &EntityKey) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(entity) else { return Ok(self.begin(&mut queues, entity)) };
        let (turn, waits) = oneshot::channel();
        queue.push_back(turn);
        Err(waits)
    }

    fn begin(&self, queues: &mut Queues, entity: &EntityKey) -> Turn {
        queues.insert(entity.clone(), VecDeque::new());
        Turn(Some((self.clone(), entity.clone())))
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        // They are whole between any two calls, so a panic elsewhere does not spoil them.
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut ended = self.0.take();
        while let Some((locks, entity)) = ended.take() {
            let next = {
                let mut queues = locks.queues();
                let next = queues.get_mut(&entity).and_then(VecDeque::pop_front);
                if next.is_none() {
                    queues.remove(&entity);
                }
                next
            };
            // One who gave up does not take it; one who gives up with the turn in hand drops it, and
            // that is again here.
            if let Some(next) = next
                && let Err(mut refused) = next.send(Self(Some((locks, entity))))
            {
                ended = refused.0.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::pin;

    use super::*;
    use crate::domain::name::{EntityId, EntityType};

    fn key(id: &str) -> EntityKey {
        EntityKey::new(EntityType::parse("t").unwrap(), EntityId::parse(id).unwrap())
    }

    fn written(locks: &EntityLocks) -> usize {
        locks.queues().len()
    }

    #[tokio::test]
    async fn one_writer_of_an_entity_at_a_time_and_nothing_is_left_behind() {
        let locks = EntityLocks::default();
        let first = locks.turn(&key("1")).await;
        let other = locks.turn(&key("2")).await;
        {
            let entity = key("1");
            let (second, third) = (locks.turn(&entity), locks.turn(&entity));
            pin!(second, third);
            assert!(poll!(&mut second).is_pending());
            assert!(poll!(&mut third).is_pending());
            drop(first);
            assert!(poll!(&mut third).is_pending(), "in the order they came");
            assert!(poll!(&mut second).is_ready());
            assert!(poll!(&mut third).is_ready(), "the second is done");
        }
        assert_eq!(written(&locks), 1);
        drop(other);
        assert_eq!(written(&locks), 0);
    }

    #[tokio::test]
    async fn whoever_gives_up_holds_up_nobody() {
        let locks = EntityLocks::default();
        let entity = key("1");
        let first = locks.turn(&entity).await;
        let mut waiting: Vec<_> = (0..1000).map(|_| Box::pin(locks.turn(&entity))).collect();
        for turn in &mut waiting {
            assert!(poll!(turn).is_pending());
        }
        let mut last = waiting.pop().unwrap();
        let given = waiting.remove(0);
        waiting.clear();
        drop(first);
        assert!(poll!(&mut last).is_pending(), "it was given to the first one of them");
        drop(given);
        assert!(poll!(&mut last).is_ready());
        drop(last);
        assert_eq!(written(&locks), 0);
    }

    #[tokio::test]
    async fn of_several_those_are_had_that_nobody_writes_and_one_at_least() {
        let locks = EntityLocks::default();
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let held = locks.turn(&a).await;
        let turns = locks.turns([&a, &b, &c].into_iter()).await.unwrap();
        assert_eq!(turns.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
        let waits = locks.turns([&c, &a].into_iter());
        pin!(waits);
        assert!(poll!(&mut waits).is_pending());
        drop(held);
        assert!(poll!(&mut waits).is_pending(), "it waits for the first");
        drop(turns);
        let std::task::Poll::Ready(Some(turns)) = poll!(&mut waits) else { panic!("c is free") };
        assert_eq!(turns.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        drop(turns);
        assert_eq!(written(&locks), 0);
        assert!(locks.turns([].into_iter()).await.unwrap().is_empty());
        locks.took(SLOW * 2);
        assert!(locks.turns([&a].into_iter()).await.is_none());
        locks.took(SLOW / 2);
        assert!(locks.turns([&a].into_iter()).await.is_some());
    }
}
