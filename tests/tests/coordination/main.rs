//! The coordinators: one suite on memory and on real ZooKeeper, then what only real servers and real processes show.

#![allow(clippy::unwrap_used)]

mod process;
mod servers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use controlplane::coordination::{Connector, MemoryConnector, MemoryServer, ZooKeeperConnector, ZooKeeperOptions};
use controlplane::platform::{Clock, SystemClock};
use ha_tests::conformance::{self, Fixture};
use ha_tests::zookeeper::ZkServer;
use tokio::time::{Instant, sleep};

const T: Duration = Duration::from_secs(4);

// --- the suite -------------------------------------------------------------------------------------------------------

/// Tokio's clock, which may be paused, as boot time.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn boottime(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1000)
    }
    fn wall_ms(&self) -> i64 {
        0
    }
}

struct Memory {
    servers: Mutex<BTreeMap<String, MemoryServer>>,
    clock: Arc<TokioClock>,
}

impl Memory {
    fn each(&self, f: impl Fn(&MemoryServer)) {
        self.servers.lock().unwrap().values().for_each(f);
    }
}

#[async_trait]
impl Fixture for Memory {
    fn connector(&self, cluster: &str, client: &str) -> Arc<dyn Connector> {
        let mut servers = self.servers.lock().unwrap();
        let server = servers.entry(cluster.to_owned()).or_default();
        Arc::new(MemoryConnector::new(server, client, self.clock.clone(), T))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    async fn break_connections(&mut self) {
        self.each(MemoryServer::crash);
        sleep(T / 3).await;
        self.each(MemoryServer::recover);
    }

    async fn freeze(&mut self) {
        self.each(MemoryServer::freeze);
    }

    async fn thaw(&mut self) {
        self.each(MemoryServer::thaw);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_conforms() {
    let clock = Arc::new(TokioClock(Instant::now()));
    let servers = Mutex::default();
    conformance::run(&mut Memory { servers, clock }).await.unwrap();
}

struct Real(ZkServer);

fn connector(hosts: Vec<String>, cluster: &str, password: &str, session_timeout: Duration) -> ZooKeeperConnector {
    let options = ZooKeeperOptions {
        hosts,
        root: format!("/ha/{cluster}"),
        session_timeout,
        digest_user: "ha".into(),
        digest_password: password.into(),
    };
    ZooKeeperConnector::new(options, Arc::new(SystemClock))
}

#[async_trait]
impl Fixture for Real {
    fn connector(&self, cluster: &str, _: &str) -> Arc<dyn Connector> {
        Arc::new(connector(self.0.hosts(), cluster, "secret", T))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    async fn break_connections(&mut self) {
        self.0.restart().await.unwrap();
    }

    async fn freeze(&mut self) {
        self.0.pause();
    }

    async fn thaw(&mut self) {
        self.0.resume();
    }
}

#[tokio::test]
async fn zookeeper_conforms() {
    let server = ZkServer::start_default().await.unwrap();
    conformance::run(&mut Real(server)).await.unwrap();
}
