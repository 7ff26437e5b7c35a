//! Feature services: what one model reads, by name and version.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

use super::name::{FeatureRef, FeatureServiceName};
use super::time::{Span, Timestamp};

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
    /// Whether what is served is kept. The latest version says so for all versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_log: Option<ServingLogSpec>,
}

/// What is kept of what a feature service serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServingLogSpec {
    /// Which share of the reads: above 0, at most 1.
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 1, example = 0.1)]
    pub sample_rate: SampleRate,
    /// For how long.
    #[serde(default = "week")]
    #[schema(required = false)]
    pub ttl: Span,
    /// How many reads at most; then the oldest go.
    #[serde(default = "max_reads", deserialize_with = "count")]
    #[schema(required = false, minimum = 1, example = 100_000)]
    pub max_reads: u32,
}

fn week() -> Span {
    Span::from_secs(7 * 86_400)
}

fn max_reads() -> u32 {
    100_000
}

/// By way of serde_json's own number, which is understood however the document was buffered.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = Number::deserialize(deserializer)?;
    let count = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|count| *count > 0);
    count.ok_or_else(|| D::Error::custom(format!("expected a whole number from 1, not {number}")))
}

/// A share above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Number", into = "f64")]
pub struct SampleRate(f64);

// It is never NaN.
impl Eq for SampleRate {}

impl TryFrom<Number> for SampleRate {
    type Error = String;

    fn try_from(share: Number) -> Result<Self, String> {
        match share.as_f64().filter(|share| *share > 0.0 && *share <= 1.0) {
            Some(share) => Ok(Self(share)),
            None => Err(format!("sample_rate is a share above 0 and at most 1, not {share}")),
        }
    }
}

impl From<SampleRate> for f64 {
    fn from(rate: SampleRate) -> Self {
        rate.0
    }
}

impl SampleRate {
    /// Whether something is among the share, by a random number from 0 up to below 1.
    pub fn draws(self, random: f64) -> bool {
        random < self.0
    }
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
