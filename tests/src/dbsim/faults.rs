//! What fails, when, and for how long: drawn from the seed before the run, aimed at roles rather than at names, because who
//! is primary or master is only known when it happens.

use ha_core::database::observed::{Request, Wanted};
use rand::Rng as _;
use rand::rngs::SmallRng;

use super::postgres::Phase;
use super::world::{Event, MS, Machine, N, SECOND, Time, World};

/// Whom a fault is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The record's primary.
    Primary,
    /// One of the others.
    Standby(usize),
    /// The node of the master.
    Master,
    /// A node.
    Node(usize),
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `kill -9` of the postmaster.
    Postmaster(Aim),
    /// Every process of the node is killed; its kernel goes on.
    Processes(Aim),
    /// The power of the node.
    Power(Aim),
    /// Everything on the node stands still.
    Freeze(Aim),
    /// The daemon alone stands still.
    FreezeDaemon(Aim),
    /// The daemon alone is killed.
    Daemon(Aim),
    /// The guard is killed.
    Guard(Aim),
    /// The node reaches nobody.
    Isolate(Aim),
    /// Nothing that the node sends to the other nodes arrives.
    Mute(Aim),
    /// Nothing that the other nodes send to the node arrives.
    Deaf(Aim),
    /// Two nodes do not reach each other.
    Pair(Aim, Aim),
    /// The first node reaches the second and nobody else.
    Island(Aim, Aim),
    /// The node does not reach ZooKeeper.
    ZooKeeper(Aim),
    /// The node and a second one do not reach ZooKeeper.
    ZooKeeperTwo(Aim, Aim),
    /// ZooKeeper answers nobody.
    AllZooKeeper,
    /// Mastership changes hands.
    Unseat,
    /// A configuration file has a line that PostgreSQL refuses.
    BadLine(Aim),
    /// Replay stands still.
    StuckReplay(Aim),
    /// The disk is full.
    DiskFull(Aim),
    /// An operator asks for another primary, or for a restart of this one.
    Switchover(Option<Aim>),
    /// An operator asks for a failover.
    Failover(Option<Aim>),
    /// An operator asks for a fresh copy.
    Reinit(Aim),
    /// Maintenance.
    Maintenance,
}

/// A fault and its time.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// When it begins.
    pub at: Time,
    /// When it ends, where it lasts.
    pub until: Time,
    /// What.
    pub what: What,
}

/// What kind of run it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A few faults of all kinds.
    Mixed,
    /// None.
    Quiet,
    /// Many, on top of each other.
    Storm,
    /// Failovers of the primary, and more while they go on.
    Failover,
    /// Links and ZooKeeper.
    Links,
    /// Standbys come and go: rules change.
    Voters,
    /// Operators.
    Operator,
}

impl Profile {
    /// Draws one.
    pub fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..20) {
            0 => Profile::Quiet,
            1..=3 => Profile::Storm,
            4..=8 => Profile::Failover,
            9..=12 => Profile::Links,
            13..=15 => Profile::Voters,
            16..=17 => Profile::Operator,
            _ => Profile::Mixed,
        }
    }
}

fn aim(rng: &mut SmallRng) -> Aim {
    match rng.random_range(0..10) {
        0..=4 => Aim::Primary,
        5..=6 => Aim::Standby(rng.random_range(0..4)),
        7 => Aim::Master,
        _ => Aim::Node(rng.random_range(0..5)),
    }
}

fn standby(rng: &mut SmallRng) -> Aim {
    Aim::Standby(rng.random_range(0..4))
}

fn any(rng: &mut SmallRng) -> What {
    let a = aim(rng);
    match rng.random_range(0..24) {
        0 | 1 => What::Postmaster(a),
        2 | 3 => What::Processes(a),
        4 | 5 => What::Power(a),
        6 => What::Freeze(a),
        7 => What::FreezeDaemon(a),
        8 => What::Daemon(a),
        9 => What::Guard(a),
        10 => What::Isolate(a),
        11 => What::Mute(a),
        12 => What::Deaf(a),
        13 if rng.random_bool(0.5) => What::Island(a, standby(rng)),
        13 => What::Pair(a, standby(rng)),
        14 => What::ZooKeeper(a),
        15 => What::ZooKeeperTwo(a, standby(rng)),
        16 => What::AllZooKeeper,
        17 => What::Unseat,
        18 => What::BadLine(a),
        19 => What::StuckReplay(standby(rng)),
        20 => What::DiskFull(a),
        21 => What::Switchover(None),
        22 => What::Failover(None),
        _ => What::Reinit(standby(rng)),
    }
}

fn one(rng: &mut SmallRng, profile: Profile) -> What {
    let p = Aim::Primary;
    let s = standby(rng);
    match profile {
        Profile::Mixed | Profile::Storm | Profile::Quiet => any(rng),
        Profile::Failover => match rng.random_range(0..9) {
            0..=2 => What::Postmaster(p),
            3 => What::Processes(p),
            4 => What::Power(p),
            5 => What::Freeze(p),
            6 => What::StuckReplay(s),
            7 => What::Postmaster(s),
            _ => any(rng),
        },
        Profile::Links => match rng.random_range(0..10) {
            0 => What::Isolate(p),
            1 => What::Pair(p, s),
            2 => What::Mute(p),
            3 => What::Deaf(p),
            4 => What::ZooKeeper(p),
            5 => What::ZooKeeperTwo(p, s),
            6 => What::AllZooKeeper,
            7 => What::FreezeDaemon(s),
            8 => What::Daemon(s),
            _ => any(rng),
        },
        Profile::Voters => match rng.random_range(0..8) {
            0..=1 => What::Power(s),
            2 => What::Processes(s),
            3 => What::Isolate(s),
            4 => What::BadLine(p),
            5 => What::Reinit(s),
            6 => What::Pair(p, s),
            _ => any(rng),
        },
        Profile::Operator => match rng.random_range(0..8) {
            0..=2 => What::Switchover(rng.random_bool(0.5).then_some(if rng.random_bool(0.3) { p } else { s })),
            3 => What::Failover(rng.random_bool(0.5).then_some(s)),
            4 => What::Reinit(s),
            5 => What::Maintenance,
            6 => What::Unseat,
            _ => any(rng),
        },
    }
}

/// Draws the faults of a run.
pub fn draw(rng: &mut SmallRng, profile: Profile, from: Time, until: Time) -> Vec<Planned> {
    let count = match profile {
        Profile::Quiet => 0,
        Profile::Mixed => rng.random_range(1..=3),
        Profile::Storm => rng.random_range(5..=10),
        Profile::Failover | Profile::Links | Profile::Voters | Profile::Operator => rng.random_range(2..=5),
    };
    let mut plan: Vec<Planned> = Vec::with_capacity(count);
    for _ in 0..count {
        // What hits while something else goes on finds more than what hits in peace.
        let at = match plan.last() {
            Some(last) if rng.random_bool(0.5) => last.at + rng.random_range(0..1500 * MS),
            _ => rng.random_range(from..until),
        };
        let lasts = match rng.random_range(0..3) {
            0 => rng.random_range(50 * MS..600 * MS),
            1 => rng.random_range(600 * MS..3 * SECOND),
            _ => rng.random_range(2 * SECOND..8 * SECOND),
        };
        let at = at.min(until);
        let what = one(rng, profile);
        plan.push(Planned {
            at,
            until: (at + lasts).min(until),
            what,
        });
    }
    plan
}

impl World {
    fn aimed(&self, aim: Aim) -> N {
        let count = self.machines.len();
        let record = &self.zk.truth().record.state;
        let primary = record
            .primary
            .as_ref()
            .or(record.former.as_ref())
            .and_then(|p| self.node(p))
            .unwrap_or(0);
        match aim {
            Aim::Primary => primary,
            Aim::Standby(k) => (primary + 1 + k % (count - 1)) % count,
            Aim::Master => self.zk.truth().leader.and_then(|s| self.zk.owner(s)).unwrap_or(0),
            Aim::Node(k) => k % count,
        }
    }

    /// A planned fault begins (even) or ends (odd).
    pub fn fault(&mut self, index: usize) {
        let Some(planned) = self.scene.plan.get(index / 2).copied() else {
            return;
        };
        if index.is_multiple_of(2) {
            let (first, second) = aims(planned.what);
            let first = first.map_or(0, |a| self.aimed(a));
            let second = second.map_or(0, |a| self.aimed(a));
            self.say(None, format_args!("FAULT {:?} (n{})", planned.what, first + 1));
            self.struck[index / 2] = (first, second);
            self.strike(planned, first, second);
            let lasts = planned.until.saturating_sub(self.now);
            self.after(lasts, Event::Fault(index + 1));
        } else {
            let (first, second) = self.struck[index / 2];
            self.mend(planned.what, first, second);
        }
    }

    fn strike(&mut self, planned: Planned, n: N, m: N) {
        let others = (0..self.machines.len()).filter(|o| *o != n).collect::<Vec<_>>();
        match planned.what {
            What::Postmaster(_) => {
                self.pg_kill_postmaster(n);
                let after = self.between(MS / 5, 30 * MS);
                self.after(after, Event::Noticed(n));
            }
            What::Processes(_) => {
                self.pg[n].server = None;
                self.connections_reset(n);
                self.kill_daemon(n, true);
                self.machines[n].guard = super::world::Guard::default();
            }
            What::Power(_) => self.power_off(n),
            What::Freeze(_) => self.machines[n].frozen_until = self.machines[n].frozen_until.max(planned.until),
            What::FreezeDaemon(_) => {
                let m = &mut self.machines[n];
                m.daemon_frozen_until = m.daemon_frozen_until.max(planned.until);
            }
            What::Daemon(_) => self.kill_daemon(n, true),
            What::Guard(_) => self.guard_killed(n),
            What::Isolate(_) => {
                self.zk.unreachable[n] += 1;
                for o in others {
                    self.cuts.extend([(n, o), (o, n)]);
                }
            }
            What::Mute(_) => self.cuts.extend(others.iter().map(|o| (n, *o))),
            What::Deaf(_) => self.cuts.extend(others.iter().map(|o| (*o, n))),
            What::Island(..) => {
                self.zk.unreachable[n] += 1;
                for o in others.into_iter().filter(|o| *o != m) {
                    self.cuts.extend([(n, o), (o, n)]);
                }
            }
            What::Pair(..) => self.cuts.extend([(n, m), (m, n)]),
            What::ZooKeeper(_) => self.zk.unreachable[n] += 1,
            What::ZooKeeperTwo(..) => {
                self.zk.unreachable[n] += 1;
                self.zk.unreachable[m] += 1;
            }
            What::AllZooKeeper => self.zk.down += 1,
            What::Unseat => self.unseat(),
            What::BadLine(_) => self.pg[n].disk.bad_line = true,
            What::StuckReplay(_) => self.stuck(n, true),
            What::DiskFull(_) => self.disk_full(n, true),
            What::Switchover(Some(Aim::Primary)) => self.request(Wanted::Restart),
            What::Switchover(to) => {
                let to = to.map(|_| self.scene.names[n].clone());
                self.request(Wanted::Switchover { to, at_ms: None });
            }
            What::Failover(to) => {
                let to = to.map(|_| self.scene.names[n].clone());
                self.request(Wanted::Failover {
                    to,
                    allow_data_loss: false,
                });
            }
            What::Reinit(_) => {
                let node = self.scene.names[n].clone();
                self.request(Wanted::Reinit { node });
            }
            What::Maintenance => self.maintenance = true,
        }
    }

    fn mend(&mut self, what: What, n: N, m: N) {
        let others = (0..self.machines.len()).filter(|o| *o != n).collect::<Vec<_>>();
        self.say(None, format_args!("over {what:?} (n{})", n + 1));
        match what {
            What::Processes(_) | What::Daemon(_) => self.after(MS, Event::StartDaemon(n)),
            What::Power(_) => self.after(MS, Event::Boot(n)),
            What::Isolate(_) => {
                self.zk.unreachable[n] -= 1;
                for o in others {
                    self.uncut(n, o);
                    self.uncut(o, n);
                }
            }
            What::Island(..) => {
                self.zk.unreachable[n] -= 1;
                for o in others.into_iter().filter(|o| *o != m) {
                    self.uncut(n, o);
                    self.uncut(o, n);
                }
            }
            What::Mute(_) => others.iter().for_each(|o| self.uncut(n, *o)),
            What::Deaf(_) => others.iter().for_each(|o| self.uncut(*o, n)),
            What::Pair(..) => {
                self.uncut(n, m);
                self.uncut(m, n);
            }
            What::ZooKeeper(_) => self.zk.unreachable[n] -= 1,
            What::ZooKeeperTwo(..) => {
                self.zk.unreachable[n] -= 1;
                self.zk.unreachable[m] -= 1;
            }
            What::AllZooKeeper => self.zk.down -= 1,
            What::BadLine(_) => self.pg[n].disk.bad_line = false,
            What::StuckReplay(_) => self.stuck(n, false),
            What::DiskFull(_) => self.disk_full(n, false),
            What::Maintenance => self.maintenance = false,
            What::Guard(_) => self.guard_restarts(n),
            What::Postmaster(_)
            | What::Freeze(_)
            | What::FreezeDaemon(_)
            | What::Unseat
            | What::Switchover(_)
            | What::Failover(_)
            | What::Reinit(_) => {}
        }
    }

    fn uncut(&mut self, from: N, to: N) {
        if let Some(at) = self.cuts.iter().position(|c| *c == (from, to)) {
            self.cuts.swap_remove(at);
        }
    }

    fn stuck(&mut self, n: N, stuck: bool) {
        if let Some(server) = self.pg[n].server.as_mut() {
            server.replay_stuck = stuck && server.phase == Phase::Standby;
        }
    }

    fn disk_full(&mut self, n: N, full: bool) {
        self.pg[n].disk.full = full;
        let clock = self.clock(n);
        if let Some(daemon) = self.daemons[n].as_mut() {
            daemon.probe_failing = full.then_some(clock);
        }
        self.kick_agent(n);
    }

    fn request(&mut self, what: Wanted) {
        self.writes += 1;
        let operation = format!("op{}", self.writes);
        self.say(None, format_args!("request {operation}: {what:?}"));
        self.requests.push(Request { operation, what });
    }

    /// The power of a machine goes.
    pub fn power_off(&mut self, n: N) {
        if !self.machines[n].up {
            return;
        }
        self.kill_daemon(n, false);
        self.pg_power_off(n);
        self.machines[n].guard = super::world::Guard::default();
        self.machines[n].up = false;
        self.machines[n].frozen_until = 0;
        self.machines[n].daemon_frozen_until = 0;
    }

    /// A machine comes up; its clock begins anew.
    pub fn boot(&mut self, n: N) {
        if self.machines[n].up {
            return;
        }
        let offset = self.between(SECOND, 100 * SECOND);
        self.machines[n] = Machine {
            up: true,
            offset,
            lives: self.machines[n].lives,
            drift: self.machines[n].drift,
            wall_offset: self.machines[n].wall_offset,
            ..Machine::default()
        };
        self.say(Some(n), format_args!("boots"));
        let after = self.between(MS, 300 * MS);
        self.after(after, Event::StartDaemon(n));
    }

    /// Every fault is over.
    pub fn heal(&mut self) {
        self.say(None, format_args!("ALL FAULTS ARE OVER"));
        self.cuts.clear();
        self.zk.unreachable.iter_mut().for_each(|u| *u = 0);
        self.zk.down = 0;
        self.maintenance = false;
        self.traits.calm();
        for n in 0..self.machines.len() {
            self.pg[n].disk.bad_line = false;
            self.stuck(n, false);
            if self.pg[n].disk.full {
                self.disk_full(n, false);
            }
            if !self.machines[n].up {
                self.after(MS, Event::Boot(n));
            }
            self.guard_restarts(n);
            self.after(2 * MS, Event::StartDaemon(n));
        }
        // A walsender that never reads its configuration is one more fault.
        for instance in &mut self.pg {
            if let Some(server) = instance.server.as_mut() {
                server.senders.iter_mut().for_each(|s| s.deaf = false);
            }
        }
    }
}

fn aims(what: What) -> (Option<Aim>, Option<Aim>) {
    match what {
        What::Postmaster(a)
        | What::Processes(a)
        | What::Power(a)
        | What::Freeze(a)
        | What::FreezeDaemon(a)
        | What::Daemon(a)
        | What::Guard(a)
        | What::Isolate(a)
        | What::Mute(a)
        | What::Deaf(a)
        | What::ZooKeeper(a)
        | What::BadLine(a)
        | What::StuckReplay(a)
        | What::DiskFull(a)
        | What::Reinit(a) => (Some(a), None),
        What::Pair(a, b) | What::ZooKeeperTwo(a, b) | What::Island(a, b) => (Some(a), Some(b)),
        What::Switchover(to) | What::Failover(to) => (to, None),
        What::AllZooKeeper | What::Unseat | What::Maintenance => (None, None),
    }
}
