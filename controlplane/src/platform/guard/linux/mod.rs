//! The guard on Linux.

mod cgroup;
mod port;
mod proc;
mod setup;
mod spawn;
mod tree;

pub(crate) use port::{Link, Port, connect};
pub(crate) use setup::{detach, detached, prepare, program, supervised};
pub(crate) use tree::Tree;
