//! How the guard is to start the postmaster: program, arguments, environment. Nothing is started here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ha_core::database::Names;

use super::adopt::DEBIAN;
use super::command::environment;
use super::conf::{self, Settings};
use super::error::{PgError, Result};
use super::instance::{Found, Instance};
use crate::platform::{Account, working_dir};

/// A postmaster to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPlan {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments. On disk the server listens nowhere; where it does stands here alone (protocol R11).
    pub args: Vec<String>,
    /// All of its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory; it leaves it for the data directory.
    pub cwd: PathBuf,
    /// Whom it runs as.
    pub account: Account,
    /// Where what it says before its own log is open is appended.
    pub log: PathBuf,
}

impl Instance {
    /// Writes the configuration, closed whatever the settings say (protocol R5), and says how to start the server. A cluster
    /// that ran without had is taken over first, see [`Instance::adopt`].
    /// `listen` are the addresses that it listens on besides the socket.
    ///
    /// # Errors
    /// [`PgError::Refused`] if the directory is not whole or an address is malformed; [`PgError::Files`].
    pub async fn plan_start(&self, settings: &Settings, standby: bool, listen: &[String]) -> Result<StartPlan> {
        match self.inspect().await? {
            Found::Cluster { .. } => {}
            other => {
                return Err(PgError::refused(
                    format!("a start in {}", self.place.data.display()),
                    format!("there is nothing to start: {other:?}"),
                ));
            }
        }
        self.must_be_stopped("a start")?;
        if !self.is_adopted().await? {
            let adopted = self.adopt(None, settings, Path::new(DEBIAN)).await?;
            tracing::info!(
                data = %self.place.data.display(), left_behind = ?adopted.left.keys(), lines_left = ?adopted.hba_left,
                "an existing cluster is taken over with {} parameters and {} lines of pg_hba.conf",
                adopted.parameters.len(), adopted.hba.len()
            );
        }
        let plain = |a: &&String| a.chars().all(|c| c.is_ascii_alphanumeric() || ".:-_*".contains(c)) && !a.is_empty();
        if let Some(bad) = listen.iter().find(|a| !plain(a)) {
            return Err(PgError::refused(format!("address {bad:?}"), "it cannot be listened on"));
        }
        let closed = Settings {
            names: Names::Closed,
            ..settings.clone()
        };
        self.configure(&closed).await?;
        conf::set_standby(&self.place, &self.account, standby).await?;
        self.remove_stale_pid_file();
        let set = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
        let data = self.place.data.display().to_string();
        let mut args = vec!["-D".to_owned(), data];
        args.extend(set("config_file", &conf::run_file(&self.place).display().to_string()));
        args.extend(set("listen_addresses", &listen.join(",")));
        args.extend(set(
            "unix_socket_directories",
            &quoted_in_list(&self.place.socket_dir.display().to_string()),
        ));
        let text = |v: std::ffi::OsString| v.to_string_lossy().into_owned();
        let mut env: BTreeMap<String, String> = environment(&self.account)
            .into_iter()
            .map(|(k, v)| (k.to_owned(), text(v)))
            .collect();
        // For archive commands and the like.
        env.insert(
            "PATH".into(),
            "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".into(),
        );
        Ok(StartPlan {
            program: self.install.program("postgres"),
            args,
            env,
            cwd: "/".into(),
            account: self.account.clone(),
            log: self.place.start_log(),
        })
    }

    /// A pid file whose number belongs to some other process by now would keep the server from starting.
    fn remove_stale_pid_file(&self) {
        let path = self.place.data.join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&path) else {
            return;
        };
        let pid = text.lines().next().and_then(|l| l.trim().parse::<u32>().ok());
        // Only with proof: the process is there, and it works elsewhere.
        let elsewhere = pid
            .and_then(working_dir)
            .is_some_and(|dir| !dir.starts_with(&self.place.data));
        if elsewhere && let Err(e) = std::fs::remove_file(&path) {
            tracing::warn!(file = %path.display(), "left over: {e}");
        }
    }
}

/// A directory in a list of directories.
fn quoted_in_list(dir: &str) -> String {
    format!("\"{}\"", dir.replace('"', "\"\""))
}
