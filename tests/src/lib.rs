//! Harness for tests on real processes, and the suites that run on more than one implementation.

#[cfg(unix)]
pub mod bench;
#[cfg(unix)]
pub mod cluster;
pub mod conformance;
pub mod dbsim;
#[cfg(target_os = "linux")]
pub mod failover;
#[cfg(target_os = "linux")]
pub mod netns;
#[cfg(unix)]
pub mod postgres;
pub mod sim;
pub mod zookeeper;
