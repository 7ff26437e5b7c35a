//! From a schema document to an entity type that is ready for use.

use std::sync::Arc;

use super::lane::Paced;
use crate::domain::compiled::{CompiledEntityType, Defaults};
use crate::domain::derive::Derivations;
use crate::domain::schema::{EntityTypeSchema, RegisteredEntityType};
use crate::domain::violation::Violation;
use crate::transform::{Functions, compile_entity_type};

/// Checks the whole document, its functions too; the error lists everything that is wrong with it.
pub fn compile(
    registered: RegisteredEntityType,
    defaults: &Defaults,
) -> Result<CompiledEntityType, Vec<Violation>> {
    let (derivations, mut wrong) = match functions(&registered.schema) {
        Ok(functions) => (functions, Vec::new()),
        Err(violations) => (None, violations),
    };
    match CompiledEntityType::compile(registered, defaults, derivations) {
        Ok(compiled) if wrong.is_empty() => Ok(compiled),
        Ok(_) => Err(wrong),
        Err(violations) => {
            wrong.extend(violations);
            Err(wrong)
        }
    }
}

fn functions(schema: &EntityTypeSchema) -> Result<Option<Arc<dyn Derivations>>, Vec<Violation>> {
    let computes = schema.features.values().any(|feature| feature.computed.is_some());
    if !computes && schema.transformations.is_empty() && schema.tests.is_empty() {
        return Ok(None);
    }
    let transformations = compile_entity_type(schema)?;
    let functions =
        || Arc::new(Paced::new(Arc::new(Functions::new(transformations)))) as Arc<dyn Derivations>;
    Ok(computes.then(functions))
}
