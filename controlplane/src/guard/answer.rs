//! What the guard answers to whom.
//!
//! A request is judged by what the guard knows itself: whose connection it is, which start is meant, what its own clock
//! says. Whatever is wrong with one changes nothing but its connection.

use std::io;
use std::time::Duration;

use super::machine::{Cause, FURTHEST, Limits, QUIT_BEFORE};
use super::record::Record;
use super::serve::Guard;
use super::wire::{Ask, Event, Refusal, Request, Start, State, Status, Stop, VERSION, Word, to_ns};
use crate::platform::guard::Launch;
use crate::platform::{Clock as _, SystemClock};

/// Why a request was refused, for programs and for people.
type Refused = (Refusal, String);

impl Guard {
    pub(super) fn hear(&mut self, connection: u64, line: &[u8]) {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(_) => {
                // A newer daemon may ask for what this guard does not know; whoever is not known may not.
                #[derive(serde::Deserialize)]
                struct Numbered {
                    id: u64,
                }
                let id = serde_json::from_slice::<Numbered>(line).map_or(0, |n| n.id);
                if id > 0 && self.is_owner(connection) {
                    self.refuse(
                        connection,
                        id,
                        Refusal::Garbage,
                        "this guard does not know that request",
                    );
                } else {
                    self.garbage(connection, id, "that is no request");
                }
                return;
            }
        };
        let id = request.id;
        let outcome = match request.ask {
            Ask::Hello { token, run, .. } => match self.hello(connection, &token, run) {
                Ok(()) => Ok(()),
                Err(why) => {
                    self.refuse(connection, id, Refusal::NotYours, why);
                    self.port.end(connection);
                    return;
                }
            },
            _ if !self.is_owner(connection) => {
                self.refuse(
                    connection,
                    id,
                    Refusal::NoHello,
                    "hello comes first, and its connection must be the newest",
                );
                self.port.end(connection);
                return;
            }
            Ask::Status => Ok(()),
            Ask::Start(start) => self.start(&start),
            Ask::Arm { incarnation, until } => self.extend(incarnation, until, true),
            Ask::Deadline { incarnation, until } => self.extend(incarnation, until, false),
            Ask::Stop(stop) => self.stop(stop),
            Ask::Quit if self.machine.is_idle() => {
                self.ending = true;
                Ok(())
            }
            Ask::Quit => Err((Refusal::Running, "something runs".to_owned())),
        };
        match outcome {
            Ok(()) => {
                let status = Box::new(self.status());
                self.say(connection, &Word::Done { id, status });
            }
            Err((code, why)) => self.refuse(connection, id, code, &why),
        }
    }

    fn hello(&mut self, connection: u64, token: &str, run: u64) -> Result<(), &'static str> {
        // Only while nothing runs may the disk be asked.
        if self.token.as_deref() != Some(token) && self.machine.is_idle() {
            self.read_token();
        }
        if self.token.as_deref() != Some(token) {
            return Err("that is not the token of this node's state directory");
        }
        if run < self.newest_run {
            return Err("a newer run of this daemon has taken over");
        }
        self.newest_run = run;
        if let Some(old) = self.owner.replace(connection).filter(|old| *old != connection) {
            self.port.end(old);
        }
        self.port.trust(connection);
        Ok(())
    }

    pub(super) fn read_token(&mut self) {
        let text = std::fs::read_to_string(&self.token_file).unwrap_or_default();
        let text = text.trim();
        self.token = (!text.is_empty()).then(|| text.to_owned());
    }

    fn start(&mut self, start: &Start) -> Result<(), Refused> {
        if self.ending {
            return Err((Refusal::Ending, "the guard was told to end".into()));
        }
        if !self.machine.is_idle() {
            return Err((
                Refusal::Running,
                format!("incarnation {} runs", self.record.incarnation),
            ));
        }
        if start.incarnation <= self.record.incarnation {
            let why = format!(
                "incarnation {} was started already; {} is not newer",
                self.record.incarnation, start.incarnation
            );
            return Err((Refusal::Stale, why));
        }
        let until = start.until.map(Duration::from_nanos);
        Self::check_lease(until)?;
        let old = std::mem::replace(
            &mut self.record,
            Record {
                v: 1,
                incarnation: start.incarnation,
                boot: self.boot.clone(),
                proof: None,
            },
        );
        self.unwritten = false;
        if let Err(e) = self.record.write(&self.dir) {
            // It may be on the disk all the same; then this incarnation is used up, which does no harm.
            self.record = old;
            return Err((Refusal::Record, format!("the guard's record cannot be written: {e}")));
        }
        self.exit = None;
        self.cause = None;
        // The disk may have taken its time.
        let checked = Self::check_lease(until);
        let launched = checked.and_then(|()| {
            self.tree
                .start(&Launch {
                    program: &start.program,
                    args: &start.args,
                    env: &start.env,
                    cwd: &start.cwd,
                    run_as: start.run_as.as_ref(),
                    log: &start.log,
                    incarnation: start.incarnation,
                    boot: &self.boot,
                })
                .map_err(|e| {
                    let what = if e.kind() == io::ErrorKind::WouldBlock {
                        "processes of an earlier start still run".to_owned()
                    } else {
                        format!(
                            "{} cannot be started (the program, its directory or its log): {e}",
                            start.program.display()
                        )
                    };
                    (Refusal::Failed, what)
                })
        });
        let now = SystemClock.boottime();
        match launched {
            Ok(pid) => {
                self.pid = Some(pid);
                self.started_ms = Some(SystemClock.wall_ms());
                self.machine.started(until);
                self.journal.note(format_args!(
                    "incarnation {}: started as process {pid}",
                    start.incarnation
                ));
                Ok(())
            }
            Err(e) => {
                self.started_ms = None;
                self.prove(Cause::Died, now, now);
                Err(e)
            }
        }
    }

    fn check_lease(until: Option<Duration>) -> Result<(), Refused> {
        let now = SystemClock.boottime();
        match until {
            Some(until) if until <= now + QUIT_BEFORE => {
                Err((Refusal::Lease, "the lease is over, or as good as".into()))
            }
            Some(until) if until > now + FURTHEST => Err((Refusal::Lease, "no lease runs that long".into())),
            _ => Ok(()),
        }
    }

    fn extend(&mut self, incarnation: u64, until: u64, arm: bool) -> Result<(), Refused> {
        if incarnation != self.record.incarnation {
            return Err((
                Refusal::Stale,
                format!("incarnation {} is the newest", self.record.incarnation),
            ));
        }
        if !self.machine.can_extend() {
            return Err((Refusal::NotRunning, "nothing runs, or it is being stopped".into()));
        }
        let until = Duration::from_nanos(until);
        let now = SystemClock.boottime();
        if self.machine.deadline().is_none() {
            if !arm {
                return Err((Refusal::Lease, "it runs without a lease".into()));
            }
            Self::check_lease(Some(until))?;
        } else if until > now + FURTHEST {
            return Err((Refusal::Lease, "no lease runs that long".into()));
        }
        // One that is behind the deadline is no error: it was overtaken.
        self.machine.extend(now, until);
        Ok(())
    }

    fn stop(&mut self, stop: Stop) -> Result<(), Refused> {
        if stop.incarnation != self.record.incarnation {
            return Err((
                Refusal::Stale,
                format!("incarnation {} is the newest", self.record.incarnation),
            ));
        }
        let limits = Limits {
            fast: stop.fast_ms.map(Duration::from_millis),
            quit: Duration::from_millis(stop.quit_ms),
        };
        self.begin_stop(limits, Cause::Asked);
        Ok(())
    }

    fn status(&self) -> Status {
        let state = match (self.machine.is_idle(), self.machine.is_running()) {
            (true, _) => State::Idle,
            (_, true) => State::Running,
            _ => State::Stopping,
        };
        let until = self.machine.deadline();
        let now = SystemClock.boottime();
        let left = |until: Duration| match until.checked_sub(now) {
            Some(left) => i64::try_from(left.as_millis()).unwrap_or(i64::MAX),
            None => -i64::try_from((now - until).as_millis()).unwrap_or(i64::MAX),
        };
        Status {
            version: VERSION,
            guard: std::process::id(),
            state,
            incarnation: self.record.incarnation,
            pid: self.pid,
            started_ms: self.started_ms,
            until: until.map(to_ns),
            left_ms: until.map(left),
            cause: self.cause,
            exit: self.exit,
            proof: self.record.proof.clone(),
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        if let Some(connection) = self.owner {
            let status = Box::new(self.status());
            self.say(connection, &Word::Event { event, status });
        }
    }

    pub(super) fn garbage(&mut self, connection: u64, id: u64, why: &str) {
        self.refuse(connection, id, Refusal::Garbage, why);
        self.port.end(connection);
        self.gone(connection);
    }

    fn refuse(&mut self, connection: u64, id: u64, code: Refusal, why: &str) {
        let status = self.is_owner(connection).then(|| Box::new(self.status()));
        let why = why.to_owned();
        self.say(connection, &Word::Refused { id, code, why, status });
    }

    fn say(&mut self, connection: u64, word: &Word) {
        let line = serde_json::to_vec(word).unwrap_or_default();
        if !self.port.say(connection, &line) {
            self.gone(connection);
        }
    }
}
