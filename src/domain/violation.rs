//! One thing that is wrong with what a client sent.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::FeatureName;

/// What is wrong, in a word that programs can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViolationCode {
    UnknownFeature,
    WrongType,
    NotNullable,
    BelowMinimum,
    AboveMaximum,
    NotInEnum,
    PatternMismatch,
    TooShort,
    TooLong,
    RequiredMissing,
    EventInFuture,
    DuplicateFeature,
    InvalidName,
    InvalidValue,
    InvalidSchema,
    TypeConflict,
    UnknownEntityType,
    VersionTrimmed,
    ComputedFeature,
    ComputationFailed,
}

impl ViolationCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFeature => "unknown_feature",
            Self::WrongType => "wrong_type",
            Self::NotNullable => "not_nullable",
            Self::BelowMinimum => "below_minimum",
            Self::AboveMaximum => "above_maximum",
            Self::NotInEnum => "not_in_enum",
            Self::PatternMismatch => "pattern_mismatch",
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::RequiredMissing => "required_missing",
            Self::EventInFuture => "event_in_future",
            Self::DuplicateFeature => "duplicate_feature",
            Self::InvalidName => "invalid_name",
            Self::InvalidValue => "invalid_value",
            Self::InvalidSchema => "invalid_schema",
            Self::TypeConflict => "type_conflict",
            Self::UnknownEntityType => "unknown_entity_type",
            Self::VersionTrimmed => "version_trimmed",
            Self::ComputedFeature => "computed_feature",
            Self::ComputationFailed => "computation_failed",
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Violation {
    /// JSON pointer into the body, or the name of the parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Row of a batch or an import, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    pub code: ViolationCode,
    pub message: String,
}

impl Violation {
    pub fn of_feature(feature: &FeatureName, code: ViolationCode, message: impl Into<String>) -> Self {
        Self::of_name(feature.as_str(), code, message)
    }

    /// Of what may be no name of a feature at all.
    pub fn of_name(name: &str, code: ViolationCode, message: impl Into<String>) -> Self {
        Self { feature: Some(name.to_owned()), ..Self::new(code, message) }
    }

    pub fn at(pointer: &str, code: ViolationCode, message: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.to_owned()), ..Self::new(code, message) }
    }

    pub fn new(code: ViolationCode, message: impl Into<String>) -> Self {
        Self { pointer: None, row: None, feature: None, code, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.feature, &self.pointer) {
            (Some(feature), _) => write!(f, "{feature}: {}", self.message),
            (None, Some(pointer)) => write!(f, "{pointer}: {}", self.message),
            (None, None) => f.write_str(&self.message),
        }
    }
}
