//! Parameters, bad lines, roles and databases on a real server.

use std::collections::BTreeMap;

use ha_core::database::spec::{DatabaseSpec, RoleSpec};
use tokio_postgres::NoTls;

use super::rig::{Rig, SOON, any};
use crate::postgres::{PgError, control, provision};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_is_noticed_and_told() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let file = n1.instance.place.work.join("conf/parameters.conf");
    let good = std::fs::read_to_string(&file).unwrap();
    n1.instance.configure(&n1.settings).await.unwrap();
    // Somebody writes a line that PostgreSQL cannot read, in the moment before the reload.
    n1.settings.names = any(&["n2"], 1);
    n1.instance.configure(&n1.settings).await.unwrap();
    std::fs::write(&file, format!("{good}no such line\n")).unwrap();
    let place = n1.instance.place.clone();
    let connection = n1.prober.connection(SOON).await.unwrap();
    let limit = super::rig::A_WHILE;
    let wanted = n1.settings.names.clone();
    let e = control::reload_until(&place, connection, "the names", limit, |f| f.names == wanted).await;
    assert!(matches!(e, Err(PgError::TimedOut { .. })), "{e:?}");
    let details = n1.prober.details(SOON).await.unwrap();
    assert!(
        details.errors.iter().any(|e| e.contains("parameters.conf")),
        "{details:?}"
    );
    // Writing the configuration mends it.
    assert!(n1.instance.configure(&n1.settings).await.unwrap());
    n1.set_names(any(&["n2"], 1)).await.unwrap();
    assert!(n1.prober.details(SOON).await.unwrap().errors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_checked_and_wait_for_a_restart() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let set = |name: &str, value: &str, settings: &crate::postgres::conf::Settings| {
        let mut settings = settings.clone();
        settings.parameters.insert(name.into(), value.into());
        settings
    };
    for (name, value, why) in [
        ("max_connections", "many", "invalid value"),
        ("work_mem", "1", "outside the valid range"),
        ("max_conections", "10", "unrecognized configuration parameter"),
    ] {
        let e = n1
            .instance
            .check(&set(name, value, &n1.settings))
            .await
            .unwrap_err()
            .to_string();
        assert!(e.contains(why), "{name}: {e}");
    }
    n1.settings = set("work_mem", "7MB", &set("max_connections", "50", &n1.settings));
    n1.instance.check(&n1.settings).await.unwrap();
    n1.instance.configure(&n1.settings).await.unwrap();
    let connection = n1.prober.connection(SOON).await.unwrap();
    control::reload(connection, SOON).await.unwrap();
    n1.prober.close();
    let began = std::time::Instant::now();
    let details = loop {
        let details = n1.prober.details(SOON).await.unwrap();
        if !details.pending_restart.is_empty() {
            break details;
        }
        assert!(began.elapsed() < SOON, "{details:?}");
    };
    let pending = &details.pending_restart[0];
    assert_eq!(
        (pending.parameter.as_str(), pending.current.as_str()),
        ("max_connections", "40")
    );
    assert_eq!(pending.wanted.as_deref(), Some("50"));
    assert_eq!(n1.ask("SELECT current_setting('work_mem')").await, "7MB");
    assert!(details.errors.is_empty() && details.data_bytes > 1 << 20 && details.wal_bytes > 1 << 20);
    n1.stop().await;
    n1.start(false).await;
    assert!(n1.prober.details(SOON).await.unwrap().pending_restart.is_empty());
    assert_eq!(n1.ask("SELECT current_setting('max_connections')").await, "50");
    // Where it listens is not on disk.
    let main = std::fs::read_to_string(n1.data().join("postgresql.conf")).unwrap();
    assert!(main.contains("\nlisten_addresses = ''\n"), "{main}");
    assert_eq!(n1.ask("SELECT current_setting('listen_addresses')").await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_and_databases_are_made_once_and_no_password_is_logged() {
    let rig = Rig::new().await;
    let mut n1 = rig.node("n1").await;
    n1.settings.hba = vec![
        "host app app 127.0.0.1/32 scram-sha-256".into(),
        "host all all all trust".into(),
    ];
    n1.settings.parameters.insert("log_statement".into(), "all".into());
    n1.instance.create(&n1.settings).await.unwrap();
    n1.start(false).await;
    let role = |password: Option<&str>, member_of: &[&str]| RoleSpec {
        verifier: password.map(provision::verifier),
        login: true,
        createdb: false,
        createrole: false,
        member_of: member_of.iter().map(|m| (*m).to_owned()).collect(),
    };
    let mut roles: BTreeMap<String, RoleSpec> = [
        ("app".to_owned(), role(Some("s3cret'\\"), &["pg_monitor"])),
        ("web User".to_owned(), role(None, &["app"])),
    ]
    .into();
    let databases: BTreeMap<String, DatabaseSpec> = [(
        "app".to_owned(),
        DatabaseSpec {
            owner: "app".into(),
            extensions: vec!["plpgsql".into(), "pg_stat_statements".into()],
        },
    )]
    .into();
    let place = n1.instance.place.clone();
    let connection = n1.prober.connection(SOON).await.unwrap();
    provision::own_roles(connection).await.unwrap();
    provision::own_roles(connection).await.unwrap();
    assert_eq!(provision::roles(connection, &roles).await.unwrap().len(), 4);
    assert_eq!(
        provision::databases(&place, connection, &databases)
            .await
            .unwrap()
            .len(),
        2
    );
    assert!(provision::roles(connection, &roles).await.unwrap().is_empty());
    assert!(
        provision::databases(&place, connection, &databases)
            .await
            .unwrap()
            .is_empty()
    );

    let login = |user: &'static str, database: &'static str, password: &'static str| {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(place.port)
            .user(user)
            .dbname(database)
            .password(password);
        async move {
            let (client, connection) = config.connect(NoTls).await?;
            let task = tokio::spawn(connection);
            let row = client.query_one("SELECT current_user::text", &[]).await?;
            task.abort();
            Ok::<String, tokio_postgres::Error>(row.get(0))
        }
    };
    assert_eq!(login("app", "app", "s3cret'\\").await.unwrap(), "app");
    assert!(login("app", "app", "wrong").await.is_err());
    // Whatever the group's lines allow, had's own roles come by certificate alone.
    assert!(login("had_replication", "postgres", "").await.is_err());
    assert!(login("had_rewind", "postgres", "").await.is_err());

    roles.insert("app".into(), role(Some("other"), &["pg_monitor"]));
    let connection = n1.prober.connection(SOON).await.unwrap();
    assert_eq!(
        provision::roles(connection, &roles).await.unwrap(),
        ["role app changed"]
    );
    assert_eq!(login("app", "app", "other").await.unwrap(), "app");
    roles.insert("had_rewind".into(), role(None, &[]));
    assert!(provision::roles(connection, &roles).await.is_err());
    let log = n1.log();
    assert!(!log.contains("s3cret") && !log.contains("SCRAM-SHA-256$"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_kept_advanced_and_dropped() {
    let rig = Rig::new().await;
    let mut n1 = rig.primary("n1").await;
    let wanted = ["had_n2".to_owned(), "had_n3".to_owned()].into();
    n1.local("SELECT pg_create_physical_replication_slot('theirs'), pg_create_physical_replication_slot('had_gone')")
        .await;
    let present = n1.probe().await.slots;
    let connection = n1.prober.connection(SOON).await.unwrap();
    assert!(
        control::keep_slots(connection, &wanted, &present)
            .await
            .unwrap()
            .is_empty()
    );
    let mut names: Vec<_> = n1.probe().await.slots.into_iter().map(|s| s.name).collect();
    names.sort();
    assert_eq!(names, ["had_n2", "had_n3", "theirs"]);
    n1.local("CREATE TABLE t AS SELECT generate_series(1, 1000)").await;
    let probe = n1
        .until("WAL is held", |p| {
            p.slots.iter().any(|s| s.name == "had_n2" && s.held_bytes > 0)
        })
        .await;
    let end = probe.flushed.unwrap();
    let connection = n1.prober.connection(SOON).await.unwrap();
    control::advance_slot(connection, "had_n2", end).await.unwrap();
    control::advance_slot(connection, "had_n2", "0/1".parse().unwrap())
        .await
        .unwrap();
    let slots = n1.probe().await.slots;
    assert!(
        slots.iter().any(|s| s.name == "had_n2" && s.restart == Some(end)),
        "{slots:?}"
    );
}
