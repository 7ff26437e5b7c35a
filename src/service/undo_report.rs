//! What the undoing of a run did, or would do, as its job tells it.

use serde::{Deserialize, Serialize};

use crate::domain::draft::undo::{Fate, Undone};
use crate::domain::name::EntityId;
use crate::domain::provenance::RunNote;
use crate::domain::record::Version;
use crate::domain::value::Value;

/// So many samples of each fate are kept.
const SAMPLES: usize = 5;
/// A sample shows so much of a value.
const SAMPLE_CHARS: usize = 256;

/// What the undoing of a run did so far, or with `dry_run` would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UndoReport {
    pub dry_run: bool,
    /// What was asked to be undone.
    #[schema(required)]
    pub run: Option<RunNote>,
    /// Entities in which something was undone.
    pub entities: u64,
    /// Features that have the value again that they had before the run.
    pub restored: u64,
    /// Features that had no value before the run, and have none now.
    pub deleted: u64,
    /// Features whose value before the run is not kept: they have the run's value still.
    pub not_restorable: u64,
    /// The same, where `not_restorable` is `delete`: they have no value now.
    pub deleted_without_past: u64,
    /// Features in which a newer write had replaced the run's value: it stays.
    pub newer: u64,
    /// Features that were computed anew from what was restored.
    pub recomputed: u64,
    /// Values in the history that were marked as retracted.
    pub retracted: u64,
    /// Values that stand again, since the undo that had retracted them was undone.
    pub reinstated: u64,
    /// Some of each kind.
    pub samples: Vec<UndoSample>,
}

/// What became of one feature of one entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UndoSample {
    pub entity_id: String,
    pub feature: String,
    pub outcome: UndoOutcome,
    /// The entity's version that undid it; null with `dry_run`.
    #[schema(required)]
    pub version: Option<Version>,
    /// What was served; null for nothing, and of what is long the beginning, as text.
    pub from: serde_json::Value,
    /// What is served now, in the same form.
    pub to: serde_json::Value,
}

/// What an undo did to a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoOutcome {
    Restored,
    Deleted,
    NotRestorable,
    DeletedWithoutPast,
    Newer,
}

impl UndoReport {
    /// Counts what was done to one entity; `version` is that which did it.
    pub fn add(&mut self, entity_id: &EntityId, version: Option<Version>, undone: &Undone) {
        self.entities += 1;
        self.recomputed += undone.derived.len() as u64;
        self.retracted += undone.retracted as u64;
        self.reinstated += undone.reinstated as u64;
        for done in &undone.features {
            let (count, outcome) = match done.fate {
                Fate::Restored => (&mut self.restored, UndoOutcome::Restored),
                Fate::Deleted => (&mut self.deleted, UndoOutcome::Deleted),
                Fate::NotRestorable => (&mut self.not_restorable, UndoOutcome::NotRestorable),
                Fate::DeletedWithoutPast => (&mut self.deleted_without_past, UndoOutcome::DeletedWithoutPast),
                Fate::Newer => (&mut self.newer, UndoOutcome::Newer),
            };
            *count += 1;
            let alike = self.samples.iter().filter(|sample| sample.outcome == outcome).count();
            if alike < SAMPLES {
                self.samples.push(UndoSample {
                    entity_id: entity_id.to_string(),
                    feature: done.feature.to_string(),
                    outcome,
                    version,
                    from: shown(done.from.as_ref()),
                    to: shown(done.to.as_ref()),
                });
            }
        }
    }
}

fn shown(value: Option<&Value>) -> serde_json::Value {
    let Some(value) = value else { return serde_json::Value::Null };
    let text = serde_json::to_string(value).unwrap_or_default();
    match text.char_indices().nth(SAMPLE_CHARS) {
        Some((end, _)) => serde_json::Value::String(format!("{}…", &text[..end])),
        None => serde_json::from_str(&text).unwrap_or_default(),
    }
}
