//! Commits, as `commit.lua` takes them.

use fred::types::Value as Answer;

use super::RedisStore;
use super::batch::Ran;
use super::errors::unexpected;
use super::keys::HEAD;
use super::packed::Packed;
use super::rows::NewRows;
use super::several::CommitItem;
use crate::domain::envelope::{encode_superseded, put_current};
use crate::domain::record::{Commit, CurrentChange};
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::store::{CommitOutcome, StoreError, head_text};

/// A longer field would turn a small hash from one compact block into a table.
const LARGE_ABOVE: usize = 64;

impl RedisStore {
    pub(super) async fn commit_all(&self, commits: &[Commit]) -> Vec<Result<CommitOutcome, StoreError>> {
        let items = commits.iter().map(|commit| self.commit_item(commit)).collect();
        let outcome = |ran: Result<Ran, StoreError>| match ran.map(|ran| (ran.answer, ran.replicated))? {
            (Answer::Integer(1), replicated) => replicated.map(|()| CommitOutcome::Committed),
            (Answer::Integer(0), _) => Ok(CommitOutcome::Conflict),
            _ => Err(unexpected("a commit")),
        };
        match self.commits.call(items).await {
            Ok(runs) => runs.into_iter().map(outcome).collect(),
            Err(error) => vec![Err(error); commits.len()],
        }
    }

    /// A commit as `commit.lua` takes it.
    fn commit_item(&self, commit: &Commit) -> CommitItem {
        let keys = self.keys.entity(&commit.entity);
        let mut main_set = Packed::with_capacity(64 + commit.changes.len() * 40);
        let [mut main_take, mut large_set, mut large_take, mut others] =
            std::array::from_fn(|_| Packed::default());
        main_set.text(HEAD.as_bytes());
        main_set.text(head_text(&commit.head).as_bytes());
        let new = NewRows::of(commit);
        let mut other_histories = 0;
        let mut envelope = Vec::with_capacity(64);
        for (index, change) in commit.changes.iter().enumerate() {
            let name = change.feature.as_str().as_bytes();
            match &change.current {
                CurrentChange::Keep => {}
                CurrentChange::Set(current) => {
                    envelope.clear();
                    put_current(&mut envelope, current, commit.head.created_at);
                    let value = current.record.value.as_ref();
                    if is_large(value, envelope.len()) {
                        large_set.text(name);
                        large_set.text(&envelope);
                        main_take.text(name);
                    } else {
                        main_set.text(name);
                        main_set.text(&envelope);
                        if may_be_large(value) {
                            large_take.text(name);
                        }
                    }
                }
                CurrentChange::Erase => {
                    main_take.text(name);
                    large_take.text(name);
                }
            }
            let is_new = change.superseded.is_empty() && commit.expected.is_none();
            if is_new || new.as_ref().is_some_and(|new| new.has[index]) {
                // A new entity has no history to cut or to keep longer.
                continue;
            }
            let erased = change.current == CurrentChange::Erase;
            let limit = if erased { 0 } else { change.history_limit.min(u32::MAX as usize) as i64 };
            let added = if limit == 0 { &[] } else { change.superseded.as_slice() };
            other_histories += 1;
            others.text(name);
            others.number(if change.rewrites_history { -limit } else { limit });
            put_until(&mut others, change.retain_until);
            others.count(added.len() * 2);
            for record in added {
                // As text: not every one of them is a float64.
                others.text(record.event_timestamp.as_micros().to_string().as_bytes());
                others.text(&encode_superseded(record));
            }
        }
        if commit.expected.is_none() {
            main_take.clear();
            large_take.clear();
        }
        let mut all = Packed::with_capacity(256 + commit.changes.len() * 80);
        all.text(commit.expected.as_ref().map(head_text).unwrap_or_default().as_bytes());
        put_until(&mut all, commit.retain_until);
        let lists = [main_set, main_take, large_set, large_take];
        lists.iter().for_each(|list| all.count(list.len()));
        let rows = match new {
            Some(NewRows { columns, rows, greatest, .. }) => {
                all.count(rows.len());
                all.text(columns.as_bytes());
                all.text(&blake3::hash(columns.as_bytes()).as_bytes()[..16]);
                all.count(greatest);
                rows
            }
            None => {
                all.count(0);
                all.text(b"");
                all.text(b"");
                all.count(0);
                Vec::new()
            }
        };
        all.count(other_histories);
        lists.iter().for_each(|list| all.append(list));
        rows.iter().for_each(|row| all.text(row));
        all.append(&others);
        CommitItem { slot: keys.slot, key: keys.main, packed: all.finish() }
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

/// A point in time as the scripts take it: milliseconds, or nothing for ever.
pub(super) fn until(time: Option<Timestamp>) -> Answer {
    time.map_or(Answer::from_static_str(""), |time| Answer::Integer(millis(time)))
}

fn put_until(list: &mut Packed, time: Option<Timestamp>) {
    match time {
        Some(time) => list.number(millis(time)),
        None => list.text(b""),
    }
}

/// Rounded up: a key must not go before its time.
fn millis(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1000) + i64::from(time.as_micros() % 1000 != 0)
}
