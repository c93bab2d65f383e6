//! The envelope of every JSON and YAML document: what it is, of which cluster, how fresh. Only ever added to.

use serde::Serialize;

use super::{API_VERSION, units};

/// What is known of an answer as a whole.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// The cluster's name; empty where there is none.
    pub cluster: String,
    /// The cluster's revision; 0 where there is none.
    pub revision: u64,
    /// When the master saw it so; 0: just now, here.
    pub observed_unix_ms: i64,
    /// Whether it may be older than it should be.
    pub stale: bool,
    /// What to know about the answer.
    pub warnings: Vec<String>,
}

impl Meta {
    /// An answer of this cluster.
    pub fn of(cluster: &str, revision: u64, observed_unix_ms: i64) -> Self {
        Self {
            cluster: cluster.to_owned(),
            revision,
            observed_unix_ms,
            ..Self::default()
        }
    }

    /// An answer of this machine alone.
    pub fn local() -> Self {
        Self::default()
    }
}

/// A document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<T> {
    api_version: &'static str,
    kind: &'static str,
    cluster: Option<String>,
    revision: Option<u64>,
    observed_at: String,
    stale: bool,
    warnings: Vec<String>,
    #[serde(flatten)]
    body: T,
}

impl<T> Document<T> {
    /// A document of this kind.
    pub fn new(kind: &'static str, meta: &Meta, body: T) -> Self {
        let observed = match meta.observed_unix_ms {
            0 => crate::names::now_ms(),
            at => at,
        };
        Self {
            api_version: API_VERSION,
            kind,
            cluster: Some(meta.cluster.clone()).filter(|c| !c.is_empty()),
            revision: Some(meta.revision).filter(|r| *r > 0),
            observed_at: units::rfc3339(observed),
            stale: meta.stale,
            warnings: meta.warnings.clone(),
            body,
        }
    }
}

/// The body of a list.
#[derive(Debug, Serialize)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
}
