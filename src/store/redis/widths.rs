//! How many fields the main hashes of an entity type have, as far as was seen.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use foldhash::HashMap;

use crate::domain::name::EntityType;

/// The most fields of any entity, by type.
#[derive(Default)]
pub(super) struct Widths(RwLock<HashMap<EntityType, AtomicUsize>>);

impl Widths {
    /// Whether so many features are likely to be at least half of what an entity has. Then all of it
    /// is asked for: to find one field of a small hash the server walks over half of it, and every
    /// name that is sent is work on either side. The answer tells how many there are, so a wrong
    /// guess is not made again.
    pub fn is_most(&self, entity_type: &EntityType, features: usize) -> bool {
        let widths = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let seen = widths.get(entity_type).map_or(0, |width| width.load(Ordering::Relaxed));
        features > 1 && features * 2 >= seen
    }

    pub fn seen(&self, entity_type: &EntityType, width: usize) {
        {
            // A map is never half-changed by what is done here, so a poisoned lock is as good as any.
            let widths = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = widths.get(entity_type) {
                if known.load(Ordering::Relaxed) < width {
                    known.fetch_max(width, Ordering::Relaxed);
                }
                return;
            }
        }
        let mut widths = self.0.write().unwrap_or_else(PoisonError::into_inner);
        widths.entry(entity_type.clone()).or_default().fetch_max(width, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_entity_says_what_is_most() {
        let widths = Widths::default();
        let (user, item) = (EntityType::parse("user").unwrap(), EntityType::parse("item").unwrap());
        assert!(widths.is_most(&user, 2), "nothing else is known");
        assert!(!widths.is_most(&user, 1));
        widths.seen(&user, 10);
        widths.seen(&user, 50);
        widths.seen(&user, 20);
        assert!(widths.is_most(&user, 25) && !widths.is_most(&user, 24));
        assert!(widths.is_most(&item, 24));
    }
}
