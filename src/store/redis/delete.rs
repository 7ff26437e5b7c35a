//! Deletion of entities, each on the condition that it is still what it was.
//!
//! A request that timed out may lie in a queue of the client or in a buffer of a server that hangs,
//! and be carried out when nobody expects it any more. A delete without a condition would then take
//! along what was written and acknowledged meanwhile.

use bytes::Bytes;
use fred::interfaces::ClientLike;
use fred::types::Value;

use super::RedisStore;
use super::batch::{Item, run_each};
use super::errors::{of_key, unexpected};
use super::keys::{EntityKeys, HEAD};
use super::link::{command, send};
use super::reply;
use crate::domain::name::EntityKey;
use crate::store::StoreError;

/// So often a delete is tried anew where others write the entity at the same time.
const ATTEMPTS: usize = 64;

impl RedisStore {
    pub(super) async fn delete_all(&self, entities: &[EntityKey]) -> Result<Vec<bool>, StoreError> {
        let keys: Vec<EntityKeys> = entities.iter().map(|entity| self.keys.entity(entity)).collect();
        let mut deleted = vec![false; keys.len()];
        let mut left: Vec<usize> = (0..keys.len()).collect();
        for _ in 0..ATTEMPTS {
            if left.is_empty() {
                return Ok(deleted);
            }
            let heads = self.heads(left.iter().map(|index| &keys[*index])).await?;
            let item = |position: usize| {
                let keys = &keys[left[position]];
                let args = vec![
                    Value::Integer(2),
                    Value::Bytes(keys.main.clone()),
                    Value::Bytes(keys.large.clone()),
                    Value::Bytes(heads[position].clone()),
                ];
                Item { slot: keys.slot, key: keys.main.clone(), args }
            };
            let script = &self.scripts.delete;
            let runs = run_each(&self.links, &self.replication, script, left.len(), item).await;
            let mut changed = Vec::new();
            for (index, run) in left.into_iter().zip(runs) {
                match run?.replicated()? {
                    Value::Integer(-1) => changed.push(index),
                    answer => deleted[index] = answer == Value::Integer(1),
                }
            }
            left = changed;
        }
        Err(StoreError::Unavailable("an entity to delete is being written all the time".to_owned()))
    }

    /// The heads as they are stored; empty where there is none.
    async fn heads<'a>(
        &self,
        entities: impl ExactSizeIterator<Item = &'a EntityKeys>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let pipeline = self.links.get()?.pipeline();
        let keys: Vec<&EntityKeys> = entities.collect();
        for keys in &keys {
            // In a pipeline this only queues the command.
            let args = vec![Value::Bytes(keys.main.clone()), Value::from_static_str(HEAD)];
            let _: Result<Value, _> = pipeline.custom(command("HGET", keys.slot), args).await;
        }
        let replies = send(&pipeline, keys.len()).await;
        let head = |(reply, keys): (Result<Value, _>, &EntityKeys)| match reply {
            Ok(Value::Null) => Ok(Bytes::new()),
            Ok(reply) => reply::bytes(reply).ok_or_else(|| unexpected("HGET")),
            Err(error) => Err(of_key(error, &keys.main)),
        };
        replies.into_iter().zip(keys).map(head).collect()
    }
}
