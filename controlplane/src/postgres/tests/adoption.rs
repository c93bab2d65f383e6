//! Clusters that ran without had: with their configuration beside the data, and split as Debian does it.

use std::path::Path;

use super::rig::{Rig, SOON};
use crate::postgres::{PgError, control};

/// A cluster made by hand, as an administrator would have.
async fn by_hand(rig: &Rig, data: &Path) {
    let parent = data.parent().unwrap();
    std::fs::create_dir_all(parent).unwrap();
    rig.account.give(parent).unwrap();
    let mut command = tokio::process::Command::new(rig.install.bin.join("initdb"));
    command
        .arg("-D")
        .arg(data)
        .args(["-U", "postgres", "--auth=trust"])
        .current_dir("/");
    rig.account.apply(&mut command);
    let out = command.output().await.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn open_up(path: &Path) {
    for dir in path.ancestors().take(3) {
        crate::platform::let_through(dir).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debians_split_layout() {
    let rig = Rig::new().await;
    let data = rig.path().join("lib/15/main");
    let etc = rig.path().join("etc");
    let conf = etc.join("15/main");
    by_hand(&rig, &data).await;
    open_up(data.parent().unwrap());
    std::fs::create_dir_all(conf.join("conf.d")).unwrap();
    open_up(&conf);
    std::fs::remove_file(data.join("postgresql.conf")).unwrap();
    std::fs::rename(data.join("pg_hba.conf"), conf.join("pg_hba.conf")).unwrap();
    let hba = conf.join("pg_hba.conf");
    let text = format!(
        "data_directory = '{}'\t# use data in another directory\nhba_file = '{}'\nlisten_addresses = '*'\nport = 5433\n\
         ssl = on\nmax_connections = 40\nwork_mem = 5MB\nlc_messages = 'C'\ninclude_dir = 'conf.d'\n",
        data.display(),
        hba.display()
    );
    std::fs::write(conf.join("postgresql.conf"), text).unwrap();
    std::fs::write(
        conf.join("conf.d/tuning.conf"),
        "work_mem = 6MB\nshared_buffers = 16MB\n",
    )
    .unwrap();
    std::fs::write(conf.join("start.conf"), "auto\n").unwrap();
    std::fs::write(
        &hba,
        "local all postgres peer\nhost app app 10.0.0.0/8 scram-sha-256\nhost all all bogus! md5\n",
    )
    .unwrap();
    std::fs::write(
        data.join("postgresql.auto.conf"),
        "temp_buffers = '9MB'\nsynchronous_standby_names = ''\n",
    )
    .unwrap();

    let mut node = rig.node_at("n1", Some(&data)).await;
    node.settings.parameters.clear();
    let id = node.instance.control().await.unwrap().system_id;
    let e = node
        .instance
        .adopt(Some(id + 1), &node.settings, &etc)
        .await
        .unwrap_err();
    assert!(matches!(e, PgError::Refused { .. }), "{e}");
    assert_eq!(
        std::fs::read_to_string(conf.join("start.conf")).unwrap(),
        "auto\n",
        "untouched"
    );

    let adopted = node.instance.adopt(None, &node.settings, &etc).await.unwrap();
    let value = |name: &str| adopted.parameters.get(name).map(String::as_str);
    assert_eq!(
        (value("work_mem"), value("temp_buffers"), value("max_connections")),
        (Some("6MB"), Some("9MB"), Some("40"))
    );
    for name in [
        "port",
        "listen_addresses",
        "synchronous_standby_names",
        "lc_messages",
        "data_directory",
    ] {
        assert!(adopted.left.contains_key(name), "{name}: {adopted:?}");
    }
    assert_eq!(
        adopted.hba,
        ["local all postgres peer", "host app app 10.0.0.0/8 scram-sha-256"]
    );
    assert_eq!(adopted.hba_left.len(), 1);
    let again = node.instance.adopt(Some(id), &node.settings, &etc).await.unwrap();
    assert_eq!(
        (again.parameters, again.hba),
        (adopted.parameters.clone(), adopted.hba.clone()),
        "repeatable"
    );

    // Whoever starts it by Debian's file finds it closed, and Debian's tools do not start it.
    assert!(
        std::fs::read_to_string(conf.join("start.conf"))
            .unwrap()
            .ends_with("disabled\n")
    );
    let shown = |name: &'static str| {
        let mut command = tokio::process::Command::new(rig.install.bin.join("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .arg("-c")
            .arg(format!("config_file={}", conf.join("postgresql.conf").display()))
            .args(["-C", name])
            .current_dir("/");
        rig.account.apply(&mut command);
        async move {
            let out = command.output().await.unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        }
    };
    assert_eq!(shown("synchronous_standby_names").await, "ANY 1 (closed)");
    assert_eq!(shown("listen_addresses").await, "");

    node.settings.parameters = adopted.parameters;
    node.settings.hba = adopted.hba;
    node.start(false).await;
    assert_eq!(node.ask("SELECT current_setting('work_mem')").await, "6MB");
    let connection = node.prober.connection(SOON).await.unwrap();
    control::checkpoint(connection, SOON).await.unwrap();
    assert_eq!(node.probe().await.system_id, id);
    // While it runs, nothing is taken over.
    assert!(node.instance.adopt(Some(id), &node.settings, &etc).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_takes_over_what_it_finds() {
    let rig = Rig::new().await;
    let data = rig.path().join("srv/pg/data");
    by_hand(&rig, &data).await;
    open_up(data.parent().unwrap());
    let main = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, text + "work_mem = 9MB\nlisten_addresses = '*'\n").unwrap();
    let mut node = rig.node_at("n1", Some(&data)).await;
    assert!(!node.instance.is_adopted().await.unwrap());
    node.start(false).await;
    assert!(node.instance.is_adopted().await.unwrap());
    assert_eq!(node.ask("SELECT current_setting('work_mem')").await, "9MB");
    assert_eq!(
        node.ask("SELECT current_setting('max_connections')").await,
        "40",
        "the spec's"
    );
    assert!(data.join("postgresql.conf.before-had").exists());
    let closed = std::fs::read_to_string(&main).unwrap();
    assert!(closed.contains("ANY 1 (closed)"), "{closed}");
    // It stays so for the next daemon, and what the spec says later holds.
    node.stop().await;
    let place = node.instance.place.clone();
    node.instance = crate::postgres::instance::Instance::open(place, rig.install.clone(), rig.account.clone())
        .await
        .unwrap();
    node.start(false).await;
    assert_eq!(node.ask("SELECT current_setting('work_mem')").await, "9MB");
    node.settings.parameters.insert("work_mem".into(), "8MB".into());
    node.set_names(super::rig::any(&["n2"], 1)).await.unwrap();
    assert_eq!(node.ask("SELECT current_setting('work_mem')").await, "8MB");
}

/// As on a node that has PostgreSQL's packages and never had a cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_made_with_all_that_leads_to_it() {
    use std::os::unix::fs::MetadataExt as _;
    let rig = Rig::new().await;
    let data = rig.path().join("lib/15/main");
    let node = rig.node_at("n1", Some(&data)).await;
    node.instance.repair().await.unwrap();
    assert!(!data.parent().unwrap().exists(), "a look makes nothing");
    node.instance.create(&node.settings).await.unwrap();
    let owner = data.metadata().unwrap().uid();
    for dir in data.ancestors().take(3) {
        assert_eq!(dir.metadata().unwrap().uid(), owner, "{}", dir.display());
    }
}
