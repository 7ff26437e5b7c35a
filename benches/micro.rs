//! The parts that every request goes through, without network and store:
//!
//!     cargo bench --bench micro
//!
//! `codec`: a record as bytes and back; `core`: what a write of ten features decides; `rendering`:
//! values as JSON; `parsing`: JSON as values.

use divan::{Bencher, black_box};
use feature_store::domain::draft::{Draft, FeatureEvent, Intent, Stamp};
use feature_store::domain::envelope::{decode_current, encode_current};
use feature_store::domain::name::{EntityId, EntityKey, EntityType, FeatureName};
use feature_store::domain::provenance::ProvenanceId;
use feature_store::domain::record::{Current, EntityRecords, FeatureRecords, Head, Record};
use feature_store::domain::time::{Span, Timestamp, Ttl};
use feature_store::domain::value::{FeatureType, Value};

fn main() {
    divan::main();
}

const KINDS: [&str; 4] = ["int64", "float64", "string", "embedding"];

fn value(kind: &str) -> Value {
    match kind {
        "int64" => Value::Int64(1_234_567),
        "float64" => Value::Float64(0.734_512),
        "string" => Value::String("a text of thirty characters...".into()),
        _ => Value::Embedding((0..384_i16).map(|number| f32::from(number) / 384.0 - 0.5).collect()),
    }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_millis((1_750_000_000 + seconds) * 1000).unwrap_or(Timestamp::MIN)
}

fn current(value: Value) -> Current {
    Current {
        record: Record {
            value: Some(value),
            event_timestamp: time(0),
            written_at: time(0),
            version: 7,
            provenance: ProvenanceId(12),
            retraction: None,
        },
        expires_at: Some(time(3600)),
        first_version: 1,
    }
}

mod codec {
    use super::*;

    #[divan::bench(args = KINDS)]
    fn encode(bencher: Bencher<'_, '_>, kind: &str) {
        let current = current(value(kind));
        bencher.bench(|| encode_current(black_box(&current), time(0)));
    }

    #[divan::bench(args = KINDS)]
    fn decode(bencher: Bencher<'_, '_>, kind: &str) {
        let bytes = encode_current(&current(value(kind)), time(0));
        bencher.bench(|| decode_current(black_box(&bytes), time(0)));
    }
}

mod core {
    use super::*;

    fn names() -> Vec<FeatureName> {
        (0..10).filter_map(|index| FeatureName::parse(&format!("feature_name_{index}")).ok()).collect()
    }

    /// A write of ten features, to an entity that is not there yet or that has them all.
    #[divan::bench(args = ["new", "newer"])]
    fn write(bencher: Bencher<'_, '_>, entity: &str) {
        let (Ok(entity_type), Ok(entity_id)) = (EntityType::parse("product"), EntityId::parse("1")) else {
            return;
        };
        let key = EntityKey::new(entity_type, entity_id);
        let names = names();
        let is_new = entity == "new";
        let features = names.iter().map(|_| FeatureRecords {
            current: (!is_new).then(|| current(Value::Float64(1.0))),
            history: None,
        });
        let head = (!is_new).then(|| Head { version: 7, created_at: time(0) });
        let loaded = EntityRecords { head, features: features.collect() };
        let event = |name: &FeatureName| FeatureEvent {
            feature: name.clone(),
            value: Some(Value::Float64(2.0)),
            event_timestamp: Some(time(60)),
            ttl: Ttl::After(Span::from_secs(3600)),
            history_limit: 9,
            intent: Intent::Event,
        };
        let events: Vec<FeatureEvent> = names.iter().map(event).collect();
        let stamp = Stamp { now: time(60), provenance: ProvenanceId(12) };
        bencher.with_inputs(|| loaded.clone()).bench_values(|loaded| {
            let mut draft = Draft::new(key.clone(), &names, loaded, time(60));
            let outcomes = draft.write(&events, &stamp);
            (outcomes, draft.into_commit(Span::from_secs(604_800)))
        });
    }
}

mod rendering {
    use super::*;

    #[divan::bench(args = KINDS)]
    fn json(bencher: Bencher<'_, '_>, kind: &str) {
        let value = value(kind);
        bencher.bench(|| serde_json::to_vec(black_box(&value)));
    }
}

mod parsing {
    use super::*;

    #[divan::bench(args = KINDS)]
    fn json(bencher: Bencher<'_, '_>, kind: &str) {
        let feature_type = match kind {
            "int64" => FeatureType::Int64,
            "float64" => FeatureType::Float64,
            "string" => FeatureType::String,
            _ => FeatureType::Embedding { dimension: 384 },
        };
        let text = serde_json::to_string(&value(kind)).unwrap_or_default();
        let Ok(json) = serde_json::from_str::<Box<serde_json::value::RawValue>>(&text) else { return };
        bencher.bench(|| Value::parse(black_box(&json), feature_type));
    }
}
