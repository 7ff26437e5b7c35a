//! Which features a request asks for, found in the schema.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::FeatureStore;
use super::columns::Columns;
use super::error::ServiceError;
use super::principal::permit_all;
use crate::domain::compiled::SharedEntityType;
use crate::domain::name::{EntityType, FeatureRef, FeatureServiceRef};
use crate::domain::violation::{Violation, ViolationCode};

/// Which features of an entity type are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<S = String> {
    /// Every feature in the schema.
    All,
    Names(Vec<S>),
    /// Names separated by commas.
    Listed(S),
    FeatureService(FeatureServiceRef),
}

/// Which features a batch read asks for.
#[derive(Clone, Debug)]
pub enum BatchSelection<S = String> {
    /// As `product.price`, or `price` alone where only one entity type is read.
    Names(Vec<S>),
    FeatureService(FeatureServiceRef),
}

/// Lists of names that were asked for lately, each with what it stands for.
pub(super) struct Resolved(Cache<Names, Arc<Columns>, ByBytes>);

/// Names of features of one entity type; an empty list is all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    entity_type: EntityType,
    names: Box<[Box<str>]>,
}

/// The same, as they stand in a request.
struct Asked<'a, S>(&'a EntityType, &'a [S]);

impl Hash for Names {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Asked(&self.entity_type, &self.names).hash(state);
    }
}

impl<S: AsRef<str>> Hash for Asked<'_, S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.iter().for_each(|name| name.as_ref().hash(state));
    }
}

impl<S: AsRef<str>> Equivalent<Names> for Asked<'_, S> {
    fn equivalent(&self, key: &Names) -> bool {
        key.entity_type == *self.0
            && key.names.len() == self.1.len()
            && key.names.iter().zip(self.1).all(|(name, asked)| **name == *asked.as_ref())
    }
}

#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<Names, Arc<Columns>> for ByBytes {
    fn weight(&self, names: &Names, columns: &Arc<Columns>) -> u64 {
        let text: usize = names.names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        (256 + text + columns.names().len() * 64) as u64
    }
}

impl Default for Resolved {
    fn default() -> Self {
        const BYTES: u64 = 8 << 20;
        Self(Cache::with_weighter(1024, BYTES, ByBytes))
    }
}

impl Resolved {
    /// What these names stand for in this very schema.
    fn get<S: AsRef<str>>(&self, schema: &SharedEntityType, names: &[S]) -> Option<Arc<Columns>> {
        let known = self.0.get(&Asked(schema.name(), names))?;
        Arc::ptr_eq(&known.entity_type, schema).then_some(known)
    }

    /// The same, of names separated by commas; `None`: of all of them.
    pub fn listed(&self, schema: &SharedEntityType, listed: Option<&str>) -> Option<Arc<Columns>> {
        self.get(schema, listed.as_slice())
    }

    fn keep<S: AsRef<str>>(&self, names: &[S], columns: Columns) -> Arc<Columns> {
        let names = names.iter().map(|name| Box::from(name.as_ref())).collect();
        let columns = Arc::new(columns);
        let names = Names { entity_type: columns.entity_type.name().clone(), names };
        self.0.insert(names, columns.clone());
        columns
    }
}

impl FeatureStore {
    /// The features of a feature service, where whoever asks may use all of them.
    pub(super) async fn service_features(
        &self,
        reference: &FeatureServiceRef,
    ) -> Result<Vec<FeatureRef>, ServiceError> {
        if !self.registry.snapshot().knows_service(reference) {
            self.registry.refresh().await?;
        }
        let snapshot = self.registry.snapshot();
        let service = snapshot.feature_service(&reference.name);
        match service.and_then(|service| service.version(reference.version)) {
            Some(version) => {
                permit_all(&version.spec.features)?;
                Ok(version.spec.features.clone())
            }
            None => {
                let name = match reference.version {
                    Some(version) => format!("{}@{version}", reference.name),
                    None => reference.name.to_string(),
                };
                Err(ServiceError::NotFound { what: "feature service", name })
            }
        }
    }

    /// Finds the features asked for in the schema; a misspelt one is an error, not a null.
    pub(super) async fn columns<S: AsRef<str>>(
        &self,
        entity_type: &EntityType,
        selection: &Selection<S>,
    ) -> Result<Arc<Columns>, ServiceError> {
        match selection {
            Selection::All => {
                let schema = self.registry.entity_type(entity_type).await?;
                if let Some(known) = self.resolved.get::<&str>(&schema, &[]) {
                    return Ok(known);
                }
                let places = (0..schema.features.len()).collect();
                Ok(self.resolved.keep::<&str>(&[], Columns::new(schema, places)))
            }
            Selection::Names(names) => self.named_columns(entity_type, names).await,
            Selection::Listed(text) => {
                // A name has no comma: as a name, the text stands for nothing but this list.
                let whole = [text.as_ref()];
                let schema = self.registry.entity_type(entity_type).await?;
                if let Some(known) = self.resolved.get(&schema, &whole) {
                    return Ok(known);
                }
                let columns = self.named_columns(entity_type, &split_names(text.as_ref())?).await?;
                Ok(self.resolved.keep(&whole, Columns::clone(&columns)))
            }
            Selection::FeatureService(reference) => {
                let features = self.service_features(reference).await?;
                let own = features.iter().filter(|feature| feature.entity_type == *entity_type);
                let names: Vec<&str> = own.map(|feature| feature.feature.as_str()).collect();
                self.named_columns(entity_type, &names).await
            }
        }
    }

    /// As [`Self::columns`], by names.
    pub(super) async fn named_columns<S: AsRef<str>>(
        &self,
        entity_type: &EntityType,
        names: &[S],
    ) -> Result<Arc<Columns>, ServiceError> {
        let mut schema = self.registry.entity_type(entity_type).await?;
        if names.is_empty() {
            return Err(ServiceError::InvalidRequest(format!("no feature of {entity_type} is asked for")));
        }
        if let Some(known) = self.resolved.get(&schema, names) {
            return Ok(known);
        }
        self.check_feature_count(names.len())?;
        let places = match places(&schema, names) {
            Ok(places) => places,
            Err(_) => {
                // Another server may have registered it a moment ago.
                self.registry.refresh().await?;
                schema = self.registry.entity_type(entity_type).await?;
                places(&schema, names).map_err(ServiceError::UnknownFeatures)?
            }
        };
        Ok(self.resolved.keep(names, Columns::new(schema, places)))
    }
}

/// The features of a batch, by entity type; those without one belong to `only`.
pub(super) fn by_entity_type<'a, S: AsRef<str>>(
    features: &'a [S],
    only: Option<&'a EntityType>,
) -> Result<Vec<(&'a str, Vec<&'a str>)>, ServiceError> {
    let mut by_type: Vec<(&str, Vec<&str>)> = Vec::with_capacity(1);
    for text in features {
        let text = text.as_ref();
        let (entity_type, name) = match (text.split_once('.'), only) {
            (Some(both), _) => both,
            (None, Some(only)) => (only.as_str(), text),
            (None, None) => {
                let message = format!(
                    "features: write {text:?} as entity_type.feature, since several entity types are read"
                );
                return Err(ServiceError::InvalidRequest(message));
            }
        };
        match by_type.iter_mut().find(|(known, _)| *known == entity_type) {
            Some((_, names)) => names.push(name),
            None => {
                EntityType::parse(entity_type)
                    .map_err(|error| ServiceError::InvalidRequest(format!("features: {error}")))?;
                let mut names = Vec::with_capacity(features.len());
                names.push(name);
                by_type.push((entity_type, names));
            }
        }
    }
    if by_type.is_empty() {
        return Err(ServiceError::InvalidRequest(
            "features: name at least one feature, or a feature_service".to_owned(),
        ));
    }
    Ok(by_type)
}

/// Names separated by commas, as in `price,category`.
pub fn split_names(text: &str) -> Result<Vec<&str>, ServiceError> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if names.contains(&"") {
        let message = "names: write feature names separated by commas";
        return Err(ServiceError::InvalidRequest(message.to_owned()));
    }
    Ok(names)
}

/// The places of these names in the schema, each name once, or everything that is misspelt.
fn places<S: AsRef<str>>(schema: &SharedEntityType, names: &[S]) -> Result<Vec<usize>, Vec<Violation>> {
    let mut places = Vec::with_capacity(names.len());
    let mut unknown = Vec::new();
    for name in names {
        let name = name.as_ref();
        match schema.features.get_index_of(name) {
            // A list of hundreds is short enough to be searched, and nearly always free of repeats.
            Some(place) if places.contains(&place) => {}
            Some(place) => places.push(place),
            None => {
                let message = format!("the entity type {} has no feature {name:?}", schema.name());
                unknown.push(Violation {
                    feature: Some(name.to_owned()),
                    ..Violation::new(ViolationCode::UnknownFeature, message)
                });
            }
        }
    }
    if unknown.is_empty() { Ok(places) } else { Err(unknown) }
}
