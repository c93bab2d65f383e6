//! The faults of a run: a schedule drawn from the seed, and how each is carried out.

use std::rc::Rc;
use std::time::Duration;

use controlplane::coordination::{Fault, FaultPlan};
use controlplane::master::handle::Request;
use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::client::{Answer, Clients};
use super::ledger::Trap;
use super::world::{CLIENTS, FAULTS, Machine, World};

/// Whom a fault befalls.
#[derive(Debug, Clone)]
pub enum Whom {
    /// Whoever acts as master then.
    Master,
    /// This machine.
    Machine(String),
}

/// What happens.
#[derive(Debug, Clone)]
pub enum What {
    /// SIGKILL, and a start after this time.
    Crash(Whom, Duration),
    /// SIGTERM, and a start after this time.
    Restart(Whom, Duration),
    /// SIGSTOP for this time.
    Pause(Whom, Duration),
    /// The node leaves for good.
    Leave(Whom),
    /// Its session expires.
    Expire(Whom),
    /// Its connections to the server are refused for this time.
    Disconnect(Whom, Duration),
    /// Its packets to and from the server are lost for this time.
    Partition(Whom, Duration),
    /// The server stands still.
    Freeze(Duration),
    /// The server is killed and started again.
    Outage(Duration),
    /// The link between two nodes is cut.
    Cut(String, String, Duration),
    /// Requests to the server and replies are lost and late.
    Storm(FaultPlan, Duration),
    /// One fault for the next write that the client makes below a path.
    Inject(Whom, &'static str, Fault),
    /// Whoever writes next below a path is killed at once, and started after a time.
    CrashAt(&'static str, Duration),
    /// The master's next write below a path takes this long on its way, and it is killed meanwhile and started after the
    /// second time: its successor may be there before the write.
    Overtaken(&'static str, Duration, Duration),
    /// Every daemon is killed, and started after this time.
    Blackout(Duration),
    /// Whoever writes next below a path is stopped at once for a time.
    PauseAt(&'static str, Duration),
    /// Another daemon of the same name, perhaps with a copy of the state directory.
    Twin(String, bool, Duration),
}

/// What happens when.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Time since the beginning.
    pub at: Duration,
    /// The fault.
    pub what: What,
}

const PATHS: [&str; 9] = [
    "/master",
    "/changes",
    "/assignments",
    "/nodes",
    "/members",
    "/leases",
    "/election",
    "/access",
    "/ops",
];

fn ms(rng: &mut SmallRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

/// Up to three session timeouts, short ones as often as long ones.
fn spell(rng: &mut SmallRng, timeout: Duration) -> Duration {
    let most = timeout * 3;
    let short = Duration::from_millis(20);
    let exponent: f64 = rng.random();
    short.mul_f64((most.as_secs_f64() / short.as_secs_f64()).powf(exponent))
}

fn whom(rng: &mut SmallRng, nodes: &[String]) -> Whom {
    match nodes.choose(rng) {
        Some(node) if rng.random_bool(0.5) => Whom::Machine(node.clone()),
        _ => Whom::Master,
    }
}

/// Draws what happens in a run: of a few kinds only, for a run with all kinds at once is no harder than one with many.
pub fn draw(rng: &mut SmallRng, nodes: &[String], timeout: Duration, until: Duration) -> Vec<Planned> {
    const KINDS: u32 = 17;
    let kinds: Vec<u32> = (0..KINDS).filter(|_| rng.random_bool(0.35)).collect();
    let count = rng.random_range(0..=9);
    let mut plan: Vec<Planned> = (0..count)
        .filter_map(|_| {
            let kind = *kinds.choose(rng)?;
            let at = ms(rng, 0..u64::try_from(until.as_millis()).unwrap_or(1));
            let what = one(rng, kind, nodes, timeout);
            Some(Planned { at, what })
        })
        .collect();
    plan.sort_by_key(|p| p.at);
    plan
}

fn one(rng: &mut SmallRng, kind: u32, nodes: &[String], timeout: Duration) -> What {
    let spell = spell(rng, timeout);
    let whom = whom(rng, nodes);
    match kind {
        0 => What::Crash(whom, spell),
        1 => What::Restart(whom, spell),
        2 | 3 => What::Pause(whom, spell),
        4 => What::Expire(whom),
        5 => What::Disconnect(whom, spell),
        6 => What::Partition(whom, spell),
        7 => What::Freeze(spell),
        8 => What::Outage(spell),
        9 => {
            let a = nodes.choose(rng).cloned().unwrap_or_default();
            let b = nodes.iter().filter(|n| **n != a).collect::<Vec<_>>();
            let b = b.choose(rng).map_or(String::new(), |b| (*b).clone());
            What::Cut(a, b, spell)
        }
        10 => {
            let p = |rng: &mut SmallRng| {
                if rng.random_bool(0.5) {
                    rng.random_range(0.0..0.1)
                } else {
                    0.0
                }
            };
            let plan = FaultPlan {
                lose_request: p(rng),
                lose_reply: p(rng),
                late_write: p(rng),
                late_by: Duration::from_millis(1)..Duration::from_millis(rng.random_range(2..2000)),
                delay: Duration::from_millis(1)..Duration::from_millis(rng.random_range(2..150)),
                read_lag: Duration::ZERO..Duration::from_millis(rng.random_range(0..600)),
            };
            What::Storm(plan, spell)
        }
        11 => {
            let fault = match rng.random_range(0..4) {
                0 => Fault::LoseReply,
                1 => Fault::LoseRequest,
                2 => Fault::Late(ms(rng, 1..3000)),
                _ => Fault::Delay(ms(rng, 1..2000)),
            };
            What::Inject(whom, PATHS.choose(rng).unwrap_or(&"/changes"), fault)
        }
        12 => What::CrashAt(PATHS.choose(rng).unwrap_or(&"/changes"), spell),
        13 => What::PauseAt(PATHS.choose(rng).unwrap_or(&"/changes"), spell),
        14 => What::Overtaken(
            [
                "/nodes",
                "/assignments",
                "/changes",
                "/cluster",
                "/access",
                "/ops",
                "/master",
            ]
            .choose(rng)
            .unwrap_or(&"/nodes"),
            ms(rng, 50..3000),
            ms(rng, 1..200),
        ),
        15 if rng.random_bool(0.5) => What::Blackout(spell),
        _ => match rng.random_range(0..3) {
            0 => What::Leave(whom),
            n => {
                let node = nodes.choose(rng).cloned().unwrap_or_default();
                What::Twin(node, n == 1, spell)
            }
        },
    }
}

/// Carries faults out.
#[derive(Clone)]
pub struct Director {
    /// The cluster.
    pub world: World,
    /// Those who ask for what a fault needs.
    pub clients: Clients,
    /// The network's usual behaviour.
    pub usual: FaultPlan,
}

impl Director {
    /// Carries out a schedule.
    pub async fn run(self, plan: Vec<Planned>) {
        for (number, planned) in plan.into_iter().enumerate() {
            let now = self.world.trace.elapsed();
            sleep(planned.at.saturating_sub(now)).await;
            self.world.trace.say("fault", format!("{:?}", planned.what));
            let director = self.clone();
            let rng = self.world.fork_rng();
            let number = u32::try_from(number).unwrap_or(0);
            self.world.x.spawn(FAULTS, director.befall(number, planned.what, rng));
        }
    }

    fn find(&self, whom: &Whom) -> Option<Rc<Machine>> {
        match whom {
            Whom::Master => self.world.master(),
            Whom::Machine(label) => self.world.machine(label),
        }
    }

    async fn befall(self, number: u32, what: What, mut rng: SmallRng) {
        let world = &self.world;
        match what {
            What::Crash(whom, down) => {
                let Some(machine) = self.find(&whom) else { return };
                self.crash(&machine, down).await;
            }
            What::Restart(whom, down) => {
                let Some(machine) = self.find(&whom) else { return };
                if let Some(process) = machine.process() {
                    machine.wanted.set(false);
                    process.shared.stop.cancel();
                    sleep(down).await;
                    // What has not ended by then is killed, as a service manager does.
                    world.crash(&machine);
                    world.start(&machine);
                }
            }
            What::Pause(whom, time) => {
                let Some(machine) = self.find(&whom) else { return };
                self.pause(&machine, time).await;
            }
            What::Leave(whom) => {
                let Some(machine) = self.find(&whom) else { return };
                let request = Request::LeaveNode {
                    name: machine.node.clone(),
                    reason: "moves away".to_owned(),
                };
                // Whoever asked waits for the answer even when the faults end.
                let (tell, answer) = oneshot::channel();
                let clients = self.clients.clone();
                world.x.spawn(CLIENTS, async move {
                    let answer = clients.ask(&mut rng, request).await;
                    let _ = tell.send(answer);
                });
                if let Ok(Answer::Done { .. }) = answer.await
                    && let Some(process) = machine.process()
                {
                    machine.wanted.set(false);
                    process.shared.leave.cancel();
                }
            }
            What::Expire(whom) => {
                let Some(machine) = self.find(&whom) else { return };
                self.expire(&machine).await;
            }
            What::Disconnect(whom, time) => {
                let Some(machine) = self.find(&whom) else { return };
                world.server.disconnect(&machine.label);
                sleep(time).await;
                world.server.reconnect(&machine.label);
            }
            What::Partition(whom, time) => {
                let Some(machine) = self.find(&whom) else { return };
                world.server.partition(&machine.label);
                sleep(time).await;
                world.server.reconnect(&machine.label);
            }
            What::Freeze(time) => {
                world.server.freeze();
                sleep(time).await;
                world.server.thaw();
            }
            What::Outage(time) => {
                world.server.crash();
                sleep(time).await;
                world.server.recover();
            }
            What::Cut(a, b, time) => {
                world.net.cut(&a, &b);
                sleep(time).await;
                world.net.mend(&a, &b);
            }
            What::Storm(plan, time) => {
                world.server.set_plan(plan);
                sleep(time).await;
                world.server.set_plan(self.usual.clone());
            }
            What::Inject(whom, path, fault) => {
                let Some(machine) = self.find(&whom) else { return };
                world.server.inject(&machine.label, path, fault);
            }
            What::CrashAt(path, time) => {
                if let Some(machine) = self.trapped(number, path).await {
                    self.crash(&machine, time).await;
                }
            }
            What::PauseAt(path, time) => {
                if let Some(machine) = self.trapped(number, path).await {
                    self.pause(&machine, time).await;
                    if let Some(process) = machine.process() {
                        self.world.x.resume(process.group);
                    }
                }
            }
            What::Overtaken(path, late, down) => {
                let Some(machine) = self.find(&Whom::Master) else {
                    return;
                };
                world.server.inject(&machine.label, path, Fault::Delay(late));
                world.light_fuse(number, &machine.label);
                let label = world.caught(number).await;
                if let Some(machine) = world.machine(&label) {
                    self.crash(&machine, down).await;
                }
            }
            What::Blackout(down) => {
                let machines = world.machines();
                machines.iter().for_each(|m| world.crash(m));
                sleep(down).await;
                let own = machines.iter().filter(|m| m.label == m.node);
                own.for_each(|m| world.start(m));
            }
            What::Twin(node, same_token, time) => self.twin(number, &node, same_token, time).await,
        }
    }

    /// No server gives a session up before its time: who might act is cut off until then. The others may be told at once.
    async fn expire(&self, machine: &Machine) {
        let server = &self.world.server;
        if machine.process().is_none_or(|p| p.shared.handle.borrow().is_none()) {
            server.expire(&machine.label);
            return;
        }
        server.partition(&machine.label);
        while server.sessions().values().any(|client| *client == machine.label) {
            sleep(self.world.traits.timeout / 20).await;
        }
        server.reconnect(&machine.label);
    }

    async fn crash(&self, machine: &Rc<Machine>, down: Duration) {
        self.world.crash(machine);
        sleep(down).await;
        self.world.start(machine);
    }

    async fn pause(&self, machine: &Rc<Machine>, time: Duration) {
        let Some(process) = machine.process() else { return };
        self.world.trace.say(&machine.label, "stopped");
        self.world.x.pause(process.group);
        sleep(time).await;
        self.world.trace.say(&machine.label, "continued");
        self.world.x.resume(process.group);
    }

    /// Waits for the trap to spring; whom it caught.
    async fn trapped(&self, number: u32, path: &str) -> Option<Rc<Machine>> {
        let trap = Trap {
            path: path.to_owned(),
            number,
        };
        self.world.ledger().traps.push(trap);
        let client = self.world.caught(number).await;
        self.world.machine(&client)
    }

    async fn twin(&self, number: u32, node: &str, same_token: bool, time: Duration) {
        let label = format!("{node}~{number}");
        let token = if same_token {
            format!("token-{node}")
        } else {
            format!("token-{label}")
        };
        let twin = self.world.add_machine(node, &label, &token);
        self.world.start(&twin);
        sleep(time).await;
        self.world.crash(&twin);
    }
}
