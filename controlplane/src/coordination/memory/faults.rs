//! The faults a test can order from the in-memory server: scripted for the next request, or drawn from a seed.
//!
//! It must never draw from anything but its own seeded generator, in the order of the requests: a seed has to replay.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A fault for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Carried out, but the reply is lost: the caller gets an unknown outcome.
    LoseReply,
    /// Not carried out, and the caller gets an unknown outcome.
    LoseRequest,
    /// The caller gets an unknown outcome at once; the request is carried out after this time, if the session still
    /// lives.
    Late(Duration),
    /// Carried out after this time.
    Delay(Duration),
}

/// What happens to requests at random. The default is a perfect network without latency.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan {
    /// Probability that a request is lost before it is carried out, 0 to 1.
    pub lose_request: f64,
    /// Probability that the reply to a request that was carried out is lost, 0 to 1.
    pub lose_reply: f64,
    /// Probability that a write is reported unknown and carried out later, 0 to 1.
    pub late_write: f64,
    /// How much later; empty means 1 ms.
    pub late_by: Range<Duration>,
    /// Time a request takes on its way to the server, and again its reply; empty means none.
    pub delay: Range<Duration>,
    /// How far the follower a session is connected to lags behind, drawn for each connection; empty means not at all.
    /// Reads may then return older values, though never older than what this session wrote or saw.
    pub read_lag: Range<Duration>,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    /// Time on the way to the server.
    pub(super) before: Duration,
    /// Time of the reply on its way back.
    pub(super) after: Duration,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    RequestLost,
    ReplyLost,
    Late(Duration),
}

/// Draws the fate of each request.
pub(super) struct Faults {
    pub(super) plan: FaultPlan,
    rng: SmallRng,
    script: Vec<(String, String, Fault)>,
}

impl Faults {
    pub(super) fn new(seed: u64, plan: FaultPlan) -> Faults {
        Faults {
            plan,
            rng: SmallRng::seed_from_u64(seed),
            script: Vec::new(),
        }
    }

    /// Orders `fault` for the next write of `client` whose path contains `path`.
    pub(super) fn inject(&mut self, client: &str, path: &str, fault: Fault) {
        self.script.push((client.to_owned(), path.to_owned(), fault));
    }

    /// How many ordered faults of `client` have not befallen a request yet.
    pub(super) fn ordered(&self, client: &str) -> usize {
        self.script.iter().filter(|(c, _, _)| c == client).count()
    }

    /// The fate of a request.
    pub(super) fn draw(&mut self, client: &str, path: &str, write: bool) -> Fate {
        let before = self.time(|p| &p.delay);
        let after = self.time(|p| &p.delay);
        let outcome = if self.happens(|p| p.lose_request) {
            Outcome::RequestLost
        } else if self.happens(|p| p.lose_reply) {
            Outcome::ReplyLost
        } else if write && self.happens(|p| p.late_write) {
            Outcome::Late(self.time(|p| &p.late_by).max(Duration::from_millis(1)))
        } else {
            Outcome::Delivered
        };
        let fate = Fate { before, after, outcome };
        let scripted = self
            .script
            .iter()
            .position(|(c, p, _)| write && c == client && path.contains(p.as_str()));
        match scripted.map(|at| self.script.remove(at).2) {
            None => fate,
            Some(Fault::LoseReply) => Fate {
                outcome: Outcome::ReplyLost,
                ..fate
            },
            Some(Fault::LoseRequest) => Fate {
                outcome: Outcome::RequestLost,
                ..fate
            },
            Some(Fault::Late(by)) => Fate {
                outcome: Outcome::Late(by),
                ..fate
            },
            Some(Fault::Delay(by)) => Fate {
                before: by,
                outcome: Outcome::Delivered,
                ..fate
            },
        }
    }

    /// The lag of a connection's server.
    pub(super) fn lag(&mut self) -> Duration {
        self.time(|p| &p.read_lag)
    }

    fn happens(&mut self, probability: impl Fn(&FaultPlan) -> f64) -> bool {
        let p = probability(&self.plan);
        p > 0.0 && self.rng.random_bool(p.min(1.0))
    }

    fn time(&mut self, range: impl Fn(&FaultPlan) -> &Range<Duration>) -> Duration {
        let range = range(&self.plan).clone();
        if range.is_empty() {
            range.start
        } else {
            self.rng.random_range(range)
        }
    }
}
