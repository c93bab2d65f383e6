//! All that a screen is drawn from, and how each event changes it: Event -> State -> Action.
//!
//! No I/O, no clock: events carry `mono`, this process's monotonic time in milliseconds.

use crossterm::event::KeyEvent;
use ha_proto::v1::ChangeResult;
use ratatui::layout::Size;

use super::{
    act::{Act, Confirmation, Confirmed},
    cluster::Cluster,
    conn::{Join, Told},
    keymap::{self, Context},
    text,
    theme::{Theme, Tone},
    views::{VIEWS, View},
};
use crate::error::CliError;

/// How long the screen may be silent before it is called stale, in milliseconds: three beats.
pub(crate) const SILENCE_MS: i64 = 3000;
/// How long a message stays, in milliseconds.
const NOTE_MS: i64 = 8000;
/// Errors stay until Esc, but not for ever.
const ERROR_MS: i64 = 120_000;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A key.
    Key(KeyEvent),
    /// The terminal has this size now.
    Resize(Size),
    /// The stream tells something.
    Told(Told),
    /// A change was answered.
    Answer {
        act: Act,
        result: Result<ChangeResult, CliError>,
    },
    /// A second has passed.
    Tick,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// End.
    Quit,
    /// Draw everything anew.
    Redraw,
    /// Send a change.
    Perform(Confirmed),
}

/// The stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// The node that is or was dialled last.
    pub(crate) endpoint: String,
    /// Attempts since the stream was lost.
    pub(crate) attempt: u32,
    /// Why it was lost; none while it is open.
    pub(crate) lost: Option<CliError>,
}

/// What an operator chose in a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct List {
    /// Words that a row must have.
    pub(crate) filter: String,
    /// Index into the view's sorts.
    pub(crate) sort: usize,
    /// The other way round.
    pub(crate) reverse: bool,
    /// Key of the selected row; none: the first.
    pub(crate) selected: Option<String>,
    /// Where it was, should it vanish.
    pub(crate) at: usize,
}

impl List {
    /// Index of the selected row among `rows`.
    pub(crate) fn index(&self, rows: &[String]) -> Option<usize> {
        if rows.is_empty() {
            return None;
        }
        let Some(key) = &self.selected else { return Some(0) };
        Some(
            rows.iter()
                .position(|r| r == key)
                .unwrap_or_else(|| self.at.min(rows.len() - 1)),
        )
    }

    /// Whether all words of the filter occur in `text`.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let text = text.to_lowercase();
        self.filter
            .to_lowercase()
            .split_whitespace()
            .all(|word| text.contains(word))
    }
}

/// A row that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Its key.
    pub(crate) key: String,
    /// Lines scrolled away.
    pub(crate) scroll: u16,
}

/// What lies over the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// Every key.
    Help { scroll: u16 },
    /// A filter is typed.
    Filter,
    /// A name is typed.
    Confirm(Confirmation),
}

/// A message above the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// How it is meant.
    pub(crate) tone: Tone,
    /// The text: lines, each with a label or none.
    pub(crate) lines: Vec<(&'static str, String)>,
    until: i64,
}

/// The screen, held still.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    /// What was shown.
    pub(crate) cluster: Box<Cluster>,
    /// Since when.
    pub(crate) mono: i64,
}

/// Everything.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Colours and glyphs.
    pub(crate) theme: Theme,
    /// Whether capital letters act.
    pub(crate) allow_actions: bool,
    /// The cluster; none before the first frame.
    pub(crate) cluster: Option<Cluster>,
    /// Set while paused.
    pub(crate) frozen: Option<Frozen>,
    /// The stream.
    pub(crate) link: Link,
    /// Index into [`VIEWS`].
    pub(crate) view: usize,
    /// One for each view.
    pub(crate) lists: Vec<List>,
    /// The open row of the view.
    pub(crate) opened: Option<Opened>,
    /// What lies over it.
    pub(crate) overlay: Option<Overlay>,
    /// The message.
    pub(crate) note: Option<Note>,
    /// How the stream goes on; it never hides a message.
    pub(crate) notice: Option<Note>,
    /// The change that was sent and not answered yet.
    pub(crate) acting: Option<Act>,
    /// Why no server will give a stream; ends the dashboard.
    pub(crate) refused: Option<CliError>,
    /// Of the terminal.
    pub(crate) size: Size,
}

impl State {
    /// Before anything happened.
    pub(crate) fn new(theme: Theme, allow_actions: bool, view: usize, size: Size) -> Self {
        Self {
            theme,
            allow_actions,
            cluster: None,
            frozen: None,
            link: Link::default(),
            view: view.min(VIEWS.len() - 1),
            lists: vec![List::default(); VIEWS.len()],
            opened: None,
            overlay: None,
            note: None,
            notice: None,
            acting: None,
            refused: None,
            size,
        }
    }

    /// The view that is shown.
    pub(crate) fn view(&self) -> &'static dyn View {
        VIEWS[self.view]
    }

    /// What was chosen in it.
    pub(crate) fn list(&self) -> &List {
        &self.lists[self.view]
    }

    pub(super) fn list_mut(&mut self) -> &mut List {
        &mut self.lists[self.view]
    }

    /// The cluster to show: the live one, or the held one.
    pub(crate) fn shown(&self) -> Option<&Cluster> {
        self.frozen.as_ref().map(|f| &*f.cluster).or(self.cluster.as_ref())
    }

    /// Whether what is shown may no longer be so.
    pub(crate) fn stale(&self, mono: i64) -> bool {
        self.link.lost.is_some() || self.cluster.as_ref().is_some_and(|c| c.silence(mono) > SILENCE_MS)
    }

    /// Key of the row that acts act on.
    pub(crate) fn subject(&self) -> Option<String> {
        if let Some(opened) = &self.opened {
            return Some(opened.key.clone());
        }
        let rows = self.view().rows(self.shown()?, self.list());
        self.list().index(&rows).map(|at| rows[at].clone())
    }

    /// What keys mean.
    pub(crate) fn context(&self) -> Context {
        match self.overlay {
            Some(Overlay::Filter | Overlay::Confirm(_)) => Context::Typing,
            Some(Overlay::Help { .. }) | None => Context::Commands,
        }
    }

    /// Whether something is open that scrolls.
    pub(crate) fn scrolls(&self) -> bool {
        match self.overlay {
            Some(Overlay::Help { .. }) => true,
            Some(Overlay::Filter | Overlay::Confirm(_)) => false,
            None => self.opened.is_some(),
        }
    }

    /// Scrolls no further than there is something to see; called with what the last screen could scroll.
    pub(crate) fn clamp_scroll(&mut self, most: u16) {
        match (&mut self.overlay, &mut self.opened) {
            (Some(Overlay::Help { scroll }), _) | (None, Some(Opened { scroll, .. })) => *scroll = (*scroll).min(most),
            _ => {}
        }
    }

    /// Takes an event. The flag says whether the screen may look different.
    pub(crate) fn update(&mut self, event: Event, mono: i64) -> (Option<Action>, bool) {
        for note in [&mut self.note, &mut self.notice] {
            note.take_if(|n| n.until <= mono);
        }
        match event {
            Event::Key(key) => match keymap::command(self.context(), key) {
                Some(command) => (self.obey(command, mono), true),
                None => (None, false),
            },
            Event::Resize(size) => {
                self.size = size;
                (None, true)
            }
            Event::Told(told) => (None, self.told(told, mono)),
            Event::Answer { act, result } => {
                self.acting = None;
                match result {
                    Ok(result) => {
                        let line = act.done(&result);
                        self.say(Tone::Good, line, mono);
                    }
                    Err(error) => self.say_error(&act, &error, mono),
                }
                (None, true)
            }
            Event::Tick => (None, true),
        }
    }

    pub(super) fn say(&mut self, tone: Tone, line: impl Into<String>, mono: i64) {
        self.say_all(tone, vec![("", line.into())], mono);
    }

    fn say_all(&mut self, tone: Tone, mut lines: Vec<(&'static str, String)>, mono: i64) {
        lines.iter_mut().for_each(|(_, line)| text::clean(line));
        let stays = if tone == Tone::Bad { ERROR_MS } else { NOTE_MS };
        self.note = Some(Note {
            tone,
            lines,
            until: mono.saturating_add(stays),
        });
    }

    fn say_error(&mut self, act: &Act, error: &CliError, mono: i64) {
        let mut lines = vec![("", format!("error {}: {}", error.code(), error.message()))];
        if !error.message().contains(act.subject()) {
            lines.push(("what", act.title()));
        }
        lines.extend(error.reasons().iter().map(|why| ("why", why.clone())));
        let next = error
            .next_steps()
            .iter()
            .map(|next| format!("{}   {}", next.command, next.note));
        lines.extend(next.map(|next| ("next", next.trim_end().to_owned())));
        self.say_all(Tone::Bad, lines, mono);
    }

    fn told(&mut self, told: Told, mono: i64) -> bool {
        match told {
            Told::Dialling { endpoint, attempt } => {
                self.link.endpoint = endpoint;
                self.link.attempt = attempt;
                true
            }
            Told::Joined { endpoint, join } => {
                let server = self
                    .cluster
                    .as_ref()
                    .map_or(&*endpoint, |c| c.node_at(&endpoint))
                    .to_owned();
                let (tone, mut line) = match join {
                    Join::First => (Tone::Good, String::new()),
                    Join::Resumed { seq } => (
                        Tone::Good,
                        format!("resumed after frame {seq} with {server}: nothing was missed"),
                    ),
                    Join::Over { why } => (Tone::Warn, format!("started over from a snapshot of {server}: {why}")),
                };
                text::clean(&mut line);
                self.notice = (!line.is_empty()).then(|| Note {
                    tone,
                    lines: vec![("", line)],
                    until: mono.saturating_add(NOTE_MS),
                });
                self.link = Link {
                    endpoint,
                    attempt: 0,
                    lost: None,
                };
                true
            }
            Told::Frame(frame) => {
                let beat = matches!(frame.body, Some(ha_proto::v1::watch_frame::Body::Beat(_)) | None);
                let was_stale = self.stale(mono);
                Cluster::fold(&mut self.cluster, *frame, mono);
                // A beat changes ages alone, and those advance with the clock.
                !beat || was_stale
            }
            Told::Lost { mut error } => {
                if error.message().chars().any(char::is_control) {
                    let mut message = error.message().to_owned();
                    text::clean(&mut message);
                    error = CliError::new(ha_proto::codes::UNREACHABLE, message);
                }
                self.link.lost = Some(error);
                true
            }
            Told::Refused { error } => {
                self.refused = Some(error);
                true
            }
        }
    }
}
