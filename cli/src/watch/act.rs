//! What the dashboard can change, and the proof that it was meant.
//!
//! An [`Act`] is only a wish. Nothing is sent for it until the operator has typed the name of what it changes, which
//! makes it [`Confirmed`]; only this file can do that.

use ha_proto::v1::{ChangeResult, NodeState};

use super::cluster::{Cluster, NodeRow};
use super::groups::GroupRow;

/// A change that a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// The node takes nothing new, or takes it again.
    Cordon { node: String, on: bool },
    /// The node is emptied, or a drain is ended.
    Drain { node: String, cancel: bool },
    /// The node becomes master.
    Transfer { to: String },
    /// The instance becomes primary.
    Switchover { group: String, to: String },
    /// The instance is copied afresh.
    Reinit { group: String, node: String },
    /// Nothing is done to the group by itself, or it is again.
    Pause { group: String, on: bool },
}

impl Act {
    /// Name of what it changes: what has to be typed.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Cordon { node, .. } | Self::Drain { node, .. } | Self::Reinit { node, .. } => node,
            Self::Transfer { to } | Self::Switchover { to, .. } => to,
            Self::Pause { group, .. } => group,
        }
    }

    /// What it is called.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Cordon { node, on: true } => format!("Cordon {node}"),
            Self::Cordon { node, on: false } => format!("Uncordon {node}"),
            Self::Drain { node, cancel: false } => format!("Drain {node}"),
            Self::Drain { node, cancel: true } => format!("End the drain of {node}"),
            Self::Transfer { to } => format!("Transfer master to {to}"),
            Self::Switchover { group, to } => format!("Switch {group} over to {to}"),
            Self::Reinit { group, node } => format!("Copy {group} on {node} afresh"),
            Self::Pause { group, on: true } => format!("Pause {group}"),
            Self::Pause { group, on: false } => format!("Resume {group}"),
        }
    }

    /// What it will do.
    pub(crate) fn meaning(&self) -> String {
        match self {
            Self::Cordon { node, on: true } => format!("{node} stays online and takes nothing new."),
            Self::Cordon { node, on: false } => format!("{node} takes new work again."),
            Self::Drain { node, cancel: false } => {
                format!("{node} takes nothing new and is emptied; the operation goes on when this screen is closed.")
            }
            Self::Drain { node, cancel: true } => format!("The drain of {node} ends, and it takes new work again."),
            Self::Transfer { to } => format!("The master hands over to {to}, which stays pinned as master."),
            Self::Switchover { group, to } => format!(
                "Writes to {group} pause for a fraction of a second, and {to} is primary; if it does not come about, all stays as it is."
            ),
            Self::Reinit { group, node } => {
                format!(
                    "The data of {group} on {node} are replaced by a fresh copy of the primary's; the old ones stay until it streams."
                )
            }
            Self::Pause { group, on: true } => format!("Nothing is done to {group} by itself: no failover, no repair."),
            Self::Pause { group, on: false } => format!("{group} is looked after again."),
        }
    }

    /// What is said once the server has answered.
    pub(crate) fn done(&self, result: &ChangeResult) -> String {
        let title = self.title();
        if !result.operation_id.is_empty() {
            return format!("{title}: operation {} has begun", result.operation_id);
        }
        match (result.changed, result.revision) {
            (false, _) => format!("{title}: unchanged, it was so already"),
            (true, 0) => format!("{title}: done"),
            (true, revision) => format!("{title}: done, revision {revision}"),
        }
    }
}

/// An act whose subject the operator has typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Confirmed(Act);

impl Confirmed {
    /// The act.
    pub(crate) fn act(&self) -> &Act {
        &self.0
    }
}

/// Asks the operator to type the subject of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirmation {
    /// What is asked.
    pub(crate) act: Act,
    /// What was typed so far.
    pub(crate) typed: String,
    /// What was typed is not the subject's name.
    pub(crate) wrong: bool,
}

impl Confirmation {
    /// Asks for `act`.
    pub(crate) fn of(act: Act) -> Self {
        Self {
            act,
            typed: String::new(),
            wrong: false,
        }
    }

    /// The operator says that the name is complete.
    pub(crate) fn enter(&mut self) -> Option<Confirmed> {
        self.wrong = self.typed != self.act.subject();
        (!self.wrong).then(|| Confirmed(self.act.clone()))
    }
}

/// A capital letter and what it asks for.
pub(crate) struct ActKey {
    /// The letter.
    pub(crate) key: char,
    /// For the footer.
    pub(crate) label: &'static str,
    /// For the help.
    pub(crate) help: &'static str,
    /// The act on the row of this name, or why there is none.
    pub(crate) plan: fn(&Cluster, &str) -> Result<Act, String>,
}

/// What can be done to a node.
pub(crate) static NODE_ACTS: &[ActKey] = &[
    ActKey {
        key: 'C',
        label: "cordon",
        help: "cordon the selected node, or uncordon it",
        plan: cordon,
    },
    ActKey {
        key: 'D',
        label: "drain",
        help: "drain the selected node, or end its drain",
        plan: drain,
    },
    ActKey {
        key: 'T',
        label: "transfer",
        help: "transfer the master to the selected node",
        plan: transfer,
    },
];

fn member<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a NodeRow, String> {
    let row = cluster
        .nodes
        .get(name)
        .ok_or_else(|| format!("{name} is no longer in the cluster"))?;
    match row.state() {
        NodeState::Pending => Err(format!("{name} was not added yet: hactl node add {name}")),
        NodeState::Removed => Err(format!("{name} was removed")),
        NodeState::Unspecified
        | NodeState::Online
        | NodeState::Suspect
        | NodeState::Offline
        | NodeState::Cordoned
        | NodeState::Draining => Ok(row),
    }
}

fn cordon(cluster: &Cluster, name: &str) -> Result<Act, String> {
    let row = member(cluster, name)?;
    let (cordoned, draining) = row
        .node
        .spec
        .as_ref()
        .map_or((false, false), |s| (s.cordoned, s.draining));
    if draining || row.state() == NodeState::Draining {
        return Err(format!("{name} is draining: D ends the drain"));
    }
    Ok(Act::Cordon {
        node: name.to_owned(),
        on: !cordoned && row.state() != NodeState::Cordoned,
    })
}

fn drain(cluster: &Cluster, name: &str) -> Result<Act, String> {
    let row = member(cluster, name)?;
    let draining = row.node.spec.as_ref().is_some_and(|s| s.draining) || row.state() == NodeState::Draining;
    Ok(Act::Drain {
        node: name.to_owned(),
        cancel: draining,
    })
}

fn transfer(cluster: &Cluster, name: &str) -> Result<Act, String> {
    let row = member(cluster, name)?;
    if cluster.master.node == name {
        return Err(format!("{name} is the master already"));
    }
    if row.state() != NodeState::Online {
        return Err(format!(
            "{name} is {}: only an online node can become master",
            row.state().word()
        ));
    }
    if row.node.spec.as_ref().is_some_and(|s| !s.master_eligible) {
        return Err(format!("{name} is not eligible: hactl node show {name}"));
    }
    Ok(Act::Transfer { to: name.to_owned() })
}

/// What can be done to an instance of a database group.
pub(crate) static DATABASE_ACTS: &[ActKey] = &[
    ActKey {
        key: 'S',
        label: "switch over",
        help: "switch the database over to the selected instance",
        plan: switchover,
    },
    ActKey {
        key: 'R',
        label: "reinit",
        help: "copy the selected standby afresh",
        plan: reinit,
    },
    ActKey {
        key: 'P',
        label: "pause",
        help: "pause the database group, or resume it",
        plan: pause,
    },
];

/// The group and node of a row of the database view.
fn row<'a>(cluster: &'a Cluster, key: &'a str) -> Result<(&'a GroupRow, &'a str), String> {
    let (group, node) = key.split_once('/').unwrap_or((key, ""));
    let row = cluster
        .groups
        .get(group)
        .ok_or_else(|| format!("the group {group} is not there any more"))?;
    Ok((row, node))
}

fn standby<'a>(cluster: &'a Cluster, key: &'a str) -> Result<(&'a GroupRow, &'a str), String> {
    let (row, node) = row(cluster, key)?;
    let group = &row.group.name;
    if row.instance(node).is_none() {
        return Err(format!("{node} has no instance of {group} any more"));
    }
    if row.primary() == node {
        return Err(format!("{node} is the primary of {group}"));
    }
    Ok((row, node))
}

fn switchover(cluster: &Cluster, key: &str) -> Result<Act, String> {
    let (row, node) = standby(cluster, key)?;
    if row.primary().is_empty() {
        return Err(format!("{} has no primary: hactl db failover", row.group.name));
    }
    if let Some(why) = row.instance(node).and_then(|i| i.not_eligible.first()) {
        return Err(format!("{node} cannot become primary: {why}"));
    }
    Ok(Act::Switchover {
        group: row.group.name.clone(),
        to: node.to_owned(),
    })
}

fn reinit(cluster: &Cluster, key: &str) -> Result<Act, String> {
    let (row, node) = standby(cluster, key)?;
    Ok(Act::Reinit {
        group: row.group.name.clone(),
        node: node.to_owned(),
    })
}

fn pause(cluster: &Cluster, key: &str) -> Result<Act, String> {
    let (row, _) = row(cluster, key)?;
    Ok(Act::Pause {
        group: row.group.name.clone(),
        on: !row.paused(),
    })
}
