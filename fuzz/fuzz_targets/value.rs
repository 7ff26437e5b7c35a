//! A value of a write: any JSON is refused, or read, and written the same way again.
#![no_main]

use feature_store::domain::schema::FeatureSchema;
use feature_store::domain::value::{FeatureType, Value};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|input: &str| {
    let Ok(json) = serde_json::from_str::<&RawValue>(input) else { return };
    let inferred = Value::infer_type(json);
    assert_eq!(inferred.is_some(), FeatureSchema::infer(json).is_some());
    let types = [
        FeatureType::Int64,
        FeatureType::Float64,
        FeatureType::Boolean,
        FeatureType::String,
        FeatureType::Timestamp,
        FeatureType::Json,
        FeatureType::Embedding { dimension: 3 },
    ];
    for feature_type in types.into_iter().chain(inferred) {
        let Ok(value) = Value::parse(json, feature_type) else { continue };
        let written = serde_json::value::to_raw_value(&value).unwrap();
        let again = Value::parse(&written, feature_type).unwrap();
        assert!(value.same_as(&again), "{value:?} became {again:?} by way of {written}");
    }
});
