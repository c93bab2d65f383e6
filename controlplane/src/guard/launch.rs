//! How the daemon starts a guard: by systemd where the daemon is a service, for what a service starts itself ends with it;
//! else as a process that leaves the daemon's session at once.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::client::Options;
use crate::platform::guard::{detached, program, supervised};
use crate::platform::service;

/// A start that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(15);

/// Starts the group's guard; it serves when this returns. One that runs already does no harm: the new one ends.
///
/// # Errors
/// What went wrong, for people.
pub(super) async fn launch(options: &Options) -> Result<(), String> {
    let (mut command, what) = match supervised(&options.group) {
        Some(unit) => {
            let mut command = Command::new("systemctl");
            command.args(["--no-ask-password", "start", &unit]);
            (command, format!("systemctl start {unit}"))
        }
        None => {
            let program = match &options.program {
                Some(program) => program.clone(),
                None => program().map_err(|e| format!("this program's file is not known: {e}"))?,
            };
            let mut command = detached(&program);
            command.args(["guard", &options.group, "--detach", "--state-dir"]);
            command.arg(&options.state_dir);
            if !options.cgroups {
                command.arg("--no-cgroup");
            }
            (command, format!("{} guard {}", program.display(), options.group))
        }
    };
    for name in service::PRIVATE_ENVIRONMENT {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let out = ended
        .map_err(|_| format!("{what} took longer than {} s", LIMIT.as_secs()))?
        .map_err(|e| format!("{what}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(format!("{what}: {}", words.chars().take(400).collect::<String>()))
}
