//! What a read answers: which record of a feature is served, and with which status.

use serde::{Deserialize, Serialize};

use super::compiled::CompiledFeature;
use super::record::{Current, FeatureRecords, Record, Version};
use super::time::{Span, Timestamp};
use super::value::Value;

/// Why a feature's answer is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Present,
    /// Written as null.
    Null,
    /// Never written, or deleted.
    NotFound,
    /// Written, but its ttl or max_age has passed.
    Expired,
    /// The schema's default stood in for a value that was not found or had expired.
    Defaulted,
    /// There is a value, but the store cannot be reached to say whether it still holds.
    Stale,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Present, Self::Null, Self::NotFound, Self::Expired, Self::Defaulted, Self::Stale];

    /// The status of the same answer where the store could not be asked.
    pub fn when_stale(self) -> Self {
        if self == Self::Present { Self::Stale } else { self }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Null => "null",
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::Defaulted => "defaulted",
            Self::Stale => "stale",
        }
    }
}

/// Whether a look into the past sees what was retracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retracted {
    #[default]
    Hidden,
    /// As if nothing had been undone: what an undo put in its place is hidden instead.
    Shown,
}

/// One feature of a read.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: Status,
    /// Null unless the status is `present`, `stale` or `defaulted`.
    pub value: Value,
    /// The record that the answer rests on; `None` where there is none, or a default stood in.
    pub record: Option<Record>,
    /// When the served value expires; only for reads of the present.
    pub expires_at: Option<Timestamp>,
}

impl Answer {
    /// The answer where there is nothing, not even a default.
    pub fn not_found() -> Self {
        Self { status: Status::NotFound, value: Value::Null, record: None, expires_at: None }
    }
}

/// The value at that version was trimmed from the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed;

/// What is served at `now`. `max_age` is the request's, which goes before the schema's.
pub fn at_present(
    feature: &CompiledFeature,
    current: Option<Current>,
    now: Timestamp,
    max_age: Option<Span>,
) -> Answer {
    let expires_at = current.as_ref().and_then(|current| current.expires_at);
    let kept = expires_at.is_none_or(|at| now < at);
    let mut answer = judge(feature, current.map(|current| current.record), kept, now, max_age);
    if answer.record.is_some() {
        answer.expires_at = expires_at;
    }
    answer
}

/// The status of what is served at `now`, by itself.
pub fn status_at_present(
    feature: &CompiledFeature,
    current: Option<&Current>,
    now: Timestamp,
    max_age: Option<Span>,
) -> Status {
    let kept = current.and_then(|current| current.expires_at).is_none_or(|at| now < at);
    let record = current.map(|current| &current.record);
    status(feature, record, kept && is_young(feature, record, now, max_age))
}

/// What was true at `at`, by event time. The ttl speaks of storage and plays no part in the past.
pub fn as_of(
    feature: &CompiledFeature,
    records: &FeatureRecords,
    at: Timestamp,
    max_age: Option<Span>,
    retracted: Retracted,
) -> Answer {
    judge(feature, record_as_of(records, at, retracted).cloned(), true, at, max_age)
}

/// The feature as the entity stood at `version`: neither ttl nor max_age play a part.
pub fn at_version(
    feature: &CompiledFeature,
    records: &FeatureRecords,
    version: Version,
) -> Result<Answer, Trimmed> {
    let record = record_at_version(records, version)?.cloned();
    Ok(answer(feature, record, true))
}

/// The answer for a value that was computed just now, or could not be (`expired`: because something
/// it needs has expired).
pub fn of_value(feature: &CompiledFeature, value: Option<Value>, expired: bool) -> Answer {
    let (status, value) = match (value, &feature.default) {
        (Some(Value::Null), _) => (Status::Null, Value::Null),
        (Some(value), _) => (Status::Present, value),
        (None, Some(default)) => (Status::Defaulted, default.clone()),
        (None, None) if expired => (Status::Expired, Value::Null),
        (None, None) => (Status::NotFound, Value::Null),
    };
    Answer { status, value, record: None, expires_at: None }
}

/// The newest event at or before `at`; of several at the same time the last written.
pub fn record_as_of(records: &FeatureRecords, at: Timestamp, retracted: Retracted) -> Option<&Record> {
    let known = records
        .newest_first()
        .filter(|record| record.event_timestamp <= at && is_seen(records, record, retracted));
    known.max_by_key(|record| record.order())
}

/// Whether a look into the past sees a record.
pub fn is_seen(records: &FeatureRecords, record: &Record, retracted: Retracted) -> bool {
    match retracted {
        Retracted::Hidden => !record.is_retracted(),
        Retracted::Shown => {
            let mut marks = records.newest_first().filter_map(|other| other.retraction.as_ref());
            marks.all(|mark| mark.undone.version != record.version)
        }
    }
}

/// What was served at `version`; `None` where the feature was not there yet.
pub fn record_at_version(records: &FeatureRecords, version: Version) -> Result<Option<&Record>, Trimmed> {
    let known = records.newest_first().filter(|record| record.stands_at(version));
    match (known.max_by_key(|record| record.order()), &records.current) {
        (None, Some(current)) if current.first_version <= version => Err(Trimmed),
        (found, _) => Ok(found),
    }
}

fn judge(
    feature: &CompiledFeature,
    record: Option<Record>,
    kept: bool,
    now: Timestamp,
    max_age: Option<Span>,
) -> Answer {
    let served = kept && is_young(feature, record.as_ref(), now, max_age);
    answer(feature, record, served)
}

fn is_young(
    feature: &CompiledFeature,
    record: Option<&Record>,
    now: Timestamp,
    max_age: Option<Span>,
) -> bool {
    match (record, max_age.or(feature.max_age)) {
        (Some(record), Some(max_age)) => now.micros_since(record.event_timestamp) <= max_age.as_micros(),
        _ => true,
    }
}

fn answer(feature: &CompiledFeature, record: Option<Record>, served: bool) -> Answer {
    let status = status(feature, record.as_ref(), served);
    let value = match status {
        Status::Present => record.as_ref().and_then(|record| record.value.clone()),
        Status::Defaulted => feature.default.clone(),
        Status::Null | Status::NotFound | Status::Expired | Status::Stale => None,
    };
    let record = record.filter(|_| status != Status::Defaulted);
    let value = value.map_or(Value::Null, |value| value.widened_to(feature.feature_type));
    Answer { status, value, record, expires_at: None }
}

fn status(feature: &CompiledFeature, record: Option<&Record>, served: bool) -> Status {
    match record.and_then(|record| record.value.as_ref()) {
        Some(Value::Null) if served => Status::Null,
        Some(_) if served => Status::Present,
        _ if feature.default.is_some() => Status::Defaulted,
        Some(_) => Status::Expired,
        None => Status::NotFound,
    }
}
