//! `had.toml`, the daemon's own settings on one machine. What concerns the whole cluster is in the cluster, never here.
//!
//! A setting that cannot be used ends the start with HA0801 and the key's name: a daemon must not run with less than it was
//! told, for instance without one of its hooks.

mod check;
mod file;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_proto::codes;

use crate::error::ApiError;
use crate::{platform, proxy};

/// Everything that can be set, with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's bundle.
    pub bundle: PathBuf,
    /// Where the daemon keeps what must outlive it.
    pub state_dir: PathBuf,
    /// Where it listens; by default on all addresses, at the port of the bundle's endpoint.
    pub grpc_listen: Option<SocketAddr>,
    /// Where health and metrics are served.
    pub http_listen: SocketAddr,
    /// gRPC endpoint as the others reach it, host:port; by default the bundle's.
    pub grpc_advertise: Option<String>,
    /// HTTP endpoint as others reach it; by default the gRPC endpoint's host and the port that is listened on.
    pub http_advertise: Option<String>,
    /// What is logged.
    pub log: Log,
    /// How often the node reports to the master; it also does at each change.
    pub report_interval: Duration,
    /// The file system whose size and use are reported; by default the state directory's.
    pub measure_disk: Option<PathBuf>,
    /// PostgreSQL on this machine.
    pub postgres: Postgres,
    /// The proxy in front of database groups.
    pub proxy: proxy::Settings,
    /// Commands that run at changes.
    pub on_change: Vec<Hook>,
}

/// PostgreSQL on this machine: where it is, whom it runs as, where instances lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Whom it runs as where the daemon is root; by default `postgres`.
    pub run_as: Option<String>,
    /// Its programs; by default where distributions put them.
    pub bin_dir: Option<PathBuf>,
    /// What belongs to instances, a directory a group; by default below the state directory.
    pub data_root: Option<PathBuf>,
    /// The sockets that the daemon connects through, a directory a group; by default below the data root.
    pub socket_dir: Option<PathBuf>,
    /// Where instances listen.
    pub listen: IpAddr,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            run_as: None,
            bin_dir: None,
            data_root: None,
            socket_dir: None,
            listen: IpAddr::from([0, 0, 0, 0]),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least important that is logged.
    pub level: Level,
    /// Its form.
    pub format: Format,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// A command that runs at changes of the cluster, in their order, at least once each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Names it in logs and in its place in the log of changes.
    pub name: String,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Beginnings of the kinds of changes it wants; empty: all.
    pub kinds: Vec<String>,
    /// How long one run may take.
    pub timeout: Duration,
    /// How often a failed run is repeated before the change is skipped.
    pub retries: u32,
    /// Added to the environment of the command.
    pub environment: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bundle: platform::default_bundle(),
            state_dir: platform::default_state_dir(),
            grpc_listen: None,
            http_listen: SocketAddr::from(([0, 0, 0, 0], 7401)),
            grpc_advertise: None,
            http_advertise: None,
            log: Log {
                level: Level::Info,
                format: Format::Text,
            },
            report_interval: Duration::from_millis(500),
            measure_disk: None,
            postgres: Postgres::default(),
            proxy: proxy::Settings::default(),
            on_change: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the configuration. Without a name, the default file is read if it exists.
    ///
    /// # Errors
    /// [`codes::BAD_CONFIG`], naming the file, the line and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, ApiError> {
        let default = platform::default_config();
        let file = path.unwrap_or(&default);
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, &file.display().to_string()),
            Err(e) if path.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => {
                Err(ApiError::new(&codes::BAD_CONFIG, format!("{} cannot be read", file.display())).why(e.to_string()))
            }
        }
    }

    /// Reads a configuration's text; `file` is its name in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &str) -> Result<Self, ApiError> {
        file::parse(text).and_then(check::checked).map_err(|p| {
            let place = match p.line {
                Some(line) => format!("{file}, line {line}"),
                None => file.to_owned(),
            };
            let message = if p.key.is_empty() {
                place
            } else {
                format!("{place}: {}", p.key)
            };
            ApiError::new(&codes::BAD_CONFIG, message).why(p.why)
        })
    }

    /// Where instances of PostgreSQL lie.
    pub fn postgres_roots(&self) -> crate::postgres::place::Roots {
        let root = self.postgres.data_root.clone();
        crate::postgres::place::Roots {
            data: root.unwrap_or_else(|| self.state_dir.join("postgres")),
            sockets: self.postgres.socket_dir.clone(),
            state: self.state_dir.clone(),
        }
    }

    /// Where gRPC is listened on, given the endpoint in the bundle.
    ///
    /// # Errors
    /// [`codes::BAD_BUNDLE`] if that has no port.
    pub fn grpc_listen(&self, endpoint: &str) -> Result<SocketAddr, ApiError> {
        if let Some(address) = self.grpc_listen {
            return Ok(address);
        }
        let port = endpoint.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
        let port: u16 = port.ok_or_else(|| {
            ApiError::new(
                &codes::BAD_BUNDLE,
                format!("{}: its endpoint has no port", self.bundle.display()),
            )
            .why(format!("it says {endpoint:?}, and HOST:PORT is wanted"))
        })?;
        let everywhere: std::net::IpAddr = if endpoint.starts_with('[') {
            [0u16; 8].into()
        } else {
            [0u8; 4].into()
        };
        Ok(SocketAddr::new(everywhere, port))
    }

    /// The endpoints as others reach them, gRPC and HTTP, given the one in the bundle and the port that HTTP got.
    pub fn advertised(&self, endpoint: &str, http_port: u16) -> (String, String) {
        let grpc = self.grpc_advertise.clone().unwrap_or_else(|| endpoint.to_owned());
        let host = grpc.rsplit_once(':').map_or(grpc.as_str(), |(host, _)| host);
        let http = self
            .http_advertise
            .clone()
            .unwrap_or_else(|| format!("{host}:{http_port}"));
        (grpc, http)
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: Option<usize>,
    key: String,
    why: String,
}

#[cfg(test)]
mod tests;
