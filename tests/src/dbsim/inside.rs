//! What happens inside a simulated server by itself: recovery, promotion, reloads that each process follows in its own time.

use super::postgres::{Conf, Inside, Names, Phase};
use super::wal::{Branch, Pos};
use super::world::{MS, N, Time, World};

impl World {
    /// Something happened inside a server.
    pub fn on_inside(&mut self, n: N, incarnation: u32, what: Inside) {
        let Some(server) = self.pg[n].server.as_mut().filter(|s| s.incarnation == incarnation) else {
            return;
        };
        match what {
            Inside::Started => self.started(n),
            Inside::Flushed(at) => self.flushed(n, at),
            Inside::Replay => {
                let end = self.pg[n].disk.flushed;
                if let (Some(end), Some(server)) = (end, self.pg[n].server.as_mut())
                    && !server.replay_stuck
                    && server.phase == Phase::Standby
                {
                    server.replayed = end;
                }
            }
            Inside::SenderReload(connection) => {
                let names = server.conf.names;
                if let Some(sender) = server.senders.iter_mut().find(|s| s.connection == connection) {
                    sender.names = names;
                    sender.priority = names.names(sender.standby, sender.name_epoch);
                }
            }
            Inside::Reload(conf) => self.reloaded(n, conf),
            Inside::StartupReload => {
                if server.replay_stuck && server.phase == Phase::Standby {
                    // It waits elsewhere: what it read it acts upon when it wants more log.
                    self.inside(n, 50 * MS, what);
                    return;
                }
                if server.follow != server.conf.follow {
                    server.follow = server.conf.follow;
                    server.refused = false;
                    self.end_receiver(n);
                    self.inside(n, MS, Inside::Retry);
                }
            }
            Inside::Promoted => self.promoted(n),
            Inside::Retry => self.start_receiver(n),
            Inside::StopCheck(since) => self.stop_check(n, since),
            Inside::Gone => {
                self.pg[n].server = None;
                self.say(Some(n), format_args!("postgres is gone"));
                self.server_gone(n);
            }
            Inside::ReceiverEnds(connection) => {
                if server.receiver.is_some_and(|r| r.connection == connection) {
                    self.end_receiver(n);
                }
            }
        }
    }

    fn started(&mut self, n: N) {
        let instance = &mut self.pg[n];
        let (Some(server), Some(written)) = (instance.server.as_mut(), instance.disk.written) else {
            return;
        };
        if !server.postmaster || server.doomed || server.phase != Phase::Starting {
            return;
        }
        instance.disk.flushed = Some(written);
        if instance.disk.standby_signal {
            server.phase = Phase::Standby;
            server.replayed = written;
            self.inside(n, MS, Inside::Retry);
            self.say(Some(n), format_args!("standby at {}/{}", written.branch, written.lsn));
        } else {
            // Crash recovery ends with a record of its own on the same timeline.
            let at = Pos {
                lsn: written.lsn + 1,
                ..written
            };
            server.phase = Phase::Primary;
            server.replayed = at;
            server.recovered = Some(at.lsn);
            instance.disk.written = Some(at);
            instance.disk.restart_point = at.lsn;
            self.say(Some(n), format_args!("primary in place at {}/{}", at.branch, at.lsn));
            self.flushed(n, at);
        }
        self.kick_agent(n);
    }

    fn promoted(&mut self, n: N) {
        let instance = &mut self.pg[n];
        let (Some(server), Some(end)) = (instance.server.as_mut(), instance.disk.flushed) else {
            return;
        };
        if !server.postmaster || server.doomed || server.phase != Phase::Promoting {
            return;
        }
        let epoch = self.kept[n].marks.promotion.unwrap_or_default();
        let timeline = instance.disk.newest_timeline.max(self.tree.timeline(end)) + 1;
        let branch = self.tree.add(Branch {
            parent: Some(end),
            timeline,
            epoch,
        });
        let at = Pos {
            branch,
            lsn: end.lsn + 1,
        };
        let instance = &mut self.pg[n];
        instance.disk.standby_signal = false;
        instance.disk.newest_timeline = timeline;
        instance.disk.written = Some(at);
        instance.disk.restart_point = at.lsn;
        if let Some(server) = instance.server.as_mut() {
            server.phase = Phase::Primary;
            server.replayed = at;
            server.promoted = Some(branch);
        }
        self.say(
            Some(n),
            format_args!("promoted at {}/{} to timeline {timeline}", end.branch, end.lsn),
        );
        self.flushed(n, at);
        self.kick_agent(n);
    }

    fn stop_check(&mut self, n: N, since: Time) {
        let Some(end) = self.pg[n].disk.flushed else { return };
        let Some(server) = self.pg[n].server.as_ref() else {
            return;
        };
        if server.doomed || !server.postmaster {
            return;
        }
        let behind = server.senders.iter().any(|s| s.confirmed < end.lsn);
        if behind && self.now < since + 12_000 * MS {
            self.inside(n, 10 * MS, Inside::StopCheck(since));
            return;
        }
        self.pg[n].server = None;
        self.pg[n].disk.restart_point = end.lsn;
        self.say(Some(n), format_args!("postgres stopped at {}/{}", end.branch, end.lsn));
        self.server_gone(n);
    }

    fn reloaded(&mut self, n: N, conf: Conf) {
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        if !server.postmaster || server.doomed {
            return;
        }
        let before = server.conf;
        server.conf = conf;
        let open = conf.names != Names::Closed && server.phase == Phase::Primary;
        if before.names != conf.names {
            let connections: Vec<(u32, bool)> = server.senders.iter().map(|s| (s.connection, s.deaf)).collect();
            for (connection, deaf) in connections {
                let late = self.traits.late_reload;
                let after = if deaf {
                    self.between(3000 * MS, 30_000 * MS)
                } else if self.chance(late) {
                    self.between(20 * MS, 2000 * MS)
                } else {
                    self.between(MS / 10, 5 * MS)
                };
                self.inside(n, after, Inside::SenderReload(connection));
            }
            // The checkpointer wakes everybody who waits for nobody.
            if conf.names == Names::Empty {
                self.release(n, u64::MAX);
            }
        }
        if open {
            self.opened(n, conf.names);
        }
        let after = self.between(MS / 5, 5 * MS);
        self.inside(n, after, Inside::StartupReload);
    }
}
