//! Computed features: what follows from a write, in the same version.
//!
//! How a function is evaluated is not decided here: a [`Derivations`] brings the functions of one
//! schema version, and this module decides which of them run, on what, and what becomes of their
//! results.

use std::fmt;
use std::sync::Arc;

use super::compiled::CompiledEntityType;
use super::draft::{Draft, FeatureEvent, Intent, NeedsHistory, Outcome, Stamp};
use super::name::FeatureName;
use super::record::Version;
use super::time::Timestamp;
use super::value::{FeatureType, Value};
use super::violation::{Violation, ViolationCode};

/// A feature that is derived by a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    pub feature: FeatureName,
    pub feature_type: FeatureType,
    /// Evaluated when it is read, and not stored; otherwise when an input is written.
    pub on_read: bool,
    /// Whether a function that fails leaves the feature without a value instead of failing the
    /// write.
    pub skip_errors: bool,
    /// In the order of the function's parameters.
    pub inputs: Vec<Input>,
    pub function: Arc<str>,
    pub function_hash: Arc<str>,
}

impl Computed {
    /// Whether its value is kept because it cannot be computed anew from what else is kept.
    pub fn takes_raw(&self) -> bool {
        !self.on_read && self.inputs.iter().any(|input| matches!(input.source, Source::Raw(_)))
    }

    /// The features among its inputs.
    pub fn input_features(&self) -> impl Iterator<Item = &FeatureName> {
        self.inputs.iter().filter_map(|input| match &input.source {
            Source::Feature(name) => Some(name),
            Source::Raw(_) | Source::Context(_) | Source::Now => None,
        })
    }
}

/// What a parameter of a function stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub source: Source,
    /// Whether the parameter has a default, which stands in where there is no value.
    pub optional: bool,
}

/// Where the value of an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Feature(FeatureName),
    /// A raw input of a compute request, by its place in the schema.
    Raw(Arc<str>),
    /// A member of a read request's context.
    Context(Arc<str>),
    /// The time of the read.
    Now,
}

/// The functions of one schema version.
pub trait Derivations: Send + Sync + fmt::Debug {
    /// The computed features, each after those that it depends on.
    fn computed(&self) -> &[Computed];

    /// For several evaluations one after another.
    fn session<'a>(&'a self, embeddings: &'a dyn Embeddings) -> Box<dyn Evaluate + 'a>;
}

/// Evaluates functions, without waiting for anything.
pub trait Evaluate {
    /// The result of the function behind `computed()[index]`, as a value of the feature's type.
    fn evaluate(&mut self, index: usize, inputs: &[Option<&Value>]) -> Result<Value, DeriveError>;
}

/// Embeddings that are at hand while functions are evaluated.
pub trait Embeddings: Sync {
    fn get(&self, text: &str, dimension: u32) -> Embedding;
}

/// What a look-up of an embedding answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Embedding {
    Here(Arc<[f32]>),
    /// It has to be fetched first.
    Fetch,
    /// It cannot be had, and why.
    Failed(String),
    /// The function asks for more than it may, and how much that is.
    Refused(String),
}

/// A text whose embedding an evaluation needs and did not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmbeddingRequest {
    pub text: String,
    pub dimension: u32,
}

/// Why a function has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeriveError {
    /// With the function's name, line and message.
    Failed(String),
    /// Something that the function needs is out of order, which is nobody's fault who writes.
    Unavailable(String),
    /// Fetch these and start again.
    NeedsEmbeddings(Vec<EmbeddingRequest>),
}

/// Why a derivation could not be drafted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The history of these features is needed; load it and start again.
    NeedsHistory(NeedsHistory),
    /// Fetch these and start again.
    NeedsEmbeddings(Vec<EmbeddingRequest>),
    /// Functions failed, or their results do not fit the schema.
    Failed(Vec<Violation>),
    /// Something that functions need is out of order.
    Unavailable(String),
}

impl From<NeedsHistory> for Undecided {
    fn from(missing: NeedsHistory) -> Self {
        Self::NeedsHistory(missing)
    }
}

/// The raw inputs of a compute request.
#[derive(Clone, Debug, Default)]
pub struct RawInputs {
    pub values: Vec<(Arc<str>, Value)>,
    /// When they were true; `None`: now.
    pub event_timestamp: Option<Timestamp>,
    /// Whether everything is computed whose inputs are there, and not only what changed.
    pub everything: bool,
}

impl RawInputs {
    fn get(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(other, _)| **other == *name).map(|(_, value)| value)
    }
}

/// What a derivation did to one computed feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    pub feature: FeatureName,
    pub outcome: Outcome,
    pub value: Option<Value>,
    /// Why it was skipped.
    pub message: Option<String>,
}

/// Which features have to be loaded so that a write of `written` can be derived from: the computed
/// ones that depend on them, and all inputs of those.
pub fn involved(
    entity_type: &CompiledEntityType,
    written: &[FeatureName],
    everything: bool,
) -> Vec<FeatureName> {
    let mut changed: Vec<&FeatureName> = written.iter().collect();
    let mut involved: Vec<FeatureName> = Vec::new();
    for computed in entity_type.computed().iter().filter(|computed| !computed.on_read) {
        if everything || depends_on(computed, &changed) {
            changed.push(&computed.feature);
            involved.push(computed.feature.clone());
            for input in &computed.inputs {
                if let Source::Feature(name) = &input.source {
                    involved.push(name.clone());
                }
            }
        }
    }
    involved.sort_unstable();
    involved.dedup();
    involved
}

fn depends_on(computed: &Computed, changed: &[&FeatureName]) -> bool {
    computed
        .inputs
        .iter()
        .any(|input| matches!(&input.source, Source::Feature(name) if changed.contains(&name)))
}

/// What a derivation works with.
#[derive(Clone, Copy)]
pub struct With<'a> {
    pub entity_type: &'a CompiledEntityType,
    pub derivations: &'a dyn Derivations,
    pub raw: &'a RawInputs,
    pub embeddings: &'a dyn Embeddings,
    /// What this version has decided of already: it is not computed anew, though its inputs changed.
    pub settled: &'a [FeatureName],
}

/// Drafts what follows from a write that was drafted on top of version `before` and changed the
/// features in `changed`: every computed feature whose inputs changed is evaluated anew, in the
/// same version, so that it never disagrees with them.
pub fn derive(
    draft: &mut Draft,
    before: Version,
    changed: Vec<FeatureName>,
    with: &With<'_>,
    stamp: &Stamp,
) -> Result<Vec<Derived>, Undecided> {
    let With { entity_type, derivations, raw, embeddings, settled } = *with;
    let mut session = None;
    let mut changed = changed;
    let mut results: Vec<Derived> = Vec::new();
    let mut violations = Vec::new();
    let mut missing = Vec::new();
    let mut unavailable = None;
    for (index, computed) in
        derivations.computed().iter().enumerate().filter(|(_, computed)| !computed.on_read)
    {
        let of_changed = depends_on(computed, &changed.iter().collect::<Vec<_>>());
        let raw_inputs = computed.inputs.iter().filter_map(|input| match &input.source {
            Source::Raw(name) => Some((name, input.optional)),
            _ => None,
        });
        let (mut takes_raw, mut lacks_raw) = (false, false);
        for (name, optional) in raw_inputs {
            let given = raw.get(name).is_some();
            takes_raw |= given;
            // What cannot be computed anew stays as it was: raw inputs are not kept.
            lacks_raw |= !given && !optional;
        }
        if lacks_raw || !(of_changed || takes_raw || raw.everything) || settled.contains(&computed.feature) {
            continue;
        }
        let inputs: Vec<Option<&Value>> = computed
            .inputs
            .iter()
            .map(|input| match &input.source {
                Source::Feature(name) => draft.value_at(name, stamp.now),
                Source::Raw(name) => raw.get(name),
                Source::Context(_) | Source::Now => None,
            })
            .collect();
        let complete =
            inputs.iter().zip(&computed.inputs).all(|(value, input)| value.is_some() || input.optional);
        let mut message = None;
        let value = if complete {
            let session = session.get_or_insert_with(|| derivations.session(embeddings));
            match evaluate(session.as_mut(), index, computed, &inputs, entity_type) {
                Ok(value) => Some(value),
                Err(DeriveError::NeedsEmbeddings(requests)) => {
                    missing.extend(requests);
                    continue;
                }
                Err(DeriveError::Failed(reason) | DeriveError::Unavailable(reason))
                    if computed.skip_errors =>
                {
                    message = Some(reason);
                    None
                }
                Err(DeriveError::Unavailable(reason)) => {
                    unavailable.get_or_insert(reason);
                    continue;
                }
                Err(DeriveError::Failed(reason)) => {
                    violations.push(Violation::of_feature(
                        &computed.feature,
                        ViolationCode::ComputationFailed,
                        reason,
                    ));
                    continue;
                }
            }
        } else {
            None
        };
        let Some(feature) = entity_type.features.get(&computed.feature) else { continue };
        let of_inputs = computed.inputs.iter().filter_map(|input| match &input.source {
            Source::Feature(name) => draft.event_timestamp(name),
            _ => None,
        });
        let event_timestamp = match (of_inputs.max(), takes_raw) {
            (Some(newest), true) => match raw.event_timestamp {
                Some(at) => Some(at.max(newest)),
                // Now, unless an input is of later than that.
                None => Some(newest).filter(|newest| *newest > stamp.now),
            },
            (None, true) => raw.event_timestamp,
            // What has no inputs is as old as it is.
            (newest, false) => newest.or_else(|| draft.event_timestamp(&computed.feature)),
        };
        let event = FeatureEvent {
            feature: computed.feature.clone(),
            value: value.clone(),
            event_timestamp,
            ttl: feature.ttl,
            history_limit: feature.history_limit,
            // What is computed from raw inputs is an event as they are, and may be late.
            intent: if takes_raw { Intent::Event } else { Intent::Derived },
        };
        let outcome = draft.write_along(std::slice::from_ref(&event), before, stamp)?[0];
        if outcome == Outcome::Applied {
            changed.push(computed.feature.clone());
        }
        let there = value.is_some() || message.is_some() || outcome == Outcome::Applied;
        if there {
            let outcome = if message.is_some() { Outcome::Skipped } else { outcome };
            results.push(Derived { feature: computed.feature.clone(), outcome, value, message });
        }
    }
    if !missing.is_empty() {
        return Err(Undecided::NeedsEmbeddings(missing));
    }
    // What is wrong with the write itself comes first: sending it again would not help.
    match unavailable {
        _ if !violations.is_empty() => Err(Undecided::Failed(violations)),
        Some(reason) => Err(Undecided::Unavailable(reason)),
        None => Ok(results),
    }
}

/// A result that also fits the constraints of its feature.
pub fn evaluate(
    session: &mut dyn Evaluate,
    index: usize,
    computed: &Computed,
    inputs: &[Option<&Value>],
    entity_type: &CompiledEntityType,
) -> Result<Value, DeriveError> {
    let value = session.evaluate(index, inputs)?;
    let feature = entity_type.features.get(&computed.feature);
    let violations = feature.map(|feature| feature.violations(&value)).unwrap_or_default();
    match violations.first() {
        None => Ok(value),
        Some(first) => {
            Err(DeriveError::Failed(format!("the result of {} {}", computed.function, first.message)))
        }
    }
}
