//! The computed features of an entity type, ready to be computed.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::domain::name::FeatureName;
use crate::domain::schema::{ComputeOn, EntityTypeSchema, OnError};
use crate::domain::value::{FeatureType, TypeName, Value};
use crate::domain::violation::{Violation, ViolationCode};

use super::cases;
use super::fault::CallError;
use super::graph::{Declared, Graph, GraphProblem, NOW, Node, Source};
use super::program::{Env, Program};
use crate::domain::derive::EmbeddingRequest;

/// What computes the features of one version of a schema. Immutable; meant to be shared.
#[derive(Debug)]
pub struct Transformations {
    program: Program,
    graph: Graph,
    raw_inputs: IndexMap<FeatureName, FeatureType>,
    /// That of the entity type's embedding features, where all have the same.
    dimension: Option<u32>,
}

/// What came of one computed feature.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Index among the graph's nodes.
    pub node: usize,
    /// `None`: an input that the function cannot do without has no value, so it has none.
    pub result: Result<Option<Value>, ComputeError>,
    /// How long the function took.
    pub elapsed: Duration,
}

/// Why a computed feature has no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ComputeError {
    #[error(transparent)]
    Call(#[from] CallError),
    /// A computed feature that it needs failed.
    #[error("needs {0}, which could not be computed")]
    Blocked(FeatureName),
}

/// Compiles and checks all that a schema says of computed features: its functions, their inputs,
/// the order, the form of its tests. The messages carry line and column in the source.
pub fn compile_entity_type(schema: &EntityTypeSchema) -> Result<Transformations, Vec<Violation>> {
    let invalid =
        |pointer: &str, message: String| Violation::at(pointer, ViolationCode::InvalidSchema, message);
    let program = Program::compile(&schema.transformations).map_err(|problems| {
        let violations = problems.iter().map(|problem| invalid("/transformations", problem.to_string()));
        violations.collect::<Vec<_>>()
    })?;
    let mut violations = Vec::new();
    let mut raw_inputs = IndexMap::new();
    for (name, raw) in &schema.raw_inputs {
        let pointer = format!("/raw_inputs/{name}");
        if schema.features.contains_key(name) {
            violations.push(invalid(
                &pointer,
                "is a feature already, which functions can take as it is".to_owned(),
            ));
        }
        if name.as_str() == NOW {
            violations.push(invalid(&pointer, "`now` is the time of a read; choose another name".to_owned()));
        }
        match feature_type(raw.type_name, raw.dimension) {
            Ok(feature_type) => {
                raw_inputs.insert(name.clone(), feature_type);
            }
            Err(message) => violations.push(invalid(&pointer, message)),
        }
    }
    let mut declared = Vec::new();
    let mut dimensions = Vec::new();
    for (name, feature) in &schema.features {
        // What is wrong with the type itself is the domain's to say.
        let Ok(feature_type) = feature_type(feature.type_name, feature.dimension) else { continue };
        if let FeatureType::Embedding { dimension } = feature_type {
            dimensions.push(dimension);
        }
        let Some(computed) = &feature.computed else { continue };
        if feature.required && computed.on == ComputeOn::Read {
            let pointer = format!("/features/{name}/required");
            violations.push(invalid(
                &pointer,
                "a feature computed on read is not stored, so it cannot be required".to_owned(),
            ));
        }
        let (function, on, on_error) = (computed.function.as_str(), computed.on, computed.on_error);
        declared.push(Declared { feature: name, feature_type, function, on, on_error });
    }
    dimensions.sort_unstable();
    dimensions.dedup();
    let is_stored = |name: &str| schema.features.get(name).is_some_and(|feature| feature.computed.is_none());
    let is_raw = |name: &str| schema.raw_inputs.contains_key(name);
    let graph = match Graph::build(&program, &declared, is_stored, is_raw) {
        Ok(graph) => graph,
        Err(problems) => {
            violations.extend(problems.iter().map(graph_violation));
            return Err(violations);
        }
    };
    let dimension = match dimensions.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let transformations = Transformations { program, graph, raw_inputs, dimension };
    violations.extend(cases::malformed(&transformations, schema));
    if violations.is_empty() { Ok(transformations) } else { Err(violations) }
}

fn graph_violation(problem: &GraphProblem) -> Violation {
    let message = match problem.position {
        Some((line, column)) => format!("line {line}, column {column}: {}", problem.message),
        None => problem.message.clone(),
    };
    let pointer = format!("/features/{}/computed", problem.feature);
    Violation {
        feature: Some(problem.feature.to_string()),
        ..Violation::at(&pointer, ViolationCode::InvalidSchema, message)
    }
}

pub(super) fn feature_type(name: TypeName, dimension: Option<u32>) -> Result<FeatureType, String> {
    Ok(match (name, dimension) {
        (TypeName::Embedding, Some(dimension @ 1..=crate::domain::compiled::MAX_DIMENSION)) => {
            FeatureType::Embedding { dimension }
        }
        (TypeName::Embedding, _) => return Err("an embedding needs a dimension from 1 to 65536".to_owned()),
        (_, Some(_)) => return Err("only an embedding has a dimension".to_owned()),
        (TypeName::Int64, None) => FeatureType::Int64,
        (TypeName::Float64, None) => FeatureType::Float64,
        (TypeName::Boolean, None) => FeatureType::Boolean,
        (TypeName::String, None) => FeatureType::String,
        (TypeName::Timestamp, None) => FeatureType::Timestamp,
        (TypeName::Json, None) => FeatureType::Json,
    })
}

impl Transformations {
    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How many numbers `embed` answers with where neither the call nor the wanted type says.
    pub fn dimension(&self) -> Option<u32> {
        self.dimension
    }

    /// The raw inputs and their types.
    pub fn raw_inputs(&self) -> &IndexMap<FeatureName, FeatureType> {
        &self.raw_inputs
    }

    pub fn node(&self, outcome: &Outcome) -> &Node {
        &self.graph.nodes()[outcome.node]
    }

    /// Computes features one after another: `nodes` are indices into the graph, ascending (as
    /// [`Graph::dependents`] and [`Graph::with_needed`] give them). An input comes from a feature
    /// computed before it, else from `input`; `None` is an input without a value. Then the default
    /// of its parameter stands in, and a function without one there is not called.
    ///
    /// The error lists the embeddings that are not at hand, of all functions at once: fetch them
    /// and call again.
    pub fn compute(
        &self,
        nodes: &[usize],
        input: &dyn Fn(&Source) -> Option<Value>,
        env: &Env<'_>,
    ) -> Result<Vec<Outcome>, Vec<EmbeddingRequest>> {
        let env = Env { dimension: env.dimension.or(self.dimension), ..*env };
        let mut session = self.program.session(&env);
        let nodes_of = self.graph.nodes();
        let skips = |source: &Source| {
            let node = nodes_of.iter().find(|node| node.feature.as_str() == source.name());
            node.is_some_and(|node| node.on_error == OnError::Skip)
        };
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(nodes.len());
        let mut missing: Vec<EmbeddingRequest> = Vec::new();
        let mut values: Vec<Option<Value>> = Vec::new();
        for &at in nodes {
            let node = &self.graph.nodes()[at];
            values.clear();
            let mut blocked = None;
            for source in &node.inputs {
                let earlier = match source {
                    Source::Computed(name) => {
                        outcomes.iter().find(|outcome| self.graph.nodes()[outcome.node].feature == *name)
                    }
                    Source::Stored(_) | Source::Raw(_) | Source::Now => None,
                };
                values.push(match earlier.map(|outcome| &outcome.result) {
                    Some(Ok(value)) => value.clone(),
                    Some(Err(ComputeError::Call(CallError::Failed(_)))) if skips(source) => None,
                    Some(Err(_)) => {
                        blocked.get_or_insert_with(|| source.name());
                        None
                    }
                    None => input(source),
                });
            }
            let start = Instant::now();
            let mut given = values.iter().zip(&node.function.parameters);
            let complete = given.all(|(value, parameter)| value.is_some() || parameter.has_default);
            let result = match blocked.and_then(|name| FeatureName::parse(name).ok()) {
                Some(name) => Err(ComputeError::Blocked(name)),
                None if !complete => Ok(None),
                None => {
                    let inputs: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
                    let value = session.call(&node.function, &inputs, node.feature_type);
                    value.map(Some).map_err(ComputeError::Call)
                }
            };
            if let Err(ComputeError::Call(CallError::NeedsEmbeddings(requests))) = &result {
                for request in requests {
                    if !missing.contains(request) {
                        missing.push(request.clone());
                    }
                }
            }
            outcomes.push(Outcome { node: at, result, elapsed: start.elapsed() });
        }
        if missing.is_empty() { Ok(outcomes) } else { Err(missing) }
    }
}
