//! Parameters that a standby must not have lower than its primary, for its replay would stop: who is restarted first.
//!
//! Raised, they are raised on the standbys first, and a switchover brings them to a standby that has them. Lowered, they are
//! lowered on the primary first, *in place*: every standby has more, and would bring that along as the new primary.

use std::collections::BTreeMap;

/// The parameters.
pub const NAMES: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Their values, in the order of [`NAMES`].
pub type Floors = [u32; 5];

/// Their values where a group sets none: PostgreSQL's own, and had's for `max_wal_senders`.
pub const DEFAULTS: Floors = [100, 8, 24, 0, 64];

/// The values that a group's parameters ask for.
pub fn wanted(parameters: &BTreeMap<String, String>) -> Floors {
    let mut all = DEFAULTS;
    for (value, name) in all.iter_mut().zip(NAMES) {
        let set = parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        *value = set.and_then(|(_, v)| v.trim().parse().ok()).unwrap_or(*value);
    }
    all
}

/// Those that are lower in `a` than in `b`.
pub fn lower(a: &Floors, b: &Floors) -> Vec<&'static str> {
    let all = NAMES.into_iter().zip(a.iter().zip(b));
    all.filter(|(_, (a, b))| a < b).map(|(name, _)| name).collect()
}

/// Of the instances that are still to be restarted, those whose turn it is. `lowers`: the primary is to come down, in place.
/// `raises`: standbys that run with less than is wanted.
pub fn turn<'a>(left: &[&'a str], primary: Option<&str>, lowers: bool, raises: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let (own, standbys): (Vec<&str>, Vec<&str>) = left.iter().copied().partition(|n| primary == Some(n));
    let before: Vec<&str> = standbys
        .iter()
        .copied()
        .filter(|n| !lowers || own.is_empty() || raises(n))
        .collect();
    if before.is_empty() { own } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_a_group_asks_for() {
        assert_eq!(wanted(&set(&[("work_mem", "4MB")])), DEFAULTS);
        let some = set(&[("Max_Connections", " 300 "), ("max_prepared_transactions", "10")]);
        assert_eq!(wanted(&some), [300, 8, 24, 10, 64]);
        assert_eq!(
            lower(&DEFAULTS, &wanted(&some)),
            ["max_connections", "max_prepared_transactions"]
        );
        assert!(lower(&wanted(&some), &DEFAULTS).is_empty());
    }

    #[test]
    fn raising_ends_with_the_primary_and_lowering_begins_with_it() {
        let all = ["a", "b", "c"];
        let none = |_: &str| false;
        let all_of = |_: &str| true;
        assert_eq!(turn(&all, Some("a"), false, all_of), ["b", "c"]);
        assert_eq!(turn(&["a"], Some("a"), false, none), ["a"]);
        assert_eq!(turn(&all, Some("a"), true, none), ["a"]);
        assert_eq!(turn(&["b", "c"], Some("a"), true, none), ["b", "c"]);
        // Both at once: no standby has less than a primary that takes both over.
        assert_eq!(turn(&all, Some("a"), true, |n| n == "c"), ["c"]);
        assert_eq!(turn(&["a", "b"], Some("a"), true, none), ["a"]);
        assert_eq!(turn(&["b"], None, false, none), ["b"]);
    }
}
