//! The fenced znodes as the acting master holds them: sealed once, then changed by compare-and-set, one change at a time.
//!
//! Each change is two writes in this order: the value with the change embedded, then the entry in the log. This module
//! must never make a second change before the first one's entry is there, and never write outside the lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use ha_core::changes::{self, KEEP};
use ha_core::{
    AccessRecord, Assignment, Change, ClusterRecord, Envelope, FORMAT, MAX_VALUE, NodeRecord, OperationRecord,
    Severity, StoredError, change_name, encode, is_write,
};
use serde::{Serialize, de::DeserializeOwned};

use super::databases::StoredGroup;
use super::databases::store::seal_groups;
use super::seal::{children, folder, or_damaged, read, read_changes, seal, seal_folder};
use crate::coordination::{CoordError, Coordinator, CreateMode, Lease, resolve};
use crate::platform::Clock;

/// Why the master must stop, or why a change failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// A higher term was found: another leads.
    #[error("another master has sealed {0}")]
    Deposed(String),
    /// The lease has run out.
    #[error("the lease has run out")]
    LeaseOver,
    /// The coordinator failed.
    #[error(transparent)]
    Coordinator(#[from] CoordError),
    /// The value to be changed cannot be read, or the new one is too large.
    #[error("{0}")]
    Value(String),
}

type Result<T> = std::result::Result<T, StoreError>;

/// A sealed value and its version.
#[derive(Debug, Clone)]
pub(super) struct Stored<T> {
    /// What is stored.
    pub(super) envelope: Envelope<T>,
    /// Its version.
    pub(super) version: i32,
}

/// What a change is, without what the store adds.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// For instance `node.offline`.
    pub(super) kind: &'static str,
    /// For instance `node/n1`.
    pub(super) subject: String,
    /// How much it matters.
    pub(super) severity: Severity,
    /// One line for people.
    pub(super) text: String,
    /// Observation or reason.
    pub(super) cause: String,
    /// Who.
    pub(super) actor: String,
    /// The request's id, if one asked for it.
    pub(super) request: String,
    /// JSON pointer to the part of the value that the entry shows; none: all of it.
    pub(super) part: Option<String>,
}

impl Draft {
    /// A change that the master makes of its own accord.
    pub(super) fn master(
        kind: &'static str,
        subject: impl Into<String>,
        severity: Severity,
        text: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            subject: subject.into(),
            severity,
            text: text.into(),
            cause: String::new(),
            actor: "master".to_owned(),
            request: String::new(),
            part: None,
        }
    }

    /// Adds what was observed.
    #[must_use]
    pub(super) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }
}

/// Everything the master has sealed.
pub(super) struct Store {
    pub(super) c: Arc<dyn Coordinator>,
    clock: Arc<dyn Clock>,
    pub(super) term: u64,
    pub(super) tail: u64,
    pub(super) oldest: u64,
    /// `nodes/<n>`.
    pub(super) nodes: BTreeMap<String, Stored<NodeRecord>>,
    /// `assignments/<n>`.
    pub(super) assignments: BTreeMap<String, Stored<Assignment>>,
    /// `ops/<id>`.
    pub(super) ops: BTreeMap<String, Stored<OperationRecord>>,
    /// `cluster`.
    pub(super) cluster: Stored<ClusterRecord>,
    /// `access`.
    pub(super) access: Stored<AccessRecord>,
    /// `db/<g>`.
    pub(super) groups: BTreeMap<String, StoredGroup>,
    /// Values that cannot be read, by path: shown, and left as they are.
    pub(super) damaged: BTreeMap<String, StoredError>,
    /// Changes that are in the log but not yet passed on.
    pub(super) fresh: Vec<Change>,
    /// Requests that the newest entries of the log came from, with the number of the last entry of each.
    requests: BTreeMap<String, u64>,
    /// The entry of a change that is made, and that [`Store::settle`] has yet to append.
    unlogged: Option<Change>,
}

impl Store {
    /// Seals everything for `term` and completes the change log.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] if a higher term was met; what the coordinator reports.
    pub(super) async fn open(c: Arc<dyn Coordinator>, clock: Arc<dyn Clock>, term: u64) -> Result<Self> {
        let s = &*c;
        folder(s, "/db").await?;
        let ((nodes, bad_nodes), (assignments, bad_assignments), (ops, bad_ops), cluster, access, sealed) = futures::try_join!(
            seal_folder::<NodeRecord>(s, "/nodes", term),
            seal_folder::<Assignment>(s, "/assignments", term),
            seal_folder::<OperationRecord>(s, "/ops", term),
            seal::<ClusterRecord>(s, "/cluster", term),
            seal::<AccessRecord>(s, "/access", term),
            seal_groups(s, term),
        )?;
        let (groups, bad_groups) = sealed;
        let bad = bad_nodes.into_iter().chain(bad_assignments).chain(bad_ops);
        let mut damaged: BTreeMap<String, StoredError> = bad.chain(bad_groups).collect();
        let cluster = or_damaged("/cluster", cluster, &mut damaged);
        let access = or_damaged("/access", access, &mut damaged);
        let names = children(s, "/changes").await?;
        let tail = changes::tail(&names);
        let oldest = names.iter().filter_map(|n| ha_core::change_seq(n)).min().unwrap_or(1);
        let mut store = Self {
            c: Arc::clone(&c),
            clock,
            term,
            tail,
            oldest,
            nodes,
            assignments,
            ops,
            cluster,
            access,
            groups,
            damaged,
            fresh: Vec::new(),
            requests: BTreeMap::new(),
            unlogged: None,
        };
        for change in store.embedded_after(tail) {
            tracing::info!(
                seq = change.seq,
                "the last master left out an entry of the change log: appending it"
            );
            store.append(change).await?;
        }
        store.trim(&names).await;
        Ok(store)
    }

    fn embedded_after(&self, tail: u64) -> Vec<Change> {
        fn of<T>(map: &BTreeMap<String, Stored<T>>) -> impl Iterator<Item = &Change> {
            map.values().filter_map(|s| s.envelope.change.as_ref())
        }
        let single = [&self.cluster.envelope.change, &self.access.envelope.change];
        let all = of(&self.nodes).chain(of(&self.assignments)).chain(of(&self.ops));
        let groups = self.groups.values().flat_map(StoredGroup::changes);
        changes::missing(all.chain(single.into_iter().flatten()).chain(groups), tail)
    }

    /// Number of the last change.
    pub(super) fn revision(&self) -> u64 {
        self.tail
    }

    /// Number of the oldest entry kept.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn check_lease(&self) -> Result<()> {
        let lease: Lease = *self.c.lease().borrow();
        if lease.holds(self.clock.boottime()) {
            Ok(())
        } else {
            Err(StoreError::LeaseOver)
        }
    }

    pub(super) fn change(&self, draft: Draft, before: serde_json::Value, after: serde_json::Value) -> Change {
        Change {
            v: FORMAT,
            seq: self.tail + 1,
            time_ms: self.clock.wall_ms(),
            kind: draft.kind.to_owned(),
            subject: draft.subject,
            severity: draft.severity,
            text: draft.text,
            before,
            after,
            cause: draft.cause,
            actor: draft.actor,
            term: self.term,
            request: draft.request,
            write: uuid::Uuid::new_v4().to_string(),
        }
    }

    /// Appends an entry that no value carries: something observed, not something stored.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(super) async fn note(
        &mut self,
        draft: Draft,
        before: serde_json::Value,
        after: serde_json::Value,
    ) -> Result<u64> {
        self.settle().await?;
        self.check_lease()?;
        let change = self.change(draft, before, after);
        self.append(change).await?;
        Ok(self.tail)
    }

    /// A change is made; its entry is appended by the next [`Store::settle`], at the latest before the next change.
    pub(super) fn owe(&mut self, change: Change) {
        self.unlogged = Some(change);
    }

    /// Appends the entry of the last change, if it is still to be.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(super) async fn settle(&mut self) -> Result<()> {
        if let Some(change) = self.unlogged.clone() {
            self.append(change).await?;
            self.unlogged = None;
        }
        Ok(())
    }

    async fn append(&mut self, change: Change) -> Result<()> {
        let path = format!("/changes/{}", change_name(change.seq));
        let write = change.write.clone();
        let data = encode(&change);
        loop {
            let mine = |stored: &[u8], _: &_| is_write(stored, &write);
            match resolve::create(&*self.c, &path, &data, CreateMode::Persistent, mine).await {
                Ok(_) => break,
                Err(CoordError::Exists(_)) => {
                    // The one before us may have appended it after all; anything else there means that we are not alone.
                    let (stored, _) = read(&*self.c, &path).await?;
                    if is_write(&stored, &write) {
                        break;
                    }
                    return Err(StoreError::Deposed(path));
                }
                Err(CoordError::Unavailable(_)) => resolve::wait_live(&*self.c).await?,
                Err(e) => return Err(e.into()),
            }
        }
        self.tail = change.seq;
        self.remember(&change);
        self.fresh.push(change);
        Ok(())
    }

    /// Remembers which request a change came from, for as long as the log keeps it.
    pub(super) fn remember(&mut self, change: &Change) {
        if !change.request.is_empty() {
            self.requests.insert(change.request.clone(), change.seq);
        }
        if self.requests.len() as u64 > 2 * KEEP {
            let forgotten = self.tail.saturating_sub(KEEP);
            self.requests.retain(|_, seq| *seq > forgotten);
        }
    }

    /// Number of the change that a request with this id has made, if it made one. A value's last change would not do: the
    /// next request may have changed the value again before this one is repeated.
    pub(super) fn made_by(&self, request: &str) -> Option<u64> {
        self.requests.get(request).copied()
    }

    /// Makes one change: sets `path` to `value` with the change embedded, then appends the entry.
    pub(super) async fn commit<T: Serialize + Clone>(
        &mut self,
        path: &str,
        stored: &Stored<T>,
        value: T,
        draft: Draft,
    ) -> Result<Stored<T>> {
        self.settle().await?;
        let part = draft.part.clone().unwrap_or_default();
        let json = |v: &Option<T>| {
            let whole = v.as_ref().and_then(|v| serde_json::to_value(v).ok());
            whole.and_then(|v| v.pointer(&part).cloned()).unwrap_or_default()
        };
        let after = Some(value);
        let change = self.change(draft, json(&stored.envelope.value), json(&after));
        let envelope = Envelope {
            v: FORMAT,
            term: self.term,
            write: change.write.clone(),
            change: Some(change.clone()),
            value: after,
        };
        let stored = loop {
            match self.set(path, stored, &envelope).await? {
                Some(stored) => break stored,
                None => resolve::wait_live(&*self.c).await?,
            }
        };
        self.append(change).await?;
        Ok(stored)
    }

    /// The compare-and-set alone; none if there is no connection and it was certainly not carried out.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::Value`] for a value too large or damaged.
    pub(super) async fn set<T: Serialize + Clone>(
        &self,
        path: &str,
        stored: &Stored<T>,
        envelope: &Envelope<T>,
    ) -> Result<Option<Stored<T>>> {
        self.check_lease()?;
        if let Some(e) = self.damaged.get(path) {
            return Err(StoreError::Value(e.to_string()));
        }
        let data = encode(envelope);
        if data.len() > MAX_VALUE {
            return Err(StoreError::Value(format!(
                "{path} would be {} bytes, the limit is {MAX_VALUE}",
                data.len()
            )));
        }
        let mine = |b: &[u8]| is_write(b, &envelope.write);
        match resolve::compare_and_set(&*self.c, path, &data, stored.version, mine).await {
            Ok(stat) => Ok(Some(Stored {
                envelope: envelope.clone(),
                version: stat.version,
            })),
            Err(CoordError::BadVersion(_)) => Err(StoreError::Deposed(path.to_owned())),
            Err(CoordError::Unavailable(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Creates an empty znode at term 0, or finds the one an earlier attempt left, and seals it.
    pub(super) async fn create_empty<T: Serialize + DeserializeOwned + Clone>(&self, path: &str) -> Result<Stored<T>> {
        self.check_lease()?;
        if let Some(e) = self.damaged.get(path) {
            return Err(StoreError::Value(e.to_string()));
        }
        let empty = encode(&Envelope::<T>::empty());
        loop {
            match resolve::create(&*self.c, path, &empty, CreateMode::Persistent, |_, _| true).await {
                Ok(_) | Err(CoordError::Exists(_)) => break,
                Err(CoordError::Unavailable(_)) => resolve::wait_live(&*self.c).await?,
                Err(e) => return Err(e.into()),
            }
        }
        seal::<T>(&*self.c, path, self.term)
            .await?
            .map_err(|e| StoreError::Value(e.to_string()))
    }

    /// Stores a node's record; adds the node if it is new.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::Value`] for a value too large or damaged.
    pub(super) async fn set_node(&mut self, name: &str, record: NodeRecord, draft: Draft) -> Result<()> {
        let path = format!("/nodes/{name}");
        let stored = match self.nodes.get(name) {
            Some(stored) => stored.clone(),
            None => self.create_empty(&path).await?,
        };
        if !self.assignments.contains_key(name) {
            let assignment = self.create_empty(&format!("/assignments/{name}")).await?;
            self.assignments.insert(name.to_owned(), assignment);
        }
        let stored = self.commit(&path, &stored, record, draft).await?;
        self.nodes.insert(name.to_owned(), stored);
        Ok(())
    }

    /// Stores what was concluded about a node.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn set_assignment(&mut self, name: &str, value: Assignment, draft: Draft) -> Result<()> {
        let path = format!("/assignments/{name}");
        let stored = match self.assignments.get(name) {
            Some(stored) => stored.clone(),
            None => self.create_empty(&path).await?,
        };
        let stored = self.commit(&path, &stored, value, draft).await?;
        self.assignments.insert(name.to_owned(), stored);
        Ok(())
    }

    /// Stores an operation; creates it if it is new.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn set_op(&mut self, id: &str, value: OperationRecord, draft: Draft) -> Result<()> {
        let path = format!("/ops/{id}");
        let stored = match self.ops.get(id) {
            Some(stored) => stored.clone(),
            None => self.create_empty(&path).await?,
        };
        let stored = self.commit(&path, &stored, value, draft).await?;
        self.ops.insert(id.to_owned(), stored);
        Ok(())
    }

    /// Stores an operation with no entry in the change log: its last change stays embedded. False if there was no
    /// connection and it was certainly not carried out.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn keep_op(&mut self, id: &str, value: OperationRecord) -> Result<bool> {
        self.settle().await?;
        let Some(stored) = self.ops.get(id).cloned() else {
            return Ok(true);
        };
        let envelope = Envelope {
            v: FORMAT,
            term: self.term,
            write: uuid::Uuid::new_v4().to_string(),
            change: stored.envelope.change.clone(),
            value: Some(value),
        };
        let kept = self.set(&format!("/ops/{id}"), &stored, &envelope).await?;
        let done = kept.is_some();
        if let Some(kept) = kept {
            self.ops.insert(id.to_owned(), kept);
        }
        Ok(done)
    }

    /// Stores the cluster's record.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn set_cluster(&mut self, value: ClusterRecord, draft: Draft) -> Result<()> {
        let stored = self.cluster.clone();
        self.cluster = self.commit("/cluster", &stored, value, draft).await?;
        Ok(())
    }

    /// Stores users and revocations.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn set_access(&mut self, value: AccessRecord, draft: Draft) -> Result<()> {
        let stored = self.access.clone();
        self.access = self.commit("/access", &stored, value, draft).await?;
        Ok(())
    }

    /// The newest `count` entries of the log, oldest first; entries that cannot be read are left out.
    ///
    /// # Errors
    /// What the coordinator reports.
    pub(super) async fn recent(&mut self, count: u64) -> Result<Vec<Change>> {
        let from = self.oldest.max((self.tail + 1).saturating_sub(count));
        read_changes(&*self.c, from, self.tail).await.map_err(StoreError::from)
    }
}
