//! The first primary: created where nothing is, or adopted where something is (protocol, "First primary, adoption").

use super::Draft;
use super::view::View;
use crate::database::durability::need;
use crate::database::lineage::Fit;
use crate::database::local::{Directory, Report};
use crate::database::observed::Decision;
use crate::database::record::{FailoverRecord, How, InstanceState, Nodes, Phase, Promotion};
use crate::database::spec::{Durability, RoleWanted};
use crate::model::Severity;

/// What is decided while a group never had a primary.
pub(super) fn decide(view: &View<'_>) -> Decision {
    let hold = |reasons: Vec<String>| Decision {
        reasons,
        ..Decision::default()
    };
    if view.record.system_id.is_some() {
        return hold(vec![
            "the record has a system id and no primary: it is damaged, and nothing is made anew".to_owned(),
        ]);
    }
    let listed: Vec<&String> = view
        .spec
        .nodes
        .keys()
        .filter(|n| view.spec.role(n) != RoleWanted::None)
        .collect();
    if listed.is_empty() {
        return hold(vec![
            "the group has no nodes: hactl db assign NODE --role sync".to_owned(),
        ]);
    }
    let silent: Vec<_> = listed
        .iter()
        .filter(|n| view.recent(n).is_none())
        .map(|n| n.as_str())
        .collect();
    if !silent.is_empty() {
        let list = silent.join(", ");
        return hold(vec![format!(
            "the first primary waits until every node has shown its directory: {list} has not"
        )]);
    }
    let filled: Vec<&Report> = listed
        .iter()
        .filter_map(|n| view.recent(n))
        .filter(|r| present(r).is_some())
        .collect();
    let wanted = view.spec.preferred();
    match filled.as_slice() {
        [] => {
            let best = listed
                .iter()
                .filter(|n| view.spec.role(n) != RoleWanted::Async)
                .max_by_key(|n| {
                    let load = u32::MAX - view.load(n);
                    (
                        wanted == Some(n.as_str()),
                        view.spec.priority(n),
                        load,
                        std::cmp::Reverse((**n).clone()),
                    )
                });
            match best {
                Some(best) => first(view, best, How::Create, None).decision(),
                None => hold(vec!["every node's role is to follow only".to_owned()]),
            }
        }
        [one] => first(view, &one.node, How::Adopt, Some(one)).decision(),
        several => match adopted(several, wanted) {
            Some(one) => first(view, &one.node, How::Adopt, Some(one)).decision(),
            None => {
                let list = several.iter().map(|r| r.node.as_str()).collect::<Vec<_>>().join(", ");
                hold(vec![format!(
                    "{list} have data, and none descends from all the others: hactl db assign NODE --role primary decides"
                )])
            }
        },
    }
}

fn present(report: &Report) -> Option<u64> {
    match report.directory {
        Directory::Present { system_id } => Some(system_id),
        Directory::Empty | Directory::Incomplete => None,
    }
}

/// Of several directories the one that is to be the group's: the one an operator named, or the one that strictly descends
/// from all the others. Before adoption no epochs are known; timelines are compared as PostgreSQL's history files have them.
fn adopted<'a>(several: &[&'a Report], wanted: Option<&str>) -> Option<&'a Report> {
    if let Some(named) = several.iter().find(|r| Some(r.node.as_str()) == wanted) {
        return Some(named);
    }
    let descends = |a: &Report, b: &Report| {
        let (Some(end_a), Some(end_b)) = (a.log, b.log) else {
            return false;
        };
        let fits = a.history.fit(&b.history, end_b.lsn, Some(end_a.lsn)) == Fit::On;
        present(a) == present(b) && fits && (a.history.0.len(), end_a.lsn) > (b.history.0.len(), end_b.lsn)
    };
    let over_all = |a: &&&Report| several.iter().all(|b| a.node == b.node || descends(a, b));
    several.iter().find(over_all).copied()
}

fn first(view: &View<'_>, node: &str, how: How, report: Option<&Report>) -> Draft {
    let mut next = view.record.clone();
    let now_ms = view.observed.now_ms;
    next.epoch += 1;
    next.phase = Phase::Bootstrapping;
    next.primary = Some(node.to_owned());
    for listed in view.spec.nodes.keys().filter(|n| view.spec.role(n) != RoleWanted::None) {
        let instance = InstanceState {
            since_ms: now_ms,
            ..InstanceState::default()
        };
        next.instances.entry(listed.clone()).or_insert(instance);
    }
    // Only `quorum-strict` makes the first primary wait for its first standby.
    let may_vote = |n: &&String| n.as_str() != node && view.spec.role(n) == RoleWanted::Sync;
    let strict = view.spec.durability == Durability::QuorumStrict;
    let voters: Nodes = next
        .instances
        .keys()
        .filter(may_vote)
        .filter(|_| strict)
        .cloned()
        .collect();
    let asked = need(voters.len(), view.spec.durability);
    next.append_rule(voters, asked, Nodes::from([node.to_owned()]));
    next.promotion = Some(Promotion {
        how,
        node: node.to_owned(),
        epoch: next.epoch,
        lineage: report.map(|r| r.history.clone()).unwrap_or_default(),
        end: report.and_then(|r| r.log).unwrap_or_default(),
        rule: None,
        after_stop: None,
    });
    next.last = Some(FailoverRecord {
        kind: "first primary".to_owned(),
        to: Some(node.to_owned()),
        epoch: next.epoch,
        started_ms: now_ms,
        cause: "the group is new".to_owned(),
        ..FailoverRecord::default()
    });
    let text = if how == How::Create {
        format!("{node} becomes the first primary; every directory is empty")
    } else {
        format!("{node} becomes the first primary with the data it has")
    };
    Draft::new(next, &text).event("db.bootstrap", Severity::Info, text)
}
