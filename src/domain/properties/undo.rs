//! Undoing a run leaves what a store would hold that had never heard of it, and hides nothing.

use std::collections::HashSet;

use super::*;
use crate::domain::derive::{Embedding, Embeddings};
use crate::domain::draft::undo::{Fate, Run, Scope, Undo, Undone, WithoutPast, undo};

const GOOD: ProvenanceId = ProvenanceId(1);
const BAD: ProvenanceId = ProvenanceId(2);
const UNDO: ProvenanceId = ProvenanceId(3);
const REDO: ProvenanceId = ProvenanceId(4);

/// Writes, and whether each is of the bad run.
type Writes = Vec<(bool, Vec<Event>)>;

struct NoEmbeddings;

impl Embeddings for NoEmbeddings {
    fn get(&self, _: &str, _: u32) -> Embedding {
        Embedding::Failed("none here".to_owned())
    }
}

impl Entity {
    /// Undoes what was written under `run` within a window; `None` where nothing changed.
    fn undo(&mut self, run: ProvenanceId, window: (i64, i64), by: ProvenanceId) -> Option<Undone> {
        self.clock += 1;
        let mut entity_type = schema();
        for feature in entity_type.features.values_mut() {
            feature.history_limit = self.history_limit;
        }
        let ids = HashSet::from([run]);
        let what = Undo {
            run: Run { ids: &ids, from: at(window.0), to: at(window.1) },
            scope: &Scope::new(&entity_type, names()),
            without_past: WithoutPast::Keep,
            entity_type: &entity_type,
        };
        let stamp = Stamp { now: at(self.clock), provenance: by };
        let mut draft = Draft::new(Self::key(), &names(), self.load(true), stamp.now);
        let undone = undo(&mut draft, &what, &NoEmbeddings, &stamp).unwrap();
        self.carry_out(draft).then_some(undone)
    }

    fn currents(&self) -> Vec<Option<Value>> {
        let current = |records: &FeatureRecords| records.current.as_ref()?.record.value.clone();
        self.features.iter().map(current).collect()
    }

    /// Every feature as of every moment that something happened at, and in between.
    fn pasts(&self, retracted: Retracted) -> Vec<Option<Value>> {
        let moments = (-1i64..26).flat_map(|seconds| self.features.iter().map(move |of| (of, at(seconds))));
        let told = moments.map(|(records, at)| view::record_as_of(records, at, retracted));
        told.map(|record| record.and_then(|record| record.value.clone())).collect()
    }

    fn versions(&self) -> Vec<Option<Value>> {
        let of_version = |version| {
            let served = self.features.iter().map(move |of| view::record_at_version(of, version).unwrap());
            served.map(|record| record.and_then(|record| record.value.clone()))
        };
        (1..=self.version()).flat_map(of_version).collect()
    }
}

fn always() -> (i64, i64) {
    (0, 1_000_000)
}

/// Plays the writes, and into a model those that stay when the bad run is undone. An event belongs to
/// who wrote it first.
fn play_both(writes: &Writes, history_limit: usize) -> (Entity, Model) {
    let (mut entity, mut all, mut good) = (Entity::new(history_limit), Model::default(), Model::default());
    for (is_bad, write) in writes {
        let events = entity.events(write);
        entity.write_as(&events, if *is_bad { BAD } else { GOOD });
        let fresh = events.iter().filter(|event| {
            let known = &all.events[FEATURES.iter().position(|f| *f == event.feature.as_str()).unwrap()];
            !known.iter().any(|(time, value, _)| {
                Some(*time) == event.event_timestamp && Some(value) == event.value.as_ref()
            })
        });
        let fresh: Vec<FeatureEvent> = fresh.cloned().collect();
        all.accept(&fresh, entity.version());
        if !is_bad {
            good.accept(&fresh, entity.version());
        }
    }
    (entity, good)
}

fn of_two() -> impl Strategy<Value = Writes> {
    let event = (0..FEATURES.len(), 0i64..12, proptest::option::weighted(0.9, 0i64..4));
    let write = (any::<bool>(), proptest::collection::vec(event, 1..4));
    proptest::collection::vec(write, 1..24)
}

proptest! {
    #[test]
    fn only_what_the_run_wrote_is_gone(writes in of_two()) {
        let (mut entity, good) = play_both(&writes, usize::MAX);
        entity.undo(BAD, always(), UNDO);
        for feature in 0..FEATURES.len() {
            let served = entity.currents()[feature].clone();
            prop_assert_eq!(served.as_ref(), good.as_of(feature, at(999), Version::MAX));
        }
        for (at_index, told) in entity.pasts(Retracted::Hidden).into_iter().enumerate() {
            let (seconds, feature) = (at_index as i64 / 3 - 1, at_index % 3);
            prop_assert_eq!(told.as_ref(), good.as_of(feature, at(seconds), Version::MAX));
        }
    }

    #[test]
    fn nothing_is_hidden_from_who_asks_for_it(writes in of_two()) {
        let (mut entity, _) = play_both(&writes, usize::MAX);
        let (pasts, versions) = (entity.pasts(Retracted::Hidden), entity.versions());
        let kept: usize = entity.features.iter().map(|records| records.newest_first().count()).sum();
        let undone = entity.undo(BAD, always(), UNDO);
        prop_assert_eq!(entity.pasts(Retracted::Shown), pasts);
        prop_assert_eq!(&entity.versions()[..versions.len()], &versions[..]);
        let put_back = undone.map_or(0, |undone| {
            undone.features.iter().filter(|done| matches!(done.fate, Fate::Restored | Fate::Deleted)).count()
        });
        let now: usize = entity.features.iter().map(|records| records.newest_first().count()).sum();
        prop_assert_eq!(now, kept + put_back);
    }

    #[test]
    fn an_undo_takes_a_version_and_has_nothing_left_to_do(writes in of_two()) {
        let (mut entity, _) = play_both(&writes, usize::MAX);
        let before = entity.version();
        let wrote = entity.features.iter().any(|of| of.newest_first().any(|record| record.provenance == BAD));
        prop_assert_eq!(entity.undo(BAD, always(), UNDO).is_some(), wrote);
        prop_assert_eq!(entity.version(), before + u64::from(wrote));
        prop_assert_eq!(entity.undo(BAD, always(), UNDO), None);
    }

    #[test]
    fn an_undo_can_be_undone(writes in of_two()) {
        let (mut entity, _) = play_both(&writes, usize::MAX);
        let (before, pasts) = (entity.currents(), entity.pasts(Retracted::Hidden));
        entity.undo(BAD, always(), UNDO);
        let versions = entity.versions();
        entity.undo(UNDO, always(), REDO);
        // A feature that the run began is a deletion, or nothing, to begin with.
        prop_assert_eq!(entity.currents(), before);
        prop_assert_eq!(entity.pasts(Retracted::Hidden), pasts);
        prop_assert_eq!(&entity.versions()[..versions.len()], &versions[..]);
        entity.undo(REDO, always(), ProvenanceId(5));
        let (mut once, _) = play_both(&writes, usize::MAX);
        once.undo(BAD, always(), UNDO);
        prop_assert_eq!(entity.currents(), once.currents());
        prop_assert_eq!(entity.pasts(Retracted::Hidden), once.pasts(Retracted::Hidden));
    }

    #[test]
    fn what_came_between_an_undo_and_its_undoing_stays(writes in of_two(), between in of_two()) {
        // Events of different times: the very same event would be unchanged in one of the two.
        let spread = |writes: Writes, odd: i64| -> Writes {
            let moved = |(of, time, value): Event| (of, 2 * time + odd, value);
            writes.into_iter().map(|(bad, write)| (bad, write.into_iter().map(moved).collect())).collect()
        };
        let (writes, between) = (spread(writes, 0), spread(between, 1));
        let (mut entity, _) = play_both(&writes, usize::MAX);
        let (mut never, _) = play_both(&writes, usize::MAX);
        entity.undo(BAD, always(), UNDO);
        for (_, write) in &between {
            entity.write(&entity.events(write));
            never.write(&never.events(write));
        }
        entity.undo(UNDO, always(), REDO);
        prop_assert_eq!(entity.currents(), never.currents());
        prop_assert_eq!(entity.pasts(Retracted::Hidden), never.pasts(Retracted::Hidden));
    }

    #[test]
    fn a_mended_run_is_accepted_as_if_the_bad_one_had_never_been(writes in of_two(), mended in of_two()) {
        let (mut entity, _) = play_both(&writes, usize::MAX);
        let mut clean = Entity::new(usize::MAX);
        for (_, write) in writes.iter().filter(|(is_bad, _)| !is_bad) {
            clean.write(&clean.events(write));
        }
        // An event that the bad run wrote first is its own, and goes with it: only writes without such
        // say the same in both.
        let bad: Vec<&Event> = writes.iter().filter(|(is_bad, _)| *is_bad).flat_map(|(_, write)| write).collect();
        prop_assume!(writes.iter().filter(|(is_bad, _)| !is_bad).all(|(_, write)| write.iter().all(|event| !bad.contains(&event))));
        entity.undo(BAD, always(), UNDO);
        for (_, write) in &mended {
            let events = entity.events(write);
            let (after, expected) = (entity.write(&events), clean.write(&events));
            prop_assert_eq!(after, expected);
        }
        prop_assert_eq!(entity.currents(), clean.currents());
        prop_assert_eq!(entity.pasts(Retracted::Hidden), clean.pasts(Retracted::Hidden));
    }

    #[test]
    fn a_window_takes_what_was_written_in_it(writes in of_two(), from in 0usize..24, length in 0usize..24) {
        let (mut entity, _) = play_both(&writes, usize::MAX);
        // The n-th write is of second 1001 + n.
        let (from, to) = (1001 + from as i64, 1001 + (from + length) as i64);
        let narrowed: Writes = writes
            .iter()
            .enumerate()
            .map(|(n, (is_bad, write))| (*is_bad && (from..=to).contains(&(1001 + n as i64)), write.clone()))
            .collect();
        entity.undo(BAD, (from, to), UNDO);
        let (mut same, _) = play_both(&narrowed, usize::MAX);
        same.undo(BAD, always(), UNDO);
        prop_assert_eq!(entity.currents(), same.currents());
        prop_assert_eq!(entity.pasts(Retracted::Hidden), same.pasts(Retracted::Hidden));
    }

    #[test]
    fn what_is_not_kept_is_not_invented(bad in proptest::collection::vec((any::<bool>(), 0..FEATURES.len()), 1..24), limit in 0usize..4) {
        // In the order of time, each event another value.
        let writes: Writes = bad.iter().enumerate().map(|(n, (is_bad, feature))| {
            (*is_bad, vec![(*feature, n as i64, Some(n as i64))])
        }).collect();
        let (mut entity, good) = play_both(&writes, limit);
        let before = entity.currents();
        let undone = entity.undo(BAD, always(), UNDO).map(|undone| undone.features).unwrap_or_default();
        for (index, served) in entity.currents().into_iter().enumerate() {
            let fate = undone.iter().find(|done| done.feature.as_str() == FEATURES[index]).map(|done| done.fate);
            match fate {
                Some(Fate::Restored | Fate::Deleted) => {
                    prop_assert_eq!(served.as_ref(), good.as_of(index, at(999), Version::MAX));
                }
                _ => prop_assert_eq!(&served, &before[index]),
            }
            let current_is_bad = writes.iter().rfind(|(_, write)| write[0].0 == index).is_some_and(|(is_bad, _)| *is_bad);
            if !current_is_bad {
                prop_assert!(!matches!(fate, Some(Fate::Restored | Fate::Deleted)));
            }
        }
    }
}
