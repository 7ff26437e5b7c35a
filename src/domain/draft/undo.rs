//! Undoing a run: its values go back to what they were before it, and its records are marked, so
//! that the past is told without them.
//!
//! What a feature goes back to is the newest event that is neither of the run nor retracted, with
//! the time that it had: so a run that was mended can be sent again, and its events are newer than
//! what is served. Features that are computed from others are never put back but computed anew; what
//! was computed from a retracted value is retracted with it, whoever wrote it.

use std::collections::HashSet;

use super::{Draft, Place, Slot, Stamp, Touched};
use crate::domain::compiled::CompiledEntityType;
use crate::domain::derive::{Derived, Embeddings, RawInputs, Undecided, With, derive};
use crate::domain::name::FeatureName;
use crate::domain::provenance::ProvenanceId;
use crate::domain::record::{FeatureRecords, Record, Retraction, UndoAct, Version};
use crate::domain::time::Timestamp;
use crate::domain::value::Value;

/// What is taken back: what was written under these provenances within a window of time.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub ids: &'a HashSet<ProvenanceId>,
    /// The first and the last moment of the window.
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Run<'_> {
    fn wrote(&self, record: &Record) -> bool {
        self.has(record.provenance, record.written_at)
    }

    fn did(&self, act: &UndoAct) -> bool {
        self.has(act.provenance, act.at)
    }

    /// Whether the run was itself an undo, and what it did to this record stands.
    fn marked(&self, record: &Record) -> bool {
        record
            .retraction
            .as_ref()
            .is_some_and(|mark| self.did(mark.reinstated.as_ref().unwrap_or(&mark.undone)))
    }

    fn has(&self, provenance: ProvenanceId, at: Timestamp) -> bool {
        self.from <= at && at <= self.to && self.ids.contains(&provenance)
    }

    /// Whether there is anything to undo in what is stored of a feature.
    pub fn concerns(&self, records: &FeatureRecords) -> bool {
        records
            .newest_first()
            .any(|record| (!record.is_retracted() && self.wrote(record)) || self.marked(record))
    }
}

/// What becomes of a value of the run that nothing is known to go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutPast {
    #[default]
    Keep,
    Delete,
}

/// Which features of an entity type an undo deals with.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Those asked for.
    pub features: Vec<FeatureName>,
    /// Computed from those, directly or not, and not asked for.
    pub followers: Vec<FeatureName>,
    /// Inputs of all these, that they may be computed anew.
    pub inputs: Vec<FeatureName>,
}

impl Scope {
    pub fn new(entity_type: &CompiledEntityType, features: Vec<FeatureName>) -> Self {
        let (mut followers, mut inputs) = (Vec::new(), Vec::new());
        for computed in entity_type.computed().iter().filter(|computed| !computed.on_read) {
            let asked = features.contains(&computed.feature);
            if !asked && computed.input_features().any(|of| features.contains(of) || followers.contains(of)) {
                followers.push(computed.feature.clone());
            } else if !asked {
                continue;
            }
            inputs.extend(computed.input_features().cloned());
        }
        let known: HashSet<&FeatureName> = features.iter().chain(&followers).collect();
        inputs.retain(|name| !known.contains(name));
        inputs.sort_unstable();
        inputs.dedup();
        Self { features, followers, inputs }
    }

    /// Everything that must be loaded, with its history.
    pub fn loaded(&self) -> impl Iterator<Item = &FeatureName> {
        self.affected().chain(&self.inputs)
    }

    /// Everything whose records may change; it comes first in [`Self::loaded`].
    pub fn affected(&self) -> impl Iterator<Item = &FeatureName> {
        self.features.iter().chain(&self.followers)
    }
}

/// What an undo does to a feature whose served value came from the run, or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has the value again that it had before the run.
    Restored,
    /// It had no value before the run, and has none now.
    Deleted,
    /// What it had before the run is no longer kept, or never was: the run's value stays.
    NotRestorable,
    /// The same, and the run's value was deleted as asked.
    DeletedWithoutPast,
    /// A newer write had replaced the run's value; it stays.
    Newer,
}

/// What an undo did to one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct UndoneFeature {
    pub feature: FeatureName,
    pub fate: Fate,
    /// What was served.
    pub from: Option<Value>,
    /// What is served now.
    pub to: Option<Value>,
}

/// What an undo did to one entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Undone {
    pub features: Vec<UndoneFeature>,
    /// What was computed anew.
    pub derived: Vec<Derived>,
    /// So many records were marked.
    pub retracted: usize,
    /// So many records lost the mark that an undo had given them, as that was undone.
    pub reinstated: usize,
}

/// What an undo is asked to do, to any entity of a type.
#[derive(Clone, Copy)]
pub struct Undo<'a> {
    pub run: Run<'a>,
    pub scope: &'a Scope,
    pub without_past: WithoutPast,
    pub entity_type: &'a CompiledEntityType,
}

/// Drafts the undoing of a run as one version, if there is anything to undo.
pub fn undo(
    draft: &mut Draft,
    undo: &Undo<'_>,
    embeddings: &dyn Embeddings,
    stamp: &Stamp,
) -> Result<Undone, Undecided> {
    let Undo { run, scope, without_past, entity_type } = *undo;
    let before = draft.version;
    draft.now = stamp.now;
    let act = UndoAct { version: before + 1, at: stamp.now, provenance: stamp.provenance };
    let mut undone = Undone::default();
    for name in scope.affected() {
        let limit = entity_type.features.get(name).map_or(0, |feature| feature.history_limit);
        if let Some(slot) = draft.slots.get_mut(name) {
            slot.history_limit = limit;
            let (reinstated, retracted) = slot.take_back(&run, &act);
            undone.reinstated += reinstated;
            undone.retracted += retracted;
        }
    }
    let (mut changed, mut settled) = (Vec::new(), Vec::new());
    for name in &scope.features {
        let Some(feature) = entity_type.features.get(name) else { continue };
        let Some(slot) = draft.slots.get_mut(name) else { continue };
        let is_of_run = slot.current.as_ref().is_some_and(|current| run.wrote(&current.record));
        if let Some(computed) = entity_type.computation(name).filter(|computed| !computed.takes_raw()) {
            if is_of_run {
                changed.extend(computed.input_features().cloned());
            }
            continue;
        }
        let at = Place { event_timestamp: stamp.now, version: before + 1, stamp: *stamp };
        let expires_at = feature.ttl.expires_at(stamp.now);
        if let Some((fate, from, to)) = slot.go_back(&run, without_past, expires_at, at) {
            if !matches!(fate, Fate::NotRestorable | Fate::Newer) {
                settled.push(name.clone());
            }
            undone.features.push(UndoneFeature { feature: name.clone(), fate, from, to });
        }
    }
    if let Some(derivations) = entity_type.derivations.as_deref() {
        changed.extend_from_slice(&settled);
        let raw = &RawInputs::default();
        let with = With { entity_type, derivations, raw, embeddings, settled: &settled };
        undone.derived = derive(draft, before, changed, &with, stamp)?;
    }
    let mark = Retraction { undone: act, reinstated: None };
    for name in &scope.features {
        if let Some(slot) = draft.slots.get_mut(name) {
            undone.retracted += slot.retract(&mark, |record| run.wrote(record));
        }
    }
    undone.retracted += draft.retract_derived(scope, entity_type, &mark);
    if draft.slots.values().any(|slot| slot.has_news_of(before + 1)) {
        draft.version = before + 1;
    }
    Ok(undone)
}

impl Draft {
    /// Marks what was computed from what has this mark.
    fn retract_derived(
        &mut self,
        scope: &Scope,
        entity_type: &CompiledEntityType,
        mark: &Retraction,
    ) -> usize {
        let mut retracted = 0;
        // The type's computed features stand in the order of their dependencies.
        for computed in entity_type.computed() {
            if !scope.affected().any(|name| *name == computed.feature) || computed.takes_raw() {
                continue;
            }
            let inputs: Vec<Vec<Record>> = computed
                .input_features()
                .filter_map(|name| self.slots.get(name))
                .filter(|slot| slot.records().any(|record| record.retraction.as_deref() == Some(mark)))
                .map(|slot| slot.records().cloned().collect())
                .collect();
            if let (false, Some(slot)) = (inputs.is_empty(), self.slots.get_mut(&computed.feature)) {
                retracted += slot.retract(mark, |record| {
                    inputs.iter().any(|input| {
                        let served = input.iter().filter(|of| of.stands_at(record.version));
                        served
                            .max_by_key(|of| of.order())
                            .is_some_and(|of| of.retraction.as_deref() == Some(mark))
                    })
                });
            }
        }
        retracted
    }
}

impl Slot {
    fn records(&self) -> impl Iterator<Item = &Record> {
        self.current.iter().map(|current| &current.record).chain(self.history.iter().flatten())
    }

    /// Whether a version changed more of it than an expiry.
    fn has_news_of(&self, version: Version) -> bool {
        self.remarked || self.current.as_ref().is_some_and(|current| current.record.version == version)
    }

    /// Takes back what the run did as an undo: what it retracted stands again, and what it reinstated
    /// does not.
    fn take_back(&mut self, run: &Run<'_>, act: &UndoAct) -> (usize, usize) {
        let (mut reinstated, mut retracted) = (0, 0);
        for record in self.history.iter_mut().flatten().filter(|record| run.marked(record)) {
            let Some(mark) = &mut record.retraction else { continue };
            if mark.reinstated.take().is_some() {
                retracted += 1;
            } else {
                mark.reinstated = Some(*act);
                reinstated += 1;
            }
        }
        self.remark(reinstated + retracted);
        (reinstated, retracted)
    }

    /// Marks superseded records; the served one never is.
    fn retract(&mut self, mark: &Retraction, is_meant: impl Fn(&Record) -> bool) -> usize {
        let mut count = 0;
        for record in self.history.iter_mut().flatten() {
            if !record.is_retracted() && is_meant(record) {
                record.retraction = Some(Box::new(*mark));
                count += 1;
            }
        }
        self.remark(count);
        count
    }

    fn remark(&mut self, count: usize) {
        if count > 0 {
            self.remarked = true;
            self.touch(Touched::HistoryOnly);
        }
    }

    /// Serves again what was served before the run; `None` where nothing of the run is there. `at` is
    /// the new version's place, but for the event time, which is that of what comes back.
    fn go_back(
        &mut self,
        run: &Run<'_>,
        without_past: WithoutPast,
        expires_at: Option<Timestamp>,
        at: Place,
    ) -> Option<(Fate, Option<Value>, Option<Value>)> {
        let current = self.current.as_ref()?;
        let from = current.record.value.clone();
        let of_run = self.records().filter(|record| !record.is_retracted() && run.wrote(record));
        let first_of_run = of_run.map(|record| record.event_timestamp).min();
        if first_of_run.is_none() && !self.remarked {
            return None;
        }
        // Whatever event comes next is newer than a deletion in 1970, unless it is of before that.
        let beginning = first_of_run.unwrap_or(Timestamp::EPOCH).min(Timestamp::EPOCH);
        let others = self.records().filter(|record| !record.is_retracted() && !run.wrote(record));
        // Had it been written before the run, the first version of it would be another or be gone.
        let is_known_from_the_first = self.records().any(|record| record.version == current.first_version);
        let (fate, value, event_timestamp) = match others.max_by_key(|record| record.order()) {
            // Otherwise than current only where something newer was reinstated.
            Some(newest) if newest.order() == current.record.order() => {
                return first_of_run.map(|_| (Fate::Newer, from.clone(), from));
            }
            Some(Record { value: Some(value), event_timestamp, .. }) => {
                (Fate::Restored, Some(value.clone()), *event_timestamp)
            }
            Some(deletion) => (Fate::Deleted, None, deletion.event_timestamp),
            None if is_known_from_the_first => (Fate::Deleted, None, beginning),
            None if without_past == WithoutPast::Delete => (Fate::DeletedWithoutPast, None, beginning),
            None => return Some((Fate::NotRestorable, from.clone(), from)),
        };
        self.apply(value.clone(), expires_at, Place { event_timestamp, ..at });
        Some((fate, from, value))
    }
}
