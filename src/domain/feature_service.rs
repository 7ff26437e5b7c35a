//! Feature services: what one model reads, by name and version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::{FeatureRef, FeatureServiceName};
use super::time::Timestamp;

/// A list of features that one model reads: the body of `PUT /v1/feature-services/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureServiceSpec {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The features in the order the model wants them, as `product.price`.
    #[schema(min_items = 1, example = json!(["user.age", "product.price"]))]
    pub features: Vec<FeatureRef>,
}

/// One version of a feature service. Versions never change; a new list is a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeatureServiceVersion {
    pub version: u32,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[serde(flatten)]
    pub spec: FeatureServiceSpec,
}

/// A feature service with all its versions, oldest first; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureService {
    pub name: FeatureServiceName,
    pub versions: Vec<FeatureServiceVersion>,
}

impl FeatureService {
    /// The version asked for, or the latest.
    pub fn version(&self, version: Option<u32>) -> Option<&FeatureServiceVersion> {
        match version {
            Some(version) => self.versions.iter().find(|candidate| candidate.version == version),
            None => self.versions.last(),
        }
    }
}
