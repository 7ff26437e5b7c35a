//! Maps in documents, whose keys are there once: of two members with one name, JSON says no word, and the
//! first would be forgotten without one.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use indexmap::IndexMap;
use indexmap::map::Entry;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// For `#[serde(deserialize_with)]`.
pub fn map<'de, D, K, V>(deserializer: D) -> Result<IndexMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + fmt::Display + Eq + Hash,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Unique(PhantomData))
}

struct Unique<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Unique<K, V>
where
    K: Deserialize<'de> + fmt::Display + Eq + Hash,
    V: Deserialize<'de>,
{
    type Value = IndexMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut map = IndexMap::new();
        while let Some(key) = members.next_key::<K>()? {
            match map.entry(key) {
                Entry::Occupied(there) => {
                    return Err(A::Error::custom(format_args!("{} is there twice", there.key())));
                }
                Entry::Vacant(vacant) => {
                    vacant.insert(members.next_value()?);
                }
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_is_there_once() {
        let read = |json: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            super::map::<_, String, u8>(&mut deserializer).map_err(|error| error.to_string())
        };
        assert_eq!(
            read(r#"{"b": 1, "a": 2}"#).unwrap().into_iter().map(|(_, n)| n).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(read(r#"{"b": 1, "a": 2, "b": 1}"#).unwrap_err().starts_with("b is there twice"));
        assert!(read("[1]").unwrap_err().contains("expected a map"));
    }
}
