//! From the first primary to a rejoined one: the whole round, and each of its dangers.

use std::time::Duration;

use ha_core::database::{Lsn, Names};

use super::rig::{A_WHILE, Rig, SOON, any};
use crate::postgres::PgError;
use crate::postgres::control;
use crate::postgres::rewind::Rewound;
use crate::postgres::wal;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_replicate_promote_rewind_rejoin() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let before = n1.probe().await;
    assert!(!before.standby && before.timeline == Some(1) && before.senders.is_empty());

    // Closed: a commit waits for a standby that never is.
    n1.local("CREATE TABLE t (id int)").await;
    let e = n1.client("INSERT INTO t VALUES (0)", A_WHILE).await.unwrap_err();
    assert!(matches!(e, PgError::TimedOut { .. }), "{e}");

    let mut n2 = rig.standby("n2", &mut n1, 1).await;
    n1.set_names(any(&["n2"], 1)).await.unwrap();
    n1.client("INSERT INTO t VALUES (1)", SOON).await.unwrap();
    let probe = n1.until("a voter", |p| p.senders.iter().any(|s| s.priority == 1)).await;
    assert_eq!(probe.senders[0].standby, Some(("n2".to_owned(), 1)));
    assert!(probe.slots.iter().any(|s| s.name == "had_n2" && s.active));
    let standby = n2
        .until("hearing its upstream", |p| {
            p.receiver.as_ref().is_some_and(|r| r.upstream.is_some())
        })
        .await;
    let receiver = standby.receiver.unwrap();
    assert_eq!((receiver.status.as_str(), receiver.timeline), ("streaming", 1));
    let upstream = receiver.upstream.unwrap();
    assert_eq!((upstream.node.as_str(), upstream.epoch), ("n1", 1));
    assert_eq!(standby.upstream, Some(upstream));
    assert!(receiver.heard.unwrap() < Duration::from_secs(5));

    // The standby refuses epoch 1; the primary goes on alone, and then dies.
    n2.settings.upstream = None;
    n2.instance.configure(&n2.settings).await.unwrap();
    control::end_receiver(&n2.instance, &mut n2.prober, SOON).await.unwrap();
    let e = n1.client("INSERT INTO t VALUES (2)", A_WHILE).await.unwrap_err();
    assert!(matches!(e, PgError::TimedOut { .. }), "{e}");
    n1.local("INSERT INTO t VALUES (3); SELECT pg_switch_wal(); INSERT INTO t VALUES (4)")
        .await;
    let written = n1.probe().await.flushed.unwrap();
    n1.kill().await;
    let left = n1.instance.log_end().await.unwrap();
    assert!(left.end >= written && left.timeline() == 1, "{left:?} {written}");

    n2.instance.marks.promote_in(2).await.unwrap();
    let connection = n2.prober.connection(SOON).await.unwrap();
    let promoted = control::promote(&n2.instance, connection, SOON).await.unwrap();
    assert_eq!(promoted.history.timeline, 2);
    let fork = promoted.history.begin();
    assert!(fork > Lsn(0) && fork < left.end && promoted.recovered >= fork);
    assert_eq!(n2.probe().await.timeline, Some(2));
    // Promoted closed: it acknowledges nothing yet.
    assert!(n2.client("INSERT INTO t VALUES (5)", A_WHILE).await.is_err());

    // n1 goes back to where n2 left it.
    let id = before.system_id;
    n1.follow(&mut n2, 2).await;
    let (source, settings) = (n2.source(), n1.settings.clone());
    n1.instance.check_source(&source, "prod").await.unwrap();
    let early = n1.instance.rewind(&source, 2, &settings, id, &|_, _| ()).await.unwrap();
    assert!(matches!(early, Rewound::SourceNotReady | Rewound::Done), "{early:?}");
    if early == Rewound::SourceNotReady {
        let connection = n2.prober.connection(SOON).await.unwrap();
        control::checkpoint(connection, SOON).await.unwrap();
        let done = n1.instance.rewind(&source, 2, &settings, id, &|_, _| ()).await.unwrap();
        assert_eq!(done, Rewound::Done);
    }
    n1.start(true).await;
    n2.streams_to("n1", 2).await;
    n2.set_names(any(&["n1"], 2)).await.unwrap();
    n2.client("INSERT INTO t VALUES (6)", SOON).await.unwrap();
    let end = n2.probe().await.flushed.unwrap();
    n1.replayed(end).await;
    let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM t";
    let expected = n2.ask(rows).await;
    assert!(
        expected.starts_with("0,1,") && expected.ends_with(",6") && !expected.contains('3'),
        "{expected}"
    );
    assert_eq!(n1.ask(rows).await, expected);

    // Both know where the timelines part.
    assert_eq!(n1.instance.history(2).await.unwrap(), promoted.history);
    n1.stop().await;
    let end = n1.instance.log_end().await.unwrap();
    assert_eq!((end.timeline(), end.history.begin()), (2, fork));
    // Nothing to rewind: it follows already.
    let again = n1
        .instance
        .rewind(&n2.source(), 2, &settings, id, &|_, _| ())
        .await
        .unwrap();
    assert_eq!(again, Rewound::NotNeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_found_on_disk_after_a_restart() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let mut n2 = rig.standby("n2", &mut n1, 1).await;
    n1.set_names(any(&["n2"], 1)).await.unwrap();
    n1.client("CREATE TABLE t (id int, x text)", SOON).await.unwrap();
    n2.local("SELECT pg_wal_replay_pause()").await;
    n2.until("paused", |p| p.paused).await;
    for round in 0..3 {
        n1.client(
            "INSERT INTO t SELECT i, repeat(md5(i::text), 40) FROM generate_series(1, 3000) i",
            SOON,
        )
        .await
        .unwrap();
        if round == 1 {
            n1.local("SELECT pg_switch_wal()").await;
        }
    }
    // All of it was acknowledged on n2's word; the server there forgets it.
    let acknowledged: Lsn = n1.ask("SELECT pg_current_wal_flush_lsn()::text").await.parse().unwrap();
    n1.until("flushed there", |p| p.senders.iter().any(|s| s.flushed >= acknowledged))
        .await;
    n2.kill().await;
    n1.kill().await;
    let log = n2.instance.log_end().await.unwrap();
    assert!(log.end >= acknowledged, "{} < {acknowledged}", log.end);
    assert_eq!(log.timeline(), 1);
    let own = n1.instance.log_end().await.unwrap();
    assert!(own.end >= log.end);
    // PostgreSQL's own reader sees the same end.
    assert_eq!(waldump_end(&rig, &n1).await, own.end);
    assert_eq!(waldump_end(&rig, &n2).await, log.end);
}

/// Where pg_waldump, reading from the last checkpoint on, finds no more records.
async fn waldump_end(rig: &Rig, node: &super::rig::Node) -> Lsn {
    let control = node.instance.control().await.unwrap();
    let out = tokio::process::Command::new(rig.install.bin.join("pg_waldump"))
        .arg("-p")
        .arg(node.data().join("pg_wal"))
        .args(["-t", &control.timeline.to_string(), "-s", &control.redo.to_string()])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    // "… error in WAL record at 0/50A1F78: invalid record length at 0/50A1FB0: wanted 24, got 0", or a segment that is
    // not there: then the last record's own end is what is left.
    let at = |marker: &str| {
        let rest = text.split(marker).nth(1)?;
        let word: String = rest
            .chars()
            .take_while(|c| c.is_ascii_hexdigit() || *c == '/')
            .collect();
        word.parse::<Lsn>().ok()
    };
    let end = at("invalid record length at ")
        .or_else(|| at("record with incorrect prev-link "))
        .or_else(|| at("missing contrecord at "));
    end.unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_ends_while_replay_is_paused() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let mut n2 = rig.standby("n2", &mut n1, 1).await;
    n1.set_names(any(&["n2"], 1)).await.unwrap();
    n1.client("CREATE TABLE t (id int)", SOON).await.unwrap();
    n2.local("SELECT pg_wal_replay_pause()").await;
    n2.until("paused", |p| p.paused).await;
    // What is to be replayed while it is paused keeps recovery from seeing the reload.
    n1.client("INSERT INTO t VALUES (1)", SOON).await.unwrap();
    n2.settings.upstream = None;
    n2.instance.configure(&n2.settings).await.unwrap();
    control::end_receiver(&n2.instance, &mut n2.prober, SOON).await.unwrap();
    assert_eq!(n2.probe().await.receiver, None);
    let e = n1.client("INSERT INTO t VALUES (2)", A_WHILE).await.unwrap_err();
    assert!(matches!(e, PgError::TimedOut { .. }), "{e}");
    // And it does not come back when replay goes on.
    n2.local("SELECT pg_wal_replay_resume()").await;
    n2.until("resumed", |p| !p.paused).await;
    assert!(n1.client("INSERT INTO t VALUES (3)", A_WHILE).await.is_err());
    assert_eq!(n2.probe().await.receiver, None);

    // With it back in a later epoch, the old names match nobody.
    n2.follow(&mut n1, 3).await;
    n2.instance.configure(&n2.settings).await.unwrap();
    let connection = n2.prober.connection(SOON).await.unwrap();
    control::reload(connection, SOON).await.unwrap();
    n1.streams_to("n2", 3).await;
    assert!(n1.client("INSERT INTO t VALUES (4)", A_WHILE).await.is_err());
    n1.set_names(any(&["n2"], 3)).await.unwrap();
    n1.client("INSERT INTO t VALUES (5)", SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_its_own_way_keeps_its_timeline() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let mut n2 = rig.standby("n2", &mut n1, 1).await;
    n1.set_names(Names::Empty).await.unwrap();
    n1.client("CREATE TABLE t (id int)", SOON).await.unwrap();
    n2.settings.upstream = None;
    n2.instance.configure(&n2.settings).await.unwrap();
    control::end_receiver(&n2.instance, &mut n2.prober, SOON).await.unwrap();
    let connection = n2.prober.connection(SOON).await.unwrap();
    let promoted = control::promote(&n2.instance, connection, SOON).await.unwrap();
    n2.kill().await;
    n1.local("INSERT INTO t SELECT generate_series(1, 1000)").await;
    n1.kill().await;
    // The history of another's timeline in n1's WAL changes nothing: no record of it is there.
    let history = n2.data().join("pg_wal/00000002.history");
    std::fs::copy(&history, n1.data().join("pg_wal/00000002.history")).unwrap();
    let (one, two) = (
        n1.instance.log_end().await.unwrap(),
        n2.instance.log_end().await.unwrap(),
    );
    assert_eq!((one.timeline(), two.timeline()), (1, 2));
    assert_eq!(two.history, promoted.history);
    assert!(one.end > promoted.history.begin() && two.end > promoted.history.begin());
    let lost = n1.instance.control().await.unwrap();
    std::fs::remove_dir_all(n1.data().join("pg_wal")).unwrap();
    std::fs::create_dir(n1.data().join("pg_wal")).unwrap();
    let e = wal::log_end(&n1.data(), &lost).await.unwrap_err();
    assert!(matches!(e, PgError::Unreadable { .. }), "{e}");
}
