//! The tests that a schema carries: inputs, and what the computed features are to be.

use serde::Serialize;

use crate::domain::name::FeatureName;
use crate::domain::schema::{EntityTypeSchema, TransformationTest};
use crate::domain::value::{FeatureType, Value};
use crate::domain::violation::{Violation, ViolationCode};

use super::embedding::Hashing;
use super::entity_type::{ComputeError, Transformations, feature_type};
use super::graph::{NOW, Source};
use super::program::Env;

/// What came of one test.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name, or its number from 1.
    pub name: String,
    /// Empty where it passed.
    pub differences: Vec<Difference>,
}

impl CaseReport {
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A feature that is not what a test expects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub feature: String,
    pub expected: Value,
    /// What it is, or why it is nothing.
    #[serde(serialize_with = "outcome")]
    pub found: Result<Value, String>,
}

fn outcome<S: serde::Serializer>(found: &Result<Value, String>, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(Some(1))?;
    match found {
        Ok(value) => map.serialize_entry("value", value)?,
        Err(error) => map.serialize_entry("error", error)?,
    }
    map.end()
}

/// A test with its values read by type.
struct Case {
    inputs: Vec<(String, Value)>,
    expect: Vec<(FeatureName, Value)>,
}

/// Runs the tests of a schema with the built-in embeddings. Tests that are malformed are left out:
/// [`super::compile_entity_type`] refuses their schema.
pub fn check_cases(transformations: &Transformations, schema: &EntityTypeSchema) -> Vec<CaseReport> {
    let tests = schema.tests.iter().enumerate();
    tests.map(|(index, test)| check(transformations, schema, index, test)).collect()
}

fn check(
    transformations: &Transformations,
    schema: &EntityTypeSchema,
    index: usize,
    test: &TransformationTest,
) -> CaseReport {
    let name = if test.name.is_empty() { (index + 1).to_string() } else { test.name.clone() };
    let mut ignored = Vec::new();
    let case = read(transformations, schema, index, test, &mut ignored);
    let graph = transformations.graph();
    let given =
        |name: &str| case.inputs.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    // A computed feature whose value is given is an input and not computed.
    let wanted = case.expect.iter().filter_map(|(feature, _)| graph.position(feature));
    let mut nodes = graph.with_needed(wanted);
    let expected = |at: &usize| case.expect.iter().any(|(feature, _)| *feature == graph.nodes()[*at].feature);
    nodes.retain(|at| expected(at) || given(graph.nodes()[*at].feature.as_str()).is_none());
    let env = Env { embeddings: Some(&Hashing), ..Env::default() };
    let input = |source: &Source| given(source.name());
    let outcomes = transformations.compute(&nodes, &input, &env).unwrap_or_default();
    let found = |feature: &FeatureName| {
        let outcome = outcomes.iter().find(|outcome| transformations.node(outcome).feature == *feature);
        match outcome.map(|outcome| &outcome.result) {
            // No value is what a test calls null.
            Some(Ok(value)) => Ok(value.clone().unwrap_or(Value::Null)),
            Some(Err(error @ (ComputeError::Call(_) | ComputeError::Blocked(_)))) => Err(error.to_string()),
            None => Err("was not computed".to_owned()),
        }
    };
    let differences = case.expect.iter().filter_map(|(feature, expected)| {
        let found = found(feature);
        let same = found.as_ref().is_ok_and(|found| about_equal(found, expected));
        let expected = expected.clone();
        (!same).then(|| Difference { feature: feature.to_string(), expected, found })
    });
    CaseReport { name, differences: differences.collect() }
}

/// Equal, but for the last digits of floats.
fn about_equal(a: &Value, b: &Value) -> bool {
    let near = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0);
    match (a, b) {
        (Value::Float64(a), Value::Float64(b)) => near(*a, *b, 1e-9),
        (Value::Embedding(a), Value::Embedding(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| near((*a).into(), (*b).into(), 1e-5))
        }
        (a, b) => a.same_as(b),
    }
}

/// What is wrong with the form of a schema's tests.
pub(super) fn malformed(transformations: &Transformations, schema: &EntityTypeSchema) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, test) in schema.tests.iter().enumerate() {
        read(transformations, schema, index, test, &mut violations);
        if test.expect.is_empty() {
            let message = "expects nothing; name a computed feature and its value";
            violations.push(Violation::at(
                &format!("/tests/{index}/expect"),
                ViolationCode::InvalidSchema,
                message,
            ));
        }
    }
    violations
}

fn read(
    transformations: &Transformations,
    schema: &EntityTypeSchema,
    index: usize,
    test: &TransformationTest,
    violations: &mut Vec<Violation>,
) -> Case {
    let mut wrong = |part: &str, name: &str, message: String| {
        let pointer = format!("/tests/{index}/{part}/{name}");
        violations.push(Violation::at(&pointer, ViolationCode::InvalidSchema, message));
    };
    let type_of = |name: &str| match schema.features.get(name) {
        Some(feature) => feature_type(feature.type_name, feature.dimension).ok(),
        None if name == NOW => Some(FeatureType::Timestamp),
        None => transformations.raw_inputs().get(name).copied(),
    };
    let parse = |json: &serde_json::Value, feature_type: FeatureType| {
        let raw = serde_json::value::to_raw_value(json).map_err(|error| error.to_string())?;
        Value::parse(&raw, feature_type).map_err(|error| error.0)
    };
    let mut case = Case { inputs: Vec::new(), expect: Vec::new() };
    for (name, json) in &test.inputs {
        match type_of(name)
            .ok_or_else(|| "is no feature and no raw input".to_owned())
            .and_then(|t| parse(json, t))
        {
            Ok(value) => case.inputs.push((name.clone(), value)),
            Err(message) => wrong("inputs", name, message),
        }
    }
    for (name, json) in &test.expect {
        let node = transformations.graph().nodes().iter().find(|node| node.feature.as_str() == name);
        match node
            .ok_or_else(|| "is no computed feature".to_owned())
            .and_then(|node| parse(json, node.feature_type).map(|value| (node.feature.clone(), value)))
        {
            Ok(expected) => case.expect.push(expected),
            Err(message) => wrong("expect", name, message),
        }
    }
    case
}
