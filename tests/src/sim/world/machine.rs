//! A machine: what stays of a node when its daemon's process ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use controlplane::platform::Clock;
use controlplane::shared::Shared;

use super::super::executor::Group;

/// What a node's subscriber of changes has seen; kept over restarts of its daemon.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Number of the last change handed to it.
    pub last: Option<u64>,
    /// Number and kind of each, in order.
    pub changes: Vec<(u64, String)>,
}

/// A daemon's process.
pub struct Process {
    /// Its number.
    pub group: Group,
    /// What the daemon shows.
    pub shared: Shared,
}

/// A machine with the state directory of one node.
pub struct Machine {
    /// The node it is.
    pub node: String,
    /// Its name as a client of the server and in the trace; a node's twin has another.
    pub label: String,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) token: String,
    pub(super) boot_id: String,
    pub(super) starts: Cell<u32>,
    /// Restarted when it ends, as the service manager does.
    pub wanted: Cell<bool>,
    pub(super) process: RefCell<Option<Rc<Process>>>,
    /// What its subscriber has seen.
    pub seen: RefCell<Seen>,
}

impl Machine {
    /// The daemon's process, if there is one.
    pub fn process(&self) -> Option<Rc<Process>> {
        self.process.borrow().clone()
    }
}
