//! What must hold at every transaction, checked as the server makes it.
//!
//! The ledger sees what was written and by whom, whatever the daemons believe; it must never look at a daemon's own state
//! except for whether its process lives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controlplane::coordination::{Commit, Done};
use ha_core::{Change, MasterRecord, Registration, change_seq, decode};
use serde::Deserialize;
use tokio::time::Instant;

use super::trace::Trace;

/// The head of a fenced value.
#[derive(Debug, Clone, Deserialize)]
struct Fenced {
    term: u64,
    #[serde(default)]
    change: Option<Embedded>,
}

#[derive(Debug, Clone, Deserialize)]
struct Embedded {
    seq: u64,
    write: String,
}

/// A daemon's process, as far as it matters who may delete what.
#[derive(Debug, Clone)]
pub struct Run {
    /// Kept over restarts.
    pub token: String,
    /// It was not killed and has not ended.
    pub alive: bool,
}

/// Something to be done to a process as soon as a write of it was made.
#[derive(Debug, Clone)]
pub struct Trap {
    /// What the path begins with.
    pub path: String,
    /// Only writes of this term's master or a later one; 0 for any.
    pub number: u32,
}

/// A trap that sprang.
#[derive(Debug, Clone)]
pub struct Sprung {
    /// The trap's number.
    pub number: u32,
    /// The client that wrote.
    pub client: String,
}

#[derive(Debug, Clone)]
struct Ephemeral {
    session: i64,
    /// The run that registered on the session, if one did.
    restarting: bool,
    /// When it was last written, which is when a lease was last heartbeated.
    written: Instant,
}

/// See the module.
pub struct Ledger {
    trace: Trace,
    /// The session timeout.
    timeout: Duration,
    /// The first thing that was wrong.
    pub violation: Option<String>,
    /// Processes by their run.
    pub runs: BTreeMap<String, Run>,
    /// The run that uses a session, by session.
    pub sessions: BTreeMap<i64, String>,
    /// Which run a client is at present or was last, by client.
    pub clients: BTreeMap<String, String>,
    ephemerals: BTreeMap<String, Ephemeral>,
    fenced: BTreeMap<String, Fenced>,
    master: MasterRecord,
    /// Highest term whose master has written to the log, so that it has sealed everything.
    sealed: u64,
    /// The log: entry by number.
    pub log: BTreeMap<u64, Change>,
    first: u64,
    /// Traps that are set.
    pub traps: Vec<Trap>,
    /// Traps that sprang and were not dealt with.
    pub sprung: Vec<Sprung>,
    /// How many terms began.
    pub terms: u64,
}

fn is_fenced(path: &str) -> bool {
    matches!(path, "/cluster" | "/access")
        || ["/nodes/", "/assignments/", "/ops/"]
            .iter()
            .any(|folder| path.starts_with(folder))
}

/// A path without the ids that are drawn at random.
fn plain(path: &str) -> String {
    if let Some(candidate) = path.strip_prefix("/election/") {
        return format!("/election/{}", candidate.rsplit('-').next().unwrap_or_default());
    }
    if path.starts_with("/ops/") {
        return "/ops/…".to_owned();
    }
    path.to_owned()
}

impl Ledger {
    /// A ledger of an empty server.
    pub fn new(trace: Trace, timeout: Duration) -> Self {
        Self {
            trace,
            timeout,
            violation: None,
            runs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            ephemerals: BTreeMap::new(),
            fenced: BTreeMap::new(),
            master: MasterRecord::default(),
            sealed: 0,
            log: BTreeMap::new(),
            first: 1,
            traps: Vec::new(),
            sprung: Vec::new(),
            terms: 0,
        }
    }

    /// Says that something is wrong. The first one counts.
    pub fn wrong(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.trace.say("!", format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// Number of the newest entry of the log.
    pub fn tail(&self) -> u64 {
        self.log.keys().next_back().copied().unwrap_or(0)
    }

    /// Takes note of a transaction.
    pub fn commit(&mut self, commit: &Commit<'_>) {
        // A session belongs to whatever run its client is when it first writes.
        if let Some(run) = self.clients.get(commit.client) {
            self.sessions.entry(commit.session).or_insert_with(|| run.clone());
        }
        match commit.done {
            Done::Created { path, data, owner } => {
                self.created(commit, path, data, owner);
                self.spring(path, commit.client);
            }
            Done::Set { path, data } => {
                self.set(commit, path, data);
                self.spring(path, commit.client);
            }
            Done::Deleted { path } => {
                self.deleted(commit, path);
                self.spring(path, commit.client);
            }
            Done::SessionEnded { gone } => {
                let gone: Vec<String> = gone.iter().map(|p| plain(p)).collect();
                self.trace.say(
                    "server",
                    format!(
                        "session {:x} of {} ended: {}",
                        commit.session,
                        commit.client,
                        gone.join(" ")
                    ),
                );
            }
        }
        if let Done::SessionEnded { gone } = commit.done {
            for path in gone {
                self.ephemerals.remove(path);
            }
        }
    }

    fn spring(&mut self, path: &str, client: &str) {
        if let Some(at) = self.traps.iter().position(|t| path.starts_with(&t.path)) {
            let number = self.traps.remove(at).number;
            let client = client.to_owned();
            self.trace
                .say("fault", format!("trap {number}: {client} wrote {}", plain(path)));
            self.sprung.push(Sprung { number, client });
        }
    }

    fn created(&mut self, commit: &Commit<'_>, path: &str, data: &[u8], owner: i64) {
        if owner != 0 {
            self.trace.say(
                commit.client,
                format!("created {} (session {:x})", plain(path), commit.session),
            );
            if let Ok(registration) = decode::<Registration>(path, data) {
                self.sessions.insert(owner, registration.run);
            }
            let held = Ephemeral {
                session: owner,
                restarting: false,
                written: Instant::now(),
            };
            if self.ephemerals.insert(path.to_owned(), held).is_some() {
                self.wrong(format!("{} has two owners", plain(path)));
            }
        } else if let Some(seq) = path.strip_prefix("/changes/") {
            self.entry(commit.client, seq, data);
        } else if is_fenced(path) {
            match serde_json::from_slice::<Fenced>(data) {
                Ok(f) if f.term == 0 && f.change.is_none() => drop(self.fenced.insert(path.to_owned(), f)),
                other => self.wrong(format!("{} was not created empty at term 0: {other:?}", plain(path))),
            }
        }
    }

    fn entry(&mut self, client: &str, name: &str, data: &[u8]) {
        let change = match decode::<Change>(name, data) {
            Ok(change) => change,
            Err(e) => return self.wrong(format!("log entry {name}: {e}")),
        };
        if change_seq(name) != Some(change.seq) {
            self.wrong(format!("log entry {name} has the number {}", change.seq));
        }
        if change.seq != self.tail() + 1 {
            self.wrong(format!("log entry {} comes after {}", change.seq, self.tail()));
        }
        let subject = if change.subject.starts_with("op/") {
            "op/…"
        } else {
            &change.subject
        };
        self.trace.say(
            client,
            format!(
                "log {} (term {}) {} {subject} {}",
                change.seq, change.term, change.kind, change.request
            ),
        );
        if change.kind == "master.elected" {
            self.sealed = self.sealed.max(change.term);
        }
        self.log.insert(change.seq, change);
    }

    fn set(&mut self, commit: &Commit<'_>, path: &str, data: &[u8]) {
        if path == "/master" {
            self.set_master(commit.client, data);
        } else if path.starts_with("/members/") {
            let restarting = decode::<Registration>(path, data).is_ok_and(|r| r.restarting);
            if let Some(e) = self.ephemerals.get_mut(path) {
                e.restarting = restarting;
            }
            self.trace
                .say(commit.client, format!("set {path} restarting={restarting}"));
        } else if let Some(e) = self.ephemerals.get_mut(path) {
            e.written = Instant::now();
        } else if is_fenced(path) {
            match serde_json::from_slice::<Fenced>(data) {
                Ok(new) => self.set_fenced(commit.client, path, new),
                Err(e) => self.wrong(format!("{}: {e}", plain(path))),
            }
        }
    }

    fn set_fenced(&mut self, client: &str, path: &str, new: Fenced) {
        let before = self.fenced.get(path).map_or(0, |f| f.term);
        if new.term < before {
            self.wrong(format!(
                "{client} wrote {} under term {} after term {before}",
                plain(path),
                new.term
            ));
        }
        if new.term < self.sealed {
            let sealed = self.sealed;
            self.wrong(format!(
                "{client} wrote {} under term {}, but term {sealed} had sealed everything",
                plain(path),
                new.term
            ));
        }
        if new.term > self.master.term {
            self.wrong(format!("{} has a term that nobody raised: {}", plain(path), new.term));
        }
        self.fenced.insert(path.to_owned(), new);
    }

    fn set_master(&mut self, client: &str, data: &[u8]) {
        let new = match decode::<MasterRecord>("/master", data) {
            Ok(new) => new,
            Err(e) => return self.wrong(e.to_string()),
        };
        let old = &self.master;
        let says = |h: &Option<ha_core::Holder>| h.as_ref().map_or("-".to_owned(), |h| h.node.clone());
        self.trace.say(
            client,
            format!(
                "master: term {} held by {}{}",
                new.term,
                says(&new.holder),
                new.transfer
                    .as_ref()
                    .map_or(String::new(), |t| format!(", on its way to {}", t.node))
            ),
        );
        let raised = new.term == old.term + 1 && new.holder.is_some();
        let gave_up = new.term == old.term && new.holder.is_none();
        if !raised && !gave_up {
            let (from, to) = (old.term, new.term);
            self.wrong(format!(
                "the master record went from term {from} to {to}, held by {}",
                says(&new.holder)
            ));
        }
        self.terms = self.terms.max(new.term);
        self.master = new;
    }

    fn deleted(&mut self, commit: &Commit<'_>, path: &str) {
        if let Some(name) = path.strip_prefix("/changes/") {
            let seq = change_seq(name).unwrap_or(0);
            if seq != self.first {
                let first = self.first;
                self.wrong(format!("log entry {seq} was deleted, but {first} is the oldest"));
            }
            self.first += 1;
        } else if is_fenced(path) && !path.starts_with("/ops/") {
            self.wrong(format!("{} deleted {path}", commit.client));
        }
        let Some(held) = self.ephemerals.remove(path) else {
            return;
        };
        self.trace.say(
            commit.client,
            format!("deleted {} of session {:x}", plain(path), held.session),
        );
        if held.session == commit.session {
            return;
        }
        if let Err(why) = self.may_delete(path, commit.session, &held) {
            self.wrong(format!("{} deleted {}: {why}", commit.client, plain(path)));
        }
    }

    /// Whether a session may delete what another one owns.
    fn may_delete(&self, path: &str, by: i64, held: &Ephemeral) -> Result<(), String> {
        let (Some(mine), Some(theirs)) = (self.sessions.get(&by), self.sessions.get(&held.session)) else {
            return Err("nobody knows whose it is".to_owned());
        };
        let run = |r: &String| self.runs.get(r);
        let dead = run(theirs).is_none_or(|r| !r.alive);
        if dead || mine == theirs {
            return Ok(());
        }
        let owner_ends = |folder: &str| {
            let registrations = self.ephemerals.iter().filter(|(p, _)| p.starts_with(folder));
            registrations
                .clone()
                .any(|(_, e)| e.session == held.session && e.restarting)
        };
        if held.restarting || owner_ends("/members/") {
            return Ok(());
        }
        // What is left of a registration that is gone is free to go.
        let registered = |(p, e): (&String, &Ephemeral)| p.starts_with("/members/") && e.session == held.session;
        if path.starts_with("/leases/") && !self.ephemerals.iter().any(registered) {
            return Ok(());
        }
        // A lease in which nobody is master for certain any more, and the candidacy of whoever held it, need not wait for the
        // session's end.
        let leased = |(p, e): (&String, &Ephemeral)| p.starts_with("/leases/") && e.session == held.session;
        if path.starts_with("/leases/") && held.written.elapsed() >= self.timeout / 2 {
            return Ok(());
        }
        if path.starts_with("/election/") && !self.ephemerals.iter().any(leased) {
            return Ok(());
        }
        Err("its daemon lives".to_owned())
    }

    /// Whether some value embeds a change whose entry is the next to be appended.
    pub fn under_way(&self) -> bool {
        let next = self.tail() + 1;
        self.fenced
            .values()
            .filter_map(|f| f.change.as_ref())
            .any(|c| c.seq == next)
    }

    /// What must hold when nothing is under way any more: each change that a value embeds is in the log.
    pub fn settle(&mut self) {
        let mut wrong = Vec::new();
        for (path, value) in &self.fenced {
            let Some(change) = &value.change else { continue };
            match self.log.get(&change.seq) {
                Some(entry) if entry.write == change.write => {}
                Some(entry) => wrong.push(format!(
                    "{} embeds change {}, but the log has another there ({})",
                    plain(path),
                    change.seq,
                    entry.kind
                )),
                None => wrong.push(format!(
                    "{} embeds change {}, which the log lacks",
                    plain(path),
                    change.seq
                )),
            }
        }
        let mut writes = BTreeSet::new();
        for change in self.log.values() {
            if !writes.insert(&change.write) {
                wrong.push(format!("log entry {} repeats an earlier write", change.seq));
            }
        }
        for what in wrong {
            self.wrong(what);
        }
    }
}
