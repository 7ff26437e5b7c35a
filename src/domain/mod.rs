//! The rules, and nothing but the rules: no I/O, no async, no clock of its own.
//!
//! In the order data flows: a request's [`name`]s, [`time`]s and [`given`] [`value`]s are checked
//! against a [`compiled`] [`schema`], with a list of [`violation`]s where they do not fit; a [`draft`]
//! decides what a write does to what is [`record`]ed, and [`derive`] what follows from it; the
//! [`envelope`] is the form in which records are stored; a [`view`] decides what a read answers;
//! [`whole`] is how documents write counts.

pub mod compiled;
pub mod derive;
pub mod draft;
pub mod envelope;
pub mod feature_service;
pub mod given;
pub mod name;
pub mod provenance;
pub mod record;
pub mod schema;
pub mod time;
pub mod unique;
pub mod value;
mod varint;
pub mod view;
pub mod violation;
pub mod whole;

#[cfg(test)]
mod properties;
