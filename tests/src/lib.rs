//! Harness for tests on real processes, and the suites that run on more than one implementation.

pub mod conformance;
pub mod zookeeper;
