//! How clients reach a group, with real servers and real clients: the proxy, and HAProxy with the example file.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod haproxy;
mod proxy;

use std::process::Output;
use std::time::Duration;

/// A whole test ends within this time or fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

/// Runs a command off the runtime's threads; it is killed with the test.
async fn run(command: std::process::Command) -> Output {
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output());
    ended.await.expect("it ends in time").unwrap()
}

/// What it printed; panics with what it complained about.
fn printed(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
