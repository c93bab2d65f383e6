//! Clients that commit all the time, on whatever server lets them, and believe what they are told.

use super::postgres::{Commit, Inside, Phase};
use super::wal::Pos;
use super::world::{Event, MS, N, World};

impl World {
    /// A client commits on this instance, where it can, and comes back later.
    pub fn client(&mut self, n: N) {
        let every = self.traits.client_every;
        let again = self.between(every / 2, every * 3 / 2);
        self.after(again, Event::Client(n));
        if !self.machines[n].up {
            return;
        }
        let instance = &mut self.pg[n];
        let (Some(server), Some(written)) = (instance.server.as_mut(), instance.disk.written) else {
            return;
        };
        // With the postmaster dead or doomed, those who are connected go on.
        if instance.disk.full || server.phase != Phase::Primary || server.waiting.len() >= self.traits.clients {
            return;
        }
        let at = Pos {
            lsn: written.lsn + 1,
            ..written
        };
        server.waiting.push_back(Commit { at, flushed: false });
        instance.disk.written = Some(at);
        let after = self.between(MS / 5, 3 * MS);
        self.inside(n, after, Inside::Flushed(at));
    }
}
