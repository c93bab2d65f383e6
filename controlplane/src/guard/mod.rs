//! The guard: the small process that is the postmaster's parent and stops it when its lease runs out (protocol R9 to R12).
//!
//! A process of its own, so that a daemon that is killed, restarted or upgraded leaves the database serving, and one that
//! hangs or is cut off leaves it stopped. It keeps deadlines, and nothing else: no ZooKeeper, no TLS, no decisions. While
//! something runs it must touch no disk and wait for nobody; it starts nothing but by a new order (protocol R10), and it
//! never calls a tree empty that is not.
//!
//! **With a lease, or without.** A primary is started with a deadline, which the daemon moves on with each acknowledged
//! heartbeat. A standby needs none: what it may acknowledge is decided by its seal, not by a clock, and a coordinator that
//! is lost must not stop it. Before it is promoted it is *armed*, and from then on its deadline holds until its tree is
//! empty: nothing takes it back, an aborted promotion included (the daemon may restart it as a standby). Where the
//! coordinator is lost, deadlines come from grants (protocol R13); the guard sees no difference.
//!
//! **Who is heard.** The daemon that has the token of the node's state directory, the newest run of it; an older run that
//! wakes up late is refused.

mod answer;
mod client;
mod launch;
mod machine;
mod record;
mod serve;
mod wire;

use std::path::{Path, PathBuf};

pub use client::{Client, GuardError, Notice, Options, View};
pub use machine::{Cause, FURTHEST, KILL_AFTER, QUIT_BEFORE};
pub use serve::{How, run};
pub use wire::{Event, Proof, Refusal, Start, State, Status, Stop};

pub use crate::platform::guard::{Exit, RunAs};

/// Where the guard of a group keeps its record and its socket.
pub fn directory(state_dir: &Path, group: &str) -> PathBuf {
    state_dir.join("guards").join(group)
}
