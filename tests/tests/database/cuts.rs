//! The network is cut, around the primary's node and in one direction, and heals. Needs root.

use anyhow::{Result, ensure};
use ha_tests::netns::{End, Network, inside};

use crate::hands::Fault;
use crate::nothing_is_lost;
use crate::rig::{Group, ZOOKEEPER};
use crate::writer::Writer;

/// The nodes of the group and ZooKeeper's.
const NODES: u8 = ZOOKEEPER + 1;

/// The number of a node in the network.
fn place(name: &str) -> u8 {
    name.trim_start_matches('n').parse::<u8>().unwrap_or(1) - 1
}

/// The links of a node to its group's others, to be lost one by one.
fn links(group: &Group, node: &str) -> Vec<(End, End)> {
    let others = group.others(node);
    others
        .iter()
        .map(|o| (End::Node(place(node)), End::Node(place(o))))
        .collect()
}

/// To everybody: the others, ZooKeeper and clients.
fn all_links(group: &Group, node: &str) -> Vec<(End, End)> {
    let own = End::Node(place(node));
    let mut all = links(group, node);
    all.extend([(own, End::Node(ZOOKEEPER)), (own, End::Hub)]);
    all
}

fn both(links: &[(End, End)]) -> Vec<(End, End)> {
    links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect()
}

fn back(links: &[(End, End)]) -> Vec<(End, End)> {
    links.iter().map(|(a, b)| (*b, *a)).collect()
}

fn lose(network: &Network, links: &[(End, End)]) -> Result<()> {
    links.iter().try_for_each(|(from, to)| network.lose(*from, *to))
}

fn pass(network: &Network, links: &[(End, End)]) -> Result<()> {
    links.iter().try_for_each(|(from, to)| network.pass(*from, *to))
}

/// Loses packets on these links of the primary, given from it, until another has taken over, and lets them pass again.
async fn cut_and_healed(
    what: &'static str,
    network: &Network,
    group: &Group,
    writer: &Writer,
    cut: impl Fn(&str) -> Vec<(End, End)>,
) -> Result<()> {
    let fault = Fault::begin(what, group, writer).await?;
    let cut = cut(&fault.first);
    lose(network, &cut)?;
    let second = fault.succeeded(group, writer).await?;
    pass(network, &cut)?;
    fault.heals_under(&second, group, writer).await
}

#[test]
fn a_primary_cut_off_from_all_or_from_its_standbys_is_succeeded() -> Result<()> {
    inside(
        "a_primary_cut_off_from_all_or_from_its_standbys_is_succeeded",
        NODES,
        |network| async move {
            let group = Group::create_on_network(&network).await?;
            let first = group.whole().await?;
            let writer = group.writer(&first);

            let fault = Fault::begin("cut off both ways", &group, &writer).await?;
            network.cut(place(&fault.first))?;
            let second = fault.succeeded(&group, &writer).await?;
            network.heal(place(&fault.first))?;
            fault.heals_under(&second, &group, &writer).await?;

            // Who decides must hear of it: a primary with the master on its own node goes on alone, and the others with nobody.
            let master = group.others(&second).into_iter().next().unwrap_or_default();
            group.cluster.lead_at(&master).await?;
            let cut = |node: &str| both(&links(&group, node));
            cut_and_healed("cut off from the standbys alone", &network, &group, &writer, cut).await?;
            nothing_is_lost(&group, writer).await?;
            Ok(())
        },
    )
}

#[test]
fn a_primary_cut_off_in_one_direction_is_succeeded() -> Result<()> {
    inside(
        "a_primary_cut_off_in_one_direction_is_succeeded",
        NODES,
        |network| async move {
            let group = Group::create_on_network(&network).await?;
            let first = group.whole().await?;
            let writer = group.writer(&first);

            let cut = |node: &str| all_links(&group, node);
            cut_and_healed("packets from the primary's node lost", &network, &group, &writer, cut).await?;

            let cut = |node: &str| back(&all_links(&group, node));
            cut_and_healed("packets to the primary's node lost", &network, &group, &writer, cut).await?;
            nothing_is_lost(&group, writer).await?;
            Ok(())
        },
    )
}

/// Protocol R13 and step 2 of a failover: its registration ends, and it lives on by grants of standbys that hear it.
#[test]
fn a_primary_cut_off_from_zookeeper_alone_goes_on() -> Result<()> {
    inside(
        "a_primary_cut_off_from_zookeeper_alone_goes_on",
        NODES,
        |network| async move {
            let group = Group::create_on_network(&network).await?;
            let first = group.whole().await?;
            let writer = group.writer(&first);

            let fault = Fault::begin("cut off from ZooKeeper alone", &group, &writer).await?;
            let cut = both(&[(End::Node(place(&first)), End::Node(ZOOKEEPER))]);
            lose(&network, &cut)?;
            group.told(fault.seq(), "node.offline").await?;
            group.told(fault.seq(), "db.held").await?;
            writer.wrote_more(200).await?;
            let held = group.group().await?;
            ensure!(
                !held.why_no_failover.is_empty(),
                "nothing says why there is no failover: {held:?}"
            );
            pass(&network, &cut)?;
            group.cluster.healthy().await?;
            fault.disturbed_nobody(&group, &writer).await?;
            nothing_is_lost(&group, writer).await?;
            Ok(())
        },
    )
}
