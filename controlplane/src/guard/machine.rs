//! When the guard stops what it runs, and how hard: pure arithmetic on one clock (CLOCK_BOOTTIME).
//!
//! Once a stop has begun it can only become harder and earlier, never be taken back: whoever extends a deadline too late
//! must find PostgreSQL gone, not half alive.

use std::time::Duration;

/// SIGQUIT goes out this long before the deadline (protocol R9).
pub const QUIT_BEFORE: Duration = Duration::from_millis(150);
/// SIGKILL follows the SIGQUIT of a deadline after this long (protocol R9).
pub const KILL_AFTER: Duration = Duration::from_millis(200);
/// How long what a clean end left behind may take to end by itself: the log collector reads its pipe to the end.
pub(super) const LINGER: Duration = Duration::from_millis(100);
/// A deadline further ahead than this is a mistake: no session timeout is that long.
pub const FURTHEST: Duration = Duration::from_secs(120);

/// Pauses between kills of a tree that does not empty: a process in the kernel's uninterruptible sleep outlasts them.
const AGAIN_FIRST: Duration = Duration::from_millis(5);
const AGAIN_LAST: Duration = Duration::from_millis(500);

/// What is to be done to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGINT to the postmaster: a fast stop.
    Interrupt,
    /// SIGQUIT to the tree: an immediate stop.
    Quit,
    /// SIGKILL to the tree.
    Kill,
}

/// Why a stop began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The lease ran out.
    LeaseOver,
    /// The daemon asked for it.
    Asked,
    /// The guard was told to end.
    Terminated,
    /// The postmaster ended by itself, or somebody else ended it.
    Died,
    /// It was left over from an earlier guard, which died.
    LeftOver,
    /// The machine, or the container, was started anew since.
    Reboot,
}

/// Limits of a stop that was asked for; the guard's deadline goes before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// From the SIGINT to the SIGQUIT; none: SIGQUIT at once.
    pub(super) fast: Option<Duration>,
    /// From the SIGQUIT to the SIGKILL.
    pub(super) quit: Duration,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// A fast stop is to begin, or has.
    Fast {
        sent: bool,
        quit_at: Duration,
        quit: Duration,
    },
    /// The postmaster ended well; what it left may end by itself until then.
    Linger {
        kill_at: Duration,
    },
    /// An immediate stop is to begin, or has.
    Quit {
        sent: bool,
        kill_at: Duration,
    },
    Kill {
        again_at: Duration,
        pause: Duration,
    },
}

/// The machine of one guard.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    phase: Phase,
    deadline: Option<Duration>,
    cause: Option<Cause>,
    began: Option<Duration>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Nothing runs.
    pub(super) fn new() -> Self {
        Machine {
            phase: Phase::Idle,
            deadline: None,
            cause: None,
            began: None,
        }
    }

    /// Something was started; with a deadline it needs a lease from its first moment.
    pub(super) fn started(&mut self, deadline: Option<Duration>) {
        *self = Machine {
            phase: Phase::Running,
            deadline,
            ..Machine::new()
        };
    }

    /// What an earlier guard left behind is to be ended: it had its SIGQUIT when that guard died.
    pub(super) fn left_over(&mut self, now: Duration) {
        *self = Machine::new();
        self.phase = Phase::Quit {
            sent: false,
            kill_at: now + KILL_AFTER,
        };
        self.begin(now, Cause::LeftOver);
    }

    /// Whether something is running that is not being stopped.
    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether a lease still counts.
    pub(super) fn can_extend(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Fast { .. })
    }

    /// Whether nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// The deadline of what runs; none if it needs no lease.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Why it is being stopped, or was, and since when.
    pub(super) fn stop_began(&self) -> Option<(Cause, Duration)> {
        self.cause.zip(self.began)
    }

    /// A lease was acknowledged. It begins to be needed with the first call, and is needed until the tree is empty. True
    /// if it counts: after a SIGQUIT nothing does, and a deadline never goes backwards. During a fast stop it does, for the
    /// stop may take longer than one lease.
    pub(super) fn extend(&mut self, now: Duration, until: Duration) -> bool {
        if !self.can_extend() || until > now + FURTHEST {
            return false;
        }
        match self.deadline {
            Some(old) if until <= old => false,
            _ => {
                self.deadline = Some(until);
                true
            }
        }
    }

    /// A stop is asked for. One that is under way becomes at most harder and earlier by it.
    pub(super) fn stop(&mut self, now: Duration, limits: Limits, cause: Cause) {
        let quit_at = now + limits.fast.unwrap_or_default();
        let kill_at = now + limits.quit;
        match &mut self.phase {
            Phase::Idle | Phase::Kill { .. } => return,
            Phase::Linger { kill_at: at } => {
                if limits.fast.is_none() {
                    *at = kill_at.min(*at);
                }
            }
            Phase::Quit { kill_at: at, .. } => *at = (quit_at + limits.quit).min(*at),
            Phase::Fast { quit_at: at, quit, .. } if limits.fast.is_some() => {
                *at = quit_at.min(*at);
                *quit = limits.quit.min(*quit);
            }
            phase @ (Phase::Running | Phase::Fast { .. }) => {
                *phase = match limits.fast {
                    Some(_) => Phase::Fast {
                        sent: false,
                        quit_at,
                        quit: limits.quit,
                    },
                    None => Phase::Quit { sent: false, kill_at },
                };
            }
        }
        self.begin(now, cause);
    }

    fn begin(&mut self, now: Duration, cause: Cause) {
        if self.cause.is_none() {
            self.cause = Some(cause);
            self.began = Some(now);
        }
    }

    /// The postmaster is gone. What it left behind is killed: at once, or after a moment if all went well.
    pub(super) fn exited(&mut self, now: Duration, cleanly: bool) {
        self.phase = match self.phase {
            Phase::Idle => return,
            Phase::Running | Phase::Fast { .. } if cleanly => Phase::Linger { kill_at: now + LINGER },
            _ => Phase::Kill {
                again_at: now,
                pause: AGAIN_FIRST,
            },
        };
        self.begin(now, Cause::Died);
    }

    /// Some process of the tree was reaped while it is being killed: what it leaves has a new parent, look again at once.
    pub(super) fn reaped(&mut self, now: Duration) {
        if let Phase::Kill { again_at, .. } = &mut self.phase {
            *again_at = now.min(*again_at);
        }
    }

    /// The tree is empty.
    pub(super) fn emptied(&mut self) {
        self.phase = Phase::Idle;
        self.deadline = None;
    }

    /// When the lease makes the guard act first: SIGQUIT, then SIGKILL.
    fn lease_acts(&self) -> Option<(Duration, Duration)> {
        let quit = self.deadline?.saturating_sub(QUIT_BEFORE);
        Some((quit, quit + KILL_AFTER))
    }

    /// What is to be done now; to be asked until there is nothing.
    pub(super) fn step(&mut self, now: Duration) -> Option<Order> {
        if let Some((quit_at, kill_at)) = self.lease_acts() {
            match &mut self.phase {
                Phase::Idle | Phase::Kill { .. } => {}
                // Frozen past all limits: there is no time for manners.
                _ if now >= kill_at => {
                    self.begin(now, Cause::LeaseOver);
                    return Some(self.kill(now));
                }
                Phase::Quit { kill_at: at, .. } => *at = kill_at.min(*at),
                _ if now >= quit_at => {
                    self.phase = Phase::Quit { sent: false, kill_at };
                    self.begin(now, Cause::LeaseOver);
                }
                _ => {}
            }
        }
        match &mut self.phase {
            Phase::Idle | Phase::Running => None,
            Phase::Fast { quit_at, quit, .. } if now >= *quit_at => {
                self.phase = Phase::Quit {
                    sent: true,
                    kill_at: now + *quit,
                };
                Some(Order::Quit)
            }
            Phase::Fast { sent, .. } => (!std::mem::replace(sent, true)).then_some(Order::Interrupt),
            Phase::Linger { kill_at } if now >= *kill_at => Some(self.kill(now)),
            Phase::Linger { .. } => None,
            Phase::Quit { kill_at, .. } if now >= *kill_at => Some(self.kill(now)),
            Phase::Quit { sent, .. } => (!std::mem::replace(sent, true)).then_some(Order::Quit),
            Phase::Kill { again_at, pause } => {
                if now < *again_at {
                    return None;
                }
                *again_at = now + *pause;
                *pause = (*pause * 2).min(AGAIN_LAST);
                Some(Order::Kill)
            }
        }
    }

    fn kill(&mut self, now: Duration) -> Order {
        self.phase = Phase::Kill {
            again_at: now + AGAIN_FIRST,
            pause: AGAIN_FIRST,
        };
        Order::Kill
    }

    /// When [`Machine::step`] has something to say by itself, if ever.
    pub(super) fn wake(&self) -> Option<Duration> {
        let lease = match self.phase {
            Phase::Idle | Phase::Kill { .. } => None,
            Phase::Quit { .. } => self.lease_acts().map(|(_, kill)| kill),
            _ => self.lease_acts().map(|(quit, _)| quit),
        };
        let own = match self.phase {
            Phase::Idle | Phase::Running => None,
            Phase::Fast { sent: false, .. } | Phase::Quit { sent: false, .. } => Some(Duration::ZERO),
            Phase::Fast { quit_at, .. } => Some(quit_at),
            Phase::Linger { kill_at } | Phase::Quit { kill_at, .. } => Some(kill_at),
            Phase::Kill { again_at, .. } => Some(again_at),
        };
        match (lease, own) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
