//! Backends that outlive their postmaster (protocol R10).

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::hands::lives;
use crate::nothing_is_lost;
use crate::rig::Group;

const LOOP: &str = "CREATE TABLE IF NOT EXISTS looped (n bigserial); \
    CREATE OR REPLACE PROCEDURE commit_for_ever() LANGUAGE plpgsql AS \
    $$ BEGIN LOOP INSERT INTO looped DEFAULT VALUES; COMMIT; END LOOP; END $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_commits_on_is_ended_before_anybody_takes_over() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    group.sql(&first, "app", LOOP).await?;
    let mut client = group.psql(&first, "app", "CALL commit_for_ever()")?.spawn()?;
    let busy = "SELECT max(pid) FROM pg_stat_activity WHERE query = 'CALL commit_for_ever()' AND state = 'active'";
    let limit = Instant::now() + ha_tests::cluster::LIMIT;
    let backend: i32 = loop {
        let pid = group.sql(&first, "app", busy).await?;
        if let Ok(pid) = pid.parse() {
            break pid;
        }
        ensure!(Instant::now() < limit, "no backend commits in a loop");
        sleep(std::time::Duration::from_millis(20)).await;
    };
    ensure!(lives(backend), "the backend is not there");
    group.kill_postmaster(&first)?;
    let second = group.primary_other_than(&first).await?;
    ensure!(!lives(backend), "{second} is primary, and a backend of {first} lives");
    client.kill().await?;
    writer.wrote_more(20).await?;
    let whole = group.whole().await?;
    ensure!(whole == second, "{second} became primary, and {whole} is");
    group.told_of_failover(&first, &second).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
