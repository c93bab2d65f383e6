//! Election: this node's candidacy, and mastership while it lasts.
//!
//! The queue of ephemeral-sequential znodes decides who tries, the compare-and-set that raises the term in `/master`
//! decides who leads. Mastership ends as one future: dropping it cancels every master task before anything else happens.

mod outlive;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ha_core::election::{Step, decide};
use ha_core::{
    Candidacy, Envelope, FORMAT, Holder, MasterRecord, NodeRecord, Transfer, decode, encode, is_write, lease,
};

use crate::coordination::{CoordError, Coordinator, CreateMode, Lease, Watch, resolve};
use crate::master::{self, End};
use crate::session::Options;
use crate::shared::{Shared, SharedTx};

/// What a session's candidacy and mastership need.
pub struct Participant<'a> {
    /// The session.
    pub c: Arc<dyn Coordinator>,
    /// What the daemon knows.
    pub shared: &'a Shared,
    /// Where it is told.
    pub tx: &'a SharedTx,
    /// The daemon's options.
    pub options: &'a Options,
    /// The session timeout.
    pub session_timeout: Duration,
    /// This node's election znode, without the folder.
    candidacy: Mutex<Option<String>>,
    /// Ids of the candidacies whose creation was not acknowledged: they may yet appear, and nobody would act for them.
    doubtful: Mutex<Vec<String>>,
    /// The lease's end as mastership last knew it.
    lease_until: Mutex<Option<Duration>>,
    /// The last master whose candidacy was ended here, by its election znode, and why that could be.
    outlived: Mutex<Option<(String, &'static str)>>,
}

/// A term that this node has raised.
#[derive(Debug, Clone)]
pub struct Won {
    /// The term.
    pub term: u64,
    /// This node's election znode.
    pub candidate: String,
    /// The record as it was written.
    pub record: MasterRecord,
    /// Its version.
    pub version: i32,
    /// The record before.
    pub before: MasterRecord,
}

/// Takes part in elections until the session ends.
pub async fn run(p: &Participant<'_>) -> CoordError {
    loop {
        match Box::pin(round(p)).await {
            Ok(()) => {}
            Err(e @ CoordError::SessionLost(_)) => return e,
            Err(CoordError::BadVersion(_) | CoordError::NotFound(_) | CoordError::Exists(_)) => {}
            Err(e) => {
                tracing::debug!("election: {e}");
                if let Err(e) = resolve::wait_live(&*p.c).await {
                    return e;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One look at the queue and one step.
async fn round(p: &Participant<'_>) -> Result<(), CoordError> {
    let (eligible, spec_watch) = eligible(p).await?;
    if !eligible {
        p.withdraw().await?;
        spec_watch.fired().await;
        return Ok(());
    }
    let me = p.candidacy().await?;
    let (record, version, master_watch) = read_master(&*p.c).await?;
    let children = p.c.children("/election").await?;
    p.drop_doubtful(&me, &children).await?;
    match decide(&me, &children, &record) {
        Step::Enqueue => {
            // Deleted by somebody: stand again.
            p.set_candidacy(None);
            Ok(())
        }
        Step::Wait { on } => {
            let (there, gone) = p.c.read_and_watch(&format!("/election/{on}")).await?;
            if there.is_some() {
                let leads = record.holder.filter(|h| record.transfer.is_none() && h.candidate == on);
                tokio::select! {
                    biased;
                    () = gone.fired() => {}
                    () = master_watch.fired() => {}
                    () = spec_watch.fired() => {}
                    ended = outlive::outlive(p, leads.as_ref()) => ended?,
                }
            }
            Ok(())
        }
        Step::Raise => {
            if lease_stood(p).await {
                // The queue may be another one by now.
                return Ok(());
            }
            let won = raise(p, &me, record, version).await?;
            drop((master_watch, spec_watch));
            Box::pin(act(p, won)).await
        }
    }
}

async fn read_master(c: &dyn Coordinator) -> Result<(MasterRecord, i32, Watch), CoordError> {
    let (found, watch) = c.read_and_watch("/master").await?;
    let Some((bytes, stat)) = found else {
        return Err(CoordError::NotFound("/master".into()));
    };
    match decode::<MasterRecord>("/master", &bytes) {
        Ok(record) => Ok((record, stat.version, watch)),
        Err(e) => {
            // Nobody can lead over a record that nobody can read; it is left for a person to see.
            tracing::error!("{e}; no master can be elected until it is mended");
            watch.fired().await;
            Err(CoordError::BadVersion("/master".into()))
        }
    }
}

/// Whether this node may stand: added, not removed, eligible. Cordoned nodes stand too, or a cluster whose nodes are all
/// cordoned could not be led; they hand mastership on.
async fn eligible(p: &Participant<'_>) -> Result<(bool, Watch), CoordError> {
    let path = format!("/nodes/{}", p.shared.me.node);
    let (found, watch) = p.c.read_and_watch(&path).await?;
    let spec = found.and_then(|(bytes, _)| match decode::<Envelope<NodeRecord>>(&path, &bytes) {
        Ok(e) => e.value,
        Err(e) => {
            tracing::error!("{e}; this node does not stand for master");
            None
        }
    });
    Ok((spec.is_some_and(|r| !r.removed && r.spec.master_eligible), watch))
}

async fn raise(p: &Participant<'_>, me: &str, before: MasterRecord, version: i32) -> Result<Won, CoordError> {
    let write = uuid::Uuid::new_v4().to_string();
    let node = p.shared.me.node.clone();
    // A transfer's pin holds while it is being carried out and while its node leads.
    let pinned = before.pinned.clone().filter(|n| *n == node);
    let record = MasterRecord {
        v: FORMAT,
        term: before.term + 1,
        write: write.clone(),
        holder: Some(Holder {
            node,
            candidate: me.to_owned(),
            address: p.shared.me.address.clone(),
            since_ms: p.shared.clock.wall_ms(),
        }),
        transfer: None,
        pinned,
    };
    let data = encode(&record);
    let stat = resolve::compare_and_set(&*p.c, "/master", &data, version, |b| is_write(b, &write)).await?;
    Ok(Won {
        term: record.term,
        candidate: me.to_owned(),
        record,
        version: stat.version,
        before,
    })
}

/// One stretch of mastership in the log, for people and for the tests that intersect the stretches of all nodes. Its end is
/// logged however it ends, also when the future is dropped.
struct Stretch<'p, 'a> {
    p: &'p Participant<'a>,
    term: u64,
    begun: Duration,
    end: String,
}

impl<'p, 'a> Stretch<'p, 'a> {
    fn begin(p: &'p Participant<'a>, term: u64) -> Self {
        let begun = p.shared.clock.boottime();
        tracing::info!(target: "had::lease", term, from_ns = begun.as_nanos(), "mastership begins");
        Self {
            p,
            term,
            begun,
            end: "the session or the daemon ended".to_owned(),
        }
    }
}

impl Drop for Stretch<'_, '_> {
    fn drop(&mut self) {
        // A frozen process notices the end of its lease late, but did nothing after it.
        let now = self.p.shared.clock.boottime();
        // The session's end has cleared the lease: what it was last is what counts.
        let held = self
            .p
            .lease_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or(self.begun);
        let until = held.min(now);
        tracing::info!(
            target: "had::lease",
            term = self.term,
            from_ns = self.begun.as_nanos(),
            until_ns = until.as_nanos(),
            "mastership ends: {}",
            self.end
        );
    }
}

/// Acts as master until something ends it. Leaves no task behind.
async fn act(p: &Participant<'_>, won: Won) -> Result<(), CoordError> {
    let end = {
        let mut stretch = Stretch::begin(p, won.term);
        let acting = master::run(p, &won);
        tokio::pin!(acting);
        let end = tokio::select! {
            biased;
            end = guard_lease(p, won.term) => end,
            end = guard_record(p, &won) => end,
            end = &mut acting => end,
        };
        stretch.end = end.to_string();
        end
    };
    p.tx.handle.send_replace(None);
    match end {
        End::Transfer { to, pin } => hand_over(p, &won, to, pin).await,
        End::Lost(e) => Err(e),
        End::LeaseOver | End::Deposed => Ok(()),
    }
}

/// What is left of the time in which this node may act as master.
fn time_left(p: &Participant<'_>, held: Lease) -> Option<Duration> {
    let until = lease::mastership_until(held.until?, p.session_timeout);
    until.checked_sub(p.shared.clock.boottime()).filter(|l| !l.is_zero())
}

/// Waits for a heartbeat that is young enough to lead upon: a term that is over when it begins helps nobody. Whether it had to.
async fn lease_stood(p: &Participant<'_>) -> bool {
    let mut lease = p.c.lease();
    let mut waited = false;
    loop {
        let held = *lease.borrow_and_update();
        if time_left(p, held).is_some() || lease.changed().await.is_err() {
            return waited;
        }
        waited = true;
    }
}

/// Returns when mastership's part of the lease has run out.
async fn guard_lease(p: &Participant<'_>, term: u64) -> End {
    let mut lease = p.c.lease();
    loop {
        let held = *lease.borrow_and_update();
        let Some(left) = time_left(p, held) else {
            return End::LeaseOver;
        };
        let until = p.shared.clock.boottime() + left;
        *p.lease_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        tracing::debug!(target: "had::lease", term, until_ns = until.as_nanos(), "lease extended");
        tokio::select! {
            biased;
            () = tokio::time::sleep(left) => {}
            changed = lease.changed() => if changed.is_err() {
                return End::LeaseOver;
            },
        }
    }
}

/// Returns when another has raised the term.
async fn guard_record(p: &Participant<'_>, won: &Won) -> End {
    loop {
        match read_master(&*p.c).await {
            Ok((record, _, watch)) => {
                if record.write != won.record.write {
                    return End::Deposed;
                }
                watch.fired().await;
            }
            Err(e @ CoordError::SessionLost(_)) => return End::Lost(e),
            Err(_) => {
                if let Err(e) = resolve::wait_live(&*p.c).await {
                    return End::Lost(e);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Gives mastership to `to`, or to the next in the queue.
async fn hand_over(p: &Participant<'_>, won: &Won, to: Option<Transfer>, pin: bool) -> Result<(), CoordError> {
    let write = uuid::Uuid::new_v4().to_string();
    let pinned = to.as_ref().filter(|_| pin).map(|t| t.node.clone());
    let record = MasterRecord {
        write: write.clone(),
        holder: None,
        transfer: to,
        pinned,
        ..won.record.clone()
    };
    resolve::compare_and_set(&*p.c, "/master", &encode(&record), won.version, |b| is_write(b, &write)).await?;
    p.withdraw().await
}

impl<'a> Participant<'a> {
    /// A participant without a candidacy yet.
    pub fn new(
        c: Arc<dyn Coordinator>,
        shared: &'a Shared,
        tx: &'a SharedTx,
        options: &'a Options,
        session_timeout: Duration,
    ) -> Self {
        Self {
            c,
            shared,
            tx,
            options,
            session_timeout,
            candidacy: Mutex::new(None),
            doubtful: Mutex::new(Vec::new()),
            lease_until: Mutex::new(None),
            outlived: Mutex::new(None),
        }
    }

    /// Why this node could end the mastership of `holder`, if it was the one that did.
    pub fn outlived(&self, holder: &Holder) -> Option<&'static str> {
        let outlived = self.outlived.lock().unwrap_or_else(PoisonError::into_inner);
        outlived
            .as_ref()
            .filter(|(c, _)| *c == holder.candidate)
            .map(|(_, why)| *why)
    }

    fn set_candidacy(&self, name: Option<String>) {
        *self.candidacy.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    fn current_candidacy(&self) -> Option<String> {
        self.candidacy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node's election znode; creates it if there is none.
    async fn candidacy(&self) -> Result<String, CoordError> {
        if let Some(name) = self.current_candidacy() {
            return Ok(name);
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let me = &self.shared.me;
        let data = encode(&Candidacy {
            v: FORMAT,
            node: me.node.clone(),
            address: me.address.clone(),
        });
        let name = match self
            .c
            .create(&format!("/election/c-{id}-"), &data, CreateMode::EphemeralSequential)
            .await
        {
            Ok((path, _)) => path.rsplit('/').next().unwrap_or_default().to_owned(),
            // It may have been created: the id in the name tells.
            Err(e @ (CoordError::Unknown(_) | CoordError::Unavailable(_))) => {
                self.doubtful
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(id.clone());
                resolve::wait_live(&*self.c).await?;
                let found = self
                    .c
                    .children("/election")
                    .await?
                    .into_iter()
                    .find(|n| n.contains(&id));
                let Some(name) = found else { return Err(e) };
                name
            }
            Err(e) => return Err(e),
        };
        self.set_candidacy(Some(name.clone()));
        Ok(name)
    }

    /// Deletes candidacies of this session that appeared after their creation had been given up.
    async fn drop_doubtful(&self, me: &str, children: &[String]) -> Result<(), CoordError> {
        let doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for orphan in children
            .iter()
            .filter(|c| *c != me && doubtful.iter().any(|id| c.contains(id.as_str())))
        {
            match self.c.delete(&format!("/election/{orphan}"), 0).await {
                Ok(()) | Err(CoordError::NotFound(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Takes the candidacy back.
    async fn withdraw(&self) -> Result<(), CoordError> {
        let Some(name) = self.current_candidacy() else {
            return Ok(());
        };
        self.end_candidacy(&name).await?;
        self.set_candidacy(None);
        Ok(())
    }

    /// Deletes an election znode: one's own, or that of a holder that leads no more.
    async fn end_candidacy(&self, name: &str) -> Result<(), CoordError> {
        loop {
            match self.c.delete(&format!("/election/{name}"), 0).await {
                Ok(()) | Err(CoordError::NotFound(_)) => return Ok(()),
                // Deleting twice is the same as once.
                Err(CoordError::Unknown(_) | CoordError::Unavailable(_)) => resolve::wait_live(&*self.c).await?,
                Err(e) => return Err(e),
            }
        }
    }

    /// Gives mastership up, if held, and the candidacy: for a daemon that stops. Mastership's tasks must have ended.
    pub async fn step_down(&self) {
        let Some(name) = self.current_candidacy() else { return };
        let holding = async {
            let (record, version, _) = read_master(&*self.c).await?;
            if record.holder.as_ref().is_some_and(|h| h.candidate == name) {
                let record = MasterRecord {
                    write: uuid::Uuid::new_v4().to_string(),
                    holder: None,
                    ..record
                };
                self.c.compare_and_set("/master", &encode(&record), version).await?;
            }
            Ok::<(), CoordError>(())
        };
        // Either may fail: the session's end does the same, only later.
        if let Err(e) = holding.await {
            tracing::debug!("mastership was not handed over: {e}");
        }
        if let Err(e) = self.withdraw().await {
            tracing::debug!("the candidacy was not withdrawn: {e}");
        }
    }
}
