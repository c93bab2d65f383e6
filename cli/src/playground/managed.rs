//! One child as the supervisor has it: started, reaped, started again after its delay.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::child::{self, Child, Exit, Report, State};
use super::system::{self, Process};
use crate::names::now_ms;

/// One line of the supervisor's own log, which is its standard error.
pub(super) fn say(line: &str) {
    let now = jiff::Timestamp::now();
    let _ = writeln!(std::io::stderr(), "{now:.3} {line}");
}

pub(super) struct Managed {
    pub(super) child: Child,
    pub(super) state: Now,
    restarts: u32,
    /// The delay before it was last started again.
    delay: Duration,
}

pub(super) enum Now {
    Running {
        process: std::process::Child,
        identity: Process,
        since: Instant,
        since_ms: i64,
    },
    Waiting {
        exit: Exit,
        until: Instant,
        until_ms: i64,
    },
    Ended {
        exit: Exit,
        at_ms: i64,
    },
}

impl Managed {
    /// Starts the child for the first time.
    pub(super) fn start(child: Child) -> std::io::Result<Self> {
        let state = spawn(&child)?;
        Ok(Self {
            child,
            state,
            restarts: 0,
            delay: Duration::ZERO,
        })
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.state, Now::Running { .. })
    }

    pub(super) fn identity(&self) -> Option<Process> {
        match &self.state {
            Now::Running { identity, .. } => Some(*identity),
            Now::Waiting { .. } | Now::Ended { .. } => None,
        }
    }

    /// Takes note of the child's end, if it ended.
    pub(super) fn reap(&mut self, now: Instant, stopping: bool) -> bool {
        let Now::Running { process, since, .. } = &mut self.state else {
            return false;
        };
        let Some(exit) = system::reap(process) else {
            return false;
        };
        let ran = now.saturating_duration_since(*since);
        let again = child::delay(self.child.restart, exit, ran, self.delay).filter(|_| !stopping);
        self.rest(exit, again, &format!("ended after {:.1} s: {exit}", ran.as_secs_f32()));
        true
    }

    pub(super) fn start_again(&mut self, now: Instant) -> bool {
        match self.state {
            Now::Waiting { until, .. } if now >= until => {}
            Now::Waiting { .. } | Now::Running { .. } | Now::Ended { .. } => return false,
        }
        self.restarts += 1;
        match spawn(&self.child) {
            Ok(state) => self.state = state,
            Err(e) => {
                let exit = Exit::NotStarted;
                let again = child::delay(self.child.restart, exit, Duration::ZERO, self.delay);
                self.rest(exit, again, &format!("could not be started: {e}"));
            }
        }
        true
    }

    /// The child does not run: it waits for its next start, or has ended.
    fn rest(&mut self, exit: Exit, again: Option<Duration>, what: &str) {
        let at_ms = now_ms();
        let name = &self.child.name;
        match again {
            Some(delay) => {
                say(&format!(
                    "{name} {what}; starting it again in {:.1} s",
                    delay.as_secs_f32()
                ));
                self.delay = delay;
                let until_ms = at_ms + i64::try_from(delay.as_millis()).unwrap_or(0);
                self.state = Now::Waiting {
                    exit,
                    until: Instant::now() + delay,
                    until_ms,
                };
            }
            None => {
                say(&format!("{name} {what}"));
                self.state = Now::Ended { exit, at_ms };
            }
        }
    }

    pub(super) fn report(&self) -> Report {
        let state = match &self.state {
            Now::Running { identity, since_ms, .. } => State::Running {
                pid: identity.pid,
                since_ms: *since_ms,
            },
            Now::Waiting { exit, until_ms, .. } => State::Waiting {
                exit: *exit,
                until_ms: *until_ms,
            },
            Now::Ended { exit, at_ms } => State::Ended {
                exit: *exit,
                at_ms: *at_ms,
            },
        };
        Report {
            name: self.child.name.clone(),
            kind: self.child.kind.clone(),
            address: self.child.address.clone(),
            log: self.child.log.clone(),
            state,
            restarts: self.restarts,
        }
    }
}

fn spawn(child: &Child) -> std::io::Result<Now> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&child.log)?;
    let mut command = Command::new(&child.program);
    command
        .args(&child.args)
        .envs(child.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    system::leash(&mut command);
    let process = command.spawn()?;
    let identity = Process::now(process.id());
    say(&format!("{} runs as process {}", child.name, identity.pid));
    Ok(Now::Running {
        process,
        identity,
        since: Instant::now(),
        since_ms: now_ms(),
    })
}
