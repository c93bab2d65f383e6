//! All that is known of one node.

use std::collections::BTreeMap;

use ha_proto::v1::{NodeSpec, NodeStatus, Resources, Role, Usage};
use ratatui::text::{Line, Span};

use super::{Detail, events};
use crate::watch::{
    cluster::{NodeRow, SAMPLES},
    render::{
        Cx,
        canvas::{cut, field, span},
        line,
    },
    text,
    theme::Tone,
};

/// A certificate is worth a warning from this far before its end, in milliseconds.
const CERTIFICATE_MS: i64 = 14 * 86_400_000;
/// Changes listed.
const CHANGES: usize = 8;

/// `zone=a,rack=3`.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// Writes the lines of one thing: heads, and below them labels with their values.
pub(super) struct Writer<'a> {
    pub(super) cx: &'a Cx<'a>,
    pub(super) width: u16,
    pub(super) lines: Vec<Line<'static>>,
}

impl Writer<'_> {
    pub(super) fn head(&mut self, title: &str) {
        self.lines.push(Line::default());
        self.lines.push(line(self.cx.theme, Tone::Strong, format!(" {title}")));
    }

    pub(super) fn spans(&mut self, label: &str, value: Vec<Span<'static>>) {
        self.lines.extend(field(self.cx.theme, label, value, self.width));
    }

    pub(super) fn text(&mut self, label: &str, tone: Tone, value: impl Into<String>) {
        self.spans(label, vec![span(self.cx.theme, tone, value)]);
    }

    /// As [`Self::text`], only where there is something to say.
    pub(super) fn some(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.text(label, Tone::Plain, value);
        }
    }
}

/// The node of this name.
pub(super) fn detail(cx: &Cx<'_>, name: &str, width: u16) -> Option<Detail> {
    let row = cx.cluster.nodes.get(name)?;
    let mut w = Writer {
        cx,
        width,
        lines: Vec::new(),
    };
    let none = (NodeStatus::default(), NodeSpec::default());
    let status = row.node.status.as_ref().unwrap_or(&none.0);
    let spec = row.node.spec.as_ref().unwrap_or(&none.1);
    state(&mut w, row, status);
    usage(&mut w, row, status);
    changes(&mut w, name);
    specification(&mut w, row, spec, status);
    daemon(&mut w, status);
    Some(Detail {
        title: format!("Node {name}"),
        lines: w.lines,
    })
}

fn state(w: &mut Writer<'_>, row: &NodeRow, status: &NodeStatus) {
    let cx = w.cx;
    let theme = cx.theme;
    let (glyph, tone) = theme.state(row.state());
    let now = cx.server_now();
    let mut spans = vec![span(theme, tone, format!("{glyph} {}", row.state().word()))];
    if status.role() != Role::Unspecified {
        spans.push(span(theme, Tone::Strong, format!("  {}", status.role().word())));
    }
    if status.state_since_unix_ms > 0 {
        let since = text::span(now.saturating_sub(status.state_since_unix_ms));
        spans.push(span(theme, Tone::Plain, format!("  since {since}")));
    }
    w.spans("state", spans);
    w.some("reason", &status.reason);
    if status.restarting {
        w.text(
            "restart",
            Tone::Warn,
            "announced: it is expected back within its session",
        );
    }
    let seen = match cx.cluster.age(row, cx.mono) {
        None => "never".to_owned(),
        Some(ms) => format!("{} ago", text::age(ms)),
    };
    w.text("seen", Tone::Plain, seen);
    if row.node.name == cx.cluster.master.node && cx.cluster.master.since_unix_ms > 0 {
        let since = text::span(now.saturating_sub(cx.cluster.master.since_unix_ms));
        w.text(
            "master",
            Tone::Plain,
            format!("term {}, since {since}", cx.cluster.master.term),
        );
    }
    if cx.cluster.master.pinned == row.node.name {
        w.text("pinned", Tone::Plain, "as master, by a transfer");
    }
    for (i, condition) in status.conditions.iter().enumerate() {
        let label = if i == 0 { "conditions" } else { "" };
        w.text(label, Tone::Warn, format!("{} {condition}", theme.glyph(Tone::Warn)));
    }
}

fn usage(w: &mut Writer<'_>, row: &NodeRow, status: &NodeStatus) {
    let theme = w.cx.theme;
    for database in &status.databases {
        let role = if database.primary { "primary" } else { "standby" };
        w.text(
            "database",
            Tone::Plain,
            format!("{} {role}, {}", database.group, database.state().word()),
        );
    }
    w.head("Usage");
    let Some(usage) = &status.usage else {
        return w.text("", Tone::Dim, "it never reported any");
    };
    let capacity = usage.capacity.unwrap_or_default();
    let Usage {
        memory_used_bytes,
        disk_used_bytes,
        daemon_rss_bytes,
        ..
    } = *usage;
    let percent = row.cpu_percent().map_or_else(|| "-".to_owned(), |p| format!("{p}%"));
    w.text(
        "cpu",
        Tone::Plain,
        format!("{percent} of {}", cores(capacity.cpu_milli)),
    );
    let history = theme.sparkline(row.cpu.samples(), SAMPLES.min(usize::from(w.width).saturating_sub(16)));
    w.spans("", vec![span(theme, Tone::Good, history)]);
    w.text("memory", Tone::Plain, part(memory_used_bytes, capacity.memory_bytes));
    w.text("disk", Tone::Plain, part(disk_used_bytes, capacity.disk_bytes));
    w.text("had", Tone::Plain, text::size(daemon_rss_bytes));
    if !row.alive() {
        w.text("", Tone::Dim, "as last reported");
    }
}

fn part(used: u64, total: u64) -> String {
    match text::percent(used, total) {
        Some(percent) => format!("{}, {percent}%", text::of_long(used, total)),
        None => "-".to_owned(),
    }
}

fn cores(milli: u64) -> String {
    match (milli / 1000, milli % 1000 / 100) {
        (1, 0) => "1 core".to_owned(),
        (whole, 0) => format!("{whole} cores"),
        (whole, tenths) => format!("{whole}.{tenths} cores"),
    }
}

fn specification(w: &mut Writer<'_>, row: &NodeRow, spec: &NodeSpec, status: &NodeStatus) {
    w.head("Specification");
    w.some("address", &spec.address);
    if !status.registered_address.is_empty() && status.registered_address != spec.address {
        w.text(
            "registered",
            Tone::Warn,
            format!("{}, which differs", status.registered_address),
        );
    }
    w.some("http", &status.http_address);
    let eligible = match (spec.master_eligible, spec.master_preference) {
        (false, _) => "not eligible as master".to_owned(),
        (true, 0) => "eligible as master".to_owned(),
        (true, n) => format!("eligible as master, preference {n}"),
    };
    w.text("election", Tone::Plain, eligible);
    let placement = match (spec.cordoned, spec.draining) {
        (_, true) => Some("draining: it is being emptied"),
        (true, false) => Some("cordoned: it takes nothing new"),
        (false, false) => None,
    };
    if let Some(text) = placement {
        w.text("placement", Tone::Warn, text);
    }
    w.some("labels", &labels(&spec.labels).replace(',', ", "));
    w.some("scenarios", &spec.scenarios.join(", "));
    if let Some(Resources {
        cpu_milli,
        memory_bytes,
        disk_bytes,
    }) = spec.capacity_override
    {
        let mut parts = Vec::new();
        if cpu_milli > 0 {
            parts.push(cores(cpu_milli));
        }
        if memory_bytes > 0 {
            parts.push(format!("memory {}", text::size(memory_bytes)));
        }
        if disk_bytes > 0 {
            parts.push(format!("disk {}", text::size(disk_bytes)));
        }
        w.some("capacity", &parts.join(", "));
    }
    w.text("revision", Tone::Plain, row.node.revision.to_string());
}

fn daemon(w: &mut Writer<'_>, status: &NodeStatus) {
    let cx = w.cx;
    let now = cx.server_now();
    w.head("Daemon");
    w.some("version", &status.version);
    w.some("system", &status.os);
    if status.started_unix_ms > 0 {
        let up = text::span(now.saturating_sub(status.started_unix_ms));
        w.text(
            "started",
            Tone::Plain,
            format!("{} ({up} ago)", cx.now.date(status.started_unix_ms)),
        );
    }
    w.some("boot id", &status.boot_id);
    let ends = status.certificate_expires_unix_ms;
    let left = ends.saturating_sub(now);
    let (tone, expires) = match (ends, left) {
        (0, _) => (Tone::Dim, "unknown".to_owned()),
        (_, ..=0) => (Tone::Bad, format!("expired {} ago", text::span(left.saturating_neg()))),
        (_, ..CERTIFICATE_MS) => (
            Tone::Warn,
            format!("expires in {}, {}", text::span(left), cx.now.date(ends)),
        ),
        _ => (
            Tone::Plain,
            format!("expires in {}, {}", text::span(left), cx.now.date(ends)),
        ),
    };
    w.text("certificate", tone, expires);
    if status.clock_skew_ms != 0 {
        let tone = if status.clock_skew_ms.saturating_abs() >= 1000 {
            Tone::Warn
        } else {
            Tone::Plain
        };
        w.text(
            "clock",
            tone,
            format!("{:+} ms against the master's", status.clock_skew_ms),
        );
    }
}

fn changes(w: &mut Writer<'_>, name: &str) {
    w.head("Recent changes");
    let cx = w.cx;
    let before = w.lines.len();
    for change in cx.cluster.changes_of(name).take(CHANGES) {
        let mut spans = vec![Span::raw("  ")];
        spans.extend(events::short(cx, change));
        w.lines.push(cut(Line::from(spans), usize::from(w.width), cx.theme));
    }
    if w.lines.len() == before {
        w.text("", Tone::Dim, "none among the last events");
    }
}
