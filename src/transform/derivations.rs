//! The functions of a schema version, as the rules see them.

use crate::domain::derive::{self, Derivations, DeriveError, Embeddings, Evaluate, Input};
use crate::domain::schema::{ComputeOn, OnError};
use crate::domain::value::Value;

use super::entity_type::Transformations;
use super::fault::{CallError, ErrorKind};
use super::graph::{Node, Source};
use super::program::{Env, Session};

/// [`Transformations`] that evaluate for [`crate::domain::derive`].
#[derive(Debug)]
pub struct Functions {
    transformations: Transformations,
    /// One for each node of the graph, in its order.
    computed: Vec<derive::Computed>,
}

impl Functions {
    pub fn new(transformations: Transformations) -> Self {
        let computed = transformations.graph().nodes().iter().map(computed).collect();
        Self { transformations, computed }
    }
}

fn computed(node: &Node) -> derive::Computed {
    let on_read = node.on == ComputeOn::Read;
    let inputs = node.inputs.iter().zip(&node.function.parameters).map(|(source, parameter)| Input {
        source: match source {
            Source::Stored(name) | Source::Computed(name) => derive::Source::Feature(name.clone()),
            Source::Raw(name) if on_read => derive::Source::Context(name.as_str().into()),
            Source::Raw(name) => derive::Source::Raw(name.as_str().into()),
            Source::Now => derive::Source::Now,
        },
        optional: parameter.has_default,
    });
    derive::Computed {
        feature: node.feature.clone(),
        feature_type: node.feature_type,
        on_read,
        skip_errors: node.on_error == OnError::Skip,
        inputs: inputs.collect(),
        function: node.function.name.as_str().into(),
        function_hash: node.function.hash.as_str().into(),
    }
}

impl Derivations for Functions {
    fn computed(&self) -> &[derive::Computed] {
        &self.computed
    }

    fn session<'a>(&'a self, embeddings: &'a dyn Embeddings) -> Box<dyn Evaluate + 'a> {
        let env =
            Env { embeddings: Some(embeddings), dimension: self.transformations.dimension(), limits: None };
        let session = self.transformations.program().session(&env);
        Box::new(Evaluation { nodes: self.transformations.graph().nodes(), session })
    }
}

struct Evaluation<'a> {
    nodes: &'a [Node],
    session: Session<'a>,
}

impl Evaluate for Evaluation<'_> {
    fn evaluate(&mut self, index: usize, inputs: &[Option<&Value>]) -> Result<Value, DeriveError> {
        let Some(node) = self.nodes.get(index) else {
            return Err(DeriveError::Failed("there is no such function".to_owned()));
        };
        self.session.call(&node.function, inputs, node.feature_type).map_err(|error| match error {
            CallError::Failed(failure) if failure.kind == ErrorKind::Provider => {
                DeriveError::Unavailable(failure.message)
            }
            CallError::Failed(failure) => DeriveError::Failed(failure.to_string()),
            CallError::NeedsEmbeddings(requests) => DeriveError::NeedsEmbeddings(requests),
        })
    }
}
