//! From what a client sent to checked events: unknown features registered, values typed and held
//! against the schema, everything that is wrong collected.

use std::borrow::Cow;

use indexmap::IndexMap;

use super::FeatureStore;
use super::error::ServiceError;
use super::registry::widens;
use crate::domain::compiled::{CompiledEntityType, CompiledFeature, SharedEntityType};
use crate::domain::draft::{FeatureEvent, Intent};
use crate::domain::given::Given;
use crate::domain::name::{EntityId, EntityType, FeatureName};
use crate::domain::schema::FeatureSchema;
use crate::domain::time::{Timestamp, Ttl};
use crate::domain::value::Value;
use crate::domain::violation::{Violation, ViolationCode};

/// One entity's write as it was sent.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub entity_id: EntityId,
    /// Names and values as they were sent, in their order.
    pub features: Vec<(Cow<'a, str>, Given<'a>)>,
    /// `None`: now.
    pub event_timestamp: Option<Timestamp>,
    /// Goes before every other ttl.
    pub ttl: Option<Ttl>,
}

/// A row that may be stored: its events, or everything that is wrong with it.
pub type CheckedRow = Result<Vec<FeatureEvent>, Vec<Violation>>;

impl FeatureStore {
    /// Checks rows of one entity type. Where they bring unknown features that may be registered,
    /// this is done first, once for all rows, and only for rows that have nothing else wrong.
    pub(super) async fn check_rows(
        &self,
        entity_type: &EntityType,
        rows: &[Row<'_>],
        now: Timestamp,
    ) -> Result<(SharedEntityType, Vec<CheckedRow>), ServiceError> {
        let known = self.registry.find_entity_type(entity_type).await?;
        if known.is_none() && !self.settings.auto_register {
            return Err(ServiceError::UnknownEntityType(entity_type.clone()));
        }
        let mut known = known;
        // A second round sees what was registered by the first; a third one what another server
        // registered otherwise at the same moment.
        for _ in 0..3 {
            let mut wanted = IndexMap::new();
            let checked =
                rows.iter().map(|row| self.check_row(known.as_deref(), row, now, &mut wanted)).collect();
            match known {
                Some(known) if wanted.is_empty() => return Ok((known, checked)),
                // Nothing in any row can be stored, and an empty type is not worth registering.
                None if wanted.is_empty() => {
                    let violations = checked.into_iter().filter_map(CheckedRow::err).flatten().collect();
                    return Err(ServiceError::ValidationFailed(violations));
                }
                _ => known = Some(self.registry.extend(entity_type, &wanted).await?),
            }
        }
        Err(ServiceError::Contention)
    }

    /// Checks one row. Features to be registered go into `wanted`; the row's events are complete
    /// only where nothing went there.
    fn check_row(
        &self,
        entity_type: Option<&CompiledEntityType>,
        row: &Row<'_>,
        now: Timestamp,
        wanted: &mut IndexMap<FeatureName, FeatureSchema>,
    ) -> CheckedRow {
        let mut violations = Vec::new();
        let mut events = Vec::with_capacity(row.features.len());
        let mut unknown = Vec::new();
        if let Some(event_timestamp) = row.event_timestamp
            && event_timestamp > now + self.settings.max_clock_skew
        {
            let message = format!(
                "the event timestamp {event_timestamp} is more than {} ahead of the server's clock, {now}",
                self.settings.max_clock_skew
            );
            violations.push(Violation::at("/event_timestamp", ViolationCode::EventInFuture, message));
        }
        if row.features.is_empty() {
            let message = "a write names at least one feature";
            violations.push(Violation::at("/features", ViolationCode::InvalidValue, message));
        }
        let may_register =
            self.settings.auto_register && !entity_type.is_some_and(CompiledEntityType::is_strict);
        for (index, (name, given)) in row.features.iter().enumerate() {
            if row.features[..index].iter().any(|(earlier, _)| earlier == name) {
                let message = format!("the feature {name:?} is given twice");
                violations.push(Violation::of_name(name, ViolationCode::DuplicateFeature, message));
                continue;
            }
            match entity_type.and_then(|entity_type| entity_type.features.get(name.as_ref())) {
                Some(feature) if entity_type.is_some_and(|of| of.computation(&feature.name).is_some()) => {
                    let message = "is computed: write its inputs instead";
                    violations.push(Violation::of_feature(
                        &feature.name,
                        ViolationCode::ComputedFeature,
                        message,
                    ));
                }
                Some(feature) => match check_known(feature, given) {
                    Checked::Event(value) => {
                        events.push(event(feature, value, row));
                    }
                    Checked::Widen(schema) => unknown.push((feature.name.clone(), *schema)),
                    Checked::Wrong(wrong) => violations.extend(wrong),
                },
                None if entity_type.is_some_and(|of| of.raw_inputs.contains_key(name.as_ref())) => {
                    let message = "is a raw input, which is not kept: give it to compute";
                    violations.push(Violation::of_name(name, ViolationCode::UnknownFeature, message));
                }
                None => match check_unknown(name, given, may_register) {
                    Ok(new) => unknown.push(new),
                    Err(violation) => violations.push(violation),
                },
            }
        }
        for (name, inferred) in unknown {
            // An earlier row of the same request may have declared it.
            match wanted.get_mut(&name) {
                Some(earlier) if *earlier == inferred || widens(&inferred, earlier) => {}
                Some(earlier) if widens(earlier, &inferred) => *earlier = inferred,
                Some(earlier) => {
                    let message = format!(
                        "an earlier row of this request makes it {}, this one {}",
                        earlier.type_name.as_str(),
                        inferred.type_name.as_str()
                    );
                    violations.push(Violation::of_feature(&name, ViolationCode::WrongType, message));
                }
                None if violations.is_empty() => {
                    wanted.insert(name, inferred);
                }
                None => {}
            }
        }
        if violations.is_empty() {
            Ok(events)
        } else {
            self.meters.refused(entity_type.map(CompiledEntityType::name), &violations);
            Err(violations)
        }
    }
}

enum Checked {
    Event(Value),
    /// An inferred int64 must first become a float64.
    Widen(Box<FeatureSchema>),
    Wrong(Vec<Violation>),
}

fn check_known(feature: &CompiledFeature, given: &Given<'_>) -> Checked {
    let wrong = match feature.check(given) {
        Ok(value) => return Checked::Event(value),
        Err(wrong) => wrong,
    };
    if feature.inferred {
        let known =
            FeatureSchema { inferred: true, ..FeatureSchema::of_type(feature.feature_type.name(), None) };
        if let Some(inferred) = given.infer().filter(|inferred| widens(&known, inferred)) {
            return Checked::Widen(Box::new(inferred));
        }
    }
    Checked::Wrong(wrong)
}

fn check_unknown(
    name: &str,
    given: &Given<'_>,
    may_register: bool,
) -> Result<(FeatureName, FeatureSchema), Violation> {
    let of_feature = |code, message: String| Violation::of_name(name, code, message);
    let parsed = FeatureName::parse(name)
        .map_err(|error| of_feature(ViolationCode::InvalidName, error.to_string()))?;
    if !may_register {
        let message = "is not in the schema, and unknown features are not registered here";
        return Err(of_feature(ViolationCode::UnknownFeature, message.to_owned()));
    }
    if let Given::Unusable(reason) = given {
        return Err(of_feature(ViolationCode::WrongType, reason.clone()));
    }
    let Some(feature_type) = given.infer_type() else {
        let message = "is not in the schema, and null tells no type: declare it, or write a value first";
        return Err(of_feature(ViolationCode::UnknownFeature, message.to_owned()));
    };
    // The value must fit what it declares itself: a number beyond float64 does not.
    given.to_value(feature_type).map_err(|error| of_feature(ViolationCode::WrongType, error.0))?;
    let inferred = FeatureSchema::inferred(feature_type);
    if inferred.dimension.is_some_and(|dimension| dimension > crate::domain::compiled::MAX_DIMENSION) {
        let message = format!("an embedding has at most {} numbers", crate::domain::compiled::MAX_DIMENSION);
        return Err(of_feature(ViolationCode::WrongType, message));
    }
    Ok((parsed, inferred))
}

fn event(feature: &CompiledFeature, value: Value, row: &Row<'_>) -> FeatureEvent {
    FeatureEvent {
        feature: feature.name.clone(),
        value: Some(value),
        event_timestamp: row.event_timestamp,
        ttl: row.ttl.unwrap_or(feature.ttl),
        history_limit: feature.history_limit,
        intent: Intent::Event,
    }
}
