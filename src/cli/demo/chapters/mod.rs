//! The walk, in the order of its telling. Each chapter builds on what the ones before it left in
//! the store; the product 123 is the one that the walk writes by hand.

mod computation;
mod event_time;
mod history;
mod operations;
mod reads;
mod registry;
mod writes;

use super::walk::Walk;

pub async fn all(walk: &mut Walk) -> Result<(), String> {
    registry::schemas(walk).await?;
    writes::writes(walk).await?;
    computation::computation(walk).await?;
    reads::reads(walk).await?;
    registry::feature_services(walk).await?;
    event_time::event_time(walk).await?;
    history::history(walk).await?;
    history::rollback(walk).await?;
    operations::operations(walk).await
}
