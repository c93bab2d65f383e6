//! The master's view of the members: registrations, reports, and what is concluded from them.

use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, StreamExt};
use ha_core::election::position;
use ha_core::membership::{Limits, Observation, assess};
use ha_core::{Assignment, Candidacy, Presence, Registration, Severity, decode, valid_name};
use ha_proto::v1;

use super::hub::Update;
use super::store::{Draft, StoreError};
use super::{ABSENCE, DETECT, Master, PROBE_EVERY, SETTLE, databases, probe};
use crate::coordination::{CoordError, resolve};

/// What wakes the master.
#[derive(Debug)]
pub(super) enum Event {
    /// Registrations came or went.
    Members,
    /// A registration may have changed.
    Member(String),
    /// The ZooKeeper servers were looked at.
    Servers(Vec<v1::ZooKeeperServer>),
}

/// One node as observed.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) registration: Option<Registration>,
    /// The registration exists, whether or not it can be read.
    pub(super) registered: bool,
    pub(super) absent_since: Option<Duration>,
    registered_since: Option<Duration>,
    watched: bool,
    pub(super) last_report: Option<Duration>,
    pub(super) last_seen_ms: i64,
    pub(super) stream: Option<u64>,
    /// The newest stream there was: what an older one still says is out of date.
    newest_stream: u64,
    /// Since when its stream is broken, where it broke under this master.
    pub(super) stream_broken: Option<Duration>,
    pub(super) report: Option<v1::AgentReport>,
    pub(super) skew_ms: i64,
    recheck_at: Option<Duration>,
    /// The state last shown, and since when on the master's clock.
    pub(super) presence_since: Option<(Presence, Duration)>,
}

impl Member {
    /// A node of which nothing has been observed yet.
    pub(super) fn unobserved(now: Duration) -> Self {
        Self {
            registration: None,
            registered: false,
            absent_since: Some(now),
            registered_since: None,
            watched: false,
            last_report: None,
            last_seen_ms: 0,
            stream: None,
            newest_stream: 0,
            stream_broken: None,
            report: None,
            skew_ms: 0,
            recheck_at: None,
            presence_since: None,
        }
    }

    /// It announced a restart.
    pub(super) fn restarts(&self) -> bool {
        self.registration.as_ref().is_some_and(|r| r.restarting) || self.report.as_ref().is_some_and(|r| r.restarting)
    }
}

impl Master<'_> {
    pub(super) async fn observe(&mut self, event: Event) -> Result<(), StoreError> {
        match event {
            Event::Members => self.watch_members().await,
            Event::Member(name) => {
                if let Some(m) = self.members.get_mut(&name) {
                    m.watched = false;
                    // It may have been there since it was last seen absent: the absence begins anew.
                    m.absent_since = None;
                }
                self.look_at(vec![name]).await
            }
            Event::Servers(servers) => {
                self.servers.clone_from(&servers);
                self.tell(Update::ZooKeeper(servers));
                self.stale_alerts = true;
                self.events.push(probe(self.p.options.zookeeper.clone(), PROBE_EVERY));
                Ok(())
            }
        }
    }

    /// Reads who is registered, watches for more, and looks at everyone who is new or gone.
    pub(super) async fn watch_members(&mut self) -> Result<(), StoreError> {
        let (names, watch) = loop {
            match self.p.c.children_and_watch("/members").await {
                Ok(found) => break found,
                Err(CoordError::Unavailable(_) | CoordError::Unknown(_)) => resolve::wait_live(&*self.p.c).await?,
                Err(e) => return Err(e.into()),
            }
        };
        self.events.push(watch.fired().map(|()| Event::Members).boxed());
        let now = self.now();
        let mut look: Vec<String> = Vec::new();
        for name in names.into_iter().filter(|n| valid_name(n).is_ok()) {
            let member = self
                .members
                .entry(name.clone())
                .or_insert_with(|| Member::unobserved(now));
            if !member.watched {
                look.push(name);
            }
        }
        self.look_at(look).await
    }

    /// Reads the registrations of `names`, watches them, and draws conclusions.
    async fn look_at(&mut self, names: Vec<String>) -> Result<(), StoreError> {
        let c = self.p.c.clone();
        let reads = names.into_iter().map(|name| {
            let c = c.clone();
            async move {
                let path = format!("/members/{name}");
                loop {
                    match c.read_and_watch(&path).await {
                        Ok(found) => return Ok((name, path, found)),
                        Err(CoordError::Unavailable(_) | CoordError::Unknown(_)) => resolve::wait_live(&*c).await?,
                        Err(e) => return Err(StoreError::from(e)),
                    }
                }
            }
        });
        let mut reads = stream::iter(reads).buffer_unordered(32);
        let mut seen = Vec::new();
        while let Some(read) = reads.next().await {
            seen.push(read?);
        }
        drop(reads);
        let mut looked = Vec::with_capacity(seen.len());
        for (name, path, (found, watch)) in seen {
            let event = Event::Member(name.clone());
            self.events.push(watch.fired().map(|()| event).boxed());
            let now = self.now();
            let member = self
                .members
                .entry(name.clone())
                .or_insert_with(|| Member::unobserved(now));
            member.watched = true;
            member.registered = found.is_some();
            match found {
                Some((bytes, _)) => {
                    member.absent_since = None;
                    member.registered_since = member.registered_since.or(Some(now));
                    member.registration = match decode::<Registration>(&path, &bytes) {
                        Ok(r) => Some(r),
                        Err(e) => {
                            tracing::warn!("{e}; the registration is left alone");
                            None
                        }
                    };
                }
                None => {
                    member.absent_since = member.absent_since.or(Some(now));
                    member.registered_since = None;
                }
            }
            looked.push(name);
        }
        // What databases wait for comes before what is only stored.
        looked.iter().for_each(|name| self.node_changed(name));
        self.decide_databases().await?;
        for name in looked {
            self.conclude(&name).await?;
        }
        Ok(())
    }

    /// When time alone changes a conclusion next.
    pub(super) fn next_recheck(&self) -> Option<Duration> {
        let members = self.members.values().filter_map(|m| m.recheck_at).min();
        let at = members.into_iter().chain(self.databases.next_look()).min()?;
        Some(at.saturating_sub(self.now()))
    }

    pub(super) async fn recheck(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        let due: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.recheck_at.is_some_and(|at| at <= now))
            .map(|(n, _)| n.clone())
            .collect();
        for name in due {
            self.conclude(&name).await?;
        }
        Ok(())
    }

    /// A node's state as last stored.
    pub(super) fn presence(&self, name: &str) -> Presence {
        let stored = self.store.assignments.get(name).and_then(|s| s.envelope.value.as_ref());
        stored.map_or(Presence::Unseen, |a| a.presence)
    }

    /// Draws the conclusion about one node, stores it if it is new, and shows it.
    pub(super) async fn conclude(&mut self, name: &str) -> Result<(), StoreError> {
        let now = self.now();
        let added = self
            .store
            .nodes
            .get(name)
            .and_then(|s| s.envelope.value.as_ref())
            .is_some_and(|r| !r.removed);
        let before = self.presence(name);
        let Some(member) = self.members.get_mut(name) else {
            return Ok(());
        };
        if !added {
            member.recheck_at = None;
            let gone = !member.registered;
            if gone && !self.store.nodes.contains_key(name) {
                self.members.remove(name);
                self.tell(Update::NodeGone(name.to_owned()));
                self.stale_alerts = true;
            } else {
                self.show(name, true);
                self.stale_alerts = true;
            }
            return Ok(());
        }
        let seen = Observation {
            registered: member.registered,
            restarting: member.registration.as_ref().is_some_and(|r| r.restarting),
            absent_since: member.absent_since,
            registered_since: member.registered_since,
            last_report: member.last_report,
            stream_open: member.stream.is_some(),
        };
        let limits = Limits {
            detect: DETECT,
            absence: ABSENCE,
            settled_at: self.begun + SETTLE,
        };
        let verdict = assess(before, &seen, &limits, now);
        member.recheck_at = verdict.recheck_at;
        if member.presence_since.is_none_or(|(p, _)| p != verdict.presence) {
            member.presence_since = Some((verdict.presence, now));
        }
        if !member.registered && verdict.presence == before {
            return Ok(());
        }
        let registration = member.registration.clone();
        self.store_presence(name, before, verdict.presence, verdict.reason, registration.as_ref())
            .await
    }

    async fn store_presence(
        &mut self,
        name: &str,
        before: Presence,
        presence: Presence,
        reason: String,
        registration: Option<&Registration>,
    ) -> Result<(), StoreError> {
        // A damaged value is shown as such and left to a person.
        if self.store.damaged.contains_key(&format!("/assignments/{name}")) {
            return Ok(());
        }
        let old = self.store.assignments.get(name).and_then(|s| s.envelope.value.clone());
        let run = registration.map_or_else(
            || old.as_ref().map_or(String::new(), |o| o.run.clone()),
            |r| r.run.clone(),
        );
        let restarted = presence == Presence::Online
            && before == Presence::Online
            && old.as_ref().is_some_and(|o| !o.run.is_empty() && o.run != run);
        let same = old
            .as_ref()
            .is_some_and(|o| o.presence == presence && o.reason == reason && !restarted);
        if same || (old.is_none() && presence == Presence::Unseen) {
            return Ok(());
        }
        if old.as_ref().is_some_and(|o| o.presence == presence) && !restarted && presence != Presence::Online {
            // Only the wording differs: not worth an entry.
            return Ok(());
        }
        let (kind, severity, text) = match presence {
            Presence::Online if restarted => ("node.restarted", Severity::Info, format!("{name} restarted")),
            Presence::Online if reason == "restarting" => {
                ("node.restarting", Severity::Info, format!("{name} restarts"))
            }
            Presence::Online => ("node.online", Severity::Info, format!("{name} online")),
            Presence::Suspect => ("node.suspect", Severity::Warning, format!("{name} suspect: {reason}")),
            Presence::Offline => ("node.offline", Severity::Error, format!("{name} offline: {reason}")),
            Presence::Unseen => ("node.registered", Severity::Info, format!("{name} registered")),
        };
        let since_ms = match &old {
            Some(o) if o.presence == presence => o.since_ms,
            _ => self.wall_ms(),
        };
        let cause = match presence {
            Presence::Online => match registration {
                Some(r) if restarted => format!("new daemon, version {}, process {}", r.version, r.pid),
                Some(r) => format!("registered at {}, version {}", r.address, r.version),
                None => String::new(),
            },
            _ => self.last_word(name),
        };
        let boot_id = registration.map_or_else(
            || old.as_ref().map_or(String::new(), |o| o.boot_id.clone()),
            |r| r.boot_id.clone(),
        );
        let value = Assignment {
            presence,
            since_ms,
            reason,
            run,
            boot_id,
        };
        let draft = Draft::master(kind, format!("node/{name}"), severity, text).cause(cause);
        self.store.set_assignment(name, value, draft).await
    }

    /// When a silent node was last heard of, for the record.
    fn last_word(&self, name: &str) -> String {
        let now = self.now();
        match self.members.get(name).and_then(|m| m.last_report) {
            Some(at) => format!("last report {:.1} s ago", now.saturating_sub(at).as_secs_f64()),
            None => "no report to this master".to_owned(),
        }
    }

    /// A node's agent reported.
    pub(super) async fn report(&mut self, stream: u64, mut report: v1::AgentReport) -> Result<(), StoreError> {
        let (now, wall) = (self.now(), self.wall_ms());
        let name = report.node.clone();
        let Some(member) = self.members.get_mut(&name) else {
            return Ok(());
        };
        let current = stream >= member.newest_stream;
        member.newest_stream = member.newest_stream.max(stream);
        member.stream_broken = None;
        // An older stream's opening may come after a newer one's, and its end after that: the stream that reports is the one
        // that lives.
        member.stream = Some(stream);
        // A first look at the clocks, then smoothed: one late report is not a skew.
        let skew = report.time_unix_ms.saturating_sub(wall);
        member.skew_ms = if member.report.is_none() {
            skew
        } else {
            (member.skew_ms * 3 + skew) / 4
        };
        member.last_report = Some(now);
        member.last_seen_ms = wall;
        let denied = std::mem::take(&mut report.denied);
        let urgent = member.report.as_ref().is_none_or(|old| {
            old.conditions != report.conditions
                || old.certificate_expires_unix_ms != report.certificate_expires_unix_ms
                || old.restarting != report.restarting
        });
        let told = databases::Told::take(&mut report);
        member.report = Some(report);
        self.stale_alerts |= urgent;
        if current {
            self.take_instances(&name, told);
            self.decide_databases().await?;
        }
        let before = self.presence(&name);
        self.conclude(&name).await?;
        let urgent = urgent || before != self.presence(&name);
        self.show(&name, urgent);
        for refused in denied {
            self.note_denied(refused).await?;
        }
        Ok(())
    }

    pub(super) async fn attached(&mut self, node: &str, stream: u64) -> Result<(), StoreError> {
        let now = self.now();
        let member = self
            .members
            .entry(node.to_owned())
            .or_insert_with(|| Member::unobserved(now));
        member.stream = Some(stream);
        member.newest_stream = member.newest_stream.max(stream);
        member.stream_broken = None;
        self.node_changed(node);
        self.conclude(node).await
    }

    pub(super) async fn detached(&mut self, node: &str, stream: u64) -> Result<(), StoreError> {
        let now = self.now();
        if let Some(member) = self.members.get_mut(node).filter(|m| m.stream == Some(stream)) {
            member.stream = None;
            member.stream_broken = Some(now);
            self.node_changed(node);
            self.decide_databases().await?;
        }
        self.conclude(node).await
    }

    /// The election znode of `node`, if it stands.
    pub(super) async fn candidacy_of(&mut self, node: &str) -> Result<Option<String>, StoreError> {
        let c = &*self.p.c;
        let mut names = c.children("/election").await?;
        names.sort_by_key(|name| position(name));
        let mut reads = stream::iter(names)
            .map(|name| async move {
                let path = format!("/election/{name}");
                let (bytes, _) = c.read(&path).await.ok()?;
                let candidacy = decode::<Candidacy>(&path, &bytes).ok()?;
                Some((candidacy.node, name))
            })
            .buffer_unordered(32);
        while let Some(found) = reads.next().await {
            if let Some((_, name)) = found.filter(|(n, _)| n == node) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}
