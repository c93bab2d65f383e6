//! The kinds of process that a playground is made of: how each is configured and started, and how it says that it is
//! ready.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::child::{Child, Restart};
use super::needs::Needs;
use super::place::{Node, Place};
use crate::error::CliError;
use crate::files;

/// Name of the ZooKeeper server among the children.
pub(super) const ZOOKEEPER: &str = "zookeeper";
/// The session timeout that the cluster asks for and that this ZooKeeper grants, and no other.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Daemons end before the ZooKeeper that they take leave of.
const STAGE_ZOOKEEPER: u8 = 0;
const STAGE_DAEMON: u8 = 1;

const JVM: [&str; 11] = [
    "-Xms32m",
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxMetaspaceSize=64m",
    "-Xss256k",
    "-Dzookeeper.admin.enableServer=false",
    "-Dzookeeper.preAllocSize=1024",
    "-Dzookeeper.extendedTypesEnabled=true",
    // Closing a session with very many ephemerals would leave a server that cannot restart (ZOOKEEPER-4306).
    "-Dzookeeper.closeSessionTxn.enabled=false",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
];

/// The ZooKeeper server: writes its configuration and describes its process.
///
/// # Errors
/// `HA0002` if the configuration cannot be written.
pub(super) fn zookeeper(place: &Place, needs: &Needs, address: &str, restart: bool) -> Result<Child, CliError> {
    let data = place.data(ZOOKEEPER);
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "2181"));
    let session_ms = SESSION_TIMEOUT.as_millis();
    let lines = [
        "tickTime=500".to_owned(),
        format!("dataDir={}", data.join("data").display()),
        format!("clientPortAddress={host}"),
        format!("clientPort={port}"),
        "4lw.commands.whitelist=*".to_owned(),
        "admin.enableServer=false".to_owned(),
        "maxClientCnxns=0".to_owned(),
        format!("minSessionTimeout={session_ms}"),
        format!("maxSessionTimeout={session_ms}"),
        "snapCount=100000".to_owned(),
        "autopurge.snapRetainCount=3".to_owned(),
        "autopurge.purgeInterval=1".to_owned(),
    ];
    let config = data.join("zoo.cfg");
    files::create_private_dir(&data.join("data"))?;
    files::write_new(&config, &format!("{}\n", lines.join("\n")))?;
    let mut args: Vec<String> = JVM.iter().map(|&arg| arg.to_owned()).collect();
    args.extend(["-cp".to_owned(), needs.classpath.clone()]);
    args.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned());
    args.push(config.display().to_string());
    Ok(Child {
        name: ZOOKEEPER.to_owned(),
        kind: "zookeeper".to_owned(),
        address: address.to_owned(),
        program: needs.java.clone(),
        args,
        env: Vec::new(),
        log: place.log(ZOOKEEPER),
        restart: if restart { Restart::Always } else { Restart::Never },
        stage: STAGE_ZOOKEEPER,
        patience_ms: 3_000,
    })
}

/// The daemon of a node: writes its settings and describes its process. Its bundle is expected in [`bundle`].
///
/// # Errors
/// `HA0002` if the settings cannot be written.
pub(super) fn daemon(place: &Place, had: &Path, node: &Node, restart: bool) -> Result<Child, CliError> {
    let config = place.data(&node.name).join("had.toml");
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    let host = node.address.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
    let text = format!(
        "bundle = {}\nstate_dir = {}\n\n[listen]\ngrpc = {}\nhttp = {}\n\n\
         [postgres]\nlisten = {}\nsocket_dir = {}\n\n\
         [proxy]\nlisten = {}\n\n[proxy.ports.{}]\nprimary = {}\nstandbys = {}\n",
        path(&bundle(place, node)),
        path(&place.data(&node.name).join("state")),
        quoted(&node.address),
        quoted(&node.http),
        quoted(host),
        path(&place.sockets(&node.name)),
        quoted(host),
        super::database::GROUP,
        node.proxy.0,
        node.proxy.1,
    );
    files::write_new(&config, &text)?;
    Ok(Child {
        name: node.name.clone(),
        kind: "had".to_owned(),
        address: node.address.clone(),
        program: had.to_path_buf(),
        args: vec!["--config".to_owned(), config.display().to_string()],
        env: Vec::new(),
        log: place.log(&node.name),
        restart: if restart { Restart::OnFailure } else { Restart::Never },
        stage: STAGE_DAEMON,
        patience_ms: 5_000,
    })
}

/// Where the join bundle of a node is.
pub(super) fn bundle(place: &Place, node: &Node) -> std::path::PathBuf {
    place.data(&node.name).join("bundle.toml")
}

/// What the ZooKeeper server says it is: standalone, leader, follower. `None` while it does not serve.
pub(super) async fn zookeeper_mode(address: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"srvr").await?;
        let mut answer = String::new();
        stream.take(64 << 10).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), ask).await.ok()?.ok()?;
    answer
        .lines()
        .find_map(|line| line.strip_prefix("Mode: "))
        .map(|mode| mode.trim().to_owned())
}
