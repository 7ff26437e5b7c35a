//! Which computed feature needs what, in which order they are computed, and which a change touches.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use serde::Serialize;

use crate::domain::name::FeatureName;
use crate::domain::schema::{ComputeOn, OnError};
use crate::domain::value::FeatureType;

use super::program::{Function, Program};

/// The name of the input that a function on read gets the time of the request from, where no
/// feature or raw input has that name.
pub const NOW: &str = "now";

/// Where an input of a function comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Source {
    /// A feature that is written.
    #[schema(value_type = String)]
    Stored(FeatureName),
    /// Another computed feature.
    #[schema(value_type = String)]
    Computed(FeatureName),
    /// A raw input: of the computation on write, of the request's context on read.
    #[schema(value_type = String)]
    Raw(FeatureName),
    /// The time of the request; on read only.
    Now,
}

impl Source {
    pub fn name(&self) -> &str {
        match self {
            Self::Stored(name) | Self::Computed(name) | Self::Raw(name) => name.as_str(),
            Self::Now => NOW,
        }
    }
}

/// A computed feature.
#[derive(Clone, Debug)]
pub struct Node {
    pub feature: FeatureName,
    pub feature_type: FeatureType,
    pub on: ComputeOn,
    pub on_error: OnError,
    pub function: Function,
    /// In the order of the function's parameters.
    pub inputs: Vec<Source>,
}

/// What a schema says of a computed feature.
pub struct Declared<'a> {
    pub feature: &'a FeatureName,
    pub feature_type: FeatureType,
    pub function: &'a str,
    pub on: ComputeOn,
    pub on_error: OnError,
}

/// Something wrong with how a feature is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphProblem {
    pub feature: FeatureName,
    /// Where the function is defined, if it is.
    pub position: Option<(u32, u32)>,
    pub message: String,
}

/// The computed features of an entity type, each after those that it needs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<FeatureName, usize>,
    /// For each input the nodes that it reaches, directly or through others, in order.
    reached: HashMap<String, Vec<usize>>,
}

impl Graph {
    /// Connects computed features with their inputs; the error lists all that is wrong.
    pub fn build(
        program: &Program,
        declared: &[Declared<'_>],
        is_stored: impl Fn(&str) -> bool,
        is_raw: impl Fn(&str) -> bool,
    ) -> Result<Self, Vec<GraphProblem>> {
        let mut problems = Vec::new();
        let mut nodes = Vec::new();
        let by_name: HashMap<&str, &Declared<'_>> =
            declared.iter().map(|declared| (declared.feature.as_str(), declared)).collect();
        for declared in declared {
            let Some(function) = program.function(declared.function) else {
                problems.push(unknown_function(program, declared));
                continue;
            };
            let mut wrong = |message: String| {
                problems.push(GraphProblem {
                    feature: declared.feature.clone(),
                    position: Some((function.line, function.column)),
                    message,
                });
            };
            if function.variadic {
                wrong(format!(
                    "`{}` takes *args or **kwargs, so its inputs are not known; name them",
                    function.name
                ));
                continue;
            }
            let mut inputs = Vec::new();
            for parameter in &function.parameters {
                let name = parameter.name.as_str();
                let feature = FeatureName::parse(name).ok();
                let source = match feature {
                    // Whatever a feature is called, which any writer may register.
                    _ if name == NOW && declared.on == ComputeOn::Read => Source::Now,
                    Some(feature) if by_name.contains_key(name) => {
                        if declared.on == ComputeOn::Write
                            && by_name.get(name).is_some_and(|other| other.on == ComputeOn::Read)
                        {
                            wrong(format!(
                                "needs `{name}`, which is computed on read and not stored; compute this one on read, too"
                            ));
                        }
                        Source::Computed(feature)
                    }
                    Some(feature) if is_stored(name) => Source::Stored(feature),
                    Some(feature) if is_raw(name) => Source::Raw(feature),
                    _ if name == NOW => {
                        wrong("`now` is there only for features computed on read".to_owned());
                        continue;
                    }
                    _ => {
                        let hint = match declared.on {
                            ComputeOn::Write => "",
                            ComputeOn::Read => {
                                "; what comes from the request's context is declared in raw_inputs"
                            }
                        };
                        wrong(format!(
                            "the parameter `{name}` of `{}` is no feature and no raw input{hint}",
                            function.name
                        ));
                        continue;
                    }
                };
                inputs.push(source);
            }
            nodes.push(Node {
                feature: declared.feature.clone(),
                feature_type: declared.feature_type,
                on: declared.on,
                on_error: declared.on_error,
                function: function.clone(),
                inputs,
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let nodes = in_order(nodes).map_err(|problem| vec![problem])?;
        let index = nodes.iter().enumerate().map(|(at, node)| (node.feature.clone(), at)).collect();
        let reached = reached(&nodes);
        Ok(Self { nodes, index, reached })
    }

    /// Each after those that it needs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The index of a computed feature among the nodes.
    pub fn position(&self, feature: &FeatureName) -> Option<usize> {
        self.index.get(feature).copied()
    }

    /// The nodes that depend on one of the inputs, directly or through others: indices, in the
    /// order in which they are computed.
    pub fn dependents<'a>(&self, changed: impl IntoIterator<Item = &'a str>, on: ComputeOn) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        for name in changed {
            found.extend(self.reached.get(name).into_iter().flatten().filter(|at| self.nodes[**at].on == on));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Computed features and the computed ones that they need: indices, in order.
    pub fn with_needed(&self, wanted: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut found = BTreeSet::new();
        let mut open: Vec<usize> = wanted.into_iter().collect();
        while let Some(at) = open.pop() {
            if found.insert(at) {
                open.extend(self.nodes[at].inputs.iter().filter_map(|input| match input {
                    Source::Computed(name) => self.position(name),
                    Source::Stored(_) | Source::Raw(_) | Source::Now => None,
                }));
            }
        }
        found.into_iter().collect()
    }

    /// For Graphviz.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph features {\n  rankdir=LR;\n");
        for node in &self.nodes {
            let style = if node.on == ComputeOn::Read { ", style=dashed" } else { "" };
            // Writing to a string cannot fail.
            let _ =
                writeln!(out, "  {} [shape=box{style}, tooltip=\"{}\"];", node.feature, node.function.name);
            for input in &node.inputs {
                let _ = writeln!(out, "  {} -> {};", input.name(), node.feature);
            }
        }
        out.push_str("}\n");
        out
    }

    /// For Mermaid, as Markdown pages show it.
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for node in &self.nodes {
            let _ = writeln!(out, "  {0}[\"{0}<br/>{1}()\"]", node.feature, node.function.name);
            for input in &node.inputs {
                let arrow = if node.on == ComputeOn::Read { "-.->" } else { "-->" };
                let _ = writeln!(out, "  {} {arrow} {}", input.name(), node.feature);
            }
        }
        out
    }
}

fn unknown_function(program: &Program, declared: &Declared<'_>) -> GraphProblem {
    let names = program.functions().map(|function| function.name.as_str());
    let mut message = format!("there is no function `{}` in transformations", declared.function);
    if let Some(similar) = super::native::closest(declared.function, names) {
        // Writing to a string cannot fail.
        let _ = write!(message, "; did you mean `{similar}`?");
    }
    GraphProblem { feature: declared.feature.clone(), position: None, message }
}

/// Sorts nodes so that each stands after those that it needs; the error names a cycle.
fn in_order(nodes: Vec<Node>) -> Result<Vec<Node>, GraphProblem> {
    let index: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.feature.as_str(), at)).collect();
    let needs: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| {
            let computed = node.inputs.iter().filter(|input| matches!(input, Source::Computed(_)));
            computed.filter_map(|input| index.get(input.name()).copied()).collect()
        })
        .collect();
    let mut placed = vec![false; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    while order.len() < nodes.len() {
        let before = order.len();
        for at in 0..nodes.len() {
            if !placed[at] && needs[at].iter().all(|need| placed[*need]) {
                placed[at] = true;
                order.push(at);
            }
        }
        if order.len() == before {
            return Err(cycle(&nodes, &needs, &placed));
        }
    }
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| nodes[at].take()).collect())
}

/// Follows needs among the nodes that could not be placed until one comes again.
fn cycle(nodes: &[Node], needs: &[Vec<usize>], placed: &[bool]) -> GraphProblem {
    let mut path = vec![placed.iter().position(|placed| !placed).unwrap_or(0)];
    loop {
        let last = path[path.len() - 1];
        let next = needs[last].iter().copied().find(|need| !placed[*need]).unwrap_or(last);
        if let Some(start) = path.iter().position(|at| *at == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    let names: Vec<&str> = path.iter().map(|at| nodes[*at].feature.as_str()).collect();
    let node = &nodes[path[0]];
    GraphProblem {
        feature: node.feature.clone(),
        position: Some((node.function.line, node.function.column)),
        message: format!("needs itself: {}", names.join(" -> ")),
    }
}

fn reached(nodes: &[Node]) -> HashMap<String, Vec<usize>> {
    // Each node's inputs, with those of the computed ones it needs; nodes are in order.
    let mut inputs: Vec<BTreeSet<&str>> = Vec::with_capacity(nodes.len());
    let index: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.feature.as_str(), at)).collect();
    for node in nodes {
        let mut all: BTreeSet<&str> = BTreeSet::new();
        for input in &node.inputs {
            all.insert(input.name());
            let earlier = index.get(input.name()).and_then(|at| inputs.get(*at));
            all.extend(earlier.into_iter().flatten());
        }
        inputs.push(all);
    }
    let mut reached: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, names) in inputs.iter().enumerate() {
        for name in names {
            reached.entry((*name).to_owned()).or_default().push(at);
        }
    }
    reached
}
