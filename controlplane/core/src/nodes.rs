//! Changes to nodes' specifications: what is allowed, and what becomes of the record. Applying what is already so
//! yields [`Outcome::Unchanged`].

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{NodeRecord, NodeSpec, Presence, Resources, valid_address, valid_label, valid_node_name};
use crate::refusal::Refusal;

/// The record a request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is so already.
    Unchanged,
    /// The new record, and what was changed, one phrase each.
    Changed {
        /// The record to store.
        record: Box<NodeRecord>,
        /// For instance `cordoned`.
        what: Vec<String>,
    },
}

/// A partial change of a node's specification; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// gRPC endpoint.
    pub address: Option<String>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to remove.
    pub remove_labels: Vec<String>,
    /// Scenarios, all of them.
    pub scenarios: Option<BTreeSet<String>>,
    /// Capacity override; all zero clears it.
    pub capacity: Option<Resources>,
    /// May be master.
    pub eligible: Option<bool>,
    /// Preference for mastership.
    pub preference: Option<i32>,
    /// Takes nothing new.
    pub cordoned: Option<bool>,
    /// Is being emptied.
    pub draining: Option<bool>,
}

type Nodes<'a> = BTreeMap<&'a str, &'a NodeRecord>;

fn bad_value(message: impl Into<String>) -> Refusal {
    Refusal::new("HA0009", message)
}

/// Refusal for a name nobody added.
pub fn unknown(name: &str) -> Refusal {
    Refusal::new("HA0302", format!("there is no node {name}")).next("hactl node list")
}

fn live<'a>(nodes: &Nodes<'a>, name: &str) -> Result<&'a NodeRecord, Refusal> {
    nodes
        .get(name)
        .filter(|r| !r.removed)
        .copied()
        .ok_or_else(|| unknown(name))
}

fn check_spec(name: &str, spec: &NodeSpec, nodes: &Nodes<'_>) -> Result<(), Refusal> {
    valid_address(&spec.address).map_err(|e| bad_value(format!("address {:?}: {e}", spec.address)))?;
    if spec.labels.len() > 64 || spec.scenarios.len() > 64 {
        return Err(bad_value("a node has at most 64 labels and 64 scenarios"));
    }
    for text in spec.labels.keys().chain(spec.labels.values()).chain(&spec.scenarios) {
        valid_label(text).map_err(|e| bad_value(format!("{text:?}: {e}")))?;
    }
    if let Some((other, _)) = nodes
        .iter()
        .find(|(n, r)| **n != name && !r.removed && r.spec.address == spec.address)
    {
        return Err(
            Refusal::new("HA0308", format!("{} is the address of {other}", spec.address))
                .next(format!("hactl node show {other}")),
        );
    }
    Ok(())
}

/// Adds a node, or takes one back that was removed.
///
/// # Errors
/// A [`Refusal`] if it is there already or its specification is wrong.
pub fn add(nodes: &Nodes<'_>, name: &str, spec: NodeSpec, now_ms: i64) -> Result<Outcome, Refusal> {
    valid_node_name(name).map_err(|e| {
        Refusal::new("HA0007", format!("node name {name:?}: {e}"))
            .next("hactl node add NAME --addr HOST    a shorter name")
    })?;
    if nodes.get(name).is_some_and(|r| !r.removed) {
        return Err(Refusal::new("HA0301", format!("node {name} was added already"))
            .next(format!("hactl node show {name}"))
            .next(format!("hactl node renew {name}       for a new certificate")));
    }
    check_spec(name, &spec, nodes)?;
    let what = vec![format!("added at {}", spec.address)];
    Ok(Outcome::Changed {
        record: Box::new(NodeRecord {
            spec,
            removed: false,
            added_ms: now_ms,
        }),
        what,
    })
}

/// Removes a node that is gone. `leaving` is the node's own word that it goes.
///
/// # Errors
/// A [`Refusal`] if it is unknown, still there, or the last that may be master.
pub fn remove(nodes: &Nodes<'_>, name: &str, presence: Presence, leaving: bool) -> Result<Outcome, Refusal> {
    let record = match nodes.get(name) {
        Some(r) if r.removed => return Ok(Outcome::Unchanged),
        Some(r) => *r,
        None => return Err(unknown(name)),
    };
    if !leaving && matches!(presence, Presence::Online | Presence::Suspect) {
        return Err(Refusal::new(
            "HA0303",
            format!("node {name} cannot be removed: its daemon is running"),
        )
        .why("it would go on without a place in the cluster")
        .next(format!("had leave        on {name}: it leaves in order and is removed")));
    }
    keep_one_eligible(nodes, name)?;
    Ok(Outcome::Changed {
        record: Box::new(NodeRecord {
            removed: true,
            ..record.clone()
        }),
        what: vec![if leaving { "left" } else { "removed" }.to_owned()],
    })
}

fn keep_one_eligible(nodes: &Nodes<'_>, without: &str) -> Result<(), Refusal> {
    if nodes
        .iter()
        .any(|(n, r)| *n != without && !r.removed && r.spec.master_eligible)
    {
        return Ok(());
    }
    Err(Refusal::new(
        "HA0310",
        format!("without {without} no node of the cluster may be master"),
    )
    .next("hactl node set NODE --eligible true"))
}

/// Changes a node's specification.
///
/// # Errors
/// A [`Refusal`] if the node is unknown or the result would be wrong.
pub fn update(nodes: &Nodes<'_>, name: &str, patch: &Patch) -> Result<Outcome, Refusal> {
    let before = live(nodes, name)?;
    let mut spec = before.spec.clone();
    if let Some(address) = &patch.address {
        spec.address.clone_from(address);
    }
    spec.labels.extend(patch.set_labels.clone());
    for key in &patch.remove_labels {
        spec.labels.remove(key);
    }
    if let Some(s) = &patch.scenarios {
        spec.scenarios.clone_from(s);
    }
    spec.capacity_override = patch.capacity.unwrap_or(spec.capacity_override);
    spec.master_eligible = patch.eligible.unwrap_or(spec.master_eligible);
    spec.master_preference = patch.preference.unwrap_or(spec.master_preference);
    spec.cordoned = patch.cordoned.unwrap_or(spec.cordoned);
    spec.draining = patch.draining.unwrap_or(spec.draining);
    if spec == before.spec {
        return Ok(Outcome::Unchanged);
    }
    check_spec(name, &spec, nodes)?;
    if before.spec.master_eligible && !spec.master_eligible {
        keep_one_eligible(nodes, name)?;
    }
    let what = differences(&before.spec, &spec);
    Ok(Outcome::Changed {
        record: Box::new(NodeRecord { spec, ..before.clone() }),
        what,
    })
}

/// What differs, one phrase each.
fn differences(a: &NodeSpec, b: &NodeSpec) -> Vec<String> {
    let mut what = Vec::new();
    if a.cordoned != b.cordoned {
        what.push(if b.cordoned { "cordoned" } else { "uncordoned" }.to_owned());
    }
    if a.draining != b.draining {
        what.push(if b.draining { "draining" } else { "draining ended" }.to_owned());
    }
    if a.address != b.address {
        what.push(format!("address {} -> {}", a.address, b.address));
    }
    for (k, v) in &b.labels {
        if a.labels.get(k) != Some(v) {
            what.push(format!("label {k}={v}"));
        }
    }
    what.extend(
        a.labels
            .keys()
            .filter(|k| !b.labels.contains_key(*k))
            .map(|k| format!("label {k} removed")),
    );
    if a.scenarios != b.scenarios {
        let list: Vec<&str> = b.scenarios.iter().map(String::as_str).collect();
        what.push(format!(
            "scenarios {}",
            if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(",")
            }
        ));
    }
    if a.capacity_override != b.capacity_override {
        what.push("capacity override".to_owned());
    }
    if a.master_eligible != b.master_eligible {
        what.push(
            if b.master_eligible {
                "may be master"
            } else {
                "may not be master"
            }
            .to_owned(),
        );
    }
    if a.master_preference != b.master_preference {
        what.push(format!("master preference {}", b.master_preference));
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(address: &str) -> NodeSpec {
        NodeSpec {
            address: address.into(),
            labels: BTreeMap::new(),
            scenarios: BTreeSet::new(),
            capacity_override: Resources::default(),
            master_eligible: true,
            master_preference: 0,
            cordoned: false,
            draining: false,
        }
    }

    fn record(address: &str) -> NodeRecord {
        NodeRecord {
            spec: spec(address),
            removed: false,
            added_ms: 1,
        }
    }

    fn code(r: Result<Outcome, Refusal>) -> &'static str {
        r.unwrap_err().code
    }

    #[test]
    fn adding() {
        let (a, gone) = (
            record("a:1"),
            NodeRecord {
                removed: true,
                ..record("b:1")
            },
        );
        let nodes = Nodes::from([("n1", &a), ("n2", &gone)]);
        assert_eq!(code(add(&nodes, "n1", spec("c:1"), 2)), "HA0301");
        assert_eq!(code(add(&nodes, "N 3", spec("c:1"), 2)), "HA0007");
        assert_eq!(code(add(&nodes, &"n".repeat(51), spec("c:1"), 2)), "HA0007");
        assert_eq!(code(add(&nodes, "n3", spec("a:1"), 2)), "HA0308");
        assert_eq!(code(add(&nodes, "n3", spec("a"), 2)), "HA0009");
        assert!(matches!(add(&nodes, "n2", spec("b:1"), 2), Ok(Outcome::Changed { record, .. }) if !record.removed));
        assert!(matches!(add(&nodes, "n3", spec("b:1"), 2), Ok(Outcome::Changed { .. })));
    }

    #[test]
    fn removing() {
        let (a, b) = (record("a:1"), record("b:1"));
        let nodes = Nodes::from([("n1", &a), ("n2", &b)]);
        assert_eq!(code(remove(&nodes, "n9", Presence::Offline, false)), "HA0302");
        assert_eq!(code(remove(&nodes, "n1", Presence::Online, false)), "HA0303");
        assert_eq!(code(remove(&nodes, "n1", Presence::Suspect, false)), "HA0303");
        assert!(matches!(
            remove(&nodes, "n1", Presence::Offline, false),
            Ok(Outcome::Changed { .. })
        ));
        assert!(matches!(
            remove(&nodes, "n1", Presence::Online, true),
            Ok(Outcome::Changed { .. })
        ));
        let alone = Nodes::from([("n1", &a)]);
        assert_eq!(code(remove(&alone, "n1", Presence::Offline, false)), "HA0310");
    }

    #[test]
    fn updating() {
        let a = record("a:1");
        let nodes = Nodes::from([("n1", &a)]);
        assert_eq!(update(&nodes, "n1", &Patch::default()), Ok(Outcome::Unchanged));
        assert_eq!(
            update(
                &nodes,
                "n1",
                &Patch {
                    cordoned: Some(false),
                    ..Patch::default()
                }
            ),
            Ok(Outcome::Unchanged)
        );
        let patch = Patch {
            cordoned: Some(true),
            set_labels: BTreeMap::from([("zone".into(), "a".into())]),
            ..Patch::default()
        };
        let Ok(Outcome::Changed { record, what }) = update(&nodes, "n1", &patch) else {
            panic!("changed")
        };
        assert!(record.spec.cordoned);
        assert_eq!(what, ["cordoned", "label zone=a"]);
        assert_eq!(
            code(update(
                &nodes,
                "n1",
                &Patch {
                    eligible: Some(false),
                    ..Patch::default()
                }
            )),
            "HA0310"
        );
        let bad = Patch {
            set_labels: BTreeMap::from([("a b".into(), "x".into())]),
            ..Patch::default()
        };
        assert_eq!(code(update(&nodes, "n1", &bad)), "HA0009");
    }
}
