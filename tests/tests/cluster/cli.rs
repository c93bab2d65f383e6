//! What an operator does, with the programs themselves: a cluster built, watched, broken and mended with `hactl`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ha_tests::cluster::{Daemon, Programs, assert_disjoint, own_address, programs};
use ha_tests::zookeeper::{ZkServer, free_port};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(90);

/// An operator at a terminal of its own, with a directory for everything.
struct Operator {
    programs: Programs,
    dir: tempfile::TempDir,
    zookeeper: ZkServer,
    daemons: Vec<Daemon>,
}

/// How a command ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn ok(self) -> Result<Self> {
        ensure!(self.code == 0, "{self:?}");
        Ok(self)
    }

    /// It failed with this exit code and error.
    fn failed(self, code: i32, error: &str) -> Result<Self> {
        ensure!(
            self.code == code && self.err.contains(&format!("error {error}: ")),
            "{self:?}"
        );
        ensure!(self.out.is_empty(), "data beside an error: {self:?}");
        Ok(self)
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

impl Operator {
    async fn new() -> Result<Operator> {
        Ok(Operator {
            programs: programs()?,
            dir: tempfile::Builder::new().prefix("ha-cli-").tempdir()?,
            zookeeper: ZkServer::start_default().await?,
            daemons: Vec::new(),
        })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.programs.hactl);
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env("HACTL_CONFIG_DIR", self.dir.path().join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `hactl …`
    async fn hactl(&self, line: &str) -> Result<Said> {
        let output = timeout(COMMAND, self.command(line).output()).await;
        let output = output.with_context(|| format!("hactl {line} does not end"))??;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `hactl event follow` in another terminal.
    fn follow(&self) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
        let mut child = self.command("-o json event follow --from 1").spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        Ok((child, BufReader::new(stdout).lines()))
    }

    /// Starts the daemon of a bundle that hactl wrote.
    fn start(&mut self, name: &str, address: &str) -> Result<()> {
        let dir = self.dir.path().join(format!("had-{name}"));
        std::fs::create_dir(&dir)?;
        let host = address.rsplit_once(':').context("no port")?.0;
        let http = format!("{host}:{}", free_port(host)?);
        let mut daemon = Daemon::new(&self.programs.had, &dir, name, address, &http, "")?;
        std::fs::rename(self.bundle(name), daemon.bundle())?;
        daemon.start()?;
        self.daemons.push(daemon);
        Ok(())
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.bundle"))
    }

    fn daemon(&mut self, name: &str) -> Result<&mut Daemon> {
        self.daemons
            .iter_mut()
            .find(|d| d.name == name)
            .context("no such daemon")
    }

    /// A cluster of three, made with nothing but `hactl` and `had`.
    async fn build(&mut self) -> Result<()> {
        let zookeeper = self.zookeeper.address();
        let first = address()?;
        self.hactl(&format!(
            "cluster init --cluster test --zookeeper {zookeeper} --node n1={first}"
        ))
        .await?
        .ok()?;
        private(&self.bundle("n1"))?;
        private(&self.dir.path().join("config/contexts/test/ca.toml"))?;
        self.start("n1", &first)?;
        self.hactl("wait node/n1 --for online").await?.ok()?;
        for name in ["n2", "n3"] {
            let address = address()?;
            self.hactl(&format!("node add {name} --addr {address}")).await?.ok()?;
            private(&self.bundle(name))?;
            self.start(name, &address)?;
            self.hactl(&format!("wait node/{name} --for online")).await?.ok()?;
        }
        self.hactl("wait cluster --for healthy").await?.ok()?;
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let mut leases = Vec::new();
        for daemon in &self.daemons {
            leases.extend(daemon.leases()?);
            ensure!(!daemon.logs().contains("panicked at"), "{}", daemon.tail(30));
        }
        assert_disjoint(leases)
    }
}

fn address() -> Result<String> {
    let host = own_address();
    Ok(format!("{host}:{}", free_port(&host)?))
}

fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .permissions()
        .mode();
    ensure!(mode & 0o777 == 0o600, "{} has mode {mode:o}", path.display());
    Ok(())
}

/// Reads the stream until an entry of this kind about this node comes, and checks that none is missing.
async fn next_of(lines: &mut Lines<BufReader<ChildStdout>>, seq: &mut u64, kind: &str, subject: &str) -> Result<Value> {
    loop {
        let line = timeout(COMMAND, lines.next_line())
            .await
            .with_context(|| format!("no {kind}"))??;
        let entry: Value = serde_json::from_str(&line.context("the stream ended")?)?;
        let field = |name: &str| entry["status"][name].clone();
        *seq += 1;
        ensure!(field("seq") == *seq, "entry {seq} was due: {entry}");
        if field("kind").as_str() == Some(kind) && field("subject").as_str() == Some(subject) {
            return Ok(entry);
        }
    }
}

#[tokio::test]
async fn the_whole_tour() -> Result<()> {
    let mut op = Operator::new().await?;
    op.build().await?;

    let list = op.hactl("node list").await?.ok()?;
    let rows: Vec<Vec<&str>> = list.out.lines().map(|l| l.split_whitespace().collect()).collect();
    ensure!(rows.len() == 4 && rows[0][..2] == ["NAME", "STATE"], "{}", list.out);
    ensure!(rows[1..].iter().all(|r| r[1] == "online"), "{}", list.out);
    let names = op.hactl("node list -o name").await?.ok()?;
    ensure!(names.out.lines().count() == 3, "{}", names.out);
    let list = op.hactl("node list -o json").await?.ok()?.json()?;
    ensure!(
        list["kind"] == "NodeList" && list["items"].as_array().is_some_and(|i| i.len() == 3),
        "{list}"
    );
    let status = op.hactl("-o json cluster status --check").await?.ok()?.json()?;
    ensure!(
        status["apiVersion"] == "hactl/v1" && status["stale"] == false,
        "{status}"
    );

    // A daemon is killed and returns, and whoever follows sees each of it.
    let (_follower, mut lines) = op.follow()?;
    let mut seq = 0;
    next_of(&mut lines, &mut seq, "node.online", "node/n3").await?;
    op.daemon("n3")?.kill9();
    next_of(&mut lines, &mut seq, "node.offline", "node/n3").await?;
    let sick = op.hactl("cluster status --check").await?;
    ensure!(sick.code == 3 && sick.out.contains("n3"), "{sick:?}");
    op.daemon("n3")?.start()?;
    next_of(&mut lines, &mut seq, "node.online", "node/n3").await?;
    op.hactl("wait cluster --for healthy").await?.ok()?;

    // Mastership moves, by name and to whoever is best.
    let master = op.hactl("cluster master show -o json").await?.ok()?;
    ensure!(master.out.contains("n1"), "{master:?}");
    op.hactl("cluster master transfer --to n2 --yes").await?.ok()?;
    next_of(&mut lines, &mut seq, "master.elected", "master").await?;
    ensure!(op.hactl("cluster master show").await?.ok()?.out.contains("n2"));
    op.hactl("cluster master transfer --yes").await?.ok()?;
    next_of(&mut lines, &mut seq, "master.elected", "master").await?;
    let again = op.hactl("cluster master transfer --to n1 --yes").await?.ok()?;
    op.hactl("cluster master transfer --to n1 --yes").await?.ok()?;
    ensure!(
        op.hactl("cluster master show").await?.ok()?.out.contains("n1"),
        "{again:?}"
    );

    // What is changed is shown; what is so already is unchanged.
    op.hactl("node label n2 zone=a").await?.ok()?;
    let same = op.hactl("node label n2 zone=a").await?.ok()?;
    ensure!((same.out.clone() + &same.err).contains("unchanged"), "{same:?}");
    ensure!(
        op.hactl("node list -l zone=a -o name")
            .await?
            .ok()?
            .out
            .trim()
            .ends_with("n2")
    );
    op.hactl("node cordon n3 --reason maintenance").await?.ok()?;
    op.hactl("wait node/n3 --for cordoned").await?.ok()?;
    op.hactl("node uncordon n3").await?.ok()?;

    // One more, and one less.
    let fourth = address()?;
    op.hactl(&format!("node add n4 --addr {fourth}")).await?.ok()?;
    op.start("n4", &fourth)?;
    op.hactl("wait node/n4 --for online").await?.ok()?;
    op.daemon("n4")?.kill9();
    op.hactl("wait node/n4 --for offline").await?.ok()?;
    op.hactl("node remove n4 --yes").await?.ok()?;
    next_of(&mut lines, &mut seq, "node.removed", "node/n4").await?;
    ensure!(!op.hactl("node list -o name").await?.ok()?.out.contains("n4"));
    op.hactl("cluster status --check").await?.ok()?;
    op.finish()
}

#[tokio::test]
async fn each_mistake_has_its_own_error() -> Result<()> {
    let mut op = Operator::new().await?;
    op.hactl("node list").await?.failed(2, "HA0003")?;
    op.build().await?;
    op.hactl("node add n2 --addr 127.0.0.1:1").await?.failed(9, "HA0301")?;
    let taken = op.daemon("n2")?.address.clone();
    op.hactl(&format!("node add n9 --addr {taken}"))
        .await?
        .failed(9, "HA0308")?;
    ensure!(
        !op.bundle("n2").exists() && !op.bundle("n9").exists(),
        "a bundle of nobody"
    );
    op.hactl("node remove n2 --yes").await?.failed(9, "HA0303")?;
    op.hactl("node remove n2").await?.failed(9, "HA0010")?;
    op.hactl("node show nobody").await?.failed(5, "HA0302")?;
    op.hactl("node remove nobody --yes").await?.failed(5, "HA0302")?;
    op.hactl("node label nobody a=b").await?.failed(5, "HA0302")?;
    op.hactl("cluster master transfer --to nobody --yes")
        .await?
        .failed(5, "HA0302")?;
    op.hactl("op show 0199f3").await?.failed(5, "HA0501")?;
    op.hactl("--context nowhere node list").await?.failed(5, "HA0004")?;
    op.hactl("node add Bad_Name --addr 127.0.0.1:1")
        .await?
        .failed(2, "HA0007")?;
    let stale = op.hactl("node label n2 a=b --revision 1").await?;
    stale.failed(6, "HA0305")?;
    let nobody = format!("{}:1", own_address());
    let gone = op.hactl(&format!("--endpoint {nobody} --timeout 5s node list")).await?;
    ensure!(gone.err.contains(&nobody), "{gone:?}");
    gone.failed(10, "HA0101")?;
    op.hactl("wait node/n2 --for offline --timeout 1s")
        .await?
        .failed(124, "HA0104")?;
    let json = op.hactl("-o json node show nobody").await?;
    let error: Value = serde_json::from_str(&json.err)?;
    ensure!(
        error["kind"] == "Error" && error["code"] == "HA0302" && error["exitCode"] == 5,
        "{json:?}"
    );
    // None of it left a trace in the cluster.
    op.hactl("cluster status --check").await?.ok()?;
    op.finish()
}

#[tokio::test]
async fn users_may_do_what_their_role_says() -> Result<()> {
    let mut op = Operator::new().await?;
    op.build().await?;
    op.hactl("user add vic --role viewer").await?.ok()?;
    private(&op.bundle("vic"))?;
    op.hactl("context add --bundle vic.bundle --name vic --keep-current")
        .await?
        .ok()?;
    op.hactl("--context vic node list").await?.ok()?;
    op.hactl("--context vic node cordon n2").await?.failed(4, "HA0201")?;
    op.hactl("--context vic node add n9 --addr 127.0.0.1:1")
        .await?
        .failed(4, "HA0006")?;
    // It is in the log, with the name.
    for _ in 0..200 {
        let log = op.hactl("event list --kind access. -o json").await?.ok()?;
        if log.out.contains("vic") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = op.hactl("event list --kind access. -o json").await?.ok()?;
    ensure!(log.out.contains("access.denied") && log.out.contains("vic"), "{log:?}");
    op.hactl("user revoke vic --yes").await?.ok()?;
    for _ in 0..200 {
        let refused = op.hactl("--context vic node list").await?;
        if refused.code == 4 {
            refused.failed(4, "HA0202")?;
            // A daemon gets a new certificate for a new key while it runs.
            let before = op.daemon("n2")?.pid();
            op.hactl("node renew n2").await?.ok()?;
            ensure!(op.daemon("n2")?.pid() == before && op.daemon("n2")?.is_running()?);
            op.hactl("cluster status --check").await?.ok()?;
            return op.finish();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the revoked user is let in")
}
