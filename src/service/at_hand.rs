//! Reads that wait for nothing: entities as they are, in the near cache, with nothing to compute.
//!
//! They are a shorter way to what [`FeatureStore::read_features`] answers, never to another answer.

use std::sync::Arc;
use std::time::Instant;

use super::FeatureStore;
use super::answer::{Entities, Moment, PresentEntity, ProvenanceMap, ReadAnswer, TypeAnswer};
use super::columns::Columns;
use crate::domain::name::{EntityId, EntityType};
use crate::monitor::Kind;
use crate::store::cache::Found;

/// Features of one entity, found but not served yet.
pub struct AtHand {
    columns: Arc<Columns>,
    found: Found,
}

impl AtHand {
    pub fn entity_type(&self) -> &EntityType {
        self.columns.entity_type.name()
    }
}

impl FeatureStore {
    /// Finds features of one entity by names separated by commas, or all of them; it is for the caller
    /// to see that whoever asks may use the entity type. `None` where they are not at hand, or the entity
    /// is not there, or not everything is as it should be.
    pub fn at_hand(&self, entity_type: &str, entity_id: &str, names: Option<&str>) -> Option<AtHand> {
        let cache = self.cache.as_ref()?;
        let columns = self.resolved.listed(self.registry.snapshot().by_name(entity_type)?, names)?;
        if columns.is_computed_on_read() {
            return None;
        }
        let found = cache.peek(entity_type, entity_id, columns.fields())?;
        (found.entry.version() > 0).then_some(AtHand { columns, found })
    }

    /// Answers with what was found, and counts that.
    pub fn serve_at_hand(
        &self,
        entity_id: EntityId,
        at_hand: AtHand,
        started: Instant,
    ) -> ReadAnswer<TypeAnswer> {
        let AtHand { columns, found } = at_hand;
        let _timed = self.meters.timed(Kind::Retrieval, started, columns.entity_type.name());
        let now = self.clock.now();
        let moment = Moment { now, max_age: None, stale: false };
        let entity = PresentEntity::new(&columns, entity_id, found, moment);
        let answer = TypeAnswer { columns, entities: Entities::Present(vec![entity], moment) };
        self.meters.read(&answer, true);
        if let Some(cache) = &self.cache {
            cache.count_hit();
        }
        ReadAnswer { answer, provenance: ProvenanceMap::new(), now, stale: None }
    }
}
