//! The coordinator on real ZooKeeper servers: zookeeper-async inside a session wrapper.
//!
//! The crate alone is unsafe for leases: it replaces an expired session silently, loses watches and identity at each
//! reconnect, queues requests while disconnected and has no time limits. The wrapper is three parts: the [`relay`]
//! between the crate and the servers, the [`client`] that keeps one session, and the calls of the [`coordinator`].
//! It must never hand out a session whose timeout is another than was asked for, nor a node that everyone may change.

mod client;
mod coordinator;
mod look;
mod probe;
mod relay;
#[cfg(test)]
mod relay_tests;
mod wire;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use look::{ServerLook, look_at_server};
pub use probe::{ServerStatus, probe_server};

use super::path::check_path;
use super::{Connector, CoordError, Coordinator, Result};
use crate::platform::Clock;
use client::Setup;
use coordinator::ZooKeeperCoordinator;

/// The shortest session timeout that is safe: below it the crate reconnects for ever and server ticks are too coarse.
const MIN_SESSION: Duration = Duration::from_secs(4);

/// How to reach the servers, and as whom.
#[derive(Clone)]
pub struct ZooKeeperOptions {
    /// The servers, each `host:port` or `host` (port 2181).
    pub hosts: Vec<String>,
    /// The cluster's root, `/ha/<cluster>`.
    pub root: String,
    /// The session timeout, 4 s at least; every server must grant exactly this.
    pub session_timeout: Duration,
    /// User name of the digest identity that owns every node under the root.
    pub digest_user: String,
    /// Its password, derived from the cluster secret.
    pub digest_password: String,
}

impl std::fmt::Debug for ZooKeeperOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperOptions")
            .field("hosts", &self.hosts)
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .field("digest_user", &self.digest_user)
            .finish_non_exhaustive()
    }
}

/// Opens sessions on real ZooKeeper servers, each time beginning with the next server.
pub struct ZooKeeperConnector {
    options: ZooKeeperOptions,
    hosts: Vec<String>,
    clock: Arc<dyn Clock>,
    shortest: Duration,
    next: AtomicUsize,
    /// Servers that were asked for the session timeout they grant, and granted the right one.
    asked: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for ZooKeeperConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperConnector")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl ZooKeeperConnector {
    /// A connector. Nothing is checked or sent before [`Connector::connect`].
    pub fn new(options: ZooKeeperOptions, clock: Arc<dyn Clock>) -> ZooKeeperConnector {
        let mut hosts: Vec<String> = Vec::new();
        for host in options.hosts.iter().filter(|h| !h.trim().is_empty()) {
            let host = probe::with_port(host);
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        ZooKeeperConnector {
            options,
            hosts,
            clock,
            shortest: MIN_SESSION,
            // Clients spread over the servers.
            next: AtomicUsize::new(SmallRng::from_os_rng().random_range(0..1024)),
            asked: Mutex::default(),
        }
    }

    /// Lets tests use session timeouts down to 2 s, to be quick. Never for a cluster that matters.
    #[must_use]
    pub fn with_short_sessions(mut self) -> ZooKeeperConnector {
        self.shortest = Duration::from_secs(2);
        self
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(CoordError::Misconfigured(what));
        if self.hosts.is_empty() {
            return wrong("no ZooKeeper server is named".into());
        }
        if self.options.root.is_empty() || check_path(&self.options.root).is_err() {
            return wrong(format!(
                "{:?} cannot be the cluster's root in ZooKeeper",
                self.options.root
            ));
        }
        let timeout = self.options.session_timeout;
        if timeout < self.shortest
            || timeout > Duration::from_secs(3600)
            || !timeout.subsec_nanos().is_multiple_of(1_000_000)
        {
            return wrong(format!(
                "a session timeout of {:.1} s is not safe: it has to be {} s at least",
                timeout.as_secs_f64(),
                self.shortest.as_secs(),
            ));
        }
        if self.options.digest_user.is_empty() || self.options.digest_user.contains(':') {
            return wrong("the digest user must not be empty nor contain a colon".into());
        }
        Ok(())
    }

    /// Asks each server that was not asked yet what session timeout it grants. Servers that do not answer are asked
    /// again next time, and in any case before a session moves to them.
    async fn check_servers(&self) -> Result<()> {
        let timeout = self.options.session_timeout;
        let open: Vec<&String> = {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            self.hosts.iter().filter(|h| !asked.contains(*h)).collect()
        };
        let answers = join_all(open.iter().map(|host| async move {
            let (granted, _) = probe::negotiate(host, timeout).await?;
            probe::check_granted(host, timeout, granted)
        }))
        .await;
        let mut silent = Vec::new();
        for (host, answer) in open.iter().zip(answers) {
            match answer {
                Ok(()) => {
                    self.asked
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert((*host).clone());
                }
                Err(CoordError::Unavailable(why)) => silent.push(why),
                Err(e) => return Err(e),
            }
        }
        if silent.len() == self.hosts.len() {
            return Err(CoordError::Unavailable(silent.join("; ")));
        }
        Ok(())
    }
}

#[async_trait]
impl Connector for ZooKeeperConnector {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>> {
        self.check()?;
        self.check_servers().await?;
        let identity = format!("{}:{}", self.options.digest_user, self.options.digest_password);
        let session = client::open(Setup {
            hosts: self.hosts.clone(),
            first: self.next.fetch_add(1, Ordering::Relaxed),
            root: self.options.root.clone(),
            timeout: self.options.session_timeout,
            identity: identity.into_bytes(),
            clock: self.clock.clone(),
        })
        .await;
        match session {
            Ok(session) => Ok(Arc::new(ZooKeeperCoordinator(session))),
            Err(e) => {
                // Next time every server is asked again, to say what is wrong with each.
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Err(e)
            }
        }
    }

    fn session_timeout(&self) -> Duration {
        self.options.session_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::SystemClock;

    fn options() -> ZooKeeperOptions {
        ZooKeeperOptions {
            hosts: vec!["127.0.0.1:1".into()],
            root: "/ha/c".into(),
            session_timeout: Duration::from_secs(6),
            digest_user: "ha".into(),
            digest_password: "s3cret".into(),
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let connector = ZooKeeperConnector::new(options(), Arc::new(SystemClock));
        assert!(!format!("{:?} {connector:?}", options()).contains("s3cret"));
    }

    #[tokio::test]
    async fn options_are_checked_before_anything_is_sent() {
        for spoil in [
            (|o: &mut ZooKeeperOptions| o.hosts.clear()) as fn(&mut ZooKeeperOptions),
            |o| o.root = String::new(),
            |o| o.root = "/ha/c/".into(),
            |o| o.session_timeout = Duration::from_secs(3),
            |o| o.session_timeout = Duration::from_micros(6_000_100),
            |o| o.digest_user = "a:b".into(),
        ] {
            let mut options = options();
            spoil(&mut options);
            let e = ZooKeeperConnector::new(options, Arc::new(SystemClock))
                .connect()
                .await
                .err();
            assert!(matches!(e, Some(CoordError::Misconfigured(_))), "{e:?}");
        }
    }

    #[tokio::test]
    async fn unreachable_servers_are_named() {
        let hosts = vec!["127.0.0.1:1".into(), "127.0.0.2:1".into()];
        let connector = ZooKeeperConnector::new(ZooKeeperOptions { hosts, ..options() }, Arc::new(SystemClock));
        let e = connector
            .connect()
            .await
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(
            e.contains("127.0.0.1:1: connection refused; 127.0.0.2:1: connection refused"),
            "{e}"
        );
    }
}
