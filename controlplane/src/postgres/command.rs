//! Runs PostgreSQL's own programs: as the account they need, in a process group of their own, bounded in time, and gone
//! whole when the future that waits for them is dropped.
//!
//! A daemon that is killed cannot take its children with it. Their standard input is therefore an empty file that is
//! locked: the lock lasts as long as any of them lives, and [`Gate::enter`] waits for it, and ends what is left, before
//! anything else touches the same directory. Nothing secret may be given to a program in its arguments.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::error::{PgError, Result, one_line};
use crate::platform::{Account, isolate, kill_tree, process_start, service, unprotect, write_atomic};

/// How much of what a program says is kept, from its end, in bytes.
const WORDS: usize = 256 * 1024;
/// How long its last words are waited for when something that it left running keeps its output open.
const LINGER: Duration = Duration::from_millis(200);
/// How long what an earlier daemon left running may take to end once it was killed.
const LEFT_OVER: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The one that may run programs on an instance's directory.
#[derive(Debug, Clone)]
pub struct Gate {
    lock: PathBuf,
    holder: PathBuf,
}

impl Gate {
    /// A gate whose files lie in `dir`, which must exist and be private to the daemon.
    pub fn new(dir: &Path) -> Self {
        Self {
            lock: dir.join("tool.lock"),
            holder: dir.join("tool.pid"),
        }
    }

    /// Waits until no program that was started through this gate is left, by this daemon or one before it. One that an
    /// earlier daemon left behind is killed.
    ///
    /// # Errors
    /// [`PgError::Files`]; [`PgError::TimedOut`] if something holds on.
    pub async fn enter(&self) -> Result<Held> {
        let began = Instant::now();
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&self.lock);
            let file = file.map_err(PgError::files(&self.lock))?;
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Held {
                        file,
                        holder: self.holder.clone(),
                    });
                }
                Err(std::fs::TryLockError::WouldBlock) => self.end_left_over(),
                Err(std::fs::TryLockError::Error(e)) => return Err(PgError::files(&self.lock)(e)),
            }
            if began.elapsed() > LEFT_OVER {
                return Err(PgError::TimedOut {
                    what: "waiting for a program of PostgreSQL's that still runs".into(),
                    limit: LEFT_OVER,
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn end_left_over(&self) {
        let Ok(text) = std::fs::read_to_string(&self.holder) else {
            return;
        };
        let mut words = text.split_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(daemon)), Some(Ok(pid)), Some(Ok(start))) = (words.next(), words.next(), words.next())
            && daemon != u64::from(std::process::id())
            && let Ok(pid) = u32::try_from(pid)
            && process_start(pid) == Some(start)
        {
            tracing::warn!(pid, "a program that an earlier daemon left running is ended");
            kill_tree(pid);
        }
    }
}

/// The right to run programs on a directory, one at a time.
#[derive(Debug)]
pub struct Held {
    file: File,
    holder: PathBuf,
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// One run of a program.
#[derive(Debug)]
pub(super) struct Tool<'a> {
    program: &'a Path,
    args: Vec<OsString>,
    dead: Option<u32>,
    account: &'a Account,
    limit: Duration,
}

/// Kills what is left of a run when it is dropped before its end.
struct Tree(Child);

impl Drop for Tree {
    fn drop(&mut self) {
        // There is a number as long as the process was not waited for, so it is still its own.
        if let Some(pid) = self.0.id() {
            kill_tree(pid);
        }
    }
}

impl<'a> Tool<'a> {
    pub(super) fn new(program: &'a Path, account: &'a Account, limit: Duration) -> Self {
        Self {
            program,
            args: Vec::new(),
            dead: None,
            account,
            limit,
        }
    }

    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(super) fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A postmaster that is known to have ended, whatever `postmaster.pid` makes of its number: PostgreSQL takes a zombie that
    /// nobody has reaped yet for a server that runs, unless it is told that this is its own grandparent.
    pub(super) fn after(mut self, dead: Option<u32>) -> Self {
        self.dead = dead;
        self
    }

    pub(super) fn name(&self) -> String {
        self.program
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(&self.args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        set_environment(&mut command, self.account);
        command.envs(self.dead.map(|pid| ("PG_GRANDPARENT_PID", pid.to_string())));
        self.account.apply(&mut command);
        isolate(&mut command);
        command
    }

    /// Runs to the end; any exit status is an answer. `heard` is given what the program writes to its standard error as
    /// it comes.
    pub(super) async fn finish(self, held: Option<&Held>, mut heard: impl FnMut(&[u8])) -> Result<Ended> {
        let name = self.name();
        let failed = |why: String| PgError::Tool {
            program: name.clone(),
            why,
        };
        let mut command = self.command();
        if let Some(held) = held {
            let input = held.file.try_clone().map_err(|e| failed(e.to_string()))?;
            command.stdin(Stdio::from(input));
        }
        let mut child = command
            .spawn()
            .map_err(|e| failed(format!("{} cannot be started: {e}", self.program.display())))?;
        if let Some(pid) = child.id() {
            unprotect(pid);
            if let Some(held) = held {
                // Without this the next daemon would wait in vain for one that is left behind: not worth failing for.
                let line = format!(
                    "{} {pid} {}\n",
                    std::process::id(),
                    process_start(pid).unwrap_or_default()
                );
                let _ = write_atomic(&held.holder, line.as_bytes());
            }
        }
        // The command keeps a copy of the input open, and with it the lock.
        drop(command);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut tree = Tree(child);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut listen = Box::pin(async {
            tokio::join!(gather(stdout, &mut out, |_| ()), gather(stderr, &mut err, &mut heard));
        });
        let mut limit = std::pin::pin!(tokio::time::sleep(self.limit));
        let mut all_heard = false;
        let ended = loop {
            tokio::select! {
                ended = tree.0.wait() => break Some(ended),
                () = &mut limit => break None,
                () = &mut listen, if !all_heard => all_heard = true,
            }
        };
        if ended.is_some() && !all_heard {
            let _ = tokio::time::timeout(LINGER, &mut listen).await;
        }
        drop(listen);
        if ended.is_none() {
            // Not before it is gone may anything else touch its directory.
            if let Some(pid) = tree.0.id() {
                kill_tree(pid);
            }
            let _ = tokio::time::timeout(LEFT_OVER, tree.0.wait()).await;
        }
        drop(tree);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match ended {
            Some(Ok(status)) => Ok(Ended {
                code: status.code(),
                stdout: text(&out),
                stderr: text(&err),
            }),
            Some(Err(e)) => Err(failed(e.to_string())),
            None => Err(PgError::TimedOut {
                what: name,
                limit: self.limit,
            }),
        }
    }

    /// Runs to the end; another exit status than 0 is an error.
    pub(super) async fn run(self, held: Option<&Held>) -> Result<Ended> {
        let name = self.name();
        let ended = self.finish(held, |_| ()).await?;
        ended.success(&name)
    }
}

impl Ended {
    pub(super) fn success(self, program: &str) -> Result<Self> {
        match self.code {
            Some(0) => Ok(self),
            _ => Err(self.failure(program)),
        }
    }

    /// The error that it ended with this.
    pub(super) fn failure(&self, program: &str) -> PgError {
        let how = match self.code {
            Some(code) => format!("exit status {code}"),
            None => "killed by a signal".to_owned(),
        };
        let why = match last_words(&self.stderr).or_else(|| last_words(&self.stdout)) {
            Some(words) => format!("{how}: {words}"),
            None => how,
        };
        PgError::Tool {
            program: program.to_owned(),
            why,
        }
    }
}

/// The line that tells most: the last error, or the last line.
fn last_words(text: &str) -> Option<String> {
    let lines = || text.lines().rev().map(str::trim).filter(|l| !l.is_empty());
    let telling = |l: &&str| {
        ["error:", "ERROR:", "fatal:", "FATAL:", "PANIC:"]
            .iter()
            .any(|m| l.contains(m))
    };
    lines().find(telling).or_else(|| lines().next()).map(one_line)
}

async fn gather(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, mut heard: impl FnMut(&[u8])) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        heard(&buffer[..n]);
        kept.extend_from_slice(&buffer[..n]);
        let excess = kept.len().saturating_sub(WORDS);
        kept.drain(..excess);
    }
}

/// What every program of PostgreSQL's gets: nothing of the daemon's environment that could change what it does.
fn set_environment(command: &mut Command, account: &Account) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") || text.starts_with("LC_") || text == "LANGUAGE" {
            command.env_remove(&name);
        }
    }
    for private in service::PRIVATE_ENVIRONMENT {
        command.env_remove(private);
    }
    command.envs(environment(account));
}

/// The environment of PostgreSQL's programs. Messages are in English because they are read.
pub(super) fn environment(account: &Account) -> Vec<(&'static str, OsString)> {
    vec![
        ("HOME", account.home.clone().into_os_string()),
        ("USER", account.name.clone().into()),
        ("LOGNAME", account.name.clone().into()),
        ("LC_ALL", "C".into()),
        ("TZ", "UTC".into()),
        // libpq must not find a password or a service file of somebody's.
        ("PGPASSFILE", "/dev/null".into()),
        ("PGSERVICEFILE", "/dev/null".into()),
        ("PGSYSCONFDIR", "/nonexistent".into()),
        ("PGCONNECT_TIMEOUT", "5".into()),
    ]
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh<'a>(account: &'a Account, script: &str, limit_ms: u64) -> Tool<'a> {
        Tool::new(Path::new("/bin/sh"), account, Duration::from_millis(limit_ms)).args(["-c", script])
    }

    #[tokio::test]
    async fn what_it_says_is_heard_and_failures_are_told() {
        let own = Account::own().unwrap();
        let mut heard = Vec::new();
        let ended = sh(&own, "echo out; echo one >&2; echo two >&2", 5000)
            .finish(None, |b| heard.extend_from_slice(b))
            .await
            .unwrap();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "out\n"));
        assert_eq!(heard, b"one\ntwo\n");
        let e = sh(&own, "echo 'x: error: no such thing' >&2; echo hint >&2; exit 3", 5000)
            .run(None)
            .await;
        assert_eq!(e.unwrap_err().to_string(), "sh: exit status 3: x: error: no such thing");
        let e = sh(&own, "sleep 100", 100).run(None).await.unwrap_err();
        assert_eq!(e.to_string(), "sh: not done after 100ms");
    }

    #[tokio::test]
    async fn the_gate_opens_when_all_of_a_run_is_gone() {
        let own = Account::own().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(dir.path());
        let held = gate.enter().await.unwrap();
        let marks = dir.path().join("mark");
        let script = format!("echo $$ > {}; cat; sleep 100 & wait", marks.display());
        {
            let run = sh(&own, &script, 60_000).run(Some(&held));
            tokio::pin!(run);
            loop {
                tokio::select! {
                    done = &mut run => panic!("it does not end: {done:?}"),
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
                if std::fs::read_to_string(&marks).is_ok_and(|t| t.ends_with('\n')) {
                    break;
                }
            }
        }
        drop(held);
        // Dropping the future killed the shell and its child, which both had the lock.
        gate.enter().await.unwrap();
    }

    #[tokio::test]
    async fn what_an_earlier_daemon_left_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(dir.path());
        let held = gate.enter().await.unwrap();
        let mut command = Command::new("sleep");
        command
            .arg("1000")
            .stdin(Stdio::from(held.file.try_clone().unwrap()))
            .kill_on_drop(true);
        isolate(&mut command);
        let mut child = command.spawn().unwrap();
        drop(command);
        drop(held);
        let pid = child.id().unwrap();
        let line = format!("1 {pid} {}\n", process_start(pid).unwrap());
        std::fs::write(dir.path().join("tool.pid"), line).unwrap();
        let held = gate.enter().await.unwrap();
        assert!(!child.wait().await.unwrap().success());
        drop(held);
    }
}
