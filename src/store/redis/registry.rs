//! The registry: a revision and the documents that are in force at it.

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::types::Value as Argument;

use super::RedisStore;
use super::batch::{Item, run_each};
use super::errors::{corrupt, of_key, unexpected};
use super::reply;
use crate::domain::name::EntityType;
use crate::store::{Document, DocumentKind, RegistryChange, RegistryState, StoreError};

impl RedisStore {
    fn revision_key(&self) -> Bytes {
        self.keys.registry("revision")
    }

    fn documents_key(&self, kind: DocumentKind) -> Bytes {
        self.keys.registry(match kind {
            DocumentKind::EntityType => "entity_types",
            DocumentKind::FeatureService => "feature_services",
        })
    }

    pub(super) async fn read_registry(&self) -> Result<RegistryState, StoreError> {
        let kinds = [DocumentKind::EntityType, DocumentKind::FeatureService];
        let key = self.revision_key();
        let item = |_| {
            let mut args = vec![Argument::Integer(3), Argument::Bytes(key.clone())];
            args.extend(kinds.map(|kind| Argument::Bytes(self.documents_key(kind))));
            Item { slot: fred::util::redis_keyslot(&key), key: key.clone(), args }
        };
        let replication = super::Replication { replicas: 0, ..self.replication };
        let mut runs = run_each(&self.links, &replication, &self.scripts.read_registry, 1, item).await;
        let ran = runs.pop().ok_or_else(|| unexpected("a registry read"))??;
        let parts = reply::array(ran.answer).ok_or_else(|| unexpected("a registry read"))?;
        let mut parts = parts.into_iter();
        let mut next = || parts.next().ok_or_else(|| unexpected("a registry read"));
        let revision = parse_revision(&key, next()?)?;
        let mut documents = Vec::new();
        for kind in kinds {
            let pairs = reply::pairs(next()?);
            let pairs = pairs.ok_or_else(|| corrupt(&self.documents_key(kind), "", "text is expected"))?;
            let document =
                |(name, body): (Str, Str)| Document { kind, name: name.to_string(), body: body.to_string() };
            let first = documents.len();
            documents.extend(pairs.into_iter().map(document));
            documents[first..].sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(RegistryState { revision, documents })
    }

    pub(super) async fn read_revision(&self) -> Result<u64, StoreError> {
        let key = self.revision_key();
        let slot = fred::util::redis_keyslot(&key);
        let reply = self.links.get()?.command("GET", slot, vec![Argument::Bytes(key.clone())]).await;
        match reply.map_err(|error| of_key(error, &key))? {
            Argument::Null => Ok(0),
            reply => parse_revision(&key, reply),
        }
    }

    pub(super) async fn write_registry(&self, change: &RegistryChange) -> Result<Option<u64>, StoreError> {
        let key = self.revision_key();
        let item = |_| {
            let mut acts = Acts { keys: vec![key.clone()], args: Vec::new() };
            for entity_type in &change.drop_archive {
                acts.push("drop", self.keys.schema_versions(entity_type), "", "");
            }
            for (kind, name) in &change.delete {
                acts.push("del", self.documents_key(*kind), name, "");
            }
            for document in &change.put {
                acts.push("put", self.documents_key(document.kind), &document.name, &document.body);
            }
            for (entity_type, version, body) in &change.archive {
                acts.push("put", self.keys.schema_versions(entity_type), &version.to_string(), body);
            }
            let mut args = Vec::with_capacity(2 + acts.keys.len() + acts.args.len());
            args.push(Argument::Integer(acts.keys.len() as i64));
            args.extend(acts.keys.into_iter().map(Argument::Bytes));
            args.push(Argument::String(change.expected_revision.to_string().into()));
            args.extend(acts.args);
            Item { slot: fred::util::redis_keyslot(&key), key: key.clone(), args }
        };
        let script = &self.scripts.change_registry;
        let mut runs = run_each(&self.links, &self.replication, script, 1, item).await;
        let ran = runs.pop().ok_or_else(|| unexpected("a registry change"))??;
        match ran.answer {
            Argument::Null => Ok(None),
            answer => {
                ran.replicated?;
                parse_revision(&key, answer).map(Some)
            }
        }
    }

    pub(super) async fn read_archive(
        &self,
        entity_type: &EntityType,
    ) -> Result<Vec<(u32, String)>, StoreError> {
        let key = self.keys.schema_versions(entity_type);
        let slot = fred::util::redis_keyslot(&key);
        let reply = self.links.get()?.command("HGETALL", slot, vec![Argument::Bytes(key.clone())]).await;
        let pairs = reply::pairs(reply.map_err(|error| of_key(error, &key))?);
        let pairs = pairs.ok_or_else(|| corrupt(&key, "", "text is expected"))?;
        let version = |(version, body): (Str, Str)| match version.parse() {
            Ok(number) => Ok((number, body.to_string())),
            Err(_) => Err(corrupt(&key, &version, "the field is no version")),
        };
        let mut versions = pairs.into_iter().map(version).collect::<Result<Vec<(u32, String)>, _>>()?;
        versions.sort_unstable_by_key(|(version, _)| *version);
        Ok(versions)
    }
}

/// What `change_registry.lua` is to do.
struct Acts {
    keys: Vec<Bytes>,
    args: Vec<Argument>,
}

impl Acts {
    fn push(&mut self, act: &'static str, key: Bytes, field: &str, value: &str) {
        let place = self.keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        });
        self.args.push(Argument::String(Str::from_static(act)));
        // Lua counts from one.
        self.args.push(Argument::Integer(place as i64 + 1));
        self.args.push(Argument::String(Str::from(field)));
        self.args.push(Argument::String(Str::from(value)));
    }
}

fn parse_revision(key: &Bytes, reply: Argument) -> Result<u64, StoreError> {
    let text = reply::text(reply);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| corrupt(key, "", "this is not a revision"))
}
