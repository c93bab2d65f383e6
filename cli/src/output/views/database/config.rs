//! A group's configuration: what is wanted, what PostgreSQL has in force, and where the two differ.

use std::collections::BTreeMap;

use ha_proto::v1::{GroupConfig, ParameterStatus};
use serde::Serialize;

use super::spec::Spec;
use crate::output::table::{Cell, Tone};
use crate::output::{Column, View, col, wide};

/// A configuration, as a document.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigView {
    name: String,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    revision: u64,
    parameters: Vec<ParameterView>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ParameterView {
    name: String,
    value: String,
    unit: String,
    source: String,
    needs_restart: bool,
    pending_on: Vec<String>,
    default: String,
}

impl From<&ParameterStatus> for ParameterView {
    fn from(p: &ParameterStatus) -> Self {
        Self {
            name: p.name.clone(),
            value: p.value.clone(),
            unit: p.unit.clone(),
            source: p.source.clone(),
            needs_restart: p.needs_restart,
            pending_on: p.pending_on.clone(),
            default: p.boot_value.clone(),
        }
    }
}

impl From<&GroupConfig> for ConfigView {
    fn from(config: &GroupConfig) -> Self {
        Self {
            name: config.group.clone(),
            spec: Spec::from(&config.spec.clone().unwrap_or_default()),
            status: Status {
                revision: config.revision,
                parameters: config.parameters.iter().map(ParameterView::from).collect(),
            },
        }
    }
}

/// One setting: a field of the specification, or a parameter of PostgreSQL.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingView {
    name: String,
    wanted: Option<String>,
    in_force: Option<String>,
    note: String,
    source: String,
    #[serde(skip)]
    pending: bool,
}

/// Every setting: the fields of the specification, then the parameters that are in force. With `only`, those whose name
/// is one of them or lies below one.
pub fn settings(config: &GroupConfig, all: bool, only: &[String]) -> Vec<SettingView> {
    let spec = Spec::from(&config.spec.clone().unwrap_or_default());
    let wanted = leaves(&spec);
    let mut settings: Vec<SettingView> = wanted
        .iter()
        .filter(|(name, _)| !name.starts_with("parameters."))
        .map(|(name, value)| SettingView {
            name: name.clone(),
            wanted: Some(value.clone()),
            in_force: None,
            note: String::new(),
            source: "spec".into(),
            pending: false,
        })
        .collect();
    let mut parameters: BTreeMap<&str, Option<&ParameterStatus>> =
        spec.parameters.keys().map(|name| (name.as_str(), None)).collect();
    for p in &config.parameters {
        if all || p.source == "spec" || !p.pending_on.is_empty() || parameters.contains_key(p.name.as_str()) {
            parameters.insert(&p.name, Some(p));
        }
    }
    settings.extend(parameters.into_iter().map(|(name, status)| {
        let pending = status.is_some_and(|p| !p.pending_on.is_empty());
        let note = match status {
            Some(p) if pending => format!("waits for a restart of {}", p.pending_on.join(", ")),
            Some(p) if p.needs_restart => "a change waits for a restart".to_owned(),
            _ => String::new(),
        };
        SettingView {
            name: format!("parameters.{name}"),
            wanted: spec.parameters.get(name).cloned(),
            in_force: status.map(|p| format!("{}{}", p.value, p.unit)),
            note,
            source: status.map_or_else(|| "spec".to_owned(), |p| p.source.clone()),
            pending,
        }
    }));
    if !only.is_empty() {
        let meant = |name: &str| {
            only.iter().any(|only| {
                name == only
                    || name.strip_prefix("parameters.") == Some(only)
                    || name
                        .strip_prefix(only.as_str())
                        .is_some_and(|rest| rest.starts_with(['.', '[']))
            })
        };
        settings.retain(|s| meant(&s.name));
    }
    settings
}

/// Every value of a specification under its dotted path, in the order in which they are written.
pub fn leaves(spec: &Spec) -> Vec<(String, String)> {
    fn walk(value: &serde_json::Value, path: String, found: &mut Vec<(String, String)>) {
        let below = |key: &str| {
            if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            }
        };
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    walk(value, below(key), found);
                }
            }
            // What has a name is known by it, so that a list that grows shows what came.
            serde_json::Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    let name = ["name", "node"].into_iter().find_map(|key| item.get(key)?.as_str());
                    match (name, item) {
                        (Some(name), serde_json::Value::Object(fields)) => {
                            for (key, value) in fields.iter().filter(|(k, _)| *k != "name" && *k != "node") {
                                walk(value, format!("{path}[{name}].{key}"), found);
                            }
                        }
                        _ => walk(item, format!("{path}[{at}]"), found),
                    }
                }
            }
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => found.push((path, text.clone())),
            other => found.push((path, other.to_string())),
        }
    }
    let mut found = Vec::new();
    walk(
        &serde_json::to_value(spec).unwrap_or_default(),
        String::new(),
        &mut found,
    );
    found
}

/// What differs between two specifications: a line each, `- limits.flapCount: 3` and `+ limits.flapCount: 5`.
pub fn differences(before: &Spec, after: &Spec) -> Vec<String> {
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (
        leaves(before).into_iter().collect(),
        leaves(after).into_iter().collect(),
    );
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut lines = Vec::new();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was != is {
            lines.extend(was.map(|value| format!("- {name}: {value}")));
            lines.extend(is.map(|value| format!("+ {name}: {value}")));
        }
    }
    lines
}

impl View for SettingView {
    const KIND: &'static str = "setting";
    const COLUMNS: &'static [Column] = &[
        col("SETTING"),
        col("WANTED"),
        col("IN FORCE"),
        wide("SOURCE"),
        col("NOTE"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: i64) -> Vec<Cell> {
        let differs = self.in_force.is_some() && self.wanted.is_some() && self.pending;
        vec![
            Cell::new(&self.name),
            Cell::new(self.wanted.clone().unwrap_or_default()),
            Cell::new(self.in_force.clone().unwrap_or_default()).tone(if differs {
                Tone::Warning
            } else {
                Tone::Plain
            }),
            Cell::new(&self.source),
            Cell::new(&self.note).tone(if self.pending { Tone::Warning } else { Tone::Plain }),
        ]
    }
}

impl SettingView {
    /// Whether it waits for a restart somewhere.
    pub fn pending(&self) -> bool {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::views::database::spec::Database;

    #[test]
    fn differences_are_told_by_name() {
        let before = Spec::default();
        let mut after = before.clone();
        after.instances = 3;
        after.parameters.insert("work_mem".into(), "64MB".into());
        after.databases.push(Database {
            name: "app".into(),
            owner: "app".into(),
            extensions: Vec::new(),
        });
        assert_eq!(
            differences(&before, &after),
            [
                "+ databases[app].owner: app",
                "- instances: 0",
                "+ instances: 3",
                "+ parameters.work_mem: 64MB"
            ]
        );
        assert!(differences(&after, &after).is_empty());
    }
}
