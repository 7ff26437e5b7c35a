//! What the server knows of itself: how fast it answers, how fresh its features are, what is wrong.
//!
//! Recording costs a request an atomic addition or two. Once a second [`Performance::settle`] moves
//! what was recorded into windows, which reports and alerts are made of; so a sample belongs to the
//! second in which it was settled, by the server's clock.

pub mod alerts;
pub mod freshness;
pub mod latency;
pub mod performance;
pub mod process;
pub mod report;
mod ring;
pub mod webhook;

pub use performance::{Kind, Performance, Tally};

/// How many names of entity types and features get labels of their own; the others are counted
/// together, or not at all, so that nobody can fill the memory by inventing names.
#[derive(Clone, Copy, Debug)]
pub struct Cardinality {
    pub entity_types: usize,
    pub features: usize,
}
