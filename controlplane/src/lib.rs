//! had: the daemon of each node. One mechanism for membership, election, configuration and events on ZooKeeper.
//!
//! `node.rs` is the only place that builds real adapters; everything else is given what it needs.

pub mod agent;
pub mod api;
pub mod config;
pub mod coordination;
pub mod election;
pub mod error;
pub mod guard;
pub mod logging;
pub mod master;
pub mod node;
pub mod platform;
pub mod postgres;
pub mod proxy;
pub mod registration;
pub mod security;
pub mod session;
pub mod shared;
pub mod watch;
