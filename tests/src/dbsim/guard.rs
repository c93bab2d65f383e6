//! The guard of a machine (protocol R9, R10): the server's parent, which outlives the daemon, ends the server before its
//! lease is over, and knows when not a process of it is left.

use super::world::{Event, MS, N, Time, World};

/// How long before its deadline the guard begins to stop the server.
pub const STOP_BEFORE: Time = 150 * MS;

impl World {
    /// Moves the deadline, on the machine's own clock. It only moves forward: that a daemon knows of none takes none back.
    pub fn guard_deadline(&mut self, n: N, deadline: Option<Time>) {
        let guard = &mut self.machines[n].guard;
        if !guard.alive {
            return;
        }
        guard.deadline = guard.deadline.max(deadline);
        if guard.deadline.is_some() && !guard.armed {
            guard.armed = true;
            self.guard_arm(n);
        }
    }

    fn guard_arm(&mut self, n: N) {
        let Some(deadline) = self.machines[n].guard.deadline else {
            self.machines[n].guard.armed = false;
            return;
        };
        let left = deadline.saturating_sub(STOP_BEFORE).saturating_sub(self.clock(n));
        let after = self.true_span(n, left) + MS / 10;
        self.after(after, Event::Guard(n));
    }

    /// The guard looks at its deadline.
    pub fn guard_looks(&mut self, n: N) {
        let guard = self.machines[n].guard;
        if !guard.alive || !guard.armed {
            return;
        }
        let Some(deadline) = guard.deadline else {
            self.machines[n].guard.armed = false;
            return;
        };
        if self.clock(n) + STOP_BEFORE < deadline {
            self.guard_arm(n);
            return;
        }
        self.machines[n].guard.armed = false;
        self.machines[n].guard.deadline = None;
        if self.pg[n].server.is_some() {
            self.say(Some(n), format_args!("guard: the lease ends"));
            self.pg_quit(n);
        }
    }

    /// The postmaster was killed: its guard, whose child it is, tells the agent, and kills the rest unless the rule that says
    /// so is left out.
    pub fn guard_notices(&mut self, n: N) {
        if self.machines[n].guard.alive {
            if !self.scene.weaken.postmaster_is_proof {
                self.pg_quit(n);
            }
            self.kick_agent(n);
        }
    }

    /// Not a process is left: that is proof.
    pub fn guard_reaps(&mut self, n: N) {
        let guard = &mut self.machines[n].guard;
        if guard.alive {
            guard.deadline = None;
            self.kick_agent(n);
        }
    }

    /// The guard itself is killed; the kernel ends its postmaster.
    pub fn guard_killed(&mut self, n: N) {
        self.machines[n].guard = super::world::Guard::default();
        self.pg_kill_postmaster(n);
    }

    /// A guard is started where none runs: it ends whatever is left of the one before.
    pub fn guard_restarts(&mut self, n: N) {
        let machine = &mut self.machines[n];
        if machine.up && !machine.guard.alive {
            machine.guard.alive = true;
            if self.pg[n].server.is_some() {
                self.pg_quit(n);
            }
        }
    }
}
