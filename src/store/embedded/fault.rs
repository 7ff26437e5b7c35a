//! Why something inside a transaction did not work, and what that means for the rest of it.

use std::fmt::Display;

use super::key;
use crate::store::StoreError;

/// Why a job or a read failed.
#[derive(Debug)]
pub enum Fault {
    /// This one only, before it changed anything.
    Refused(StoreError),
    /// The transaction may have become durable or not, and there is no way to tell now.
    Unsure(String),
    /// The engine failed: what the transaction holds must not be committed.
    Engine(Box<redb::Error>),
}

impl Fault {
    /// What is stored under an entity, and there under a feature, cannot be read.
    pub fn corrupt(entity: &[u8], field: &str, reason: impl Display) -> Self {
        let (key, field) = (key::display(entity), field.to_owned());
        Self::Refused(StoreError::Corrupt { key, field, reason: reason.to_string() })
    }

    /// What is stored in a table of the store's own cannot be read.
    pub fn corrupt_table(table: &str, field: impl Display, reason: impl Display) -> Self {
        let (key, field) = (table.to_owned(), field.to_string());
        Self::Refused(StoreError::Corrupt { key, field, reason: reason.to_string() })
    }

    /// Whether the engine refuses everything from here on, until the file is opened again.
    pub fn needs_reopening(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Unsure(_) => true,
            Self::Engine(error) => is_outage(error),
        }
    }

    pub fn into_store_error(self) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Unsure(reason) => StoreError::Interrupted(reason),
            Self::Engine(error) if is_outage(&error) => StoreError::Unavailable(error.to_string()),
            Self::Engine(error) => match *error {
                redb::Error::Corrupted(reason) => {
                    StoreError::Corrupt { key: "the data file".to_owned(), field: "page".to_owned(), reason }
                }
                error => StoreError::Internal(error.to_string()),
            },
        }
    }
}

fn is_outage(error: &redb::Error) -> bool {
    matches!(
        error,
        redb::Error::Io(_)
            | redb::Error::Backend(_)
            | redb::Error::PreviousIo
            | redb::Error::DatabaseClosed
            | redb::Error::LockPoisoned(_)
    )
}

macro_rules! engine_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Engine(Box::new(error.into()))
            }
        }
    )*};
}

engine_errors!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::Error);
