//! `hactl playground up`: prepares the directory, starts the supervisor, and builds a cluster as an operator would.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ha_proto::codes;

use super::build::Builder;
use super::control::{self, Answer, Request};
use super::needs::{self, Needs};
use super::place::{Place, Record};
use super::system::{self, Account};
use super::{UpArgs, database, down, logs, ports, status};
use crate::args::Globals;
use crate::ca::ClusterAuthority;
use crate::context::Store;
use crate::error::{CliError, file_error};
use crate::output::Out;
use crate::output::notes::Notes;
use crate::{files, names};

use super::kinds::SESSION_TIMEOUT;

/// Longest time for the supervisor to answer for the first time.
const SUPERVISOR: Duration = Duration::from_secs(10);
/// Conditions are looked at this often.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// Left in a context by the playground that made it: its directory.
const MARK: &str = "playground";

/// Runs `up`.
///
/// # Errors
/// `HA0901` if one runs there already, `HA0903` if something is not installed, `HA0904` if it does not become healthy.
pub(super) async fn run(args: &UpArgs, globals: &Globals) -> Result<(), CliError> {
    names::check_name("cluster", &args.cluster)?;
    let out = Out::new(globals);
    let root = system::is_root();
    let needs = needs::find()?;
    let place = Place::find(args.place.dir.as_deref(), root)?;
    let store = Store::open()?;
    if let Some(parent) = place.dir().parent() {
        std::fs::create_dir_all(parent).map_err(|e| file_error("create", parent, &e))?;
    }
    let account = account(&place, root, out.notes);
    let lock = take(&place, &account, out.notes)?;
    free_context(&store, &args.cluster, root)?;

    let started = Instant::now();
    let prepared = prepare(&place, &needs, &store, &account, args)?;
    let mut supervisor = Supervisor::start(&place, &prepared.hactl, &account, lock, args.detach)?;
    let database = !args.no_database && database::is_installed();
    if !args.no_database && !database {
        out.notes
            .say("no PostgreSQL is installed, and so there will be no database: apt-get install postgresql");
    }
    let mut builder = Builder {
        place: &place,
        account: &account,
        needs: &needs,
        had: &prepared.had,
        record: &prepared.record,
        authority: &prepared.authority,
        store: &store,
        restart: !args.no_restart,
        database,
        notes: out.notes,
        deadline: started + globals.timeout,
    };
    let built = tokio::select! {
        built = async { supervisor.ready(&place).await?; builder.build().await } => built,
        () = interrupted() => Err(CliError::new(codes::INTERRUPTED, "interrupted before the cluster was up")),
    };
    if let Err(error) = built {
        if error.is(codes::INTERRUPTED) {
            down::end(&place, &prepared.record, false, out.notes).await?;
        } else {
            // The directory stays for its logs; the next `up` clears it.
            let _ = control::ask(&place, &Request::Down).await;
            down::forget_context(&prepared.record, out.notes);
        }
        return Err(error);
    }

    let seconds = started.elapsed().as_secs_f32();
    out.notes
        .say(&format!("cluster {} is healthy after {seconds:.1} s", args.cluster));
    status::show(&place, &prepared.record, &out).await?;
    if database {
        let password = database::pgpass(&place);
        out.notes.say(&format!(
            "its database:    PGPASSFILE={} psql \"$(hactl db dsn --proxy --context {})\"",
            password.display(),
            args.cluster
        ));
    }
    let flag = place.flag(root);
    if args.detach {
        tell_next(&store, &args.cluster, &flag, out.notes);
        return Ok(());
    }
    out.notes.say("Ctrl-C ends the cluster");
    let ended = tokio::select! {
        () = interrupted() => Ok(()),
        () = supervisor.ended() => Err(CliError::new(codes::PLAYGROUND_FAILED, "the playground's supervisor ended")),
    };
    down::end(&place, &prepared.record, false, out.notes).await?;
    ended
}

fn tell_next(store: &Store, cluster: &str, flag: &str, notes: Notes) {
    if store.current().ok().flatten().as_deref() != Some(cluster) {
        notes.say(&format!("to work with it:  hactl context use {cluster}"));
    }
    notes.say(&format!("to end it:        hactl playground down{flag}"));
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Who the processes run as: for root somebody else, if the directory is open to them.
fn account(place: &Place, root: bool, notes: Notes) -> Account {
    let invoker = system::invoker();
    if !root {
        return invoker;
    }
    let parent = place.dir().parent().unwrap_or(Path::new("/"));
    match system::unprivileged() {
        Some(account) if system::may_pass(&account, parent) => account,
        Some(account) => {
            let (name, parent) = (&account.name, parent.display());
            notes.warn(&format!("the processes run as root: {parent} is closed to {name}"));
            invoker
        }
        None => {
            notes.warn("the processes run as root: there is no user nobody");
            invoker
        }
    }
}

/// Makes the directory and locks it, without whatever a playground that crashed left there.
fn take(place: &Place, account: &Account, notes: Notes) -> Result<File, CliError> {
    let dir = place.dir();
    files::create_private_dir(dir)?;
    system::check_owner(dir, &[&system::invoker(), account])?;
    let record = Record::load(place);
    if matches!(record, Ok(None)) && !is_vacant(dir)? {
        return Err(CliError::new(
            codes::EXISTS_LOCALLY,
            format!("{} is not empty and no playground", dir.display()),
        )
        .next("hactl playground up --dir DIR", "with a new or an empty directory"));
    }
    let Some(lock) = system::try_lock(&place.lock())? else {
        let error = CliError::new(
            codes::PLAYGROUND_EXISTS,
            format!("a playground runs in {} already", dir.display()),
        );
        let flag = place.flag(system::is_root());
        return Err(error
            .next(format!("hactl playground status{flag}"), "shows it")
            .next(format!("hactl playground down{flag}"), "ends it"));
    };
    if let Some(record) = record? {
        notes.say(&format!(
            "clearing what an earlier playground left in {}",
            dir.display()
        ));
        down::clear(place, &record, notes)?;
    }
    Ok(lock)
}

/// Whether nothing is there but what an `up` that was ended early leaves.
fn is_vacant(dir: &Path) -> Result<bool, CliError> {
    let mut entries = std::fs::read_dir(dir).map_err(|e| file_error("read", dir, &e))?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lock")))
}

/// Makes sure that the name of the context is free, and takes a stale context of a playground away.
fn free_context(store: &Store, name: &str, root: bool) -> Result<(), CliError> {
    if !store.exists(name) {
        return Ok(());
    }
    let other = "hactl playground up --cluster NAME --dir DIR";
    let Ok(marked) = files::read(&store.context_dir(name).join(MARK)) else {
        return Err(
            CliError::new(codes::EXISTS_LOCALLY, format!("there is a context {name} already"))
                .why("it is not a playground's")
                .next(other, "with another name"),
        );
    };
    let elsewhere = Place::find(Some(Path::new(marked.trim())), root)?;
    let lock = elsewhere.lock();
    if lock.exists() && system::try_lock(&lock)?.is_none() {
        let flag = elsewhere.flag(root);
        return Err(CliError::new(
            codes::PLAYGROUND_EXISTS,
            format!("a playground {name} runs already, in {}", elsewhere.dir().display()),
        )
        .next(format!("hactl playground down{flag}"), "ends it")
        .next(other, "a second one beside it"));
    }
    store.remove(name)
}

/// What was prepared for the cluster.
struct Prepared {
    record: Record,
    authority: ClusterAuthority,
    /// Copies that the account may run.
    had: std::path::PathBuf,
    hactl: std::path::PathBuf,
}

fn prepare(
    place: &Place,
    needs: &Needs,
    store: &Store,
    account: &Account,
    args: &UpArgs,
) -> Result<Prepared, CliError> {
    // Playgrounds that programs start, each in a directory of its own, would meet at the usual ports.
    let addresses = ports::choose(args.nodes, args.place.dir.is_none())?;
    let authority = ClusterAuthority::create(
        &args.cluster,
        std::slice::from_ref(&addresses.zookeeper),
        SESSION_TIMEOUT,
    )?;
    let mut record = Record::new(
        args.cluster.clone(),
        authority.cluster_id.clone(),
        store.dir().to_path_buf(),
        account.name.clone(),
        addresses.zookeeper,
    );
    record.nodes = addresses.nodes;
    record.save(place)?;
    for dir in [place.bin(), place.logs(), place.data("")] {
        files::create_private_dir(&dir)?;
    }
    let copy = |from: &Path| -> Result<std::path::PathBuf, CliError> {
        let to = place.bin().join(from.file_name().unwrap_or_default());
        std::fs::copy(from, &to).map_err(|e| file_error("copy", from, &e))?;
        Ok(to)
    };
    let prepared = Prepared {
        record,
        authority,
        had: copy(&needs.had)?,
        hactl: copy(&needs.hactl)?,
    };
    system::give_all(place.dir(), account)?;
    Ok(prepared)
}

/// The supervisor's process, as this one started it.
struct Supervisor {
    process: std::process::Child,
}

impl Supervisor {
    fn start(place: &Place, hactl: &Path, account: &Account, lock: File, detach: bool) -> Result<Self, CliError> {
        let path = place.log("supervisor");
        let failed = |e: std::io::Error| {
            CliError::new(
                codes::PLAYGROUND_FAILED,
                "the playground's supervisor cannot be started",
            )
            .why(e.to_string())
        };
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        let mut command = Command::new(hactl);
        command.args(["playground", "supervise", "--dir"]).arg(place.dir());
        if !detach {
            command.arg("--tied-to").arg(std::process::id().to_string());
        }
        command.env_clear().env("HOME", place.dir()).current_dir(place.dir());
        for name in ["PATH", "LANG", "LC_ALL", "TZ", "RUST_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // The lock is the supervisor's from here on: it is held until its standard input is closed.
        command
            .stdin(Stdio::from(lock))
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        if system::is_root() {
            system::run_as(&mut command, account);
        }
        let process = command.spawn().map_err(failed)?;
        Ok(Self { process })
    }

    /// Waits until it answers.
    async fn ready(&mut self, place: &Place) -> Result<(), CliError> {
        let deadline = Instant::now() + SUPERVISOR;
        loop {
            if let Ok(Answer::Children { .. }) = control::ask(place, &Request::Status).await {
                return Ok(());
            }
            let ended = self.process.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= deadline {
                let error = CliError::new(codes::PLAYGROUND_FAILED, "the playground's supervisor did not start");
                let error = ended.into_iter().fold(error, |e, status| e.why(status.to_string()));
                return Err(logs::explain(error, &place.log("supervisor")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end.
    async fn ended(&mut self) {
        while matches!(self.process.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK * 4).await;
        }
    }
}

/// Remembers in the context which playground made it.
pub(super) fn mark_context(store: &Store, name: &str, place: &Place) -> Result<(), CliError> {
    files::write_new(
        &store.context_dir(name).join(MARK),
        &format!("{}\n", place.dir().display()),
    )
}
