//! Computing features from raw data, and what depends on what.

use std::fmt::Write;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::{ETag, Json};
use super::extract::{EntityPath, IfMatch, JsonBody, Path, Query, RawMembers};
use super::features::origin;
use super::jobs::Accepted;
use super::problem::{ChangeProblems, Problem, ReadProblems};
use super::schemas::{FeaturesToWrite, VersionMatch};
use super::values::{ByFeature, FeatureValue, by_feature};
use crate::domain::compiled::CompiledEntityType;
use crate::domain::derive::Source;
use crate::domain::draft::Outcome;
use crate::domain::name::{EntityId, EntityKey, EntityType};
use crate::domain::record::Version;
use crate::domain::time::{Timestamp, Ttl};
use crate::domain::value::Value;
use crate::service::compute::Compute;
use crate::service::rows::Row;

/// Raw data to compute features from.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"raw": {"name": "iPhone 15", "description": "A phone", "price": 999.99}, "store": true}))]
pub struct ComputeRequest<'a> {
    /// Raw inputs and features by name. Features among them are written too.
    #[serde(borrow)]
    #[schema(value_type = FeaturesToWrite)]
    raw: RawMembers<'a>,
    /// Whether the results are kept (default: true).
    #[serde(default = "yes")]
    #[schema(default = true)]
    store: bool,
    /// Whether the answer shows the inputs, function and time of each.
    #[serde(default)]
    explain: bool,
    /// When the raw data was true in the world; now, if not given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    event_timestamp: Option<Timestamp>,
    /// How long the features among the raw data are served.
    #[serde(default)]
    ttl: Option<Ttl>,
    #[serde(default)]
    #[schema(max_length = 1024)]
    source: Option<String>,
    #[serde(default)]
    #[schema(max_length = 1024)]
    run_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

fn yes() -> bool {
    true
}

/// What was computed.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ComputeResponse<'a> {
    entity_type: &'a str,
    entity_id: &'a str,
    /// The entity's version now; 0 where it is not there.
    version: Version,
    stored: bool,
    /// The computed features; null where there is no value.
    #[schema(value_type = std::collections::BTreeMap<String, FeatureValue>)]
    features: ByFeature<'a, &'a Value>,
    /// Of everything that was written; empty with `"store": false`.
    #[schema(value_type = std::collections::BTreeMap<String, Outcome>)]
    outcomes: ByFeature<'a, Outcome>,
    /// Why a feature was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    messages: Option<ByFeature<'a, &'a str>>,
    /// With `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, ExplanationResponse>>)]
    explanations: Option<ByFeature<'a, ExplanationResponse<'a>>>,
}

/// How one feature was computed.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ExplanationResponse<'a> {
    function: &'a str,
    function_hash: &'a str,
    /// In the order of the parameters; null where an input has no value.
    #[schema(value_type = Vec<ExplainedInput>)]
    inputs: Vec<ExplainedInput<'a>>,
    elapsed_microseconds: f64,
}

/// An input of a function and its value.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ExplainedInput<'a> {
    name: &'a str,
    #[schema(value_type = FeatureValue)]
    value: &'a Value,
}

/// Compute features of one entity from raw data
///
/// Every computed feature whose inputs are there is derived, checked and kept, together with the
/// features among the raw data, as one version. A function that fails refuses the request, with its
/// name, line and message.
#[utoipa::path(
    post, path = "/v1/entities/{entity_type}/{entity_id}/compute",
    operation_id = "compute_features", tag = "computation",
    params(
        ("entity_type" = EntityType, Path, description = "The entity's type", example = "product"),
        ("entity_id" = EntityId, Path, description = "The entity's id", example = "123"),
        ("If-Match" = Option<VersionMatch>, Header, description = "Only if the entity is at this version, as in \"7\"", example = "\"7\""),
    ),
    request_body = inline(ComputeRequest),
    responses((status = 200, description = "What was computed", body = inline(ComputeResponse)), ChangeProblems)
)]
pub async fn compute_features(
    State(app): State<App>,
    Path(path): Path<EntityPath>,
    IfMatch(precondition): IfMatch,
    body: JsonBody,
) -> Result<Response, Problem> {
    let entity = EntityKey::from(path);
    let request: ComputeRequest<'_> = body.parse()?;
    let origin = origin(request.source, request.run_id, request.metadata)?;
    let row = Row {
        entity_id: entity.entity_id.clone(),
        features: request.raw.0,
        event_timestamp: request.event_timestamp,
        ttl: request.ttl,
    };
    let compute = Compute { row, store: request.store, explain: request.explain };
    let computed = app.store.compute(&entity, compute, &origin, precondition).await?;
    let messages = || by_feature(computed.messages.iter().map(|(name, message)| (name, message.as_str())));
    let explanations = || {
        by_feature(computed.explanations.iter().map(|explanation| {
            let inputs = explanation
                .inputs
                .iter()
                .map(|(name, value)| ExplainedInput { name, value: value.as_ref().unwrap_or(&Value::Null) });
            let response = ExplanationResponse {
                function: &explanation.function,
                function_hash: &explanation.function_hash,
                inputs: inputs.collect(),
                elapsed_microseconds: explanation.elapsed.as_nanos() as f64 / 1000.0,
            };
            (&explanation.feature, response)
        }))
    };
    let body = ComputeResponse {
        entity_type: entity.entity_type.as_str(),
        entity_id: entity.entity_id.as_str(),
        version: computed.version,
        stored: request.store,
        features: by_feature(
            computed.features.iter().map(|(name, value)| (name, value.as_ref().unwrap_or(&Value::Null))),
        ),
        outcomes: by_feature(computed.outcomes.iter().map(|(name, outcome)| (name, *outcome))),
        messages: (!computed.messages.is_empty()).then(messages),
        explanations: request.explain.then(explanations),
    };
    Ok((ETag(computed.version), Json(body)).into_response())
}

/// Compute all entities of a type anew
///
/// For functions that have changed: a job that derives every stored computed feature again.
#[utoipa::path(
    post, path = "/v1/entity-types/{entity_type}/recompute",
    operation_id = "recompute_features", tag = "computation",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product")),
    responses(Accepted, ChangeProblems)
)]
pub async fn recompute_features(
    State(app): State<App>,
    Path(name): Path<EntityType>,
) -> Result<Accepted, Problem> {
    Ok(Accepted(app.store.start_recompute(&name).await?))
}

/// In which form the graph is wanted.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GraphQuery {
    /// JSON, or a text to be drawn by Graphviz or Mermaid.
    #[serde(default)]
    #[param(inline)]
    format: GraphFormat,
}

/// A form of the graph.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GraphFormat {
    #[default]
    Json,
    /// For Graphviz.
    Dot,
    Mermaid,
}

/// What is computed from what.
#[derive(Serialize, utoipa::ToSchema)]
pub struct GraphResponse<'a> {
    entity_type: &'a str,
    schema_version: u32,
    nodes: Vec<GraphNode<'a>>,
    edges: Vec<GraphEdge<'a>>,
}

/// A feature, raw input or context value.
#[derive(Serialize, utoipa::ToSchema)]
pub struct GraphNode<'a> {
    name: &'a str,
    kind: NodeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_hash: Option<&'a str>,
}

/// What a node of the graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    Feature,
    RawInput,
    Context,
    ComputedOnWrite,
    ComputedOnRead,
}

/// `to` is computed from `from`.
#[derive(Serialize, utoipa::ToSchema)]
pub struct GraphEdge<'a> {
    from: &'a str,
    to: &'a str,
}

/// Get the dependency graph of an entity type
///
/// What is computed from what, as JSON, DOT or Mermaid.
#[utoipa::path(
    get, path = "/v1/entity-types/{entity_type}/graph",
    operation_id = "get_graph", tag = "computation",
    params(("entity_type" = EntityType, Path, description = "The entity type", example = "product"), GraphQuery),
    responses((status = 200, description = "The graph", content((inline(GraphResponse) = "application/json"), (String = "text/vnd.graphviz"), (String = "text/vnd.mermaid"))), ReadProblems)
)]
pub async fn get_graph(
    State(app): State<App>,
    Path(name): Path<EntityType>,
    Query(query): Query<GraphQuery>,
) -> Result<Response, Problem> {
    app.store.registry().refresh().await?;
    let entity_type = app.store.registry().entity_type(&name).await?;
    let graph = graph(&entity_type);
    let text = |content_type: &'static str, body: String| {
        ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
    };
    Ok(match query.format {
        GraphFormat::Json => Json(graph).into_response(),
        GraphFormat::Dot => text("text/vnd.graphviz", dot(&graph)),
        GraphFormat::Mermaid => text("text/vnd.mermaid", mermaid(&graph)),
    })
}

fn graph(entity_type: &CompiledEntityType) -> GraphResponse<'_> {
    let mut nodes: Vec<GraphNode<'_>> = Vec::new();
    let mut edges = Vec::new();
    for name in entity_type.features.keys() {
        let computation = entity_type.computation(name);
        nodes.push(GraphNode {
            name: name.as_str(),
            kind: match computation {
                None => NodeKind::Feature,
                Some(computed) if computed.on_read => NodeKind::ComputedOnRead,
                Some(_) => NodeKind::ComputedOnWrite,
            },
            function: computation.map(|computed| &*computed.function),
            function_hash: computation.map(|computed| &*computed.function_hash),
        });
    }
    for computed in entity_type.computed() {
        for input in &computed.inputs {
            let (from, kind) = match &input.source {
                Source::Feature(name) => (name.as_str(), None),
                Source::Raw(name) => (&**name, Some(NodeKind::RawInput)),
                Source::Context(name) => (&**name, Some(NodeKind::Context)),
                Source::Now => ("now", Some(NodeKind::Context)),
            };
            if let Some(kind) = kind
                && !nodes.iter().any(|node| node.name == from)
            {
                nodes.push(GraphNode { name: from, kind, function: None, function_hash: None });
            }
            edges.push(GraphEdge { from, to: computed.feature.as_str() });
        }
    }
    let registered = &entity_type.registered;
    GraphResponse {
        entity_type: registered.entity_type.as_str(),
        schema_version: registered.schema_version,
        nodes,
        edges,
    }
}

/// Names are identifiers, so none of them needs quoting beyond the quotes.
fn dot(graph: &GraphResponse<'_>) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n", graph.entity_type);
    for node in &graph.nodes {
        let shape = match node.kind {
            NodeKind::Feature => "box",
            NodeKind::RawInput | NodeKind::Context => "ellipse",
            NodeKind::ComputedOnWrite | NodeKind::ComputedOnRead => "box, style=rounded",
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "  \"{}\" [shape={shape}];", node.name);
    }
    for edge in &graph.edges {
        let _ = writeln!(text, "  \"{}\" -> \"{}\";", edge.from, edge.to);
    }
    text.push_str("}\n");
    text
}

fn mermaid(graph: &GraphResponse<'_>) -> String {
    let mut text = String::from("flowchart LR\n");
    for node in &graph.nodes {
        let name = node.name;
        let _ = match node.kind {
            NodeKind::Feature => writeln!(text, "  {name}[{name}]"),
            NodeKind::RawInput | NodeKind::Context => writeln!(text, "  {name}([{name}])"),
            NodeKind::ComputedOnWrite | NodeKind::ComputedOnRead => writeln!(text, "  {name}({name})"),
        };
    }
    for edge in &graph.edges {
        let _ = writeln!(text, "  {} --> {}", edge.from, edge.to);
    }
    text
}
