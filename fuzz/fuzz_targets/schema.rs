//! A schema document and values held against it: refused with what is wrong, or taken; never a panic.
#![no_main]

use feature_store::domain::compiled::{CompiledEntityType, Defaults};
use feature_store::domain::given::Given;
use feature_store::domain::name::EntityType;
use feature_store::domain::schema::{EntityTypeSchema, RegisteredEntityType};
use feature_store::domain::time::{Timestamp, Ttl};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const DEFAULTS: Defaults =
    Defaults { ttl: Ttl::Never, embedding_ttl: Ttl::Never, versioning: true, max_versions: 10 };

fuzz_target!(|input: (&str, &str)| {
    let Ok(schema) = serde_json::from_str::<EntityTypeSchema>(input.0) else { return };
    let registered = RegisteredEntityType {
        entity_type: EntityType::parse("product").unwrap(),
        schema_version: 1,
        created_at: Timestamp::MIN,
        updated_at: Timestamp::MIN,
        schema,
    };
    // What the registry stores must be readable again.
    let stored = serde_json::to_string(&registered).unwrap();
    assert_eq!(serde_json::from_str::<RegisteredEntityType>(&stored).unwrap(), registered);
    match CompiledEntityType::compile(registered, &DEFAULTS, None) {
        Err(violations) => assert!(!violations.is_empty()),
        Ok(compiled) => {
            let Ok(value) = serde_json::from_str::<&RawValue>(input.1) else { return };
            for feature in compiled.features.values() {
                if let Err(violations) = feature.check(&Given::Json(value)) {
                    assert!(!violations.is_empty());
                }
            }
        }
    }
});
