//! What an instance's configuration says, and that it reaches the disk whole.

use std::path::Path;

use super::*;
use crate::postgres::place::Roots;

fn place(dir: &Path) -> Place {
    let roots = Roots {
        data: dir.to_owned(),
        sockets: None,
        state: dir.join("state"),
    };
    Place::new(&roots, "main", None, 5432).unwrap()
}

fn settings() -> Settings {
    let release = Release { major: 15, minor: 18 };
    Settings::closed(release, "prod", "n1")
}

fn value(text: &str, name: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, text).unwrap();
    let lines = text::read(&path).unwrap();
    lines.into_iter().rev().find(|l| l.name == name).map(|l| l.value)
}

fn upstream(epoch: u64) -> Option<(Source, u64)> {
    let source = Source {
        node: "n2".into(),
        host: "10.0.0.2".into(),
        port: 5433,
    };
    Some((source, epoch))
}

#[test]
fn closed_unless_told_otherwise() {
    let own = Account::own().unwrap();
    let place = place(Path::new("/srv"));
    let files = render(&place, &own, &settings()).unwrap();
    // Whoever else starts it: the last lines hold.
    let last: Vec<_> = files.main.lines().rev().take(3).collect();
    let closed = "synchronous_standby_names = 'ANY 1 (closed)'";
    assert_eq!(last, ["unix_socket_directories = ''", "listen_addresses = ''", closed]);
    assert_eq!(
        value(&files.own, "synchronous_standby_names").as_deref(),
        Some("ANY 1 (closed)")
    );
    for nowhere in ["primary_conninfo", "restore_command"] {
        assert_eq!(value(&files.own, nowhere).as_deref(), Some(""), "{nowhere}");
    }
    // What the guard passes on the command line stands in no file that a reload reads.
    for passed in ["listen_addresses", "unix_socket_directories"] {
        assert!(!files.own.contains(passed) && !files.parameters.contains(passed) && !files.run.contains(passed));
    }
    assert_eq!(value(&files.own, "restart_after_crash").as_deref(), Some("off"));
    let open = Settings {
        names: Names::Any {
            need: 1,
            epoch: 7,
            voters: ["n2".to_owned(), "n3".to_owned()].into(),
        },
        ..settings()
    };
    let files = render(&place, &own, &open).unwrap();
    assert_eq!(
        value(&files.own, "synchronous_standby_names").as_deref(),
        Some("ANY 1 (\"n2_e7\", \"n3_e7\")")
    );
}

#[test]
fn a_standby_streams_under_its_name_and_epoch() {
    let s = Settings {
        upstream: upstream(7),
        slot: Some("had_n1".into()),
        ..settings()
    };
    let files = render(&place(Path::new("/srv")), &Account::own().unwrap(), &s).unwrap();
    let conninfo = value(&files.own, "primary_conninfo").unwrap();
    assert!(conninfo.contains("application_name='n1_e7'"), "{conninfo}");
    assert_eq!(Upstream::parse(&conninfo).unwrap().epoch, 7);
    assert_eq!(value(&files.own, "wal_receiver_timeout").as_deref(), Some("1500ms"));
}

#[test]
fn a_name_that_would_be_cut_off_is_refused() {
    let s = Settings {
        node: "n".repeat(61),
        upstream: upstream(7),
        ..settings()
    };
    assert!(render(&place(Path::new("/srv")), &Account::own().unwrap(), &s).is_err());
    let s = Settings {
        names: Names::Any {
            need: 1,
            epoch: 7,
            voters: ["n".repeat(61)].into(),
        },
        ..settings()
    };
    assert!(render(&place(Path::new("/srv")), &Account::own().unwrap(), &s).is_err());
}

#[test]
fn parameters_stand_before_what_is_hads() {
    let s = Settings {
        parameters: [
            ("work_mem".to_owned(), "it's".to_owned()),
            ("max_wal_senders".to_owned(), "12".to_owned()),
        ]
        .into(),
        least: [150, 0, 0, 0, 0],
        ..settings()
    };
    let files = render(&place(Path::new("/srv")), &Account::own().unwrap(), &s).unwrap();
    assert_eq!(value(&files.parameters, "work_mem").as_deref(), Some("it's"));
    assert_eq!(value(&files.parameters, "max_connections").as_deref(), Some("150"));
    assert_eq!(value(&files.parameters, "max_wal_senders").as_deref(), Some("12"));
    assert!(files.main.find(PARAMETERS).unwrap() < files.main.find(OWN).unwrap());
    let bad = Settings {
        parameters: [("fsync".to_owned(), "off".to_owned())].into(),
        ..settings()
    };
    assert!(render(&place(Path::new("/srv")), &Account::own().unwrap(), &bad).is_err());
}

#[tokio::test]
async fn written_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (place, own) = (place(dir.path()), Account::own().unwrap());
    place.prepare_for_tests(&own).await;
    std::fs::write(
        place.data.join("postgresql.auto.conf"),
        "work_mem = '5MB'\nsynchronous_standby_names = ''\n",
    )
    .unwrap();
    let s = Settings {
        upstream: upstream(9),
        ..settings()
    };
    let files = render(&place, &own, &s).unwrap();
    assert!(write(&place, &own, files.clone()).await.unwrap());
    assert!(!write(&place, &own, files).await.unwrap(), "nothing is left to change");
    let auto = std::fs::read_to_string(place.data.join("postgresql.auto.conf")).unwrap();
    assert!(
        auto.contains("work_mem = '5MB'") && !auto.contains("synchronous"),
        "{auto}"
    );
    let (from, names) = stored(&place).await.unwrap();
    assert_eq!((from.unwrap().epoch, names), (9, Names::Closed));
}

#[tokio::test]
async fn one_part_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (place, own) = (place(dir.path()), Account::own().unwrap());
    place.prepare_for_tests(&own).await;
    std::fs::write(place.data.join("recovery.signal"), "").unwrap();
    set_standby(&place, &own, true).await.unwrap();
    assert!(is_standby(&place.data) && !place.data.join("recovery.signal").exists());
    set_standby(&place, &own, true).await.unwrap();
    set_standby(&place, &own, false).await.unwrap();
    assert!(!is_standby(&place.data));
}
