//! What a cache tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Lifecycle;

/// How a cache does, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CacheStats {
    /// Whether it may answer now.
    pub is_coherent: bool,
    /// Entities that were answered from it.
    pub hits: u64,
    /// Entities that had to be loaded, those among them that another request was loading already.
    pub misses: u64,
    /// Entities that are in it.
    pub entries: u64,
    /// About how much memory they take.
    pub bytes: u64,
    /// About how much they may take.
    pub capacity_bytes: u64,
    /// Entities that had to go for want of room.
    pub evictions: u64,
    /// Changes of entities that it was told of, in it or not.
    pub invalidations: u64,
    /// How long it stood aside because changes might have gone by unnoticed.
    pub bypass_seconds: f64,
    /// Entities that were answered from it while the store could not be reached.
    pub stale: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub evictions: AtomicU64,
    pub invalidations: AtomicU64,
    pub stale: AtomicU64,
}

impl Counts {
    pub fn add(counter: &AtomicU64, count: usize) {
        if count > 0 {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

/// Counts what has to go for want of room.
#[derive(Clone, Debug)]
pub(super) struct CountEvictions(pub std::sync::Arc<Counts>);

impl<K, V> Lifecycle<K, V> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, _: &mut (), _: K, _: V) {
        self.0.evictions.fetch_add(1, Ordering::Relaxed);
    }
}
