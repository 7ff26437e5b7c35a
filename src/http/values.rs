//! How feature values, answers and their metadata look in JSON and in the OpenAPI document.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::name::FeatureName;
use crate::domain::provenance::{Kind, Provenance};
use crate::domain::record::Record;
use crate::domain::time::Timestamp;
use crate::domain::value::Value;
use crate::domain::view::{Answer, Status};
use crate::service::answer::ProvenanceMap;

/// The value of a feature, in the OpenAPI document.
pub struct FeatureValue;

impl PartialSchema for FeatureValue {
    fn schema() -> RefOr<Schema> {
        let one = |kind: Type, description: &str| {
            ObjectBuilder::new().schema_type(SchemaType::new(kind)).description(Some(description)).build()
        };
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue).build();
        let array = ArrayBuilder::new()
            .items(any.clone())
            .description(Some("embedding (numbers), or a json array"))
            .build();
        let object = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("a json object"))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .build();
        let one_of = OneOfBuilder::new()
            .description(Some("The value of a feature; which form depends on its type."))
            .item(one(Type::Boolean, "boolean"))
            .item(one(Type::Number, "int64 or float64"))
            .item(one(Type::String, "string, or a timestamp in RFC 3339"))
            .item(array)
            .item(object)
            .item(one(Type::Null, "written as null, or no value: the status says which"))
            .build();
        RefOr::T(Schema::OneOf(one_of))
    }
}

impl ToSchema for FeatureValue {
    fn name() -> std::borrow::Cow<'static, str> {
        "FeatureValue".into()
    }
}

/// Features and something about each, as a JSON object in their order.
pub struct ByFeature<'a, T>(pub Vec<(&'a FeatureName, T)>);

impl<T: Serialize> Serialize for ByFeature<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// As [`ByFeature`], from owned names.
pub fn by_feature<'a, T>(items: impl IntoIterator<Item = (&'a FeatureName, T)>) -> ByFeature<'a, T> {
    ByFeature(items.into_iter().collect())
}

/// Where and when a value comes from.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValueMetadata<'a> {
    #[schema(example = 7)]
    pub version: u64,
    /// When the value was true in the world.
    #[schema(value_type = String, format = DateTime)]
    pub event_timestamp: Timestamp,
    /// When the store accepted it.
    #[schema(value_type = String, format = DateTime)]
    pub written_at: Timestamp,
    /// When it stops being served; null for never, and for reads of the past.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub expires_at: Option<Timestamp>,
    /// Seconds since the event.
    #[schema(example = 12.3)]
    pub age_seconds: f64,
    #[schema(required)]
    pub source: Option<&'a str>,
    #[schema(required)]
    pub run_id: Option<&'a str>,
    /// When it was retracted, which only a read with `include_retracted` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retracted_at: Option<Timestamp>,
    /// What kind of act wrote it; null where the record of it is no longer kept.
    #[schema(required)]
    pub kind: Option<Kind>,
}

impl<'a> ValueMetadata<'a> {
    /// `None` where the answer rests on no record.
    pub fn of(answer: &Answer, provenance: &'a ProvenanceMap, now: Timestamp) -> Option<Self> {
        let record = answer.record.as_ref().filter(|_| answer.status != Status::NotFound)?;
        let provenance = provenance.get(&record.provenance);
        Some(Self {
            version: record.version,
            event_timestamp: record.event_timestamp,
            written_at: record.written_at,
            expires_at: answer.expires_at,
            age_seconds: now.seconds_since(record.event_timestamp),
            source: provenance.and_then(|p| p.source.as_deref()),
            run_id: provenance.and_then(|p| p.run_id.as_deref()),
            retracted_at: record
                .retraction
                .as_ref()
                .filter(|_| record.is_retracted())
                .map(|mark| mark.undone.at),
            kind: provenance.map(|p| p.kind),
        })
    }
}

/// That a value was retracted: by which version, when, by whom and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetractionNote<'a> {
    /// The version that undid the run.
    pub version: u64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The version since which it stands again, where the undo was undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reinstated: Option<u64>,
    /// Who undid the run (`actor`), in which job (`run_id`), and what was asked (`rollback`).
    #[schema(value_type = Option<Provenance>, required)]
    pub provenance: Option<&'a Provenance>,
}

impl<'a> RetractionNote<'a> {
    pub fn of(record: &Record, provenance: &'a ProvenanceMap) -> Option<Self> {
        let mark = record.retraction.as_ref()?;
        Some(Self {
            version: mark.undone.version,
            at: mark.undone.at,
            reinstated: mark.reinstated.map(|again| again.version),
            provenance: provenance.get(&mark.undone.provenance),
        })
    }
}

/// One version of one feature, as lineage shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionedValue<'a> {
    pub version: u64,
    /// Null where the feature was deleted at that version, or written as null.
    #[schema(value_type = FeatureValue)]
    pub value: Value,
    /// Whether that version deleted the feature.
    pub deleted: bool,
    #[schema(value_type = String, format = DateTime)]
    pub event_timestamp: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub written_at: Timestamp,
    /// Null where the record of it is no longer kept.
    #[schema(value_type = Option<Provenance>, required)]
    pub provenance: Option<&'a Provenance>,
    /// That it was retracted, where its run was undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retracted: Option<RetractionNote<'a>>,
}

impl<'a> VersionedValue<'a> {
    pub fn of(record: &Record, read: impl Fn(Value) -> Value, provenance: &'a ProvenanceMap) -> Self {
        Self {
            version: record.version,
            value: record.value.clone().map_or(Value::Null, read),
            deleted: record.value.is_none(),
            event_timestamp: record.event_timestamp,
            written_at: record.written_at,
            provenance: provenance.get(&record.provenance),
            retracted: RetractionNote::of(record, provenance),
        }
    }
}
