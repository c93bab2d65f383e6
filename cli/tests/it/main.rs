//! hactl as its user meets it: the program itself, against nodes that are faked behind real mutual TLS.

// A test may panic, and so may what helps it.
#![allow(clippy::unwrap_used)]

mod access;
mod changes;
mod client;
mod db;
mod db_config;
mod fake;
mod follow;
mod generated;
mod golden;
mod init;
mod offline;
mod program;
mod samples;
