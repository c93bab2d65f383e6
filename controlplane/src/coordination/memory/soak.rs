//! Clients that compete for one node under random faults: never do two of them hold a lease at the same time.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::{Connector, CoordError, Coordinator, CreateMode, Lease, SessionState, resolve};
use super::{FaultPlan, MemoryConnector, MemoryServer, Spawner};
use crate::platform::Clock;

const T: Duration = Duration::from_secs(4);
const CLIENTS: usize = 3;

struct TokioClock(Instant);

impl Clock for TokioClock {
    fn boottime(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1000)
    }
    fn wall_ms(&self) -> i64 {
        0
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Stops and continues all futures of one client, as SIGSTOP and SIGCONT do.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    fn stop(&self) {
        self.0.lock().unwrap().0 = true;
    }

    fn go_on(&self) {
        let mut gate = self.0.lock().unwrap();
        gate.0 = false;
        gate.1.drain(..).for_each(Waker::wake);
    }

    /// Spawns a future that stands still while the gate is closed.
    fn spawn(&self, mut task: BoxFuture<'static, ()>) -> tokio::task::JoinHandle<()> {
        let gate = self.0.clone();
        tokio::spawn(poll_fn(move |cx| {
            let mut held = gate.lock().unwrap();
            if held.0 {
                held.1.push(cx.waker().clone());
                return Poll::Pending;
            }
            drop(held);
            Pin::as_mut(&mut task).poll(cx)
        }))
    }
}

/// Competes for `/owner` for ever; publishes its lease while it owns the node.
async fn compete(connector: MemoryConnector, lease: watch::Sender<Lease>, owned: Arc<AtomicUsize>) {
    loop {
        if let Ok(c) = connector.connect().await {
            let _ = own(&*c, &lease, &owned).await;
            lease.send_replace(Lease::default());
            c.abandon();
        }
        sleep(ms(50)).await;
    }
}

async fn own(c: &dyn Coordinator, out: &watch::Sender<Lease>, owned: &AtomicUsize) -> Result<(), CoordError> {
    let id = c.session_id();
    loop {
        let mine = |_: &[u8], stat: &super::super::Stat| Some(stat.owner) == id;
        match resolve::create(c, "/owner", b"", CreateMode::Ephemeral, mine).await {
            Ok(_) => break,
            Err(CoordError::Exists(_)) => {}
            Err(e) => return Err(e),
        }
        if let (Some(_), watch) = c.read_and_watch("/owner").await? {
            watch.fired().await;
        }
        // Without a lease the session does not survive a broken connection.
        if matches!(*c.state().borrow(), SessionState::Lost(_)) {
            return Ok(());
        }
    }
    c.hold_lease("/owner").await?;
    owned.fetch_add(1, Ordering::Relaxed);
    let (mut lease, mut state) = (c.lease(), c.state());
    while !matches!(*state.borrow_and_update(), SessionState::Lost(_)) {
        out.send_replace(*lease.borrow_and_update());
        tokio::select! {
            biased;
            _ = state.changed() => {}
            _ = lease.changed() => {}
        }
    }
    Ok(())
}

/// Runs one seed and returns how often the node was taken.
async fn soak(seed: u64) -> usize {
    let plan = FaultPlan {
        lose_request: 0.02,
        lose_reply: 0.02,
        late_write: 0.02,
        late_by: ms(1)..ms(2000),
        delay: ms(0)..ms(30),
        read_lag: ms(0)..ms(300),
    };
    let server = MemoryServer::with_faults(seed, plan);
    let clock = Arc::new(TokioClock(Instant::now()));
    let root = MemoryConnector::new(&server, "root", clock.clone(), T)
        .connect()
        .await
        .unwrap();
    let _ = resolve::create(&*root, "", b"", CreateMode::Persistent, |_, _| true).await;
    let owned = Arc::new(AtomicUsize::new(0));
    let mut leases = Vec::new();
    let (mut tasks, mut gates) = (Vec::new(), Vec::new());
    for i in 0..CLIENTS {
        let gate = Gate::default();
        let spawner: Spawner = {
            let gate = gate.clone();
            Arc::new(move |task| drop(gate.spawn(task)))
        };
        let connector = MemoryConnector::new(&server, &format!("n{i}"), clock.clone(), T).with_spawner(spawner);
        let (tx, rx) = watch::channel(Lease::default());
        leases.push(rx);
        tasks.push(gate.spawn(Box::pin(compete(connector, tx, owned.clone()))));
        gates.push(gate);
    }
    let mut rng = SmallRng::seed_from_u64(seed);
    for tick in 0..6000 {
        sleep(ms(20)).await;
        let now = clock.boottime();
        let holders = leases.iter().filter(|l| l.borrow().holds(now)).count();
        assert!(holders <= 1, "seed {seed}, tick {tick}: {holders} leases at once");
        if tick % 50 == 0 {
            let i = rng.random_range(0..CLIENTS);
            let client = format!("n{i}");
            match rng.random_range(0..9) {
                0 => server.disconnect(&client),
                1 => server.partition(&client),
                2 | 3 => gates[i].stop(),
                4 => server.freeze(),
                5 => server.crash(),
                _ => {
                    server.thaw();
                    server.recover();
                    (0..CLIENTS).for_each(|i| server.reconnect(&format!("n{i}")));
                    gates.iter().for_each(Gate::go_on);
                }
            }
        }
    }
    for task in tasks {
        assert!(!task.is_finished(), "seed {seed}: a client ended");
        task.abort();
    }
    owned.load(Ordering::Relaxed)
}

#[test]
fn one_lease_at_a_time() {
    let mut taken = 0;
    for seed in 0..60 {
        let rt = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        taken += rt.block_on(soak(seed));
    }
    assert!(
        taken > 60,
        "the node changed hands {taken} times only: the faults kept everyone out"
    );
}
