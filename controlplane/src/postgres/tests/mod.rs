//! Real servers: every step that a group's life consists of, on PostgreSQL itself.

#![allow(clippy::unwrap_used)]

mod adoption;
mod failover;
mod members;
mod rig;
mod settings;
mod writes;
