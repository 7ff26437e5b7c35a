//! A schema made ready for use: checked as a whole, its patterns compiled, its constants typed.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use regex::Regex;

use super::derive::{Computed, Derivations};
use super::given::Given;
use super::name::{EntityType, FeatureName};
use super::schema::{FeatureSchema, RegisteredEntityType, SchemaMode};
use super::time::{Span, Ttl};
use super::value::{FeatureType, TypeName, Value};
use super::violation::{Violation, ViolationCode};

/// Largest dimension of an embedding.
pub const MAX_DIMENSION: u32 = 65_536;
/// Largest `max_versions`.
pub const MAX_MAX_VERSIONS: u32 = 10_000;

/// What the server's configuration says where a schema is silent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    pub ttl: Ttl,
    pub embedding_ttl: Ttl,
    pub versioning: bool,
    pub max_versions: u32,
}

/// Features in their order, found fast.
pub type ByName<T> = IndexMap<FeatureName, T, RandomState>;

/// An entity type ready for use.
#[derive(Debug)]
pub struct CompiledEntityType {
    pub registered: RegisteredEntityType,
    pub features: ByName<CompiledFeature>,
    /// The features that every entity must have.
    pub required: Vec<FeatureName>,
    /// What a compute request may bring beside features.
    pub raw_inputs: ByName<CompiledFeature>,
    /// The functions behind its computed features, where there are any.
    pub derivations: Option<Arc<dyn Derivations>>,
}

/// A feature ready for use.
#[derive(Debug)]
pub struct CompiledFeature {
    pub name: FeatureName,
    pub feature_type: FeatureType,
    pub nullable: bool,
    pub inferred: bool,
    pub default: Option<Value>,
    /// The feature's, the entity type's or the configuration's, in this order.
    pub ttl: Ttl,
    pub max_age: Option<Span>,
    /// How many superseded records are kept.
    pub history_limit: usize,
    bounds: Bounds,
}

#[derive(Debug, Default)]
struct Bounds {
    minimum: Option<serde_json::Number>,
    maximum: Option<serde_json::Number>,
    allowed: Option<Vec<Value>>,
    pattern: Option<Regex>,
    min_length: Option<u32>,
    max_length: Option<u32>,
}

impl CompiledEntityType {
    /// Checks the whole document; the error lists everything that is wrong with it.
    /// The functions are checked elsewhere, since the rules do not know their language.
    pub fn compile(
        registered: RegisteredEntityType,
        defaults: &Defaults,
        derivations: Option<Arc<dyn Derivations>>,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let schema = &registered.schema;
        check_max_versions(schema.max_versions, "/max_versions", &mut violations);
        let mut features = ByName::with_capacity_and_hasher(schema.features.len(), RandomState::default());
        for (name, feature) in &schema.features {
            let pointer = format!("/features/{name}");
            let ttl = feature.ttl.or(schema.ttl).unwrap_or(match feature.type_name {
                TypeName::Embedding => defaults.embedding_ttl,
                _ => defaults.ttl,
            });
            let versioning = feature.versioning.or(schema.versioning).unwrap_or(defaults.versioning);
            let max_versions = feature.max_versions.or(schema.max_versions).unwrap_or(defaults.max_versions);
            let history_limit = if versioning { max_versions.saturating_sub(1) as usize } else { 0 };
            if let Some(compiled) =
                compile_feature(name, feature, ttl, history_limit, &pointer, &mut violations)
            {
                features.insert(name.clone(), compiled);
            }
        }
        let mut raw_inputs =
            ByName::with_capacity_and_hasher(schema.raw_inputs.len(), RandomState::default());
        for (name, raw) in &schema.raw_inputs {
            let pointer = format!("/raw_inputs/{name}");
            let typed = FeatureSchema::of_type(raw.type_name, raw.dimension);
            if let Some(compiled) = compile_feature(name, &typed, defaults.ttl, 0, &pointer, &mut violations)
            {
                raw_inputs.insert(name.clone(), compiled);
            }
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        let required = schema.features.iter().filter(|(_, feature)| feature.required);
        let required = required.map(|(name, _)| name.clone()).collect();
        Ok(Self { registered, features, required, raw_inputs, derivations })
    }

    pub fn name(&self) -> &EntityType {
        &self.registered.entity_type
    }

    /// The computed features, each after those that it depends on.
    pub fn computed(&self) -> &[Computed] {
        self.derivations.as_ref().map_or(&[], |derivations| derivations.computed())
    }

    /// How a feature is computed, if it is.
    pub fn computation(&self, feature: &FeatureName) -> Option<&Computed> {
        self.computed().iter().find(|computed| computed.feature == *feature)
    }

    pub fn is_strict(&self) -> bool {
        self.registered.schema.schema_mode == SchemaMode::Strict
    }
}

impl CompiledFeature {
    /// Reads a value that a client sent and holds it against every constraint.
    pub fn check(&self, given: &Given<'_>) -> Result<Value, Vec<Violation>> {
        let value = given
            .to_value(self.feature_type)
            .map_err(|error| vec![Violation::of_feature(&self.name, ViolationCode::WrongType, error.0)])?;
        let violations = self.violations(&value);
        if violations.is_empty() { Ok(value) } else { Err(violations) }
    }

    /// Every constraint that a value of the right type breaks.
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut breaks = |code, message: String| found.push(Violation::of_feature(&self.name, code, message));
        if *value == Value::Null {
            if !self.nullable {
                breaks(ViolationCode::NotNullable, "must not be null".to_owned());
            }
            return found;
        }
        if let Some(minimum) = &self.bounds.minimum
            && compare(value, minimum) == Some(std::cmp::Ordering::Less)
        {
            breaks(ViolationCode::BelowMinimum, format!("must be at least {minimum}"));
        }
        if let Some(maximum) = &self.bounds.maximum
            && compare(value, maximum) == Some(std::cmp::Ordering::Greater)
        {
            breaks(ViolationCode::AboveMaximum, format!("must be at most {maximum}"));
        }
        if let Some(allowed) = &self.bounds.allowed
            && !allowed.iter().any(|candidate| candidate.same_as(value))
        {
            let listed: Vec<String> =
                allowed.iter().take(20).map(|v| serde_json::to_string(v).unwrap_or_default()).collect();
            breaks(ViolationCode::NotInEnum, format!("must be one of {}", listed.join(", ")));
        }
        if let Value::String(text) = value {
            if let Some(pattern) = &self.bounds.pattern
                && !pattern.is_match(text)
            {
                breaks(ViolationCode::PatternMismatch, format!("must match the pattern {pattern}"));
            }
            if self.bounds.min_length.is_some() || self.bounds.max_length.is_some() {
                let length = text.chars().count();
                if let Some(least) = self.bounds.min_length.filter(|least| length < *least as usize) {
                    breaks(
                        ViolationCode::TooShort,
                        format!("must have at least {least} characters, has {length}"),
                    );
                }
                if let Some(most) = self.bounds.max_length.filter(|most| length > *most as usize) {
                    breaks(
                        ViolationCode::TooLong,
                        format!("must have at most {most} characters, has {length}"),
                    );
                }
            }
        }
        found
    }
}

/// How a number stands to a bound; exact between integers. `None` for what is not a number.
fn compare(value: &Value, bound: &serde_json::Number) -> Option<std::cmp::Ordering> {
    match value {
        Value::Int64(number) => match bound.as_i64() {
            Some(bound) => Some(number.cmp(&bound)),
            None => (*number as f64).partial_cmp(&bound.as_f64()?),
        },
        Value::Float64(number) => number.partial_cmp(&bound.as_f64()?),
        _ => None,
    }
}

fn check_max_versions(value: Option<u32>, pointer: &str, violations: &mut Vec<Violation>) {
    if value.is_some_and(|count| !(1..=MAX_MAX_VERSIONS).contains(&count)) {
        let message = format!(
            "must be from 1 to {MAX_MAX_VERSIONS} (the current version counts); for no history say versioning: false"
        );
        violations.push(Violation::at(pointer, ViolationCode::InvalidSchema, message));
    }
}

fn compile_feature(
    name: &FeatureName,
    schema: &FeatureSchema,
    ttl: Ttl,
    history_limit: usize,
    pointer: &str,
    violations: &mut Vec<Violation>,
) -> Option<CompiledFeature> {
    let before = violations.len();
    let mut wrong = |member: &str, message: String| {
        violations.push(Violation::at(&format!("{pointer}/{member}"), ViolationCode::InvalidSchema, message));
    };
    let feature_type = match schema.feature_type() {
        Some(FeatureType::Embedding { dimension }) if !(1..=MAX_DIMENSION).contains(&dimension) => None,
        feature_type => feature_type,
    };
    let Some(feature_type) = feature_type else {
        wrong("dimension", format!("an embedding needs a dimension from 1 to {MAX_DIMENSION}"));
        return None;
    };
    let is_number = matches!(feature_type, FeatureType::Int64 | FeatureType::Float64);
    let is_string = feature_type == FeatureType::String;
    for (member, is_there, fits) in [
        ("dimension", schema.dimension.is_some(), schema.type_name == TypeName::Embedding),
        ("minimum", schema.minimum.is_some(), is_number),
        ("maximum", schema.maximum.is_some(), is_number),
        ("pattern", schema.pattern.is_some(), is_string),
        ("min_length", schema.min_length.is_some(), is_string),
        ("max_length", schema.max_length.is_some(), is_string),
    ] {
        if is_there && !fits {
            wrong(member, format!("does not apply to the type {}", feature_type.name().as_str()));
        }
    }
    if let (Some(minimum), Some(maximum)) = (&schema.minimum, &schema.maximum)
        && minimum.as_f64() > maximum.as_f64()
    {
        wrong("minimum", format!("is above the maximum {maximum}"));
    }
    if let (Some(least), Some(most)) = (schema.min_length, schema.max_length)
        && least > most
    {
        wrong("min_length", format!("is above the max_length {most}"));
    }
    let pattern = schema.pattern.as_ref().and_then(|pattern| {
        // A bound on the compiled size: a pattern comes from outside and must stay cheap.
        let compiled = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
        compiled.map_err(|error| wrong("pattern", format!("is not a regular expression: {error}"))).ok()
    });
    let mut constant = |member: &str, json: &serde_json::Value| match typed(json, feature_type) {
        Ok(value) => Some(value),
        Err(message) => {
            wrong(member, message);
            None
        }
    };
    let allowed = schema.allowed.as_ref().map(|values| {
        let typed = values.iter().enumerate();
        typed.filter_map(|(index, json)| constant(&format!("enum/{index}"), json)).collect::<Vec<_>>()
    });
    let default = schema.default.as_ref().and_then(|json| constant("default", json));
    if schema.allowed.as_ref().is_some_and(Vec::is_empty) {
        wrong("enum", "must list at least one value".to_owned());
    }
    check_max_versions(schema.max_versions, &format!("{pointer}/max_versions"), violations);
    if violations.len() > before {
        return None;
    }
    let compiled = CompiledFeature {
        name: name.clone(),
        feature_type,
        nullable: schema.nullable,
        inferred: schema.inferred,
        default: None,
        ttl,
        max_age: schema.max_age,
        history_limit,
        bounds: Bounds {
            minimum: schema.minimum.clone(),
            maximum: schema.maximum.clone(),
            allowed,
            pattern,
            min_length: schema.min_length,
            max_length: schema.max_length,
        },
    };
    if let Some(default) = &default {
        for violation in compiled.violations(default) {
            let message = format!("the default itself {}", violation.message);
            violations.push(Violation::at(
                &format!("{pointer}/default"),
                ViolationCode::InvalidSchema,
                message,
            ));
        }
    }
    Some(CompiledFeature { default, ..compiled })
}

fn typed(json: &serde_json::Value, feature_type: FeatureType) -> Result<Value, String> {
    let raw = serde_json::value::to_raw_value(json).map_err(|error| error.to_string())?;
    Value::parse(&raw, feature_type).map_err(|error| error.0)
}

/// The types that features of earlier schemas are stored as.
pub type StoredTypes = std::collections::HashMap<FeatureName, FeatureType>;

/// Whether what was stored under earlier schemas can be read under `after`; each conflict is listed.
pub fn schema_conflicts(stored: &StoredTypes, after: &CompiledEntityType) -> Vec<Violation> {
    let conflicts = after.features.values().filter_map(|feature| {
        let earlier = stored.get(&feature.name)?;
        (!earlier.readable_as(feature.feature_type)).then(|| {
            let message = format!(
                "is stored as {earlier}, which cannot be read as {}; give the new one another name",
                feature.feature_type
            );
            Violation::of_feature(&feature.name, ViolationCode::TypeConflict, message)
        })
    });
    conflicts.collect()
}

/// Shared by the many readers of one snapshot.
pub type SharedEntityType = Arc<CompiledEntityType>;
