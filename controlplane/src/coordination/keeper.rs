//! The heartbeat: a versioned write on the session's own ephemeral node, and the lease that follows from it (protocol
//! R9).
//!
//! A read proves nothing (a cut-off follower answers reads long after the session expired), so it must never extend the
//! lease by anything but an acknowledged write on a node whose owner is this session, and never from a later moment
//! than the one at which that write was *sent*.

use std::sync::Arc;
use std::time::Duration;

use super::session::SessionCell;
use super::{CoordError, Result, Stat};
use crate::platform::Clock;

/// The two requests a heartbeat needs; they are not held back while the session is suspended, for they verify it.
pub(super) trait HeartbeatPort: Sync {
    /// Reads the node's stat.
    fn stat(&self, path: &str) -> impl Future<Output = Result<Stat>> + Send;
    /// Writes the node if its version is still `version`.
    fn write(&self, path: &str, data: &[u8], version: i32) -> impl Future<Output = Result<Stat>> + Send;
}

/// How a heartbeat ended.
#[derive(Debug)]
pub(super) enum Beat {
    /// Acknowledged: the session lived when it was written.
    Acknowledged,
    /// Not acknowledged; nothing is known.
    Missed(CoordError),
    /// The session is over.
    Over(String),
}

/// Keeps the lease of one session by heartbeats on one node.
pub(super) struct Keeper {
    cell: Arc<SessionCell>,
    clock: Arc<dyn Clock>,
    session: i64,
    timeout: Duration,
    path: String,
    version: Option<i32>,
    /// A heartbeat's outcome is open: the version may be one further on.
    unsettled: bool,
    seq: u64,
    /// Send time of the last acknowledged heartbeat, or when the keeping began.
    last: Duration,
}

impl Keeper {
    pub(super) fn new(
        cell: Arc<SessionCell>,
        clock: Arc<dyn Clock>,
        session: i64,
        timeout: Duration,
        path: &str,
    ) -> Keeper {
        let last = clock.boottime();
        Keeper {
            cell,
            clock,
            session,
            timeout,
            path: path.to_owned(),
            version: None,
            unsettled: false,
            seq: 0,
            last,
        }
    }

    /// The node it writes.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether no heartbeat has been acknowledged for the whole session timeout: the servers have given the session up.
    pub(super) fn overdue(&self) -> Option<String> {
        let silent = self.clock.boottime().saturating_sub(self.last);
        (silent > self.timeout).then(|| format!("no heartbeat was acknowledged for {:.1} s", silent.as_secs_f64()))
    }

    /// Writes one heartbeat and extends the lease if it is acknowledged.
    pub(super) async fn beat(&mut self, port: &impl HeartbeatPort) -> Beat {
        // A heartbeat of unknown outcome may arrive between the read and the write: look twice before judging.
        for _ in 0..3 {
            let version = match self.version {
                Some(version) => version,
                None => match port.stat(&self.path).await {
                    Ok(stat) if stat.owner != self.session => return self.taken(stat.owner),
                    Ok(stat) => stat.version,
                    Err(e) => return self.failed(e),
                },
            };
            self.version = Some(version);
            self.seq += 1;
            let data = format!("{{\"seq\":{}}}", self.seq);
            let sent = self.clock.boottime();
            match port.write(&self.path, data.as_bytes(), version).await {
                Ok(stat) if stat.owner != self.session => return self.taken(stat.owner),
                Ok(stat) => {
                    self.version = Some(stat.version);
                    self.unsettled = false;
                    self.last = sent;
                    self.cell.extend_lease(sent + self.timeout * 2 / 3);
                    return Beat::Acknowledged;
                }
                Err(CoordError::BadVersion(_)) if self.unsettled => self.version = None,
                Err(e) => return self.failed(e),
            }
        }
        Beat::Missed(CoordError::BadVersion(self.path.clone()))
    }

    fn taken(&self, owner: i64) -> Beat {
        Beat::Over(format!("another session (0x{owner:x}) took {}", self.path))
    }

    fn failed(&mut self, e: CoordError) -> Beat {
        match e {
            CoordError::NotFound(path) => Beat::Over(format!("{path} is gone: the session expired or another took it")),
            CoordError::BadVersion(path) => Beat::Over(format!("another session wrote {path}")),
            CoordError::SessionLost(why) => Beat::Over(why),
            CoordError::Unknown(_) | CoordError::Unavailable(_) => {
                self.unsettled = true;
                self.version = None;
                Beat::Missed(e)
            }
            CoordError::NoAuth(_)
            | CoordError::Exists(_)
            | CoordError::NotEmpty(_)
            | CoordError::Invalid(_)
            | CoordError::Misconfigured(_) => {
                self.version = None;
                Beat::Missed(e)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A node that answers from a script.
    #[derive(Default)]
    struct Node {
        owner: i64,
        version: Mutex<i32>,
        /// Outcomes of the next writes: carried out and answered.
        script: Mutex<Vec<(bool, bool)>>,
    }

    impl HeartbeatPort for Node {
        async fn stat(&self, _: &str) -> Result<Stat> {
            Ok(Stat {
                version: *self.version.lock().unwrap(),
                created: 1,
                modified: 1,
                owner: self.owner,
            })
        }

        async fn write(&self, path: &str, _: &[u8], version: i32) -> Result<Stat> {
            let (done, answered) = self.script.lock().unwrap().pop().unwrap_or((true, true));
            if version != *self.version.lock().unwrap() {
                return Err(CoordError::BadVersion(path.into()));
            }
            if done {
                *self.version.lock().unwrap() += 1;
            }
            if answered {
                self.stat(path).await
            } else {
                Err(CoordError::Unknown(path.into()))
            }
        }
    }

    #[derive(Default)]
    struct Hand(Mutex<Duration>);
    impl Clock for Hand {
        fn boottime(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn wall_ms(&self) -> i64 {
            0
        }
    }

    fn keeper(clock: &Arc<Hand>) -> (Arc<SessionCell>, Keeper) {
        let cell = Arc::new(SessionCell::new());
        (
            cell.clone(),
            Keeper::new(cell, clock.clone(), 7, Duration::from_secs(6), "/leases/n1"),
        )
    }

    #[tokio::test]
    async fn lease_counts_from_the_sending() {
        let clock = Arc::new(Hand(Mutex::new(Duration::from_secs(100))));
        let (cell, mut k) = keeper(&clock);
        let node = Node {
            owner: 7,
            ..Node::default()
        };
        assert!(matches!(k.beat(&node).await, Beat::Acknowledged));
        assert_eq!(cell.lease().borrow().until, Some(Duration::from_secs(104)));
        *clock.0.lock().unwrap() = Duration::from_secs(107);
        assert!(k.overdue().is_some());
    }

    #[tokio::test]
    async fn a_lost_reply_is_settled_and_a_foreign_write_is_the_end() {
        let clock = Arc::new(Hand::default());
        let (cell, mut k) = keeper(&clock);
        let node = Node {
            owner: 7,
            ..Node::default()
        };
        for lost in [(true, false), (false, false)] {
            *node.script.lock().unwrap() = vec![lost];
            assert!(matches!(k.beat(&node).await, Beat::Missed(CoordError::Unknown(_))));
            assert!(matches!(k.beat(&node).await, Beat::Acknowledged));
        }
        let until = cell.lease().borrow().until;
        *node.version.lock().unwrap() += 1;
        assert!(matches!(k.beat(&node).await, Beat::Over(_)));
        assert_eq!(cell.lease().borrow().until, until);
    }

    #[tokio::test]
    async fn another_owner_is_the_end() {
        let clock = Arc::new(Hand::default());
        let (cell, mut k) = keeper(&clock);
        assert!(matches!(
            k.beat(&Node {
                owner: 8,
                ..Node::default()
            })
            .await,
            Beat::Over(_)
        ));
        assert_eq!(cell.lease().borrow().until, None);
    }
}
