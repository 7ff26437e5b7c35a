//! The names of everything in Redis.
//!
//! An entity's keys share the hash tag `{type:id}`, so that one slot of a cluster holds them. An
//! entity id may hold braces and colons: only the name of an entity's main hash ends in `}`, which
//! is how a listing tells it apart.

use bytes::Bytes;
use fred::util::redis_keyslot;

use crate::domain::name::{EntityId, EntityKey, EntityType, FeatureName, FeatureServiceName};

/// The field of the main hash that holds the entity's head. No feature can have this name.
pub(super) const HEAD: &str = "@";

/// The keys of one installation, under its prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// The keys of one entity.
pub(super) struct EntityKeys {
    pub main: Bytes,
    pub large: Bytes,
    pub slot: u16,
}

impl Keys {
    /// `None` where the prefix holds what a key pattern or a hash tag would take for its own.
    pub fn new(prefix: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/');
        (!prefix.is_empty() && prefix.bytes().all(plain)).then(|| Self { prefix: prefix.to_owned() })
    }

    pub fn entity(&self, entity: &EntityKey) -> EntityKeys {
        let (entity_type, entity_id) = (entity.entity_type.as_str(), entity.entity_id.as_str());
        let main = join(&[&self.prefix, ":{", entity_type, ":", entity_id, "}"]);
        let large = join(&[&self.prefix, ":{", entity_type, ":", entity_id, "}:large"]);
        let slot = redis_keyslot(&main);
        EntityKeys { main, large, slot }
    }

    /// Matches every key of every entity of a type.
    pub fn pattern(&self, entity_type: &EntityType) -> String {
        format!("{}:{{{entity_type}:*", self.prefix)
    }

    /// The entity whose main hash `key` is; `None` for any other key.
    pub fn entity_id(&self, entity_type: &EntityType, key: &[u8]) -> Option<EntityId> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":{")?;
        let rest = rest.strip_prefix(entity_type.as_str().as_bytes())?.strip_prefix(b":")?;
        EntityId::parse(std::str::from_utf8(rest.strip_suffix(b"}")?).ok()?).ok()
    }

    /// What the keys of all entities begin with (and those of the registry).
    pub fn entities(&self) -> Bytes {
        join(&[&self.prefix, ":{"])
    }

    /// Type and id of the entity whose main or large hash `key` is. A commit changes the main hash
    /// always, so that the other keys tell nothing more.
    pub fn names<'k>(&self, key: &'k [u8]) -> Option<(&'k str, &'k str)> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":{")?;
        let rest = rest.strip_suffix(b":large").unwrap_or(rest).strip_suffix(b"}")?;
        std::str::from_utf8(rest).ok()?.split_once(':')
    }

    /// The counter that provenance ids are drawn from.
    pub fn provenance_counter(&self) -> Bytes {
        join(&[&self.prefix, ":{provenance}:next"])
    }

    /// What the keys of provenance records begin with; the id follows.
    pub fn provenance_record_prefix(&self) -> Bytes {
        join(&[&self.prefix, ":{provenance}:"])
    }

    pub fn provenance_record(&self, id: u64) -> Bytes {
        join(&[&self.prefix, ":{provenance}:", &id.to_string()])
    }

    /// Where the id of a record with this digest is.
    pub fn provenance_digest(&self, digest: &str) -> Bytes {
        join(&[&self.prefix, ":{provenance}:digest:", digest])
    }

    /// The notes of jobs.
    pub fn jobs(&self) -> Bytes {
        join(&[&self.prefix, ":{jobs}"])
    }

    /// What a feature service served. Not among what is tracked: it is no entity, and often written.
    pub fn log(&self, service: &FeatureServiceName) -> Bytes {
        join(&[&self.prefix, ":log:{", service.as_str(), "}"])
    }

    pub fn registry(&self, part: &str) -> Bytes {
        join(&[&self.prefix, ":{registry}:", part])
    }

    pub fn schema_versions(&self, entity_type: &EntityType) -> Bytes {
        join(&[&self.prefix, ":{registry}:schema_versions:", entity_type.as_str()])
    }
}

impl EntityKeys {
    /// The list of rows of superseded records.
    pub fn rows(&self) -> Bytes {
        let mut key = Vec::with_capacity(self.main.len() + 2);
        key.extend_from_slice(&self.main);
        key.extend_from_slice(b":v");
        Bytes::from(key)
    }

    /// The sorted set of a feature's superseded records.
    pub fn history(&self, feature: &FeatureName) -> Bytes {
        let mut key = Vec::with_capacity(self.main.len() + 3 + feature.as_str().len());
        key.extend_from_slice(&self.main);
        key.extend_from_slice(b":v:");
        key.extend_from_slice(feature.as_str().as_bytes());
        Bytes::from(key)
    }
}

fn join(parts: &[&str]) -> Bytes {
    Bytes::from(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(id: &str) -> EntityKey {
        EntityKey::new(EntityType::parse("product").unwrap(), EntityId::parse(id).unwrap())
    }

    #[test]
    fn only_a_main_hash_is_read_back_as_its_entity() {
        let keys = Keys::new("fs").unwrap();
        let product = EntityType::parse("product").unwrap();
        for id in ["1", "a:b", "a}", "}:large", "a}:v:price", "{a}", "ключ"] {
            let of_entity = keys.entity(&entity(id));
            let read = |key: &[u8]| keys.entity_id(&product, key);
            assert_eq!(read(&of_entity.main), Some(EntityId::parse(id).unwrap()), "{id}");
            assert_eq!(read(&of_entity.large), None, "{id}");
            assert_eq!(keys.names(&of_entity.main), Some(("product", id)));
            assert_eq!(keys.names(&of_entity.large), Some(("product", id)));
            let history = of_entity.history(&FeatureName::parse("price").unwrap());
            assert_eq!(read(&history), None, "{id}");
            assert_eq!(keys.names(&history), None, "{id}");
            assert_eq!(redis_keyslot(&history), of_entity.slot, "{id}");
            assert_eq!(redis_keyslot(&of_entity.large), of_entity.slot, "{id}");
        }
        for other in [keys.registry("revision"), keys.jobs(), keys.provenance_counter()] {
            assert_eq!(keys.names(&other), None);
        }
        let other = EntityType::parse("products").unwrap();
        assert_eq!(keys.entity_id(&other, &keys.entity(&entity("1")).main), None);
    }

    #[test]
    fn prefixes_hold_nothing_that_means_something_to_redis() {
        assert!(Keys::new("team-a:fs").is_some());
        for bad in ["", "{fs}", "f*", "f?s", "[fs]", "f s", "f\\s"] {
            assert!(Keys::new(bad).is_none(), "{bad}");
        }
    }
}
