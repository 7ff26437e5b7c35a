//! The tables of the file.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::fault::Fault;

type Bytes = &'static [u8];

/// `type \0 id` → an entity with everything small.
pub const ENTITIES: TableDefinition<Bytes, Bytes> = TableDefinition::new("entities");
/// `type \0 id \0 feature` → a current record too large for the entity's own value.
pub const LARGE: TableDefinition<Bytes, Bytes> = TableDefinition::new("large");
/// `type \0 id \0 feature \0 event time, version` → superseded records: see [`super::history`].
pub const HISTORY: TableDefinition<Bytes, Bytes> = TableDefinition::new("history");
/// When the reaper is to look at which entity.
pub const ENTITIES_DUE: TableDefinition<Bytes, ()> = TableDefinition::new("entities_due");
pub const PROVENANCE: TableDefinition<u64, Bytes> = TableDefinition::new("provenance");
pub const PROVENANCE_IDS: TableDefinition<Bytes, u64> = TableDefinition::new("provenance_ids");
pub const PROVENANCE_DUE: TableDefinition<Bytes, ()> = TableDefinition::new("provenance_due");
/// Kind and name → what is in force.
pub const DOCUMENTS: TableDefinition<(u8, &'static str), &'static str> = TableDefinition::new("documents");
pub const SCHEMA_VERSIONS: TableDefinition<(&'static str, u32), &'static str> =
    TableDefinition::new("schema_versions");
/// Id → the note of a job.
pub const JOBS: TableDefinition<&'static str, &'static str> = TableDefinition::new("jobs");
/// `service \0 time, id` → when it may go, and what was served: see [`super::log`].
pub const SERVING_LOG: TableDefinition<Bytes, Bytes> = TableDefinition::new("serving_log");
/// The numbers of [`meta`].
pub const META: TableDefinition<&'static str, u64> = TableDefinition::new("meta");

pub mod meta {
    pub const FORMAT: &str = "format";
    /// How many groups of jobs were committed: tells after a failed commit whether it was made.
    pub const GROUPS: &str = "groups";
    pub const NEXT_PROVENANCE: &str = "next_provenance";
    pub const REGISTRY_REVISION: &str = "registry_revision";
}

/// All tables of one write transaction.
pub struct Tables<'t> {
    pub entities: Table<'t, Bytes, Bytes>,
    pub large: Table<'t, Bytes, Bytes>,
    pub history: Table<'t, Bytes, Bytes>,
    pub entities_due: Table<'t, Bytes, ()>,
    pub provenance: Table<'t, u64, Bytes>,
    pub provenance_ids: Table<'t, Bytes, u64>,
    pub provenance_due: Table<'t, Bytes, ()>,
    pub documents: Table<'t, (u8, &'static str), &'static str>,
    pub schema_versions: Table<'t, (&'static str, u32), &'static str>,
    pub jobs: Table<'t, &'static str, &'static str>,
    pub serving_log: Table<'t, Bytes, Bytes>,
    pub meta: Table<'t, &'static str, u64>,
    /// Whether there is anything to commit. Whoever writes says so.
    pub changed: bool,
    /// The keys of the entities that are written or removed, to be told when it is done.
    pub touched: Vec<Vec<u8>>,
    /// Whether to note in the file which of its pages are free, so that it opens at once after a
    /// crash. That doubles the time of a commit; without it an open after a crash reads the whole
    /// file (2.8 s for 2 GiB, in memory).
    pub checkpoint: bool,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::TableError> {
        Ok(Self {
            entities: transaction.open_table(ENTITIES)?,
            large: transaction.open_table(LARGE)?,
            history: transaction.open_table(HISTORY)?,
            entities_due: transaction.open_table(ENTITIES_DUE)?,
            provenance: transaction.open_table(PROVENANCE)?,
            provenance_ids: transaction.open_table(PROVENANCE_IDS)?,
            provenance_due: transaction.open_table(PROVENANCE_DUE)?,
            documents: transaction.open_table(DOCUMENTS)?,
            schema_versions: transaction.open_table(SCHEMA_VERSIONS)?,
            jobs: transaction.open_table(JOBS)?,
            serving_log: transaction.open_table(SERVING_LOG)?,
            meta: transaction.open_table(META)?,
            changed: false,
            touched: Vec::new(),
            checkpoint: false,
        })
    }

    pub fn number(&self, name: &str) -> Result<u64, Fault> {
        Ok(self.meta.get(name)?.map_or(0, |number| number.value()))
    }

    pub fn set_number(&mut self, name: &str, number: u64) -> Result<(), Fault> {
        self.meta.insert(name, number)?;
        self.changed = true;
        Ok(())
    }

    /// Has this transaction's commit be a checkpoint.
    pub fn checkpoint(&mut self) {
        self.checkpoint = true;
        self.changed = true;
    }
}
