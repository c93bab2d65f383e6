//! What the cluster finds wrong or risky with itself: each check says what it saw and what to do.

use ha_core::alert::CLOCK_SKEW_MS;
use ha_proto::v1;

use crate::postgres::install::Release;

fn check(name: &str, severity: v1::Severity, text: impl Into<String>, hint: impl Into<String>) -> v1::DoctorCheck {
    v1::DoctorCheck {
        name: name.to_owned(),
        severity: severity.into(),
        text: text.into(),
        hint: hint.into(),
    }
}

fn good(name: &str, text: impl Into<String>) -> v1::DoctorCheck {
    check(name, v1::Severity::Info, text, "")
}

/// Examines the state.
pub(super) fn report(state: &v1::ClusterState) -> v1::DoctorReport {
    let mut checks = vec![zookeeper(state), zookeeper_versions(state), session_timeout(state)];
    checks.extend(zookeeper_losses(state));
    checks.extend(zookeeper_leader(state));
    checks.extend(zookeeper_size(state));
    checks.push(eligible(state));
    checks.push(versions(state));
    checks.push(clocks(state));
    checks.extend(maintenance(state));
    checks.extend(releases(state));
    checks.extend(state.alerts.iter().map(|a| {
        check(
            &format!("alert.{}", a.id.replace('/', ".")),
            a.severity(),
            &a.text,
            &a.hint,
        )
    }));
    v1::DoctorReport { checks }
}

fn zookeeper(state: &v1::ClusterState) -> v1::DoctorCheck {
    const NAME: &str = "zookeeper.quorum";
    let (all, up) = (
        state.zookeeper.len(),
        state.zookeeper.iter().filter(|s| s.reachable).count(),
    );
    if all == 0 {
        return check(
            NAME,
            v1::Severity::Warning,
            "the servers have not been looked at yet",
            "try again in a few seconds",
        );
    }
    if up == all {
        return good(NAME, format!("{up} of {all} servers answer"));
    }
    let down: Vec<&str> = state
        .zookeeper
        .iter()
        .filter(|s| !s.reachable)
        .map(|s| s.address.as_str())
        .collect();
    let severity = if up * 2 <= all {
        v1::Severity::Error
    } else {
        v1::Severity::Warning
    };
    check(
        NAME,
        severity,
        format!("{up} of {all} servers answer; not {}", down.join(", ")),
        "start the missing servers",
    )
}

fn zookeeper_size(state: &v1::ClusterState) -> Option<v1::DoctorCheck> {
    const NAME: &str = "zookeeper.size";
    match state.zookeeper.len() {
        0 => None,
        1 => Some(check(
            NAME,
            v1::Severity::Warning,
            "one ZooKeeper server: nothing can be decided while it is down",
            "use three servers, on machines of their own where possible",
        )),
        n if n % 2 == 0 => Some(check(
            NAME,
            v1::Severity::Warning,
            format!("{n} ZooKeeper servers tolerate no more losses than {}", n - 1),
            "use an odd number of servers",
        )),
        n => Some(good(NAME, format!("{n} servers tolerate the loss of {}", (n - 1) / 2))),
    }
}

fn zookeeper_versions(state: &v1::ClusterState) -> v1::DoctorCheck {
    const NAME: &str = "zookeeper.version";
    let mut versions: Vec<&str> = state
        .zookeeper
        .iter()
        .map(|s| s.version.as_str())
        .filter(|v| !v.is_empty())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => good(NAME, "the servers do not tell their version (4lw srvr is not allowed)"),
        [one] => good(NAME, format!("all servers run {one}")),
        many => check(
            NAME,
            v1::Severity::Warning,
            format!("the servers run different versions: {}", many.join(", ")),
            "bring them to one version",
        ),
    }
}

/// The first release of ZooKeeper in which none of the ways is known in which an ensemble forgets what it had
/// acknowledged: ZOOKEEPER-4785 (until 3.9.1, and all of 3.8 as far as its release notes tell), ZOOKEEPER-4712 (until
/// 3.9.2), ZOOKEEPER-4925 (3.9.3).
const NO_KNOWN_LOSS: (u32, u32, u32) = (3, 9, 4);

/// Ensembles whose servers may lose acknowledged writes when several of them stop and start. One server alone has no
/// follower that could forget.
fn zookeeper_losses(state: &v1::ClusterState) -> Option<v1::DoctorCheck> {
    const NAME: &str = "zookeeper.release";
    if state.zookeeper.len() < 2 {
        return None;
    }
    let mut seen: Vec<(u32, u32, u32)> = state.zookeeper.iter().filter_map(|s| release(&s.version)).collect();
    seen.sort_unstable();
    let &(major, minor, patch) = seen.first()?;
    if (major, minor, patch) >= NO_KNOWN_LOSS {
        let text = format!("ZooKeeper {major}.{minor}.{patch} has no known way to forget acknowledged writes");
        return Some(good(NAME, text));
    }
    Some(check(
        NAME,
        v1::Severity::Warning,
        format!(
            "ZooKeeper {major}.{minor}.{patch} may forget acknowledged writes when its servers are lost and return \
             (ZOOKEEPER-4785, ZOOKEEPER-4712, ZOOKEEPER-4925)"
        ),
        "run ZooKeeper 3.9.4 or later on every server",
    ))
}

/// What an ensemble takes to elect its leader once the loss of the last one is noticed, in milliseconds: ZooKeeper's own
/// pause before it ends an election (200 ms), and the new leader's synchronisation.
const ZOOKEEPER_ELECTION_MS: u64 = 500;

/// A leader that falls silent is given up after `tickTime × syncLimit`; until the next one leads, nobody's session is
/// confirmed. A lease lasts two thirds of the session timeout: if that runs out first, every database stops (R9).
fn zookeeper_leader(state: &v1::ClusterState) -> Option<v1::DoctorCheck> {
    const NAME: &str = "zookeeper.leader";
    let slowest = state.zookeeper.iter().map(|s| s.sync_timeout_ms).max()?;
    if state.zookeeper.len() < 2 || slowest == 0 {
        return None;
    }
    let lease = state.session_timeout_ms.saturating_mul(2) / 3;
    let away = slowest.saturating_add(ZOOKEEPER_ELECTION_MS);
    let seen = format!("a silent ZooKeeper leader is replaced in about {away} ms; leases last {lease} ms");
    if away > lease {
        let hint = "lower tickTime or syncLimit on every server: tickTime=500 and syncLimit=4 are advised";
        return Some(check(NAME, v1::Severity::Warning, seen, hint));
    }
    Some(good(NAME, seen))
}

/// The numbers at the start of a version as `srvr` prints it: `3.8.0-5a02a05, built on …`.
fn release(version: &str) -> Option<(u32, u32, u32)> {
    let numbers = version.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

fn session_timeout(state: &v1::ClusterState) -> v1::DoctorCheck {
    const NAME: &str = "zookeeper.session";
    let ms = state.session_timeout_ms;
    if ms > 10_000 {
        let text = format!("the session timeout is {ms} ms: a lost node is noticed only then");
        return check(NAME, v1::Severity::Warning, text, "4000 ms is advised");
    }
    good(
        NAME,
        format!("session timeout {ms} ms, granted by every server a session was opened with"),
    )
}

fn alive(node: &v1::Node) -> bool {
    use v1::NodeState::{Cordoned, Draining, Online};
    node.status
        .as_ref()
        .is_some_and(|s| matches!(s.state(), Online | Cordoned | Draining))
}

fn eligible(state: &v1::ClusterState) -> v1::DoctorCheck {
    const NAME: &str = "master.eligible";
    let able = |n: &&v1::Node| alive(n) && n.spec.as_ref().is_some_and(|s| s.master_eligible && !s.cordoned);
    match state.nodes.iter().filter(able).count() {
        0 | 1 => check(
            NAME,
            v1::Severity::Warning,
            "no other online node may become master if this one is lost",
            "hactl node set NODE --eligible true, or hactl node uncordon NODE",
        ),
        n => good(NAME, format!("{n} online nodes may be master")),
    }
}

fn versions(state: &v1::ClusterState) -> v1::DoctorCheck {
    const NAME: &str = "node.version";
    let mut versions: Vec<&str> = state
        .nodes
        .iter()
        .filter(|n| alive(n))
        .filter_map(|n| n.status.as_ref().map(|s| s.version.as_str()))
        .filter(|v| !v.is_empty())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let text = format!("the nodes run different versions of had: {}", versions.join(", "));
        return check(NAME, v1::Severity::Warning, text, "finish the upgrade");
    }
    good(
        NAME,
        format!("all online nodes run had {}", versions.first().unwrap_or(&"-")),
    )
}

fn clocks(state: &v1::ClusterState) -> v1::DoctorCheck {
    const NAME: &str = "node.clock";
    let worst = state
        .nodes
        .iter()
        .filter(|n| alive(n))
        .filter_map(|n| n.status.as_ref().map(|s| (s.clock_skew_ms.abs(), n.name.as_str())))
        .max();
    match worst {
        Some((skew, node)) if skew > CLOCK_SKEW_MS => check(
            NAME,
            v1::Severity::Warning,
            format!("the clock of {node} differs from the master's by {skew} ms"),
            "check the time service; leases do not depend on it, certificates and logs do",
        ),
        Some((skew, _)) => good(NAME, format!("clocks differ by at most {skew} ms")),
        None => good(NAME, "no node is online"),
    }
}

/// PostgreSQL's own floor (protocol R8).
fn releases(state: &v1::ClusterState) -> Option<v1::DoctorCheck> {
    const NAME: &str = "postgres.release";
    let instances = state.databases.iter().flat_map(|g| &g.instances);
    let mut seen: Vec<Release> = instances.filter_map(|i| Release::parse(&i.version)).collect();
    seen.sort_by_key(|r| (r.major, r.minor));
    seen.dedup();
    let newest = seen.last()?;
    let warnings: Vec<String> = seen.iter().filter_map(|r| r.warning()).collect();
    if warnings.is_empty() {
        return Some(good(
            NAME,
            format!("PostgreSQL {newest} has what is known to be needed"),
        ));
    }
    let hint = "install the newest minor release, then: hactl db restart --rolling";
    Some(check(NAME, v1::Severity::Warning, warnings.join("; "), hint))
}

fn maintenance(state: &v1::ClusterState) -> Option<v1::DoctorCheck> {
    let m = state.maintenance.as_ref().filter(|m| m.on)?;
    let open = m.until_unix_ms == 0;
    let text = if open {
        "maintenance is on without an end"
    } else {
        "maintenance is on"
    };
    let severity = if open {
        v1::Severity::Warning
    } else {
        v1::Severity::Info
    };
    Some(check(
        "cluster.maintenance",
        severity,
        text,
        "hactl cluster maintenance off",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensemble(servers: &[(&str, u64)]) -> v1::ClusterState {
        let server = |(version, sync_timeout_ms): &(&str, u64)| v1::ZooKeeperServer {
            reachable: true,
            version: (*version).to_owned(),
            sync_timeout_ms: *sync_timeout_ms,
            ..v1::ZooKeeperServer::default()
        };
        v1::ClusterState {
            session_timeout_ms: 4000,
            zookeeper: servers.iter().map(server).collect(),
            ..v1::ClusterState::default()
        }
    }

    #[test]
    fn releases_that_forget() {
        let severity = |versions: &[&str]| {
            let servers: Vec<(&str, u64)> = versions.iter().map(|v| (*v, 0)).collect();
            zookeeper_losses(&ensemble(&servers)).map(|c| c.severity())
        };
        let warning = Some(v1::Severity::Warning);
        assert_eq!(severity(&["3.8.0", "3.8.0", "3.8.0"]), warning);
        assert_eq!(severity(&["3.9.4", "3.9.3", "3.9.4"]), warning, "the oldest counts");
        assert_eq!(severity(&["3.9.4", "3.9.10", "3.10.0"]), Some(v1::Severity::Info));
        assert_eq!(severity(&["3.8.0"]), None, "one server has no follower");
        assert_eq!(severity(&["", "3.x", ""]), None, "nothing is known");
    }

    #[test]
    fn slow_leader_elections() {
        let severity = |sync_ms: &[u64]| {
            let servers: Vec<(&str, u64)> = sync_ms.iter().map(|t| ("3.9.4", *t)).collect();
            zookeeper_leader(&ensemble(&servers)).map(|c| c.severity())
        };
        assert_eq!(severity(&[2000, 2000, 2000]), Some(v1::Severity::Info));
        assert_eq!(severity(&[2000, 10_000, 2000]), Some(v1::Severity::Warning));
        assert_eq!(severity(&[0, 0, 0]), None, "conf is not allowed");
        assert_eq!(severity(&[10_000]), None, "one server elects nobody");
    }
}
