//! The end of a run: the faults stop, and within some time everything has to be well again, without a hand.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use controlplane::coordination::FaultPlan;
use controlplane::master::handle::{HubQuery, Request};
use ha_proto::v1;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Answer, Clients};
use super::watcher::Folded;
use super::world::{FAULTS, World};

/// How long it may take until everything is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// What watchers and followers have come to.
#[derive(Clone, Default)]
pub struct Watched {
    /// Last change the follower was sent.
    pub followed: Rc<RefCell<u64>>,
    /// What the watcher has put together.
    pub folded: Rc<RefCell<Folded>>,
}

/// What the end needs of a run.
pub struct End {
    /// The cluster.
    pub world: World,
    /// Those who asked.
    pub clients: Clients,
    /// The cluster's nodes.
    pub nodes: Vec<String>,
    /// The server's usual behaviour.
    pub usual: FaultPlan,
    /// Those who watched.
    pub watched: Watched,
}

impl End {
    /// Ends every fault, waits until all is well and checks what must hold then. The time it took.
    pub async fn heal_and_check(&self, mut rng: SmallRng) -> Duration {
        self.heal();
        let begun = Instant::now();
        let restored = timeout(PATIENCE, self.restore(&mut rng)).await.is_ok();
        let mut why = "the nodes could not be restored".to_owned();
        let well = loop {
            if restored {
                match self.well().await {
                    Ok(()) => break true,
                    Err(e) => why = e,
                }
            }
            if begun.elapsed() > PATIENCE {
                break false;
            }
            sleep(Duration::from_millis(200)).await;
        };
        let took = begun.elapsed();
        if well {
            self.settled();
        } else {
            let waiting = self.clients.waiting.borrow().clone();
            let waiting = if waiting.is_empty() {
                String::new()
            } else {
                format!("; waiting: {waiting:?}")
            };
            self.world.ledger().wrong(format!(
                "not well {} s after the faults ended: {why}{waiting}",
                took.as_secs()
            ));
        }
        took
    }

    fn heal(&self) {
        let world = &self.world;
        world.trace.say("-", "the faults end");
        world.x.kill(FAULTS);
        world.ledger().traps.clear();
        world.douse_fuses();
        world.server.set_plan(self.usual.clone());
        world.server.thaw();
        world.server.recover();
        for machine in world.machines() {
            world.server.reconnect(&machine.label);
            if machine.label != machine.node {
                world.crash(&machine);
            }
        }
        world.x.resume_all();
        for machine in world.machines().iter().filter(|m| m.label == m.node) {
            // Whoever was about to end is started again once it has.
            if let Some(process) = machine.process()
                && (process.shared.stop.is_cancelled() || process.shared.leave.is_cancelled())
            {
                world.crash(machine);
            }
            world.start(machine);
        }
        world.net.heal();
        world.calm.set(true);
    }

    /// Takes back what operators did that would keep nodes from being well.
    async fn restore(&self, rng: &mut SmallRng) {
        // What was asked before may be carried out late.
        while !self.clients.waiting.borrow().is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
        for node in &self.nodes {
            loop {
                let removed = match self.state().await {
                    Some(state) => !state.nodes.iter().any(|n| n.name == *node && is_in(n)),
                    None => {
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                if removed {
                    self.clients.add(rng, node, true).await;
                }
                break;
            }
            let request = v1::UpdateNodeRequest {
                name: node.clone(),
                cordoned: Some(false),
                master_eligible: Some(true),
                ..v1::UpdateNodeRequest::default()
            };
            self.clients.ask(rng, Request::UpdateNode(request)).await;
        }
        let off = v1::SetMaintenanceRequest::default();
        self.clients.ask(rng, Request::SetMaintenance(off)).await;
    }

    async fn state(&self) -> Option<v1::ClusterState> {
        let handle = self.world.master_handle()?;
        timeout(Duration::from_secs(2), handle.ask(HubQuery::State))
            .await
            .ok()?
            .ok()
    }

    /// Whether all is well now.
    async fn well(&self) -> Result<(), String> {
        let world = &self.world;
        if world.masters() != 1 {
            return Err(format!("{} masters act", world.masters()));
        }
        let waiting = self.clients.waiting.borrow().len();
        if waiting > 0 {
            return Err("requests wait for an answer".to_owned());
        }
        let handle = world.master_handle().ok_or("no node knows the master")?;
        let ask = |e| format!("the master does not answer: {e}");
        let operations = timeout(Duration::from_secs(2), handle.ask(HubQuery::Operations)).await;
        let operations = operations
            .map_err(|e| ask(e.to_string()))?
            .map_err(|e| ask(e.to_string()))?;
        if let Some(op) = operations.iter().find(|o| !o.state().is_final()) {
            return Err(format!("operation {} on {} is {:?}", op.kind, op.subject, op.state()));
        }
        let state = timeout(Duration::from_secs(2), handle.ask(HubQuery::State)).await;
        let state = state.map_err(|e| ask(e.to_string()))?.map_err(|e| ask(e.to_string()))?;
        for node in &self.nodes {
            let shown = state.nodes.iter().find(|n| n.name == *node);
            let status = shown.and_then(|n| n.status.as_ref());
            if status.is_none_or(|s| s.state() != v1::NodeState::Online || s.restarting) {
                let status = status.map(|s| (s.state().as_str_name(), s.reason.clone(), s.restarting));
                return Err(format!("{node} is {status:?}"));
            }
        }
        if let Some(alert) = state.alerts.iter().find(|a| !a.id.ends_with("/clock")) {
            return Err(format!("alert {}: {}", alert.id, alert.text));
        }
        if world.ledger().under_way() {
            return Err("a change is under way".to_owned());
        }
        let tail = world.ledger().tail();
        let followed = *self.watched.followed.borrow();
        if followed != tail {
            return Err(format!("the follower has {followed} of {tail} changes"));
        }
        for machine in world.machines().iter().filter(|m| m.label == m.node) {
            let seen = machine.seen.borrow().last;
            if seen.is_some_and(|seen| seen != tail) {
                return Err(format!("{} was handed changes up to {seen:?} of {tail}", machine.label));
            }
        }
        if let Some(difference) = self.watched.folded.borrow().differs(&state) {
            return Err(format!("what the watcher folded differs from a snapshot: {difference}"));
        }
        Ok(())
    }

    /// What must hold now that all is well.
    fn settled(&self) {
        let mut ledger = self.world.ledger();
        ledger.settle();
        let mut made: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
        for change in ledger.log.values().filter(|c| !c.request.is_empty()) {
            made.entry(&change.request)
                .or_default()
                .push((change.seq, &change.kind));
        }
        let mut wrong = Vec::new();
        for asked in self.clients.asked.borrow().iter() {
            let all = made.get(asked.id.as_str()).cloned().unwrap_or_default();
            let effects = all.iter().filter(|(_, kind)| *kind == asked.kind).count();
            let fits = match &asked.answer {
                Answer::Done { changed: true } => effects == 1,
                Answer::Done { changed: false } | Answer::Refused(_) => all.is_empty(),
            };
            if !fits {
                wrong.push(format!(
                    "request {} ({}) was answered {:?}, but the log has {all:?} of it",
                    asked.id, asked.kind, asked.answer
                ));
            }
        }
        for machine in self.world.machines() {
            for (seq, kind) in &machine.seen.borrow().changes {
                if ledger.log.get(seq).is_none_or(|c| c.kind != *kind) {
                    wrong.push(format!(
                        "{} was handed change {seq} as {kind}, not as it is in the log",
                        machine.label
                    ));
                }
            }
        }
        for what in wrong {
            ledger.wrong(what);
        }
    }
}

/// Whether a node belongs to the cluster.
fn is_in(node: &v1::Node) -> bool {
    let state = node.status.as_ref().map(v1::NodeStatus::state);
    !matches!(state, None | Some(v1::NodeState::Removed | v1::NodeState::Pending))
}
