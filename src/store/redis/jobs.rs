//! The notes of jobs: one hash for all of them, since they are few.

use fred::types::Value as Argument;

use super::RedisStore;
use super::errors::{corrupt, of_key};
use super::reply;
use crate::store::StoreError;

impl RedisStore {
    pub(super) async fn write_job(&self, id: &str, note: &str) -> Result<(), StoreError> {
        self.on_jobs("HSET", vec![Argument::from(id), Argument::from(note)]).await.map(drop)
    }

    pub(super) async fn read_jobs(&self) -> Result<Vec<(String, String)>, StoreError> {
        let reply = self.on_jobs("HGETALL", Vec::new()).await?;
        let pairs = reply::pairs(reply).ok_or_else(|| corrupt(&self.keys.jobs(), "", "text is expected"))?;
        Ok(pairs.into_iter().map(|(id, note)| (id.to_string(), note.to_string())).collect())
    }

    pub(super) async fn remove_jobs(&self, ids: &[String]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.iter().map(|id| Argument::from(id.as_str())).collect();
        self.on_jobs("HDEL", ids).await.map(drop)
    }

    async fn on_jobs(&self, command: &'static str, args: Vec<Argument>) -> Result<Argument, StoreError> {
        let key = self.keys.jobs();
        let slot = fred::util::redis_keyslot(&key);
        let mut all = vec![Argument::Bytes(key.clone())];
        all.extend(args);
        self.links.get()?.command(command, slot, all).await.map_err(|error| of_key(error, &key))
    }
}
