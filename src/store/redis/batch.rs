//! Writes: one script run per item, one pipeline per node, each item with a result of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fred::error::Error;
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::types::Value;
use fred::types::config::Server;
use futures::future::join_all;

use super::connect::Links;
use super::errors::{is_noscript, of_key, store_error, unexpected};
use super::link::{Link, command, send};
use super::script::{By, Script};
use crate::store::StoreError;

/// One run of a script.
pub(super) struct Item {
    pub slot: u16,
    /// The key to name in errors.
    pub key: Bytes,
    /// What follows the script in the request: number of keys, keys, arguments.
    pub args: Vec<Value>,
}

/// What a script answered, and whether enough replicas have it.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub answer: Value,
    pub replicated: Result<(), StoreError>,
}

impl Ran {
    pub fn replicated(self) -> Result<Value, StoreError> {
        self.replicated.map(|()| self.answer)
    }
}

/// How many replicas must have a write, and how long that may take.
#[derive(Clone, Copy)]
pub(super) struct Replication {
    pub replicas: u32,
    pub timeout: Duration,
}

enum Attempt {
    NoScript,
    Ended(Result<Ran, StoreError>),
}

/// Runs `script` for each of `count` items.
///
/// What happens when an answer is lost: an item is sent at most once (see [`Link`]), so after
/// `Timeout` or `Unavailable` it was carried out once or not at all; or, if it still lay in the
/// client's queue, it may be carried out shortly after the connection is back. A commit then still
/// compares the head, so it does nothing to an entity that went on meanwhile. No commit is ever
/// reported as a conflict that it caused itself. Whoever repeats a write loads the entity anew and
/// finds its event there, `unchanged`, or not there.
///
/// With replicas to wait for, `WAIT` follows in the same pipeline and so on the same connection:
/// if that breaks in between, the items fail. Where a slot is moving between nodes of a cluster at
/// that very moment, the wait may be for the replicas of the node that it leaves.
pub(super) async fn run_each(
    links: &Links,
    replication: &Replication,
    script: &Script,
    count: usize,
    item: impl Fn(usize) -> Item + Sync,
) -> Vec<Result<Ran, StoreError>> {
    let mut results: Vec<Option<Result<Ran, StoreError>>> = vec![None; count];
    let mut open: Vec<(usize, Item)> = (0..count).map(|index| (index, item(index))).collect();
    for by in [By::Digest, By::Source] {
        let link = match links.get() {
            Ok(link) => link,
            Err(error) => {
                for (index, _) in open.drain(..) {
                    results[index] = Some(Err(error.clone()));
                }
                break;
            }
        };
        let groups = group_by_node(links, link, std::mem::take(&mut open));
        let runs = groups.into_values().map(|group| run_group(link, replication, script, by, group));
        for (index, attempt) in join_all(runs).await.into_iter().flatten() {
            match attempt {
                // It was not run, so it may be sent again, this time with the script.
                Attempt::NoScript => open.push((index, item(index))),
                Attempt::Ended(result) => results[index] = Some(result),
            }
        }
        if open.is_empty() {
            break;
        }
    }
    let missing = || Err(StoreError::Internal("redis knows no script that it was just sent".to_owned()));
    results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
}

/// A node that fails must not take the items of other nodes with it, as it would if they shared a
/// pipeline.
fn group_by_node(
    links: &Links,
    link: &Link,
    items: Vec<(usize, Item)>,
) -> BTreeMap<Option<Server>, Vec<(usize, Item)>> {
    let several = links.is_cluster() && items.len() > 1;
    let routing = if several { link.client().cached_cluster_state() } else { None };
    let mut groups: BTreeMap<Option<Server>, Vec<(usize, Item)>> = BTreeMap::new();
    for (index, item) in items {
        let node = routing.as_ref().and_then(|routing| routing.get_server(item.slot).cloned());
        groups.entry(node).or_default().push((index, item));
    }
    groups
}

async fn run_group(
    link: &Link,
    replication: &Replication,
    script: &Script,
    by: By,
    mut group: Vec<(usize, Item)>,
) -> Vec<(usize, Attempt)> {
    let words = |item: Item| -> Vec<Value> { std::iter::once(script.named(by)).chain(item.args).collect() };
    let wait = replication.replicas > 0;
    if !wait
        && group.len() == 1
        && let Some((index, item)) = group.pop()
    {
        let key = item.key.clone();
        let result = link.command(by.command(), item.slot, words(item)).await;
        return vec![(index, attempted(result, &key, Ok(())))];
    }
    // Not bound to the node: routed by slot, an item finds its way should the slot have moved.
    let pipeline = link.pipeline();
    let mut sent = Vec::with_capacity(group.len());
    let mut slot = 0;
    for (index, item) in group {
        sent.push((index, item.key.clone()));
        slot = item.slot;
        // In a pipeline this only queues the command.
        let _ = pipeline.custom::<Value, _>(command(by.command(), slot), words(item)).await;
    }
    if wait {
        let args = vec![
            Value::Integer(i64::from(replication.replicas)),
            Value::Integer(replication.timeout.as_millis() as i64),
        ];
        let _ = pipeline.custom::<Value, _>(command("WAIT", slot), args).await;
    }
    let mut results = send(&pipeline, sent.len() + usize::from(wait)).await;
    let replicated = if wait { replicated(replication, results.pop()) } else { Ok(()) };
    let results = results.into_iter().zip(sent);
    results.map(|(result, (index, key))| (index, attempted(result, &key, replicated.clone()))).collect()
}

fn attempted(result: Result<Value, Error>, key: &Bytes, replicated: Result<(), StoreError>) -> Attempt {
    match result {
        Err(error) if is_noscript(&error) => Attempt::NoScript,
        Err(error) => Attempt::Ended(Err(of_key(error, key))),
        Ok(answer) => Attempt::Ended(Ok(Ran { answer, replicated })),
    }
}

fn replicated(wanted: &Replication, waited: Option<Result<Value, Error>>) -> Result<(), StoreError> {
    let wanted = i64::from(wanted.replicas);
    match waited {
        Some(Ok(Value::Integer(got))) if got >= wanted => Ok(()),
        Some(Ok(Value::Integer(got))) => {
            Err(StoreError::Interrupted(format!("only {got} of {wanted} replicas have the write so far")))
        }
        Some(Err(error)) => Err(match store_error(error) {
            // The write before it was carried out.
            StoreError::Unavailable(reason) => StoreError::Interrupted(reason),
            error => error,
        }),
        _ => Err(unexpected("WAIT")),
    }
}
