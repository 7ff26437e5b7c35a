//! Several commits as one run of a script: each would be a system call here and one there, and the
//! server takes longer to begin a script than to carry out a small commit.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fred::types::Value;

use super::batch::{Item, Ran, Replication, run_each};
use super::connect::Links;
use super::gather::Together;
use super::reply;
use super::script::Scripts;
use crate::store::StoreError;

/// Nobody else is served while a script runs: this many commits take about half a millisecond.
const ITEMS: usize = 32;
/// Likewise, where the items are large.
const BYTES: usize = 64 << 10;

/// Runs commits.
pub(super) struct Commits {
    pub links: Arc<Links>,
    pub replication: Replication,
    pub scripts: Arc<Scripts>,
}

/// One commit.
#[derive(Clone)]
pub(super) struct CommitItem {
    pub slot: u16,
    /// The main hash.
    pub key: Bytes,
    pub packed: Bytes,
}

impl Together for Commits {
    type Ask = CommitItem;
    type Answer = Result<Ran, StoreError>;
    const MOST: usize = ITEMS;

    async fn run(&self, items: Vec<CommitItem>) -> Result<Vec<Self::Answer>, StoreError> {
        Ok(self.run_all(&items).await)
    }

    /// In a cluster, whose nodes refuse a script that touches several slots, nothing is won.
    fn stays_alone(&self) -> bool {
        self.links.is_cluster()
    }
}

impl Commits {
    async fn run_all(&self, items: &[CommitItem]) -> Vec<Result<Ran, StoreError>> {
        if self.links.is_cluster() || items.len() < 2 {
            return self.run_each(items).await;
        }
        let groups = groups(items.iter().map(|item| item.packed.len()));
        let together = |index: usize| join(&items[groups[index].clone()]);
        let script = &self.scripts.commit_several;
        let runs = run_each(&self.links, &self.replication, script, groups.len(), together).await;
        let mut results: Vec<Option<Result<Ran, StoreError>>> = vec![None; items.len()];
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
        let left: Vec<usize> = (0..items.len()).filter(|index| results[*index].is_none()).collect();
        if !left.is_empty() {
            let by_themselves: Vec<CommitItem> = left.iter().map(|index| items[*index].clone()).collect();
            for (index, run) in left.iter().zip(self.run_each(&by_themselves).await) {
                results[*index] = Some(run);
            }
        }
        let missing = || Err(StoreError::Internal("an item has no result".to_owned()));
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }

    async fn run_each(&self, items: &[CommitItem]) -> Vec<Result<Ran, StoreError>> {
        let alone = |index: usize| join(&items[index..=index]);
        run_each(&self.links, &self.replication, &self.scripts.commit, items.len(), alone).await
    }
}

/// Neighbours that go together, by their sizes.
fn groups(sizes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (index, size) in sizes.enumerate() {
        sum += size;
        match groups.last_mut() {
            Some(group) if group.len() < ITEMS && sum <= BYTES => group.end = index + 1,
            _ => {
                groups.push(index..index + 1);
                sum = size;
            }
        }
    }
    groups
}

/// The keys of all items, then what is to be done with each.
fn join(items: &[CommitItem]) -> Item {
    let mut args = Vec::with_capacity(1 + 2 * items.len());
    args.push(Value::Integer(items.len() as i64));
    args.extend(items.iter().map(|item| Value::Bytes(item.key.clone())));
    args.extend(items.iter().map(|item| Value::Bytes(item.packed.clone())));
    let (slot, key) = items.first().map(|item| (item.slot, item.key.clone())).unwrap_or_default();
    Item { slot, key, args }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_by_items_and_by_bytes() {
        let groups = |count: usize, size: fn(usize) -> usize| groups((0..count).map(size));
        assert!(groups(0, |_| 1).is_empty());
        assert_eq!(groups(70, |_| 1), [0..32, 32..64, 64..70]);
        assert_eq!(groups(4, |_| BYTES / 2), [0..2, 2..4]);
        assert_eq!(groups(3, |index| if index == 1 { 2 * BYTES } else { 1 }), [0..1, 1..2, 2..3]);
    }
}
