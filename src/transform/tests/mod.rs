//! Tests of the language, its bounds and its helpers.

mod bombs;
mod broken;
mod conformance;
mod helpers;
mod language;
mod random;
mod schema;
mod speed;

use super::*;
use crate::domain::value::{FeatureType, Value};

/// Compiles a source that is expected to be right.
fn compile(source: &str) -> Program {
    Program::compile(source).unwrap_or_else(|problems| panic!("{source}\n{problems:?}"))
}

/// Calls the function `f` of a source.
fn run(source: &str, inputs: &[(&str, Value)], wanted: FeatureType) -> Result<Value, CallError> {
    let program = compile(source);
    let inputs: Vec<(&str, &Value)> = inputs.iter().map(|(name, value)| (*name, value)).collect();
    // Time enough for an unoptimised build on a busy machine: what the tests mean to meet is
    // another bound.
    let limits = Limits { wall_time: std::time::Duration::from_secs(30), ..Limits::default() };
    let env = Env { embeddings: Some(&Hashing), limits: Some(&limits), ..Env::default() };
    program.call(program.function("f").expect("the source defines f"), &inputs, wanted, &env)
}

/// The JSON text of what an expression gives.
fn json(expression: &str) -> String {
    match run(&format!("def f():\n    return {expression}\n"), &[], FeatureType::Json) {
        Ok(Value::Json(text)) => text.to_string(),
        Ok(Value::Null) => "null".to_owned(),
        other => panic!("{expression}: {other:?}"),
    }
}

/// What an expression prints as.
fn repr(expression: &str) -> Result<String, String> {
    match run(&format!("def f():\n    return repr({expression})\n"), &[], FeatureType::String) {
        Ok(Value::String(text)) => Ok(text.to_string()),
        Ok(other) => panic!("{expression}: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

/// The failure that calling `f` of a source is expected to end in.
fn failure(source: &str) -> Failure {
    match run(source, &[], FeatureType::Json) {
        Err(CallError::Failed(failure)) => *failure,
        other => panic!("{source}\n{other:?}"),
    }
}

fn problems(source: &str) -> Vec<Problem> {
    Program::compile(source).expect_err("the source is wrong")
}
