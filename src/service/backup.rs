//! A copy of a store that has nobody else to copy it, while it is in use.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::FeatureStore;
use super::error::{ServiceError, StoreError};
use super::principal::permit_everything;
use crate::store::Backup;

/// The store to copy, and whose turn it is: a copy keeps the store from using freed pages again, so
/// there is one at a time.
pub(super) struct Backups {
    store: Arc<dyn Backup>,
    turn: Arc<Semaphore>,
}

impl Backups {
    pub fn new(store: Arc<dyn Backup>) -> Self {
        Self { store, turn: Arc::new(Semaphore::new(1)) }
    }
}

/// A backup under way.
pub struct RunningBackup {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Result<Bytes, StoreError>>,
    _turn: OwnedSemaphorePermit,
}

impl RunningBackup {
    /// The next piece; after an error the backup is of no use.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.pieces.recv().await,
        }
    }
}

impl FeatureStore {
    /// Begins a backup of everything that is stored now.
    pub async fn backup(&self) -> Result<RunningBackup, ServiceError> {
        permit_everything()?;
        let Some(backups) = &self.backups else {
            let text = "the store is Redis, which makes its own backups: copy its append-only file or a snapshot (BGSAVE)";
            return Err(ServiceError::InvalidRequest(text.to_owned()));
        };
        let Ok(turn) = backups.turn.clone().try_acquire_owned() else {
            return Err(ServiceError::Unavailable("another backup is under way".to_owned()));
        };
        let mut pieces = backups.store.backup();
        // Waited for, so that a store that fails at once is answered as such.
        let first = match pieces.recv().await {
            Some(first) => first?,
            None => return Err(ServiceError::Internal("a backup without an end".to_owned())),
        };
        Ok(RunningBackup { first: Some(first), pieces, _turn: turn })
    }
}
