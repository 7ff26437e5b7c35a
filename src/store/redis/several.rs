//! Several runs of a script as one: a batch on one server is a few commands instead of one an item,
//! each of which would be a system call here and one there.

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
    /// script that touches several slots.
    pub(super) async fn run_together(
        &self,
        one: &Script,
        several: &Script,
        count: usize,
        item: impl Fn(usize) -> Item + Sync,
    ) -> Vec<Result<Ran, StoreError>> {
        if self.links.is_cluster() || count < 2 {
            return run_each(&self.links, &self.replication, one, count, item).await;
        }
        let items: Vec<Item> = (0..count).map(&item).collect();
        let groups: Vec<(usize, &[Item])> = groups(&items).collect();
        let grouped = |index: usize| join(groups[index].1);
        let runs = run_each(&self.links, &self.replication, several, groups.len(), grouped).await;
        let mut results: Vec<Option<Result<Ran, StoreError>>> = vec![None; count];
        for ((first, group), run) in groups.iter().zip(runs) {
            let results = &mut results[*first..*first + group.len()];
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
                    error @ (StoreError::Unavailable(_) | StoreError::Interrupted(_) | StoreError::Timeout),
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

/// Neighbours that go together, with the place of the first.
fn groups(items: &[Item]) -> impl Iterator<Item = (usize, &[Item])> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let rest = items.get(first..).filter(|rest| !rest.is_empty())?;
        let mut arguments = 0;
        let fits = |item: &&Item| {
            arguments += item.args.len();
            arguments <= ARGUMENTS
        };
        let length = rest.iter().take(ITEMS).take_while(fits).count().max(1);
        let group = (first, &rest[..length]);
        first += length;
        Some(group)
    })
}

/// The items, which are of one key each, as `several.lua` takes them.
fn join(items: &[Item]) -> Item {
    let rest = |item: &Item| item.args.len().saturating_sub(2);
    let mut args = Vec::with_capacity(1 + items.iter().map(|item| 2 + rest(item)).sum::<usize>());
    args.push(Value::Integer(items.len() as i64));
    args.extend(items.iter().map(|item| Value::Bytes(item.key.clone())));
    for item in items {
        args.push(Value::Integer(rest(item) as i64));
        args.extend_from_slice(item.args.get(2..).unwrap_or_default());
    }
    let (slot, key) = items.first().map(|item| (item.slot, item.key.clone())).unwrap_or_default();
    Item { slot, key, args }
}
