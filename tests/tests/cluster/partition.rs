//! A node that is cut off in silence, in network namespaces. Needs root.

use anyhow::{Result, ensure};
use ha_proto::v1::NodeState;
use ha_tests::cluster::{Cluster, Options, Place, is, master_of, term_of};
use ha_tests::netns::{HUB, Network, inside};
use ha_tests::zookeeper::ZkOptions;

use crate::label;

/// Three nodes, with ZooKeeper and the test itself at the hub.
async fn cluster(network: &Network) -> Result<Cluster> {
    let place = |i| Place {
        host: network.address(i),
        // Nobody else is there.
        ports: (7400, 7401),
        under: network.under(i),
    };
    Cluster::start(Options {
        zookeeper: ZkOptions {
            bind: HUB.to_owned(),
            ..ZkOptions::default()
        },
        places: (0..3).map(place).collect(),
        ..Options::default()
    })
    .await
}

/// The number of a node in the network.
fn place(name: &str) -> u8 {
    name.trim_start_matches('n').parse::<u8>().unwrap_or(1) - 1
}

fn others(cluster: &Cluster, name: &str) -> Vec<String> {
    let others = cluster.daemons.iter().filter(|d| d.name != name);
    others.map(|d| d.address.clone()).collect()
}

#[test]
fn a_master_cut_off_is_replaced_and_heals() -> Result<()> {
    inside("a_master_cut_off_is_replaced_and_heals", 3, |network| async move {
        let cluster = cluster(&network).await?;
        let before = cluster.healthy().await?;
        let master = master_of(&before).to_owned();
        network.cut(place(&master))?;
        let without = cluster
            .wait_at(others(&cluster, &master), "the others lead", |s| {
                is(s, &master, NodeState::Offline) && !master_of(s).is_empty() && master_of(s) != master
            })
            .await?;
        ensure!(term_of(&without) > term_of(&before));
        network.heal(place(&master))?;
        cluster.healthy().await?;
        label(&cluster, &master, "healed").await?;
        cluster.finish().await
    })
}

#[test]
fn a_member_cut_off_disturbs_nobody_and_heals() -> Result<()> {
    inside("a_member_cut_off_disturbs_nobody_and_heals", 3, |network| async move {
        let cluster = cluster(&network).await?;
        let before = cluster.healthy().await?;
        let member = cluster.members().await?.remove(0);
        network.cut(place(&member))?;
        let without = cluster
            .wait_at(others(&cluster, &member), "it is given up", |s| {
                is(s, &member, NodeState::Offline)
            })
            .await?;
        ensure!(term_of(&without) == term_of(&before), "the master was disturbed");
        label(&cluster, &member, "cut-off").await?;
        network.heal(place(&member))?;
        cluster.healthy().await?;
        cluster.finish().await
    })
}
