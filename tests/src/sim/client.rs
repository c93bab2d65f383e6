//! Operators: requests with an id that are repeated under the same id until they are answered, and watchers and followers
//! that go on wherever a master is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use controlplane::master::handle::{Caller, HubQuery, Request};
use controlplane::security::Identity;
use ha_core::AccessRole;
use ha_proto::{codes, v1};
use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use tokio::time::{sleep, timeout};

use super::world::{World, address};

/// When every certificate expires: long after any run, on any clock.
const EXPIRES_MS: i64 = 1_900_000_000_000;

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Carried out; whether anything was changed.
    Done {
        /// It was not so already.
        changed: bool,
    },
    /// Refused, with the error.
    Refused(String),
}

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its id.
    pub id: String,
    /// Kind of the entry that it leaves in the log.
    pub kind: &'static str,
    /// Its answer.
    pub answer: Answer,
}

/// What all clients of a run share.
#[derive(Clone)]
pub struct Clients {
    world: World,
    /// Requests that were answered.
    pub asked: Rc<RefCell<Vec<Asked>>>,
    /// Requests that wait for an answer, by id.
    pub waiting: Rc<RefCell<BTreeMap<String, String>>>,
    counter: Rc<RefCell<u64>>,
}

/// Kind of the entry that a request leaves in the log.
fn kind(request: &Request) -> &'static str {
    match request {
        Request::AddNode(_) => "node.added",
        Request::RemoveNode(_) => "node.removed",
        Request::LeaveNode { .. } => "node.left",
        Request::UpdateNode(_) => "node.changed",
        Request::DrainNode(r) if r.cancel => "node.changed",
        Request::DrainNode(_) | Request::TransferMaster(_) => "op.begun",
        Request::SetMaintenance(r) if r.on => "maintenance.on",
        Request::SetMaintenance(_) => "maintenance.off",
        Request::RecordUser(_) => "user.",
        Request::RevokeUser(_) => "user.",
        Request::CancelOperation(_) => "op.cancelled",
        Request::RecordDenied(_) => "access.denied",
        Request::Group(_) => "db.",
    }
}

/// One line about a request, without what is drawn at random.
fn line(request: &Request) -> String {
    match request {
        Request::AddNode(r) => format!("add {}", r.name),
        Request::RemoveNode(r) => format!("remove {}", r.name),
        Request::LeaveNode { name, .. } => format!("{name} leaves"),
        Request::UpdateNode(r) => {
            let mut what = vec![format!("update {}", r.name)];
            what.extend(r.set_labels.iter().map(|(k, v)| format!("{k}={v}")));
            what.extend(r.cordoned.map(|c| format!("cordoned={c}")));
            what.extend(r.master_eligible.map(|e| format!("eligible={e}")));
            what.extend(r.master_preference.map(|p| format!("preference={p}")));
            what.join(" ")
        }
        Request::DrainNode(r) => format!("drain {} cancel={} deadline={}", r.name, r.cancel, r.deadline_ms),
        Request::SetMaintenance(r) => format!("maintenance {}", r.on),
        Request::TransferMaster(r) => format!("transfer to {:?}", r.to),
        other => kind(other).to_owned(),
    }
}

/// A request waits for its answer as long as this value lives.
struct Waiting(Clients, String);

impl Waiting {
    fn new(clients: &Clients, id: &str, line: String) -> Self {
        clients.waiting.borrow_mut().insert(id.to_owned(), line);
        Self(clients.clone(), id.to_owned())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.borrow_mut().remove(&self.1);
    }
}

impl Clients {
    /// No client has asked anything yet.
    pub fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            asked: Rc::default(),
            waiting: Rc::default(),
            counter: Rc::default(),
        }
    }

    /// Asks until there is an answer that is not to be tried again.
    pub async fn ask(&self, rng: &mut SmallRng, request: Request) -> Answer {
        let id = {
            let mut counter = self.counter.borrow_mut();
            *counter += 1;
            format!("r{counter}")
        };
        self.world.trace.say(&id, line(&request));
        let _waiting = Waiting::new(self, &id, line(&request));
        let caller = Caller {
            identity: Identity::User {
                name: "admin".to_owned(),
                role: AccessRole::Admin,
            },
            request_id: id.clone(),
        };
        let answer = loop {
            sleep(Duration::from_millis(rng.random_range(1..20))).await;
            let Some(handle) = self.world.master_handle() else {
                sleep(Duration::from_millis(rng.random_range(50..200))).await;
                continue;
            };
            let patience = Duration::from_millis(rng.random_range(500..4000));
            let answer = timeout(patience, handle.change(caller.clone(), request.clone())).await;
            // The answer may be lost on its way back.
            let lost = !self.world.calm.get() && rng.random_bool(0.1);
            match answer {
                _ if lost => {}
                Ok(Ok(result)) => {
                    break Answer::Done {
                        changed: result.changed,
                    };
                }
                Ok(Err(e)) if e.code.retryable || e.code.id == codes::OUTCOME_UNKNOWN.id => {}
                Ok(Err(e)) => break Answer::Refused(e.to_string()),
                Err(_) => {}
            }
        };
        self.world.trace.say(&id, format!("answered: {answer:?}"));
        self.asked.borrow_mut().push(Asked {
            id,
            kind: kind(&request),
            answer: answer.clone(),
        });
        answer
    }

    /// Adds a node, or does nothing if it is there.
    pub async fn add(&self, rng: &mut SmallRng, node: &str, eligible: bool) {
        let spec = v1::NodeSpec {
            address: address(node),
            master_eligible: eligible,
            ..v1::NodeSpec::default()
        };
        let request = v1::AddNodeRequest {
            name: node.to_owned(),
            spec: Some(spec),
            certificate_serial: serial(rng),
            certificate_expires_unix_ms: EXPIRES_MS,
            ..v1::AddNodeRequest::default()
        };
        self.ask(rng, Request::AddNode(request)).await;
    }

    /// Asks for this and that until the run is calm.
    pub async fn wander(self, mut rng: SmallRng, nodes: Vec<String>) {
        while !self.world.calm.get() {
            sleep(Duration::from_millis(rng.random_range(50..1500))).await;
            if self.world.calm.get() {
                return;
            }
            let request = some_request(&mut rng, &nodes);
            self.ask(&mut rng, request).await;
        }
    }

    /// Follows the log from its beginning; each entry is to come once, in order.
    pub async fn follow(self, name: String, at: Rc<RefCell<u64>>) {
        loop {
            sleep(Duration::from_millis(100)).await;
            let Some(handle) = self.world.master_handle() else {
                continue;
            };
            let from_seq = *at.borrow() + 1;
            let asked = handle.ask(|reply| HubQuery::Follow { from_seq, reply });
            let Ok(Ok(mut changes)) = timeout(Duration::from_secs(2), asked).await else {
                continue;
            };
            // Whoever hears nothing for long looks for another master.
            while let Ok(Some(next)) = timeout(Duration::from_secs(4), changes.recv()).await {
                let Ok(change) = next else { break };
                let last = *at.borrow();
                if change.seq != last + 1 || change.kind == "log.gap" {
                    let what = format!("{name} was sent change {} ({}) after {last}", change.seq, change.kind);
                    self.world.ledger().wrong(what);
                }
                *at.borrow_mut() = change.seq;
            }
        }
    }
}

/// A serial number as the authority makes them: when it was issued, and a random rest.
fn serial(rng: &mut SmallRng) -> String {
    let issued: i64 = 1_700_000_000_000;
    format!("{issued:012x}{:020x}", rng.random::<u64>())
}

fn some_request(rng: &mut SmallRng, nodes: &[String]) -> Request {
    let Some(node) = nodes.choose(rng).cloned() else {
        return Request::SetMaintenance(v1::SetMaintenanceRequest::default());
    };
    let update = v1::UpdateNodeRequest {
        name: node.clone(),
        ..v1::UpdateNodeRequest::default()
    };
    let ghost = format!("ghost{}", rng.random_range(0..2));
    match rng.random_range(0..100) {
        0..35 => {
            let key = (*["a", "b"].choose(rng).unwrap_or(&"a")).to_owned();
            let value = (*["1", "2", "3"].choose(rng).unwrap_or(&"1")).to_owned();
            Request::UpdateNode(v1::UpdateNodeRequest {
                set_labels: [(key, value)].into(),
                ..update
            })
        }
        35..47 => Request::UpdateNode(v1::UpdateNodeRequest {
            cordoned: Some(rng.random_bool(0.5)),
            ..update
        }),
        47..52 => Request::UpdateNode(v1::UpdateNodeRequest {
            master_eligible: Some(rng.random_bool(0.7)),
            ..update
        }),
        52..57 => Request::UpdateNode(v1::UpdateNodeRequest {
            master_preference: Some(rng.random_range(0..3)),
            ..update
        }),
        57..64 => Request::SetMaintenance(v1::SetMaintenanceRequest {
            on: rng.random_bool(0.5),
            ..v1::SetMaintenanceRequest::default()
        }),
        64..80 => {
            let to = if rng.random_bool(0.3) { String::new() } else { node };
            Request::TransferMaster(v1::TransferMasterRequest {
                to,
                ..v1::TransferMasterRequest::default()
            })
        }
        80..86 => Request::DrainNode(v1::DrainNodeRequest {
            name: node,
            cancel: rng.random_bool(0.3),
            deadline_ms: if rng.random_bool(0.5) {
                rng.random_range(100..8000)
            } else {
                0
            },
            ..v1::DrainNodeRequest::default()
        }),
        86..92 => Request::AddNode(v1::AddNodeRequest {
            name: ghost.clone(),
            spec: Some(v1::NodeSpec {
                address: address(&ghost),
                ..v1::NodeSpec::default()
            }),
            certificate_serial: serial(rng),
            certificate_expires_unix_ms: EXPIRES_MS,
            ..v1::AddNodeRequest::default()
        }),
        92..97 => Request::RemoveNode(v1::RemoveNodeRequest {
            name: ghost,
            ..v1::RemoveNodeRequest::default()
        }),
        _ => Request::RemoveNode(v1::RemoveNodeRequest {
            name: node,
            ..v1::RemoveNodeRequest::default()
        }),
    }
}
