//! The guard as a process: what it stops, what it leaves alone, and what it may call stopped. Linux only.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod deadlines;
mod listening;
mod outliving;
mod postgres;
mod rig;
mod stopping;
