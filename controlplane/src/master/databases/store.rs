//! A group's znodes as the acting master holds them: the specification, the record and the history, each fenced.
//!
//! A decision is one compare-and-set of the record. Its entry in the change log is owed until [`Store::settle`], so that
//! the agents can be told first; the entry's change is embedded in the record, and no other change is made before.

use std::collections::BTreeMap;

use ha_core::database::record::FailoverRecord;
use ha_core::database::{GroupSpec, GroupState};
use ha_core::{Change, Envelope, FORMAT, StoredError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::seal::{children, folder, or_damaged, seal};
use super::super::store::{Draft, Store, StoreError, Stored};
use crate::coordination::{CoordError, Coordinator};

type Result<T> = std::result::Result<T, StoreError>;

/// Changes of primary that are kept.
const KEPT: usize = 60;

/// One change of primary that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::master) struct Past {
    /// What the record said of it at its end.
    pub(super) what: FailoverRecord,
    /// When it was over.
    pub(super) finished_ms: i64,
    /// The epoch before it.
    #[serde(default)]
    pub(super) from_epoch: u64,
    /// The primary's timeline after it.
    #[serde(default)]
    pub(super) timeline: u32,
    /// Where that timeline begins.
    #[serde(default)]
    pub(super) fork: u64,
    /// Who asked for it; empty: nobody.
    #[serde(default)]
    pub(super) actor: String,
}

/// The changes of primary, oldest first.
pub(super) type History = Vec<Past>;

/// A group as it is stored.
#[derive(Debug, Clone)]
pub(in crate::master) struct StoredGroup {
    /// `db/<g>/spec`.
    pub(super) spec: Stored<GroupSpec>,
    /// `db/<g>/state`.
    pub(super) state: Stored<GroupState>,
    /// `db/<g>/history`.
    pub(super) history: Stored<History>,
}

impl StoredGroup {
    /// Changes that the values embed.
    pub(in crate::master) fn changes(&self) -> impl Iterator<Item = &Change> {
        let all = [&self.spec.envelope.change, &self.state.envelope.change];
        all.into_iter().flatten()
    }

    /// The specification, unless the group was removed or never came to be.
    pub(super) fn live(&self) -> Option<&GroupSpec> {
        self.spec.envelope.value.as_ref().filter(|s| !s.removed)
    }

    /// The record; a group without one never had a primary.
    pub(super) fn record(&self) -> GroupState {
        self.state.envelope.value.clone().unwrap_or_default()
    }
}

fn path(group: &str, of: &str) -> String {
    format!("/db/{group}/{of}")
}

/// Groups that were sealed, and values that cannot be read, by path.
type SealedGroups = (BTreeMap<String, StoredGroup>, Vec<(String, StoredError)>);

/// Seals every group.
pub(in crate::master) async fn seal_groups(c: &dyn Coordinator, term: u64) -> Result<SealedGroups> {
    let names = children(c, "/db").await?;
    let sealed = names.into_iter().map(|name| async move {
        let group = seal_group(c, &name, term).await?;
        Ok::<_, StoreError>((name, group))
    });
    let (mut groups, mut damaged) = (BTreeMap::new(), Vec::new());
    for (name, group) in futures::future::try_join_all(sealed).await? {
        let Some((group, bad)) = group else { continue };
        groups.insert(name, group);
        damaged.extend(bad);
    }
    Ok((groups, damaged))
}

async fn seal_group(
    c: &dyn Coordinator,
    name: &str,
    term: u64,
) -> Result<Option<(StoredGroup, BTreeMap<String, StoredError>)>> {
    let [spec, state, history] = ["spec", "state", "history"].map(|of| path(name, of));
    let sealed = futures::try_join!(
        seal::<GroupSpec>(c, &spec, term),
        seal::<GroupState>(c, &state, term),
        seal::<History>(c, &history, term),
    );
    let (s, r, h) = match sealed {
        Ok(sealed) => sealed,
        // A request that was to add it ended half-way; it has no specification, and does no harm.
        Err(StoreError::Coordinator(CoordError::NotFound(_))) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut damaged = BTreeMap::new();
    let group = StoredGroup {
        spec: or_damaged(&spec, s, &mut damaged),
        state: or_damaged(&state, r, &mut damaged),
        history: or_damaged(&history, h, &mut damaged),
    };
    Ok(Some((group, damaged)))
}

/// What the change log shows of a record.
fn told(state: Option<&GroupState>) -> serde_json::Value {
    let Some(s) = state else {
        return serde_json::Value::Null;
    };
    json!({
        "epoch": s.epoch,
        "phase": s.phase,
        "primary": s.primary,
        "timeline": s.timeline,
        "rules": s.rules,
        "instances": s.instances.keys().collect::<Vec<_>>(),
        "degraded": s.degraded,
    })
}

impl Store {
    /// Why a group's values cannot be used, if one is damaged.
    pub(in crate::master) fn damaged_group(&self, group: &str) -> Option<String> {
        let of = ["spec", "state"].map(|of| path(group, of));
        of.iter().find_map(|p| self.damaged.get(p)).map(ToString::to_string)
    }

    /// Stores a group's specification; adds the group if it is new. The record and the history are there before the
    /// specification, at term 0, as whoever reads them expects (protocol R1).
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn set_group(&mut self, name: &str, spec: GroupSpec, draft: Draft) -> Result<()> {
        if !self.groups.contains_key(name) {
            self.settle().await?;
            folder(&*self.c, &format!("/db/{name}")).await?;
            let history = self.create_empty(&path(name, "history")).await?;
            let state = self.create_empty(&path(name, "state")).await?;
            let spec = self.create_empty(&path(name, "spec")).await?;
            let group = StoredGroup { spec, state, history };
            self.groups.insert(name.to_owned(), group);
        }
        let Some(stored) = self.groups.get(name).map(|g| g.spec.clone()) else {
            return Ok(());
        };
        let stored = self.commit(&path(name, "spec"), &stored, spec, draft).await?;
        if let Some(group) = self.groups.get_mut(name) {
            group.spec = stored;
        }
        Ok(())
    }

    /// Stores a group's record: the compare-and-set alone. Without a draft it is quiet, and the last change stays
    /// embedded. False if there was no connection and it was certainly not carried out: then it is decided anew.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn set_record(&mut self, name: &str, state: GroupState, draft: Option<Draft>) -> Result<bool> {
        self.settle().await?;
        let Some(stored) = self.groups.get(name).map(|g| g.state.clone()) else {
            return Ok(false);
        };
        let change = draft.map(|d| self.change(d, told(stored.envelope.value.as_ref()), told(Some(&state))));
        let write = change
            .as_ref()
            .map_or_else(|| uuid::Uuid::new_v4().to_string(), |c| c.write.clone());
        let envelope = Envelope {
            v: FORMAT,
            term: self.term,
            write,
            change: change.clone().or_else(|| stored.envelope.change.clone()),
            value: Some(state),
        };
        let Some(stored) = self.set(&path(name, "state"), &stored, &envelope).await? else {
            return Ok(false);
        };
        if let Some(change) = change {
            self.owe(change);
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.state = stored;
        }
        Ok(true)
    }

    /// Adds a change of primary to a group's history. What cannot be kept now is kept by the next call: the record has it.
    ///
    /// # Errors
    /// As [`Store::set_node`].
    pub(super) async fn keep_past(&mut self, name: &str, past: Past) -> Result<()> {
        let path = path(name, "history");
        let Some(stored) = self.groups.get(name).map(|g| g.history.clone()) else {
            return Ok(());
        };
        if self.damaged.contains_key(&path) {
            return Ok(());
        }
        let mut history = stored.envelope.value.clone().unwrap_or_default();
        let same = |p: &Past| (p.what.started_ms, p.what.epoch) == (past.what.started_ms, past.what.epoch);
        history.retain(|p| !same(p));
        history.push(past);
        let surplus = history.len().saturating_sub(KEPT);
        history.drain(..surplus);
        let envelope = Envelope {
            v: FORMAT,
            term: self.term,
            write: uuid::Uuid::new_v4().to_string(),
            change: None,
            value: Some(history),
        };
        match self.set(&path, &stored, &envelope).await {
            Ok(Some(stored)) => {
                if let Some(group) = self.groups.get_mut(name) {
                    group.history = stored;
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(StoreError::Value(e)) => {
                tracing::warn!("{e}; the change of primary is in the change log alone");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}
