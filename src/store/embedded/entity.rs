//! How one entity is stored: its head, its retention and everything small, in one value.
//!
//! ```text
//! format         1 byte
//! version        8 bytes
//! created at     8 bytes, milliseconds
//! retain until   8 bytes, microseconds, or FOREVER
//! due            8 bytes, microseconds, or FOREVER: where the reaper's index has the entity
//! features       sorted by name:
//!   name         1 byte of length, then the name
//!   place        1 byte: where the current record is, and whether there is a history, and one with
//!                records of its own
//!   envelope     2 bytes of length, then the current record, where it is kept here
//!   history      4 bytes of length, 8 bytes of retention, where there is a history
//! ```
//! Numbers are little-endian. Decoding is total.

use crate::domain::record::Head;
use crate::domain::time::Timestamp;

const FORMAT: u8 = 1;
const FOREVER: i64 = i64::MAX;

/// An envelope of more bytes than this is kept by itself. A write of any feature writes the whole
/// value anew, so what is kept here must be small next to the page of 4 KiB that is written anyway.
pub const LARGE: usize = 256;

mod place {
    pub const NOWHERE: u8 = 0;
    pub const HERE: u8 = 1;
    pub const LARGE: u8 = 2;
    pub const HISTORY: u8 = 1 << 2;
    pub const ALONE: u8 = 1 << 3;
}

/// An entity as it is stored, borrowing names and envelopes.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEntity<'b> {
    pub head: Head,
    /// `None`: for ever.
    pub retain_until: Option<Timestamp>,
    /// When the reaper looks at it. Not later than anything of it may go; earlier where a
    /// retention has been lengthened since, for then the reaper moves it and writes need not.
    pub due: Option<Timestamp>,
    /// Sorted by name.
    pub features: Vec<StoredFeature<'b>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StoredFeature<'b> {
    pub name: &'b str,
    pub current: StoredCurrent<'b>,
    pub history: Option<StoredHistory>,
}

/// Where the current record of a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredCurrent<'b> {
    Nowhere,
    Here(&'b [u8]),
    /// In the table of large envelopes.
    Large,
}

/// What is known of the superseded records of a feature without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHistory {
    /// Above zero.
    pub records: u32,
    /// Whether some of them may be kept alone: see [`super::history`].
    pub alone: bool,
    pub retain_until: Option<Timestamp>,
}

/// Why stored bytes are not an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptEntity {
    #[error("the entity ends too soon")]
    Truncated,
    #[error("the entity has the unknown format {0}")]
    UnknownFormat(u8),
    #[error("the entity's {0} is out of range")]
    OutOfRange(&'static str),
}

impl<'b> StoredEntity<'b> {
    pub fn encode(&self) -> Vec<u8> {
        let features: usize = self.features.iter().map(StoredFeature::encoded_len).sum();
        let mut out = Vec::with_capacity(33 + features);
        out.push(FORMAT);
        out.extend_from_slice(&self.head.version.to_le_bytes());
        out.extend_from_slice(&self.head.created_at.as_millis().to_le_bytes());
        out.extend_from_slice(&encode_time(self.retain_until));
        out.extend_from_slice(&encode_time(self.due));
        for feature in &self.features {
            feature.encode(&mut out);
        }
        out
    }

    pub fn decode(mut bytes: &'b [u8]) -> Result<Self, CorruptEntity> {
        let bytes = &mut bytes;
        let [format] = take(bytes)?;
        if format != FORMAT {
            return Err(CorruptEntity::UnknownFormat(format));
        }
        let version = u64::from_le_bytes(take(bytes)?);
        let created_at = Timestamp::from_millis(i64::from_le_bytes(take(bytes)?))
            .ok_or(CorruptEntity::OutOfRange("time of creation"))?;
        let retain_until = take_time(bytes)?;
        let due = take_time(bytes)?;
        let mut features = Vec::new();
        while !bytes.is_empty() {
            features.push(StoredFeature::take(bytes)?);
        }
        if !features.is_sorted_by(|a, b| a.name < b.name) {
            return Err(CorruptEntity::OutOfRange("order of features"));
        }
        Ok(Self { head: Head { version, created_at }, retain_until, due, features })
    }

    pub fn feature(&self, name: &str) -> Option<&StoredFeature<'b>> {
        let at = self.features.binary_search_by(|feature| feature.name.cmp(name)).ok()?;
        Some(&self.features[at])
    }

    /// The feature of that name, with nothing in it where it was not there.
    pub fn feature_mut(&mut self, name: &'b str) -> &mut StoredFeature<'b> {
        let at = self.features.binary_search_by(|feature| feature.name.cmp(name)).unwrap_or_else(|at| {
            let empty = StoredFeature { name, current: StoredCurrent::Nowhere, history: None };
            self.features.insert(at, empty);
            at
        });
        &mut self.features[at]
    }

    /// Drops features that have nothing left.
    pub fn forget_empty(&mut self) {
        self.features
            .retain(|feature| feature.current != StoredCurrent::Nowhere || feature.history.is_some());
    }

    /// When the first of what is here need not be kept any more.
    pub fn first_end(&self) -> Option<Timestamp> {
        let histories = self.features.iter().filter_map(|feature| feature.history?.retain_until);
        histories.chain(self.retain_until).min()
    }
}

impl<'b> StoredFeature<'b> {
    fn encoded_len(&self) -> usize {
        let envelope = match self.current {
            StoredCurrent::Here(envelope) => 2 + envelope.len(),
            StoredCurrent::Nowhere | StoredCurrent::Large => 0,
        };
        2 + self.name.len() + envelope + if self.history.is_some() { 12 } else { 0 }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let history = match self.history {
            Some(StoredHistory { alone: true, .. }) => place::HISTORY | place::ALONE,
            Some(StoredHistory { alone: false, .. }) => place::HISTORY,
            None => 0,
        };
        // Names have at most 128 bytes, and what is kept here at most `LARGE`.
        out.push(self.name.len() as u8);
        out.extend_from_slice(self.name.as_bytes());
        match self.current {
            StoredCurrent::Nowhere => out.push(place::NOWHERE | history),
            StoredCurrent::Large => out.push(place::LARGE | history),
            StoredCurrent::Here(envelope) => {
                out.push(place::HERE | history);
                out.extend_from_slice(&(envelope.len() as u16).to_le_bytes());
                out.extend_from_slice(envelope);
            }
        }
        if let Some(history) = self.history {
            out.extend_from_slice(&history.records.to_le_bytes());
            out.extend_from_slice(&encode_time(history.retain_until));
        }
    }

    fn take(bytes: &mut &'b [u8]) -> Result<Self, CorruptEntity> {
        let [length] = take(bytes)?;
        let name = take_slice(bytes, length.into())?;
        let name = std::str::from_utf8(name).map_err(|_| CorruptEntity::OutOfRange("feature name"))?;
        let [place] = take(bytes)?;
        let current = match place & !(place::HISTORY | place::ALONE) {
            place::NOWHERE => StoredCurrent::Nowhere,
            place::LARGE => StoredCurrent::Large,
            place::HERE => {
                let length = u16::from_le_bytes(take(bytes)?);
                StoredCurrent::Here(take_slice(bytes, length.into())?)
            }
            _ => return Err(CorruptEntity::OutOfRange("place")),
        };
        let history = if place & place::HISTORY == 0 {
            None
        } else {
            let records = u32::from_le_bytes(take(bytes)?);
            Some(StoredHistory { records, alone: place & place::ALONE != 0, retain_until: take_time(bytes)? })
        };
        Ok(Self { name, current, history })
    }
}

/// The later of two retentions, of which `None` is for ever.
pub fn longer(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    Some(a?.max(b?))
}

pub fn encode_time(time: Option<Timestamp>) -> [u8; 8] {
    time.map_or(FOREVER, Timestamp::as_micros).to_le_bytes()
}

pub fn decode_time(bytes: [u8; 8]) -> Option<Option<Timestamp>> {
    match i64::from_le_bytes(bytes) {
        FOREVER => Some(None),
        micros => Timestamp::from_micros(micros).map(Some),
    }
}

fn take_time(bytes: &mut &[u8]) -> Result<Option<Timestamp>, CorruptEntity> {
    decode_time(take(bytes)?).ok_or(CorruptEntity::OutOfRange("retention"))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CorruptEntity> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(CorruptEntity::Truncated)?;
    *bytes = rest;
    Ok(*taken)
}

fn take_slice<'b>(bytes: &mut &'b [u8], length: usize) -> Result<&'b [u8], CorruptEntity> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(CorruptEntity::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn retentions() -> impl Strategy<Value = Option<Timestamp>> {
        let micros = Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros();
        proptest::option::of(micros.prop_filter_map("in range", Timestamp::from_micros))
    }

    type Parts = (Option<Vec<u8>>, bool, Option<(u32, bool, Option<Timestamp>)>);

    fn parts() -> impl Strategy<Value = Parts> {
        let envelope = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=LARGE));
        (envelope, any::<bool>(), proptest::option::of((any::<u32>(), any::<bool>(), retentions())))
    }

    proptest! {
        #[test]
        fn entities_survive(
            version in any::<u64>(),
            retain_until in retentions(),
            due in retentions(),
            features in proptest::collection::btree_map("[a-z_]{1,12}", parts(), 0..12),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let features = features.iter().map(|(name, (envelope, large, history))| StoredFeature {
                name,
                current: match envelope {
                    Some(envelope) => StoredCurrent::Here(envelope),
                    None if *large => StoredCurrent::Large,
                    None => StoredCurrent::Nowhere,
                },
                history: history
                    .map(|(records, alone, retain_until)| StoredHistory { records, alone, retain_until }),
            });
            let head = Head { version, created_at: Timestamp::from_millis(1_700_000_000_000).unwrap() };
            let entity = StoredEntity { head, retain_until, due, features: features.collect() };
            let mut bytes = entity.encode();
            prop_assert_eq!(StoredEntity::decode(&bytes), Ok(entity));
            // Damaged bytes are read or refused.
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = StoredEntity::decode(&bytes);
            let _ = StoredEntity::decode(&bytes[..at]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = StoredEntity::decode(&bytes);
        }
    }

    #[test]
    fn the_longer_retention_wins_and_for_ever_is_longest() {
        let (early, late) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        assert_eq!(longer(early, late), late);
        assert_eq!(longer(late, early), late);
        assert_eq!(longer(late, None), None);
        assert_eq!(longer(None, early), None);
    }
}
