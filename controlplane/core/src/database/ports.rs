//! The ports of groups: those of the proxies are open on every node, those of PostgreSQL on the nodes of its instances. Two
//! that want the same one are found before either is stored, not when a daemon cannot listen.

use super::spec::{GroupSpec, PROXY_PORTS, ProxySpec};
use crate::refusal::Refusal;

/// A port that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Where; none: on every node.
    pub node: Option<String>,
    /// Who, for people: "the proxy of group main".
    pub who: String,
}

impl Listener {
    fn meets(&self, other: &Self) -> bool {
        let together = self.node.is_none() || other.node.is_none() || self.node == other.node;
        self.port == other.port && together
    }
}

/// Where a group listens; `nodes` have an instance of it, or are to have one.
pub fn listeners<'a>(name: &str, spec: &GroupSpec, nodes: impl IntoIterator<Item = &'a String>) -> Vec<Listener> {
    let proxy = spec.proxy.ports().map(|port| Listener {
        port,
        node: None,
        who: format!("the proxy of group {name}"),
    });
    let instances = nodes.into_iter().map(|node| Listener {
        port: spec.port(node),
        node: Some(node.clone()),
        who: format!("PostgreSQL of group {name}"),
    });
    proxy.chain(instances).collect()
}

/// Refuses what is wanted of a group where one of its ports is another's, or two of its own meet.
///
/// # Errors
/// `HA0428`, which names the port, the node and who has it.
pub fn check(own: &[Listener], others: &[Listener]) -> Result<(), Refusal> {
    for (i, mine) in own.iter().enumerate() {
        let Some(taken) = own[..i].iter().chain(others).find(|o| o.meets(mine)) else {
            continue;
        };
        let node = mine.node.as_ref().or(taken.node.as_ref());
        let place = node.map_or_else(|| "every node".to_owned(), Clone::clone);
        return Err(Refusal::new(
            "HA0428",
            format!("{} cannot listen on port {} of {place}", mine.who, mine.port),
        )
        .why(format!("{} does", taken.who))
        .next(if mine.node.is_none() {
            "hactl db config set proxy.port=PORT proxy.standbyPort=PORT"
        } else {
            "hactl db create NAME --port PORT"
        }));
    }
    Ok(())
}

/// Chooses the ports of the proxies that nobody gave: the first two neighbours that are free.
pub fn choose(proxy: &mut ProxySpec, primary: bool, standbys: bool, others: &[Listener]) {
    let free = |port: u16| !others.iter().any(|o| o.port == port);
    let pairs = (PROXY_PORTS..u16::MAX - 1).step_by(2);
    let mut free = pairs.filter(|p| free(*p) && free(*p + 1));
    match (primary, standbys) {
        (true, true) => {
            if let Some(port) = free.next() {
                (proxy.port, proxy.standby_port) = (Some(port), Some(port + 1));
            }
        }
        (true, false) => proxy.port = free.find(|p| proxy.standby_port != Some(*p)).or(proxy.port),
        (false, true) => {
            let port = free.map(|p| p + 1).find(|p| proxy.port != Some(*p));
            proxy.standby_port = port.or(proxy.standby_port);
        }
        (false, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, ports: (Option<u16>, Option<u16>), port: u16, nodes: &[&str]) -> Vec<Listener> {
        let mut spec = GroupSpec::on(nodes.iter().copied());
        (spec.proxy.port, spec.proxy.standby_port) = ports;
        spec.port = port;
        listeners(name, &spec, spec.nodes.keys())
    }

    #[test]
    fn two_groups_need_ports_of_their_own() {
        let first = group("main", (Some(5000), Some(5001)), 5432, &["n1", "n2"]);
        let of = |ports, port, nodes: &[&str]| {
            let refused = check(&group("other", ports, port, nodes), &first).err();
            refused.map(|r| (r.code, r.message, r.why.join(" ")))
        };
        assert_eq!(of((Some(5002), Some(5003)), 5433, &["n1"]), None);
        // PostgreSQL's port may be used again on another node, the proxies' ports nowhere.
        assert_eq!(of((Some(5002), None), 5432, &["n3"]), None);
        assert_eq!(of((None, None), 5432, &["n3"]), None);
        let (code, message, why) = of((Some(5002), None), 5432, &["n2", "n3"]).unwrap();
        assert_eq!((code, why.as_str()), ("HA0428", "PostgreSQL of group main does"));
        assert_eq!(message, "PostgreSQL of group other cannot listen on port 5432 of n2");
        let (_, message, why) = of((Some(5001), None), 5433, &["n3"]).unwrap();
        assert_eq!(
            message,
            "the proxy of group other cannot listen on port 5001 of every node"
        );
        assert_eq!(why, "the proxy of group main does");
        assert!(of((Some(5432), None), 5433, &["n3"]).is_some(), "a proxy is on n1 too");
        assert!(of((Some(6000), None), 5000, &["n3"]).is_some(), "and main's is on n3");
        assert!(of((Some(6000), None), 6000, &["n3"]).is_some(), "its own two meet");
        let daemon = Listener {
            port: 7401,
            node: Some("n1".into()),
            who: "had".into(),
        };
        let refused = check(&group("other", (Some(7401), None), 5432, &["n3"]), &[daemon]);
        assert!(refused.unwrap_err().message.ends_with("port 7401 of n1"));
    }

    #[test]
    fn free_neighbours_are_chosen() {
        let chosen = |given: (Option<u16>, Option<u16>), others: &[Listener]| {
            let mut proxy = ProxySpec {
                port: given.0,
                standby_port: given.1,
                ..ProxySpec::default()
            };
            choose(&mut proxy, given.0.is_none(), given.1.is_none(), others);
            (proxy.port, proxy.standby_port)
        };
        let first = group("main", (Some(5000), Some(5001)), 5003, &["n1"]);
        assert_eq!(chosen((None, None), &[]), (Some(5000), Some(5001)));
        assert_eq!(chosen((None, None), &first), (Some(5004), Some(5005)));
        assert_eq!(chosen((Some(6000), None), &first), (Some(6000), Some(5005)));
        assert_eq!(chosen((None, Some(5004)), &first), (Some(5006), Some(5004)));
    }
}
