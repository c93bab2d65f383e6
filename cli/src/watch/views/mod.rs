//! The views. Each is one file: its rows, how they are drawn, what opening one shows, and what can be done to one.
//!
//! A new view is a file here and an entry in [`VIEWS`]; nothing else has to know it.

mod database;
mod database_detail;
mod events;
mod node_detail;
mod nodes;
mod overview;

use ratatui::{buffer::Buffer, layout::Rect, text::Line};

use super::{act::ActKey, cluster::Cluster, render::Cx, state::List};

/// The views, in the order of their tabs.
pub(crate) static VIEWS: &[&dyn View] = &[&overview::Overview, &nodes::Nodes, &database::Database, &events::Events];

/// What opening a row shows.
pub(crate) struct Detail {
    /// Of the pane.
    pub(crate) title: String,
    /// Its lines, no wider than was asked for.
    pub(crate) lines: Vec<Line<'static>>,
}

/// One tab of the dashboard. It keeps nothing: all that changes is in the state.
pub(crate) trait View: Sync {
    /// As `--view` takes it.
    fn name(&self) -> &'static str;

    /// As its tab shows it.
    fn title(&self) -> &'static str;

    /// Names of the sorts that `s` goes through; the first is the default.
    fn sorts(&self) -> &'static [&'static str];

    /// Keys of the rows that the filter lets through, in order.
    fn rows(&self, cluster: &Cluster, list: &List) -> Vec<String>;

    /// Whether the selection stays on the first row, whichever that is, while it is there.
    fn follows_first(&self) -> bool {
        false
    }

    /// The capital letters and what they do to the selected row.
    fn acts(&self) -> &'static [ActKey];

    /// Draws the view.
    fn render(&self, cx: &Cx<'_>, area: Rect, buf: &mut Buffer);

    /// What is known of a row; none if it is gone.
    fn detail(&self, cx: &Cx<'_>, key: &str, width: u16) -> Option<Detail>;
}

/// The index of the view of this name.
pub(crate) fn index(name: &str) -> Option<usize> {
    VIEWS.iter().position(|v| v.name() == name)
}
