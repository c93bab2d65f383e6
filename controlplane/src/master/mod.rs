//! The master: observe, decide (in core), act. One task owns all state; the hub fans it out.
//!
//! All of it is one future without spawned tasks: when mastership ends the future is dropped, and with it everything the
//! master was about to do.

pub mod databases;
mod doctor;
mod follow;
pub mod handle;
mod hub;
mod members;
mod operations;
mod requests;
mod seal;
mod show;
mod store;
mod trim;
pub mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ha_core::{NodeRecord, Presence, Severity, Transfer, membership};
use ha_proto::v1;
use tokio::sync::mpsc;

use self::databases::{Databases, Lines};
use self::handle::{Command, Handle};
use self::hub::{Hub, KEPT_CHANGES, Start, Update};
use self::members::{Event, Member};
use self::store::{Draft, Store, StoreError};
use crate::coordination::{CoordError, ServerLook, SessionState, look_at_server};
use crate::election::{Participant, Won};

/// Silence after which a registered node is suspect.
const DETECT: Duration = Duration::from_millis(1500);
/// Absence of a registration after which its node is offline; a restarting daemon replaces its own within less.
const ABSENCE: Duration = Duration::from_millis(500);
/// Time that a new master gives the agents to find it.
const SETTLE: Duration = Duration::from_secs(4);
/// How long a preferred node must have been online before mastership is moved to it.
const PREFERENCE_HOLD: Duration = Duration::from_secs(3);
/// How often the ZooKeeper servers are looked at.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How often what follows from time alone is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Commands taken up at once.
const BATCH: usize = 64;

/// Why mastership ends.
#[derive(Debug)]
pub enum End {
    /// It is handed to another node, or with none to the next in the queue.
    Transfer {
        /// To whom.
        to: Option<Transfer>,
        /// Preferences are to leave it there.
        pin: bool,
    },
    /// The lease has run out.
    LeaseOver,
    /// Another has raised the term, or a write met something that only another can have written.
    Deposed,
    /// The coordinator failed.
    Lost(CoordError),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transfer { to: Some(t), .. } => write!(f, "handed over to {}", t.node),
            Self::Transfer { to: None, .. } => f.write_str("given up"),
            Self::LeaseOver => f.write_str("the lease ran out"),
            Self::Deposed => f.write_str("another master was elected"),
            Self::Lost(e) => write!(f, "{e}"),
        }
    }
}

impl From<StoreError> for End {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Deposed(path) => {
                tracing::warn!("{path} was written by another master");
                Self::Deposed
            }
            StoreError::LeaseOver => Self::LeaseOver,
            StoreError::Coordinator(e) => Self::Lost(e),
            StoreError::Value(e) => {
                tracing::error!("{e}; the master cannot act on it");
                Self::Lost(CoordError::Invalid(e))
            }
        }
    }
}

/// Acts as master until something ends it.
pub async fn run(p: &Participant<'_>, won: &Won) -> End {
    match Box::pin(start(p, won)).await {
        Ok(end) => end,
        Err(e) => {
            // Whatever it was, it must not be tried in a tight loop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            e.into()
        }
    }
}

async fn start(p: &Participant<'_>, won: &Won) -> Result<End, StoreError> {
    let clock = &p.shared.clock;
    let mut store = Store::open(p.c.clone(), clock.clone(), won.term).await?;
    let recent = store.recent(KEPT_CHANGES as u64).await?;
    recent.iter().for_each(|change| store.remember(change));
    let first = store
        .oldest()
        .max((store.revision() + 1).saturating_sub(KEPT_CHANGES as u64));
    let state = v1::ClusterState {
        cluster: p.shared.me.cluster.clone(),
        cluster_id: p.shared.me.cluster_id.clone(),
        master: Some(v1::Master {
            node: p.shared.me.node.clone(),
            address: p.shared.me.address.clone(),
            term: won.term,
            since_unix_ms: won.record.holder.as_ref().map_or(0, |h| h.since_ms),
            pinned: won.record.pinned.clone().unwrap_or_default(),
        }),
        session_timeout_ms: u64::try_from(p.session_timeout.as_millis()).unwrap_or(u64::MAX),
        ..v1::ClusterState::default()
    };
    let lines = Lines::default();
    let hub = Hub::new(
        Start {
            state,
            changes: follow::without_silence(&recent, first, store.revision()),
            tail: store.revision(),
            oldest: store.oldest(),
        },
        p.c.clone(),
        clock.clone(),
        lines.clone(),
    );
    let (updates, updates_rx) = mpsc::unbounded_channel();
    let (commands, commands_rx) = mpsc::channel(1024);
    let (queries, queries_rx) = mpsc::channel(256);
    let mut master = Master {
        p,
        won,
        store,
        members: BTreeMap::new(),
        events: FuturesUnordered::new(),
        updates,
        servers: Vec::new(),
        alerts: BTreeMap::new(),
        begun: clock.boottime(),
        stale_alerts: true,
        databases: Databases::begin(clock.boottime()),
        lines,
    };
    master.inherit().await?;
    let handle = Handle {
        term: won.term,
        commands,
        hub: queries,
    };
    p.tx.handle.send_replace(Some(handle));
    tracing::info!(
        term = won.term,
        revision = master.store.revision(),
        "this node is master"
    );
    tokio::select! {
        biased;
        end = master.act(commands_rx) => end,
        () = hub.run(updates_rx, queries_rx) => Ok(End::LeaseOver),
    }
}

/// The master's state. One task owns it.
struct Master<'a> {
    p: &'a Participant<'a>,
    won: &'a Won,
    store: Store,
    members: BTreeMap<String, Member>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    updates: mpsc::UnboundedSender<Update>,
    servers: Vec<v1::ZooKeeperServer>,
    alerts: BTreeMap<String, v1::Alert>,
    begun: Duration,
    stale_alerts: bool,
    databases: Databases,
    lines: Lines,
}

impl Master<'_> {
    /// What a new master finds: says that it leads, and shows what is stored.
    async fn inherit(&mut self) -> Result<(), StoreError> {
        let before = &self.won.before;
        let who = |r: &ha_core::MasterRecord| serde_json::json!({ "term": r.term, "node": r.holder.as_ref().map(|h| h.node.clone()) });
        let cause = match (&before.transfer, &before.holder) {
            (Some(t), _) if t.node == self.p.shared.me.node => "transfer".to_owned(),
            (_, Some(h)) if h.node == self.p.shared.me.node => "it led before and its lease had lapsed".to_owned(),
            (_, Some(h)) => match self.p.outlived(h) {
                Some(why) => format!("{} led before: {why}", h.node),
                None => format!("the session of {} ended", h.node),
            },
            (_, None) if before.term == 0 => "first election".to_owned(),
            (_, None) => "the last master stepped down".to_owned(),
        };
        let text = format!("{} is master", self.p.shared.me.node);
        let draft = Draft::master("master.elected", "master", Severity::Info, text).cause(cause);
        let (before, after) = (who(before), who(&self.won.record));
        // What sealing appended is in the hub's start already.
        self.store.fresh.clear();
        self.store.note(draft, before, after).await?;
        self.log_first_nodes().await?;
        let now = self.now();
        let names: Vec<String> = self.store.nodes.keys().cloned().collect();
        for name in names {
            self.members.insert(name, Member::unobserved(now));
        }
        // That the last master was found gone or silent is news of its node, as a stream that breaks is.
        if let Some(holder) = &self.won.before.holder
            && self.p.outlived(holder).is_some()
            && let Some(member) = self.members.get_mut(&holder.node)
        {
            member.stream_broken = Some(now);
        }
        self.begin_databases();
        self.recover_steps().await?;
        self.complete_histories().await?;
        self.publish();
        self.show_everything();
        self.finish_transfers().await?;
        self.watch_members().await?;
        // Also about nodes that are not registered: the last master may have seen them online.
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            self.conclude(&name).await?;
        }
        self.publish();
        Ok(())
    }

    /// The nodes that came with the cluster's root have no entry in the change log yet.
    async fn log_first_nodes(&mut self) -> Result<(), StoreError> {
        let unlogged: Vec<(String, NodeRecord)> = self
            .store
            .nodes
            .iter()
            .filter(|(_, s)| s.envelope.change.is_none())
            .filter_map(|(n, s)| Some((n.clone(), s.envelope.value.clone()?)))
            .collect();
        for (name, record) in unlogged {
            let text = format!("{name} added at {}", record.spec.address);
            let draft = Draft::master("node.added", format!("node/{name}"), Severity::Info, text)
                .cause("it came with the cluster");
            self.store.set_node(&name, record, draft).await?;
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.p.shared.clock.boottime()
    }

    fn wall_ms(&self) -> i64 {
        self.p.shared.clock.wall_ms()
    }

    async fn act(&mut self, mut commands: mpsc::Receiver<Command>) -> Result<End, StoreError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.events
            .push(probe(self.p.options.zookeeper.clone(), Duration::ZERO));
        let mut session = self.p.c.state();
        loop {
            let recheck = self.next_recheck();
            tokio::select! {
                biased;
                changed = session.changed() => {
                    if changed.is_ok() && *session.borrow_and_update() == SessionState::Live {
                        self.coordinator_back();
                    }
                }
                Some(event) = self.events.next() => self.observe(event).await?,
                command = commands.recv() => {
                    let Some(command) = command else { return Ok(End::LeaseOver) };
                    if let Some(end) = Box::pin(self.command(command)).await? {
                        return Ok(end);
                    }
                    for _ in 0..BATCH {
                        let Ok(command) = commands.try_recv() else { break };
                        if let Some(end) = Box::pin(self.command(command)).await? {
                            return Ok(end);
                        }
                    }
                }
                () = sleep_for(recheck) => {
                    self.decide_databases().await?;
                    self.recheck().await?;
                }
                _ = tick.tick() => if let Some(end) = self.tick().await? {
                    return Ok(end);
                },
            }
            self.decide_databases().await?;
            self.publish();
        }
    }

    /// What follows from time alone.
    async fn tick(&mut self) -> Result<Option<End>, StoreError> {
        self.end_maintenance().await?;
        self.end_pauses().await?;
        self.advance_operations().await?;
        self.store.trim_if_due().await;
        self.refresh_alerts();
        let Some(to) = self.preferred() else { return Ok(None) };
        let Some(candidate) = self.candidacy_of(&to).await? else {
            return Ok(None);
        };
        tracing::info!("mastership moves to {to}");
        Ok(Some(End::Transfer {
            to: Some(Transfer { node: to, candidate }),
            pin: false,
        }))
    }

    /// Another node to which mastership belongs by preference, or which stands while this one is set aside.
    fn preferred(&mut self) -> Option<String> {
        let me = self.p.shared.me.node.as_str();
        if self.in_maintenance() || self.won.record.pinned.as_deref() == Some(me) {
            return None;
        }
        let now = self.now();
        let settled = |name: &str| {
            name == me
                || self.members.get(name).is_some_and(|m| {
                    m.presence_since
                        .is_some_and(|(p, since)| p == Presence::Online && now >= since + PREFERENCE_HOLD)
                })
        };
        let online = || {
            self.store.nodes.iter().filter_map(|(name, s)| {
                let record = s.envelope.value.as_ref().filter(|r| !r.removed)?;
                settled(name).then_some((name.as_str(), &record.spec))
            })
        };
        let mine = self
            .store
            .nodes
            .get(me)
            .and_then(|s| s.envelope.value.as_ref())
            .map(|r| &r.spec);
        let wanted = membership::preferred(online(), me).or_else(|| {
            let aside = mine.is_some_and(|spec| !membership::may_lead(spec));
            aside
                .then(|| {
                    online()
                        .find(|(n, s)| *n != me && membership::may_lead(s))
                        .map(|(n, _)| n)
                })
                .flatten()
        });
        if let Some(wanted) = wanted.filter(|w| *w != me) {
            return Some(wanted.to_owned());
        }
        let settled: Vec<String> = online().map(|(n, _)| n.to_owned()).collect();
        self.away_from_primary(&settled)
    }

    /// Passes on what was stored since.
    fn publish(&mut self) {
        for change in std::mem::take(&mut self.store.fresh) {
            tracing::info!(seq = change.seq, kind = %change.kind, cause = %change.cause, "{}", change.text);
            let subject = change.subject.clone();
            self.tell(Update::Change(view::change(&change)));
            self.show_subject(&subject);
            self.stale_alerts = true;
        }
        if self.stale_alerts {
            self.refresh_alerts();
        }
    }

    fn tell(&self, update: Update) {
        // The hub ends only together with this future.
        let _ = self.updates.send(update);
    }
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Looks at every ZooKeeper server after a pause.
fn probe(servers: Vec<String>, after: Duration) -> BoxFuture<'static, Event> {
    Box::pin(async move {
        tokio::time::sleep(after).await;
        let looks = servers
            .iter()
            .map(|s| async move { (s.clone(), look_at_server(s).await) });
        let seen = futures::future::join_all(looks).await;
        Event::Servers(
            seen.into_iter()
                .map(|(address, status)| server(address, status))
                .collect(),
        )
    })
}

fn server(address: String, status: crate::coordination::Result<ServerLook>) -> v1::ZooKeeperServer {
    match status {
        Ok(s) => v1::ZooKeeperServer {
            address,
            reachable: true,
            mode: s.mode.unwrap_or_default(),
            version: s.version.unwrap_or_default(),
            error: String::new(),
            sync_timeout_ms: s
                .sync_timeout
                .map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        },
        Err(e) => v1::ZooKeeperServer {
            address,
            error: e.to_string(),
            ..v1::ZooKeeperServer::default()
        },
    }
}
