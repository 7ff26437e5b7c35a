//! Opening the data directory, and what may be wrong with it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, TableError};

use super::fault::Fault;
use super::tables::{META, Tables, meta};

/// The layout of the tables that this version writes.
const FORMAT: u64 = 3;
pub const FILE: &str = "feature-store.redb";

/// How the store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20 }
    }
}

/// Why the store could not be opened. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data directory {} is in use by another process: stop that process, or give this one a directory of its own",
        .0.display()
    )]
    InUse(PathBuf),
    #[error("the data directory {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "no permission to read and write {}: the user that runs the server must own the data directory",
        .0.display()
    )]
    PermissionDenied(PathBuf),
    #[error(
        "the data file {} is damaged ({reason}): restore it from a backup, or move it away to start empty",
        .path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "the data file {} was written by a newer version of the feature store (format {found}; this version reads up to {supported}): run that version or a later one",
        .path.display()
    )]
    NewerFormat { path: PathBuf, found: u64, supported: u64 },
    #[error(
        "the data file {} was written by an earlier version of the feature store (format {found}; this version reads {supported}): run that version, or start with an empty data directory",
        .path.display()
    )]
    OlderFormat { path: PathBuf, found: u64, supported: u64 },
    #[error("the data directory {} cannot be used: {reason}", .path.display())]
    Other { path: PathBuf, reason: String },
}

type OpenDatabase = dyn Fn(&Path, usize) -> Result<Database, DatabaseError> + Send;

/// Where the store is and how its file is opened, again where it has to be.
pub struct Place {
    pub directory: PathBuf,
    pub file: PathBuf,
    cache_bytes: usize,
    open: Box<OpenDatabase>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Place {
    pub fn in_directory(directory: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::opened_by(directory, options, |file, cache_bytes| {
            Database::builder().set_cache_size(cache_bytes).create(file)
        })
    }

    /// As [`Place::in_directory`], with another way to open the file.
    pub fn opened_by(
        directory: &Path,
        options: &Options,
        open: impl Fn(&Path, usize) -> Result<Database, DatabaseError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        match fs::create_dir_all(directory) {
            Ok(()) => {}
            Err(_) if directory.exists() && !directory.is_dir() => {
                return Err(OpenError::NotADirectory(directory.to_owned()));
            }
            Err(error) => return Err(io_error(directory, &error)),
        }
        let file = directory.join(FILE);
        Ok(Self {
            directory: directory.to_owned(),
            file,
            cache_bytes: options.cache_bytes,
            open: Box::new(open),
        })
    }

    /// Opens the file, and creates it with all its tables where it is not there yet.
    pub fn open(&self) -> Result<Database, OpenError> {
        let is_new = !self.file.exists();
        // The engine trusts a file that was closed in order and may panic where it was damaged since.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| {
            let database = (self.open)(&self.file, self.cache_bytes).map_err(|error| self.refused(error))?;
            self.check_format(&database)?;
            Ok(database)
        }));
        let database = opened.unwrap_or_else(|_| Err(self.corrupt("its pages contradict each other")))?;
        if is_new {
            // The file is durable; its name is only when the directory is.
            let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| io_error(&self.directory, &error))?;
        }
        Ok(database)
    }

    fn check_format(&self, database: &Database) -> Result<(), OpenError> {
        let broken = |fault: Fault| self.failed(fault);
        let transaction = database.begin_read().map_err(|error| broken(error.into()))?;
        let format = match transaction.open_table(META) {
            Ok(table) => table.get(meta::FORMAT).map_err(|error| broken(error.into()))?.map(|n| n.value()),
            Err(TableError::TableDoesNotExist(_)) => return self.create_tables(database).map_err(broken),
            Err(error) => return Err(broken(error.into())),
        };
        match format {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(OpenError::NewerFormat { path: self.file.clone(), found, supported: FORMAT })
            }
            Some(found @ 1..FORMAT) => {
                Err(OpenError::OlderFormat { path: self.file.clone(), found, supported: FORMAT })
            }
            Some(_) | None => Err(self.corrupt("it has no valid format number")),
        }
    }

    fn create_tables(&self, database: &Database) -> Result<(), Fault> {
        let transaction = database.begin_write()?;
        Tables::open(&transaction)?.set_number(meta::FORMAT, FORMAT)?;
        Ok(transaction.commit()?)
    }

    fn refused(&self, error: DatabaseError) -> OpenError {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                OpenError::InUse(self.directory.clone())
            }
            DatabaseError::Storage(error) => self.failed(error.into()),
            error => self.other(&error),
        }
    }

    fn failed(&self, fault: Fault) -> OpenError {
        let Fault::Engine(error) = fault else {
            return self.other(&fault.into_store_error());
        };
        match *error {
            redb::Error::Io(error) => match error.kind() {
                // What the engine says of a file that is not its own.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    self.corrupt("it is not a data file of the feature store")
                }
                _ => io_error(&self.file, &error),
            },
            redb::Error::Corrupted(reason) => self.corrupt(&reason),
            redb::Error::TableTypeMismatch { table, .. } => {
                self.corrupt(&format!("its table {table} is of another type"))
            }
            error => self.other(&error),
        }
    }

    fn corrupt(&self, reason: &str) -> OpenError {
        OpenError::Corrupt { path: self.file.clone(), reason: reason.to_owned() }
    }

    fn other(&self, reason: &dyn fmt::Display) -> OpenError {
        OpenError::Other { path: self.directory.clone(), reason: reason.to_string() }
    }
}

fn io_error(path: &Path, error: &io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::PermissionDenied(path.to_owned())
        }
        io::ErrorKind::NotADirectory => OpenError::NotADirectory(path.to_owned()),
        _ => OpenError::Other { path: path.to_owned(), reason: error.to_string() },
    }
}
