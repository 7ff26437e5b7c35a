//! The schema of an entity type, as its owner writes it.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::name::{EntityType, FeatureName};
use super::time::{Span, Timestamp, Ttl};
use super::value::{FeatureType, TypeName};
use super::{unique, whole};

/// What happens to a feature that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaMode {
    /// It is registered with an inferred type, where the server's `auto_register` is on.
    #[default]
    Flexible,
    /// It is refused.
    Strict,
}

/// The schema of an entity type: the body of `PUT /v1/entity-types/{entity_type}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EntityTypeSchema {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who answers for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    pub schema_mode: SchemaMode,
    /// How long after its write a value is kept and served: seconds, text such as `"30d"`, or `"never"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// How many versions of each feature are kept, the current one among them.
    #[serde(deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub max_versions: Option<u32>,
    /// `false`: no history is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versioning: Option<bool>,
    #[serde(deserialize_with = "unique::map")]
    pub features: IndexMap<FeatureName, FeatureSchema>,
    /// Inputs of computed features that are given when they are computed and not kept. For a
    /// feature computed on read they come from the request's context.
    #[serde(deserialize_with = "unique::map", skip_serializing_if = "IndexMap::is_empty")]
    pub raw_inputs: IndexMap<FeatureName, RawInput>,
    /// The functions of computed features, in Starlark, a dialect of Python. A function's
    /// parameters are its inputs: the names of features and raw inputs.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(example = "def price_range(price):\n    return \"budget\" if price < 50 else \"premium\"\n")]
    pub transformations: String,
    /// Examples of computed features; `feature-store check` holds the functions against them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TransformationTest>,
}

/// When a computed feature is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputeOn {
    /// With every write of one of its inputs, in the same version; it is stored.
    #[default]
    Write,
    /// With every read, from what is stored and the request's context; it is not stored.
    Read,
}

/// What happens when a computed feature cannot be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The write fails and stores nothing; a read answers the error.
    #[default]
    Fail,
    /// It goes on without the feature and says so.
    Skip,
}

/// How a feature is computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Computed {
    /// The name of a function of the entity type's `transformations`.
    #[schema(example = "price_range")]
    pub function: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub on: ComputeOn,
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnError,
}

/// An input that is given for a computation and not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawInput {
    #[serde(rename = "type")]
    pub type_name: TypeName,
    /// How many numbers an embedding has; only for embeddings.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65536)]
    pub dimension: Option<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// An example of what computed features are for given inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformationTest {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Values of features and raw inputs; what is left out has no value.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Object>)]
    pub inputs: IndexMap<String, serde_json::Value>,
    /// Values of computed features. Floats may differ in the last digits.
    #[schema(value_type = BTreeMap<String, Object>)]
    pub expect: IndexMap<String, serde_json::Value>,
}

/// One feature of an entity type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureSchema {
    #[serde(rename = "type")]
    pub type_name: TypeName,
    /// How many numbers an embedding has; only for embeddings.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65536)]
    pub dimension: Option<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "EUR")]
    pub unit: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Least value of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub minimum: Option<serde_json::Number>,
    /// Greatest value of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub maximum: Option<serde_json::Number>,
    /// The only values allowed.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>, min_items = 1)]
    pub allowed: Option<Vec<serde_json::Value>>,
    /// A regular expression that a string must contain a match of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Least length of a string, in characters.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4294967295i64)]
    pub min_length: Option<u32>,
    /// Greatest length of a string, in characters.
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4294967295i64)]
    pub max_length: Option<u32>,
    /// Whether an entity must have it: a write that leaves an entity without it is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// Whether null may be written (default: true).
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schema(default = true)]
    pub nullable: bool,
    /// Served, with the status `defaulted`, where there is no value or it has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub default: Option<serde_json::Value>,
    /// How long after its write a value is kept and served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// How old by event time a value may be and still be served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    #[serde(default, deserialize_with = "whole::optional", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub max_versions: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versioning: Option<bool>,
    /// Whether the type was inferred from a first write; such an int64 is widened to float64 when
    /// a fraction arrives.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inferred: bool,
    /// Present where the feature is derived by a function instead of being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed: Option<Computed>,
}

impl FeatureSchema {
    /// A feature of that type without any constraint.
    pub fn of_type(type_name: TypeName, dimension: Option<u32>) -> Self {
        Self {
            type_name,
            dimension,
            description: String::new(),
            owner: String::new(),
            unit: String::new(),
            tags: BTreeMap::new(),
            minimum: None,
            maximum: None,
            allowed: None,
            pattern: None,
            min_length: None,
            max_length: None,
            required: false,
            nullable: true,
            default: None,
            ttl: None,
            max_age: None,
            max_versions: None,
            versioning: None,
            inferred: false,
            computed: None,
        }
    }

    /// `None`: an embedding that does not say of how many numbers.
    pub fn feature_type(&self) -> Option<FeatureType> {
        Some(match self.type_name {
            TypeName::Embedding => FeatureType::Embedding { dimension: self.dimension? },
            TypeName::Int64 => FeatureType::Int64,
            TypeName::Float64 => FeatureType::Float64,
            TypeName::Boolean => FeatureType::Boolean,
            TypeName::String => FeatureType::String,
            TypeName::Timestamp => FeatureType::Timestamp,
            TypeName::Json => FeatureType::Json,
        })
    }

    /// What a first write of `json` declares; `None` for null, which has no type.
    pub fn infer(json: &RawValue) -> Option<Self> {
        super::value::Value::infer_type(json).map(Self::inferred)
    }

    /// A feature of a type that its first write told.
    pub fn inferred(feature_type: FeatureType) -> Self {
        let dimension = match feature_type {
            super::value::FeatureType::Embedding { dimension } => Some(dimension),
            _ => None,
        };
        Self { inferred: true, ..Self::of_type(feature_type.name(), dimension) }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

/// A schema as it stands in the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegisteredEntityType {
    pub entity_type: EntityType,
    /// A number per entity type: every accepted change takes the next one, from 1.
    pub schema_version: u32,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[serde(flatten)]
    pub schema: EntityTypeSchema,
}

/// How a schema document differs from the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SchemaDiff {
    /// Features that are new.
    pub added: Vec<String>,
    /// Features that are gone. What is stored of them stays until it expires, unread.
    pub removed: Vec<String>,
    /// Features that are declared differently.
    pub changed: Vec<String>,
    /// Other members of the document that differ.
    pub settings: Vec<String>,
}

impl SchemaDiff {
    pub fn between(before: &EntityTypeSchema, after: &EntityTypeSchema) -> Self {
        let names = |of: &EntityTypeSchema, other: &EntityTypeSchema| {
            let missing = of.features.keys().filter(|name| !other.features.contains_key(*name));
            missing.map(ToString::to_string).collect()
        };
        let changed = after
            .features
            .iter()
            .filter(|(name, feature)| before.features.get(*name).is_some_and(|earlier| earlier != *feature));
        let mut settings = Vec::new();
        let mut compare = |name: &str, differs: bool| {
            if differs {
                settings.push(name.to_owned());
            }
        };
        compare("description", before.description != after.description);
        compare("owner", before.owner != after.owner);
        compare("tags", before.tags != after.tags);
        compare("schema_mode", before.schema_mode != after.schema_mode);
        compare("ttl", before.ttl != after.ttl);
        compare("max_versions", before.max_versions != after.max_versions);
        compare("versioning", before.versioning != after.versioning);
        compare("raw_inputs", before.raw_inputs != after.raw_inputs);
        compare("transformations", before.transformations != after.transformations);
        compare("tests", before.tests != after.tests);
        Self {
            added: names(after, before),
            removed: names(before, after),
            changed: changed.map(|(name, _)| name.to_string()).collect(),
            settings,
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
