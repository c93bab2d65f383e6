//! What stops without ending: a whole node, or its daemon alone.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::hands::{Fault, lives};
use crate::nothing_is_lost;
use crate::rig::Group;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_is_succeeded_and_fenced_when_it_goes_on() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);

    let fault = Fault::begin("node frozen", &group, &writer).await?;
    let postmaster = group.postmaster(&first)?;
    group.signal_node(&first, Signal::SIGSTOP)?;
    let second = fault.succeeded(&group, &writer).await?;
    ensure!(lives(postmaster), "the frozen postmaster has ended by itself");
    group.signal_node(&first, Signal::SIGCONT)?;
    fault.heals_under(&second, &group, &writer).await?;
    ensure!(!lives(postmaster), "the former primary was never stopped");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// Protocol R9: without heartbeats the guard stops the database before anybody could take the lease for ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_frozen_or_gone_past_its_lease_is_succeeded() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);

    let fault = Fault::begin("daemon frozen past its lease", &group, &writer).await?;
    let postmaster = group.postmaster(&first)?;
    group.cluster.node(&first).sigstop();
    let second = fault.succeeded(&group, &writer).await?;
    ensure!(
        !lives(postmaster),
        "{second} is primary, and the guard of {first} lets its server live"
    );
    group.cluster.node(&first).sigcont();
    fault.heals_under(&second, &group, &writer).await?;

    let fault = Fault::begin("daemon killed and not restarted", &group, &writer).await?;
    let first = fault.first.clone();
    let postmaster = group.postmaster(&first)?;
    group.cluster.node(&first).kill9();
    let mark = writer.mark();
    writer.wrote_more(20).await?;
    writer.never_interrupted_since(mark)?;
    let second = fault.succeeded(&group, &writer).await?;
    ensure!(
        !lives(postmaster),
        "{second} is primary, and the guard of {first} lets its server live"
    );
    group.cluster.node(&first).start()?;
    fault.heals_under(&second, &group, &writer).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
