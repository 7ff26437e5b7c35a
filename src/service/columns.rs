//! The features that a request speaks of, found in the schema: what to load for them, and how the
//! ones that are computed when they are read follow from it.

use std::sync::Arc;

use crate::domain::compiled::{CompiledFeature, SharedEntityType};
use crate::domain::derive::{Computed, DeriveError, Evaluate, Source, evaluate};
use crate::domain::given::Given;
use crate::domain::name::FeatureName;
use crate::domain::value::{FeatureType, Value};
use crate::domain::view::{Answer, Status, of_value};
use crate::domain::violation::Violation;
use crate::store::cache::Fields;

/// Named values that come with a request.
pub type Named = Vec<(Arc<str>, Value)>;

/// What a read request brings to the functions that run on it.
#[derive(Clone, Debug)]
pub struct Request {
    pub context: Named,
    /// A timestamp.
    pub now: Value,
}

/// The features that a request asks for, in its order.
#[derive(Clone, Debug)]
pub struct Columns {
    pub entity_type: SharedEntityType,
    /// Places in the schema's list of features.
    places: Vec<usize>,
    /// What the store is asked for.
    fields: Fields,
    /// `None` where every column is stored, and then `fields` are the columns.
    on_read: Option<OnRead>,
    /// Whether the schema says of any column how old its value may be.
    has_max_age: bool,
}

/// How columns that are not all stored are put together.
#[derive(Clone, Debug)]
struct OnRead {
    /// What to evaluate, in this order, by place among the type's computed features.
    steps: Vec<usize>,
    /// Where each column is found.
    columns: Vec<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Among the fields.
    Field(usize),
    /// Among the results of the steps.
    Step(usize),
}

impl Columns {
    /// `places` are those of the schema's list of features.
    pub fn new(entity_type: SharedEntityType, places: Vec<usize>) -> Self {
        let computed = entity_type.computed();
        let at = |name: &FeatureName| computed.iter().position(|c| c.on_read && c.feature == *name);
        let mut steps: Vec<usize> = Vec::new();
        let mut fields: Vec<FeatureName> = Vec::with_capacity(places.len());
        let mut todo: Vec<FeatureName> =
            places.iter().rev().map(|place| entity_type.features[*place].name.clone()).collect();
        if !computed.iter().any(|computed| computed.on_read) {
            fields = todo.drain(..).rev().collect();
        }
        while let Some(name) = todo.pop() {
            match at(&name) {
                None if fields.contains(&name) => {}
                None => fields.push(name),
                Some(step) if steps.contains(&step) => {}
                Some(step) => {
                    steps.push(step);
                    todo.extend(computed[step].inputs.iter().filter_map(|input| match &input.source {
                        Source::Feature(name) => Some(name.clone()),
                        Source::Raw(_) | Source::Context(_) | Source::Now => None,
                    }));
                }
            }
        }
        // The type's computed features stand in the order of their dependencies.
        steps.sort_unstable();
        let on_read = (!steps.is_empty()).then(|| {
            let find = |place: &usize| {
                let name = &entity_type.features[*place].name;
                let field = fields.iter().position(|field| field == name).map(Place::Field);
                let step = || steps.iter().position(|step| computed[*step].feature == *name).map(Place::Step);
                // Every column was sorted into one of the two above.
                field.or_else(step).unwrap_or(Place::Field(0))
            };
            OnRead { columns: places.iter().map(find).collect(), steps: steps.clone() }
        });
        let typed = |name: FeatureName| {
            let feature_type = entity_type.features.get(&name).map_or(FeatureType::Json, |f| f.feature_type);
            (name, feature_type)
        };
        let fields = fields.into_iter().map(typed).collect();
        let has_max_age = places.iter().any(|place| entity_type.features[*place].max_age.is_some());
        Self { entity_type, places, fields, on_read, has_max_age }
    }

    /// Without the features that follow from others, which nobody can write.
    pub fn stored_only(&self) -> Self {
        let written = |place: &usize| {
            let computation = self.entity_type.computation(&self.entity_type.features[*place].name);
            computation.is_none_or(Computed::takes_raw)
        };
        let places = self.places.iter().copied().filter(written).collect();
        Self::new(self.entity_type.clone(), places)
    }

    /// Without the features that are computed when they are read, which have no history.
    pub fn kept_only(&self) -> Self {
        let kept = |place: &usize| {
            let computation = self.entity_type.computation(&self.entity_type.features[*place].name);
            computation.is_none_or(|computed| !computed.on_read)
        };
        let places = self.places.iter().copied().filter(kept).collect();
        Self::new(self.entity_type.clone(), places)
    }

    /// Places in the schema's list of features.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.places.len()
    }

    pub fn names(&self) -> impl ExactSizeIterator<Item = &FeatureName> {
        self.features().map(|feature| &feature.name)
    }

    pub fn features(&self) -> impl ExactSizeIterator<Item = &CompiledFeature> {
        self.places.iter().map(|place| &self.entity_type.features[*place])
    }

    pub fn feature(&self, column: usize) -> Option<&CompiledFeature> {
        self.places.get(column).map(|place| &self.entity_type.features[*place])
    }

    /// Whether the schema says of any column how old its value may be.
    pub fn has_max_age(&self) -> bool {
        self.has_max_age
    }

    /// What the store is asked for.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The schemas of what the store is asked for.
    pub fn field_features(&self) -> impl Iterator<Item = &CompiledFeature> {
        self.fields.iter().filter_map(|(name, _)| self.entity_type.features.get(name))
    }

    pub fn is_computed_on_read(&self) -> bool {
        self.on_read.is_some()
    }

    /// A request's context with each value of the type that the schema declares of it.
    pub fn typed(&self, context: Named) -> Result<Named, Vec<Violation>> {
        let (mut typed, mut violations) = (Named::with_capacity(context.len()), Vec::new());
        for (name, value) in context {
            match self.entity_type.raw_inputs.get(&*name).map(|raw| raw.check(&Given::Typed(value.clone()))) {
                Some(Ok(value)) => typed.push((name, value)),
                Some(Err(wrong)) => violations.extend(wrong),
                None => typed.push((name, value)),
            }
        }
        if violations.is_empty() { Ok(typed) } else { Err(violations) }
    }

    /// From the answers of the fields to those of the columns.
    pub fn complete(
        &self,
        fields: Vec<Answer>,
        request: &Request,
        session: &mut dyn Evaluate,
    ) -> Result<Vec<Answer>, (FeatureName, DeriveError)> {
        let Some(on_read) = &self.on_read else { return Ok(fields) };
        let computed = self.entity_type.computed();
        let mut results: Vec<Answer> = Vec::with_capacity(on_read.steps.len());
        for index in &on_read.steps {
            let step = &computed[*index];
            let find = |name: &FeatureName| {
                let field = self.fields.iter().position(|(field, _)| field == name).map(|at| &fields[at]);
                field.or_else(|| {
                    let done = on_read.steps.iter().zip(&results);
                    done.map(|(step, answer)| (&computed[*step], answer))
                        .find(|(step, _)| step.feature == *name)
                        .map(|(_, answer)| answer)
                })
            };
            let answer = self.step(*index, step, request, &find, session);
            results.push(answer.map_err(|error| (step.feature.clone(), error))?);
        }
        let pick = |place: &Place| match place {
            Place::Field(at) => fields[*at].clone(),
            Place::Step(at) => results[*at].clone(),
        };
        Ok(on_read.columns.iter().map(pick).collect())
    }

    fn step<'a>(
        &self,
        index: usize,
        step: &Computed,
        request: &'a Request,
        find: &dyn Fn(&FeatureName) -> Option<&'a Answer>,
        session: &mut dyn Evaluate,
    ) -> Result<Answer, DeriveError> {
        let mut expired = false;
        let inputs: Vec<Option<&Value>> = step
            .inputs
            .iter()
            .map(|input| match &input.source {
                Source::Feature(name) => find(name).and_then(|answer| {
                    expired |= answer.status == Status::Expired;
                    let served = matches!(
                        answer.status,
                        Status::Present | Status::Stale | Status::Null | Status::Defaulted
                    );
                    served.then_some(&answer.value)
                }),
                Source::Context(name) => {
                    request.context.iter().find(|(other, _)| other == name).map(|(_, value)| value)
                }
                Source::Now => Some(&request.now),
                Source::Raw(_) => None,
            })
            .collect();
        let complete =
            inputs.iter().zip(&step.inputs).all(|(value, input)| value.is_some() || input.optional);
        let Some(feature) = self.entity_type.features.get(&step.feature) else {
            return Err(DeriveError::Failed("is not in the schema".to_owned()));
        };
        if !complete {
            return Ok(of_value(feature, None, expired));
        }
        match evaluate(session, index, step, &inputs, &self.entity_type) {
            Ok(value) => Ok(of_value(feature, Some(value), false)),
            Err(DeriveError::Failed(_) | DeriveError::Unavailable(_)) if step.skip_errors => {
                Ok(of_value(feature, None, false))
            }
            Err(error) => Err(error),
        }
    }
}
