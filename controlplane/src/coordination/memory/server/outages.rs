//! What happens to the server's connections from outside: broken, silent, crashed. Sessions outlive it by their timeout.

use tokio::time::Instant;

use super::{Session, State};

impl State {
    pub(in crate::coordination::memory) fn disconnect(&mut self, client: &str) {
        self.refused.insert(client.to_owned());
        self.detach_all(|s| s.client == client);
    }

    pub(in crate::coordination::memory) fn partition(&mut self, client: &str) {
        self.silent.insert(client.to_owned());
    }

    pub(in crate::coordination::memory) fn reconnect(&mut self, client: &str, now: Instant) {
        self.refused.remove(client);
        self.silent.remove(client);
        for request in std::mem::take(&mut self.held) {
            let session = self.sessions.get(&request.session);
            if session.is_some_and(|s| s.client != client) {
                self.held.push(request);
            } else if session.is_some_and(|s| s.connection == request.connection) {
                self.enqueue(now, request);
            }
        }
    }

    pub(in crate::coordination::memory) fn crash(&mut self) {
        self.down = true;
        self.frozen = false;
        self.queue.clear();
        self.held.clear();
        self.detach_all(|_| true);
    }

    pub(in crate::coordination::memory) fn recover(&mut self, now: Instant) {
        self.down = false;
        for session in self.sessions.values_mut() {
            session.heard = now;
        }
    }

    fn detach_all(&mut self, which: impl Fn(&Session) -> bool) {
        let ids: Vec<i64> = self
            .sessions
            .iter()
            .filter(|(_, s)| which(s))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.detach(id);
        }
    }

    pub(in crate::coordination::memory) fn expire_client(&mut self, client: &str, now: Instant) {
        let ids: Vec<i64> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.client == client)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.end(id, now);
        }
    }
}
