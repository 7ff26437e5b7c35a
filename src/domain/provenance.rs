//! Who or what wrote a version.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// What kind of act a version came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProvenanceKind)]
pub enum Kind {
    Write,
    Compute,
    Rollback,
    Import,
    Stream,
    /// Features deleted by name: their history stays.
    Delete,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Compute => "compute",
            Self::Rollback => "rollback",
            Self::Import => "import",
            Self::Stream => "stream",
            Self::Delete => "delete",
        }
    }
}

/// Who or what wrote a version. The same run writes the same record millions of times, so stores
/// keep each distinct record once, under a small id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Provenance {
    pub kind: Kind,
    /// The system or pipeline that wrote, in the writer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The run of that pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The caller as the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What the writer wanted noted.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// The entity type's schema version at the time.
    pub schema_version: u32,
    /// For a rollback: to where, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackNote>,
}

/// Where a rollback went back to, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RollbackNote {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub to_timestamp: Option<Timestamp>,
    /// The run that was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunNote>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which run was undone: what was written with this `run_id` and `source` within a window of time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunNote {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub written_from: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub written_to: Timestamp,
}

impl RunNote {
    /// Whether this is the run, or the source, that wrote under `provenance`.
    pub fn names(&self, provenance: &Provenance) -> bool {
        let fits = |asked: &Option<String>, is: &Option<String>| asked.is_none() || asked == is;
        fits(&self.run_id, &provenance.run_id) && fits(&self.source, &provenance.source)
    }
}

/// The small number under which a store keeps a [`Provenance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProvenanceId(pub u64);
