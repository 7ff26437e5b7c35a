//! The store contract on a Redis server and on a Redis Cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use feature_store::store::Store;
use feature_store::store::redis::{RedisConfig, RedisStore};

use crate::redis_process::{Durability, RedisCluster, RedisServer};

/// A store of its own on a shared server, by its key prefix.
pub async fn fresh_store(url: &str) -> Arc<dyn Store> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let key_prefix = format!("case{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let config = RedisConfig { url: url.to_owned(), pool_size: 2, key_prefix, ..RedisConfig::default() };
    Arc::new(RedisStore::connect(config).await.expect("the configuration is right"))
}

crate::contract_tests!(on RedisServer::start(Durability::None), as a_redis_server_keeps_the_contract);
crate::contract_tests!(on RedisCluster::start(), as a_redis_cluster_keeps_the_contract);
