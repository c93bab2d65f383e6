//! Real servers: every step that a group's life consists of, on PostgreSQL itself.

mod adoption;
mod failover;
mod members;
mod rig;
mod settings;
mod writes;
