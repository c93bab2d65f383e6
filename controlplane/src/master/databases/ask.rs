//! Questions that only the master can answer: history, explanations, what is configured, what a failover would lose.

use std::collections::BTreeMap;

use ha_core::database::{GroupSpec, GroupState, Phase, durability, group};
use ha_proto::v1;
use tokio::sync::oneshot;

use super::super::Master;
use super::super::requests::Failed;
use super::{show, spec, wire};
use crate::error::ApiError;
use crate::postgres::conf::parameters;

/// Entries of a history where the request names no number.
const ENTRIES: usize = 20;

type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// A question about a group.
#[derive(Debug)]
pub enum Question {
    /// Its changes of primary.
    History(v1::HistoryRequest, Reply<v1::HistoryResponse>),
    /// Why it is as it is.
    Explain(v1::ExplainRequest, Reply<v1::Explanation>),
    /// What is configured.
    Config(v1::GetConfigRequest, Reply<v1::GroupConfig>),
    /// What a failover would lose at most.
    Loss {
        /// The group.
        group: String,
        /// The successor; empty: the best.
        to: String,
        /// None: nothing that was acknowledged.
        reply: Reply<Option<v1::LossEstimate>>,
    },
}

fn refused<T>(answer: Result<T, Failed>) -> Result<T, ApiError> {
    answer.map_err(|e| match e {
        Failed::Refused(e) => e,
        Failed::Fatal(e) => ApiError::new(&ha_proto::codes::INTERNAL, e.to_string()),
    })
}

/// Parameters of one server beyond these are dropped.
const MAX_SETTINGS: usize = 2000;

/// Who set a parameter, by what PostgreSQL says of where its value is from.
fn source(parameter: &str, told: &str, spec: &GroupSpec) -> &'static str {
    let named = |n: &String| n.eq_ignore_ascii_case(parameter);
    match told {
        "alter system" => "alter system",
        _ if spec.parameters.keys().any(named) => "spec",
        "configuration file" | "command line" => "had",
        "" if parameters::reserved(parameter).is_some() => "had",
        _ => "default",
    }
}

fn in_force_of(s: &v1::Setting, spec: &GroupSpec) -> v1::ParameterStatus {
    v1::ParameterStatus {
        name: wire::line(&s.name),
        value: wire::line(&s.value),
        source: source(&s.name, &s.source, spec).to_owned(),
        needs_restart: s.restart,
        boot_value: wire::line(&s.boot_value),
        ..v1::ParameterStatus::default()
    }
}

impl Master<'_> {
    /// Answers. Whoever asked may be gone: then the answer is dropped.
    pub(in crate::master) fn answer(&self, question: Question) {
        match question {
            Question::History(r, reply) => drop(reply.send(refused(self.history(&r)))),
            Question::Explain(r, reply) => drop(reply.send(refused(self.explain(&r)))),
            Question::Config(r, reply) => drop(reply.send(refused(self.config(&r)))),
            Question::Loss { group, to, reply } => drop(reply.send(refused(self.loss(&group, &to)))),
        }
    }

    fn history(&self, r: &v1::HistoryRequest) -> Result<v1::HistoryResponse, Failed> {
        let name = self.group_named(&r.group)?;
        let (_, record) = self.group_parts(&name)?;
        let stored = self.store.groups.get(&name);
        let kept = stored
            .and_then(|g| g.history.envelope.value.as_deref())
            .unwrap_or_default();
        let mut entries: Vec<v1::HistoryEntry> = kept.iter().map(show::past_view).collect();
        entries.extend(show::under_way(&record));
        if r.epoch != 0 {
            entries.retain(|e| e.epoch == r.epoch);
        }
        let limit = if r.limit == 0 { ENTRIES } else { r.limit as usize };
        let surplus = entries.len().saturating_sub(limit);
        entries.drain(..surplus);
        Ok(v1::HistoryResponse {
            revision: self.group_revision(&name),
            group: name,
            entries,
            cluster: self.p.shared.me.cluster.clone(),
        })
    }

    fn explain(&self, r: &v1::ExplainRequest) -> Result<v1::Explanation, Failed> {
        let name = self.group_named(&r.group)?;
        let (spec, record) = self.group_parts(&name)?;
        let observed = self.observed(&name, &spec, &record);
        let known = self.databases.groups.get(&name);
        let memory = known.map_or_else(Default::default, |g| g.memory.clone());
        let lines = group::explain(&spec, &record, &observed, &memory, &self.timing());
        let of = |node: &str| {
            let prefix = format!("{node}: ");
            let lines = lines.iter().filter_map(|l| l.strip_prefix(&prefix));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let view = self.group_view(&name);
        let shown = view.iter().flat_map(|g| &g.instances);
        let wanted = shown.filter(|i| r.node.is_empty() || i.node == r.node);
        let instances: Vec<v1::InstanceExplanation> = wanted
            .map(|i| {
                let mut lines = of(&i.node);
                lines.extend(i.not_eligible.iter().map(|w| format!("could not be primary: {w}")));
                if !i.held_because.is_empty() {
                    lines.push(format!("held down: {}", i.held_because));
                }
                v1::InstanceExplanation {
                    node: i.node.clone(),
                    eligible: i.not_eligible.is_empty(),
                    lines,
                }
            })
            .collect();
        if !r.node.is_empty() && instances.is_empty() {
            let refusal =
                ha_core::refusal::Refusal::new("HA0403", format!("{} has no instance of group {name}", r.node));
            return Err(refusal.next("hactl db status").into());
        }
        let nodes: Vec<String> = record.instances.keys().map(|n| format!("{n}: ")).collect();
        let general: Vec<String> = lines
            .iter()
            .filter(|l| !nodes.iter().any(|n| l.starts_with(n.as_str())))
            .cloned()
            .collect();
        Ok(v1::Explanation {
            verdict: verdict(&record, &general, view.as_ref()),
            lines: general,
            instances,
            cluster: self.p.shared.me.cluster.clone(),
            revision: self.group_revision(&name),
            observed_unix_ms: self.wall_ms(),
            group: name,
        })
    }

    fn config(&self, r: &v1::GetConfigRequest) -> Result<v1::GroupConfig, Failed> {
        let name = self.group_named(&r.group)?;
        let (spec, record) = self.group_parts(&name)?;
        let known = self.databases.groups.get(&name);
        let primary = record.primary.as_ref();
        let in_force = known.and_then(|g| g.settings.get(primary?)).into_iter().flatten();
        let mut all: BTreeMap<String, v1::ParameterStatus> = in_force
            .take(MAX_SETTINGS)
            .map(|s| (s.name.clone(), in_force_of(s, &spec)))
            .collect();
        // What no server has told of yet.
        for (parameter, value) in &spec.parameters {
            all.entry(parameter.to_ascii_lowercase())
                .or_insert_with(|| v1::ParameterStatus {
                    name: parameter.clone(),
                    value: value.clone(),
                    source: "spec".to_owned(),
                    ..v1::ParameterStatus::default()
                });
        }
        for (node, i) in known.into_iter().flat_map(|g| &g.instances) {
            for p in i.wire.pending_restart.iter().take(100) {
                let status = all.entry(p.parameter.clone()).or_insert_with(|| v1::ParameterStatus {
                    name: p.parameter.clone(),
                    value: p.current.clone(),
                    source: source(&p.parameter, "", &spec).to_owned(),
                    ..v1::ParameterStatus::default()
                });
                status.needs_restart = true;
                status.pending_on.push(node.clone());
            }
        }
        Ok(v1::GroupConfig {
            spec: Some(spec::show(&spec)),
            revision: self.group_revision(&name),
            parameters: all.into_values().collect(),
            cluster: self.p.shared.me.cluster.clone(),
            group: name,
        })
    }

    /// What a failover now would lose at most, as far as it can be known.
    fn loss(&self, group: &str, to: &str) -> Result<Option<v1::LossEstimate>, Failed> {
        let name = self.group_named(group)?;
        let (spec, record) = self.group_parts(&name)?;
        let known = self.databases.groups.get(&name);
        let memory = known.map(|g| &g.memory);
        let instances = known.map(|g| &g.instances);
        let reach = |node: &&String| self.members.get(*node).is_some_and(|m| m.stream.is_some());
        let answering = record.instances.keys().filter(reach).cloned().collect();
        let open = durability::uncovered(&record.rules, &answering, spec.durability);
        let alone = durability::asks_nobody(&record);
        if open.is_empty() && !alone {
            return Ok(None);
        }
        let position = |node: &String| {
            let report = &instances?.get(node)?.report;
            report.log.map(|l| l.lsn)
        };
        let primary = record.primary.as_ref().or(record.former.as_ref());
        let end = memory.and_then(|m| m.last_primary_log).max(primary.and_then(position));
        let others = record.instances.keys().filter(|n| Some(*n) != primary && reach(n));
        let best = match to {
            "" => others.filter_map(position).max(),
            named => position(&named.to_owned()),
        };
        let mut lines: Vec<String> = open
            .iter()
            .map(|r| format!("not covered: needs {}", durability::missing(r, &answering)))
            .collect();
        if alone {
            lines.push("commits were acknowledged by the primary alone".to_owned());
        }
        let bytes = end.zip(best).map(|(end, best)| end.past(best));
        match (end, best) {
            (Some(end), Some(best)) => {
                lines.push(format!(
                    "the primary's log was last seen at {end}, the successor's ends at {best}"
                ));
                lines.push("what was written after the primary was last seen comes on top".to_owned());
            }
            _ => lines.push("where the primary's log ended is not known to this master".to_owned()),
        }
        let seen = primary.and_then(|p| instances?.get(p)).map_or(0, |i| i.at_ms);
        Ok(Some(v1::LossEstimate {
            bytes,
            since_unix_ms: seen,
            lines,
        }))
    }
}

fn verdict(record: &GroupState, reasons: &[String], view: Option<&v1::Group>) -> String {
    let healthy = view.is_some_and(|g| g.health() == v1::GroupHealth::Healthy);
    match (&record.primary, reasons.first()) {
        (Some(p), _) if healthy => format!("{p} is primary and nothing is wrong"),
        (_, Some(first)) => first.clone(),
        (Some(p), None) if record.phase == Phase::Steady => {
            let problem = view.and_then(|g| g.problems.first());
            problem.map_or_else(|| format!("{p} is primary"), |w| format!("{p} is primary; {w}"))
        }
        (_, None) => record.reason.clone(),
    }
}
