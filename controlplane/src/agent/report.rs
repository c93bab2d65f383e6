//! The stream of reports to the master, and what comes back on it.
//!
//! What is observed here enables nothing by itself: the master reads ZooKeeper before it acts. The stream is opened anew at
//! once when mastership moves, and with growing, random pauses when the same master does not answer, so that a thousand
//! nodes do not fall upon it together.

use std::sync::Arc;
use std::time::Duration;

use ha_core::{Holder, MasterRecord};
use ha_proto::v1::agent_service_client::AgentServiceClient;
use ha_proto::v1::{self, master_message::Body};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{Conditions, Dial};
use crate::shared::Shared;
use crate::watch::{Feed, Input, from_wire};

/// Pauses between attempts at the same master.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two questions whether a master's machine refuses connections.
const REFUSED_AGAIN: Duration = Duration::from_millis(30);
/// How long opening the stream may take.
const OPEN: Duration = Duration::from_secs(3);
/// The master is heard at least every second; after this much silence it is looked for again.
const SILENCE: Duration = Duration::from_secs(3);
/// Least distance of two reports, however much changes.
const SPACING: Duration = Duration::from_millis(100);
/// Changes of instances within this time go together.
const TOGETHER: Duration = Duration::from_millis(1);
/// Refused calls in one report.
const DENIED: usize = 16;
/// How long the last report may take to leave.
const FAREWELL: Duration = Duration::from_millis(150);

/// How a stream ended.
enum End {
    /// The daemon is ending; its last report has gone.
    Stopped,
    /// Somebody else is master, or nobody.
    Moved,
    /// It broke, with the reason; whether the master had answered.
    Broken(String, bool),
}

pub(super) struct Reporter {
    pub(super) shared: Shared,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) conditions: Conditions,
    pub(super) usage: watch::Receiver<v1::Usage>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) feed: Feed,
    pub(super) denied: mpsc::Receiver<v1::Denied>,
    pub(super) certificate_expires: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub(super) proxies: Arc<dyn Fn(bool) -> Vec<v1::ProxyReport> + Send + Sync>,
    pub(super) interval: Duration,
    pub(super) local_address: String,
    pub(super) os: String,
    pub(super) databases: super::database::Databases,
    /// Parameters in force that this stream's master knows.
    pub(super) settings: super::database::Sent,
}

impl Reporter {
    /// Reports until the daemon ends.
    pub(super) async fn run(mut self) {
        let mut master = self.shared.master.clone();
        let stop = self.shared.stop.clone();
        let leave = self.shared.leave.clone();
        let mut pause = FIRST_PAUSE;
        let mut complained = false;
        loop {
            let record = master.borrow_and_update().clone();
            let Some(holder) = record.holder.clone() else {
                tokio::select! {
                    changed = master.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                    () = leave.cancelled() => return,
                }
                continue;
            };
            match Box::pin(self.stream(&holder, &record)).await {
                End::Stopped => return,
                End::Moved => {
                    pause = FIRST_PAUSE;
                    complained = false;
                }
                End::Broken(why, answered) => {
                    self.look_for_its_end(&holder).await;
                    if answered {
                        pause = FIRST_PAUSE;
                        complained = false;
                    }
                    // Once for each outage: mastership that moves cuts streams as a matter of course.
                    if !complained && pause > FIRST_PAUSE {
                        complained = true;
                        tracing::warn!(
                            "no reports to the master {} ({}): {why}; trying on",
                            holder.node,
                            holder.address
                        );
                    }
                    let wait = pause.mul_f64(SmallRng::from_os_rng().random_range(0.5..1.5));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        changed = moved(&mut master, &record) => {
                            if !changed {
                                return;
                            }
                            // The silence of one master is nothing to hold against the next.
                            pause = FIRST_PAUSE;
                            complained = false;
                        }
                        () = stop.cancelled() => return,
                        () = leave.cancelled() => return,
                    }
                }
            }
        }
    }

    /// A master whose machine says that nobody listens any more need not be waited for until its lease is over: whoever is
    /// next in line is told. Asked twice, for a daemon that is being started listens a little later.
    async fn look_for_its_end(&self, holder: &Holder) {
        if holder.node == self.shared.me.node || !self.dial.is_refused(&holder.address).await {
            return;
        }
        tokio::time::sleep(REFUSED_AGAIN).await;
        if self.dial.is_refused(&holder.address).await {
            let ended = Some(holder.candidate.clone());
            self.shared.ended_master.send_if_modified(|known| {
                let news = *known != ended;
                *known = ended;
                news
            });
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self, holder: &Holder, record: &MasterRecord) -> End {
        let mut master = self.shared.master.clone();
        let stop = self.shared.stop.clone();
        let leave = self.shared.leave.clone();
        let (reports, outgoing) = mpsc::channel(4);
        // The channel is empty: there is room.
        let _ = reports.try_send(self.report(true));
        // A node that is master itself need not be able to reach the address under which others do.
        let own = holder.node == self.shared.me.node;
        let address = if own {
            self.local_address.clone()
        } else {
            holder.address.clone()
        };
        let dial = Arc::clone(&self.dial);
        let opening = async {
            let channel = dial.dial(&holder.node, &address).await.map_err(|e| e.to_string())?;
            let mut client = AgentServiceClient::new(channel);
            let answer = client.report(ReceiverStream::new(outgoing)).await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|e| e.message().to_owned())
        };
        let opened = tokio::select! {
            opened = timeout(OPEN, opening) => opened,
            changed = moved(&mut master, record) => return if changed { End::Moved } else { End::Stopped },
            () = stop.cancelled() => return End::Stopped,
            () = leave.cancelled() => return End::Stopped,
        };
        let mut messages = match opened {
            Ok(Ok(messages)) => messages,
            Ok(Err(why)) => return End::Broken(why, false),
            Err(_) => return End::Broken(format!("no answer within {} s", OPEN.as_secs()), false),
        };
        let mut answered = false;
        let mut conditions = self.conditions.changes();
        conditions.mark_unchanged();
        let mut databases = self.databases.news();
        databases.mark_unchanged();
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut sent = Instant::now();
        // A refused call that woke this up and is not reported yet.
        let mut first_denied = None;
        loop {
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => {
                        heard = Instant::now();
                        if matches!(message.body, Some(Body::Welcome(_))) {
                            answered = true;
                            tracing::debug!(master = %holder.node, term = message.term, "reporting");
                        }
                        let Some(input) = self.input(message) else { continue };
                        if self.inputs.send(input).await.is_err() {
                            return End::Stopped;
                        }
                    }
                    Ok(None) => return End::Broken("the master ended the stream".to_owned(), answered),
                    Err(e) => return End::Broken(e.message().to_owned(), answered),
                },
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE {
                        return End::Broken(format!("nothing heard for {} s", SILENCE.as_secs()), answered);
                    }
                    self.send(&reports, &mut first_denied, &mut sent);
                }
                // A master that decides waits for nothing else: no distance is kept, and what comes at once goes together.
                changed = databases.changed() => if changed.is_ok() {
                    tokio::time::sleep(TOGETHER).await;
                    databases.mark_unchanged();
                    self.send(&reports, &mut first_denied, &mut sent);
                },
                changed = conditions.changed() => if changed.is_ok() {
                    tokio::time::sleep_until(sent + SPACING).await;
                    self.send(&reports, &mut first_denied, &mut sent);
                },
                denied = self.denied.recv(), if first_denied.is_none() => if let Some(denied) = denied {
                    first_denied = Some(denied);
                    tokio::time::sleep_until(sent + SPACING).await;
                    self.send(&reports, &mut first_denied, &mut sent);
                },
                changed = moved(&mut master, record) => return if changed { End::Moved } else { End::Stopped },
                () = stop.cancelled() => {
                    let mut last = self.report(false);
                    last.restarting = true;
                    let farewell = async {
                        let _ = reports.send(last).await;
                        drop(reports);
                        // The master ends its side when it has read ours to the end.
                        while let Ok(Some(_)) = messages.message().await {}
                    };
                    let _ = timeout(FAREWELL, farewell).await;
                    return End::Stopped;
                }
                () = leave.cancelled() => return End::Stopped,
            }
        }
    }

    /// Sends a report, if the last one has gone: an old measurement is not worth waiting for.
    fn send(&mut self, reports: &mpsc::Sender<v1::AgentReport>, denied: &mut Option<v1::Denied>, sent: &mut Instant) {
        let Ok(place) = reports.try_reserve() else { return };
        let mut report = self.report(false);
        report.denied.extend(denied.take());
        while report.denied.len() < DENIED {
            let Ok(next) = self.denied.try_recv() else { break };
            report.denied.push(next);
        }
        place.send(report);
        *sent = Instant::now();
    }

    fn report(&mut self, first: bool) -> v1::AgentReport {
        if first {
            self.settings.clear();
        }
        let settings = self.databases.settings(&mut self.settings);
        let me = &self.shared.me;
        let (instances, removed_instances) = self.databases.reports();
        v1::AgentReport {
            node: me.node.clone(),
            boot_id: me.boot_id.clone(),
            time_unix_ms: self.shared.clock.wall_ms(),
            usage: Some(*self.usage.borrow()),
            certificate_expires_unix_ms: (self.certificate_expires)(),
            cursor: if first { self.feed.cursor().unwrap_or(0) } else { 0 },
            first,
            conditions: self.conditions.lines(),
            restarting: false,
            denied: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: me.started_ms,
            http_address: me.http_address.clone(),
            os: self.os.clone(),
            instances,
            removed_instances,
            proxies: (self.proxies)(first),
            postgres: self.databases.releases(),
            settings,
        }
    }

    /// What a message brings. Hints go to the instances: they save time and enable nothing.
    fn input(&self, message: v1::MasterMessage) -> Option<Input> {
        match message.body? {
            Body::Welcome(welcome) => return Some(Input::Tail(welcome.tail_seq)),
            Body::Changes(batch) => return Some(Input::Streamed(batch.changes.into_iter().map(from_wire).collect())),
            Body::Beat(_) => {}
            Body::Group(hint) => self.databases.hint(&hint.group, hint.record_version),
            Body::Query(query) => self.databases.query(&query.group, query.id),
            Body::Standbys(seen) => self.databases.standbys(seen),
            Body::Checkpoint(hint) => self.databases.checkpoint(&hint.group),
            Body::Restart(order) => self.databases.restart(&order.group, order.incarnation),
        }
        None
    }
}

/// Waits until mastership is elsewhere than `record` says. False when the daemon is ending.
async fn moved(master: &mut watch::Receiver<MasterRecord>, record: &MasterRecord) -> bool {
    let elsewhere = |now: &MasterRecord| now.term != record.term || now.holder != record.holder;
    master.wait_for(elsewhere).await.is_ok()
}
