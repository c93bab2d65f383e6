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
pub mod session;
pub mod sim;
pub mod zookeeper;

/// Says that a test was not made, where the test runner does not swallow it.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {test}: {why}");
}
