//! Commits, as `commit.lua` takes them.

use fred::bytes_utils::Str;
use fred::types::Value as Argument;

use super::RedisStore;
use super::batch::{Item, Ran};
use super::errors::unexpected;
use super::keys::HEAD;
use super::rows::NewRows;
use crate::domain::envelope::{encode_current, encode_superseded};
use crate::domain::record::{Commit, CurrentChange, FeatureChange};
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::store::{CommitOutcome, StoreError, head_text};

/// A longer field would turn a small hash from one compact block into a table.
const LARGE_ABOVE: usize = 64;

impl RedisStore {
    pub(super) async fn commit_all(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        let item = |index: usize| self.commit_item(&commits[index]);
        let scripts = &self.scripts;
        let arguments = |index: usize| -> usize {
            let superseded = |change: &FeatureChange| 2 + 2 * change.superseded.len();
            commits[index].changes.iter().map(superseded).sum()
        };
        let (one, several) = (&scripts.commit, &scripts.commit_several);
        let runs = self.run_together(one, several, commits.len(), arguments, item).await;
        let outcome = |run: Result<Ran, StoreError>| match run.map(|ran| (ran.answer, ran.replicated))? {
            (Argument::Integer(1), replicated) => replicated.map(|()| CommitOutcome::Committed),
            (Argument::Integer(0), _) => Ok(CommitOutcome::Conflict),
            _ => Err(unexpected("a commit")),
        };
        runs.into_iter().map(outcome).collect()
    }

    /// The arguments that `commit.lua` describes.
    fn commit_item(&self, commit: &Commit) -> Item {
        let keys = self.keys.entity(&commit.entity);
        let mut main_set = vec![text(HEAD), Argument::String(head_text(&commit.head).into())];
        let mut main_take = Vec::new();
        let mut large_set = Vec::new();
        let mut large_take = Vec::new();
        let new = NewRows::of(commit);
        let mut others = 0;
        let mut other_args = Vec::new();
        for (index, change) in commit.changes.iter().enumerate() {
            let name = || Argument::String(Str::from(change.feature.as_str()));
            match &change.current {
                CurrentChange::Keep => {}
                CurrentChange::Set(current) => {
                    let envelope = encode_current(current, commit.head.created_at);
                    let value = current.record.value.as_ref();
                    if is_large(value, envelope.len()) {
                        large_set.extend([name(), Argument::Bytes(envelope.into())]);
                        main_take.push(name());
                    } else {
                        main_set.extend([name(), Argument::Bytes(envelope.into())]);
                        if may_be_large(value) {
                            large_take.push(name());
                        }
                    }
                }
                CurrentChange::Erase => {
                    main_take.push(name());
                    large_take.push(name());
                }
            }
            let is_new = change.superseded.is_empty() && commit.expected.is_none();
            if is_new || new.as_ref().is_some_and(|new| new.has[index]) {
                // A new entity has no history to cut or to keep longer.
                continue;
            }
            let erased = change.current == CurrentChange::Erase;
            let limit = if erased { 0 } else { change.history_limit.min(u32::MAX as usize) };
            let limit = match change.rewrites_history {
                true => Argument::Integer(-(limit as i64)),
                false => number(limit),
            };
            let added = if limit == Argument::Integer(0) { &[] } else { change.superseded.as_slice() };
            others += 1;
            other_args.extend([name(), limit, until(change.retain_until), number(added.len() * 2)]);
            for record in added {
                other_args.push(Argument::Integer(record.event_timestamp.as_micros()));
                other_args.push(Argument::Bytes(encode_superseded(record).into()));
            }
        }
        if commit.expected.is_none() {
            main_take.clear();
            large_take.clear();
        }
        let lists = [main_set, main_take, large_set, large_take];
        let listed: usize = lists.iter().map(Vec::len).sum();
        let mut args = Vec::with_capacity(12 + listed + other_args.len());
        args.push(number(1));
        args.push(Argument::Bytes(keys.main.clone()));
        args.push(match &commit.expected {
            Some(head) => Argument::String(head_text(head).into()),
            None => text(""),
        });
        args.push(until(commit.retain_until));
        args.extend(lists.iter().map(|list| number(list.len())));
        let rows = match new {
            Some(NewRows { columns, rows, greatest, .. }) => {
                args.extend([number(rows.len()), Argument::String(columns.into()), number(greatest)]);
                rows
            }
            None => {
                args.extend([number(0), text(""), number(0)]);
                Vec::new()
            }
        };
        args.push(number(others));
        args.extend(lists.into_iter().flatten());
        args.extend(rows.into_iter().map(|row| Argument::Bytes(row.into())));
        args.extend(other_args);
        Item { slot: keys.slot, key: keys.main, args }
    }
}

/// Where a value is kept depends on nothing but itself, so that a reader knows where to look.
fn is_large(value: Option<&Value>, envelope_bytes: usize) -> bool {
    match value {
        Some(Value::Embedding(_)) => true,
        Some(Value::String(_) | Value::Json(_) | Value::Null) | None => envelope_bytes > LARGE_ABOVE,
        Some(Value::Boolean(_) | Value::Int64(_) | Value::Float64(_) | Value::Timestamp(_)) => false,
    }
}

/// Whether an earlier value of the same feature may be in the large hash.
fn may_be_large(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Embedding(_) | Value::String(_) | Value::Json(_) | Value::Null) | None => true,
        Some(Value::Boolean(_) | Value::Int64(_) | Value::Float64(_) | Value::Timestamp(_)) => false,
    }
}

fn text(text: &'static str) -> Argument {
    Argument::String(Str::from_static(text))
}

fn number(number: usize) -> Argument {
    Argument::Integer(number as i64)
}

/// A point in time as the scripts take it: milliseconds, or nothing for ever.
pub(super) fn until(time: Option<Timestamp>) -> Argument {
    match time {
        // Rounded up: a key must not go before its time.
        Some(time) => {
            Argument::Integer(time.as_micros().div_euclid(1000) + i64::from(time.as_micros() % 1000 != 0))
        }
        None => text(""),
    }
}
