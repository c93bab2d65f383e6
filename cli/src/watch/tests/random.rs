//! Whatever is told, in whatever order, at whatever size: no panic, no control character, nothing outside of the screen.
//!
//! A failing seed is printed; `HACTL_WATCH_SEED=N cargo test -p hactl whatever_is_told` runs it alone.

mod groups;

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ha_proto::v1::{
    Alert, AlertList, Beat, Change, ClusterState, Delta, Maintenance, Master, Node, NodeInstance, NodeSpec, NodeStatus,
    Resources, Usage, WatchFrame, ZooKeeperList, ZooKeeperServer, watch_frame::Body,
};
use jiff::tz::TimeZone;
use rand::{Rng, SeedableRng, rngs::StdRng};
use ratatui::layout::Size;

use crate::{
    error::CliError,
    watch::{
        conn::{Join, Told},
        render::{self, Now},
        state::{Event, State},
        theme::Theme,
    },
};

const SEEDS: u64 = 120;
const STEPS: usize = 40;

struct Dice(StdRng);

impl Dice {
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// Small numbers, and the ones where arithmetic breaks.
    fn number(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => i64::MAX,
            2 => i64::MIN,
            3 => self.0.random_range(-5..100),
            _ => super::T + self.0.random_range(-100_000_000..100_000_000),
        }
    }

    fn size(&mut self) -> u64 {
        if self.one_in(8) {
            u64::MAX
        } else {
            self.0.random_range(0..1 << 40)
        }
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 20] = [
            "n1",
            "n2",
            "n10",
            "online",
            " ",
            "\x1b[2J",
            "\x1b]0;x\x07",
            "\n",
            "\t",
            "\u{9b}",
            "数",
            "é",
            "e\u{301}",
            "👩‍👩‍👧",
            "\u{202e}",
            "\0",
            "a-long-word-without-any-end-in-sight",
            "{\"a\":{\"b\":\"\\u001b\"}}",
            "/",
            "node/n1",
        ];
        (0..self.below(5)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }

    fn name(&mut self) -> String {
        if self.one_in(6) {
            self.text()
        } else {
            format!("n{}", self.below(40))
        }
    }

    fn enumeration(&mut self) -> i32 {
        self.0.random_range(-1..10)
    }

    fn resources(&mut self) -> Option<Resources> {
        (!self.one_in(4)).then(|| Resources {
            cpu_milli: self.size(),
            memory_bytes: self.size(),
            disk_bytes: self.size(),
        })
    }

    fn node(&mut self) -> Node {
        let spec = (!self.one_in(5)).then(|| NodeSpec {
            address: self.text(),
            labels: BTreeMap::from([(self.text(), self.text())]),
            scenarios: vec![self.text()],
            capacity_override: self.resources(),
            master_eligible: self.one_in(2),
            master_preference: self.enumeration(),
            cordoned: self.one_in(3),
            draining: self.one_in(3),
        });
        let status = (!self.one_in(5)).then(|| NodeStatus {
            state: self.enumeration(),
            role: self.enumeration(),
            reason: self.text(),
            state_since_unix_ms: self.number(),
            last_seen_unix_ms: self.number(),
            usage: (!self.one_in(3)).then(|| Usage {
                capacity: self.resources(),
                cpu_used_milli: self.size(),
                memory_used_bytes: self.size(),
                disk_used_bytes: self.size(),
                daemon_rss_bytes: self.size(),
            }),
            version: self.text(),
            boot_id: self.text(),
            started_unix_ms: self.number(),
            certificate_expires_unix_ms: self.number(),
            clock_skew_ms: self.number(),
            restarting: self.one_in(4),
            http_address: self.text(),
            conditions: (0..self.below(3)).map(|_| self.text()).collect(),
            registered_address: self.text(),
            os: self.text(),
            databases: self.some(3, |d| NodeInstance {
                group: d.text(),
                primary: d.one_in(2),
                state: d.enumeration(),
            }),
        });
        Node {
            name: self.name(),
            spec,
            status,
            revision: self.size(),
        }
    }

    fn change(&mut self) -> Change {
        Change {
            seq: if self.one_in(20) {
                u64::MAX
            } else {
                self.below(500) as u64
            },
            time_unix_ms: self.number(),
            kind: self.text(),
            subject: self.text(),
            severity: self.enumeration(),
            text: self.text(),
            before: self.text(),
            after: self.text(),
            cause: self.text(),
            actor: self.text(),
            term: self.size(),
        }
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most)).map(|_| make(self)).collect()
    }

    fn alert(&mut self) -> Alert {
        Alert {
            id: self.text(),
            severity: self.enumeration(),
            subject: self.text(),
            text: self.text(),
            since_unix_ms: self.number(),
            hint: self.text(),
        }
    }

    fn server(&mut self) -> ZooKeeperServer {
        ZooKeeperServer {
            address: self.text(),
            reachable: self.one_in(2),
            mode: self.text(),
            version: self.text(),
            error: self.text(),
            sync_timeout_ms: self.size(),
        }
    }

    fn master(&mut self) -> Option<Master> {
        self.one_in(2).then(|| Master {
            node: self.name(),
            address: self.text(),
            term: self.size(),
            since_unix_ms: self.number(),
            pinned: self.name(),
        })
    }

    fn maintenance(&mut self) -> Option<Maintenance> {
        self.one_in(2).then(|| Maintenance {
            on: self.one_in(2),
            until_unix_ms: self.number(),
            reason: self.text(),
            actor: self.text(),
        })
    }

    fn frame(&mut self) -> WatchFrame {
        let body = match self.below(5) {
            0 => Some(Body::Snapshot(ClusterState {
                cluster: self.text(),
                cluster_id: if self.one_in(4) { self.text() } else { String::new() },
                master: self.master(),
                zookeeper: self.some(8, Self::server),
                revision: self.size(),
                nodes: self.some(60, Self::node),
                alerts: self.some(8, Self::alert),
                maintenance: self.maintenance(),
                recent_changes: self.some(60, Self::change),
                observed_unix_ms: self.number(),
                session_timeout_ms: self.size(),
                databases: self.some(4, groups::group),
            })),
            1..=3 => Some(Body::Delta(Delta {
                nodes: self.some(5, Self::node),
                removed_nodes: self.some(5, Self::name),
                changes: self.some(5, Self::change),
                alerts: self.one_in(4).then(|| AlertList {
                    alerts: self.some(8, Self::alert),
                }),
                master: self.master(),
                maintenance: self.maintenance(),
                zookeeper: self.one_in(4).then(|| ZooKeeperList {
                    servers: self.some(8, Self::server),
                }),
                revision: self.size(),
                databases: self.some(4, groups::group),
                removed_databases: self.some(2, Self::name),
            })),
            _ => self.one_in(2).then_some(Body::Beat(Beat {})),
        };
        WatchFrame {
            seq: self.size(),
            term: self.size(),
            server_unix_ms: self.number(),
            body,
        }
    }

    fn event(&mut self) -> Event {
        const KEYS: &str = "jjjjkkhl/s rR?q\tCDTSFPXn12 g34\n\n\n\x1b\x1b\x08";
        match self.below(12) {
            0..=3 => Event::Told(Told::Frame(Box::new(self.frame()))),
            4 => {
                let error = CliError::new(ha_proto::codes::UNREACHABLE, self.text()).why(self.text());
                Event::Told(Told::Lost { error })
            }
            5 => Event::Told(Told::Dialling {
                endpoint: self.text(),
                attempt: self.0.random(),
            }),
            6 => {
                let join = match self.below(3) {
                    0 => Join::First,
                    1 => Join::Resumed { seq: self.size() },
                    _ => Join::Over { why: self.text() },
                };
                Event::Told(Told::Joined {
                    endpoint: self.text(),
                    join,
                })
            }
            _ => {
                let key = KEYS.chars().nth(self.below(KEYS.len())).unwrap();
                let code = match key {
                    '\n' => KeyCode::Enter,
                    '\x1b' => KeyCode::Esc,
                    '\t' => KeyCode::Tab,
                    '\x08' => KeyCode::Backspace,
                    'R' => KeyCode::PageDown,
                    'X' => KeyCode::End,
                    key => KeyCode::Char(key),
                };
                Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
            }
        }
    }
}

fn play(seed: u64) {
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let theme = Theme {
        color: dice.one_in(2),
        ascii: dice.one_in(3),
    };
    let mut state = State::new(theme, dice.one_in(2), dice.below(4), Size::new(80, 24));
    let mut mono = 0;
    for _ in 0..STEPS {
        mono += i64::try_from(dice.below(4000)).unwrap();
        let event = dice.event();
        state.update(event, mono);
        state.acting = None;
        let (width, height) = match dice.below(4) {
            0 => (dice.below(12), dice.below(12)),
            1 => (dice.below(130), dice.below(40)),
            2 => (60 + dice.below(100), 15 + dice.below(30)),
            _ => (dice.below(260), dice.below(80)),
        };
        let size = Size::new(u16::try_from(width).unwrap(), u16::try_from(height).unwrap());
        state.update(Event::Resize(size), mono);
        let now = Now {
            mono,
            wall_ms: dice.number(),
            zone: TimeZone::UTC,
        };
        if state.scrolls() {
            state.clamp_scroll(render::scroll_most(&state, &now, size));
        }
        let screen = render::render(&state, &now, size);
        assert_eq!((screen.area.width, screen.area.height), (size.width, size.height));
        for cell in &screen.content {
            let hostile = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!cell.symbol().chars().any(hostile), "{:?}", cell.symbol());
            assert!(!theme.ascii || cell.symbol().is_ascii(), "{:?}", cell.symbol());
        }
    }
}

#[test]
fn whatever_is_told_the_screen_stands() {
    if let Some(seed) = std::env::var("HACTL_WATCH_SEED").ok().and_then(|s| s.parse().ok()) {
        return play(seed);
    }
    for seed in 0..SEEDS {
        if let Err(panic) = std::panic::catch_unwind(|| play(seed)) {
            eprintln!("HACTL_WATCH_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
