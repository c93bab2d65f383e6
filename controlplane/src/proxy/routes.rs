//! Where each group's clients belong, as this node knows it: what the proxy and the endpoints follow.
//!
//! Whoever follows the groups' records writes it, the proxy and the endpoints read it. Nothing here decides who is primary;
//! it only says which server a client may be led to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Every group's routes, live. What was known last stays valid while ZooKeeper is away.
pub type RoutesRx = watch::Receiver<Arc<Routes>>;

/// The port where a group's clients find its primary, unless its specification says otherwise.
pub const PRIMARY_PORT: u16 = 5000;
/// The port where they find its standbys.
pub const STANDBY_PORT: u16 = 5001;
/// How long a client waits for a server, unless the group's specification says otherwise.
pub const WAIT: Duration = Duration::from_secs(30);

/// The groups that this node leads clients to, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// A group that is not here is not served: its ports are closed and its connections cut.
    pub groups: BTreeMap<String, Table>,
}

/// One group: from its record and specification, and for standbys from what the master last observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The record's epoch.
    pub epoch: u64,
    /// Whether the record's phase is steady. While it is not, new connections wait; those to a primary that is still the
    /// record's stay.
    pub steady: bool,
    /// The record's timeline; 0: not known.
    pub timeline: u32,
    /// The record's primary, in every phase.
    pub primary: Option<Server>,
    /// Every other instance.
    pub standbys: Vec<Standby>,
    /// Where clients come in.
    pub ports: Ports,
    /// How long a new connection waits for a server before it is refused.
    pub wait: Duration,
    /// How far behind a standby may be, in bytes, to be given new connections; none: any distance.
    pub max_lag: Option<u64>,
    /// Whether the standby port leads to the primary while no standby is fit.
    pub fall_back: bool,
    /// Whether the group is paused.
    pub paused: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            epoch: 0,
            steady: false,
            timeline: 0,
            primary: None,
            standbys: Vec::new(),
            ports: Ports::default(),
            wait: WAIT,
            max_lag: None,
            fall_back: false,
            paused: false,
        }
    }
}

/// The ports of a group on every node; none: not served there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Leads to the primary.
    pub primary: Option<u16>,
    /// Leads to the standbys.
    pub standbys: Option<u16>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            primary: Some(PRIMARY_PORT),
            standbys: Some(STANDBY_PORT),
        }
    }
}

/// One PostgreSQL server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Its node.
    pub node: String,
    /// Where it takes connections, host:port.
    pub address: String,
    /// Its node's HTTP endpoint, host:port; empty: not known.
    pub http: String,
    /// What an operator tagged it with.
    pub tags: BTreeMap<String, String>,
}

/// An instance that is not the primary, as it was last observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standby {
    /// The server.
    pub server: Server,
    /// What it does.
    pub state: StandbyState,
    /// The timeline it follows; 0: not known.
    pub timeline: u32,
    /// Bytes its replay is behind the primary; none: not known.
    pub lag: Option<u64>,
    /// Last WAL position received and replayed; 0: not known.
    pub received: u64,
    /// See `received`.
    pub replayed: u64,
    /// How commits wait for it.
    pub sync: Sync,
}

/// What a standby does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StandbyState {
    /// It is up and streams from the primary.
    Streaming,
    /// It is up and answers queries, but it does not stream: it catches up from elsewhere, or waits for the new primary.
    Running,
    /// It starts, is copied or rewound: it takes no clients yet.
    Preparing,
    /// It is down, or nothing is known of it. Connections to it are cut.
    #[default]
    Down,
}

/// How commits wait for a standby.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sync {
    /// Not at all.
    #[default]
    Async,
    /// It is one of the voters, any `need` of which are waited for.
    Quorum,
    /// Always for this one.
    Sync,
}

/// Which of a group's two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// To the primary.
    Primary,
    /// To the standbys.
    Standbys,
}

impl Way {
    /// As metrics and logs name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standbys => "standbys",
        }
    }
}

impl Table {
    /// The servers a new connection may be led to now; empty: it is to wait.
    pub fn targets(&self, way: Way) -> Vec<&Server> {
        let primary = self.primary.iter().filter(|_| self.steady);
        match way {
            Way::Primary => primary.collect(),
            Way::Standbys => {
                let fit: Vec<_> = self.fit().map(|s| &s.server).collect();
                if fit.is_empty() && self.fall_back {
                    primary.collect()
                } else {
                    fit
                }
            }
        }
    }

    /// Whether an established connection to this server may go on. `timeline` is the one its server had then; 0: unknown.
    ///
    /// A connection to the primary goes on while the record names that server, in whatever phase: only its successor's
    /// choice makes it a former primary. One to a standby is not cut for being behind, which would drive all its clients
    /// to and fro; it is when the server is gone, and when it became the primary while others can take over.
    pub fn may_stay(&self, way: Way, node: &str, address: &str, timeline: u32) -> bool {
        let is_it = |s: &Server| s.node == node && s.address == address;
        let is_primary = self.primary.as_ref().is_some_and(is_it);
        match way {
            Way::Primary => {
                let promoted_since = self.steady && timeline != 0 && self.timeline > timeline;
                self.primary.is_none() || is_primary && !promoted_since
            }
            Way::Standbys if is_primary => self.fall_back || self.fit().next().is_none(),
            Way::Standbys => self
                .standbys
                .iter()
                .any(|s| is_it(&s.server) && !matches!(s.state, StandbyState::Down | StandbyState::Preparing)),
        }
    }

    /// Standbys that may be given new connections.
    fn fit(&self) -> impl Iterator<Item = &Standby> {
        self.standbys.iter().filter(|s| {
            let is_primary = |p: &Server| p.node == s.server.node && p.address == s.server.address;
            s.state == StandbyState::Streaming
                && !self.primary.as_ref().is_some_and(is_primary)
                && (s.timeline == 0 || self.timeline == 0 || s.timeline == self.timeline)
                && self.max_lag.is_none_or(|most| s.lag.is_some_and(|lag| lag <= most))
        })
    }

    /// Why a client on this port has nowhere to go, and what an operator may look at.
    pub fn why_not(&self, group: &str, way: Way) -> (String, String) {
        let hint = format!("hactl db --group {group} status    shows what the group waits for");
        let what = match way {
            Way::Primary => match &self.primary {
                Some(p) if !self.steady => {
                    format!("group {group} changes its primary ({} in epoch {})", p.node, self.epoch)
                }
                Some(p) => format!("the primary of group {group}, {}, cannot be reached", p.node),
                None => format!("group {group} has no primary"),
            },
            Way::Standbys => match self.standbys.len() {
                0 => format!("group {group} has no standby"),
                n => format!("none of the {n} standbys of group {group} is streaming and within the lag limit"),
            },
        };
        (what, hint)
    }
}
