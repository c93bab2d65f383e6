//! What a manager's processes are run as, at a node of the network.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Network;

/// PostgreSQL's programs.
pub(super) const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A command run at a node as `postgres`, which ends when the measurement does.
pub(super) fn command(under: &[String], home: &Path, program: &str) -> Command {
    let mut command = match under.split_first() {
        Some((first, rest)) => {
            let mut c = Command::new(first);
            c.args(rest);
            c.arg("setpriv");
            c
        }
        None => Command::new("setpriv"),
    };
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--pdeathsig=KILL",
        ])
        .arg(program)
        .env_clear()
        .env("PATH", format!("{BIN}:/usr/bin:/bin"))
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        // Sockets are in its home; pg_autoctl and psql would look for them where Debian has them.
        .env("PG_REGRESS_SOCK_DIR", home)
        .env("PGHOST", home)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// Starts it with its output in a file.
pub(super) fn start(mut command: Command, log: &Path) -> Result<Child> {
    let out = File::options().create(true).append(true).open(log)?;
    command
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("{} does not start", log.display()))
}

/// Runs it to its end.
pub(super) fn finish(mut command: Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!(
            "{:?}: {}{}",
            command.get_args().last().unwrap_or_default(),
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Gives a directory to `postgres`.
pub(super) fn give(dir: &Path) -> Result<()> {
    let user = nix::unistd::User::from_name("postgres")?.context("there is no user postgres")?;
    nix::unistd::chown(dir, Some(user.uid), Some(user.gid))?;
    Ok(())
}

fn command_line(pid: Pid) -> Vec<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .filter(|a| !a.is_empty())
        .collect()
}

/// `kill -9` of the postmaster at a node: the server process that has a data directory on its command line.
pub(super) fn kill_postmaster(network: &Network, node: u8) -> Result<()> {
    let all = network.processes(node)?;
    let postmaster = all.into_iter().find(|pid| {
        let args = command_line(*pid);
        let server = args.first().is_some_and(|a| a.ends_with("/postgres"));
        server && args.iter().any(|a| a == "-D")
    });
    kill(postmaster.context("no postmaster at the node")?, Signal::SIGKILL)?;
    Ok(())
}
