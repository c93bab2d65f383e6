//! Copies, who is let in, and what a crash in the middle leaves.

use std::path::PathBuf;
use std::time::Duration;

use super::rig::Rig;
use crate::postgres::PgError;
use crate::postgres::instance::Found;
use crate::postgres::marks::{Step, Work};
use crate::postgres::tls;
use crate::security::testing::Leaf;

fn beside(data: &std::path::Path, suffix: &str) -> PathBuf {
    data.with_file_name(format!("data.{suffix}"))
}

fn siblings(data: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.parent().unwrap()).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.retain(|n| n.starts_with("data"));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_the_group_are_let_in() {
    let rig = Rig::new().await;
    let n1 = rig.primary("n1").await;
    let n2 = rig.node("n2").await;
    let source = n1.source();
    n2.instance.check_source(&source, "prod").await.unwrap();
    let refused = |e: PgError| assert!(e.to_string().contains("certificate authentication failed"), "{e}");

    // A user of the same authority that is called like a node, and a node that is not in the group.
    for leaf in [Leaf::user("n2", "admin"), Leaf::node("n9")] {
        tls::install(&n2.instance.place, &rig.account, rig.pem(&leaf))
            .await
            .unwrap();
        refused(n2.instance.check_source(&source, "prod").await.unwrap_err());
    }
    // A node of another cluster, and nobody's server.
    let other = Rig::new().await;
    let foreign = crate::security::NodePem {
        authority: rig.ca.pem.clone(),
        ..other.pem(&Leaf::node("n2"))
    };
    tls::install(&n2.instance.place, &rig.account, foreign).await.unwrap();
    n2.instance.check_source(&source, "prod").await.unwrap_err();
    tls::install(&n2.instance.place, &rig.account, other.pem(&Leaf::node("n2")))
        .await
        .unwrap();
    let e = n2.instance.check_source(&source, "prod").await.unwrap_err();
    assert!(e.to_string().contains("SSL error"), "{e}");
    // The right authority, but another node than the one that is meant.
    tls::install(&n2.instance.place, &rig.account, rig.pem(&Leaf::node("n2")))
        .await
        .unwrap();
    let meant = crate::postgres::conf::Source {
        node: "n3".into(),
        ..source.clone()
    };
    let e = n2.instance.check_source(&meant, "prod").await.unwrap_err();
    assert!(e.to_string().contains("n3.had.prod"), "{e}");
    n2.instance.check_source(&source, "prod").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_directory_stays_until_the_copy_streams() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let mut n2 = rig.standby("n2", &mut n1, 1).await;
    n2.stop().await;
    std::fs::write(n2.data().join("mark-of-the-old"), "").unwrap();
    n2.instance.marks.promote_in(9).await.unwrap();
    let id = n1.probe().await.system_id;
    // Of another group: nothing happens to what is there.
    let e = n2
        .instance
        .copy(&n1.source(), &n2.settings, id + 1, &|_, _| ())
        .await
        .unwrap_err();
    assert!(matches!(e, PgError::Refused { .. }), "{e}");
    assert!(n2.data().join("mark-of-the-old").exists());
    assert_eq!(siblings(&n2.data()), ["data"]);

    let told = std::sync::Mutex::new(Vec::new());
    let progress = |done, total| told.lock().unwrap().push((done, total));
    n2.instance
        .copy(&n1.source(), &n2.settings, id, &progress)
        .await
        .unwrap();
    let (done, total) = *told.lock().unwrap().last().unwrap();
    assert!(done > 1 << 20 && total >= done);
    let kept = n2.instance.marks.work().await.unwrap().kept;
    assert!(kept.len() == 1 && kept[0].join("mark-of-the-old").exists());
    assert_eq!(n2.instance.marks.get().promotion, None);
    n2.start(true).await;
    n1.streams_to("n2", 1).await;
    n2.instance.drop_kept().await.unwrap();
    assert_eq!(siblings(&n2.data()), ["data"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_given_up_leaves_nothing() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    n1.local("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) x FROM generate_series(1, 40000) i")
        .await;
    let mut n2 = rig.node("n2").await;
    n2.follow(&mut n1, 1).await;
    let id = n1.probe().await.system_id;
    let begun = async {
        while siblings(&n2.data()).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let source = n1.source();
    tokio::select! {
        done = n2.instance.copy(&source, &n2.settings, id, &|_, _| ()) => panic!("sooner than it began: {done:?}"),
        () = begun => {}
    }
    assert_eq!(n2.instance.inspect().await.unwrap(), Found::Empty);
    n2.instance.repair().await.unwrap();
    assert!(siblings(&n2.data()).is_empty());
    n2.instance.copy(&source, &n2.settings, id, &|_, _| ()).await.unwrap();
    n2.start(true).await;
    n1.streams_to("n2", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tablespaces_come_along() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let space = rig.path().join("space");
    std::fs::create_dir(&space).unwrap();
    rig.account.give(&space).unwrap();
    n1.local(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()))
        .await;
    n1.local("CREATE TABLE t TABLESPACE fast AS SELECT 42 AS id").await;
    let mut n2 = rig.standby("n2", &mut n1, 1).await;
    let end = n1.probe().await.flushed.unwrap();
    n2.replayed(end).await;
    assert_eq!(n2.ask("SELECT id::text FROM t").await, "42");
    assert_ne!(
        n2.ask("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")
            .await,
        space.to_str().unwrap()
    );
    n2.instance.repair().await.unwrap();
    assert_eq!(n2.ask("SELECT id::text FROM t").await, "42");
}

#[tokio::test]
async fn every_point_of_a_swap_leads_to_a_whole_directory() {
    let rig = Rig::new().await;
    for point in 0..4 {
        let node = rig.node(&format!("n{point}")).await;
        let data = node.data();
        let (new, old) = (beside(&data, "had-copy-1"), beside(&data, "had-old-1"));
        let make = |dir: &PathBuf, what: &str| {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("which"), what).unwrap();
        };
        // Before the renames, between them, after them, and where there was no old one.
        match point {
            0 => (make(&data, "old"), make(&new, "new")),
            1 => (make(&old, "old"), make(&new, "new")),
            2 => (make(&old, "old"), make(&data, "new")),
            _ => ((), make(&new, "new")),
        };
        let step = Step::Swap {
            beside: new.clone(),
            aside: old.clone(),
        };
        let work = Work {
            step: Some(step.clone()),
            kept: Vec::new(),
        };
        node.instance.marks.set_work(work).await.unwrap();
        assert_eq!(node.instance.inspect().await.unwrap(), Found::Incomplete { step });
        node.instance.repair().await.unwrap();
        node.instance.repair().await.unwrap();
        assert_eq!(
            std::fs::read_to_string(data.join("which")).unwrap(),
            "new",
            "point {point}"
        );
        let kept = node.instance.marks.work().await.unwrap();
        if point == 3 {
            assert_eq!(kept, Work::default());
        } else {
            assert_eq!(kept.kept, std::slice::from_ref(&old), "point {point}");
            assert_eq!(std::fs::read_to_string(old.join("which")).unwrap(), "old");
        }
        assert!(!new.exists());
    }
}

#[tokio::test]
async fn what_did_not_finish_counts_for_nothing() {
    let rig = Rig::new().await;
    let node = rig.node("n1").await;
    node.instance.create(&node.settings).await.unwrap();
    let set = |step| {
        let (step, kept) = (Some(step), Vec::new());
        node.instance.marks.set_work(Work { step, kept })
    };
    // A rewind that broke: the directory waits for a copy, whatever it looks like.
    set(Step::Rewind).await.unwrap();
    node.instance.repair().await.unwrap();
    let found = node.instance.inspect().await.unwrap();
    assert_eq!(found, Found::Incomplete { step: Step::Rewind });
    assert!(node.instance.plan_start(&node.settings, true, &[]).await.is_err());
    // An initdb that broke: it is made anew.
    set(Step::Create).await.unwrap();
    node.instance.repair().await.unwrap();
    assert_eq!(node.instance.inspect().await.unwrap(), Found::Empty);
    // Something of somebody else's is left alone.
    std::fs::create_dir_all(node.data()).unwrap();
    std::fs::write(node.data().join("thesis.tex"), "x").unwrap();
    assert!(matches!(node.instance.inspect().await.unwrap(), Found::Foreign { .. }));
    assert!(node.instance.create(&node.settings).await.is_err());
    node.instance.repair().await.unwrap();
    assert!(node.data().join("thesis.tex").exists());
}
