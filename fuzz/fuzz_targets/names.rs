//! Names, times and lengths of time: any text is refused, or read, and printed so that it reads the
//! same again.
#![no_main]

use feature_store::domain::name::{EntityId, EntityType, FeatureName, FeatureRef, FeatureServiceRef};
use feature_store::domain::time::{Span, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = FeatureName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(EntityType::parse(text).is_ok() && EntityId::parse(text).is_ok());
    }
    if let Ok(reference) = FeatureRef::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(reference) = FeatureServiceRef::parse(text) {
        assert!(text.starts_with(reference.name.as_str()));
    }
    if let Ok(time) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
    }
    if let Ok(span) = Span::parse(text) {
        assert_eq!(Span::parse(&span.to_string()), Ok(span));
    }
});
