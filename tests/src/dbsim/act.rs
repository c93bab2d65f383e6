//! The steps that the core orders, taken on the simulated PostgreSQL. Each takes its time, and may be interrupted.

use ha_core::database::local::{Task, Upstream};
use ha_core::database::member::{Action, StartAs};

use super::postgres::Conf;
use super::world::{MS, N, World};

impl World {
    fn follow(&self, upstream: Option<&Upstream>) -> Option<(N, u64)> {
        upstream.and_then(|u| Some((self.node(&u.node)?, u.epoch)))
    }

    /// Takes one step.
    pub fn act(&mut self, n: N, action: Action) {
        let Some(busy) = self.daemons[n].as_ref().map(|d| d.task.is_some()) else {
            return;
        };
        if self.trace.keeps() && !matches!(action, Action::Slots { .. } | Action::AskGrants { .. }) {
            self.say(Some(n), format_args!("  {action:?}"));
        }
        let conf = self.pg[n].disk.conf;
        match action {
            Action::Create { names } if !busy && self.pg[n].disk.system.is_none() => {
                self.pg[n].disk.conf = Conf {
                    names: self.sim_names(&names),
                    follow: None,
                };
                self.pg[n].disk.torn = true;
                let takes = self.between(200 * MS, 800 * MS);
                self.begin(n, Task::Create, takes);
            }
            Action::Start { role, names } if !busy => {
                let follow = match &role {
                    StartAs::Standby { upstream } => self.follow(upstream.as_ref()),
                    StartAs::Primary => None,
                };
                let names = self.sim_names(&names);
                self.pg[n].disk.standby_signal = role != StartAs::Primary;
                self.pg_write_conf(n, Conf { names, follow });
                self.kept[n].was_primary = role == StartAs::Primary;
                self.start(n);
            }
            Action::Stop { immediate, .. } => {
                if immediate {
                    self.pg_quit(n);
                } else {
                    self.pg_stop_fast(n);
                }
                if !busy && self.pg[n].server.is_some() {
                    self.begin(n, Task::Stop, 5 * MS);
                }
            }
            Action::Reap => self.pg_quit(n),
            Action::EndWalsenders { except } => {
                if let Some(keep) = self.node(&except) {
                    self.pg_end_senders_but(n, keep);
                }
            }
            Action::Refuse { epoch } => {
                self.kept[n].marks.refused = self.kept[n].marks.refused.max(epoch);
                self.pg_write_conf(n, Conf { follow: None, ..conf });
                self.pg_reload(n);
            }
            Action::EndReceiver => self.pg_end_receiver(n),
            Action::MarkPromotion { epoch } => self.kept[n].marks.promotion = Some(epoch),
            Action::Promote { names, .. } if !busy => {
                let names = self.sim_names(&names);
                self.pg_write_conf(n, Conf { names, follow: None });
                self.pg_reload(n);
                self.kept[n].was_primary = true;
                if self.pg_promote(n) {
                    self.begin(n, Task::Promote, 10 * MS);
                }
            }
            Action::SetNames { names } => {
                let names = self.sim_names(&names);
                self.pg_write_conf(n, Conf { names, ..conf });
                self.pg_reload(n);
            }
            Action::Follow { upstream } => {
                let follow = self.follow(Some(&upstream));
                self.pg_write_conf(n, Conf { follow, ..conf });
                self.pg_reload(n);
            }
            Action::Rewind { from } if !busy && self.pg[n].server.is_none() => {
                self.pg[n].disk.source = self.node(&from.node);
                self.rewind_begins(n);
                let takes = self.between(100 * MS, 1200 * MS);
                self.begin(n, Task::Rewind, takes);
            }
            Action::Copy { from } if !busy && self.pg[n].server.is_none() => {
                self.pg[n].disk.source = self.node(&from.node);
                let takes = self.between(300 * MS, 2500 * MS);
                self.begin(n, Task::Copy { progress: None }, takes);
            }
            Action::Slots { nodes } => {
                let bits = nodes
                    .iter()
                    .filter_map(|v| self.node(v))
                    .fold(0, |bits, v| bits | 1 << v);
                self.pg[n].disk.slots = bits;
            }
            Action::AskGrants { of, epoch } => self.ask_grants(n, &of, epoch),
            // What cannot be begun beside a task is decided again after it.
            Action::Create { .. }
            | Action::Start { .. }
            | Action::Promote { .. }
            | Action::Rewind { .. }
            | Action::Copy { .. } => {}
        }
    }
}
