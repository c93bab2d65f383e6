//! What this node reads of a group: its spec and its record, and whether a read may enable anything (protocol R2).
//!
//! A read is worth acting on at once, for a step back needs no proof; behind it comes a second one after an acknowledged
//! write, which alone may enable a step that cannot be taken back. Nothing older ever replaces what was read.

use std::sync::Arc;
use std::time::Duration;

use ha_core::database::local::RecordRead;
use ha_core::database::{GroupSpec, GroupState};
use ha_core::{Envelope, decode};
use ha_proto::codes;
use tokio::sync::watch;

use crate::coordination::{CoordError, Coordinator, SessionState, Stat, resolve};

/// Folder of the groups.
pub(super) const GROUPS: &str = "/db";
/// Between attempts to read what could not be read.
const AGAIN: Duration = Duration::from_millis(100);
/// A read is looked at anew after so long, whatever was heard: nothing depends on a watch having fired.
const REREAD: Duration = Duration::from_secs(30);
/// One question to the coordinator.
const LIMIT: Duration = Duration::from_secs(3);

/// What is known of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    /// The spec.
    pub(super) spec: Option<GroupSpec>,
    /// Number of its last change.
    pub(super) revision: u64,
    /// The record.
    pub(super) read: Option<RecordRead>,
    /// The transactions that made the two: a greater one is another group of the same name.
    made: (i64, i64),
}

impl Known {
    #[cfg(test)]
    pub(super) fn of(spec: GroupSpec, state: GroupState) -> Self {
        Self {
            spec: Some(spec),
            read: Some(RecordRead {
                state,
                revision: 1,
                fresh: true,
            }),
            ..Self::default()
        }
    }

    /// The record.
    pub(super) fn state(&self) -> Option<&GroupState> {
        self.read.as_ref().map(|r| &r.state)
    }

    /// Whether a node has an instance of the group, or is to have one.
    pub(super) fn concerns(&self, node: &str) -> bool {
        use ha_core::database::RoleWanted;
        let listed = |s: &GroupSpec| !s.removed && s.nodes.get(node).is_some_and(|i| i.role != RoleWanted::None);
        if self.spec.as_ref().is_some_and(|s| s.removed) {
            return false;
        }
        let named = |s: &GroupState| s.primary.as_deref() == Some(node) || s.instances.contains_key(node);
        self.spec.as_ref().is_some_and(listed) || self.state().is_some_and(named)
    }

    /// Whether the data of an instance that a node has no more are to be deleted.
    pub(super) fn deletes(&self, node: &str) -> bool {
        let asked = |s: &GroupSpec| {
            if s.removed {
                s.delete_data
            } else {
                s.nodes.get(node).is_some_and(|i| i.delete_data)
            }
        };
        self.spec.as_ref().is_some_and(asked) && !self.concerns(node)
    }

    fn take_state(&mut self, state: GroupState, stat: Stat, fresh: bool) {
        let revision = u64::try_from(stat.version).unwrap_or_default();
        let newer = match &self.read {
            None => true,
            Some(_) if stat.created != self.made.1 => stat.created > self.made.1,
            Some(old) if old.revision == revision => {
                if fresh && let Some(read) = self.read.as_mut() {
                    read.fresh = true;
                }
                return;
            }
            Some(old) => old.revision < revision,
        };
        if newer {
            self.made.1 = stat.created;
            self.read = Some(RecordRead { state, revision, fresh });
        }
    }

    fn take_spec(&mut self, spec: GroupSpec, revision: u64, stat: Stat) {
        if stat.created < self.made.0 || (stat.created == self.made.0 && revision < self.revision) {
            return;
        }
        self.made.0 = stat.created;
        self.revision = revision;
        self.spec = Some(spec);
    }

    fn session_over(&mut self) -> bool {
        self.read
            .as_mut()
            .is_some_and(|r| std::mem::replace(&mut r.fresh, false))
    }
}

/// Follows one group, over all sessions, until it is dropped.
pub(super) struct Follower {
    pub(super) group: String,
    pub(super) node: String,
    pub(super) coordinator: watch::Receiver<Option<Arc<dyn Coordinator>>>,
    pub(super) known: watch::Sender<Known>,
    /// Greatest version of the record that somebody told of.
    pub(super) hinted: watch::Receiver<u64>,
}

impl Follower {
    /// Follows.
    pub(super) async fn run(mut self) {
        loop {
            let session = self.coordinator.borrow_and_update().clone();
            if let Some(c) = session {
                let mut coordinator = self.coordinator.clone();
                let same = |now: &Option<Arc<dyn Coordinator>>| now.as_ref().is_some_and(|n| Arc::ptr_eq(n, &c));
                tokio::select! {
                    () = self.follow_spec(&*c) => {}
                    () = self.follow_state(&c) => {}
                    over = coordinator.wait_for(|now| !same(now)) => if over.is_err() { return },
                    () = lost(&*c) => {}
                }
                // What was read on a session enables nothing after it.
                self.known.send_if_modified(Known::session_over);
                tokio::time::sleep(Duration::from_millis(10)).await;
                if self
                    .coordinator
                    .borrow()
                    .as_ref()
                    .is_some_and(|now| Arc::ptr_eq(now, &c))
                    && self.coordinator.changed().await.is_err()
                {
                    return;
                }
            } else if self.coordinator.changed().await.is_err() {
                return;
            }
        }
    }

    async fn follow_spec(&self, c: &dyn Coordinator) {
        let path = format!("{GROUPS}/{}/spec", self.group);
        let mut complained = None;
        loop {
            match limited(&path, c.read_and_watch(&path)).await {
                Ok((value, watch)) => {
                    if let Some((bytes, stat)) = value {
                        match decode::<Envelope<GroupSpec>>(&path, &bytes) {
                            Ok(envelope) => {
                                let revision = envelope.revision();
                                if let Some(spec) = envelope.value {
                                    self.change(|k| k.take_spec(spec, revision, stat));
                                }
                            }
                            Err(e) => complain(&mut complained, stat, &e),
                        }
                    }
                    let _ = tokio::time::timeout(REREAD, watch.fired()).await;
                }
                Err(CoordError::SessionLost(_)) => return,
                Err(e) => {
                    tracing::debug!("{path}: {e}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn follow_state(&self, c: &Arc<dyn Coordinator>) {
        let path = format!("{GROUPS}/{}/state", self.group);
        let mut hinted = self.hinted.clone();
        let mut complained = None;
        loop {
            hinted.mark_unchanged();
            let watch = match limited(&path, c.read_and_watch(&path)).await {
                Ok((value, watch)) => {
                    if let Some((bytes, stat)) = value {
                        self.take(&path, &bytes, stat, false, &mut complained);
                    }
                    watch
                }
                Err(CoordError::SessionLost(_)) => return,
                Err(e) => {
                    tracing::debug!("{path}: {e}");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let concerned = self.known.borrow().concerns(&self.node);
            let confirm = async {
                // Only then may anything be begun on it.
                let mut unconfirmed = concerned;
                while unconfirmed {
                    match read_fresh(c, &path).await {
                        Ok((bytes, stat)) => {
                            self.take(&path, &bytes, stat, true, &mut complained);
                            unconfirmed = false;
                        }
                        Err(CoordError::NotFound(_) | CoordError::SessionLost(_)) => unconfirmed = false,
                        Err(e) => {
                            tracing::debug!("{path}: {e}");
                            tokio::time::sleep(AGAIN).await;
                        }
                    }
                }
                tokio::time::sleep(REREAD).await;
            };
            tokio::select! {
                biased;
                () = watch.fired() => {}
                () = confirm => {}
                told = hinted.changed() => if told.is_err() {
                    std::future::pending::<()>().await;
                },
            }
            // A hint of what was read already costs no read.
            if *hinted.borrow() > 0 && c.state().borrow().clone() != SessionState::Live {
                let _ = resolve::wait_live(&**c).await;
            }
        }
    }

    fn take(&self, path: &str, bytes: &[u8], stat: Stat, fresh: bool, complained: &mut Option<i64>) {
        match decode::<Envelope<GroupState>>(path, bytes) {
            Ok(envelope) => {
                // Created with the group, filled by the master.
                let state = envelope.value.unwrap_or_default();
                self.change(|k| k.take_state(state, stat, fresh));
            }
            Err(e) => complain(complained, stat, &e),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        self.known.send_if_modified(|known| {
            let before = known.clone();
            change(known);
            *known != before
        });
    }
}

/// A read after an acknowledged write. The write is seen to its end even if nobody waits for it any more: the next
/// heartbeat is written upon it.
async fn read_fresh(c: &Arc<dyn Coordinator>, path: &str) -> crate::coordination::Result<(Vec<u8>, Stat)> {
    let (c, own) = (c.clone(), path.to_owned());
    let read = tokio::spawn(async move { resolve::read_fresh(&*c, &own).await });
    let read = async {
        read.await
            .unwrap_or_else(|e| Err(CoordError::Unavailable(e.to_string())))
    };
    limited(path, read).await
}

/// Once for each value, not once for each look at it.
fn complain(complained: &mut Option<i64>, stat: Stat, e: &ha_core::StoredError) {
    if complained.replace(stat.modified) != Some(stat.modified) {
        tracing::error!(code = codes::BAD_STORED.id, "{e}; the last good value stays in use");
    }
}

async fn limited<T>(
    path: &str,
    call: impl Future<Output = crate::coordination::Result<T>>,
) -> crate::coordination::Result<T> {
    tokio::time::timeout(LIMIT, call)
        .await
        .unwrap_or_else(|_| Err(CoordError::Unavailable(format!("{path}: no answer in time"))))
}

/// Waits until a session is over.
pub(super) async fn lost(c: &dyn Coordinator) {
    let mut state = c.state();
    let _ = state.wait_for(|s| matches!(s, SessionState::Lost(_))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(created: i64, version: i32) -> Stat {
        Stat {
            version,
            created,
            modified: created + i64::from(version),
            owner: 0,
        }
    }

    fn state(epoch: u64) -> GroupState {
        GroupState {
            epoch,
            ..GroupState::default()
        }
    }

    #[test]
    fn nothing_older_replaces_what_was_read() {
        let mut known = Known::default();
        known.take_state(state(3), stat(10, 4), true);
        known.take_state(state(2), stat(10, 3), true);
        assert_eq!(known.state().unwrap().epoch, 3);
        known.take_state(state(4), stat(10, 5), false);
        assert_eq!(known.read.as_ref().map(|r| (r.revision, r.fresh)), Some((5, false)));
        known.take_state(state(4), stat(10, 5), true);
        assert!(known.read.as_ref().unwrap().fresh);
        // A lagging server's answer does not take the proof away.
        known.take_state(state(3), stat(10, 4), false);
        assert!(known.read.as_ref().unwrap().fresh);
        assert!(known.session_over() && !known.session_over());
        // The group was removed and made anew.
        known.take_state(state(0), stat(20, 0), false);
        assert_eq!(known.state().unwrap().epoch, 0);
        known.take_state(state(4), stat(10, 6), true);
        assert_eq!(known.state().unwrap().epoch, 0);
    }

    #[test]
    fn whom_a_group_concerns() {
        let mut known = Known::default();
        assert!(!known.concerns("n1"));
        known.take_spec(GroupSpec::on(["n1"]), 1, stat(5, 0));
        assert!(known.concerns("n1") && !known.concerns("n2"));
        let mut named = state(1);
        named.primary = Some("n2".into());
        known.take_state(named, stat(6, 1), false);
        assert!(known.concerns("n2"));
    }
}
