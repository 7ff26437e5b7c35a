//! Signs of life and of size.

use futures::future::try_join_all;

use fred::bytes_utils::Str;
use fred::interfaces::ClientLike;
use fred::types::Value;
use fred::types::config::Server;

use super::RedisStore;
use super::errors::{store_error, unexpected};
use super::link::{Link, command, send};
use super::reply;
use crate::store::{StoreDescription, StoreError};

impl RedisStore {
    pub(super) async fn ping_all(&self) -> Result<(), StoreError> {
        let link = self.links.get()?;
        try_join_all(nodes(link).iter().map(|node| ask(link, node.as_ref(), "PING"))).await?;
        Ok(())
    }

    /// Of a cluster, the sizes are sums over the primaries, the rest is of the first.
    pub(super) async fn describe_all(&self) -> Result<StoreDescription, StoreError> {
        let mut description = StoreDescription {
            backend: self.links.topology.backend(),
            location: self.links.location.clone(),
            ..StoreDescription::default()
        };
        let link = self.links.get()?;
        let infos = try_join_all(nodes(link).iter().map(|node| ask(link, node.as_ref(), "INFO"))).await?;
        let mut limited = true;
        for (index, info) in infos.into_iter().enumerate() {
            let info = reply::text(info).ok_or_else(|| unexpected("INFO"))?;
            let field = |name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
            };
            let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
            if index == 0 {
                description.server_version = field("redis_version").map(str::to_owned);
                description.role = field("role").map(str::to_owned);
                description.eviction_policy = field("maxmemory_policy").map(str::to_owned);
            }
            let sum = |sum: Option<u64>, part: Option<u64>| Some(sum.unwrap_or(0) + part?);
            description.used_bytes = sum(description.used_bytes, number("used_memory"));
            let limit = number("maxmemory").filter(|limit| *limit > 0);
            limited &= limit.is_some();
            description.max_bytes = sum(description.max_bytes, limit);
        }
        if !limited {
            description.max_bytes = None;
        }
        Ok(description)
    }
}

fn nodes(link: &Link) -> Vec<Option<Server>> {
    match link.primaries() {
        Some(primaries) => primaries.into_iter().map(Some).collect(),
        None => vec![None],
    }
}

async fn ask(link: &Link, node: Option<&Server>, name: &'static str) -> Result<Value, StoreError> {
    let pipeline = link.pipeline_to(node);
    // In a pipeline this only queues the command.
    let _ = pipeline.custom::<Value, Str>(command(name, 0), Vec::new()).await;
    let mut results = send(&pipeline, 1).await;
    results.pop().ok_or_else(|| unexpected(name))?.map_err(store_error)
}
