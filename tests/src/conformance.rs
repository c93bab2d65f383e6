//! What every coordinator must do, written once and run on memory and on real ZooKeeper.
//!
//! It must never know which of them it runs on: only then does passing in memory say something about the real one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use controlplane::coordination::resolve::{self, wait_live};
use controlplane::coordination::{Connector, CoordError, Coordinator, CreateMode, MAX_VALUE, SessionState, Watch};
use controlplane::platform::Clock;
use futures::future::{join_all, try_join_all};
use tokio::time::{sleep, timeout};

/// What the suite runs on.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A connector for a client in the cluster of that name; each cluster has a root of its own.
    fn connector(&self, cluster: &str, client: &str) -> Arc<dyn Connector>;
    /// The clock that the connectors have.
    fn clock(&self) -> Arc<dyn Clock>;
    /// Breaks every connection for a moment shorter than the session timeout.
    async fn break_connections(&mut self);
    /// Stops the server.
    async fn freeze(&mut self);
    /// Continues it.
    async fn thaw(&mut self);
}

type Session = Arc<dyn Coordinator>;

/// Runs the whole suite.
///
/// # Errors
/// The first expectation that was not met.
pub async fn run(fixture: &mut dyn Fixture) -> Result<()> {
    let calm = async {
        tokio::try_join!(
            named("nodes", nodes(fixture)),
            named("sequential", sequential(fixture)),
            named("closing", closing(fixture)),
            named("expiry", expiry(fixture)),
            named("watches", watches(fixture)),
            named("lease", lease(fixture)),
            named("takeover", takeover(fixture)),
            named("hostile", hostile(fixture)),
            named("crowd", crowd(fixture)),
        )
    };
    calm.await?;
    named("reconnect", reconnect(fixture)).await?;
    named("frozen", frozen(fixture)).await
}

async fn named(name: &str, scenario: impl Future<Output = Result<()>>) -> Result<()> {
    scenario.await.with_context(|| format!("in the scenario {name}"))
}

/// A session in a cluster whose root exists.
async fn session(f: &dyn Fixture, cluster: &str, client: &str) -> Result<Session> {
    let c = f.connector(cluster, client).connect().await?;
    match c.create("", b"root", CreateMode::Persistent).await {
        Ok(_) | Err(CoordError::Exists(_)) => Ok(c),
        Err(e) => Err(e.into()),
    }
}

/// A session that holds a lease on `/<client>`.
async fn holder(f: &dyn Fixture, cluster: &str, client: &str) -> Result<Session> {
    let c = session(f, cluster, client).await?;
    let path = format!("/{client}");
    c.create(&path, b"", CreateMode::Ephemeral).await?;
    c.hold_lease(&path).await?;
    Ok(c)
}

fn session_timeout(f: &dyn Fixture) -> Duration {
    f.connector("any", "any").session_timeout()
}

async fn fires(watch: Watch, within: Duration) -> Result<()> {
    timeout(within, watch.fired()).await.context("the watch did not fire")
}

/// Waits until the session is over and tells why.
async fn lost(c: &Session, within: Duration) -> Result<String> {
    let mut state = c.state();
    let seen = timeout(within, state.wait_for(|s| matches!(s, SessionState::Lost(_)))).await;
    match &*seen.context("the session was not lost")?? {
        SessionState::Lost(why) => Ok(why.clone()),
        other => bail!("{other:?}"),
    }
}

/// Expects an error of a kind.
macro_rules! refused {
    ($call:expr, $kind:ident) => {
        match $call.await {
            Err(CoordError::$kind(_)) => {}
            Err(e) => bail!("{} gave {e:?} instead of {}", stringify!($call), stringify!($kind)),
            Ok(_) => bail!(
                "{} was carried out instead of giving {}",
                stringify!($call),
                stringify!($kind)
            ),
        }
    };
}

async fn nodes(f: &dyn Fixture) -> Result<()> {
    let fresh = f.connector("nodes", "n0").connect().await?;
    refused!(fresh.read(""), NotFound);
    refused!(fresh.create("/a", b"", CreateMode::Persistent), NotFound);
    let (path, _) = fresh.create("", b"root", CreateMode::Persistent).await?;
    ensure!(path.is_empty(), "the root's path is {path:?}");
    let c = session(f, "nodes", "n1").await?;
    refused!(c.create("", b"", CreateMode::Persistent), Exists);
    ensure!(c.read("").await?.0 == b"root");
    refused!(c.create("/a/b", b"", CreateMode::Persistent), NotFound);
    let (path, made) = c.create("/a", b"0", CreateMode::Persistent).await?;
    ensure!(path == "/a" && made.version == 0 && made.owner == 0 && made.created == made.modified);
    refused!(c.create("/a", b"", CreateMode::Persistent), Exists);
    ensure!(c.read("/a").await? == (b"0".to_vec(), made));
    let set = c.compare_and_set("/a", b"1", 0).await?;
    ensure!(set.version == 1 && set.created == made.created && set.modified > made.modified);
    refused!(c.compare_and_set("/a", b"2", 0), BadVersion);
    refused!(c.compare_and_set("/none", b"2", 0), NotFound);
    refused!(c.delete("/a", 0), BadVersion);
    c.create("/a/z", b"", CreateMode::Persistent).await?;
    c.create("/a/b", b"", CreateMode::Persistent).await?;
    ensure!(c.children("/a").await? == ["b", "z"] && c.children("").await? == ["a"]);
    refused!(c.children("/none"), NotFound);
    refused!(c.delete("/a", 1), NotEmpty);
    c.delete("/a/z", 0).await?;
    c.delete("/a/b", 0).await?;
    c.delete("/a", 1).await?;
    refused!(c.delete("/a", 1), NotFound);
    refused!(c.read("/a"), NotFound);
    let (_, again) = c.create("/a", b"", CreateMode::Persistent).await?;
    ensure!(again.created > made.created && again.version == 0);
    c.create("/e", b"", CreateMode::Ephemeral).await?;
    refused!(c.create("/e/x", b"", CreateMode::Persistent), Invalid);
    for path in ["a", "/", "/a/", "//", "/a//b", "/a/../b", "/a\0"] {
        refused!(c.read(path), Invalid);
        refused!(c.read_and_watch(path), Invalid);
        refused!(c.create(path, b"", CreateMode::Persistent), Invalid);
        refused!(c.compare_and_set(path, b"", 0), Invalid);
        refused!(c.delete(path, 0), Invalid);
        refused!(c.children(path), Invalid);
        refused!(c.hold_lease(path), Invalid);
    }
    refused!(c.compare_and_set("/a", b"", -1), Invalid);
    refused!(c.delete("/a", -1), Invalid);
    let large = vec![7; MAX_VALUE + 1];
    refused!(c.compare_and_set("/a", &large, 0), Invalid);
    refused!(c.create("/large", &large, CreateMode::Persistent), Invalid);
    ensure!(c.compare_and_set("/a", &large[1..], 0).await?.version == 1);
    ensure!(c.read("/a").await?.0.len() == MAX_VALUE);
    Ok(())
}

async fn sequential(f: &dyn Fixture) -> Result<()> {
    let (a, b) = (
        session(f, "sequential", "n1").await?,
        session(f, "sequential", "n2").await?,
    );
    a.create("/e", b"", CreateMode::Persistent).await?;
    let mut names = Vec::new();
    for c in [&a, &b, &a, &b] {
        let (path, stat) = c.create("/e/c-", b"x", CreateMode::EphemeralSequential).await?;
        ensure!(
            stat.owner != 0 && Some(stat.owner) == c.session_id(),
            "{path}: {stat:?}"
        );
        names.push(path.strip_prefix("/e/").context("outside")?.to_owned());
    }
    ensure!(
        names == ["c-0000000000", "c-0000000001", "c-0000000002", "c-0000000003"],
        "{names:?}"
    );
    a.delete(&format!("/e/{}", names[2]), 0).await?;
    let (path, _) = b.create("/e/c-", b"x", CreateMode::EphemeralSequential).await?;
    ensure!(path == "/e/c-0000000004", "a counter never goes back: {path}");
    ensure!(a.session_id() != b.session_id());
    Ok(())
}

async fn closing(f: &dyn Fixture) -> Result<()> {
    let (a, b) = (holder(f, "closing", "n1").await?, session(f, "closing", "n2").await?);
    let (_, on_node) = b.read_and_watch("/n1").await?;
    let (_, on_names) = b.children_and_watch("").await?;
    let (_, own) = a.read_and_watch("/later").await?;
    a.close().await;
    refused!(a.read(""), SessionLost);
    refused!(a.create("/x", b"", CreateMode::Persistent), SessionLost);
    ensure!(a.lease().borrow().until.is_none(), "a closed session has no lease");
    ensure!(matches!(&*a.state().borrow(), SessionState::Lost(_)));
    fires(own, Duration::from_secs(1)).await?;
    // Two heartbeats may have fired the watch on the node before.
    fires(on_node, Duration::from_secs(1)).await?;
    fires(on_names, Duration::from_secs(1)).await?;
    refused!(b.read("/n1"), NotFound);
    a.close().await;
    a.abandon();
    Ok(())
}

async fn expiry(f: &dyn Fixture) -> Result<()> {
    let t = session_timeout(f);
    let (a, b) = (holder(f, "expiry", "n1").await?, session(f, "expiry", "n2").await?);
    let dropped = session(f, "expiry", "n3").await?;
    dropped.create("/n3", b"", CreateMode::Ephemeral).await?;
    drop(dropped);
    a.abandon();
    refused!(a.read(""), SessionLost);
    sleep(t / 2).await;
    ensure!(
        b.read("/n1").await.is_ok() && b.read("/n3").await.is_ok(),
        "an abandoned session lives for its timeout"
    );
    for path in ["/n1", "/n3"] {
        let gone = async {
            while let (Some(_), watch) = b.read_and_watch(path).await? {
                watch.fired().await;
            }
            Ok::<(), CoordError>(())
        };
        timeout(t * 2, gone)
            .await
            .context("an abandoned session never expired")??;
    }
    Ok(())
}

async fn watches(f: &dyn Fixture) -> Result<()> {
    let soon = Duration::from_secs(1);
    let (a, b) = (session(f, "watches", "n1").await?, session(f, "watches", "n2").await?);
    // Creation.
    let (none, created) = a.read_and_watch("/a").await?;
    ensure!(none.is_none());
    b.create("/a", b"0", CreateMode::Persistent).await?;
    fires(created, soon).await?;
    // Change, seen by more than one watch; names are not concerned.
    let (node, changed) = a.read_and_watch("/a").await?;
    ensure!(node.context("it exists")?.0 == b"0");
    let (_, twice) = a.read_and_watch("/a").await?;
    let (names, mut on_names) = a.children_and_watch("/a").await?;
    ensure!(names.is_empty());
    b.compare_and_set("/a", b"1", 0).await?;
    fires(changed, soon).await?;
    fires(twice, soon).await?;
    ensure!(!on_names.has_fired(), "a value's change is none of the names");
    // Children come and go; the node itself is not concerned.
    let (node, mut on_node) = a.read_and_watch("/a").await?;
    ensure!(node.context("it exists")?.0 == b"1");
    b.create("/a/x", b"", CreateMode::Persistent).await?;
    fires(on_names, soon).await?;
    let (names, on_names) = a.children_and_watch("/a").await?;
    ensure!(names == ["x"]);
    b.delete("/a/x", 0).await?;
    fires(on_names, soon).await?;
    ensure!(!on_node.has_fired(), "children are none of the node's value");
    // Deletion, for both kinds.
    let (_, on_names) = a.children_and_watch("/a").await?;
    b.delete("/a", 1).await?;
    fires(on_names, soon).await?;
    fires(on_node, soon).await?;
    let (none, mut quiet) = a.read_and_watch("/a").await?;
    ensure!(none.is_none());
    refused!(a.children_and_watch("/a"), NotFound);
    ensure!(!quiet.has_fired());
    Ok(())
}

async fn lease(f: &dyn Fixture) -> Result<()> {
    let (t, clock) = (session_timeout(f), f.clock());
    let c = session(f, "lease", "n1").await?;
    ensure!(c.lease().borrow().until.is_none(), "no lease before it is held");
    refused!(c.hold_lease("/none"), SessionLost);
    let c = session(f, "lease", "n1").await?;
    c.create("/n1", b"", CreateMode::Ephemeral).await?;
    let before = clock.boottime();
    c.hold_lease("/n1").await?;
    c.hold_lease("/n1").await?;
    let until = c.lease().borrow().until.context("the lease has begun")?;
    ensure!(until >= before + t * 2 / 3 && until <= clock.boottime() + t * 2 / 3);
    let mut lease = c.lease();
    let begun = clock.boottime();
    let mut last = until;
    while clock.boottime() - begun < t * 2 {
        timeout(t / 2, lease.changed())
            .await
            .context("no heartbeat for half a session")??;
        let now = clock.boottime();
        let until = lease.borrow_and_update().until.context("it holds")?;
        ensure!(
            until >= last && until <= now + t * 2 / 3,
            "the lease counts from the sending"
        );
        ensure!(until > now, "the lease of a healthy session never ends");
        last = until;
    }
    ensure!(c.read("/n1").await?.1.version >= 9, "heartbeats are writes");
    // A confirmed read sees what was acknowledged to others before, and has renewed the lease by a write.
    let writer = session(f, "lease", "writer").await?;
    refused!(writer.confirm(), Invalid);
    writer.create("/value", b"", CreateMode::Persistent).await?;
    for i in 0..20 {
        writer.compare_and_set("/value", i.to_string().as_bytes(), i).await?;
        let (asked, beats) = (clock.boottime(), c.read("/n1").await?.1.version);
        let (seen, _) = resolve::read_fresh(&*c, "/value").await?;
        ensure!(seen == i.to_string().as_bytes(), "an old value was read");
        let until = c.lease().borrow().until.context("it holds")?;
        ensure!(until >= asked + t * 2 / 3 && c.read("/n1").await?.1.version > beats);
    }
    // Another's node gives no lease.
    let other = session(f, "lease", "n2").await?;
    other.create("/n2", b"", CreateMode::Ephemeral).await?;
    refused!(other.hold_lease("/n1"), SessionLost);
    ensure!(other.lease().borrow().until.is_none());
    Ok(())
}

async fn takeover(f: &dyn Fixture) -> Result<()> {
    let t = session_timeout(f);
    let (a, b) = (holder(f, "takeover", "n1").await?, session(f, "takeover", "n2").await?);
    let deleted = async {
        loop {
            let (_, stat) = b.read("/n1").await?;
            match b.delete("/n1", stat.version).await {
                Err(CoordError::BadVersion(_)) => {}
                other => return other,
            }
        }
    };
    deleted.await?;
    b.create("/n1", b"", CreateMode::Ephemeral).await?;
    let why = lost(&a, t).await?;
    ensure!(why.contains("another session"), "{why}");
    ensure!(a.lease().borrow().until.is_none());
    Ok(())
}

async fn hostile(f: &dyn Fixture) -> Result<()> {
    let c = session(f, "hostile", "n1").await?;
    let values: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        vec![0xff; 4096],
        (0..=255).collect(),
        b"\x1b[2J\x1b[31m{\"seq\":".to_vec(),
        "\u{202e}\u{0}\u{feff}".as_bytes().to_vec(),
        vec![0xc3, 0x28, 0xed, 0xa0, 0x80],
    ];
    c.create("/v", b"", CreateMode::Persistent).await?;
    for (version, value) in values.iter().enumerate() {
        c.compare_and_set("/v", value, i32::try_from(version)?).await?;
        ensure!(&c.read("/v").await?.0 == value);
    }
    let names = ["\u{202e}evil", "a b", "'; drop", "ü€", "..."];
    for name in names {
        c.create(&format!("/v/{name}"), b"", CreateMode::Persistent).await?;
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    ensure!(c.children("/v").await? == sorted);
    Ok(())
}

/// Many requests at once, and many writers on one node.
async fn crowd(f: &dyn Fixture) -> Result<()> {
    let c = session(f, "crowd", "n1").await?;
    c.create("/n", b"0", CreateMode::Persistent).await?;
    let made = join_all((0..500).map(|i| {
        let c = c.clone();
        async move {
            c.create(&format!("/n/{i:03}"), &vec![1; 2000], CreateMode::Persistent)
                .await
        }
    }));
    for made in made.await {
        made?;
    }
    ensure!(c.children("/n").await?.len() == 500);
    let writers = (0..4).map(|w| async move {
        let c = session(f, "crowd", &format!("w{w}")).await?;
        for i in 0..10 {
            loop {
                let (value, stat) = c.read("/n").await?;
                let count: u32 = String::from_utf8(value)?
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .parse()?;
                let mine = format!("{} {w}.{i}", count + 1).into_bytes();
                match resolve::compare_and_set(&*c, "/n", &mine, stat.version, |v| v == mine).await {
                    Ok(_) => break,
                    Err(CoordError::BadVersion(_)) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok::<(), anyhow::Error>(())
    });
    try_join_all(writers).await?;
    let (value, stat) = c.read("/n").await?;
    ensure!(value.starts_with(b"40 ") && stat.version == 40);
    Ok(())
}

async fn reconnect(f: &mut dyn Fixture) -> Result<()> {
    let t = session_timeout(f);
    let c = holder(f, "reconnect", "n1").await?;
    let bare = session(f, "reconnect", "n2").await?;
    c.create("/a", b"0", CreateMode::Persistent).await?;
    let (_, on_node) = c.read_and_watch("/a").await?;
    let (_, on_none) = c.read_and_watch("/none").await?;
    let (_, on_names) = c.children_and_watch("/a").await?;
    let (_, of_bare) = bare.read_and_watch("/a").await?;
    let owner = c.session_id();
    let mut state = c.state();
    state.mark_unchanged();
    f.break_connections().await;
    timeout(t, state.changed()).await.context("nobody noticed")??;
    timeout(t * 2, wait_live(&*c)).await.context("it did not come back")??;
    for watch in [on_node, on_none, on_names] {
        fires(watch, Duration::from_secs(1)).await?;
    }
    ensure!(c.session_id() == owner && c.read("/n1").await?.1.owner == owner.context("known")?);
    ensure!(c.lease().borrow().holds(f.clock().boottime()));
    // The identity is restored, and new watches work.
    let (_, again) = c.read_and_watch("/a").await?;
    c.compare_and_set("/a", b"1", 0).await?;
    fires(again, Duration::from_secs(1)).await?;
    // A session that could not be verified is not believed.
    lost(&bare, t * 2).await?;
    fires(of_bare, Duration::from_secs(1)).await?;
    Ok(())
}

async fn frozen(f: &mut dyn Fixture) -> Result<()> {
    let t = session_timeout(f);
    let c = holder(f, "frozen", "n1").await?;
    f.freeze().await;
    let until = c.lease().borrow().until.context("held")?;
    let (_, write) = tokio::join!(lost(&c, t * 3), async {
        // Requests are bounded in time whatever the server does.
        timeout(t, c.create("/late", b"", CreateMode::Persistent)).await
    });
    match write.context("a write was not bounded in time")? {
        Err(CoordError::Unknown(_)) => {}
        other => bail!("a write without a reply gave {other:?}"),
    }
    lost(&c, t * 3).await?;
    ensure!(
        f.clock().boottime() > until,
        "the lease had ended before the session was given up"
    );
    ensure!(c.lease().borrow().until.is_none());
    f.thaw().await;
    let begun = f.clock().boottime();
    let again = loop {
        match session(f, "frozen", "n1").await {
            Ok(c) => break c,
            Err(e) if f.clock().boottime() - begun > t * 3 => return Err(e),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let gone = async {
        while let (Some(_), watch) = again.read_and_watch("/n1").await? {
            watch.fired().await;
        }
        Ok::<(), CoordError>(())
    };
    timeout(t * 2, gone).await.context("the old session never expired")??;
    Ok(())
}
