//! The model of a cluster and every decision about it.
//!
//! Nothing in this crate performs I/O, reads a clock or draws a random number: each decision is a total function of its
//! arguments and says why it decided so. That is what lets the simulation replay a run from a seed.

pub mod access;
pub mod alert;
pub mod changes;
pub mod database;
pub mod election;
pub mod lease;
pub mod membership;
pub mod model;
pub mod nodes;
pub mod refusal;

pub use model::*;
