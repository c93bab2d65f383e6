//! Daemons that must not join: with another secret, another cluster's bundle, a name that is taken, a server that grants
//! another session timeout. Each ends with its own error, and the cluster does not notice.

use anyhow::{Result, ensure};
use ha_tests::cluster::{Cluster, Daemon, LIMIT, Options, SESSION};
use ha_tests::zookeeper::ZkOptions;
use hactl::ca::ClusterAuthority;
use hactl::{bundle, files};

/// Starts a daemon that has to refuse to run, and returns what it said.
async fn refuses(daemon: &mut Daemon, code: &str) -> Result<String> {
    daemon.start()?;
    let status = daemon.ended(LIMIT).await?;
    let log = daemon.log();
    let told = log.lines().any(|l| l.starts_with(&format!("error {code}: ")));
    ensure!(!status.success() && told, "{status}:\n{log}");
    Ok(log)
}

/// A cluster of two, and the number of its last change.
async fn two() -> Result<(Cluster, u64)> {
    let cluster = Cluster::start(Options {
        nodes: 2,
        ..Options::default()
    })
    .await?;
    let seq = cluster.revision().await?;
    Ok((cluster, seq))
}

/// Nothing was written because of the stranger.
async fn unnoticed(cluster: &Cluster, seq: u64) -> Result<()> {
    let changes = cluster.changes_since(seq).await?;
    ensure!(changes.is_empty(), "{changes:?}");
    Ok(())
}

#[tokio::test]
async fn another_secret_or_another_cluster_is_refused() -> Result<()> {
    let (mut cluster, seq) = two().await?;
    // The cluster's own certificates with another secret.
    let issued = cluster.authority.issue_node("n9")?;
    let stranger = cluster.place("n9", &issued, None)?;
    let path = stranger.bundle();
    let mut wrong = bundle::read(&path, bundle::Kind::Node)?;
    wrong.secret = ClusterAuthority::create("test", &wrong.zookeeper, SESSION)?.secret;
    files::replace(&path, &bundle::to_toml(&wrong)?)?;
    let said = refuses(stranger, "HA0802").await?;
    ensure!(!said.contains(&wrong.secret), "the secret is in the log");
    cluster.forget("n9");

    // Another cluster of the same name, with its own secret, on the same servers.
    let own = cluster.authority.clone();
    let mut other = ClusterAuthority::create("test", &cluster.zookeeper.hosts(), SESSION)?;
    let issued = other.issue_node("n2")?;
    cluster.authority = other.clone();
    refuses(cluster.place("n2", &issued, None)?, "HA0802").await?;
    drop(cluster.daemons.pop());

    // The same, had the secrets been the same.
    other.secret = own.secret.clone();
    cluster.authority = other;
    let said = refuses(cluster.place("n2", &issued, None)?, "HA0803").await?;
    ensure!(said.contains(&own.cluster_id), "{said}");
    drop(cluster.daemons.pop());

    // A cluster that does not exist there, without the right to make it.
    let nowhere = ClusterAuthority::create("elsewhere", &cluster.zookeeper.hosts(), SESSION)?;
    let issued = nowhere.issue_node("n2")?;
    cluster.authority = nowhere;
    let absent = cluster.place("n2", &issued, None)?;
    absent.start()?;
    let begun = tokio::time::Instant::now();
    while !absent.log().contains("HA0804") {
        ensure!(begun.elapsed() < LIMIT, "{}", absent.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    drop(cluster.daemons.pop());

    cluster.authority = own;
    unnoticed(&cluster, seq).await?;
    cluster.finish().await
}

#[tokio::test]
async fn two_daemons_with_one_name_are_told_apart() -> Result<()> {
    let (mut cluster, seq) = two().await?;
    // The same state directory: the second does not even begin.
    let (dir, config) = (cluster.node("n2").dir.clone(), cluster.node("n2").config());
    let had = cluster.programs().had.clone();
    let same = tokio::process::Command::new(&had)
        .args(["--config".as_ref(), config.as_os_str()])
        .kill_on_drop(true)
        .output();
    let same = tokio::time::timeout(LIMIT, same).await??;
    let said = String::from_utf8_lossy(&same.stderr);
    ensure!(!same.status.success() && said.contains("error HA0807: "), "{said}");

    // The same bundle on another machine.
    let address = cluster.node("n2").address.clone();
    let issued = cluster.authority.issue_node("n2")?;
    let said = refuses(cluster.place("n2", &issued, None)?, "HA0309").await?;
    ensure!(said.contains(&address), "{said}");
    drop(cluster.daemons.pop());

    // A copy of the whole machine.
    let twin = cluster.place("n2", &issued, None)?;
    std::fs::create_dir(twin.state_dir())?;
    std::fs::copy(dir.join("state/token"), twin.state_dir().join("token"))?;
    let said = refuses(twin, "HA0309").await?;
    ensure!(said.contains("copy of this node's state directory"), "{said}");
    drop(cluster.daemons.pop());

    unnoticed(&cluster, seq).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_server_that_grants_another_session_timeout_is_named() -> Result<()> {
    let mut cluster = Cluster::prepared(Options {
        nodes: 1,
        zookeeper: ZkOptions {
            min_session_ms: 10_000,
            ..ZkOptions::default()
        },
        ..Options::default()
    })
    .await?;
    let issued = cluster.authority.issue_node("n1")?;
    let user = cluster.authority.issue_user("admin", ha_proto::v1::AccessRole::Admin)?;
    let server = cluster.zookeeper.servers[0].address();
    let bootstrap = ClusterAuthority::bootstrap(&issued, &user);
    let said = refuses(cluster.place("n1", &issued, Some(bootstrap))?, "HA0805").await?;
    ensure!(said.contains(&server) && said.contains("minSessionTimeout"), "{said}");
    Ok(())
}

#[tokio::test]
async fn damaged_and_wrong_bundles_are_named() -> Result<()> {
    let (mut cluster, seq) = two().await?;
    let issued = cluster.authority.issue_node("n9")?;
    let user = cluster.bundle("admin")?;
    let stranger = cluster.place("n9", &issued, None)?;
    let path = stranger.bundle();
    let good = bundle::read(&path, bundle::Kind::Node)?;
    let mut other_id = good.clone();
    other_id.cluster_id = "00000000-0000-4000-8000-000000000000".into();
    let mut other_key = good.clone();
    other_key.key = user.key.clone();
    let mut newer = good.clone();
    newer.version = 2;
    let text = bundle::to_toml(&good)?;
    for (what, wrong) in [
        ("half of it", text[..text.len() / 2].to_owned()),
        ("bytes", "\u{1b}[2J\u{0}".to_owned()),
        ("a user's", bundle::to_toml(&user)?),
        ("another cluster id", bundle::to_toml(&other_id)?),
        ("another key", bundle::to_toml(&other_key)?),
        ("a newer version", bundle::to_toml(&newer)?),
        ("nothing", String::new()),
    ] {
        files::replace(&path, &wrong)?;
        let said = refuses(stranger, "HA0005").await.map_err(|e| e.context(what))?;
        let shown = said.lines().filter(|l| !l.starts_with('{'));
        ensure!(
            shown.clone().all(|l| !l.chars().any(char::is_control)),
            "{what}: {said:?}"
        );
    }
    cluster.forget("n9");
    unnoticed(&cluster, seq).await?;
    cluster.finish().await
}
