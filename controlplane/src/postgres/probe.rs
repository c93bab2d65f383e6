//! How an instance is: what it says of itself over one connection, and whether it can write.
//!
//! A probe that is not answered in time is an answer as well. While the process that served it is still there, no other
//! write is tried: a hung disk must not fill the server with hung processes.

use std::time::{Duration, Instant};

use ha_core::database::Lsn;
use ha_core::database::floors::Floors;
use ha_core::database::names::parse_application_name;
use serde::Deserialize;

use super::conf::Upstream;
use super::connection::Connection;
use super::error::{PgError, Result, blocking};
use super::place::Place;
use crate::platform::{available, process_start};

/// A disk with less than this left for PostgreSQL is full: two segments of WAL.
const FULL_BELOW: u64 = 32 << 20;

/// A walsender of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Its process.
    pub pid: u32,
    /// `application_name` of the standby, or of something else that streams.
    pub name: String,
    /// The node and epoch in that name.
    pub standby: Option<(String, u64)>,
    /// `streaming`, `catchup`, `backup`, …
    pub state: String,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: String,
    /// 0 where the names in force in that process do not have it.
    pub priority: u32,
    /// What was sent.
    pub sent: Lsn,
    /// What the standby flushed.
    pub flushed: Lsn,
    /// What it replayed.
    pub replayed: Lsn,
    /// Age of its last reply, by the two machines' clocks: for people only.
    pub reply_age: Option<Duration>,
}

/// The WAL receiver of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its process.
    pub pid: u32,
    /// `streaming`, `waiting`, `starting`, …
    pub status: String,
    /// The timeline it receives.
    pub timeline: u32,
    /// What it flushed.
    pub flushed: Lsn,
    /// The end of its upstream's log, as that last told it.
    pub told: Option<Lsn>,
    /// How long ago it last heard its upstream.
    pub heard: Option<Duration>,
    /// Its upstream and the epoch it streams in.
    pub upstream: Option<Upstream>,
}

/// A physical slot of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether somebody streams by it.
    pub active: bool,
    /// From where on WAL is kept; none: none yet.
    pub restart: Option<Lsn>,
    /// The WAL it held is gone: it is of no more use.
    pub lost: bool,
    /// WAL it holds back, bytes.
    pub held_bytes: u64,
}

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// It is in recovery.
    pub standby: bool,
    /// When its postmaster started, microseconds since 1970: tells one start from the next.
    pub started_us: i64,
    /// Its system id.
    pub system_id: u64,
    /// A primary's timeline.
    pub timeline: Option<u32>,
    /// A primary's end of what was written by sessions.
    pub inserted: Option<Lsn>,
    /// A primary's end of what is on disk.
    pub flushed: Option<Lsn>,
    /// What a standby received *since it started*; what it had before that is on its disk alone.
    pub received: Option<Lsn>,
    /// What a standby replayed.
    pub replayed: Option<Lsn>,
    /// Replay is paused.
    pub paused: bool,
    /// Age of the last transaction replayed.
    pub replay_age: Option<Duration>,
    /// Whom it is told to stream from, as this connection sees it.
    pub upstream: Option<Upstream>,
    /// It is told to restore from an archive.
    pub restores: bool,
    /// Connections of clients.
    pub clients: u32,
    /// The WAL that the archiver last failed at, if it has not got on since.
    pub archive_failing: Option<String>,
    /// Its walsenders.
    pub senders: Vec<Sender>,
    /// Its WAL receiver.
    pub receiver: Option<Receiver>,
    /// Its physical slots.
    pub slots: Vec<Slot>,
}

/// A parameter that waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pending {
    /// Its name.
    pub parameter: String,
    /// Its value now.
    pub current: String,
    /// Its value after a restart.
    #[serde(default)]
    pub wanted: Option<String>,
}

/// A parameter in force.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// As `SHOW` has it.
    pub value: String,
    /// PostgreSQL's word for where the value comes from; `alter system` where that set it.
    pub source: String,
    /// Its value where nobody sets it.
    pub boot_value: Option<String>,
    /// A change takes a restart.
    pub restart: bool,
}

/// What changes seldom and costs more to ask.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Details {
    /// Full version of the server.
    pub version: String,
    /// Size of all databases, bytes.
    pub data_bytes: u64,
    /// Size of the WAL, bytes.
    pub wal_bytes: u64,
    /// Where the oldest WAL begins that is there.
    #[serde(deserialize_with = "text_lsn")]
    pub oldest: Option<Lsn>,
    /// The parameters that a standby must not have lower than its primary, as they are in force.
    pub floors: Floors,
    /// A primary's parameters as they are in force, sorted by name.
    pub settings: Vec<Setting>,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<Pending>,
    /// What the server cannot use of its configuration files as they are on disk now, a line each.
    pub errors: Vec<String>,
}

/// How a write went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is on disk, after so long.
    Done(Duration),
    /// It was refused or the server broke; why.
    Failed(String),
    /// It was not done in time, or an earlier one still hangs.
    Hung,
    /// The disk has no room for PostgreSQL; bytes that are left.
    Full(u64),
}

impl Written {
    /// Whether it counts as a primary that works.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Asks one instance, over one connection that it makes again when it broke.
#[derive(Debug)]
pub struct Prober {
    place: Place,
    connection: Option<Connection>,
    /// The process of a write that was not answered, and when it started.
    stuck: Option<(u32, Option<u64>)>,
    prepared: bool,
}

impl Prober {
    /// A prober that is not connected yet.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            connection: None,
            stuck: None,
            prepared: false,
        }
    }

    /// The connection, made where there is none: for [`control`](super::control) as well.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn connection(&mut self, limit: Duration) -> Result<&mut Connection> {
        let usable = self.connection.take().filter(Connection::is_usable);
        let connection = match usable {
            Some(c) => c,
            None => {
                self.prepared = false;
                Connection::open(&self.place, limit).await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Gives the connection up: the server stops, or is another one.
    pub fn close(&mut self) {
        self.connection = None;
        self.prepared = false;
    }

    /// What the instance says of itself, within `limit`.
    ///
    /// # Errors
    /// [`PgError::Query`] with 57P03 while it starts; [`PgError::Disconnected`]; [`PgError::TimedOut`].
    pub async fn probe(&mut self, limit: Duration) -> Result<Probe> {
        let what = "asking PostgreSQL how it is";
        let began = Instant::now();
        let connection = self.connection(limit).await?;
        let left = limit.saturating_sub(began.elapsed());
        let text = connection.text(what, include_str!("sql/probe.sql"), &[], left).await?;
        let raw: Raw = serde_json::from_str(&text).map_err(|e| PgError::unreadable(what, e.to_string()))?;
        Probe::from_raw(raw).map_err(|why| PgError::unreadable(what, why))
    }

    /// What changes seldom.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub async fn details(&mut self, limit: Duration) -> Result<Details> {
        let what = "asking PostgreSQL for its settings";
        let connection = self.connection(limit).await?;
        let text = connection
            .text(what, include_str!("sql/details.sql"), &[], limit)
            .await?;
        serde_json::from_str(&text).map_err(|e| PgError::unreadable(what, e.to_string()))
    }

    /// Writes, on a primary: a commit that reaches its disk, and room for the next ones. Never an error: that it cannot
    /// be told is a failure to write.
    pub async fn write(&mut self, limit: Duration) -> Written {
        if let Some((pid, start)) = self.stuck {
            if process_start(pid).is_some() && process_start(pid) == start {
                return Written::Hung;
            }
            self.stuck = None;
        }
        let began = Instant::now();
        let data = self.place.data.clone();
        let room = blocking("looking at the disk", limit, move || {
            // WAL may lie on a disk of its own.
            let dirs = [data.clone(), data.join("pg_wal")];
            let left = dirs.map(|d| available(&d).map_err(PgError::files(&d)));
            left.into_iter()
                .try_fold(u64::MAX, |least, left| left.map(|left| least.min(left)))
        })
        .await;
        match room {
            Ok(left) if left < FULL_BELOW => return Written::Full(left),
            Ok(_) => {}
            Err(PgError::TimedOut { .. }) => return Written::Hung,
            Err(e) => return Written::Failed(e.to_string()),
        }
        match self.try_write(limit.saturating_sub(began.elapsed())).await {
            Ok(()) => Written::Done(began.elapsed()),
            Err(PgError::TimedOut { .. }) => {
                let pid = self.connection.as_ref().map(Connection::pid);
                self.stuck = pid.map(|pid| (pid, process_start(pid)));
                self.close();
                Written::Hung
            }
            Err(e) => Written::Failed(e.to_string()),
        }
    }

    async fn try_write(&mut self, limit: Duration) -> Result<()> {
        let what = "writing a row";
        self.connection(limit).await?;
        let prepared = self.prepared;
        let connection = self.connection(limit).await?;
        if !prepared {
            connection
                .run(what, include_str!("sql/prepare_probe.sql"), limit)
                .await?;
        }
        connection.run(what, include_str!("sql/write_probe.sql"), limit).await?;
        self.prepared = true;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Raw {
    standby: bool,
    started_us: i64,
    system_id: String,
    timeline: Option<u32>,
    insert_lsn: Option<String>,
    flush_lsn: Option<String>,
    received_lsn: Option<String>,
    replayed_lsn: Option<String>,
    paused: bool,
    replay_age_ms: Option<i64>,
    conninfo: String,
    restore_command: String,
    clients: u32,
    archive_failing: Option<String>,
    senders: Vec<RawSender>,
    receiver: Option<RawReceiver>,
    slots: Vec<RawSlot>,
}

#[derive(Deserialize)]
struct RawSender {
    pid: u32,
    name: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    priority: Option<u32>,
    sent_lsn: Option<String>,
    flush_lsn: Option<String>,
    replay_lsn: Option<String>,
    reply_age_ms: Option<i64>,
}

#[derive(Deserialize)]
struct RawReceiver {
    pid: Option<u32>,
    status: Option<String>,
    timeline: Option<u32>,
    flushed_lsn: Option<String>,
    told_lsn: Option<String>,
    heard_ms: Option<i64>,
    conninfo: Option<String>,
}

#[derive(Deserialize)]
struct RawSlot {
    name: String,
    active: bool,
    restart_lsn: Option<String>,
    lost: Option<bool>,
    held_bytes: Option<u64>,
}

fn lsn(text: Option<String>) -> std::result::Result<Option<Lsn>, String> {
    text.map(|t| {
        t.parse()
            .map_err(|e: ha_core::database::lineage::LsnError| e.to_string())
    })
    .transpose()
}

fn text_lsn<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Option<Lsn>, D::Error> {
    lsn(Option::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn ms(n: Option<i64>) -> Option<Duration> {
    n.map(|n| Duration::from_millis(u64::try_from(n).unwrap_or_default()))
}

impl Probe {
    fn from_raw(raw: Raw) -> std::result::Result<Self, String> {
        let senders = raw.senders.into_iter().map(|s| {
            let name = s.name.unwrap_or_default();
            Ok(Sender {
                pid: s.pid,
                standby: parse_application_name(&name).map(|(n, e)| (n.to_owned(), e)),
                name,
                state: s.state.unwrap_or_default(),
                sync_state: s.sync_state.unwrap_or_default(),
                priority: s.priority.unwrap_or_default(),
                sent: lsn(s.sent_lsn)?.unwrap_or_default(),
                flushed: lsn(s.flush_lsn)?.unwrap_or_default(),
                replayed: lsn(s.replay_lsn)?.unwrap_or_default(),
                reply_age: ms(s.reply_age_ms),
            })
        });
        let slots = raw.slots.into_iter().map(|s| {
            Ok(Slot {
                name: s.name,
                active: s.active,
                restart: lsn(s.restart_lsn)?,
                lost: s.lost.unwrap_or_default(),
                held_bytes: s.held_bytes.unwrap_or_default(),
            })
        });
        let receiver = match raw.receiver {
            Some(RawReceiver {
                pid: Some(pid),
                status,
                timeline,
                flushed_lsn,
                told_lsn,
                heard_ms,
                conninfo,
            }) => Some(Receiver {
                pid,
                status: status.unwrap_or_default(),
                timeline: timeline.unwrap_or_default(),
                flushed: lsn(flushed_lsn)?.unwrap_or_default(),
                told: lsn(told_lsn)?,
                heard: ms(heard_ms),
                upstream: conninfo.as_deref().and_then(Upstream::parse),
            }),
            _ => None,
        };
        Ok(Self {
            standby: raw.standby,
            started_us: raw.started_us,
            system_id: raw
                .system_id
                .parse()
                .map_err(|_| "the system id is no number".to_owned())?,
            timeline: raw.timeline,
            inserted: lsn(raw.insert_lsn)?,
            flushed: lsn(raw.flush_lsn)?,
            received: lsn(raw.received_lsn)?,
            replayed: lsn(raw.replayed_lsn)?,
            paused: raw.paused,
            replay_age: ms(raw.replay_age_ms),
            upstream: Upstream::parse(&raw.conninfo),
            restores: !raw.restore_command.is_empty(),
            clients: raw.clients,
            archive_failing: raw.archive_failing,
            senders: senders.collect::<std::result::Result<_, String>>()?,
            receiver,
            slots: slots.collect::<std::result::Result<_, String>>()?,
        })
    }
}
