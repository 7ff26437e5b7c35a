//! How a store tells whoever keeps copies of what it holds that they are no longer true.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crate::domain::name::EntityKey;

/// Keeps copies of what a store holds. The calls come one after another in the order of what
/// happened, and must not block.
pub trait Watcher: fmt::Debug + Send + Sync + 'static {
    /// The entity was changed or removed, or may have been.
    fn changed(&self, entity_type: &str, entity_id: &str);

    /// Changes may go by unnoticed from now on: no copy can be trusted until [`Self::in_step`].
    fn lost(&self);

    /// Every change that was made before `at` has been told.
    fn in_step(&self, at: Instant);
}

/// When a store tells of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Before whoever made it hears that it was made; [`Watcher::lost`] and [`Watcher::in_step`]
    /// are never called.
    AtOnce,
    /// So for changes made through the same value; for others' as soon as it hears of them, which
    /// [`Watcher::in_step`] vouches for. It counts as lost until the first such call.
    Soon,
}

/// Those who watch a store.
#[derive(Debug, Default)]
pub struct Watchers(RwLock<Vec<Arc<dyn Watcher>>>);

impl Watchers {
    pub fn add(&self, watcher: Arc<dyn Watcher>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(watcher);
    }

    /// Tells all of them something.
    pub fn tell(&self, tell: impl Fn(&dyn Watcher)) {
        let watchers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        watchers.iter().for_each(|watcher| tell(watcher.as_ref()));
    }

    pub fn changed(&self, entity: &EntityKey) {
        self.tell(|watcher| watcher.changed(entity.entity_type.as_str(), entity.entity_id.as_str()));
    }
}
