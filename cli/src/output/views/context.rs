//! A context of this machine, and what its endpoints answered.

use serde::Serialize;

use crate::output::table::{Cell, Tone};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// A context, as hactl shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ContextView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub spec: ContextSpec,
    /// How it stands.
    pub status: ContextStatus,
}

/// What a context is for.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextSpec {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The user's name.
    pub user: String,
    /// The role in its certificate.
    pub role: String,
    /// Endpoints in the order in which they are tried.
    pub endpoints: Vec<String>,
}

/// How a context stands.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextStatus {
    /// Whether it is the current one.
    pub current: bool,
    /// Whether it has the cluster's certificate authority.
    pub authority: bool,
    /// When its certificate expires.
    pub certificate_expires_at: Option<String>,
    /// Why it cannot be used, if so.
    pub error: Option<String>,
    #[serde(skip)]
    pub(crate) expires: i64,
}

impl View for ContextView {
    const KIND: &'static str = "context";
    const COLUMNS: &'static [Column] = &[
        col("CURRENT"),
        col("NAME"),
        col("CLUSTER"),
        col("USER"),
        col("ROLE"),
        col("AUTHORITY"),
        col("CERTIFICATE"),
        wide("CLUSTER-ID"),
        col("ENDPOINTS"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let (spec, status) = (&self.spec, &self.status);
        let endpoints = match &status.error {
            Some(error) => Cell::new(error).tone(Tone::Bad),
            None => Cell::new(spec.endpoints.join(",")),
        };
        let certificate = match status.expires {
            0 => Cell::new("-"),
            at if at < now => Cell::new("expired").tone(Tone::Bad),
            at => Cell::new(units::until(at, now)).key(at),
        };
        vec![
            if status.current {
                Cell::new("*").tone(Tone::Strong)
            } else {
                Cell::blank()
            },
            Cell::new(&self.name),
            Cell::new(&spec.cluster),
            Cell::new(&spec.user),
            Cell::new(&spec.role),
            Cell::new(if status.authority { "yes" } else { "no" }),
            certificate,
            Cell::new(&spec.cluster_id),
            endpoints,
        ]
    }
}

/// What an endpoint answered.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointView {
    /// host:port.
    pub name: String,
    /// The answer.
    pub status: EndpointStatus,
}

/// The answer of an endpoint.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Whether it answered.
    pub reachable: bool,
    /// The node behind it.
    pub node: String,
    /// Its version.
    pub version: String,
    /// Its ZooKeeper session: live, suspended, lost.
    pub session: String,
    /// The master as it knows it.
    pub master: String,
    /// As whom it knows the caller.
    pub caller: String,
    /// The caller's role.
    pub role: String,
    /// How long the answer took with the connection, milliseconds.
    pub round_trip_ms: u64,
    /// Its clock minus this machine's, milliseconds, give or take the round trip.
    pub clock_skew_ms: i64,
    /// Why it did not answer.
    pub error: Option<String>,
}

impl View for EndpointView {
    const KIND: &'static str = "endpoint";
    const COLUMNS: &'static [Column] = &[
        col("ENDPOINT"),
        col("NODE"),
        col("ANSWER"),
        col("VERSION"),
        col("SESSION"),
        col("MASTER"),
        col("YOU ARE"),
        wide("CLOCK"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: i64) -> Vec<Cell> {
        let status = &self.status;
        let answer = match &status.error {
            Some(error) => Cell::new(error).tone(Tone::Bad),
            None => Cell::new(format!("{} ms", status.round_trip_ms)).tone(Tone::Good),
        };
        let you = if status.caller.is_empty() {
            String::new()
        } else {
            format!("{} ({})", status.caller, status.role)
        };
        vec![
            Cell::new(&self.name),
            Cell::new(&status.node),
            answer.key(status.round_trip_ms),
            Cell::new(&status.version),
            Cell::new(&status.session),
            Cell::new(&status.master),
            Cell::new(you),
            Cell::new(if status.reachable {
                format!("{} ms", status.clock_skew_ms)
            } else {
                String::new()
            }),
        ]
    }
}
