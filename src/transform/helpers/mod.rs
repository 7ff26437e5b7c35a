//! The helpers: what Starlark itself lacks for making features. Each group is a namespace.

pub(super) mod category;
pub(super) mod geography;
pub(super) mod mathematics;
pub(super) mod number;
pub(super) mod text;
pub(super) mod time;
pub(super) mod vector;

use super::native::Def;

pub(super) const ALL: &[&[Def]] = &[
    mathematics::HELPERS,
    number::HELPERS,
    text::HELPERS,
    category::HELPERS,
    time::HELPERS,
    geography::HELPERS,
    vector::HELPERS,
    super::embedding::HELPERS,
];
