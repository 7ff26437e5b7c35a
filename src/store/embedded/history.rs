//! Superseded records. What a write supersedes at once has, as a rule, one event time and one version:
//! that is one row of one tree, with a part for each feature, and not a row a feature.
//!
//! ```text
//! row    type \0 id \0 \0 event time, version → parts
//! part   1 byte of length, the feature's name, 1 byte of length, the envelope
//! ```
//! A longer envelope has a row of its own under its feature (`type \0 id \0 feature \0 event time, version`),
//! so that reading the history of a number does not drag embeddings along.
//!
//! A row that cannot be read is left as it is by writes, for its readers to report.

use foldhash::HashMap;
use redb::ReadableTable;

use super::commit::{range_of, remove_below};
use super::fault::Fault;
use super::key;

/// A longer envelope is kept alone.
const LONGEST: usize = 64;

pub type Table<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Whether an envelope is one that rows hold.
pub fn is_short(envelope: &[u8]) -> bool {
    envelope.len() <= LONGEST
}

/// Adds a part to a row. Names have at most 128 bytes, short envelopes [`LONGEST`].
pub fn put_part(row: &mut Vec<u8>, feature: &str, envelope: &[u8]) {
    row.push(feature.len() as u8);
    row.extend_from_slice(feature.as_bytes());
    row.push(envelope.len() as u8);
    row.extend_from_slice(envelope);
}

/// The parts of a row, `None` in place of what cannot be read, which is the last.
pub fn parts(row: &[u8]) -> impl Iterator<Item = Option<(&str, &[u8])>> {
    let mut rest = Some(row).filter(|row| !row.is_empty());
    std::iter::from_fn(move || {
        let part = take_part(rest?);
        rest = part.map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
        Some(part.map(|(part, _)| part))
    })
}

type Part<'b> = (&'b str, &'b [u8]);

fn take_part(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked((*length).into())?;
    let (length, rest) = rest.split_first()?;
    let (envelope, rest) = rest.split_at_checked((*length).into())?;
    Some(((std::str::from_utf8(name).ok()?, envelope), rest))
}

/// Stores a row, and counts in `added` the features that had no part at its place.
pub fn put_row<'r>(
    history: &mut Table<'_>,
    key: &[u8],
    row: &'r [u8],
    added: &mut HashMap<&'r str, usize>,
) -> Result<(), Fault> {
    let before = history.insert(key, row)?.map(|guard| guard.value().to_vec()).unwrap_or_default();
    let has = |row, feature| parts(row).flatten().any(|(other, _)| other == feature);
    for (feature, _) in parts(row).flatten().filter(|(feature, _)| !has(&before, *feature)) {
        *added.entry(feature).or_default() += 1;
    }
    if !before.is_empty() {
        // Other features of the same event time and version stay.
        let mut merged = row.to_vec();
        for (feature, envelope) in parts(&before).flatten().filter(|(feature, _)| !has(row, *feature)) {
            put_part(&mut merged, feature, envelope);
        }
        history.insert(key, merged.as_slice())?;
    }
    Ok(())
}

/// So many of the oldest records of a feature are to go.
pub struct Excess<'b> {
    pub feature: &'b str,
    pub records: usize,
    /// Whether some of them may have rows of their own.
    pub alone: bool,
}

/// Removes records that are too many.
pub fn trim(history: &mut Table<'_>, entity: &[u8], mut excess: Vec<Excess<'_>>) -> Result<(), Fault> {
    let mut changed: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    // The oldest of those that are kept alone, each with its place in time.
    let mut alone: Vec<Vec<u8>> = Vec::new();
    {
        let rows = key::below(&key::feature(entity, ""));
        let mut rows = history.range(range_of(&rows))?;
        let mut own = Vec::with_capacity(excess.len());
        for of in &excess {
            own.push(if of.alone {
                oldest(history, &key::feature(entity, of.feature), of.records)?
            } else {
                Vec::new()
            });
        }
        while excess.iter().any(|of| of.records > 0) {
            let row = rows.next().transpose()?;
            for (of, own) in excess.iter_mut().zip(&mut own) {
                // Oldest last. Without a row, all of them are older than the next one.
                while of.records > 0
                    && own.last().is_some_and(|own| {
                        row.as_ref().is_none_or(|(key, _)| time_of(own) < time_of(key.value()))
                    })
                {
                    alone.extend(own.pop());
                    of.records -= 1;
                }
            }
            let Some((key, row)) = row else { break };
            let goes = |feature: &str| excess.iter().position(|of| of.feature == feature && of.records > 0);
            if let Some((rest, gone)) = without(row.value(), goes) {
                gone.into_iter().for_each(|at| excess[at].records -= 1);
                changed.push((key.value().to_vec(), rest));
            }
        }
    }
    put_back(history, changed)?;
    for key in alone {
        history.remove(key.as_slice())?;
    }
    Ok(())
}

/// Removes all records of some features of an entity.
pub fn drop_features(history: &mut Table<'_>, entity: &[u8], features: &[&str]) -> Result<(), Fault> {
    if features.is_empty() {
        return Ok(());
    }
    let mut changed = Vec::new();
    let rows = key::below(&key::feature(entity, ""));
    for row in history.range(range_of(&rows))? {
        let (key, row) = row?;
        if let Some((rest, _)) = without(row.value(), |feature| features.iter().position(|of| *of == feature))
        {
            changed.push((key.value().to_vec(), rest));
        }
    }
    put_back(history, changed)?;
    for feature in features {
        remove_below(history, &key::feature(entity, feature))?;
    }
    Ok(())
}

/// A row without some of its features, and what `goes` said of those; `None` where it stays as it is.
fn without(row: &[u8], goes: impl Fn(&str) -> Option<usize>) -> Option<(Vec<u8>, Vec<usize>)> {
    let (mut rest, mut gone) = (Vec::with_capacity(row.len()), Vec::new());
    for part in parts(row) {
        let (feature, envelope) = part?;
        match goes(feature) {
            Some(at) => gone.push(at),
            None => put_part(&mut rest, feature, envelope),
        }
    }
    (!gone.is_empty()).then_some((rest, gone))
}

fn put_back(history: &mut Table<'_>, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
    for (key, row) in rows {
        if row.is_empty() {
            history.remove(key.as_slice())?;
        } else {
            history.insert(key.as_slice(), row.as_slice())?;
        }
    }
    Ok(())
}

/// The keys of the oldest records that a feature has alone, the oldest last.
fn oldest(history: &Table<'_>, feature: &[u8], count: usize) -> Result<Vec<Vec<u8>>, Fault> {
    let mut keys = Vec::new();
    for entry in history.range(range_of(&key::below(feature)))?.take(count) {
        keys.push(entry?.0.value().to_vec());
    }
    keys.reverse();
    Ok(keys)
}

/// Event time and version at the end of a key, in the order of records.
fn time_of(key: &[u8]) -> &[u8] {
    &key[key.len().saturating_sub(16)..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_put(
            given in proptest::collection::vec(("[a-z_]{1,12}", proptest::collection::vec(any::<u8>(), 0..=LONGEST)), 0..8),
            byte in any::<u8>(),
            at in any::<prop::sample::Index>(),
        ) {
            let mut row = Vec::new();
            given.iter().for_each(|(name, envelope)| put_part(&mut row, name, envelope));
            let read: Option<Vec<_>> = parts(&row).collect();
            let expected: Vec<_> = given.iter().map(|(name, envelope)| (name.as_str(), envelope.as_slice())).collect();
            prop_assert_eq!(read, Some(expected));
            // Damaged bytes are read or refused.
            if !row.is_empty() {
                let at = at.index(row.len());
                row[at] = byte;
                let _ = parts(&row).count();
                let _ = parts(&row[..at]).count();
            }
        }
    }

    const FEATURES: [&str; 3] = ["a", "b", "c"];
    const ENTITY: &[u8] = b"t\x001";

    /// What is in the table of each feature: the versions in their order, which is that of the times.
    fn stored(history: &Table<'_>) -> [Vec<u64>; 3] {
        let version = |key: &[u8]| u64::from_be_bytes(*key.last_chunk().unwrap());
        let mut stored = [const { Vec::new() }; 3];
        for (at, feature) in FEATURES.iter().enumerate() {
            for entry in history.range(range_of(&key::below(&key::feature(ENTITY, feature)))).unwrap() {
                stored[at].push(version(entry.unwrap().0.value()));
            }
        }
        for entry in history.range(range_of(&key::below(&key::feature(ENTITY, "")))).unwrap() {
            let (key, row) = entry.unwrap();
            for (feature, _) in parts(row.value()).map(Option::unwrap) {
                stored[FEATURES.iter().position(|of| *of == feature).unwrap()].push(version(key.value()));
            }
        }
        stored.iter_mut().for_each(|versions| versions.sort_unstable());
        stored
    }

    proptest! {
        /// Each record may be in a row or alone, in any mixture; the oldest go, and no others.
        #[test]
        fn the_oldest_are_trimmed_wherever_they_are(
            records in proptest::collection::vec(proptest::array::uniform3(0..3_u8), 0..12),
            too_many in proptest::array::uniform3(any::<prop::sample::Index>()),
            dropped in proptest::option::of(0..3_usize),
        ) {
            let memory = redb::backends::InMemoryBackend::new();
            let database = redb::Builder::new().create_with_backend(memory).unwrap();
            let transaction = database.begin_write().unwrap();
            let mut history = transaction.open_table(super::super::tables::HISTORY).unwrap();
            let mut expected = [const { Vec::new() }; 3];
            for (version, places) in (1_u64..).zip(&records) {
                let time = Timestamp::from_millis(version as i64 * 1000).unwrap();
                let (mut row, mut added) = (Vec::new(), HashMap::default());
                for (at, place) in places.iter().enumerate() {
                    match place {
                        0 => continue,
                        1 => put_part(&mut row, FEATURES[at], &[7; 9]),
                        _ => {
                            let key = key::superseded(&key::feature(ENTITY, FEATURES[at]), time, version);
                            history.insert(key.as_slice(), [7; 99].as_slice()).unwrap();
                        }
                    }
                    expected[at].push(version);
                }
                if !row.is_empty() {
                    let key = key::superseded(&key::feature(ENTITY, ""), time, version);
                    // In two pieces, of which the second has the whole row.
                    let first: Vec<u8> = row[..row.len().min(12)].to_vec();
                    put_row(&mut history, &key, &first, &mut added).unwrap();
                    put_row(&mut history, &key, &row, &mut added).unwrap();
                    prop_assert_eq!(added.values().sum::<usize>(), parts(&row).count());
                }
            }
            prop_assert_eq!(&stored(&history), &expected);
            let excess = (0..3).map(|at| {
                let count = too_many[at].index(expected[at].len() + 1);
                expected[at].drain(..count);
                Excess { feature: FEATURES[at], records: count, alone: true }
            });
            let excess = excess.collect();
            trim(&mut history, ENTITY, excess).unwrap();
            prop_assert_eq!(&stored(&history), &expected);
            if let Some(at) = dropped {
                expected[at].clear();
                drop_features(&mut history, ENTITY, &[FEATURES[at]]).unwrap();
                prop_assert_eq!(&stored(&history), &expected);
            }
        }
    }
}
