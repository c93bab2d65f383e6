//! hactl as its user meets it: the program itself, against nodes that are faked behind real mutual TLS.

mod access;
mod changes;
mod client;
mod fake;
mod follow;
mod generated;
mod golden;
mod init;
mod offline;
mod program;
mod samples;
