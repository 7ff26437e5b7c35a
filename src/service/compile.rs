//! From a schema document to an entity type that is ready for use.

use crate::domain::compiled::{CompiledEntityType, Defaults};
use crate::domain::schema::RegisteredEntityType;
use crate::domain::violation::Violation;

/// Checks the whole document; the error lists everything that is wrong with it.
pub fn compile(
    registered: RegisteredEntityType,
    defaults: &Defaults,
) -> Result<CompiledEntityType, Vec<Violation>> {
    CompiledEntityType::compile(registered, defaults, None)
}
