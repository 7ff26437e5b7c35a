//! What reads answer: of each entity its version, and of each feature a value with a status.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::columns::Columns;
use super::error::ServiceError;
use super::read::{ReadOptions, When};
use crate::domain::name::{EntityId, FeatureName};
use crate::domain::provenance::{Provenance, ProvenanceId};
use crate::domain::record::{EntityRecords, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::value::Value;
use crate::domain::view::{self, Answer, Status};
use crate::domain::violation::{Violation, ViolationCode};
use crate::store::cache::Found;

/// An answer, and what is needed to render its metadata.
#[derive(Clone, Debug)]
pub struct ReadAnswer<T> {
    pub answer: T,
    pub provenance: ProvenanceMap,
    /// The time that ages are counted to.
    pub now: Timestamp,
    /// How long ago this was true for certain, where the store could not be reached.
    pub stale: Option<Span>,
}

/// The provenance records that an answer mentions.
pub type ProvenanceMap = HashMap<ProvenanceId, Provenance>;

/// What a read answers of the entities of one type.
#[derive(Clone, Debug)]
pub struct TypeAnswer {
    pub columns: Arc<Columns>,
    pub entities: Entities,
}

/// Entities in the order asked for.
#[derive(Clone, Debug)]
pub enum Entities {
    /// As they are now, still in their entries, which have the values ready as JSON.
    Present(Vec<PresentEntity>, Moment),
    /// Taken out, each value by itself.
    Judged(Vec<EntityAnswer>),
}

/// By which an entry is judged.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
    /// Goes before the schema's.
    pub max_age: Option<Span>,
    /// Whether the store could not be reached to confirm what the entry says.
    pub stale: bool,
}

/// An entity as it is, in its entry.
#[derive(Clone, Debug)]
pub struct PresentEntity {
    entity_id: EntityId,
    found: Found,
    /// `None`: every column is present.
    statuses: Option<Box<[Status]>>,
}

/// What a read answers of one entity.
#[derive(Clone, Debug)]
pub struct EntityAnswer {
    pub entity_id: EntityId,
    /// 0: the store has nothing of it.
    pub version: Version,
    /// In the order of the columns.
    pub answers: Vec<Answer>,
}

/// The value of a column, as an answer writes it.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// JSON already.
    Ready(&'a [u8]),
    Value(&'a Value),
}

impl PresentEntity {
    /// No column may be computed when it is read.
    pub fn new(columns: &Columns, entity_id: EntityId, found: Found, moment: Moment) -> Self {
        let Moment { now, max_age, stale } = moment;
        let ageless = max_age.is_none() && !columns.has_max_age();
        let statuses = if ageless && !stale && found.entry.is_whole(now) {
            None
        } else if found.entry.version() == 0 {
            // No default stands in for features of an entity that nobody has heard of.
            Some(columns.names().map(|_| Status::NotFound).collect())
        } else {
            let status = |(index, feature)| {
                let current = found.entry.current(found.slots.get(index));
                let status = view::status_at_present(feature, current, now, max_age);
                if stale { status.when_stale() } else { status }
            };
            let statuses: Box<[Status]> = columns.features().enumerate().map(status).collect();
            Some(statuses).filter(|statuses| statuses.iter().any(|status| *status != Status::Present))
        };
        Self { entity_id, found, statuses }
    }

    fn status(&self, column: usize) -> Status {
        self.statuses.as_ref().and_then(|statuses| statuses.get(column)).copied().unwrap_or(Status::Present)
    }

    fn cell<'a>(&'a self, columns: &'a Columns, column: usize) -> Cell<'a> {
        match self.status(column) {
            Status::Present | Status::Stale => {
                Cell::Ready(self.found.entry.json(self.found.slots.get(column)))
            }
            Status::Defaulted => {
                let default = columns.feature(column).and_then(|feature| feature.default.as_ref());
                Cell::Value(default.unwrap_or(&Value::Null))
            }
            Status::Null | Status::NotFound | Status::Expired => Cell::Ready(b"null"),
        }
    }
}

/// Takes an entity out of its entry.
pub fn judge(columns: &Columns, entity_id: EntityId, found: &Found, moment: Moment) -> EntityAnswer {
    let version = found.entry.version();
    if version == 0 {
        return not_there(columns, entity_id);
    }
    let answers = columns.field_features().enumerate().map(|(index, feature)| {
        let current = found.entry.current(found.slots.get(index)).cloned();
        let answer = view::at_present(feature, current, moment.now, moment.max_age);
        let status = if moment.stale { answer.status.when_stale() } else { answer.status };
        Answer { status, ..answer }
    });
    EntityAnswer { entity_id, version, answers: answers.collect() }
}

impl TypeAnswer {
    /// How many entities there are.
    pub fn len(&self) -> usize {
        match &self.entities {
            Entities::Present(entities, _) => entities.len(),
            Entities::Judged(entities) => entities.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id and the version of an entity; version 0: the store has nothing of it.
    pub fn head(&self, row: usize) -> Option<(&EntityId, Version)> {
        Some(match &self.entities {
            Entities::Present(entities, _) => {
                let entity = entities.get(row)?;
                (&entity.entity_id, entity.found.entry.version())
            }
            Entities::Judged(entities) => {
                let entity = entities.get(row)?;
                (&entity.entity_id, entity.version)
            }
        })
    }

    pub fn heads(&self) -> impl Iterator<Item = (&EntityId, Version)> {
        (0..self.len()).map_while(|row| self.head(row))
    }

    pub fn status(&self, row: usize, column: usize) -> Status {
        match &self.entities {
            Entities::Present(entities, _) => entities[row].status(column),
            Entities::Judged(entities) => {
                entities[row].answers.get(column).map_or(Status::NotFound, |answer| answer.status)
            }
        }
    }

    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        match &self.entities {
            Entities::Present(entities, _) => entities[row].cell(&self.columns, column),
            Entities::Judged(entities) => {
                let answer = entities[row].answers.get(column);
                Cell::Value(answer.map_or(&Value::Null, |answer| &answer.value))
            }
        }
    }

    /// All columns of an entity as members of a JSON object, where that is at hand.
    pub fn members(&self, row: usize) -> Option<Members<'_>> {
        match &self.entities {
            Entities::Present(entities, _) => {
                entities[row].statuses.is_none().then_some(Members(&entities[row].found, &self.columns))
            }
            Entities::Judged(_) => None,
        }
    }

    /// Whether the store was asked for any of it just now.
    pub fn has_news(&self) -> bool {
        match &self.entities {
            Entities::Present(entities, _) => entities.iter().any(|entity| entity.found.loaded),
            Entities::Judged(_) => true,
        }
    }

    /// The newest event of a column among what the store was asked for just now: what was kept here is
    /// no news.
    pub fn newest_event(&self, column: usize) -> Option<Timestamp> {
        match &self.entities {
            Entities::Present(entities, _) => {
                let loaded = entities.iter().map(|entity| &entity.found).filter(|found| found.loaded);
                let current = |found: &Found| {
                    found.entry.current(found.slots.get(column)).map(|current| current.record.event_timestamp)
                };
                loaded.filter_map(current).max()
            }
            Entities::Judged(entities) => {
                let answers = entities.iter().filter_map(|entity| entity.answers.get(column));
                answers.filter_map(|answer| answer.record.as_ref()).map(|record| record.event_timestamp).max()
            }
        }
    }

    /// Each value by itself.
    pub fn judged(&self) -> Cow<'_, [EntityAnswer]> {
        match &self.entities {
            Entities::Present(entities, moment) => {
                let judge =
                    |of: &PresentEntity| judge(&self.columns, of.entity_id.clone(), &of.found, *moment);
                entities.iter().map(judge).collect()
            }
            Entities::Judged(entities) => Cow::Borrowed(entities),
        }
    }
}

/// The columns of an entity, all of them present, as the members of a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a>(&'a Found, &'a Columns);

impl Members<'_> {
    /// Writes `"price":9.5,"stock":3`.
    pub fn write(self, json: &mut Vec<u8>) {
        let Self(Found { entry, slots, .. }, columns) = self;
        if slots.are_all() {
            json.extend_from_slice(entry.members());
            return;
        }
        for column in 0..columns.width() {
            if column > 0 {
                json.push(b',');
            }
            json.extend_from_slice(entry.member(slots.get(column)));
        }
    }
}

/// No default stands in for features of an entity that nobody has heard of.
fn not_there(columns: &Columns, entity_id: EntityId) -> EntityAnswer {
    let answers = columns.fields().iter().map(|_| Answer::not_found()).collect();
    EntityAnswer { entity_id, version: 0, answers }
}

/// What is stored of one entity, judged.
pub fn answer_fields(
    columns: &Columns,
    entity_id: EntityId,
    records: EntityRecords,
    options: &ReadOptions,
    now: Timestamp,
) -> Result<EntityAnswer, ServiceError> {
    let Some(head) = records.head else { return Ok(not_there(columns, entity_id)) };
    let features = columns.field_features().zip(records.features);
    let (version, answers) = match options.when {
        When::Now => {
            let answers =
                features.map(|(feature, r)| view::at_present(feature, r.current, now, options.max_age));
            (head.version, answers.collect::<Vec<_>>())
        }
        When::AsOf(at) => {
            let answers =
                features.map(|(feature, r)| view::as_of(feature, &r, at, options.max_age, options.retracted));
            (head.version, answers.collect())
        }
        When::Version(version) => {
            check_version(version, head.version)?;
            let answers = features
                .map(|(feature, r)| view::at_version(feature, &r, version).map_err(|_| feature.name.clone()));
            (version, whole(answers, version)?)
        }
    };
    Ok(EntityAnswer { entity_id, version, answers })
}

/// Refuses a version that the entity never had.
pub fn check_version(version: Version, current: Version) -> Result<(), ServiceError> {
    if (1..=current).contains(&version) {
        return Ok(());
    }
    let message = format!("the entity has the versions 1 to {current}, not {version}");
    Err(ServiceError::VersionNotFound { message, violations: Vec::new() })
}

/// All answers of a version, or the list of features that its history no longer reaches.
pub fn whole<T>(
    answers: impl Iterator<Item = Result<T, FeatureName>>,
    version: Version,
) -> Result<Vec<T>, ServiceError> {
    let mut violations = Vec::new();
    let mut found = Vec::new();
    for answer in answers {
        match answer {
            Ok(answer) => found.push(answer),
            Err(feature) => {
                let message = "the value at that version was trimmed from the history";
                violations.push(Violation::of_feature(&feature, ViolationCode::VersionTrimmed, message));
            }
        }
    }
    if violations.is_empty() {
        return Ok(found);
    }
    let message = format!(
        "version {version} is no longer kept as a whole: the history of some features does not reach back that far (see max_versions)"
    );
    Err(ServiceError::VersionNotFound { message, violations })
}
