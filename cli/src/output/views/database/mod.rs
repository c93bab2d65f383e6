//! A database group: its record beside what its instances report, its changes of primary, its configuration.

pub mod config;
pub mod explanation;
pub mod group;
pub mod history;
pub mod instance;
pub mod spec;

pub use group::GroupView;
