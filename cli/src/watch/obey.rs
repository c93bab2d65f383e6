//! What each command does to the state.

use super::{
    act::{ActKey, Confirmation},
    keymap::Command,
    state::{Action, Frozen, Opened, Overlay, State},
    theme::Tone,
    views::VIEWS,
};

/// Longest text that can be typed, in characters.
const TYPED_MAX: usize = 128;

impl State {
    /// Does what a key asks for.
    pub(super) fn obey(&mut self, command: Command, mono: i64) -> Option<Action> {
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
            None if [self.notice.take(), self.note.take()]
                .iter()
                .flatten()
                .any(|n| n.tone == Tone::Bad) => {}
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
