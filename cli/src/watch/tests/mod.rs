//! The dashboard without a terminal: what is told and typed goes in, screens come out.

mod database;
mod fold;
mod random;
mod screens;
mod update;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ha_proto::v1::{
    Alert, Beat, Change, ClusterState, Delta, Master, Node, NodeSpec, NodeState, NodeStatus, Resources, Role, Severity,
    Usage, WatchFrame, ZooKeeperServer, watch_frame::Body,
};
use jiff::tz::TimeZone;
use ratatui::{buffer::Buffer, layout::Size};

use super::{
    conn::{Join, Told},
    render::{self, Now},
    state::{Action, Event, State},
    theme::Theme,
};

/// 2026-03-01 12:04:31 UTC: the master's clock at the first frame.
pub(super) const T: i64 = 1_772_366_671_000;
const GIB: u64 = 1 << 30;
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

/// A node as the master tells of it at `T`.
pub(super) fn node(name: &str, state: NodeState, role: Role) -> Node {
    let n = name
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse::<u64>()
        .unwrap_or(1);
    let address = format!("10.0.{}.{}:7400", n / 250, 10 + n % 250);
    Node {
        name: name.to_owned(),
        spec: Some(NodeSpec {
            address: address.clone(),
            labels: [("zone".to_owned(), if n % 2 == 1 { "a" } else { "b" }.to_owned())].into(),
            scenarios: vec!["oltp".to_owned()],
            master_eligible: true,
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            state: state.into(),
            role: role.into(),
            state_since_unix_ms: T - 3 * DAY - 4 * 3_600_000,
            last_seen_unix_ms: T,
            usage: Some(Usage {
                capacity: Some(Resources {
                    cpu_milli: 8000,
                    memory_bytes: 16 * GIB,
                    disk_bytes: 200 * GIB,
                }),
                cpu_used_milli: 300 + n * 330 % 8000,
                memory_used_bytes: GIB * (n % 14) + GIB / 10 * 3,
                disk_used_bytes: 40 * GIB,
                daemon_rss_bytes: 18 << 20,
            }),
            version: "0.1.0".to_owned(),
            boot_id: "0199f3aa-5c1e-7000-8000-000000000001".to_owned(),
            started_unix_ms: T - 3 * DAY,
            certificate_expires_unix_ms: T + 300 * DAY,
            clock_skew_ms: 3,
            http_address: address.replace("7400", "7401"),
            registered_address: address,
            os: "Debian GNU/Linux 12".to_owned(),
            ..NodeStatus::default()
        }),
        revision: 4100 + n,
    }
}

/// A node that went away two minutes ago.
pub(super) fn lost(name: &str) -> Node {
    let mut node = node(name, NodeState::Offline, Role::Member);
    if let Some(status) = &mut node.status {
        status.reason = "session expired".to_owned();
        status.last_seen_unix_ms = T - 131_000;
        status.state_since_unix_ms = T - 127_000;
    }
    node
}

fn change(seq: u64, ago: i64, severity: Severity, kind: &str, subject: &str, text: &str) -> Change {
    Change {
        seq,
        time_unix_ms: T - ago,
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        severity: severity.into(),
        text: text.to_owned(),
        actor: "master".to_owned(),
        term: 412,
        ..Change::default()
    }
}

/// Three nodes, one of them lost.
pub(super) fn cluster() -> ClusterState {
    let mut cordoned = change(4182, 30_000, Severity::Info, "node.cordoned", "node/n1", "n1 cordoned");
    cordoned.before = r#"{"name":"n1","spec":{"cordoned":false,"labels":{"zone":"a"}}}"#.to_owned();
    cordoned.after = r#"{"name":"n1","spec":{"cordoned":true,"labels":{"zone":"a"}}}"#.to_owned();
    cordoned.cause = "kernel upgrade".to_owned();
    cordoned.actor = "user/alice".to_owned();
    let server = |n: u8, mode: &str| ZooKeeperServer {
        address: format!("10.0.0.{n}:2181"),
        reachable: true,
        mode: mode.to_owned(),
        version: "3.8.0".to_owned(),
        error: String::new(),
        sync_timeout_ms: 2000,
    };
    ClusterState {
        cluster: "prod".to_owned(),
        cluster_id: "0199f3".to_owned(),
        master: Some(Master {
            node: "n2".to_owned(),
            address: "10.0.0.12:7400".to_owned(),
            term: 412,
            since_unix_ms: T - 3 * DAY,
            pinned: String::new(),
        }),
        zookeeper: vec![server(21, "follower"), server(22, "leader"), server(23, "follower")],
        revision: 4182,
        nodes: vec![
            node("n1", NodeState::Online, Role::Member),
            node("n2", NodeState::Online, Role::Master),
            lost("n3"),
        ],
        alerts: Vec::new(),
        maintenance: None,
        recent_changes: vec![
            change(
                4178,
                3 * DAY,
                Severity::Info,
                "master.elected",
                "master",
                "n2 elected master, term 412",
            ),
            change(
                4179,
                3 * DAY - 900,
                Severity::Info,
                "node.online",
                "node/n1",
                "n1 online",
            ),
            change(
                4180,
                130_000,
                Severity::Warning,
                "node.suspect",
                "node/n3",
                "n3 suspect: its reports stopped",
            ),
            change(
                4181,
                127_000,
                Severity::Error,
                "node.offline",
                "node/n3",
                "n3 offline: session expired",
            ),
            cordoned,
        ],
        observed_unix_ms: T,
        session_timeout_ms: 4000,
        databases: Vec::new(),
    }
}

/// Two alerts.
pub(super) fn alerts() -> Vec<Alert> {
    vec![
        Alert {
            id: "certificate/n1".to_owned(),
            severity: Severity::Warning.into(),
            subject: "node/n1".to_owned(),
            text: "the certificate of n1 expires in 6 days".to_owned(),
            since_unix_ms: T - 2 * DAY,
            hint: "hactl node renew n1".to_owned(),
        },
        Alert {
            id: "node/n3".to_owned(),
            severity: Severity::Error.into(),
            subject: "node/n3".to_owned(),
            text: "n3 is offline: session expired".to_owned(),
            since_unix_ms: T - 2 * MINUTE,
            hint: "systemctl status had, on n3".to_owned(),
        },
    ]
}

pub(super) fn frame(seq: u64, at: i64, body: Body) -> Told {
    Told::Frame(Box::new(WatchFrame {
        seq,
        term: 412,
        server_unix_ms: at,
        body: Some(body),
    }))
}

/// A state, and the time that it goes by.
pub(super) struct Stage {
    pub(super) state: State,
    pub(super) mono: i64,
    /// Number of the last frame.
    pub(super) seq: u64,
}

impl Stage {
    /// An empty screen.
    pub(super) fn new(allow_actions: bool) -> Self {
        let theme = Theme {
            color: true,
            ascii: false,
        };
        Self {
            state: State::new(theme, allow_actions, 0, Size::new(120, 30)),
            mono: 0,
            seq: 0,
        }
    }

    /// A live cluster with a minute of history, 100 ms after the last frame.
    pub(super) fn live(cluster: ClusterState) -> Self {
        let mut stage = Self::new(true);
        let endpoint = "10.0.0.11:7400".to_owned();
        let nodes = cluster.nodes.clone();
        stage.tell(Told::Dialling {
            endpoint: endpoint.clone(),
            attempt: 1,
        });
        stage.tell(Told::Joined {
            endpoint,
            join: Join::First,
        });
        // The history first: it ends at the time of the snapshot that counts.
        stage.tell(frame(1, T - MINUTE, Body::Snapshot(cluster.clone())));
        for second in 1..60 {
            let mut nodes = nodes.clone();
            for (i, node) in nodes.iter_mut().enumerate() {
                let Some(status) = &mut node.status else { continue };
                if let Some(usage) = &mut status.usage {
                    usage.cpu_used_milli += u64::try_from(second).unwrap() * (50 - 20 * (i as u64 % 3));
                }
            }
            let delta = Delta {
                nodes,
                ..Delta::default()
            };
            stage.tell(frame(1, T - MINUTE + second * 1000, Body::Delta(delta)));
        }
        stage.seq = 512;
        stage.tell(frame(512, T, Body::Snapshot(cluster)));
        stage.mono = 100;
        stage
    }

    pub(super) fn event(&mut self, event: Event) -> Option<Action> {
        self.state.update(event, self.mono).0
    }

    pub(super) fn tell(&mut self, told: Told) {
        assert_eq!(self.event(Event::Told(told)), None);
    }

    pub(super) fn delta(&mut self, delta: Delta) {
        self.seq += 1;
        self.tell(frame(self.seq, T + self.mono, Body::Delta(delta)));
    }

    pub(super) fn beat(&mut self) {
        self.tell(frame(self.seq, T + self.mono, Body::Beat(Beat {})));
    }

    /// Presses keys; `\n` is Enter, `\x1b` Esc, `\t` Tab, `\x08` Backspace.
    pub(super) fn press(&mut self, keys: &str) -> Option<Action> {
        let mut last = None;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                '\x08' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            last = self.event(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
        last
    }

    /// The stream was lost 12 seconds ago, and n2 is dialled for the third time.
    pub(super) fn lose(&mut self) {
        use crate::error::CliError;
        let error = CliError::new(
            ha_proto::codes::UNREACHABLE,
            "the connection to 10.0.0.11:7400 was lost",
        );
        self.tell(Told::Lost { error });
        self.tell(Told::Dialling {
            endpoint: "10.0.0.12:7400".to_owned(),
            attempt: 3,
        });
        self.mono += 12_000;
    }

    pub(super) fn now(&self) -> Now {
        Now {
            mono: self.mono,
            wall_ms: T + self.mono,
            zone: TimeZone::UTC,
        }
    }

    pub(super) fn screen(&self, width: u16, height: u16) -> Buffer {
        render::render(&self.state, &self.now(), Size::new(width, height))
    }

    /// The screen's text at 120 columns.
    pub(super) fn text(&self) -> String {
        text(&self.screen(120, 30))
    }
}

/// The text of a screen.
pub(super) fn text(screen: &Buffer) -> String {
    super::once::text(screen, screen.area.height, false)
}
