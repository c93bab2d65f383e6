//! One port of one group: who is connected through it, and to which server.
//!
//! A seat is taken before a server is dialled and given back when the connection ends, whatever way it ends. Seats are
//! taken and cut under one lock, so that no connection to a former primary slips through.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::header::Network;
use super::metrics::{Counts, Metrics};
use super::relay::Cut;
use super::routes::{RoutesRx, Server, Table, Way};

/// Clients over the limit that are told so, at once; others are just hung up on.
const POLITE: usize = 16;
/// Requests to cancel that are under way at once.
const CANCELS: usize = 16;

/// One port.
pub(super) struct Port {
    pub(super) group: String,
    pub(super) way: Way,
    pub(super) routes: RoutesRx,
    pub(super) counts: Counts,
    /// Who speaks the PROXY protocol to us.
    pub(super) trusted: Arc<[Network]>,
    /// Clients at once.
    pub(super) room: Arc<Semaphore>,
    pub(super) polite: Arc<Semaphore>,
    pub(super) cancels: Semaphore,
    /// When something a client did was last logged.
    pub(super) told: super::Quiet,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    servers: HashMap<Key, HashMap<u64, Arc<Cut>>>,
    last: u64,
    turn: usize,
}

/// A server as connections were made to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    node: String,
    address: String,
    /// Of a primary: it tells one that was promoted again from what it was before.
    timeline: u32,
}

impl Port {
    pub(super) fn new(
        group: &str,
        way: Way,
        routes: RoutesRx,
        metrics: &Metrics,
        trusted: Arc<[Network]>,
        most: usize,
    ) -> Self {
        Self {
            group: group.to_owned(),
            way,
            routes,
            counts: metrics.of(group, way),
            trusted,
            room: Arc::new(Semaphore::new(most)),
            polite: Arc::new(Semaphore::new(POLITE)),
            cancels: Semaphore::new(CANCELS),
            told: super::Quiet::default(),
            seats: Mutex::default(),
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat at a server that new clients may be led to now: of several the one with fewest connections, in turn among
    /// equals, and rather none of those in `avoid`.
    ///
    /// The second is how many servers there are to choose from.
    pub(super) fn take(self: &Arc<Self>, avoid: &[String]) -> Option<(Seat, usize)> {
        // As in `enforce`: the lock first.
        let mut seats = self.seats();
        let routes = self.routes.borrow().clone();
        let table = routes.groups.get(&self.group)?;
        let targets = table.targets(self.way);
        seats.turn = seats.turn.wrapping_add(1);
        let turn = seats.turn;
        let n = targets.len();
        let (_, server) = targets.into_iter().enumerate().min_by_key(|(i, s)| {
            (
                avoid.contains(&s.address),
                seats.taken(s),
                (i + n - turn % n.max(1)) % n.max(1),
            )
        })?;
        let key = Key {
            node: server.node.clone(),
            address: server.address.clone(),
            timeline: if self.way == Way::Primary { table.timeline } else { 0 },
        };
        seats.last += 1;
        let (number, cut) = (seats.last, Arc::new(Cut::default()));
        seats
            .servers
            .entry(key.clone())
            .or_default()
            .insert(number, cut.clone());
        let seat = Seat {
            port: self.clone(),
            key,
            number,
            cut,
        };
        Some((seat, n))
    }

    /// Whether the seat's server is one that new clients may be led to, as of now.
    pub(super) fn still(&self, seat: &Seat) -> bool {
        let routes = self.routes.borrow();
        let Some(table) = routes.groups.get(&self.group) else {
            return false;
        };
        let targets = table.targets(self.way);
        targets
            .iter()
            .any(|s| s.node == seat.key.node && s.address == seat.key.address)
            && self.may_stay(table, &seat.key)
    }

    fn may_stay(&self, table: &Table, key: &Key) -> bool {
        table.may_stay(self.way, &key.node, &key.address, key.timeline)
    }

    /// Cuts every connection whose server is no longer the one; all of them if the group is gone.
    pub(super) fn enforce(&self) {
        // The newest routes are read under the lock: a seat taken later follows from them or from newer ones.
        let mut seats = self.seats();
        let routes = self.routes.borrow().clone();
        let table = routes.groups.get(&self.group);
        seats.servers.retain(|key, taken| {
            if table.is_some_and(|t| self.may_stay(t, key)) {
                return !taken.is_empty();
            }
            if !taken.is_empty() {
                let epoch = table.map_or(0, |t| t.epoch);
                tracing::info!(
                    group = %self.group, port = self.way.word(), epoch, connections = taken.len(),
                    "connections to {} at {} are cut: clients belong elsewhere now", key.node, key.address
                );
                self.counts.cut.inc_by(taken.len() as u64);
            }
            for cut in taken.values() {
                cut.now();
            }
            false
        });
    }

    /// Where a request to cancel may belong: the servers of this port's connections, and those that other proxies of the
    /// group may have led the client to.
    pub(super) fn cancel_targets(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.seats().servers.keys().map(|k| k.address.clone()).collect();
        let routes = self.routes.borrow();
        if let Some(table) = routes.groups.get(&self.group) {
            match self.way {
                Way::Primary => addresses.extend(table.primary.iter().map(|s| s.address.clone())),
                Way::Standbys => addresses.extend(table.targets(self.way).iter().map(|s| s.address.clone())),
            }
        }
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// How long a client may wait for a server.
    pub(super) fn patience(&self) -> std::time::Duration {
        let routes = self.routes.borrow();
        routes
            .groups
            .get(&self.group)
            .map_or(std::time::Duration::ZERO, |t| t.wait)
    }
}

impl Seats {
    fn taken(&self, server: &Server) -> usize {
        let of = |(key, taken): (&Key, &HashMap<u64, Arc<Cut>>)| {
            (key.node == server.node && key.address == server.address).then_some(taken.len())
        };
        self.servers.iter().filter_map(of).sum()
    }
}

/// A connection's place at a server.
pub(super) struct Seat {
    port: Arc<Port>,
    key: Key,
    number: u64,
    pub(super) cut: Arc<Cut>,
}

impl Seat {
    pub(super) fn node(&self) -> &str {
        &self.key.node
    }

    pub(super) fn address(&self) -> &str {
        &self.key.address
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.port.seats();
        if let Some(taken) = seats.servers.get_mut(&self.key) {
            taken.remove(&self.number);
            if taken.is_empty() {
                seats.servers.remove(&self.key);
            }
        }
    }
}
