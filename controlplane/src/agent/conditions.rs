//! What is wrong with this node, one line each, as its reports carry it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Longest line, in characters.
const LINE: usize = 300;

/// The node's conditions. Clones are the same.
#[derive(Debug, Clone)]
pub struct Conditions(Arc<watch::Sender<BTreeMap<String, String>>>);

impl Default for Conditions {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Conditions {
    /// Sets a condition, or changes its line. Returns whether that is news.
    pub fn set(&self, key: &str, line: &str) -> bool {
        let line: String = line
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LINE)
            .collect();
        self.0
            .send_if_modified(|all| all.insert(key.to_owned(), line.clone()).is_none_or(|old| old != line))
    }

    /// It is mended. Returns whether it was set.
    pub fn clear(&self, key: &str) -> bool {
        self.0.send_if_modified(|all| all.remove(key).is_some())
    }

    /// Clears those under `prefix` whose rest is none of `names`.
    pub fn keep_only(&self, prefix: &str, names: &[&str]) {
        self.0.send_if_modified(|all| {
            let before = all.len();
            all.retain(|key, _| key.strip_prefix(prefix).is_none_or(|name| names.contains(&name)));
            all.len() != before
        });
    }

    /// The lines, in a stable order.
    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().values().cloned().collect()
    }

    /// Tells of changes.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_are_told() {
        let conditions = Conditions::default();
        let mut changes = conditions.changes();
        assert!(conditions.set("disk", "full\u{1b}[2J"));
        assert!(!conditions.set("disk", "full\u{1b}[2J"));
        assert!(changes.has_changed().unwrap());
        assert_eq!(conditions.lines(), ["full [2J"]);
        changes.mark_unchanged();
        assert!(!conditions.clear("other"));
        assert!(!changes.has_changed().unwrap());
        conditions.set("hook/a", "a");
        conditions.set("hook/b", "b");
        conditions.keep_only("hook/", &["b"]);
        assert_eq!(conditions.lines(), ["full [2J", "b"]);
        conditions.keep_only("hook/", &[]);
        assert!(conditions.clear("disk"));
        assert!(conditions.lines().is_empty());
    }
}
