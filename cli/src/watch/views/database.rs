//! Database: every instance, what the record wants of it beside what it reports, how far it is behind and how old that is;
//! beside it, or below where there is no room, the group and its last change of primary.

use std::cmp::Ordering;

use ha_proto::v1::{GroupHealth, Instance};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Detail, View, database_detail, nodes::list_note};
use crate::watch::{
    act::{ActKey, DATABASE_ACTS},
    cluster::Cluster,
    groups::{self, GroupRow},
    render::{
        Cx, SPLIT,
        canvas::{pane, scrolled, span},
        empty, line,
        table::{Column, table},
    },
    state::List,
    text::{self, natural},
    theme::Tone,
};

/// The view.
pub(super) struct Database;

static SORTS: &[&str] = &["name", "state", "behind", "age"];

/// Every column there is of instances; the group's comes before them where there are several.
static COLUMNS: &[Column] = &[
    Column::new("NODE", 4, 24, 0),
    Column::new("WANTED", 7, 7, 0),
    Column::new("REPORTED", 13, 14, 0),
    Column::new("TL", 2, 4, 4),
    Column::new("BEHIND", 8, 8, 0),
    Column::new("SYNC", 6, 9, 2),
    Column::new("LEASE", 5, 6, 3),
    Column::new("AGE", 5, 9, 1),
    Column::new("TIME", 5, 8, 5),
    Column::new("LSN", 10, 17, 6),
];
/// How many of them an overview has.
const FEW: usize = 6;
/// Place of the lag among them.
const BEHIND: usize = 4;

impl View for Database {
    fn name(&self) -> &'static str {
        "database"
    }

    fn title(&self) -> &'static str {
        "Database"
    }

    fn sorts(&self) -> &'static [&'static str] {
        SORTS
    }

    fn rows(&self, cluster: &Cluster, list: &List) -> Vec<String> {
        rows(cluster, list)
    }

    fn acts(&self) -> &'static [ActKey] {
        DATABASE_ACTS
    }

    fn render(&self, cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
        let rows = rows(cx.cluster, cx.state.list());
        let selected = cx.state.list().index(&rows);
        let key = selected.map(|at| rows[at].as_str());
        let about = |width: u16| key.map(|key| database_detail::group(cx, key, width));
        if area.width < SPLIT {
            let inner = pane(buf, cx.theme, area, title(cx), list_note(cx, rows.len()));
            // The instances have what they need, the group the rest.
            let wanted = u16::try_from(rows.len() + 1).unwrap_or(u16::MAX).max(2);
            let height = wanted.min(inner.height.saturating_sub(inner.height / 3));
            let top = Rect { height, ..inner };
            instances(cx, top, buf, COLUMNS, &rows, selected);
            let rest = Rect {
                y: inner.y + height,
                height: inner.height - height,
                ..inner
            };
            scrolled(buf, cx.theme, rest, about(rest.width).unwrap_or_default(), 0);
            return;
        }
        let right = (area.width * 3 / 8).clamp(44, 84);
        let left = Rect {
            width: area.width - right,
            ..area
        };
        let right = Rect {
            x: left.right(),
            width: right,
            ..area
        };
        let inner = pane(buf, cx.theme, left, title(cx), list_note(cx, rows.len()));
        instances(cx, inner, buf, COLUMNS, &rows, selected);
        let name = key.and_then(|key| key.split_once('/')).map_or("", |(group, _)| group);
        let head = line(cx.theme, Tone::Strong, format!("Group {name}"));
        let head = if name.is_empty() { Line::default() } else { head };
        let inner = pane(buf, cx.theme, right, head, Line::default());
        match about(inner.width) {
            Some(lines) => scrolled(buf, cx.theme, inner, lines, 0),
            None => empty(buf, cx.theme, inner, "no instance is selected"),
        }
    }

    fn detail(&self, cx: &Cx<'_>, key: &str, width: u16) -> Option<Detail> {
        database_detail::detail(cx, key, width)
    }
}

/// The instance that a key names, with its group.
pub(super) fn find<'a>(cluster: &'a Cluster, key: &str) -> Option<(&'a GroupRow, &'a Instance)> {
    let (group, node) = key.split_once('/')?;
    let row = cluster.groups.get(group)?;
    Some((row, row.instance(node)?))
}

/// What the filter looks at.
fn searched(row: &GroupRow, instance: &Instance) -> String {
    let wanted = if instance.wanted_primary { "primary" } else { "standby" };
    format!(
        "{} {} {wanted} {} {} {}",
        row.group.name,
        instance.node,
        groups::word(instance),
        instance.sync().word(),
        instance.role().word()
    )
}

/// Keys of the instances that the filter lets through: `main/n1`.
pub(super) fn rows(cluster: &Cluster, list: &List) -> Vec<String> {
    let all = cluster
        .groups
        .values()
        .flat_map(|row| row.group.instances.iter().map(move |i| (row, i)));
    let mut rows: Vec<(&GroupRow, &Instance)> = all.filter(|(row, i)| list.accepts(&searched(row, i))).collect();
    let urgency = |i: &Instance| {
        (
            groups::fresh(i, cluster.frame_ms()),
            i.state() as i32,
            !i.wanted_primary,
        )
    };
    rows.sort_by(|(group_a, a), (group_b, b)| {
        let order = match SORTS.get(list.sort).copied() {
            Some("state") => urgency(a).cmp(&urgency(b)),
            Some("behind") => b.behind_bytes.cmp(&a.behind_bytes),
            Some("age") => a.reported_unix_ms.cmp(&b.reported_unix_ms),
            _ => Ordering::Equal,
        };
        let order = order
            .then_with(|| natural(&group_a.group.name, &group_b.group.name))
            .then_with(|| natural(&a.node, &b.node));
        if list.reverse { order.reverse() } else { order }
    });
    rows.into_iter()
        .map(|(row, i)| format!("{}/{}", row.group.name, i.node))
        .collect()
}

/// Glyph, word and tone of a group's health.
pub(super) fn health(cx: &Cx<'_>, health: GroupHealth) -> (String, Tone) {
    let tone = match health {
        GroupHealth::Healthy => Tone::Good,
        GroupHealth::Degraded => Tone::Warn,
        GroupHealth::NoPrimary | GroupHealth::Unspecified => Tone::Bad,
    };
    (format!("{} {}", cx.theme.glyph(tone), health.word()), tone)
}

/// `Database main  ● healthy`, or of several how many are how.
pub(super) fn title(cx: &Cx<'_>) -> Line<'static> {
    let groups = &cx.cluster.groups;
    let strong = |text: String| span(cx.theme, Tone::Strong, text);
    match groups.len() {
        0 => Line::from(strong("Database".to_owned())),
        1 => {
            let mut spans = Vec::new();
            for row in groups.values() {
                let (text, tone) = health(cx, row.group.health());
                spans.push(strong(format!("Database {}", row.group.name)));
                spans.push(span(cx.theme, tone, format!("  {text}")));
                if row.paused() {
                    spans.push(span(cx.theme, Tone::Warn, "  paused"));
                }
            }
            Line::from(spans)
        }
        _ => {
            let mut spans = vec![strong("Databases".to_owned())];
            for state in [
                GroupHealth::Healthy,
                GroupHealth::Degraded,
                GroupHealth::NoPrimary,
                GroupHealth::Unspecified,
            ] {
                let count = groups.values().filter(|row| row.group.health() == state).count();
                if count > 0 {
                    let gap = if spans.len() == 1 { "  " } else { ", " };
                    spans.push(Span::raw(gap));
                    spans.push(span(cx.theme, health(cx, state).1, format!("{count} {}", state.word())));
                }
            }
            Line::from(spans)
        }
    }
}

/// The instances of the overview, without a frame.
pub(super) fn few(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    let rows = rows(cx.cluster, &List::default());
    instances(cx, area, buf, &COLUMNS[..FEW], &rows, None);
}

/// How many lines the overview's box takes with its head.
pub(super) fn few_height(cluster: &Cluster) -> u16 {
    let rows: usize = cluster.groups.values().map(|row| row.group.instances.len()).sum();
    u16::try_from(rows + 1).unwrap_or(u16::MAX)
}

fn instances(cx: &Cx<'_>, area: Rect, buf: &mut Buffer, columns: &[Column], rows: &[String], selected: Option<usize>) {
    if rows.is_empty() {
        let text = if cx.cluster.groups.is_empty() {
            "there is no database group: hactl db create"
        } else {
            "no instance matches the filter"
        };
        return empty(buf, cx.theme, area, text);
    }
    let history: u16 = match area.width {
        ..56 => 0,
        56..70 => 3,
        70..80 => 4,
        80..100 => 6,
        100..140 => 8,
        _ => 16,
    };
    let aged = columns.len() > FEW;
    let several = cx.cluster.groups.len() > 1;
    let mut shown = columns.to_vec();
    if let Some(behind) = shown.get_mut(BEHIND) {
        let more = if history == 0 { 0 } else { history + 1 };
        (behind.min, behind.good, behind.max) = (behind.min + more, behind.good + more, behind.max + more);
    }
    if several {
        shown.insert(0, Column::new("GROUP", 5, 16, 0));
    }
    table(buf, cx.theme, area, &shown, (rows.len(), selected), |at| {
        let Some((row, instance)) = find(cx.cluster, &rows[at]) else {
            return Vec::new();
        };
        let mut cells = cells(cx, row, instance, usize::from(history), aged);
        cells.truncate(columns.len());
        if several {
            cells.insert(0, line(cx.theme, Tone::Plain, row.group.name.clone()));
        }
        cells
    });
}

fn cells(cx: &Cx<'_>, row: &GroupRow, i: &Instance, history: usize, aged: bool) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let fresh = groups::fresh(i, cx.cluster.frame_ms());
    let plain = |text: String| line(theme, Tone::Plain, text);
    let dash = || line(theme, Tone::Dim, "-");
    let unknown = || line(theme, Tone::Dim, "?");
    let wanted = if i.wanted_primary {
        line(theme, Tone::Strong, "primary")
    } else {
        plain("standby".to_owned())
    };
    let number = |n: u32| if n == 0 { dash() } else { plain(n.to_string()) };
    vec![
        plain(i.node.clone()),
        wanted,
        reported(cx, i),
        if fresh { number(i.timeline) } else { unknown() },
        behind(cx, row, i, history, aged),
        match i.sync() {
            ha_proto::v1::SyncState::Unspecified => dash(),
            _ if !fresh => dash(),
            sync => plain(sync.word().to_owned()),
        },
        match i.lease_left_ms.filter(|_| fresh) {
            Some(ms) => {
                let tone = if ms < 1000 { Tone::Warn } else { Tone::Plain };
                line(theme, tone, seconds(ms))
            }
            None => dash(),
        },
        age(cx, i),
        match i.behind_ms {
            _ if i.wanted_primary => dash(),
            Some(ms) if fresh => plain(text::span_short(i64::try_from(ms).unwrap_or(i64::MAX))),
            _ => unknown(),
        },
        match i.lsn {
            _ if !fresh => unknown(),
            0 => dash(),
            lsn => plain(ha_proto::database::lsn(lsn)),
        },
    ]
}

/// `3.1 s`.
pub(super) fn seconds(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// What it says of itself, by glyph and word.
pub(super) fn reported(cx: &Cx<'_>, i: &Instance) -> Line<'static> {
    if !groups::fresh(i, cx.cluster.frame_ms()) {
        let (glyph, tone) = cx.theme.instance(ha_proto::v1::InstanceState::Unspecified, false);
        return line(cx.theme, tone, format!("{glyph} unknown"));
    }
    let (glyph, tone) = cx.theme.instance(i.state(), i.wanted_primary == i.reported_primary);
    line(cx.theme, tone, format!("{glyph} {}", groups::word(i)))
}

/// How old what a row shows is.
fn age(cx: &Cx<'_>, i: &Instance) -> Line<'static> {
    if i.reported_unix_ms == 0 {
        return line(cx.theme, Tone::Warn, "never");
    }
    let age = cx.server_now().saturating_sub(i.reported_unix_ms);
    let tone = if groups::fresh(i, cx.cluster.frame_ms()) {
        Tone::Plain
    } else {
        Tone::Warn
    };
    line(cx.theme, tone, text::age(age.max(0)))
}

/// How far behind the primary, with the last minute of it; of an old report its age, where no column has it.
fn behind(cx: &Cx<'_>, row: &GroupRow, i: &Instance, history: usize, aged: bool) -> Line<'static> {
    const NUMBER: usize = 8;
    let theme = cx.theme;
    if i.wanted_primary {
        return line(theme, Tone::Dim, "-");
    }
    let number = |text: &str| text::fit(text, NUMBER, false, theme.ellipsis());
    let Some(bytes) = i.behind_bytes.filter(|_| groups::fresh(i, cx.cluster.frame_ms())) else {
        let age = cx.server_now().saturating_sub(i.reported_unix_ms).max(0);
        let old = match i.reported_unix_ms {
            0 => "never",
            _ if aged => "",
            _ => &format!("{} old", text::span_short(age)),
        };
        let text = format!("{} {old}", text::fit("?", 3, false, theme.ellipsis()));
        return line(theme, Tone::Warn, text.trim_end().to_owned());
    };
    let tone = if bytes >= 16 << 20 { Tone::Warn } else { Tone::Plain };
    let mut spans = vec![span(theme, tone, number(&text::size(bytes)))];
    if history > 0 {
        let lag = row.lag.get(&i.node).map(|lag| theme.sparkline(lag.samples(), history));
        spans.push(span(theme, Tone::Good, format!(" {}", lag.unwrap_or_default())));
    }
    Line::from(spans)
}
