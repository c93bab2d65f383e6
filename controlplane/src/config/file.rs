//! The form of `had.toml`: tables and keys, and where an error in it lies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Format, Level, Problem};

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) bundle: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) listen: Listen,
    #[serde(default)]
    pub(super) advertise: Advertise,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) report: Report,
    #[serde(default)]
    pub(super) measure: Measure,
    #[serde(default)]
    pub(super) postgres: Postgres,
    #[serde(default)]
    pub(super) proxy: Proxy,
    #[serde(default)]
    pub(super) on_change: Vec<OnChange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) grpc: Option<String>,
    pub(super) http: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Advertise {
    pub(super) grpc: Option<String>,
    pub(super) http: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<Level>,
    pub(super) format: Option<Format>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    pub(super) interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measure {
    pub(super) disk: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    pub(super) run_as: Option<String>,
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) data_root: Option<PathBuf>,
    pub(super) socket_dir: Option<PathBuf>,
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proxy {
    pub(super) enabled: Option<bool>,
    pub(super) listen: Option<String>,
    pub(super) max_connections: Option<usize>,
    pub(super) threads: Option<usize>,
    #[serde(default)]
    pub(super) proxy_protocol_from: Vec<String>,
    #[serde(default)]
    pub(super) ports: BTreeMap<String, ProxyPorts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyPorts {
    pub(super) primary: Option<u16>,
    pub(super) standbys: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnChange {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) kinds: Vec<String>,
    pub(super) timeout: Option<String>,
    pub(super) retries: Option<u32>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
}

/// Reads the text.
pub(super) fn parse(text: &str) -> Result<File, Problem> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map(|s| s.start.min(text.len()));
        let line = at.map(|at| text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1);
        // The parser's own words are good, but have a line's end after each thought.
        let why = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
        Problem {
            key: line.map(|l| key_at(text, l, &why)).unwrap_or_default(),
            line,
            why,
        }
    })
}

/// The key on a line, with the table it stands in.
fn key_at(text: &str, line: usize, why: &str) -> String {
    let mut table = String::new();
    let mut key = String::new();
    for l in text.lines().take(line) {
        let l = l.trim();
        if let Some(header) = l
            .strip_prefix('[')
            .and_then(|h| h.split(']').next())
            .filter(|h| is_key(h.trim_matches('[')))
        {
            table = header.trim_matches('[').trim().to_owned();
            key.clear();
        } else if let Some((k, _)) = l.split_once('=').filter(|(k, _)| is_key(k.trim())) {
            key = k.trim().to_owned();
        }
    }
    // A key that is missing belongs to the table whose head the parser points at.
    if let Some(missing) = why.strip_prefix("missing field `").and_then(|r| r.split('`').next()) {
        key = missing.to_owned();
    }
    match (table.is_empty(), key.is_empty()) {
        (true, _) => key,
        (false, true) => table,
        (false, false) => format!("{table}.{key}"),
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._- ".contains(c))
}
