//! The node's side of the report stream and of the broadcast, on the simulated network: reports go to whoever the node
//! takes for master, what comes back feeds the real [`watch::drive`], and one subscriber notes each change it is handed.

use std::rc::Rc;
use std::time::Duration;

use controlplane::master::handle::{Command, Handle, HubQuery};
use controlplane::shared::Shared;
use controlplane::watch::{self, Applier, Feed, Input, LOG_GAP, from_wire};
use ha_core::MasterRecord;
use ha_proto::v1::{self, master_message::Body};
use rand::Rng as _;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::executor::Group;
use super::net::{PipeRx, PipeTx};
use super::world::{Machine, World};

/// How often a report is sent.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Silence after which the master is looked for again.
const SILENCE: Duration = Duration::from_secs(3);
/// How long opening a stream may take.
const OPEN: Duration = Duration::from_secs(3);

/// Starts the parts of a daemon that are not the session's.
pub fn spawn(world: &World, machine: &Rc<Machine>, group: Group, shared: &Shared) {
    let feed = Feed::new(shared.coordinator.clone(), shared.clock.clone());
    let (inputs_tx, inputs) = mpsc::channel(64);
    let applied = machine.seen.borrow().last;
    let driven = {
        let (shared, feed) = (shared.clone(), feed.clone());
        async move {
            let applier = Applier::new(applied);
            watch::drive(shared.coordinator.clone(), shared.clock.clone(), applier, inputs, &feed).await;
        }
    };
    world.x.spawn(group, driven);
    world
        .x
        .spawn(group, subscribe(world.clone(), machine.clone(), feed.clone(), applied));
    let agent = Agent {
        world: world.clone(),
        node: machine.node.clone(),
        shared: shared.clone(),
        feed,
        inputs: inputs_tx,
        rng: world.fork_rng(),
    };
    world.x.spawn(group, agent.run());
}

/// Notes each change that the feed hands out. What was noted is never to come again.
async fn subscribe(world: World, machine: Rc<Machine>, feed: Feed, applied: Option<u64>) {
    let mut changes = match applied {
        Some(cursor) => feed.subscribe_after(cursor),
        None => feed.subscribe(),
    };
    loop {
        let change = changes.next().await;
        let mut seen = machine.seen.borrow_mut();
        let (last, seq) = (seen.last, change.seq);
        if last.is_some_and(|last| seq != last + 1) || change.kind == LOG_GAP {
            let what = format!(
                "{} was handed change {seq} ({}) after {last:?}",
                machine.label, change.kind
            );
            world.ledger().wrong(what);
        }
        seen.last = Some(seq);
        seen.changes.push((seq, change.kind.clone()));
    }
}

struct Agent {
    world: World,
    node: String,
    shared: Shared,
    feed: Feed,
    inputs: mpsc::Sender<Input>,
    rng: SmallRng,
}

struct Link {
    reports: PipeTx<v1::AgentReport>,
    messages: PipeRx<v1::MasterMessage>,
}

impl Agent {
    async fn run(mut self) {
        let mut master = self.shared.master.clone();
        let mut pause = Duration::from_millis(50);
        loop {
            let record = master.borrow_and_update().clone();
            let Some(holder) = record.holder.clone() else {
                if master.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let mut moved = master.clone();
            let elsewhere = move |now: &MasterRecord| now.term != record.term || now.holder != record.holder;
            tokio::select! {
                biased;
                _ = moved.wait_for(elsewhere.clone()) => {
                    pause = Duration::from_millis(50);
                    continue;
                }
                answered = self.stream(&holder.node) => {
                    tracing::debug!(target: "had::agent", to = holder.node, answered, "stream ended");
                    if answered {
                        pause = Duration::from_millis(50);
                    }
                }
            }
            let wait = pause.mul_f64(self.rng.random_range(0.5..1.5));
            pause = (pause * 2).min(Duration::from_secs(1));
            let mut moved = master.clone();
            tokio::select! {
                biased;
                _ = moved.wait_for(elsewhere) => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Reports on one stream until it breaks; whether the master answered on it.
    async fn stream(&mut self, to: &str) -> bool {
        let world = self.world.clone();
        let mut answered = false;
        tracing::debug!(target: "had::agent", to, "stream begins");
        tokio::select! {
            biased;
            () = world.net.reset() => {}
            opened = timeout(OPEN, dial(&world, &self.node, to)) => if let Ok(Some(mut link)) = opened {
                self.talk(&mut link, &mut answered).await;
            },
        }
        answered
    }

    async fn talk(&mut self, link: &mut Link, answered: &mut bool) {
        let world = self.world.clone();
        let reset = world.net.reset();
        tokio::pin!(reset);
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut first = true;
        loop {
            tokio::select! {
                biased;
                () = &mut reset => return,
                message = link.messages.recv() => {
                    let Some(message) = message else { return };
                    heard = Instant::now();
                    *answered = true;
                    if self.world.traits.lossy > 0.0 && !self.world.calm.get() && self.rng.random_bool(self.world.traits.lossy) {
                        continue;
                    }
                    let input = match message.body {
                        Some(Body::Welcome(w)) => Input::Tail(w.tail_seq),
                        Some(Body::Changes(c)) => Input::Streamed(c.changes.into_iter().map(from_wire).collect()),
                        Some(
                            Body::Beat(_)
                            | Body::Group(_)
                            | Body::Query(_)
                            | Body::Checkpoint(_)
                            | Body::Restart(_)
                            | Body::Standbys(_),
                        )
                        | None => continue,
                    };
                    if self.inputs.send(input).await.is_err() {
                        return;
                    }
                }
                _ = ticks.tick() => {
                    let report = self.report(std::mem::take(&mut first));
                    if heard.elapsed() > SILENCE || !link.reports.send(report) {
                        return;
                    }
                }
            }
        }
    }

    fn report(&mut self, first: bool) -> v1::AgentReport {
        let me = &self.shared.me;
        v1::AgentReport {
            node: me.node.clone(),
            boot_id: me.boot_id.clone(),
            time_unix_ms: self.shared.clock.wall_ms(),
            usage: Some(v1::Usage {
                cpu_used_milli: self.rng.random_range(0..4000),
                ..v1::Usage::default()
            }),
            cursor: if first { self.feed.cursor().unwrap_or(0) } else { 0 },
            first,
            started_unix_ms: me.started_ms,
            http_address: me.http_address.clone(),
            ..v1::AgentReport::default()
        }
    }
}

/// Opens a stream to the daemon that acts as master on a node.
async fn dial(world: &World, from: &str, to: &str) -> Option<Link> {
    world.net.up(from, to).await;
    sleep(world.net.latency()).await;
    let process = world.acting_on(to)?;
    let handle = process.shared.handle.borrow().clone()?;
    let (reports, reports_rx) = world.net.pipe(from, to);
    let (messages_tx, messages) = world.net.pipe(to, from);
    // The other end is a part of that daemon: it stops and dies with it.
    let end = serve(handle, from.to_owned(), reports_rx, messages_tx, world.clone());
    world.x.spawn(process.group, end);
    Some(Link { reports, messages })
}

/// The master's end of a stream, as its API serves it.
async fn serve(
    handle: Handle,
    node: String,
    mut reports: PipeRx<v1::AgentReport>,
    messages: PipeTx<v1::MasterMessage>,
    world: World,
) {
    let Some(first) = reports.recv().await else { return };
    let stream = world.next_stream();
    let node_ = node.clone();
    let attached = async {
        handle
            .tell(Command::Attached {
                node: node.clone(),
                stream,
            })
            .await
            .ok()?;
        let cursor = first.cursor;
        let asked = handle.ask(|reply| HubQuery::Agent {
            node: node_,
            cursor,
            reply,
        });
        asked.await.ok()?.ok()
    };
    if let Some(mut out) = attached.await {
        let mut next = Some(first);
        loop {
            if let Some(report) = next.take() {
                let report = Box::new(report);
                if handle.tell(Command::Report { stream, report }).await.is_err() {
                    break;
                }
            }
            tokio::select! {
                biased;
                message = out.recv() => match message {
                    Some(message) => if !messages.send(message) { break },
                    None => break,
                },
                report = reports.recv() => match report {
                    Some(report) => next = Some(report),
                    None => break,
                },
                () = messages.closed() => break,
            }
        }
    }
    let _ = handle.tell(Command::Detached { node, stream }).await;
}
