//! The primary's disk is full.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use ha_proto::v1;
use ha_tests::cluster::{Place, own_address};

use crate::nothing_is_lost;
use crate::rig::Group;

/// A node whose daemon has a mount namespace of its own, with a tmpfs of so many MiB where its instances lie.
fn place(megabytes: u32) -> Place {
    // The configuration is the last argument and lies in the node's directory.
    let script = format!(
        "for last; do :; done; dir=$(dirname \"$last\")/state/postgres && mkdir -p -m 755 \"$dir\" && \
         mount -t tmpfs -o size={megabytes}m,mode=755 tmpfs \"$dir\" && exec \"$@\""
    );
    let words = ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh"];
    Place {
        host: own_address(),
        ports: (0, 0),
        under: words.map(String::from).to_vec(),
    }
}

/// Fills the file system that holds this file.
fn fill(file: &std::path::Path) -> Result<()> {
    let mut file = std::fs::File::create(file)?;
    let zeros = vec![0u8; 1 << 16];
    let mut size = zeros.len();
    while size > 0 {
        if file.write_all(&zeros[..size]).is_err() {
            size /= 2;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_whose_disk_is_full_is_succeeded() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root may mount a small file system");
        return Ok(());
    }
    let places = (0..3).map(|_| place(320)).collect();
    let small = |spec: &mut v1::GroupSpec| {
        spec.parameters.insert("min_wal_size".into(), "32MB".into());
        spec.parameters.insert("max_wal_size".into(), "64MB".into());
    };
    let group = Group::create_with(places, small).await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    let filler = group.seen_by(&first)?.join("state/postgres/filler");
    fill(&filler)?;
    // Segments that were made ahead are used up.
    for _ in 0..20 {
        let next = "SELECT pg_switch_wal() FROM (SELECT pg_logical_emit_message(false, 'test', 'x')) AS one";
        let used = tokio::time::timeout(Duration::from_secs(5), group.sql(&first, "app", next)).await;
        if !matches!(used, Ok(Ok(_))) {
            break;
        }
        // What checkpoints give back is taken as well.
        let _ = fill(&filler.with_extension("more"));
    }
    let second = group.primary_other_than(&first).await?;
    writer.wrote_more(20).await?;
    group.told_of_failover(&first, &second).await?;
    for name in ["filler", "filler.more"] {
        let _ = std::fs::remove_file(filler.with_file_name(name));
    }
    group.whole().await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
