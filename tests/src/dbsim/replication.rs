//! Streaming between simulated servers: connections as TCP has them, walsenders, receivers, and the release of commits that
//! wait for standbys, with the rules of `SyncRepReleaseWaiters`.

use super::postgres::{Commit, Inside, Instance, Names, Phase, Receiver, Sender, Server};
use super::wal::Pos;
use super::world::{Event, MS, N, Time, World};

/// Silence after which a walsender gives its connection up.
pub const SENDER_TIMEOUT: u64 = 6000 * MS;
/// `wal_retrieve_retry_interval`.
const RETRY: u64 = 100 * MS;

/// Something on a replication connection.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Log up to here reaches the standby.
    Log {
        /// From whom.
        from: N,
        /// To whom.
        to: N,
        /// Which connection.
        connection: u32,
        /// Up to where; nothing new in a keepalive.
        upto: Pos,
    },
    /// The standby's confirmation reaches the walsender.
    Confirm {
        /// The standby.
        from: N,
        /// The walsender's server.
        to: N,
        /// Which connection.
        connection: u32,
        /// Flushed up to here, and written up to here on the same connection.
        flushed: u64,
    },
    /// The other end closed the connection.
    Closed {
        /// Who closed.
        from: N,
        /// Who learns it.
        to: N,
        /// Which connection.
        connection: u32,
    },
    /// The walsender sends a keepalive.
    KeepAlive {
        /// Whose walsender.
        from: N,
        /// Which connection.
        connection: u32,
    },
}

impl World {
    /// The startup process starts a receiver, if it has one to start.
    pub fn start_receiver(&mut self, n: N) {
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        if server.phase != Phase::Standby || server.receiver.is_some() || !server.postmaster || server.doomed {
            return;
        }
        if server.replay_stuck {
            // It wants no log, so it starts no receiver; when it does, it has read the configuration.
            self.inside(n, 50 * MS, Inside::Retry);
            return;
        }
        server.follow = server.conf.follow;
        let Some((from, name_epoch)) = server.follow else {
            return;
        };
        if server.retry_at > self.now {
            return;
        }
        server.retry_at = self.now + RETRY;
        self.inside(n, RETRY + MS, Inside::Retry);
        if from == n || self.cut(n, from) || self.cut(from, n) || self.is_frozen(from) {
            return;
        }
        let Some(mine) = self.pg[n].disk.written else { return };
        let same = self.pg[n].disk.system == self.pg[from].disk.system;
        let theirs = self.pg[from].disk.flushed;
        let Some(source) = self.pg[from].answers() else { return };
        if source.phase != Phase::Primary || !same {
            return;
        }
        let (names, source_end) = (source.conf.names, theirs.unwrap_or(mine));
        let fits = self.tree.looks_like_prefix(source_end, mine);
        if !fits {
            if let Some(server) = self.pg[n].server.as_mut().filter(|s| !s.refused) {
                server.refused = true;
                self.say(Some(n), format_args!("log does not fit that of n{}", from + 1));
            }
            return;
        }
        if !self.tree.contains(source_end, mine) {
            self.wrong(format!(
                "n{} at {}/{} streams from n{}, whose log ({}/{}) went another way: the directory is corrupt now",
                n + 1,
                mine.branch,
                mine.lsn,
                from + 1,
                source_end.branch,
                source_end.lsn
            ));
            return;
        }
        self.connections += 1;
        let (connection, now) = (self.connections, self.now);
        let deaf = self.chance(self.traits.deaf_sender);
        let timeline = self.tree.timeline(source_end);
        let disk = &mut self.pg[n].disk;
        disk.newest_timeline = disk.newest_timeline.max(timeline);
        if let Some(server) = self.pg[n].server.as_mut() {
            server.refused = false;
            server.received = Some(mine);
            server.receiver = Some(Receiver {
                connection,
                from,
                name_epoch,
                heard: now,
            });
        }
        if let Some(source) = self.pg[from].server.as_mut() {
            source.senders.push(Sender {
                connection,
                standby: n,
                name_epoch,
                names,
                deaf,
                priority: names.names(n, name_epoch),
                confirmed: 0,
                sent: mine.lsn,
                heard: now,
            });
        }
        self.say(Some(n), format_args!("streams from n{} as e{name_epoch}", from + 1));
        if self.pg[n].aside {
            self.deleted(n);
            self.pg[n].aside = false;
        }
        self.confirm(n);
        self.send_log(from);
        let timeout = self.receiver_timeout();
        self.after(timeout / 2, Event::Stream(Stream::KeepAlive { from, connection }));
        // The receiver gives up on its own clock, whatever became of the other end.
        self.after(timeout + 10 * MS, Event::Silence(n, connection));
        self.kick_agent(n);
    }

    /// Ends the receiver, however that came about.
    pub fn end_receiver(&mut self, n: N) {
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        let Some(receiver) = server.receiver.take() else { return };
        let standby = server.phase == Phase::Standby;
        server.retry_at = self.now + RETRY;
        self.say(Some(n), format_args!("receiver from n{} ended", receiver.from + 1));
        let closed = Stream::Closed {
            from: n,
            to: receiver.from,
            connection: receiver.connection,
        };
        let after = self.latency() + 2 * MS;
        self.after(after, Event::Stream(closed));
        if standby {
            self.inside(n, RETRY + MS, Inside::Retry);
        }
        self.kick_agent(n);
    }

    /// All processes of a server are gone, and its guard knows.
    pub fn server_gone(&mut self, n: N) {
        self.connections_reset(n);
        self.guard_reaps(n);
    }

    /// The kernel of a machine closes the connections of a server that is gone.
    pub fn connections_reset(&mut self, n: N) {
        for other in 0..self.pg.len() {
            let connection = self.pg[other].server.as_ref().and_then(|s| s.receiver);
            if let Some(receiver) = connection.filter(|r| r.from == n) {
                let after = self.latency();
                self.after(
                    after,
                    Event::Stream(Stream::Closed {
                        from: n,
                        to: other,
                        connection: receiver.connection,
                    }),
                );
            }
            let sender = self.pg[other]
                .server
                .as_ref()
                .and_then(|s| s.senders.iter().find(|c| c.standby == n));
            if let Some(connection) = sender.map(|s| s.connection) {
                let after = self.latency();
                self.after(
                    after,
                    Event::Stream(Stream::Closed {
                        from: n,
                        to: other,
                        connection,
                    }),
                );
            }
        }
    }

    /// The log of a server is flushed up to here: walsenders send it, commits go on.
    pub fn flushed(&mut self, n: N, at: Pos) {
        let disk = &mut self.pg[n].disk;
        if disk.flushed.is_some_and(|f| f.branch == at.branch && f.lsn >= at.lsn) {
            return;
        }
        // What was rewound or promoted past in between is not flushed any more.
        if disk.written.is_none_or(|w| w.branch != at.branch || w.lsn < at.lsn) {
            return;
        }
        disk.flushed = Some(at);
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        if server.phase == Phase::Standby || server.phase == Phase::Promoting {
            self.confirm(n);
            let after = self.between(MS / 2, 5 * MS);
            self.inside(n, after, Inside::Replay);
            return;
        }
        for commit in &mut server.waiting {
            commit.flushed |= commit.at.branch == at.branch && commit.at.lsn <= at.lsn;
        }
        let upto = match server.conf.names {
            Names::Empty => u64::MAX,
            Names::Closed | Names::Any { .. } => server.confirmed,
        };
        self.release(n, upto);
        self.send_log(n);
    }

    /// Tells the client of every commit up to here that is flushed.
    pub fn release(&mut self, n: N, upto: u64) {
        while let Some(commit) = self.pg[n].server.as_mut().and_then(|s| pop(s, upto)) {
            self.acknowledged(n, commit.at);
        }
    }

    /// Sends what was flushed since.
    pub fn send_log(&mut self, n: N) {
        let Some(upto) = self.pg[n].disk.flushed else { return };
        let mut slot = 0;
        loop {
            let sender = self.pg[n].server.as_mut().and_then(|s| s.senders.get_mut(slot));
            let Some(sender) = sender else { return };
            slot += 1;
            if sender.sent >= upto.lsn {
                continue;
            }
            sender.sent = upto.lsn;
            let (to, connection) = (sender.standby, sender.connection);
            let after = self.latency();
            let log = Stream::Log {
                from: n,
                to,
                connection,
                upto,
            };
            self.after(after, Event::Stream(log));
        }
    }

    fn confirm(&mut self, n: N) {
        let (Some(at), Some(server)) = (self.pg[n].disk.flushed, self.pg[n].server.as_ref()) else {
            return;
        };
        let Some(receiver) = server.receiver else { return };
        let confirm = Stream::Confirm {
            from: n,
            to: receiver.from,
            connection: receiver.connection,
            flushed: at.lsn,
        };
        let after = self.latency();
        self.after(after, Event::Stream(confirm));
    }

    /// Something on a connection. While the link is cut TCP keeps it and tries again.
    pub fn on_stream(&mut self, what: Stream) {
        let (from, to) = match what {
            Stream::Log { from, to, .. } | Stream::Confirm { from, to, .. } | Stream::Closed { from, to, .. } => {
                (from, to)
            }
            Stream::KeepAlive { from, connection } => return self.keep_alive(from, connection),
        };
        if self.cut(from, to) {
            let again = self.between(60 * MS, 200 * MS);
            self.after(again, Event::Stream(what));
            return;
        }
        match what {
            Stream::Log {
                to, connection, upto, ..
            } => self.log_arrives(to, connection, upto),
            Stream::Confirm {
                to,
                connection,
                flushed,
                ..
            } => self.confirm_arrives(to, connection, flushed),
            Stream::Closed { to, connection, .. } => {
                let Some(server) = self.pg[to].server.as_mut() else {
                    return;
                };
                server.senders.retain(|s| s.connection != connection);
                if server.receiver.is_some_and(|r| r.connection == connection) {
                    self.end_receiver(to);
                }
            }
            Stream::KeepAlive { .. } => {}
        }
    }

    fn log_arrives(&mut self, n: N, connection: u32, upto: Pos) {
        let now = self.now;
        let Instance { disk, server, .. } = &mut self.pg[n];
        let Some(server) = server.as_mut() else { return };
        let Some(receiver) = server.receiver.as_mut().filter(|r| r.connection == connection) else {
            return;
        };
        receiver.heard = now;
        let newer = disk.written.is_none_or(|w| w.lsn < upto.lsn);
        if newer {
            server.received = Some(upto);
            disk.written = Some(upto);
            disk.newest_timeline = disk.newest_timeline.max(self.tree.timeline(upto));
            let after = self.between(MS / 5, 3 * MS);
            self.inside(n, after, Inside::Flushed(upto));
        } else {
            self.confirm(n);
        }
    }

    fn confirm_arrives(&mut self, n: N, connection: u32, flushed: u64) {
        let now = self.now;
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        let Some(sender) = server.senders.iter_mut().find(|s| s.connection == connection) else {
            return;
        };
        sender.heard = now;
        sender.confirmed = sender.confirmed.max(flushed);
        let (priority, names) = (sender.priority, sender.names);
        let Names::Any { need, .. } = names else { return };
        if !priority {
            return;
        }
        // By the configuration of this walsender, over all walsenders that take themselves for synchronous.
        let mut confirmed: Vec<u64> = server
            .senders
            .iter()
            .filter(|s| s.priority)
            .map(|s| s.confirmed)
            .collect();
        if confirmed.len() < usize::from(need) || need == 0 {
            return;
        }
        confirmed.sort_unstable_by(|a, b| b.cmp(a));
        let upto = confirmed[usize::from(need) - 1];
        if upto > server.confirmed {
            server.confirmed = upto;
        }
        let upto = server.confirmed;
        self.release(n, upto);
    }

    fn keep_alive(&mut self, n: N, connection: u32) {
        let now = self.now;
        let Some(upto) = self.pg[n].disk.flushed else { return };
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        let Some(sender) = server.senders.iter().find(|s| s.connection == connection) else {
            return;
        };
        if now > sender.heard + SENDER_TIMEOUT {
            server.senders.retain(|s| s.connection != connection);
            return;
        }
        let to = sender.standby;
        let after = self.latency();
        let log = Stream::Log {
            from: n,
            to,
            connection,
            upto,
        };
        self.after(after, Event::Stream(log));
        let timeout = self.receiver_timeout();
        self.after(timeout / 2, Event::Stream(Stream::KeepAlive { from: n, connection }));
    }

    /// `wal_receiver_timeout`: the agents set it to `detect`.
    fn receiver_timeout(&self) -> Time {
        super::daemon::micros(self.scene.timing.detect)
    }

    /// A receiver that has heard nothing for too long ends.
    pub fn on_silence(&mut self, n: N, connection: u32) {
        let now = self.now;
        let receiver = self.pg[n].server.as_ref().and_then(|s| s.receiver);
        let Some(receiver) = receiver.filter(|r| r.connection == connection) else {
            return;
        };
        let timeout = self.receiver_timeout();
        if now >= receiver.heard + timeout {
            self.end_receiver(n);
        } else {
            self.after(receiver.heard + timeout - now + MS, Event::Silence(n, connection));
        }
    }
}

fn pop(server: &mut Server, upto: u64) -> Option<Commit> {
    if matches!(server.phase, Phase::Stopping) {
        return None;
    }
    let front = server.waiting.front()?;
    (front.flushed && front.at.lsn <= upto).then(|| server.waiting.pop_front())?
}
