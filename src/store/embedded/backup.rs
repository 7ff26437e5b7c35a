//! A copy of everything at one moment, as a stream of bytes, while reading and writing go on; and a
//! store made from such a copy.
//!
//! The line `feature-store backup 1`; for each row the number of its table (one byte), then key and
//! value, each as its length (u32) and its bytes; at the end a zero, the number of rows (u64), and
//! the BLAKE3 hash of all before it. Numbers are little-endian. A copy that was cut off or changed
//! is found by its end.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, Key, ReadTransaction, ReadableTable, Table, TableDefinition, Value};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::fault::Fault;
use super::open::{FILE, OpenError, Options, Place};
use super::tables::{self, Tables};
use crate::store::StoreError;

const MAGIC: &[u8] = b"feature-store backup 1\n";
const END: u8 = 0;
const HASH: usize = blake3::OUT_LEN;
/// So much is gathered before it is sent.
const PIECE: usize = 256 << 10;
/// Who takes nothing for so long has gone; meanwhile the file cannot use freed pages again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than anything that is stored.
const LONGEST: u32 = 1 << 30;

pub type Pieces = mpsc::Sender<Result<Bytes, StoreError>>;

/// Writes everything that `transaction` sees to `pieces`. Blocks while nobody takes them.
pub fn write(transaction: &ReadTransaction, pieces: &Pieces) -> Result<(), Fault> {
    let mut out = Out { pieces, piece: Vec::with_capacity(PIECE), hash: blake3::Hasher::new(), rows: 0 };
    out.put(MAGIC)?;
    out.table(1, transaction, tables::ENTITIES)?;
    out.table(2, transaction, tables::LARGE)?;
    out.table(3, transaction, tables::HISTORY)?;
    out.table(4, transaction, tables::ENTITIES_DUE)?;
    out.table(5, transaction, tables::PROVENANCE)?;
    out.table(6, transaction, tables::PROVENANCE_IDS)?;
    out.table(7, transaction, tables::PROVENANCE_DUE)?;
    out.table(8, transaction, tables::DOCUMENTS)?;
    out.table(9, transaction, tables::SCHEMA_VERSIONS)?;
    out.table(10, transaction, tables::JOBS)?;
    out.table(11, transaction, tables::META)?;
    out.table(12, transaction, tables::SERVING_LOG)?;
    out.finish()
}

/// As [`write`] numbered them.
fn fill(tables: &mut Tables, number: u8, key: &[u8], value: &[u8]) -> Result<bool, Fault> {
    match number {
        1 => insert(&mut tables.entities, key, value)?,
        2 => insert(&mut tables.large, key, value)?,
        3 => insert(&mut tables.history, key, value)?,
        4 => insert(&mut tables.entities_due, key, value)?,
        5 => insert(&mut tables.provenance, key, value)?,
        6 => insert(&mut tables.provenance_ids, key, value)?,
        7 => insert(&mut tables.provenance_due, key, value)?,
        8 => insert(&mut tables.documents, key, value)?,
        9 => insert(&mut tables.schema_versions, key, value)?,
        10 => insert(&mut tables.jobs, key, value)?,
        11 => insert(&mut tables.meta, key, value)?,
        12 => insert(&mut tables.serving_log, key, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn insert<K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    key: &[u8],
    value: &[u8],
) -> Result<(), Fault> {
    table.insert(K::from_bytes(key), V::from_bytes(value))?;
    Ok(())
}

struct Out<'a> {
    pieces: &'a Pieces,
    piece: Vec<u8>,
    hash: blake3::Hasher,
    rows: u64,
}

impl Out<'_> {
    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        number: u8,
        transaction: &ReadTransaction,
        table: TableDefinition<K, V>,
    ) -> Result<(), Fault> {
        for entry in transaction.open_table(table)?.iter()? {
            let (key, value) = entry?;
            let (key, value) = (key.value(), value.value());
            self.put(&[number])?;
            self.put_sized(K::as_bytes(&key).as_ref())?;
            self.put_sized(V::as_bytes(&value).as_ref())?;
            self.rows += 1;
        }
        Ok(())
    }

    fn put_sized(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.put(&(bytes.len() as u32).to_le_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.hash.update(bytes);
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Fault> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = tokio::time::timeout(PATIENCE, self.pieces.send(Ok(piece.into())));
        match Handle::current().block_on(sent) {
            Ok(Ok(())) => Ok(()),
            _ => Err(Fault::Refused(StoreError::Interrupted("nobody takes the backup any more".to_owned()))),
        }
    }

    fn finish(mut self) -> Result<(), Fault> {
        self.put(&[END])?;
        let rows = self.rows.to_le_bytes();
        self.put(&rows)?;
        let hash = self.hash.finalize();
        self.piece.extend_from_slice(hash.as_bytes());
        self.send()
    }
}

/// Why a backup was not restored. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} is not a backup, or not a whole one: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: &'static str },
    #[error("the data directory {} is not empty: restore into another one, or move its files away", .0.display())]
    NotEmpty(PathBuf),
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("the backup cannot be stored: {0}")]
    Store(StoreError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Checks that `file` is a whole backup; says how many rows are in it.
pub fn verify(file: &Path) -> Result<u64, RestoreError> {
    read(file, |_, _, _| Ok(true))
}

/// Makes a data directory out of a backup; says how many rows were in it. What was begun and failed
/// leaves no store behind.
pub fn restore(file: &Path, data_dir: &Path) -> Result<u64, RestoreError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| RestoreError::Io { path, error }
    };
    match fs::read_dir(data_dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(RestoreError::NotEmpty(data_dir.to_owned()));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io(data_dir)(error)),
    }
    // All of it, before anything is made.
    verify(file)?;
    fs::create_dir_all(data_dir).map_err(io(data_dir))?;
    let unfinished = data_dir.join(format!("{FILE}.restoring"));
    // Whole as it is, it may have been made by something else: the engine panics over wrong lengths.
    let filled = panic::catch_unwind(AssertUnwindSafe(|| make(file, &unfinished)));
    let filled = filled.unwrap_or_else(|_| Err(damaged(file, "a row is not what its table holds")));
    let finished = filled.and_then(|rows| {
        fs::rename(&unfinished, data_dir.join(FILE)).map_err(io(&unfinished))?;
        File::open(data_dir).and_then(|directory| directory.sync_all()).map_err(io(data_dir))?;
        // As the server will open it.
        Place::in_directory(data_dir, &Options::default())?.open()?;
        Ok(rows)
    });
    if finished.is_err() {
        // It is of no use to anybody, and the next attempt wants the directory empty.
        let _ = fs::remove_file(&unfinished);
        let _ = fs::remove_file(data_dir.join(FILE));
    }
    finished
}

fn make(file: &Path, target: &Path) -> Result<u64, RestoreError> {
    let failed = |fault: Fault| RestoreError::Store(fault.into_store_error());
    let database = Database::create(target).map_err(|error| failed(redb::Error::from(error).into()))?;
    let mut transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    let mut tables = Tables::open(&transaction).map_err(|error| failed(error.into()))?;
    let rows = read(file, |number, key, value| fill(&mut tables, number, key, value).map_err(failed))?;
    drop(tables);
    transaction.set_quick_repair(true);
    transaction.commit().map_err(|error| failed(error.into()))?;
    Ok(rows)
}

fn damaged(file: &Path, reason: &'static str) -> RestoreError {
    RestoreError::Damaged { path: file.to_owned(), reason }
}

/// Reads a backup to its end and checks that it is whole. `row` says whether it knows the table.
fn read(
    file: &Path,
    mut row: impl FnMut(u8, &[u8], &[u8]) -> Result<bool, RestoreError>,
) -> Result<u64, RestoreError> {
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => damaged(file, "it ends too early"),
        _ => RestoreError::Io { path: file.to_owned(), error },
    };
    let opened = File::open(file).map_err(io)?;
    let mut input = Input { from: BufReader::with_capacity(PIECE, opened), hash: blake3::Hasher::new() };
    let mut magic = [0; MAGIC.len()];
    input.take(&mut magic).map_err(io)?;
    if magic != MAGIC {
        return Err(damaged(file, "it does not begin like one of a version that is known here"));
    }
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for rows in 0_u64.. {
        let mut number = [END];
        input.take(&mut number).map_err(io)?;
        let [number] = number;
        if number == END {
            let mut counted = [0; 8];
            input.take(&mut counted).map_err(io)?;
            let hash = input.hash.finalize();
            let mut end = [0; HASH];
            input.from.read_exact(&mut end).map_err(io)?;
            return match hash.as_bytes() == &end && u64::from_le_bytes(counted) == rows {
                true => Ok(rows),
                false => Err(damaged(file, "its hash is another one")),
            };
        }
        for part in [&mut key, &mut value] {
            let mut length = [0; 4];
            input.take(&mut length).map_err(io)?;
            let length = u32::from_le_bytes(length);
            if length > LONGEST {
                return Err(damaged(file, "a length in it is too great"));
            }
            // Grows with what is there, whatever the length says.
            part.clear();
            let found = input.from.by_ref().take(u64::from(length)).read_to_end(part).map_err(io)?;
            if found < length as usize {
                return Err(damaged(file, "it ends too early"));
            }
            input.hash.update(part);
        }
        if !row(number, &key, &value)? {
            return Err(damaged(file, "it has a table that is not known here"));
        }
    }
    Err(damaged(file, "it has no end"))
}

struct Input {
    from: BufReader<File>,
    hash: blake3::Hasher,
}

impl Input {
    fn take(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        self.from.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }
}
