//! The tree of nodes as ZooKeeper keeps it: versions, transaction numbers, owners, counters. No time, no sessions, no
//! I/O.
//!
//! It must never change anything without a new transaction number, nor let a failed request take one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::path::parent;
use super::super::session::WatchKind;
use super::super::{CoordError, CreateMode, Result, Stat};

/// One request.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Create {
        path: String,
        data: Vec<u8>,
        mode: CreateMode,
    },
    Read {
        path: String,
        watch: bool,
    },
    Set {
        path: String,
        data: Vec<u8>,
        version: i32,
    },
    Delete {
        path: String,
        version: i32,
    },
    Children {
        path: String,
        watch: bool,
    },
    Ping,
}

impl Op {
    pub(super) fn path(&self) -> &str {
        match self {
            Op::Create { path, .. }
            | Op::Read { path, .. }
            | Op::Set { path, .. }
            | Op::Delete { path, .. }
            | Op::Children { path, .. } => path,
            Op::Ping => "",
        }
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self, Op::Create { .. } | Op::Set { .. } | Op::Delete { .. })
    }

    /// The watch this request leaves behind.
    pub(super) fn watch(&self) -> Option<WatchKind> {
        match self {
            Op::Read { watch: true, .. } => Some(WatchKind::Node),
            Op::Children { watch: true, .. } => Some(WatchKind::Children),
            _ => None,
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Reply {
    Created(String, Stat),
    Node(Option<(Vec<u8>, Stat)>),
    Stat(Stat),
    Names(Vec<String>),
    Done,
}

/// Something that watches fire on.
pub(super) type Event = (WatchKind, String);

#[derive(Debug, Clone)]
struct Node {
    data: Vec<u8>,
    stat: Stat,
    children: BTreeSet<String>,
    /// Children ever created: the counter of sequential names.
    created: u32,
}

/// What a node was after which transaction.
type Past = Vec<(i64, Option<Arc<Node>>)>;

#[derive(Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Arc<Node>>,
    zxid: i64,
    /// Kept only while some reader may lag.
    history: Option<BTreeMap<String, Past>>,
}

impl Tree {
    pub(super) fn zxid(&self) -> i64 {
        self.zxid
    }

    /// Every node, for assertions.
    pub(super) fn dump(&self) -> BTreeMap<String, (Vec<u8>, Stat)> {
        self.nodes
            .iter()
            .map(|(path, node)| (path.clone(), (node.data.clone(), node.stat)))
            .collect()
    }

    /// Begins to remember older values, for readers that lag.
    pub(super) fn keep_history(&mut self) {
        self.history.get_or_insert_default();
    }

    /// Forgets what no reader at or after transaction `horizon` can see.
    pub(super) fn forget(&mut self, horizon: i64) {
        if let Some(history) = &mut self.history {
            history.retain(|_, entries| {
                let keep = entries.iter().rposition(|(z, _)| *z <= horizon).unwrap_or(0);
                entries.drain(..keep);
                // A single entry at or before the horizon says no more than the tree itself.
                entries.len() > 1 || entries.first().is_some_and(|(z, _)| *z > horizon)
            });
        }
    }

    /// Carries out a write for `session` and tells what it fires.
    pub(super) fn write(&mut self, op: &Op, session: i64, events: &mut Vec<Event>) -> Result<Reply> {
        match op {
            Op::Create { path, data, mode } => self.create(path, data, *mode, session, events),
            Op::Set { path, data, version } => {
                let node = self.nodes.get(path).ok_or_else(|| CoordError::NotFound(path.clone()))?;
                if node.stat.version != *version {
                    return Err(CoordError::BadVersion(path.clone()));
                }
                self.zxid += 1;
                let mut node = Node::clone(node);
                node.data.clone_from(data);
                node.stat.version += 1;
                node.stat.modified = self.zxid;
                let stat = node.stat;
                self.put(path, Some(node));
                events.push((WatchKind::Node, path.clone()));
                Ok(Reply::Stat(stat))
            }
            Op::Delete { path, version } => {
                let node = self.nodes.get(path).ok_or_else(|| CoordError::NotFound(path.clone()))?;
                if node.stat.version != *version {
                    return Err(CoordError::BadVersion(path.clone()));
                }
                if !node.children.is_empty() {
                    return Err(CoordError::NotEmpty(path.clone()));
                }
                self.zxid += 1;
                self.remove(path, events);
                Ok(Reply::Done)
            }
            Op::Read { path, .. } | Op::Children { path, .. } => Err(CoordError::Invalid(path.clone())),
            Op::Ping => Ok(Reply::Done),
        }
    }

    /// Answers a read as it was after transaction `view` (or now, if that is later than anything).
    pub(super) fn read(&self, op: &Op, view: i64) -> Result<Reply> {
        match op {
            Op::Read { path, .. } => Ok(Reply::Node(self.view(path, view).map(|n| (n.data.clone(), n.stat)))),
            Op::Children { path, .. } => match self.view(path, view) {
                Some(node) => Ok(Reply::Names(node.children.iter().cloned().collect())),
                None => Err(CoordError::NotFound(path.clone())),
            },
            Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path, .. } => {
                Err(CoordError::Invalid(path.clone()))
            }
            Op::Ping => Ok(Reply::Done),
        }
    }

    /// Deletes the ephemerals of a session that ended, in one transaction, and returns their paths.
    pub(super) fn end_session(&mut self, session: i64, events: &mut Vec<Event>) -> Vec<String> {
        let owned = self
            .nodes
            .iter()
            .filter(|(_, n)| n.stat.owner == session)
            .map(|(p, _)| p.clone());
        let owned: Vec<String> = owned.collect();
        self.zxid += 1;
        for path in &owned {
            self.remove(path, events);
        }
        owned
    }

    fn create(
        &mut self,
        path: &str,
        data: &[u8],
        mode: CreateMode,
        session: i64,
        events: &mut Vec<Event>,
    ) -> Result<Reply> {
        let mut name = path.to_owned();
        if !path.is_empty() {
            let above = self
                .nodes
                .get(parent(path))
                .ok_or_else(|| CoordError::NotFound(path.to_owned()))?;
            if above.stat.owner != 0 {
                return Err(CoordError::Invalid(format!(
                    "{path}: an ephemeral node has no children"
                )));
            }
            if mode == CreateMode::EphemeralSequential {
                name = format!("{path}{:010}", above.created);
            }
        }
        if self.nodes.contains_key(&name) {
            return Err(CoordError::Exists(name));
        }
        self.zxid += 1;
        if !path.is_empty()
            && let Some(above) = self.nodes.get(parent(path))
        {
            let mut above = Node::clone(above);
            above.created += 1;
            above.children.insert(name[parent(path).len() + 1..].to_owned());
            self.put(parent(path), Some(above));
            events.push((WatchKind::Children, parent(path).to_owned()));
        }
        let owner = if mode == CreateMode::Persistent { 0 } else { session };
        let stat = Stat {
            version: 0,
            created: self.zxid,
            modified: self.zxid,
            owner,
        };
        self.put(
            &name,
            Some(Node {
                data: data.to_vec(),
                stat,
                children: BTreeSet::new(),
                created: 0,
            }),
        );
        events.push((WatchKind::Node, name.clone()));
        Ok(Reply::Created(name, stat))
    }

    /// Takes a node out, under the present transaction number.
    fn remove(&mut self, path: &str, events: &mut Vec<Event>) {
        self.put(path, None);
        events.push((WatchKind::Node, path.to_owned()));
        events.push((WatchKind::Children, path.to_owned()));
        if !path.is_empty()
            && let Some(above) = self.nodes.get(parent(path))
        {
            let mut above = Node::clone(above);
            above.children.remove(&path[parent(path).len() + 1..]);
            self.put(parent(path), Some(above));
            events.push((WatchKind::Children, parent(path).to_owned()));
        }
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        let node = node.map(Arc::new);
        if let Some(history) = &mut self.history {
            let before = self.nodes.get(path).cloned();
            let entries = history.entry(path.to_owned()).or_insert_with(|| vec![(0, before)]);
            entries.push((self.zxid, node.clone()));
        }
        match node {
            Some(node) => self.nodes.insert(path.to_owned(), node),
            None => self.nodes.remove(path),
        };
    }

    fn view(&self, path: &str, view: i64) -> Option<&Node> {
        let past = self.history.as_ref().and_then(|h| h.get(path));
        let past = past.and_then(|entries| entries.iter().rev().find(|(z, _)| *z <= view));
        match past {
            Some((_, node)) => node.as_deref(),
            None => self.nodes.get(path).map(Arc::as_ref),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(tree: &mut Tree, path: &str, mode: CreateMode, events: &mut Vec<Event>) -> Result<String> {
        let op = Op::Create {
            path: path.into(),
            data: b"x".to_vec(),
            mode,
        };
        match tree.write(&op, 7, events)? {
            Reply::Created(path, _) => Ok(path),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn counters_count_every_child_and_survive_deletes() {
        let (mut tree, mut ev) = (Tree::default(), Vec::new());
        create(&mut tree, "", CreateMode::Persistent, &mut ev).unwrap();
        assert!(matches!(
            create(&mut tree, "/a/b", CreateMode::Persistent, &mut ev),
            Err(CoordError::NotFound(_))
        ));
        create(&mut tree, "/e", CreateMode::Persistent, &mut ev).unwrap();
        let seq = CreateMode::EphemeralSequential;
        assert_eq!(create(&mut tree, "/e/c-", seq, &mut ev).unwrap(), "/e/c-0000000000");
        create(&mut tree, "/e/x", CreateMode::Ephemeral, &mut ev).unwrap();
        tree.write(
            &Op::Delete {
                path: "/e/x".into(),
                version: 0,
            },
            7,
            &mut ev,
        )
        .unwrap();
        assert_eq!(create(&mut tree, "/e/c-", seq, &mut ev).unwrap(), "/e/c-0000000002");
        assert!(matches!(
            create(&mut tree, "/e/c-0000000002/z", seq, &mut ev),
            Err(CoordError::Invalid(_))
        ));
        let before = tree.zxid();
        assert!(
            tree.write(
                &Op::Delete {
                    path: "/e".into(),
                    version: 0
                },
                7,
                &mut ev
            )
            .is_err()
        );
        assert_eq!(tree.zxid(), before);
        ev.clear();
        tree.end_session(7, &mut ev);
        assert_eq!(tree.dump().keys().collect::<Vec<_>>(), ["", "/e"]);
        assert!(ev.contains(&(WatchKind::Children, "/e".into())));
    }

    #[test]
    fn a_lagging_reader_sees_one_consistent_past() {
        let (mut tree, mut ev) = (Tree::default(), Vec::new());
        tree.keep_history();
        create(&mut tree, "", CreateMode::Persistent, &mut ev).unwrap();
        create(&mut tree, "/a", CreateMode::Persistent, &mut ev).unwrap();
        let then = tree.zxid();
        tree.write(
            &Op::Set {
                path: "/a".into(),
                data: b"y".to_vec(),
                version: 0,
            },
            7,
            &mut ev,
        )
        .unwrap();
        create(&mut tree, "/b", CreateMode::Persistent, &mut ev).unwrap();
        let read = |tree: &Tree, path: &str, view| match tree.read(
            &Op::Read {
                path: path.into(),
                watch: false,
            },
            view,
        ) {
            Ok(Reply::Node(node)) => node.map(|(data, _)| data),
            other => panic!("{other:?}"),
        };
        let names = |tree: &Tree, view| match tree.read(
            &Op::Children {
                path: String::new(),
                watch: false,
            },
            view,
        ) {
            Ok(Reply::Names(names)) => names,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (read(&tree, "/a", then), read(&tree, "/b", then)),
            (Some(b"x".to_vec()), None)
        );
        assert_eq!(
            (names(&tree, then), names(&tree, i64::MAX)),
            (vec!["a".to_owned()], vec!["a".into(), "b".into()])
        );
        tree.forget(tree.zxid());
        assert_eq!(read(&tree, "/a", tree.zxid()), Some(b"y".to_vec()));
        assert_eq!(tree.history.as_ref().map(BTreeMap::len), Some(0));
    }
}
