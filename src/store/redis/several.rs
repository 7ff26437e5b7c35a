//! Several runs of a script as one: a batch on one server is a few commands instead of one an item,
//! each of which would be a system call here and one there.

use std::ops::Range;

use fred::types::Value;

use super::RedisStore;
use super::batch::{Item, Ran, run_each};
use super::reply;
use super::script::Script;
use crate::store::StoreError;

/// Nobody else is served while a script runs: this many commits take about half a millisecond.
const ITEMS: usize = 32;
/// Likewise, where the items are large.
const ARGUMENTS: usize = 4000;

impl RedisStore {
    /// As [`run_each`], by `several` where that can be: not in a cluster, whose nodes refuse a
    /// script that touches several slots. `arguments` says about how many an item has.
    pub(super) async fn run_together(
        &self,
        one: &Script,
        several: &Script,
        count: usize,
        arguments: impl Fn(usize) -> usize,
        item: impl Fn(usize) -> Item + Sync,
    ) -> Vec<Result<Ran, StoreError>> {
        if self.links.is_cluster() || count < 2 {
            return run_each(&self.links, &self.replication, one, count, item).await;
        }
        let groups = groups(count, arguments);
        let grouped = |index: usize| join(groups[index].clone().map(&item));
        let runs = run_each(&self.links, &self.replication, several, groups.len(), grouped).await;
        let mut results: Vec<Option<Result<Ran, StoreError>>> = vec![None; count];
        for (group, run) in groups.iter().zip(runs) {
            let results = &mut results[group.clone()];
            match run {
                Ok(Ran { answer, replicated }) => {
                    let outcomes = reply::array(answer).unwrap_or_default();
                    for (result, answer) in results.iter_mut().zip(outcomes) {
                        *result = Some(Ok(Ran { answer, replicated: replicated.clone() }));
                    }
                }
                // Nothing was carried out, for a reason that may be the first item's own.
                Err(StoreError::Corrupt { .. } | StoreError::Internal(_)) => {}
                Err(
                    error @ (StoreError::Unavailable(_)
                    | StoreError::Interrupted(_)
                    | StoreError::Timeout
                    | StoreError::Crowded),
                ) => {
                    results.fill(Some(Err(error)));
                }
            }
        }
        let left: Vec<usize> = (0..count).filter(|index| results[*index].is_none()).collect();
        if !left.is_empty() {
            let by_itself = |index: usize| item(left[index]);
            let runs = run_each(&self.links, &self.replication, one, left.len(), by_itself).await;
            for (index, run) in left.iter().zip(runs) {
                results[*index] = Some(run);
            }
        }
        let missing = || Err(StoreError::Internal("an item has no result".to_owned()));
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }
}

/// Neighbours that go together.
fn groups(count: usize, arguments: impl Fn(usize) -> usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for index in 0..count {
        sum += arguments(index);
        match groups.last_mut() {
            Some(group) if group.len() < ITEMS && sum <= ARGUMENTS => group.end = index + 1,
            _ => {
                groups.push(index..index + 1);
                sum = arguments(index);
            }
        }
    }
    groups
}

/// Items of one key each, as `several.lua` takes them.
fn join(items: impl Iterator<Item = Item>) -> Item {
    let mut keys = Vec::with_capacity(ITEMS + 1);
    let mut args = Vec::with_capacity(ITEMS * 32);
    let mut first = None;
    for item in items {
        keys.push(Value::Bytes(item.key.clone()));
        // Behind the number of keys and the key.
        args.push(Value::Integer(item.args.len().saturating_sub(2) as i64));
        args.extend(item.args.into_iter().skip(2));
        first.get_or_insert((item.slot, item.key));
    }
    let (slot, key) = first.unwrap_or_default();
    let mut all = Vec::with_capacity(1 + keys.len() + args.len());
    all.push(Value::Integer(keys.len() as i64));
    all.extend(keys);
    all.extend(args);
    Item { slot, key, args: all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_by_items_and_by_arguments() {
        assert!(groups(0, |_| 1).is_empty());
        assert_eq!(groups(70, |_| 1), [0..32, 32..64, 64..70]);
        assert_eq!(groups(4, |_| ARGUMENTS / 2), [0..2, 2..4]);
        assert_eq!(groups(3, |index| if index == 1 { 2 * ARGUMENTS } else { 1 }), [0..1, 1..2, 2..3]);
    }
}
