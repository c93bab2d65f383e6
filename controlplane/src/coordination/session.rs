//! What an owner sees of one session: its state, its lease and its watches, for both coordinators alike.
//!
//! It must never leave [`SessionState::Lost`], never let a watch outlive the session unfired, and never keep a lease
//! that could be believed after the session is known to be over.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::{CoordError, Lease, Result, SessionState, Watch};

/// What a watch looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchKind {
    /// The node itself: created, changed, deleted.
    Node,
    /// The names of its children.
    Children,
}

/// State, lease and watches of one session.
pub(super) struct SessionCell {
    state: watch::Sender<SessionState>,
    lease: watch::Sender<Lease>,
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    over: bool,
    waiting: BTreeMap<(WatchKind, String), Vec<oneshot::Sender<()>>>,
}

impl SessionCell {
    /// A session that is live from the start.
    pub(super) fn new() -> SessionCell {
        SessionCell {
            state: watch::Sender::new(SessionState::Live),
            lease: watch::Sender::new(Lease::default()),
            watches: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    pub(super) fn lease(&self) -> watch::Receiver<Lease> {
        self.lease.subscribe()
    }

    /// Whether the session is over.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&*self.state.borrow(), SessionState::Lost(_))
    }

    /// Whether the connection is broken or not verified.
    pub(super) fn is_suspended(&self) -> bool {
        *self.state.borrow() == SessionState::Suspended
    }

    /// Refuses whatever is begun while the session is not live, so that nothing is queued to be carried out later.
    pub(super) fn gate(&self) -> Result<()> {
        match &*self.state.borrow() {
            SessionState::Live => Ok(()),
            SessionState::Suspended => Err(CoordError::Unavailable("the connection is broken".into())),
            SessionState::Lost(why) => Err(CoordError::SessionLost(why.clone())),
        }
    }

    /// The error of a call that was certainly not carried out because there is no connection.
    pub(super) fn refused(&self, why: &str) -> CoordError {
        match &*self.state.borrow() {
            SessionState::Lost(why) => CoordError::SessionLost(why.clone()),
            SessionState::Live | SessionState::Suspended => CoordError::Unavailable(why.to_owned()),
        }
    }

    /// The connection broke, or is not verified yet.
    pub(super) fn suspend(&self) {
        self.state.send_if_modified(|state| {
            let live = *state == SessionState::Live;
            if live {
                *state = SessionState::Suspended;
            }
            live
        });
    }

    /// The connection was verified again: first the state, then every watch, so that whoever wakes may read at once.
    pub(super) fn resume(&self) {
        let resumed = self.state.send_if_modified(|state| {
            let suspended = *state == SessionState::Suspended;
            if suspended {
                *state = SessionState::Live;
            }
            suspended
        });
        if resumed {
            let fired = std::mem::take(&mut self.lock().waiting);
            drop(fired); // dropping a trigger fires it
        }
    }

    /// The session is over. The first reason stays.
    pub(super) fn lose(&self, why: &str) {
        // The lease goes first: nobody may see a lost session with a lease.
        self.lease.send_replace(Lease::default());
        let lost = self.state.send_if_modified(|state| {
            let ends = !matches!(state, SessionState::Lost(_));
            if ends {
                *state = SessionState::Lost(why.to_owned());
            }
            ends
        });
        // A heartbeat that was acknowledged meanwhile may have set it again.
        self.lease.send_replace(Lease::default());
        if lost {
            let mut watches = self.lock();
            watches.over = true;
            let fired = std::mem::take(&mut watches.waiting);
            drop(watches);
            drop(fired);
        }
    }

    /// Sets the end of the lease, unless the session is over.
    pub(super) fn extend_lease(&self, until: Duration) {
        self.lease.send_modify(|lease| {
            if !self.is_lost() {
                lease.until = Some(until);
            }
        });
    }

    /// Adds a watch. It is to be added before the request is sent that arms it, so that no event can slip between.
    pub(super) fn watch(&self, kind: WatchKind, path: &str) -> Watch {
        let (trigger, watch) = Watch::pair();
        let mut watches = self.lock();
        if !watches.over {
            let waiting = watches.waiting.entry((kind, path.to_owned())).or_default();
            waiting.retain(|t| !t.is_closed());
            waiting.push(trigger);
        }
        watch
    }

    /// Fires the watches of a node.
    pub(super) fn fire(&self, kind: WatchKind, path: &str) {
        let fired = self.lock().waiting.remove(&(kind, path.to_owned()));
        drop(fired);
    }

    /// How many watches wait, for tests.
    #[cfg(test)]
    pub(super) fn watching(&self) -> usize {
        self.lock().waiting.values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        // Nothing panics under this lock; should it ever, the table is still whole.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_is_final_and_takes_lease_and_watches() {
        let cell = SessionCell::new();
        let mut watch = cell.watch(WatchKind::Node, "/a");
        cell.extend_lease(Duration::from_secs(5));
        assert!(cell.lease().borrow().holds(Duration::from_secs(4)));
        assert!(!watch.has_fired());
        cell.lose("first");
        cell.lose("second");
        cell.suspend();
        cell.resume();
        cell.extend_lease(Duration::from_secs(9));
        assert_eq!(*cell.state().borrow(), SessionState::Lost("first".into()));
        assert_eq!(cell.lease().borrow().until, None);
        assert!(watch.has_fired());
        assert!(
            cell.watch(WatchKind::Children, "/b").has_fired(),
            "a watch on a dead session fires at once"
        );
        assert_eq!(cell.gate(), Err(CoordError::SessionLost("first".into())));
    }

    #[test]
    fn resuming_fires_every_watch() {
        let cell = SessionCell::new();
        let mut a = cell.watch(WatchKind::Node, "/a");
        let mut b = cell.watch(WatchKind::Children, "/a");
        cell.fire(WatchKind::Node, "/a");
        assert!(a.has_fired() && !b.has_fired());
        cell.suspend();
        assert!(matches!(cell.gate(), Err(CoordError::Unavailable(_))));
        assert!(!b.has_fired());
        cell.resume();
        assert!(b.has_fired());
        assert_eq!(cell.gate(), Ok(()));
    }

    #[test]
    fn forgotten_watches_do_not_pile_up() {
        let cell = SessionCell::new();
        for _ in 0..1000 {
            drop(cell.watch(WatchKind::Node, "/a"));
        }
        assert!(cell.watching() <= 1);
    }
}
