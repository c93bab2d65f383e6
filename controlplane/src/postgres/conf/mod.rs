//! An instance's configuration, which is had's: what stands in it, and how it gets to disk.
//!
//! Rendering is pure. What is written is closed unless the caller says otherwise (protocol R5), and an instance that
//! somebody else starts listens nowhere (protocol R11). Operators' parameters stand before had's own, so that had's hold.

pub mod access;
mod conninfo;
pub mod parameters;
pub(super) mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use ha_core::database::Names;
use ha_core::database::floors::{self, Floors};
use ha_core::database::names::application_name;

pub use self::conninfo::{Source, Upstream};
use self::text::quoted;
use super::error::{PgError, Result, blocking};
use super::install::Release;
use super::place::Place;
use super::tls;
use crate::platform::{Account, let_through, private_dir, sync_parent, write_atomic_for};

const LIMIT: Duration = Duration::from_secs(10);
/// Longest name PostgreSQL does not cut off, in bytes; one that is cut off would match a standby of another epoch.
const MAX_NAME: usize = 63;
pub(super) const HEAD: &str = "# Written by had. Changes are lost: parameters are the group's, see hactl db config.\n";

/// Everything an instance's configuration follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The release that runs it.
    pub release: Release,
    /// The cluster's name: part of the names in the nodes' certificates.
    pub cluster: String,
    /// This node.
    pub node: String,
    /// Whom commits wait for.
    pub names: Names,
    /// Whom a standby streams from, in which epoch; none: from nobody.
    pub upstream: Option<(Source, u64)>,
    /// The slot on the upstream that keeps WAL for this instance.
    pub slot: Option<String>,
    /// Nodes that may replicate from here and rewind against it.
    pub nodes: BTreeSet<String>,
    /// Silence after which a replication link is unheard.
    pub detect: Duration,
    /// WAL kept for an instance that is away, bytes.
    pub slot_keep: u64,
    /// The group's parameters.
    pub parameters: BTreeMap<String, String>,
    /// Values below which those of [`FLOORS`](super::control_data::FLOORS) must not go here.
    pub least: Floors,
    /// The group's lines of pg_hba.conf.
    pub hba: Vec<String>,
}

impl Settings {
    /// A closed configuration with nothing of the group's.
    pub fn closed(release: Release, cluster: &str, node: &str) -> Self {
        Self {
            release,
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            names: Names::Closed,
            upstream: None,
            slot: None,
            nodes: BTreeSet::new(),
            detect: Duration::from_millis(1500),
            slot_keep: 8 << 30,
            parameters: BTreeMap::new(),
            least: [0; 5],
            hba: Vec::new(),
        }
    }
}

/// The files of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `postgresql.conf` of the data directory: closed at its end, whatever the files that it includes say.
    main: String,
    /// What the guard starts it with. The addresses that the guard passes do not stand in it: a reload would take them for
    /// changes that need a restart.
    run: String,
    /// Parameters of the group's, with had's defaults.
    parameters: String,
    /// What is had's.
    own: String,
    hba: String,
    ident: String,
}

/// Makes the files.
///
/// # Errors
/// [`PgError::Refused`] if a parameter, a line or a name cannot be used.
pub fn render(place: &Place, account: &Account, settings: &Settings) -> Result<Files> {
    let parameters = parameters::checked(&settings.parameters)?;
    let hba = access::checked(&settings.hba)?;
    let raised = parameters::raised(&parameters, settings.least, floors::DEFAULTS);
    let mut all = defaults(place);
    all.extend(raised);
    let daemon = Account::own().map_err(|e| PgError::refused("the daemon's account", e.to_string()))?;
    let conf = place.conf();
    let include = |name: &str| quoted(&conf.join(name).display().to_string());
    Ok(Files {
        main: format!(
            "{HEAD}# For whoever but had starts it: closed, and listening nowhere. had has a file of its own.\n\
             include {}\ninclude {}\nsynchronous_standby_names = {}\nlisten_addresses = ''\n\
             unix_socket_directories = ''\n",
            include(PARAMETERS),
            include(OWN),
            quoted(&Names::Closed.to_string()),
        ),
        run: format!("{HEAD}include {}\ninclude {}\n", include(PARAMETERS), include(OWN)),
        parameters: settings_text(all.iter().map(|(k, v)| (k.as_str(), v.clone()))),
        own: settings_text(own(place, settings)?),
        hba: access::hba(&hba),
        ident: access::ident(&settings.nodes, [daemon.name.as_str(), account.name.as_str()]),
    })
}

const PARAMETERS: &str = "parameters.conf";
const OWN: &str = "had.conf";
const RUN: &str = "postgresql.conf";
const HBA: &str = "pg_hba.conf";
const IDENT: &str = "pg_ident.conf";

fn settings_text<'a>(settings: impl IntoIterator<Item = (&'a str, String)>) -> String {
    settings.into_iter().fold(HEAD.to_owned(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name} = {}", quoted(&value));
        text
    })
}

/// What a group's parameters may change.
fn defaults(place: &Place) -> BTreeMap<String, String> {
    let log_dir = place.log_dir().display().to_string();
    let all = [
        ("log_directory", log_dir.as_str()),
        ("log_filename", "postgresql-%a.log"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("log_rotation_age", "1d"),
        ("log_rotation_size", "0"),
        ("log_truncate_on_rotation", "on"),
        ("logging_collector", "on"),
        ("max_replication_slots", "24"),
        ("max_wal_senders", "24"),
        ("password_encryption", "scram-sha-256"),
        ("shared_buffers", "128MB"),
        ("synchronous_commit", "on"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("wal_level", "replica"),
    ];
    all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn own(place: &Place, s: &Settings) -> Result<Vec<(&'static str, String)>> {
    let conf = place.conf();
    let path = |p: &Path| p.display().to_string();
    let ms = |d: Duration| format!("{}ms", d.as_millis());
    let conninfo = match &s.upstream {
        None => String::new(),
        Some((source, epoch)) => {
            let name = application_name(&s.node, *epoch);
            if name.len() > MAX_NAME {
                return Err(PgError::refused(
                    format!("node {}", s.node),
                    "its name is too long for an instance of a group: PostgreSQL cuts names off after 63 bytes",
                ));
            }
            source.replication(&place.tls(), &s.cluster, &name)
        }
    };
    if let Names::Any { epoch, voters, .. } = &s.names
        && let Some(long) = voters.iter().find(|v| application_name(v, *epoch).len() > MAX_NAME)
    {
        return Err(PgError::refused(
            format!("node {long}"),
            "its name is too long for a voter",
        ));
    }
    let mut all = vec![
        ("port", place.port.to_string()),
        ("cluster_name", place.group.clone()),
        ("hba_file", path(&conf.join(HBA))),
        ("ident_file", path(&conf.join(IDENT))),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", path(&tls::own_file(&place.tls()))),
        ("ssl_key_file", path(&tls::own_file(&place.tls()))),
        ("ssl_ca_file", path(&tls::authority_file(&place.tls()))),
        ("fsync", "on".to_owned()),
        ("full_page_writes", "on".to_owned()),
        ("wal_log_hints", "on".to_owned()),
        ("hot_standby", "on".to_owned()),
        // The guard must see a crash, and no restart in place may open to clients by itself.
        ("restart_after_crash", "off".to_owned()),
        ("max_slot_wal_keep_size", format!("{}MB", (s.slot_keep >> 20).max(1))),
        // An idle link is heard every half of this time.
        ("wal_receiver_timeout", ms(s.detect)),
        ("wal_receiver_status_interval", "1s".to_owned()),
        ("wal_sender_timeout", ms((s.detect * 4).max(Duration::from_secs(5)))),
        ("wal_retrieve_retry_interval", "100ms".to_owned()),
        ("wal_receiver_create_temp_slot", "off".to_owned()),
        ("recovery_target_timeline", "latest".to_owned()),
        ("restore_command", String::new()),
        ("primary_conninfo", conninfo),
        ("primary_slot_name", s.slot.clone().unwrap_or_default()),
        ("synchronous_standby_names", s.names.to_string()),
    ];
    if s.release.major >= 17 {
        all.push(("allow_alter_system", "off".to_owned()));
    }
    Ok(all)
}

/// Writes what differs from what is on disk; returns whether anything did. A running server takes it over with a reload.
///
/// # Errors
/// [`PgError::Files`]; what was written before the failure stays.
pub async fn write(place: &Place, account: &Account, files: Files) -> Result<bool> {
    let (place, account) = (place.clone(), account.clone());
    blocking("writing an instance's configuration", LIMIT, move || {
        let conf = place.conf();
        let mut changed = sanitise(&place.data.join("postgresql.auto.conf"), &account)?;
        for (path, text) in [
            (conf.join(PARAMETERS), &files.parameters),
            (conf.join(HBA), &files.hba),
            (conf.join(IDENT), &files.ident),
            (conf.join(OWN), &files.own),
            (conf.join(RUN), &files.run),
            (place.data.join("postgresql.conf"), &files.main),
        ] {
            if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                write_atomic_for(&account, &path, text.as_bytes()).map_err(PgError::files(&path))?;
                changed = true;
            }
        }
        Ok(changed)
    })
    .await
}

/// The file that had starts an instance with.
pub(super) fn run_file(place: &Place) -> std::path::PathBuf {
    place.conf().join(RUN)
}

/// Writes a configuration to be looked at by PostgreSQL's programs. No server ever runs with it.
pub(super) async fn write_trial(trial: &Place, account: &Account, files: Files) -> Result<()> {
    let (trial, account) = (trial.clone(), account.clone());
    blocking("writing a configuration on trial", LIMIT, move || {
        let conf = trial.conf();
        for dir in [&trial.work, &conf] {
            private_dir(dir).map_err(PgError::files(dir))?;
            let_through(dir).map_err(PgError::files(dir))?;
        }
        for (path, text) in [
            (conf.join(PARAMETERS), &files.parameters),
            (conf.join(OWN), &files.own),
            (run_file(&trial), &files.run),
        ] {
            write_atomic_for(&account, &path, text.as_bytes()).map_err(PgError::files(&path))?;
        }
        Ok(())
    })
    .await
}

/// Takes had's own parameters out of what `ALTER SYSTEM` wrote, for that file is read last.
fn sanitise(path: &Path, account: &Account) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let lines = text::read(path)?;
    let (kept, gone): (Vec<_>, Vec<_>) = lines.into_iter().partition(|l| parameters::reserved(&l.name).is_none());
    if gone.is_empty() {
        return Ok(false);
    }
    let names: Vec<_> = gone.iter().map(|l| l.name.as_str()).collect();
    tracing::warn!(file = %path.display(), "had's own parameters, set by ALTER SYSTEM, are taken out: {}", names.join(", "));
    let head = "# Do not edit this file manually!\n# It will be overwritten by the ALTER SYSTEM command.\n".to_owned();
    let text = kept.iter().fold(head, |mut text, l| {
        let _ = writeln!(text, "{} = {}", l.name, quoted(&l.value));
        text
    });
    write_atomic_for(account, path, text.as_bytes()).map_err(PgError::files(path))?;
    Ok(true)
}

/// Makes the next start one of a standby, or of a primary. No other start may follow from what lies in the directory.
///
/// # Errors
/// [`PgError::Files`].
pub async fn set_standby(place: &Place, account: &Account, standby: bool) -> Result<()> {
    let (data, account) = (place.data.clone(), account.clone());
    blocking("setting an instance's part", LIMIT, move || {
        let signal = data.join("standby.signal");
        if standby && !signal.exists() {
            write_atomic_for(&account, &signal, b"").map_err(PgError::files(&signal))?;
        }
        let wrong: &[&str] = if standby {
            &["recovery.signal", "promote"]
        } else {
            &["recovery.signal", "standby.signal", "promote"]
        };
        for name in wrong {
            let path = data.join(name);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(PgError::files(&path)(e)),
                _ => {}
            }
        }
        sync_parent(&signal).map_err(PgError::files(&data))
    })
    .await
}

/// Whether the next start is one of a standby.
pub fn is_standby(data: &Path) -> bool {
    data.join("standby.signal").exists()
}

/// What is stored, for an instance that cannot be asked: whom it would stream from, and whom its commits would wait for.
///
/// # Errors
/// [`PgError::Files`], [`PgError::Unreadable`].
pub async fn stored(place: &Place) -> Result<(Option<Upstream>, Names)> {
    let path = place.conf().join(OWN);
    blocking("reading an instance's configuration", LIMIT, move || {
        let lines = text::read(&path)?;
        let value = |name: &str| {
            let line = lines.iter().rev().find(|l| l.name == name);
            line.map_or_else(String::new, |l| l.value.clone())
        };
        Ok((
            Upstream::parse(&value("primary_conninfo")),
            Names::parse(&value("synchronous_standby_names")),
        ))
    })
    .await
}

#[cfg(test)]
mod tests;
