//! The registry's documents, its revision and the archive of schema versions.

use redb::{ReadTransaction, ReadableTable};

use super::fault::Fault;
use super::tables::{DOCUMENTS, META, SCHEMA_VERSIONS, Tables, meta};
use crate::domain::name::EntityType;
use crate::store::{Document, DocumentKind, RegistryChange, RegistryState};

fn kind_number(kind: DocumentKind) -> u8 {
    match kind {
        DocumentKind::EntityType => 0,
        DocumentKind::FeatureService => 1,
    }
}

fn kind_of(number: u8) -> Option<DocumentKind> {
    match number {
        0 => Some(DocumentKind::EntityType),
        1 => Some(DocumentKind::FeatureService),
        _ => None,
    }
}

pub fn revision(transaction: &ReadTransaction) -> Result<u64, Fault> {
    let meta = transaction.open_table(META)?;
    Ok(meta.get(meta::REGISTRY_REVISION)?.map_or(0, |revision| revision.value()))
}

pub fn load(transaction: &ReadTransaction) -> Result<RegistryState, Fault> {
    let mut documents = Vec::new();
    for entry in transaction.open_table(DOCUMENTS)?.iter()? {
        let (key, body) = entry?;
        let (kind, name) = key.value();
        let kind = kind_of(kind).ok_or_else(|| Fault::corrupt_table("documents", name, "unknown kind"))?;
        documents.push(Document { kind, name: name.to_owned(), body: body.value().to_owned() });
    }
    Ok(RegistryState { revision: revision(transaction)?, documents })
}

pub fn archive(transaction: &ReadTransaction, entity_type: &EntityType) -> Result<Vec<(u32, String)>, Fault> {
    let name = entity_type.as_str();
    let mut versions = Vec::new();
    for entry in transaction.open_table(SCHEMA_VERSIONS)?.range((name, 0)..=(name, u32::MAX))? {
        let (key, body) = entry?;
        versions.push((key.value().1, body.value().to_owned()));
    }
    Ok(versions)
}

/// What is to go goes first, so that a change may drop a name and put it anew.
pub fn change(tables: &mut Tables, change: &RegistryChange) -> Result<Option<u64>, Fault> {
    let revision = tables.number(meta::REGISTRY_REVISION)?;
    if revision != change.expected_revision {
        return Ok(None);
    }
    for (kind, name) in &change.delete {
        tables.documents.remove((kind_number(*kind), name.as_str()))?;
    }
    for Document { kind, name, body } in &change.put {
        tables.documents.insert((kind_number(*kind), name.as_str()), body.as_str())?;
    }
    for entity_type in &change.drop_archive {
        let name = entity_type.as_str();
        tables.schema_versions.retain_in((name, 0)..=(name, u32::MAX), |_, _| false)?;
    }
    for (entity_type, version, body) in &change.archive {
        tables.schema_versions.insert((entity_type.as_str(), *version), body.as_str())?;
    }
    tables.set_number(meta::REGISTRY_REVISION, revision + 1)?;
    Ok(Some(revision + 1))
}
