//! A function of a schema: any source is refused or compiled, and what was compiled ends within its
//! bounds, whatever it does.
#![no_main]

use std::time::{Duration, Instant};

use feature_store::domain::value::{FeatureType, Value};
use feature_store::transform::{Env, Hashing, Limits, Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        // The parser is not ours, and its panics are caught.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |source: &str| {
        let Ok(program) = Program::compile(source) else { return };
        let limits = Limits {
            steps: 50_000,
            heap_bytes: 4 << 20,
            output_bytes: 64 << 10,
            wall_time: Duration::from_secs(2),
            ..Limits::default()
        };
        let env = Env { embeddings: Some(&Hashing), dimension: Some(4), limits: Some(&limits) };
        let values = [Value::Int64(3), Value::String("x y".into()), Value::Float64(0.5), Value::Null];
        for function in program.functions() {
            let named = function.parameters.iter().zip(values.iter().cycle());
            let inputs: Vec<(&str, &Value)> = named.map(|(of, value)| (of.name.as_str(), value)).collect();
            for wanted in [FeatureType::Json, FeatureType::Float64, FeatureType::String] {
                let start = Instant::now();
                if let Err(error) = program.call(function, &inputs, wanted, &env) {
                    assert!(!error.to_string().is_empty());
                }
                assert!(start.elapsed() < Duration::from_secs(5), "{} takes too long", function.name);
            }
        }
    }
);
