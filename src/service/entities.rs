//! Entities as a whole: listing them, deleting them, and deleting their type.

use super::FeatureStore;
use super::error::ServiceError;
use crate::domain::name::{EntityKey, EntityType};
use crate::store::Page;
use crate::trace;

impl FeatureStore {
    /// Lists entity ids in the store's own order; each id at least once over all pages.
    pub async fn list_entities(
        &self,
        entity_type: &EntityType,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, ServiceError> {
        let _span = trace::enter("service.list_entities").about(entity_type);
        self.registry.entity_type(entity_type).await?;
        let most = self.settings.limits.max_page_size;
        if !(1..=most).contains(&limit) {
            return Err(ServiceError::InvalidRequest(format!("limit must be from 1 to {most}")));
        }
        let mut page = Page::default();
        let mut cursor = cursor.map(str::to_owned);
        // A store's page may be short or empty: fill ours, so that a client needs no rounds for nothing.
        loop {
            let wanted = limit - page.entity_ids.len();
            let Some(part) = self.store.list(entity_type, cursor.as_deref(), wanted).await? else {
                return Err(ServiceError::InvalidRequest(
                    "cursor is not one that this listing gave".to_owned(),
                ));
            };
            page.entity_ids.extend(part.entity_ids);
            cursor = part.next_cursor;
            if cursor.is_none() || page.entity_ids.len() >= limit {
                page.next_cursor = cursor;
                return Ok(page);
            }
        }
    }

    /// Deletes an entity with its history.
    pub async fn delete_entity(&self, entity: &EntityKey) -> Result<(), ServiceError> {
        let _span = trace::enter("service.delete_entity").about(&entity.entity_type);
        self.registry.entity_type(&entity.entity_type).await?;
        let _turn = self.locks.turn(entity).await;
        let deleted = self.store.delete_entities(std::slice::from_ref(entity)).await?;
        if deleted.first() == Some(&true) {
            Ok(())
        } else {
            Err(ServiceError::EntityNotFound(entity.clone()))
        }
    }

    /// Deletes an entity type. Its entities must be gone, or go with it where `cascade` is set; the
    /// answer is how many went.
    pub async fn delete_entity_type(
        &self,
        entity_type: &EntityType,
        cascade: bool,
    ) -> Result<u64, ServiceError> {
        self.registry.refresh().await?;
        self.registry.entity_type(entity_type).await?;
        let readers = self.registry.snapshot().services_that_read(entity_type, None);
        if !readers.is_empty() {
            let message = format!("the entity type {entity_type} is read by {}", readers.join(", "));
            return Err(ServiceError::SchemaConflict { message, violations: Vec::new() });
        }
        let mut deleted = 0;
        if cascade {
            deleted = self.delete_all_entities(entity_type).await?;
        } else if !self.list_entities(entity_type, None, 1).await?.entity_ids.is_empty() {
            let message = format!(
                "the entity type {entity_type} still has entities: delete them first, or ask for cascade=true"
            );
            return Err(ServiceError::SchemaConflict { message, violations: Vec::new() });
        }
        self.registry.delete_entity_type(entity_type).await?;
        Ok(deleted)
    }

    async fn delete_all_entities(&self, entity_type: &EntityType) -> Result<u64, ServiceError> {
        let mut deleted = 0;
        let mut cursor: Option<String> = None;
        loop {
            let page = self.store.list(entity_type, cursor.as_deref(), 1000).await?;
            let Page { entity_ids, next_cursor } = page.unwrap_or_default();
            let keys: Vec<EntityKey> =
                entity_ids.into_iter().map(|id| EntityKey::new(entity_type.clone(), id)).collect();
            let there = self.store.delete_entities(&keys).await?;
            deleted += there.into_iter().filter(|there| *there).count() as u64;
            if next_cursor.is_none() {
                return Ok(deleted);
            }
            cursor = next_cursor;
        }
    }
}
