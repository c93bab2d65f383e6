//! A group's ports on the proxies of all nodes: readers are led to standbys on other nodes, within the lag limit; ports
//! change while clients are connected; two groups have two.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::LIMIT;
use ha_tests::zookeeper::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use crate::rig::{GROUP, Group};

/// A port that is free at all these hosts.
fn port_at(hosts: &[(String, u16)]) -> Result<u16> {
    loop {
        let port = free_port("0.0.0.0")?;
        let taken = hosts.iter().any(|(_, theirs)| *theirs == port);
        if !taken {
            return Ok(port);
        }
    }
}

/// The port of the server that a client is led to here.
async fn led_to(host: &str, port: u16) -> Result<u16> {
    let (client, connection) = Group::client(host, port).connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let row = client.query_one("SELECT inet_server_port()", &[]).await;
    connection.abort();
    Ok(u16::try_from(row?.get::<_, i32>(0))?)
}

/// Waits until clients are led to these servers and no others, for some time.
async fn lead_to(host: &str, port: u16, wanted: &BTreeSet<u16>) -> Result<()> {
    let limit = Instant::now() + LIMIT;
    let mut seen = Vec::new();
    loop {
        seen.push(led_to(host, port).await.ok());
        let last: BTreeSet<Option<u16>> = seen.iter().rev().take(20).copied().collect();
        if seen.len() >= 20 && last == wanted.iter().map(|p| Some(*p)).collect() {
            return Ok(());
        }
        ensure!(
            Instant::now() < limit,
            "{host}:{port} leads to {last:?}, not to {wanted:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

async fn configure(group: &Group, change: impl FnOnce(&mut v1::GroupSpec)) -> Result<()> {
    let mut admin = group.cluster.admin()?;
    let request = v1::GetConfigRequest { group: GROUP.into() };
    let mut spec = admin.get_config(request).await?.spec.unwrap_or_default();
    change(&mut spec);
    let request = v1::SetConfigRequest {
        group: GROUP.into(),
        spec: Some(spec),
        ..v1::SetConfigRequest::default()
    };
    admin.set_config(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_led_to_standbys_anywhere_and_ports_move_under_them() -> Result<()> {
    let none = Some(v1::GroupProxy {
        port: Some(0),
        standby_port: Some(0),
        ..v1::GroupProxy::default()
    });
    let group = Group::create_in("[proxy]\nlisten = \"{host}\"\n", Vec::new(), |s| s.proxy = none).await?;
    let (port, standby_port) = (port_at(&group.hosts)?, port_at(&group.hosts)?);
    configure(&group, |s| {
        let proxy = s.proxy.get_or_insert_default();
        (proxy.port, proxy.standby_port) = (Some(port.into()), Some(standby_port.into()));
        proxy.max_lag_bytes = Some(1 << 20);
    })
    .await?;
    let first = group.whole().await?;
    let others = group.others(&first);
    let at = |node: &str| {
        let i = group.cluster.daemons.iter().position(|d| d.name == node);
        group.hosts[i.unwrap()].clone()
    };
    // Every node leads to the primary, and to both standbys, one of which or none is its own.
    let both: BTreeSet<u16> = others.iter().map(|n| at(n).1).collect();
    for (host, _) in &group.hosts {
        lead_to(host, port, &[at(&first).1].into()).await?;
        lead_to(host, standby_port, &both).await?;
    }
    // The same distance is what load balancers ask for.
    let lagging = group.cluster.daemons.iter().find(|d| d.name == others[0]).unwrap();
    let check = async || {
        let mut stream = TcpStream::connect(&lagging.http).await?;
        stream
            .write_all(b"GET /replica?lag=1MB HTTP/1.0\r\nHost: n\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        Ok::<u16, anyhow::Error>(status.parse()?)
    };
    let limit = Instant::now() + LIMIT;
    while check().await? != 200 {
        ensure!(Instant::now() < limit, "a standby that is near does not pass");
        sleep(Duration::from_millis(50)).await;
    }
    // One that falls behind gets no more clients, on any node, and has them again when it is near.
    group.sql(&others[0], "app", "SELECT pg_wal_replay_pause()").await?;
    let much = "CREATE TABLE much AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i";
    group.sql(&first, "app", much).await?;
    for (host, _) in &group.hosts {
        lead_to(host, standby_port, &[at(&others[1]).1].into()).await?;
    }
    ensure!(check().await? == 503, "a standby that is far passes");
    group.sql(&others[0], "app", "SELECT pg_wal_replay_resume()").await?;
    for (host, _) in &group.hosts {
        lead_to(host, standby_port, &both).await?;
    }
    // Other ports, at once and without a restart; who is connected stays.
    let host = at(&others[1]).0;
    let (client, connection) = Group::client(&host, port).connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let moved = port_at(&group.hosts)?;
    configure(&group, |s| s.proxy.get_or_insert_default().port = Some(moved.into())).await?;
    for (host, _) in &group.hosts {
        lead_to(host, moved, &[at(&first).1].into()).await?;
        ensure!(led_to(host, port).await.is_err(), "{host} still listens on {port}");
    }
    client.query_one("SELECT 1", &[]).await?;
    connection.abort();
    let shown = group
        .until("every node tells of the new port", |g| {
            let there = |p: &&v1::ProxyStatus| p.address.ends_with(&format!(":{moved}"));
            g.proxies.iter().filter(there).count() == 3
        })
        .await?;
    ensure!(shown.proxies.iter().all(|p| p.error.is_empty()), "{:?}", shown.proxies);
    // A second group cannot have what the first one has.
    let mut spec = shown.spec.unwrap_or_default();
    let proxy = spec.proxy.get_or_insert_default();
    (proxy.port, proxy.standby_port) = (Some(0), Some(moved.into()));
    for m in &mut spec.members {
        m.port += 1;
    }
    let request = v1::CreateGroupRequest {
        name: "other".into(),
        spec: Some(spec),
        ..v1::CreateGroupRequest::default()
    };
    let refused = group.cluster.admin()?.create_group(request).await;
    let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
    ensure!(
        error.contains("HA0428") && error.contains(&moved.to_string()),
        "{error}"
    );
    Ok(())
}
