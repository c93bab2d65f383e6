//! All that a screen is drawn from, and how each event changes it: Event -> State -> Action.
//!
//! No I/O, no clock: events carry `mono`, this process's monotonic time in milliseconds.

use crossterm::event::KeyEvent;
use ha_proto::v1::ChangeResult;
use ratatui::layout::Size;

use super::{
    act::{Act, ActKey, Confirmation, Confirmed},
    cluster::Cluster,
    conn::{Join, Told},
    keymap::{self, Command, Context},
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
/// Longest text that can be typed, in characters.
const TYPED_MAX: usize = 128;

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

    fn list_mut(&mut self) -> &mut List {
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
        if self.note.as_ref().is_some_and(|n| n.until <= mono) {
            self.note = None;
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

    fn say(&mut self, tone: Tone, line: impl Into<String>, mono: i64) {
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
                match join {
                    Join::First => {}
                    Join::Resumed { seq } => {
                        let line = format!("resumed after frame {seq} with {server}: nothing was missed");
                        self.say(Tone::Good, line, mono);
                    }
                    Join::Over { why } => {
                        let line = format!("started over from a snapshot of {server}: {why}");
                        self.say(Tone::Warn, line, mono);
                    }
                }
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

    fn obey(&mut self, command: Command, mono: i64) -> Option<Action> {
        match command {
            Command::Quit => return Some(Action::Quit),
            Command::Redraw => return Some(Action::Redraw),
            Command::Enter => return self.enter(mono),
            Command::Back => self.back(),
            Command::Help => {
                self.overlay = match self.overlay {
                    Some(Overlay::Help { .. }) => None,
                    _ => Some(Overlay::Help { scroll: 0 }),
                };
            }
            Command::Move(by) => self.step(by),
            Command::Page(by) => self.step(by.saturating_mul(i32::from(self.size.height.saturating_sub(8).max(1)))),
            Command::First => self.step(i32::MIN),
            Command::Last => self.step(i32::MAX),
            Command::Type(_) | Command::Erase | Command::EraseAll => self.edit(command),
            // The help covers what the other commands would change.
            _ if self.overlay.is_some() => {}
            Command::Turn(by) => {
                let views = i32::try_from(VIEWS.len()).unwrap_or(i32::MAX);
                let at = i32::try_from(self.view).unwrap_or(0);
                self.turn_to(usize::try_from((at + by).rem_euclid(views)).unwrap_or(0));
            }
            Command::View(view) => {
                if view < VIEWS.len() {
                    self.turn_to(view);
                }
            }
            Command::Filter => {
                self.opened = None;
                self.overlay = Some(Overlay::Filter);
            }
            Command::Sort => {
                let sorts = self.view().sorts().len().max(1);
                let list = self.list_mut();
                list.sort = (list.sort + 1) % sorts;
                list.reverse = false;
            }
            Command::Reverse => self.list_mut().reverse = !self.list().reverse,
            Command::Pause => {
                self.frozen = match (&self.frozen, &self.cluster) {
                    (None, Some(cluster)) => Some(Frozen {
                        cluster: Box::new(cluster.clone()),
                        mono,
                    }),
                    _ => None,
                };
            }
            Command::Act(key) => self.ask(key, mono),
        }
        None
    }

    fn turn_to(&mut self, view: usize) {
        self.view = view;
        self.opened = None;
    }

    fn enter(&mut self, mono: i64) -> Option<Action> {
        match &mut self.overlay {
            Some(Overlay::Help { .. } | Overlay::Filter) => self.overlay = None,
            Some(Overlay::Confirm(confirmation)) => {
                let confirmed = confirmation.enter()?;
                self.overlay = None;
                self.note = None;
                self.acting = Some(confirmed.act().clone());
                return Some(Action::Perform(confirmed));
            }
            None if self.opened.is_some() => {}
            None => self.open(mono),
        }
        None
    }

    fn open(&mut self, mono: i64) {
        match self.subject() {
            Some(key) => {
                self.list_mut().selected = Some(key.clone());
                self.opened = Some(Opened { key, scroll: 0 });
            }
            None => self.say(Tone::Warn, "there is nothing to open", mono),
        }
    }

    fn back(&mut self) {
        match self.overlay.take() {
            Some(Overlay::Filter) => self.list_mut().filter.clear(),
            Some(Overlay::Help { .. } | Overlay::Confirm(_)) => {}
            // An error is closed by itself; lesser messages go with whatever else is closed.
            None if self.note.take().is_some_and(|n| n.tone == Tone::Bad) => {}
            None if self.opened.take().is_some() => {}
            None => self.list_mut().filter.clear(),
        }
    }

    fn step(&mut self, by: i32) {
        let scrolled = |scroll: u16| {
            let to = i32::from(scroll).saturating_add(by).clamp(0, i32::from(u16::MAX));
            u16::try_from(to).unwrap_or(u16::MAX)
        };
        match (&mut self.overlay, &mut self.opened) {
            (Some(Overlay::Help { scroll }), _) => *scroll = scrolled(*scroll),
            (Some(Overlay::Confirm(_)), _) => {}
            (None, Some(opened)) => opened.scroll = scrolled(opened.scroll),
            (Some(Overlay::Filter) | None, _) => self.select(by),
        }
    }

    fn select(&mut self, by: i32) {
        let Some(cluster) = self.shown() else { return };
        let rows = self.view().rows(cluster, self.list());
        let Some(at) = self.list().index(&rows) else { return };
        let last = i64::try_from(rows.len() - 1).unwrap_or(i64::MAX);
        let to = (i64::try_from(at).unwrap_or(0) + i64::from(by)).clamp(0, last);
        let to = usize::try_from(to).unwrap_or(0);
        let follows = to == 0 && self.view().follows_first();
        let list = self.list_mut();
        list.at = to;
        list.selected = (!follows).then(|| rows[to].clone());
    }

    fn edit(&mut self, command: Command) {
        let view = self.view;
        let typed = match &mut self.overlay {
            Some(Overlay::Filter) => &mut self.lists[view].filter,
            Some(Overlay::Confirm(confirmation)) => {
                confirmation.wrong = false;
                &mut confirmation.typed
            }
            Some(Overlay::Help { .. }) | None => return,
        };
        match command {
            Command::Type(c) if typed.chars().count() < TYPED_MAX => typed.push(c),
            Command::Erase => {
                typed.pop();
            }
            Command::EraseAll => typed.clear(),
            _ => {}
        }
    }

    /// The act of `key` in this view.
    fn act_key(&self, key: char) -> Option<&'static ActKey> {
        self.view().acts().iter().find(|a| a.key == key)
    }

    fn ask(&mut self, key: char, mono: i64) {
        let Some(act_key) = self.act_key(key) else {
            let elsewhere = VIEWS.iter().find(|v| v.acts().iter().any(|a| a.key == key));
            let line = match elsewhere {
                Some(view) => format!("{key} acts in the view {}", view.title()),
                None => format!("{key} does nothing; ? lists the keys"),
            };
            return self.say(Tone::Warn, line, mono);
        };
        if !self.allow_actions {
            let line = format!(
                "{key} would {}: this screen only shows. To act, start it as hactl watch --allow-actions",
                act_key.help
            );
            return self.say(Tone::Warn, line, mono);
        }
        if let Some(acting) = &self.acting {
            let line = format!("{} is not answered yet", acting.title());
            return self.say(Tone::Warn, line, mono);
        }
        let Some(subject) = self.subject() else {
            return self.say(Tone::Warn, "nothing is selected", mono);
        };
        // What is known now counts, not what a held screen shows.
        let planned = match &self.cluster {
            Some(cluster) => (act_key.plan)(cluster, &subject),
            None => Err("nothing is known of the cluster yet".to_owned()),
        };
        match planned {
            Ok(act) => {
                self.note = None;
                self.overlay = Some(Overlay::Confirm(Confirmation::of(act)));
            }
            Err(why) => self.say(Tone::Warn, why, mono),
        }
    }
}
