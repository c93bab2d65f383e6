//! Registration: a node announces itself when it starts; one session, one registration.
//!
//! `members/<n>` and `leases/<n>` are ephemeral and owned by this session. Whose a registration that is found there is
//! decides the owner rule: one's own earlier one (same token, and its daemon is proven dead or gone for a restart) is
//! replaced; anybody else's is left alone until its session ends. This module must never delete what another living
//! daemon holds.

use std::time::Duration;

use ha_core::{FORMAT, MasterRecord, Registration, Resources, decode, encode, is_write, lease};
use ha_proto::codes;

use crate::coordination::{CoordError, Coordinator, CreateMode, Stat, resolve};
use crate::error::ApiError;
use crate::platform::process_alive;
use crate::shared::Me;

/// Pause between two looks at what is in the way.
const ROUND: Duration = Duration::from_millis(50);

/// What is said in the registration beside the daemon's identity.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What the node has.
    pub capacity: Resources,
    /// Operating system, for people.
    pub os: String,
    /// Process id; 0 where there is none to look at.
    pub pid: u32,
}

/// A registration held by the session.
#[derive(Debug, Clone)]
pub struct Held {
    path: String,
    registration: Registration,
    version: i32,
}

/// Path of a node's registration.
pub fn member_path(node: &str) -> String {
    format!("/members/{node}")
}

/// Path of a node's lease.
pub fn lease_path(node: &str) -> String {
    format!("/leases/{node}")
}

/// Registers the node on this session and begins its lease.
///
/// # Errors
/// [`codes::NAME_IN_USE`] if another living daemon holds the name; otherwise what the coordinator reports.
pub async fn register(
    c: &dyn Coordinator,
    me: &Me,
    facts: &Facts,
    session_timeout: Duration,
) -> Result<Held, ApiError> {
    let write = uuid::Uuid::new_v4().to_string();
    let registration = Registration {
        v: FORMAT,
        node: me.node.clone(),
        token: me.token.clone(),
        boot_id: me.boot_id.clone(),
        pid: facts.pid,
        run: me.run.clone(),
        address: me.address.clone(),
        http_address: me.http_address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: facts.os.clone(),
        started_ms: me.started_ms,
        restarting: false,
        capacity: facts.capacity,
        write: write.clone(),
    };
    let path = member_path(&me.node);
    let data = encode(&registration);
    // A predecessor may vanish or be replaced between two looks: a few rounds settle it.
    for round in 0..10 {
        // What was taken over at the first look is replaced at once: until then the node has no registration.
        if round > 1 {
            tokio::time::sleep(ROUND).await;
        }
        let mine = |stored: &[u8], _: &Stat| is_write(stored, &write);
        match resolve::create(c, &path, &data, CreateMode::Ephemeral, mine).await {
            Ok(stat) => {
                begin_lease(c, me, &path, &write).await?;
                return Ok(Held {
                    path,
                    registration,
                    version: stat.version,
                });
            }
            Err(CoordError::Exists(_)) => take_over(c, me, &path, session_timeout).await?,
            Err(e) => return Err(e.into()),
        }
    }
    Err(CoordError::Unavailable(format!("the earlier registration of {} does not go", me.node)).into())
}

fn name_in_use(me: &Me, why: impl Into<String>) -> ApiError {
    ApiError::new(
        &codes::NAME_IN_USE,
        format!("another daemon is registered as {}", me.node),
    )
    .why(why)
    .next(format!("hactl node show {}", me.node))
}

/// Removes the registration found at `path` if it is an earlier one of this daemon's; waits for it to go otherwise.
async fn take_over(c: &dyn Coordinator, me: &Me, path: &str, session_timeout: Duration) -> Result<(), ApiError> {
    let (bytes, stat) = match c.read(path).await {
        Ok(found) => found,
        Err(CoordError::NotFound(_)) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // A value that cannot be read belongs to nobody known: it is left to its owner's session.
    let found = decode::<Registration>(path, &bytes).ok();
    if let Some(r) = found.as_ref().filter(|r| r.token == me.token) {
        // An earlier session of this very daemon, one that said it ends, or one whose process is gone.
        let ended = r.run == me.run || r.restarting || (r.boot_id == me.boot_id && !process_alive(r.pid));
        if !ended && heartbeats(c, &r.node, session_timeout).await? {
            return Err(name_in_use(
                me,
                format!("a copy of this node's state directory runs at {}", r.address),
            ));
        }
        if ended {
            // It can act no more: the others need not wait for its session to time out.
            end_mastership(c, me, stat.owner).await?;
            return remove(c, path, &stat).await;
        }
        // A daemon that is merely silent may be stopped, and still hold its lease: its session decides.
    }
    let whose = found.map_or("a daemon that cannot be identified".to_owned(), |r| {
        format!("the daemon at {} (started as process {})", r.address, r.pid)
    });
    tracing::warn!(node = %me.node, "the name is registered by {whose}; waiting until that session ends");
    let (still, gone) = c.read_and_watch(path).await?;
    if still.is_none() {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = gone.fired() => Ok(()),
        () = tokio::time::sleep(session_timeout + session_timeout / 4) => Err(name_in_use(me, whose)),
    }
}

/// Deletes the registration that was looked at; whatever else is found there by now is left alone.
async fn remove(c: &dyn Coordinator, path: &str, seen: &Stat) -> Result<(), ApiError> {
    // A registration made anew has the first version again: only its creation tells it from the one that was looked at.
    let version = match c.read(path).await {
        Ok((_, stat)) if stat.created == seen.created => stat.version,
        Ok(_) | Err(CoordError::NotFound(_)) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    match c.delete(path, version).await {
        // Gone, or changed meanwhile: look again.
        Ok(()) | Err(CoordError::NotFound(_) | CoordError::BadVersion(_) | CoordError::Unknown(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Deletes the election znode of the `master` record's holder, if the ended session `owner` of this node left it behind.
async fn end_mastership(c: &dyn Coordinator, me: &Me, owner: i64) -> Result<(), ApiError> {
    let Ok((bytes, _)) = c.read("/master").await else {
        return Ok(());
    };
    let Ok(record) = decode::<MasterRecord>("/master", &bytes) else {
        return Ok(());
    };
    let Some(holder) = record.holder.filter(|h| h.node == me.node) else {
        return Ok(());
    };
    let path = format!("/election/{}", holder.candidate);
    match c.read(&path).await {
        Ok((_, stat)) if stat.owner == owner => match c.delete(&path, stat.version).await {
            Ok(()) | Err(CoordError::NotFound(_) | CoordError::Unknown(_) | CoordError::Unavailable(_)) => Ok(()),
            Err(e) => Err(e.into()),
        },
        _ => Ok(()),
    }
}

/// Whether the lease of `node` is being heartbeated.
async fn heartbeats(c: &dyn Coordinator, node: &str, session_timeout: Duration) -> Result<bool, ApiError> {
    let path = lease_path(node);
    let look = || async {
        match c.read(&path).await {
            Ok((_, stat)) => Ok(Some(stat.modified)),
            Err(CoordError::NotFound(_)) => Ok(None),
            Err(e) => Err(ApiError::from(e)),
        }
    };
    let before = look().await?;
    if before.is_none() {
        return Ok(false);
    }
    // Two heartbeats and a half: one may be late.
    tokio::time::sleep(lease::heartbeat_interval(session_timeout) * 5 / 2).await;
    let after = look().await?;
    Ok(after.is_some() && after != before)
}

/// Creates the lease of the registration at `member`, written by `registered`, and begins to heartbeat it.
async fn begin_lease(c: &dyn Coordinator, me: &Me, member: &str, registered: &str) -> Result<(), ApiError> {
    let path = lease_path(&me.node);
    let write = uuid::Uuid::new_v4().to_string();
    let data = encode(&serde_json::json!({ "v": FORMAT, "write": write }));
    for _ in 0..10 {
        match resolve::create(c, &path, &data, CreateMode::Ephemeral, |stored, _| {
            is_write(stored, &write)
        })
        .await
        {
            Ok(_) => {
                c.hold_lease(&path).await?;
                return Ok(());
            }
            Err(CoordError::Exists(_)) => {
                let found = match c.read(&path).await {
                    Ok((_, stat)) => stat,
                    Err(CoordError::NotFound(_)) => continue,
                    Err(e) => return Err(e.into()),
                };
                // Whoever holds the registration owns the lease: what was there before is left over from an earlier
                // session. A registration that another has taken meanwhile has a lease of its own.
                match c.read(member).await {
                    Ok((bytes, _)) if is_write(&bytes, registered) => {}
                    Ok(_) | Err(CoordError::NotFound(_)) => {
                        return Err(CoordError::BadVersion(member.to_owned()).into());
                    }
                    Err(e) => return Err(e.into()),
                }
                remove(c, &path, &found).await?;
            }
            Err(e) => return Err(e.into()),
        }
        // A server that lags behind shows what was removed already: it gets time to catch up.
        tokio::time::sleep(ROUND).await;
    }
    // No proof of another daemon: the next session tries again.
    Err(CoordError::Unavailable(format!("the lease of an earlier session of {} does not go", me.node)).into())
}

impl Held {
    /// Announces a restart: the node stays online while its session lives.
    ///
    /// # Errors
    /// What the coordinator reports; the daemon then ends unannounced.
    pub async fn announce_restart(&mut self, c: &dyn Coordinator) -> Result<(), CoordError> {
        self.registration.restarting = true;
        self.registration.write = uuid::Uuid::new_v4().to_string();
        let data = encode(&self.registration);
        let write = self.registration.write.clone();
        let stat = resolve::compare_and_set(c, &self.path, &data, self.version, |b| is_write(b, &write)).await?;
        self.version = stat.version;
        Ok(())
    }

    /// Waits until the registration is no longer this session's.
    ///
    /// # Errors
    /// What the coordinator reports.
    pub async fn lost(&self, c: &dyn Coordinator) -> Result<(), CoordError> {
        loop {
            match c.read_and_watch(&self.path).await {
                Ok((Some((bytes, _)), watch)) if is_write(&bytes, &self.registration.write) => watch.fired().await,
                Ok(_) => return Ok(()),
                Err(CoordError::Unavailable(_) | CoordError::Unknown(_)) => resolve::wait_live(c).await?,
                Err(e) => return Err(e),
            }
        }
    }
}
