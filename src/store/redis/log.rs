//! The logs of what was served: a sorted set each, score = time in microseconds, member = time and id
//! in eight bytes each, and the entry. It expires as a whole when nobody appends to it any more.

use bytes::Bytes;
use fred::types::Value as Argument;

use super::RedisStore;
use super::errors::{corrupt, of_key, unexpected};
use super::reply;
use crate::domain::name::FeatureServiceName;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::log::{LogBounds, LogEntry, LogRange};

impl RedisStore {
    pub(super) async fn write_log(
        &self,
        log: &FeatureServiceName,
        entries: &[LogEntry],
        bounds: LogBounds,
    ) -> Result<(), StoreError> {
        let mut members = Vec::with_capacity(entries.len() * 2);
        for entry in entries {
            let micros = entry.at.as_micros();
            let member = [&micros.to_be_bytes(), &entry.id.to_be_bytes(), entry.body.as_ref()].concat();
            members.extend([Argument::from(micros.to_string()), Argument::Bytes(member.into())]);
        }
        self.on_log(log, "ZADD", members).await?;
        let until = bounds.until.as_millis().to_string();
        self.on_log(log, "PEXPIREAT", vec![Argument::from(until)]).await?;
        let old = vec![Argument::from("-inf"), Argument::from(format!("({}", bounds.since.as_micros()))];
        self.on_log(log, "ZREMRANGEBYSCORE", old).await?;
        // The rank before those that stay, from the end.
        let surplus = -1 - i64::try_from(bounds.most).unwrap_or(i64::MAX - 1);
        self.on_log(log, "ZREMRANGEBYRANK", vec![Argument::from("0"), Argument::from(surplus.to_string())])
            .await
            .map(drop)
    }

    pub(super) async fn entries_of_log(
        &self,
        log: &FeatureServiceName,
        range: LogRange,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let args = [
            range.from.as_micros().to_string(),
            format!("({}", range.to.as_micros()),
            "LIMIT".to_owned(),
            range.skip.to_string(),
            limit.to_string(),
        ];
        let reply = self.on_log(log, "ZRANGEBYSCORE", args.map(Argument::from).to_vec()).await?;
        let members = reply::array(reply).ok_or_else(|| unexpected("a range of a log"))?;
        let key = self.keys.log(log);
        let entry = |member| {
            let entry = reply::bytes(member).and_then(parse);
            entry.ok_or_else(|| corrupt(&key, "", "this is no entry of a log"))
        };
        members.into_iter().map(entry).collect()
    }

    pub(super) async fn remove_log(&self, log: &FeatureServiceName) -> Result<(), StoreError> {
        self.on_log(log, "UNLINK", Vec::new()).await.map(drop)
    }

    async fn on_log(
        &self,
        log: &FeatureServiceName,
        command: &'static str,
        args: Vec<Argument>,
    ) -> Result<Argument, StoreError> {
        let key = self.keys.log(log);
        let slot = fred::util::redis_keyslot(&key);
        let mut all = vec![Argument::Bytes(key.clone())];
        all.extend(args);
        self.links.get()?.command(command, slot, all).await.map_err(|error| of_key(error, &key))
    }
}

fn parse(member: Bytes) -> Option<LogEntry> {
    let (at, rest) = member.split_first_chunk::<8>()?;
    let (id, _) = rest.split_first_chunk::<8>()?;
    let at = Timestamp::from_micros(i64::from_be_bytes(*at))?;
    Some(LogEntry { at, id: u64::from_be_bytes(*id), body: member.slice(16..) })
}
