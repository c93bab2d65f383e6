//! Chooses addresses on loopback that nobody uses.
//!
//! Linux answers on all of 127.0.0.0/8, so that each node has an address of its own there, as real nodes have; elsewhere
//! all share 127.0.0.1 and differ by their ports.

use std::net::{Ipv4Addr, TcpListener};

use ha_proto::codes;

use super::place::Node;
use crate::error::CliError;
use crate::names;

/// Last number of ZooKeeper's address; the nodes follow it.
const FIRST: u8 = 10;
/// Below the ports that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Port of a node's HTTP endpoint, where it is free.
const HTTP_PORT: u16 = 7401;
/// Ports of a node's PostgreSQL, and of its proxy to the primary and the standbys.
const DATABASE_PORTS: [u16; 3] = [5432, 5000, 5001];
const TRIES: u32 = 200;

/// The addresses of a playground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Of the ZooKeeper server.
    pub(super) zookeeper: String,
    /// Of the nodes.
    pub(super) nodes: Vec<Node>,
}

/// Chooses addresses for this many nodes. `usual` asks for the usual ports where they are free; several playgrounds that
/// start at the same time would meet there.
///
/// # Errors
/// `HA0904` if no free port is found.
pub(super) fn choose(nodes: u8, usual: bool) -> Result<Addresses, CliError> {
    let own = Ipv4Addr::new(127, 0, 0, FIRST);
    let shared = TcpListener::bind((own, 0)).is_err();
    let mut held = Vec::new();
    let mut free = |host: u8, port: u16| -> Result<String, CliError> {
        let host = if shared {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::new(127, 0, 0, host)
        };
        let wanted = usual.then_some(port).into_iter();
        let random = std::iter::repeat_with(|| rand::random_range(PORTS)).take(TRIES as usize);
        for port in wanted.chain(random) {
            if let Ok(listener) = TcpListener::bind((host, port)) {
                // Held until all are chosen, so that none is chosen twice.
                held.push(listener);
                return Ok(format!("{host}:{port}"));
            }
        }
        Err(CliError::new(
            codes::PLAYGROUND_FAILED,
            format!("no free port was found on {host}"),
        ))
    };
    let zookeeper = free(FIRST, names::ZOOKEEPER_PORT)?;
    let nodes = (1..=nodes)
        .map(|n| {
            let (address, http) = (free(FIRST + n, names::GRPC_PORT)?, free(FIRST + n, HTTP_PORT)?);
            let mut port = |usual: u16| -> Result<u16, CliError> {
                let chosen = free(FIRST + n, usual)?;
                Ok(chosen
                    .rsplit_once(':')
                    .and_then(|(_, port)| port.parse().ok())
                    .unwrap_or(usual))
            };
            let [postgres, primary, standbys] = DATABASE_PORTS;
            Ok(Node {
                name: format!("n{n}"),
                address,
                http,
                postgres: port(postgres)?,
                proxy: (port(primary)?, port(standbys)?),
            })
        })
        .collect::<Result<_, CliError>>()?;
    Ok(Addresses { zookeeper, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_all_different_and_free() {
        let chosen = choose(50, false).unwrap();
        let mut all: Vec<&str> = chosen
            .nodes
            .iter()
            .flat_map(|n| [n.address.as_str(), n.http.as_str()])
            .collect();
        all.push(&chosen.zookeeper);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(TcpListener::bind(all[0]).is_ok());
    }
}
