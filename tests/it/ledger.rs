//! What clients were told, against what the store says afterwards. Pure, and tested itself.

use std::collections::BTreeMap;
use std::fmt;

/// What a writer was told of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Stored, as this version.
    Acknowledged(u64),
    /// Refused before anything was carried out.
    Refused,
    /// Nothing, or that it may have been stored.
    Unknown,
}

/// The writes of one writer to an entity of its own, in their order. The first wrote 1, the second
/// 2, and so on: a value tells which write it comes from.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub told: Vec<Told>,
}

/// Where store and story contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Acknowledged as this version, and not there.
    Lost { value: u64, version: u64 },
    /// There, and never written or refused.
    Invented { value: u64, version: u64 },
    /// Two writes, whose order was known, are the other way round.
    Disordered { before: u64, after: u64 },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { value, version } => write!(f, "{value}, acknowledged as version {version}, is lost"),
            Self::Invented { value, version } => {
                write!(f, "{value} is there as version {version}, and was not written")
            }
            Self::Disordered { before, after } => write!(f, "{after} was stored before {before}"),
        }
    }
}

impl Story {
    pub fn acknowledged(&self) -> usize {
        self.told.iter().filter(|told| matches!(told, Told::Acknowledged(_))).count()
    }

    /// Compares with the whole history: versions and their values.
    pub fn check(&self, history: &BTreeMap<u64, u64>) -> Vec<Contradiction> {
        let mut wrong = Vec::new();
        for (value, told) in (1..).zip(&self.told) {
            if let Told::Acknowledged(version) = *told
                && history.get(&version) != Some(&value)
            {
                wrong.push(Contradiction::Lost { value, version });
            }
        }
        let mut last = 0;
        for (&version, &value) in history {
            let told = value.checked_sub(1).and_then(|index| self.told.get(usize::try_from(index).ok()?));
            match told {
                Some(Told::Acknowledged(known)) if *known == version => {}
                Some(Told::Unknown) => {}
                Some(Told::Acknowledged(_) | Told::Refused) | None => {
                    wrong.push(Contradiction::Invented { value, version });
                }
            }
            if value <= last {
                wrong.push(Contradiction::Disordered { before: last, after: value });
            }
            last = value;
        }
        wrong
    }
}

#[test]
fn it_finds_what_is_planted() {
    use Told::{Acknowledged, Refused, Unknown};
    let story = Story { told: vec![Acknowledged(1), Unknown, Refused, Unknown, Acknowledged(3)] };
    let check = |history: &[(u64, u64)]| story.check(&history.iter().copied().collect());
    // The second or the fourth write was carried out, nobody knows which.
    assert_eq!(check(&[(1, 1), (2, 2), (3, 5)]), []);
    assert_eq!(check(&[(1, 1), (2, 4), (3, 5)]), []);
    assert_eq!(check(&[(1, 1), (2, 2)]), [Contradiction::Lost { value: 5, version: 3 }]);
    assert_eq!(check(&[(2, 2), (3, 5)]), [Contradiction::Lost { value: 1, version: 1 }]);
    assert_eq!(check(&[(1, 1), (2, 3), (3, 5)]), [Contradiction::Invented { value: 3, version: 2 }]);
    assert_eq!(check(&[(1, 1), (3, 5), (4, 9)]), [Contradiction::Invented { value: 9, version: 4 }]);
    assert_eq!(check(&[(1, 1), (3, 5), (4, 0)])[0], Contradiction::Invented { value: 0, version: 4 });
    assert_eq!(check(&[(1, 1), (3, 5), (4, 4)]), [Contradiction::Disordered { before: 5, after: 4 }]);
    // A value that was overwritten is a loss of one and an invention of another.
    assert_eq!(check(&[(1, 2), (3, 5)]).len(), 1);
    assert_eq!(check(&[(1, 5), (3, 5)]).len(), 3);
}
