//! From the loss of a master to the answer of the next one, as a client of another node sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ha_proto::v1::{GetStateRequest, TransferMasterRequest};
use tokio::time::sleep;

use super::figures::{Figures, against_goal};
use crate::cluster::{Cluster, Options, SESSION, master_of, term_of};

/// Runs of each kind.
const RUNS: usize = 7;

/// How mastership is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Killed,
    Terminated,
    Transferred,
}

pub(super) async fn run() -> Result<()> {
    println!(
        "\nloss of the master to the new master's first answer (3 nodes, session timeout {} s)",
        SESSION.as_secs()
    );
    let mut cluster = Cluster::start(Options {
        subscribers: false,
        ..Options::default()
    })
    .await?;
    let killed = measure(&mut cluster, Loss::Killed).await?;
    let terminated = measure(&mut cluster, Loss::Terminated).await?;
    let transferred = measure(&mut cluster, Loss::Transferred).await?;
    against_goal("kill -9 of the master", &killed, SESSION.as_secs_f64() + 0.3);
    against_goal("SIGTERM of the master", &terminated, 0.2);
    against_goal("hactl cluster master transfer", &transferred, 0.2);
    cluster.assert_leases_disjoint()
}

async fn measure(cluster: &mut Cluster, loss: Loss) -> Result<Figures> {
    let mut figures = Figures::default();
    for _ in 0..RUNS {
        let before = cluster.healthy().await?;
        // Agents and heartbeats are somewhere in their period, as in life.
        sleep(Duration::from_millis(700 + 137 * figures.len() as u64)).await;
        let (master, term) = (master_of(&before).to_owned(), term_of(&before));
        let other = cluster
            .daemons
            .iter()
            .find(|d| d.name != master)
            .context("another node")?
            .address
            .clone();
        let bundle = cluster.bundle("admin")?;
        let mut client = cluster.client_at(&bundle, vec![other.clone()], Duration::from_millis(500))?;
        client.get_state(GetStateRequest {}).await?;
        let begun = Instant::now();
        match loss {
            Loss::Killed => cluster.node(&master).kill9(),
            Loss::Terminated => cluster.node(&master).sigterm(),
            Loss::Transferred => {
                let request = TransferMasterRequest::default();
                let mut admin = cluster.client_at(&bundle, vec![other], Duration::from_secs(5))?;
                admin.transfer_master(request).await?;
            }
        }
        loop {
            let asked = tokio::time::timeout(Duration::from_millis(100), client.get_state(GetStateRequest {}));
            if let Ok(Ok(state)) = asked.await
                && term_of(&state) > term
            {
                figures.push(begun.elapsed());
                break;
            }
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("no new master after {loss:?}\n{}", cluster.tails());
            }
            sleep(Duration::from_millis(5)).await;
        }
        if loss != Loss::Transferred {
            let daemon = cluster.node(&master);
            if loss == Loss::Terminated {
                daemon.ended(Duration::from_secs(10)).await?;
            }
            daemon.restart()?;
        }
    }
    Ok(figures)
}
