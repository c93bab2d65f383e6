//! The exhaustive search: three instances in an abstract world that drives the same two machines of the core, every order of
//! steps up to bounds, each state visited once.
//!
//! Time is abstract. A decision is made as if no limit had passed or as if all had; a silent node's lease ends whenever
//! the search wants, which takes its server with it. What [`super::run()`] simulates finely (walsenders that follow late,
//! receivers that outlive a reload) is kept; what it simulates at random (latency, sessions, masters) is left out.

pub mod model;
pub mod observe;
pub mod step;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ha_core::database::Weaken;

use model::{Model, State};
use step::Step;

/// How far the search goes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Commits of clients.
    pub commits: u8,
    /// Killed servers.
    pub crashes: u8,
    /// Nodes that fall silent.
    pub silences: u8,
    /// Standbys whose replay stands still.
    pub stuck: u8,
    /// Failovers that an operator asks for.
    pub demands: u8,
    /// Decisions that are made as if every limit had passed.
    pub longs: u8,
    /// Epochs beyond the first.
    pub epochs: u64,
    /// Steps from the beginning: every way of so many steps is gone.
    pub depth: usize,
    /// States after which the search gives up being exhaustive.
    pub states: usize,
}

impl Bounds {
    /// What is searched with every test run.
    pub fn usual() -> Self {
        Self {
            commits: 1,
            crashes: 2,
            silences: 1,
            stuck: 1,
            demands: 1,
            longs: 1,
            epochs: 2,
            depth: 8,
            states: 1_000_000,
        }
    }

    /// Deeper, where fewer things happen: enough to see that a rule is missing.
    pub fn deep() -> Self {
        Self {
            silences: 0,
            stuck: 0,
            demands: 0,
            longs: 0,
            depth: 12,
            ..Self::usual()
        }
    }

    /// Deeper, about a primary that does not hear of its successor.
    pub fn unheard() -> Self {
        Self {
            crashes: 0,
            longs: 0,
            depth: 12,
            ..Self::usual()
        }
    }
}

/// What the search found.
#[derive(Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// Longest way from the beginning.
    pub depth: usize,
    /// Nothing was left out within the bounds.
    pub exhausted: bool,
    /// The rule that did not hold, and the way there.
    pub violation: Option<(String, Vec<String>)>,
}

struct Seen {
    state: State,
    depth: usize,
    from: usize,
    by: Option<Step>,
}

fn hash(state: &State) -> u128 {
    let (mut one, mut two) = (DefaultHasher::new(), DefaultHasher::new());
    state.hash(&mut one);
    two.write_u8(1);
    state.hash(&mut two);
    u128::from(one.finish()) << 64 | u128::from(two.finish())
}

/// Searches every state within the bounds, breadth first, from a group that is whole.
pub fn search(bounds: Bounds, weaken: Weaken) -> Found {
    let mut model = Model::new(weaken);
    let mut found = Found {
        states: 0,
        steps: 0,
        depth: 0,
        exhausted: true,
        violation: None,
    };
    let start = match model.whole() {
        Ok(start) => start,
        Err(e) => {
            found.violation = Some((e, Vec::new()));
            return found;
        }
    };
    let start = start.with(bounds, &model);
    let mut known = HashSet::new();
    known.insert(hash(&start));
    let mut all = vec![Seen {
        state: start,
        depth: 0,
        from: 0,
        by: None,
    }];
    let mut queue = VecDeque::from([0]);
    while let Some(at) = queue.pop_front() {
        let depth = all[at].depth + 1;
        if depth > bounds.depth {
            continue;
        }
        for step in model.steps(&all[at].state) {
            let mut state = all[at].state.clone();
            found.steps += 1;
            let result = model.take(&mut state, step);
            if let Err(violation) = result {
                let mut way = way(&all, at);
                way.push(format!("{step:?}"));
                found.states = known.len();
                found.violation = Some((violation, way));
                return found;
            }
            if !known.insert(hash(&state)) {
                continue;
            }
            found.depth = found.depth.max(depth);
            if all.len() >= bounds.states {
                found.exhausted = false;
                continue;
            }
            all.push(Seen {
                state,
                depth,
                from: at,
                by: Some(step),
            });
            queue.push_back(all.len() - 1);
        }
        // The way back is kept, the state is not needed any more.
        if all.len() > 1 && at > 0 {
            all[at].state = State::default();
        }
    }
    found.states = known.len();
    found
}

fn way(all: &[Seen], mut at: usize) -> Vec<String> {
    let mut way = Vec::new();
    while let Some(by) = all[at].by {
        way.push(format!("{by:?}"));
        at = all[at].from;
    }
    way.reverse();
    way
}
