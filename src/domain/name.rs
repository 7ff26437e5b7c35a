//! Validated names. A value of one of these types has been checked once, at the edge, and is cheap
//! to clone.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name of an entity type, feature or feature service, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest entity id, in bytes.
pub const MAX_ENTITY_ID_BYTES: usize = 256;

/// Why a text is not a name. The message names the rule, so that it can be shown as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    /// The offending text, shortened.
    text: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(64).collect(), rule }
    }
}

const IDENTIFIER_RULE: &str = "it must match [A-Za-z_][A-Za-z0-9_]* and have at most 128 bytes";
const SERVICE_RULE: &str = "it must match [A-Za-z_][A-Za-z0-9_-]* and have at most 128 bytes";
const ENTITY_ID_RULE: &str = "it must have 1 to 256 bytes and no control characters";

fn is_identifier(text: &str, also: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_' || also(*b))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rule of this kind of name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(NameError::new($what, text, $rule))
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text($what, Self::parse))
            }
        }
    };
}

/// Reads a text and hands it on without keeping it: a batch may name a thousand entities.
struct Text<T>(&'static str, fn(&str) -> Result<T, NameError>);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(de::Error::custom)
    }
}

name_type!(
    /// A kind of thing, such as `product`. Owns a schema.
    EntityType, "an entity type", IDENTIFIER_RULE, |text| is_identifier(text, |_| false)
);
name_type!(
    /// The name of a feature inside its entity type, such as `price`.
    FeatureName, "a feature name", IDENTIFIER_RULE, |text| is_identifier(text, |_| false)
);
name_type!(
    /// The name of a feature service, without its version.
    FeatureServiceName, "a feature service name", SERVICE_RULE,
    |text| is_identifier(text, |b| b == b'-')
);
name_type!(
    /// Which entity of its type: opaque text chosen by the client.
    EntityId, "an entity id", ENTITY_ID_RULE,
    |text| !text.is_empty() && text.len() <= MAX_ENTITY_ID_BYTES && !text.chars().any(char::is_control)
);

/// One entity: its type and its id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey {
    pub entity_type: EntityType,
    pub entity_id: EntityId,
}

impl EntityKey {
    pub fn new(entity_type: EntityType, entity_id: EntityId) -> Self {
        Self { entity_type, entity_id }
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entity_type, self.entity_id)
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A feature with its entity type, written `product.price`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureRef {
    pub entity_type: EntityType,
    pub feature: FeatureName,
}

impl FeatureRef {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (entity_type, feature) = text.split_once('.').ok_or_else(|| {
            NameError::new("a feature reference", text, "it is written entity_type.feature")
        })?;
        Ok(Self { entity_type: EntityType::parse(entity_type)?, feature: FeatureName::parse(feature)? })
    }
}

impl fmt::Display for FeatureRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.entity_type, self.feature)
    }
}

impl Serialize for FeatureRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FeatureRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// A feature service, by name alone (its latest version) or as `name@2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureServiceRef {
    pub name: FeatureServiceName,
    pub version: Option<u32>,
}

impl FeatureServiceRef {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let Some((name, version)) = text.split_once('@') else {
            return Ok(Self { name: FeatureServiceName::parse(text)?, version: None });
        };
        let version = version.parse().ok().filter(|v| *v > 0).ok_or_else(|| {
            NameError::new("a feature service", text, "the version after @ must be a whole number from 1")
        })?;
        Ok(Self { name: FeatureServiceName::parse(name)?, version: Some(version) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_the_rule() {
        for good in ["a", "_", "price_2", &"x".repeat(128)] {
            assert!(FeatureName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "2price", "a-b", "a.b", "é", "a b", &"x".repeat(129)] {
            assert!(FeatureName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entity_ids_are_opaque_but_printable() {
        for good in ["1", "a b", "{}", "日本", "../..", &"x".repeat(256)] {
            assert!(EntityId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\0", "\u{85}", &"x".repeat(257)] {
            assert!(EntityId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn references_parse_and_print() {
        assert_eq!(FeatureRef::parse("product.price").unwrap().to_string(), "product.price");
        for bad in ["price", "product.", ".price", "a.b.c"] {
            assert!(FeatureRef::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(FeatureServiceRef::parse("ranking@2").unwrap().version, Some(2));
        assert_eq!(FeatureServiceRef::parse("ranking").unwrap().version, None);
        for bad in ["ranking@", "ranking@0", "ranking@x", "@1", "ranking@-1"] {
            assert!(FeatureServiceRef::parse(bad).is_err(), "{bad}");
        }
    }
}
