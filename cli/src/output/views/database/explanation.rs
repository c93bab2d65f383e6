//! Why a group is as it is.

use std::fmt::Write as _;

use ha_proto::v1::Explanation;
use serde::Serialize;

use crate::output::table::{Tone, clean};

/// An explanation, as a document.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplanationView {
    name: String,
    status: Status,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    verdict: String,
    lines: Vec<String>,
    instances: Vec<InstanceView>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct InstanceView {
    node: String,
    eligible: bool,
    lines: Vec<String>,
}

impl From<&Explanation> for ExplanationView {
    fn from(e: &Explanation) -> Self {
        let instance = |i: &ha_proto::v1::InstanceExplanation| InstanceView {
            node: i.node.clone(),
            eligible: i.eligible,
            lines: i.lines.clone(),
        };
        Self {
            name: e.group.clone(),
            status: Status {
                verdict: e.verdict.clone(),
                lines: e.lines.clone(),
                instances: e.instances.iter().map(instance).collect(),
            },
        }
    }
}

/// The explanation for people.
pub fn report(e: &Explanation, colour: bool) -> String {
    let mut text = format!("group {}: {}\n", clean(&e.group), clean(&e.verdict));
    for line in &e.lines {
        let _ = writeln!(text, "  {}", clean(line));
    }
    let width = e.instances.iter().map(|i| i.node.chars().count()).max().unwrap_or(0);
    if !e.instances.is_empty() {
        text.push('\n');
    }
    for i in &e.instances {
        let word = if i.eligible {
            Tone::Good.paint("could be primary", colour)
        } else {
            Tone::Warning.paint("could not be primary", colour)
        };
        let _ = writeln!(text, "{:width$}  {word}", clean(&i.node));
        for line in &i.lines {
            let _ = writeln!(text, "{:width$}    {}", "", clean(line));
        }
    }
    text
}
