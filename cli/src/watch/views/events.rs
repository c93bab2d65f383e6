//! Events: the numbered change log, the newest first; from 120 columns on beside the selected change.

use std::collections::BTreeMap;

use ha_proto::v1::Change;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};
use serde_json::Value;

use super::{Detail, View, nodes::list_note};
use crate::watch::{
    act::ActKey,
    cluster::Cluster,
    render::{
        Cx, SPLIT,
        canvas::{field, pane, put, scrolled, span},
        empty, line,
        table::{Column, table},
    },
    state::List,
    text,
    theme::Tone,
};

/// The view.
pub(super) struct Events;

static SORTS: &[&str] = &["newest", "severity", "kind", "subject"];

static COLUMNS: &[Column] = &[
    Column::new("TIME", 8, 12, 0),
    Column::new("SEVERITY", 9, 9, 2),
    Column::new("EVENT", 20, 200, 0).good(50),
    Column::new("KIND", 8, 24, 5).good(16),
    Column::new("ACTOR", 6, 20, 6),
    Column::new("SEQ", 3, 10, 7).right(),
];

impl View for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn title(&self) -> &'static str {
        "Events"
    }

    fn sorts(&self) -> &'static [&'static str] {
        SORTS
    }

    fn rows(&self, cluster: &Cluster, list: &List) -> Vec<String> {
        let mut rows: Vec<&Change> = cluster
            .changes
            .values()
            .rev()
            .filter(|c| list.accepts(&searched(c)))
            .collect();
        match SORTS.get(list.sort).copied() {
            Some("severity") => rows.sort_by_key(|c| std::cmp::Reverse(c.severity)),
            Some("kind") => rows.sort_by(|a, b| a.kind.cmp(&b.kind)),
            Some("subject") => rows.sort_by(|a, b| text::natural(&a.subject, &b.subject)),
            _ => {}
        }
        if list.reverse {
            rows.reverse();
        }
        rows.into_iter().map(|c| c.seq.to_string()).collect()
    }

    fn follows_first(&self) -> bool {
        true
    }

    fn acts(&self) -> &'static [ActKey] {
        &[]
    }

    fn render(&self, cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
        let rows = self.rows(cx.cluster, cx.state.list());
        if area.width < SPLIT {
            return changes(cx, area, buf, &rows);
        }
        let right = (area.width * 2 / 5).clamp(48, 84);
        let left = Rect {
            width: area.width - right,
            ..area
        };
        let right = Rect {
            x: left.right(),
            width: right,
            ..area
        };
        changes(cx, left, buf, &rows);
        let selected = cx.state.list().index(&rows).map(|at| rows[at].as_str());
        let detail = selected.and_then(|key| self.detail(cx, key, right.width.saturating_sub(2)));
        match detail {
            Some(detail) => {
                let inner = pane(
                    buf,
                    cx.theme,
                    right,
                    line(cx.theme, Tone::Strong, detail.title),
                    Line::default(),
                );
                scrolled(buf, cx.theme, inner, detail.lines, 0);
            }
            None => {
                let inner = pane(buf, cx.theme, right, Line::default(), Line::default());
                empty(buf, cx.theme, inner, "no event is selected");
            }
        }
    }

    fn detail(&self, cx: &Cx<'_>, key: &str, width: u16) -> Option<Detail> {
        let change = cx.cluster.changes.get(&key.parse().ok()?)?;
        Some(Detail {
            title: format!("Event {}", change.seq),
            lines: lines(cx, change, width),
        })
    }
}

fn changes(cx: &Cx<'_>, area: Rect, buf: &mut Buffer, rows: &[String]) {
    let mut title = vec![span(cx.theme, Tone::Strong, "Events")];
    if let Some(last) = cx.cluster.changes.keys().next_back() {
        title.push(Span::raw(format!("  up to {last}")));
    }
    let inner = pane(buf, cx.theme, area, Line::from(title), list_note(cx, rows.len()));
    if rows.is_empty() {
        let text = if cx.cluster.changes.is_empty() {
            "nothing happened yet"
        } else {
            "no event matches the filter"
        };
        return empty(buf, cx.theme, inner, text);
    }
    let selected = cx.state.list().index(rows);
    table(buf, cx.theme, inner, COLUMNS, (rows.len(), selected), |at| {
        match rows[at].parse().ok().and_then(|seq: u64| cx.cluster.changes.get(&seq)) {
            Some(change) => cells(cx, change, inner.width >= 64),
            None => Vec::new(),
        }
    });
}

fn cells(cx: &Cx<'_>, change: &Change, roomy: bool) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let (glyph, tone) = theme.severity(change.severity());
    let at = change.time_unix_ms;
    let time = if roomy { cx.time(at) } else { cx.moment(at) };
    vec![
        line(theme, Tone::Dim, time),
        line(theme, tone, format!("{glyph} {}", change.severity().word())),
        line(theme, Tone::Plain, said(change)),
        line(theme, Tone::Dim, change.kind.clone()),
        line(theme, Tone::Dim, change.actor.clone()),
        line(theme, Tone::Dim, change.seq.to_string()),
    ]
}

/// Its text; where it has none, what it is.
fn said(change: &Change) -> String {
    if change.text.is_empty() {
        format!("{} {}", change.kind, change.subject)
    } else {
        change.text.clone()
    }
}

/// A change on one line: `12:02:20  ✖ n3 offline: session expired`.
pub(super) fn short(cx: &Cx<'_>, change: &Change) -> Vec<Span<'static>> {
    let (glyph, tone) = cx.theme.severity(change.severity());
    vec![
        span(cx.theme, Tone::Dim, format!("{:8}  ", cx.moment(change.time_unix_ms))),
        span(cx.theme, tone, format!("{glyph} ")),
        span(cx.theme, Tone::Plain, said(change)),
    ]
}

/// The newest changes, one line each, as many as there is room for.
pub(super) fn newest(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    if cx.cluster.changes.is_empty() {
        return empty(buf, cx.theme, area, "nothing happened yet");
    }
    for (row, change) in (0..area.height).zip(cx.cluster.changes.values().rev()) {
        let mut spans = vec![Span::raw(" ")];
        spans.extend(short(cx, change));
        put(buf, cx.theme, area, row, Line::from(spans));
    }
}

fn searched(change: &Change) -> String {
    let Change {
        seq,
        kind,
        subject,
        text,
        cause,
        actor,
        ..
    } = change;
    format!(
        "{seq} {kind} {subject} {text} {cause} {actor} {}",
        change.severity().word()
    )
}

fn lines(cx: &Cx<'_>, change: &Change, width: u16) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let (glyph, tone) = theme.severity(change.severity());
    let age = text::span(cx.server_now().saturating_sub(change.time_unix_ms));
    let mut lines = Vec::new();
    for part in text::wrap(&said(change), usize::from(width).saturating_sub(2)) {
        lines.push(line(theme, Tone::Strong, format!(" {part}")));
    }
    lines.push(Line::default());
    let mut add = |label: &str, tone: Tone, value: String| {
        if !value.is_empty() {
            lines.extend(field(theme, label, vec![span(theme, tone, value)], width));
        }
    };
    add(
        "time",
        Tone::Plain,
        format!("{} ({age} ago)", cx.now.date(change.time_unix_ms)),
    );
    add("severity", tone, format!("{glyph} {}", change.severity().word()));
    add("kind", Tone::Plain, change.kind.clone());
    add("subject", Tone::Plain, change.subject.clone());
    add("actor", Tone::Plain, change.actor.clone());
    add("cause", Tone::Plain, change.cause.clone());
    add("term", Tone::Plain, change.term.to_string());
    let (before, after) = (leaves(&change.before), leaves(&change.after));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut differs = Vec::new();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            let show = |v: Option<&String>| v.map_or("(none)", String::as_str).to_owned();
            differs.push((key.clone(), format!("{} {} {}", show(old), theme.becomes(), show(new))));
        }
    }
    if !differs.is_empty() {
        lines.push(Line::default());
        lines.push(line(theme, Tone::Strong, " Change"));
        for (key, value) in differs {
            let label = if key.is_empty() { "value" } else { &key };
            // Long names would be cut: they get a line of their own.
            let text = if text::width(label) > 12 {
                format!("{label}: {value}")
            } else {
                value
            };
            let label = if text::width(label) > 12 { "" } else { label };
            lines.extend(field(theme, label, vec![span(theme, Tone::Plain, text)], width));
        }
    }
    lines
}

/// The values in a JSON document by their paths; a text that is no JSON is one value.
fn leaves(json: &str) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(&path, value, out);
                }
            }
            Value::String(text) => {
                out.insert(path.to_owned(), text.clone());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                out.insert(path.to_owned(), value.to_string());
            }
        }
    }
    let mut out = BTreeMap::new();
    if json.is_empty() {
        return out;
    }
    match serde_json::from_str::<Value>(json) {
        Ok(value) => walk("", &value, &mut out),
        Err(_) => {
            out.insert(String::new(), json.to_owned());
        }
    }
    // JSON can spell what was cleaned from the text it stands in.
    out.into_iter()
        .map(|(mut key, mut value)| {
            text::clean(&mut key);
            text::clean(&mut value);
            (key, value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_taken_apart_by_paths() {
        let leaves = leaves(r#"{"spec":{"cordoned":true,"labels":{}},"name":"n\u001b1","list":[1,2]}"#);
        let shown: Vec<_> = leaves.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            shown,
            ["list=[1,2]", "name=n?1", "spec.cordoned=true", "spec.labels={}"]
        );
    }

    #[test]
    fn what_is_no_document_is_shown_as_it_is() {
        assert_eq!(leaves("{cut").get(""), Some(&"{cut".to_owned()));
        assert!(leaves("").is_empty());
    }
}
