//! A primary that cannot write is told from one that can: a full disk, and one that does not answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::rig::{Rig, SOON};
use crate::platform::{children, let_through};
use crate::postgres::probe::Written;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_is_not_piled_upon() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    assert!(n1.prober.write(SOON).await.is_done());
    let written = n1.prober.write(SOON).await;
    assert!(matches!(written, Written::Done(took) if took < SOON), "{written:?}");
    let server = n1.instance.postmaster().unwrap();
    let all = || children(server).into_iter().map(|(p, _)| p).chain([server]);
    let stopped: Vec<u32> = all().collect();
    for pid in &stopped {
        n1.signal(*pid, Signal::SIGSTOP);
    }
    let limit = Duration::from_millis(200);
    assert_eq!(n1.prober.write(limit).await, Written::Hung);
    let began = std::time::Instant::now();
    assert_eq!(n1.prober.write(SOON).await, Written::Hung);
    assert!(began.elapsed() < SOON / 2, "it is known to hang");
    assert!(n1.prober.probe(limit).await.is_err());
    for pid in &stopped {
        n1.signal(*pid, Signal::SIGCONT);
    }
    let began = std::time::Instant::now();
    while !n1.prober.write(limit * 10).await.is_done() {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None` where nothing can be mounted.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m,mode=0711", "tmpfs"])
            .arg(path)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|s| s.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_counts_as_failure() {
    let rig = Rig::new().await;
    let Some(disk) = Disk::mount(&rig.path().join("disk")) else {
        // Not root, or in a container without mounts: the rest of the probe is tested above.
        return;
    };
    let data = disk.0.join("pg/data");
    std::fs::create_dir(disk.0.join("pg")).unwrap();
    rig.account.give(&disk.0.join("pg")).unwrap();
    let_through(&disk.0.join("pg")).unwrap();
    let mut n1 = rig.node_at("n1", Some(&data)).await;
    n1.instance.create(&n1.settings).await.unwrap();
    n1.start(false).await;
    assert!(n1.prober.write(SOON).await.is_done());
    let filler = disk.0.join("filler");
    let mut fill = std::process::Command::new("dd");
    fill.arg("if=/dev/zero")
        .arg(format!("of={}", filler.display()))
        .arg("bs=1M");
    let full = fill.stderr(std::process::Stdio::null()).status().unwrap();
    assert!(!full.success(), "there is no more room");
    let written = n1.prober.write(SOON).await;
    assert!(matches!(written, Written::Full(_)), "{written:?}");
    std::fs::remove_file(filler).unwrap();
    assert!(n1.prober.write(SOON).await.is_done());
    drop(n1);
    drop(disk);
}
