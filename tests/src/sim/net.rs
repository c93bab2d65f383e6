//! The network between daemons: links with latency that can be cut. In order and without loss, as TCP is; a cut link
//! delivers nothing until it heals, and its ends find that out by their own time limits.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// The links between nodes. Clones are the same network.
#[derive(Clone)]
pub struct Net {
    cut: Rc<watch::Sender<BTreeSet<(String, String)>>>,
    /// Raised when every connection is to break.
    resets: Rc<watch::Sender<u64>>,
    latency: Rc<RefCell<Range<Duration>>>,
    rng: Rc<RefCell<SmallRng>>,
}

fn pair(a: &str, b: &str) -> (String, String) {
    let (a, b) = (a.min(b), a.max(b));
    (a.to_owned(), b.to_owned())
}

impl Net {
    /// A whole network of this latency.
    pub fn new(rng: SmallRng, latency: Range<Duration>) -> Self {
        Self {
            cut: Rc::new(watch::Sender::new(BTreeSet::new())),
            resets: Rc::new(watch::Sender::new(0)),
            latency: Rc::new(RefCell::new(latency)),
            rng: Rc::new(RefCell::new(rng)),
        }
    }

    /// Cuts the link between two nodes.
    pub fn cut(&self, a: &str, b: &str) {
        self.cut.send_modify(|cut| {
            cut.insert(pair(a, b));
        });
    }

    /// Mends it.
    pub fn mend(&self, a: &str, b: &str) {
        self.cut.send_modify(|cut| {
            cut.remove(&pair(a, b));
        });
    }

    /// Mends all, and breaks the connections that are open.
    pub fn heal(&self) {
        self.cut.send_modify(BTreeSet::clear);
        self.resets.send_modify(|n| *n += 1);
    }

    /// Waits until the open connections are to break.
    pub async fn reset(&self) {
        let mut resets = self.resets.subscribe();
        if resets.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the link is whole.
    pub fn is_up(&self, a: &str, b: &str) -> bool {
        !self.cut.borrow().contains(&pair(a, b))
    }

    /// Waits until it is.
    pub async fn up(&self, a: &str, b: &str) {
        let pair = pair(a, b);
        let mut cut = self.cut.subscribe();
        // The sender lives as long as this value.
        let _ = cut.wait_for(|cut| !cut.contains(&pair)).await;
    }

    /// The time one message takes.
    pub fn latency(&self) -> Duration {
        let range = self.latency.borrow().clone();
        if range.is_empty() {
            return range.start;
        }
        self.rng.borrow_mut().random_range(range)
    }

    /// One direction of a connection from `a` to `b`.
    pub fn pipe<T>(&self, a: &str, b: &str) -> (PipeTx<T>, PipeRx<T>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let net = self.clone();
        let ends = pair(a, b);
        (
            PipeTx { tx, net: net.clone() },
            PipeRx {
                rx,
                net,
                ends,
                held: None,
            },
        )
    }
}

/// The sending end.
pub struct PipeTx<T> {
    tx: mpsc::UnboundedSender<(Instant, T)>,
    net: Net,
}

impl<T> PipeTx<T> {
    /// Sends a message; false if the other end is gone.
    pub fn send(&self, message: T) -> bool {
        self.tx.send((Instant::now() + self.net.latency(), message)).is_ok()
    }

    /// Waits until the other end is gone.
    pub async fn closed(&self) {
        self.tx.closed().await;
    }
}

/// The receiving end.
pub struct PipeRx<T> {
    rx: mpsc::UnboundedReceiver<(Instant, T)>,
    net: Net,
    ends: (String, String),
    held: Option<(Instant, T)>,
}

impl<T> PipeRx<T> {
    /// The next message; none when the other end is gone. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<T> {
        if self.held.is_none() {
            let next = self.rx.recv().await;
            if next.is_none() {
                // The end of a connection is no news across a cut either.
                self.net.up(&self.ends.0, &self.ends.1).await;
                return None;
            }
            self.held = next;
        }
        if let Some((at, _)) = &self.held {
            sleep_until(*at).await;
        }
        self.net.up(&self.ends.0, &self.ends.1).await;
        self.held.take().map(|(_, message)| message)
    }
}
