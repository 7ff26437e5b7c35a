//! The notes of jobs.

use redb::{ReadTransaction, ReadableTable};

use super::fault::Fault;
use super::tables::{JOBS, Tables};

pub fn put(tables: &mut Tables, id: &str, note: &str) -> Result<(), Fault> {
    tables.jobs.insert(id, note)?;
    tables.changed = true;
    Ok(())
}

pub fn load(transaction: &ReadTransaction) -> Result<Vec<(String, String)>, Fault> {
    let mut jobs = Vec::new();
    for entry in transaction.open_table(JOBS)?.iter()? {
        let (id, note) = entry?;
        jobs.push((id.value().to_owned(), note.value().to_owned()));
    }
    Ok(jobs)
}

pub fn delete(tables: &mut Tables, ids: &[String]) -> Result<(), Fault> {
    for id in ids {
        tables.changed |= tables.jobs.remove(id.as_str())?.is_some();
    }
    Ok(())
}
