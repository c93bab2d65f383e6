//! What is done to a running server: reload, checkpoint, promotion, the ends of receivers and senders, slots.
//!
//! None of this starts or stops the server, and each step is seen to have happened before it is reported: a reload that
//! PostgreSQL ignored, a receiver that came back or a promotion that is still under way are errors, not successes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ha_core::database::{Lsn, Names};

use super::conf::Upstream;
use super::connection::Connection;
use super::error::{PgError, Result};
use super::history::{self, History};
use super::instance::Instance;
use super::place::Place;
use super::probe::{Prober, Slot};
use crate::platform::{children, hang_up, terminate};

const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Between two looks for queries that are in the way of a promotion; they cost more than a look at the promotion itself.
const CONFLICTS_AGAIN: Duration = Duration::from_millis(100);
/// Looks in a row that must find no receiver: one could be started just before the reload reaches recovery.
const LOOKS: u32 = 4;
const SLOT_LIMIT: Duration = Duration::from_secs(5);
/// Begins the names of slots that had keeps.
const SLOT_PREFIX: &str = "had_";

/// What a connection made after a reload finds in force. It is the postmaster's own view: whatever starts from now on has
/// it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Whom commits wait for.
    pub names: Names,
    /// Whom a standby streams from.
    pub upstream: Option<Upstream>,
    /// `primary_conninfo` is set, by whomever.
    pub streams: bool,
    /// `restore_command` is set.
    pub restores: bool,
    /// Where the log was, asked after the rest: "an LSN taken after the change" (protocol R6). `None` in recovery.
    pub lsn: Option<Lsn>,
}

/// What a promotion made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The new timeline and those it comes from; it begins where the old one was left.
    pub history: History,
    /// A position past the end of recovery: what is flushed by then includes its record.
    pub recovered: Lsn,
}

/// Tells the server to read its configuration again. Whether it took it over is seen by [`in_force`] alone.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn reload(connection: &mut Connection, limit: Duration) -> Result<()> {
    connection.run("reloading", "SELECT pg_reload_conf()", limit).await
}

/// What a *new* connection finds in force (protocol R5).
///
/// # Errors
/// As [`Connection::open`].
pub async fn in_force(place: &Place, limit: Duration) -> Result<InForce> {
    let what = "asking what is in force";
    let mut connection = Connection::open(place, limit).await?;
    let sql = include_str!("sql/in_force.sql");
    let rows = connection.rows(what, sql, &[], limit).await?;
    let row = rows.first().ok_or_else(|| PgError::unreadable(what, "no answer"))?;
    let text = |i: usize| row.try_get::<_, Option<String>>(i).ok().flatten().unwrap_or_default();
    let lsn = match text(3).as_str() {
        "" => None,
        lsn => Some(
            lsn.parse()
                .map_err(|e: ha_core::database::lineage::LsnError| PgError::unreadable(what, e.to_string()))?,
        ),
    };
    Ok(InForce {
        names: Names::parse(&text(0)),
        upstream: Upstream::parse(&text(1)),
        streams: !text(1).is_empty(),
        restores: !text(2).is_empty(),
        lsn,
    })
}

/// Reloads and waits until a new connection finds `wanted` true of what is in force.
///
/// # Errors
/// [`PgError::TimedOut`] if the server did not take the configuration over, for instance because a line of it is bad.
pub async fn reload_until(
    place: &Place,
    connection: &mut Connection,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&InForce) -> bool,
) -> Result<InForce> {
    let began = Instant::now();
    reload(connection, limit).await?;
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let seen = in_force(place, left).await?;
        if wanted(&seen) {
            return Ok(seen);
        }
        if began.elapsed() >= limit {
            return Err(PgError::TimedOut {
                what: what.to_owned(),
                limit,
            });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Writes all that is in memory, so that a stop or a rewind that follows has little to do.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn checkpoint(connection: &mut Connection, limit: Duration) -> Result<()> {
    connection.run("checkpoint", "CHECKPOINT", limit).await
}

/// Writes and flushes a record that means nothing, as a commit of had's own that waits for no standby: the standbys
/// acknowledge it, and all before it.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn nudge(connection: &mut Connection, limit: Duration) -> Result<()> {
    let sql = "SELECT pg_logical_emit_message(true, 'had', '')";
    connection.run("a commit of had's own", sql, limit).await
}

/// Ends the walsenders except those of these names, before a stop: a silent standby would hold it up.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn end_senders(connection: &mut Connection, but: &[String], limit: Duration) -> Result<()> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name <> ALL ($1)";
    connection
        .rows("ending walsenders", sql, &[&but], limit)
        .await
        .map(drop)
}

/// Ends the connections of clients.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn end_clients(connection: &mut Connection, limit: Duration) -> Result<()> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    connection.rows("ending clients", sql, &[], limit).await.map(drop)
}

/// Ends the transactions on a standby while one of them is in the way of replay.
const IN_CONFLICT: &str = "SELECT pg_terminate_backend(c.pid) FROM pg_stat_activity c, pg_stat_activity s \
     WHERE s.backend_type = 'startup' \
     AND (s.wait_event LIKE 'RecoveryConflict%' OR s.wait_event_type IN ('Lock', 'BufferPin')) \
     AND c.backend_type = 'client backend' AND c.xact_start IS NOT NULL AND c.pid <> pg_backend_pid()";

/// Lets replay go on where nothing is received, whether it was paused or waits for a query: until it does, no receiver is
/// started, and the standby would never come to its primary again.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn resume_replay(connection: &mut Connection, limit: Duration) -> Result<()> {
    let what = "resuming replay";
    let deaf = "pg_is_in_recovery() AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver)";
    let resume = format!("SELECT pg_wal_replay_resume() WHERE {deaf} AND pg_is_wal_replay_paused()");
    connection.rows(what, &resume, &[], limit).await?;
    connection
        .rows(what, &format!("{IN_CONFLICT} AND {deaf}"), &[], limit)
        .await?;
    Ok(())
}

/// Promotes a standby and waits until it is a primary. The caller has put the promotion's mark on disk. Queries that are
/// in the way of replay are ended: a group without a primary waits for no reader.
///
/// # Errors
/// [`PgError::TimedOut`]: it may still become one. [`PgError::Query`] if it is none to promote.
pub async fn promote(instance: &Instance, connection: &mut Connection, limit: Duration) -> Result<Promoted> {
    let what = "promotion";
    let began = Instant::now();
    let standby = "SELECT pg_is_in_recovery()::text";
    if connection.text(what, standby, &[], limit).await? == "true" {
        connection.run(what, "SELECT pg_promote(false)", limit).await?;
        let mut conflicts_at = Instant::now() + CONFLICTS_AGAIN / 4;
        while connection.text(what, standby, &[], limit).await? == "true" {
            if began.elapsed() >= limit {
                return Err(PgError::TimedOut {
                    what: what.to_owned(),
                    limit,
                });
            }
            if Instant::now() >= conflicts_at {
                connection
                    .rows("ending queries in conflict", IN_CONFLICT, &[], limit)
                    .await?;
                conflicts_at = Instant::now() + CONFLICTS_AGAIN;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    let sql = "SELECT ('x' || substr(pg_walfile_name(lsn), 1, 8))::bit(32)::bigint::text || ' ' || lsn::text \
               FROM (SELECT pg_current_wal_insert_lsn() AS lsn) c";
    let told = connection.text(what, sql, &[], limit).await?;
    let (timeline, lsn) = told.split_once(' ').unwrap_or_default();
    let (Ok(timeline), Ok(recovered)) = (timeline.parse(), lsn.parse()) else {
        return Err(PgError::unreadable(what, told));
    };
    Ok(Promoted {
        history: history_of(instance, timeline).await?,
        recovered,
    })
}

async fn history_of(instance: &Instance, timeline: u32) -> Result<History> {
    super::wal::history(&instance.place.data, timeline).await
}

/// Ends the WAL receiver of a standby whose `primary_conninfo` was emptied on disk (protocol step 3): sees the empty one
/// in force, ends what still receives, and sees that nothing comes back. After this the instance acknowledges nothing to
/// anybody. Works while replay is paused or waits for a query. Returns what was in force before the receiver ended.
///
/// # Errors
/// [`PgError::TimedOut`]: it may still receive. [`PgError::Query`] while the server starts: stop it instead.
pub async fn end_receiver(instance: &Instance, prober: &mut Prober, limit: Duration) -> Result<InForce> {
    let what = "ending the WAL receiver";
    let began = Instant::now();
    let left = || limit.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
    let place = instance.place.clone();
    let told_nobody = |f: &InForce| !f.streams && !f.restores;
    // Whoever emptied it on disk has asked for a reload as well: most often it is in force by now.
    let mut seen = in_force(&place, left()).await?;
    if !told_nobody(&seen) {
        let connection = prober.connection(left()).await?;
        seen = reload_until(&place, connection, what, left(), told_nobody).await?;
    }
    let mut quiet = 0;
    while quiet < LOOKS {
        let alive = receivers(instance, prober, left()).await?;
        quiet = if alive.is_empty() { quiet + 1 } else { 0 };
        for pid in alive {
            terminate(pid);
        }
        if quiet < LOOKS && began.elapsed() >= limit {
            return Err(PgError::TimedOut {
                what: what.to_owned(),
                limit,
            });
        }
        if quiet < LOOKS {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(seen)
}

/// The processes that receive WAL: what the server says, and what the operating system does.
async fn receivers(instance: &Instance, prober: &mut Prober, limit: Duration) -> Result<BTreeSet<u32>> {
    let Some(postmaster) = instance.postmaster() else {
        return Ok(BTreeSet::new());
    };
    let group = instance.place.group.clone();
    let by_title = move || -> BTreeSet<u32> {
        let of = children(postmaster).into_iter();
        of.filter(|(_, title)| is_receiver(title, &group))
            .map(|(p, _)| p)
            .collect()
    };
    let mut all = super::error::blocking("looking for the WAL receiver", limit, move || Ok(by_title())).await?;
    let what = "asking for the WAL receiver";
    let sql = "SELECT pid FROM pg_stat_wal_receiver WHERE pid IS NOT NULL";
    let rows = prober.connection(limit).await?.rows(what, sql, &[], limit).await?;
    let pids = rows.iter().filter_map(|r| r.try_get::<_, i32>(0).ok());
    // A row may outlive its process by a moment, and the number be another's: it must be the postmaster's child.
    let own = |p: &u32| crate::platform::process_parent(*p) == Some(postmaster);
    all.extend(pids.filter_map(|p| u32::try_from(p).ok()).filter(own));
    Ok(all)
}

/// `postgres: <cluster_name>: walreceiver …`
fn is_receiver(title: &str, group: &str) -> bool {
    let rest = title.strip_prefix("postgres: ").unwrap_or_default();
    let rest = rest
        .strip_prefix(group)
        .and_then(|r| r.strip_prefix(": "))
        .unwrap_or(rest);
    rest.split_whitespace().next() == Some("walreceiver")
}

impl Instance {
    /// Tells the postmaster by a signal to read its configuration again: for a server that takes no connections yet.
    /// Returns whether there is one.
    pub fn reload_by_signal(&self) -> bool {
        let pid = self.postmaster();
        if let Some(pid) = pid {
            hang_up(pid);
        }
        pid.is_some()
    }

    /// The history of a timeline of this instance.
    ///
    /// # Errors
    /// As [`history::History::read`].
    pub async fn history(&self, timeline: u32) -> Result<history::History> {
        history_of(self, timeline).await
    }
}

/// The slot that is kept for a node.
///
/// # Errors
/// [`PgError::Refused`] if the node's name is too long for one.
pub fn slot_name(node: &str) -> Result<String> {
    let name = format!("{SLOT_PREFIX}{}", node.replace('-', "_"));
    if name.len() > 63 {
        return Err(PgError::refused(
            format!("node {node}"),
            "its name is too long for a slot",
        ));
    }
    Ok(name)
}

/// Makes the slots that are wanted where they are missing or of no more use, and drops had's other ones unless somebody
/// streams by them. Slots of others are left alone. Returns the names of those that were lost: their standbys may need a
/// copy.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn keep_slots(
    connection: &mut Connection,
    wanted: &BTreeSet<String>,
    present: &[Slot],
) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for slot in present.iter().filter(|s| s.name.starts_with(SLOT_PREFIX) && !s.active) {
        if slot.lost || !wanted.contains(&slot.name) {
            if slot.lost && wanted.contains(&slot.name) {
                lost.push(slot.name.clone());
            }
            let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                       WHERE slot_name = $1 AND NOT active";
            connection
                .rows("dropping a slot", sql, &[&slot.name], SLOT_LIMIT)
                .await?;
        }
    }
    for name in wanted {
        if present.iter().any(|s| s.name == *name && !s.lost) {
            continue;
        }
        let sql = "SELECT pg_create_physical_replication_slot($1, true) \
                   WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
        connection.rows("creating a slot", sql, &[name], SLOT_LIMIT).await?;
    }
    Ok(lost)
}

/// Lets a slot go forward to a position that its standby has: what lies before it need not be kept. Never goes back, and
/// never past what this instance has.
///
/// # Errors
/// As [`Connection::rows`](Connection).
pub async fn advance_slot(connection: &mut Connection, name: &str, to: Lsn) -> Result<()> {
    let sql = "SELECT pg_replication_slot_advance(slot_name, least($2::text::pg_lsn, \
                   CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)) \
               FROM pg_replication_slots WHERE slot_name = $1 AND NOT active AND restart_lsn < $2::text::pg_lsn";
    let to = to.to_string();
    connection
        .rows("advancing a slot", sql, &[&name, &to], SLOT_LIMIT)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_known_by_their_titles() {
        assert!(is_receiver("postgres: main: walreceiver streaming 0/3000060", "main"));
        assert!(is_receiver("postgres: walreceiver", "main"));
        assert!(!is_receiver("postgres: main: app walreceiver [local] idle", "main"));
        assert!(!is_receiver(
            "postgres: main: startup recovering 000000010000000000000003",
            "main"
        ));
        assert!(!is_receiver("vi walreceiver", "main"));
    }

    #[test]
    fn slots_are_named_after_their_nodes() {
        assert_eq!(slot_name("db-eu-1").unwrap(), "had_db_eu_1");
        assert!(slot_name(&"n".repeat(60)).is_err());
    }
}
