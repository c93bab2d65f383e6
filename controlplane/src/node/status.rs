//! Keeps the service manager informed.

use std::time::Duration;

use crate::coordination::SessionState;
use crate::platform::service::{Notice, notify, watchdog};
use crate::shared::Shared;

/// Tells that the daemon serves once it is registered, or after `patience`; from then on each change of its place, and
/// that it is alive. Ends when the daemon is told to end.
pub(super) async fn tell(shared: Shared, patience: Duration) {
    let (mut session, mut master) = (shared.session.clone(), shared.master.clone());
    let mut registered = shared.coordinator.clone();
    let mut ready = false;
    let mut late = std::pin::pin!(tokio::time::sleep(patience));
    let mut alive = tokio::time::interval(watchdog().unwrap_or(Duration::from_secs(3600)));
    let mut last = String::new();
    loop {
        session.mark_unchanged();
        master.mark_unchanged();
        if registered.borrow_and_update().is_some() && !ready {
            ready = true;
            notify(Notice::Ready);
        }
        let line = line(&shared);
        if line != last {
            notify(Notice::Status(&line));
            last = line;
        }
        tokio::select! {
            Ok(()) = session.changed() => {}
            Ok(()) = master.changed() => {}
            Ok(()) = registered.changed() => {}
            () = &mut late, if !ready => {
                ready = true;
                notify(Notice::Ready);
            }
            _ = alive.tick() => notify(Notice::Alive),
            () = shared.stop.cancelled() => return,
            () = shared.leave.cancelled() => return,
        }
    }
}

fn line(shared: &Shared) -> String {
    let (me, record) = (&shared.me, shared.master.borrow());
    let place = match (&*shared.session.borrow(), shared.coordinator.borrow().is_some()) {
        (SessionState::Live, true) => format!("{} of cluster {}", me.node, me.cluster),
        (SessionState::Suspended, true) => format!("{}: the connection to ZooKeeper is broken", me.node),
        _ => format!("{}: no session with ZooKeeper, trying", me.node),
    };
    match &record.holder {
        Some(holder) if holder.node == me.node => format!("{place}, master in term {}", record.term),
        Some(holder) => format!("{place}, master {} in term {}", holder.node, record.term),
        None => format!("{place}, no master"),
    }
}
