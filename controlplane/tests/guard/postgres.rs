//! PostgreSQL itself under the guard.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use controlplane::guard::{Cause, Client, RunAs, Start, Stop};
use controlplane::platform::Account;
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::rig::{PATIENCE, Rig, guard_pid, now, ns, pid, read, send};

const BIN: &str = "/usr/lib/postgresql/15/bin";

struct Postgres {
    rig: Rig,
    run_as: Option<RunAs>,
}

impl Postgres {
    fn new(cgroups: bool) -> Postgres {
        let rig = Rig::new(cgroups);
        let run_as = Uid::effective().is_root().then(|| {
            let account = Account::named("postgres").expect("the account postgres");
            account.run_as().expect("another account than root")
        });
        let pg = Postgres { rig, run_as };
        if let Some(who) = &pg.run_as {
            std::os::unix::fs::chown(pg.rig.work(), Some(who.uid), Some(who.gid)).unwrap();
        }
        let out = pg
            .command("initdb")
            .args(["-N", "-A", "trust", "-U", "postgres", "-D"])
            .arg(pg.data())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        pg
    }

    fn data(&self) -> PathBuf {
        self.rig.work().join("data")
    }

    fn command(&self, program: &str) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(format!("{BIN}/{program}"));
        // Not below the place for what is guarded.
        command.current_dir("/").stdin(Stdio::null());
        if let Some(who) = &self.run_as {
            command.uid(who.uid).gid(who.gid);
        }
        command
    }

    fn start(&self, incarnation: u64, until: Option<Duration>) -> Start {
        let sockets = format!("unix_socket_directories={}", self.rig.work().display());
        let data = self.data().display().to_string();
        let args = [
            "-D",
            &data,
            "-c",
            "listen_addresses=",
            "-c",
            &sockets,
            "-c",
            "max_connections=100",
            "-c",
            "fsync=off",
        ];
        Start {
            incarnation,
            program: format!("{BIN}/postgres").into(),
            args: args.map(str::to_owned).to_vec(),
            env: BTreeMap::from([("LC_ALL".into(), "C".into())]),
            cwd: self.data(),
            run_as: self.run_as.clone(),
            log: self.rig.work().join("log"),
            until: until.map(ns),
        }
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = self.command("psql");
        command.args([
            "-X",
            "-q",
            "-t",
            "-A",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-h",
        ]);
        command.arg(self.rig.work()).args(["-c", sql]);
        command
    }

    fn query(&self, sql: &str) -> Option<String> {
        let out = self.psql(sql).output().unwrap();
        out.status
            .success()
            .then(|| String::from_utf8(out.stdout).unwrap().trim().to_owned())
    }

    async fn ready(&self) {
        self.rig
            .until("PostgreSQL accepts connections", || {
                self.query("select 1").as_deref() == Some("1")
            })
            .await;
    }

    /// Clients whose backends commit in a loop, without their help.
    async fn commit_loops(&self, count: usize) -> Vec<Child> {
        self.query("create table if not exists t (at timestamptz, who int)")
            .unwrap();
        let before = self.committed();
        let looped = |i: usize| {
            let sql =
                format!("do $$ begin loop insert into t values (clock_timestamp(), {i}); commit; end loop; end $$");
            let mut command = self.psql(&sql);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let clients = (0..count).map(looped).collect();
        let all = format!("select count(distinct who) from t where at > '{before}'");
        self.rig
            .until("all of them commit", || {
                self.query(&all).is_some_and(|n| n == count.to_string())
            })
            .await;
        clients
    }

    fn committed(&self) -> String {
        self.query("select now()").unwrap()
    }

    async fn proved(&self, client: &Client, incarnation: u64) -> controlplane::guard::Proof {
        let mut view = client.view();
        let proved = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(incarnation)));
        let view = tokio::time::timeout(PATIENCE, proved).await.unwrap().unwrap().clone();
        self.rig.assert_stopped();
        view.status.unwrap().proof.unwrap()
    }
}

fn end(clients: Vec<Child>) {
    for mut client in clients {
        let _ = client.kill();
        let _ = client.wait();
    }
}

#[tokio::test]
async fn it_starts_stops_and_starts_again() {
    let pg = Postgres::new(true);
    let client = pg.rig.client().await;
    let until = now() + Duration::from_secs(100);
    let status = client.start(pg.start(1, Some(until))).await.unwrap();
    pg.ready().await;
    let owner = std::fs::metadata(format!("/proc/{}", pid(&status))).unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&owner);
    assert_eq!(uid, pg.run_as.as_ref().map_or(Uid::effective().as_raw(), |w| w.uid));
    // Nothing of what makes the guard more important is the server's.
    let of = |file: &str| read(format!("/proc/{}/{file}", pid(&status)).as_ref());
    let stat = of("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!((fields[16], fields[38]), ("0", "0"), "nice value and scheduling policy");
    assert!(of("oom_score_adj").trim().parse::<i32>().unwrap() > -1000);
    assert!(of("environ").contains("PG_OOM_ADJUST_FILE=") && !of("environ").contains("CARGO"));
    let proof = client.stopped(Stop::fast(1, PATIENCE), PATIENCE).await.unwrap();
    pg.rig.assert_stopped();
    assert!(proof.exit.unwrap().is_clean());
    let control = pg
        .command("pg_controldata")
        .arg(pg.data())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let control = String::from_utf8(control.stdout).unwrap();
    assert!(
        control
            .lines()
            .any(|l| l.starts_with("Database cluster state:") && l.ends_with("shut down")),
        "{control}"
    );
    client.start(pg.start(2, None)).await.unwrap();
    pg.ready().await;
}

/// Protocol R9 with backends that never stop committing: after the proof nothing is committed, and the log is sound.
#[tokio::test]
async fn the_end_of_a_lease_ends_its_backends() {
    for cgroups in [true, false] {
        let pg = Postgres::new(cgroups);
        let client = pg.rig.client().await;
        client.start(pg.start(1, None)).await.unwrap();
        pg.ready().await;
        let clients = pg.commit_loops(20).await;
        let until = now() + Duration::from_secs(1);
        client.arm(1, until).await.unwrap();
        let proof = pg.proved(&client, 1).await;
        println!(
            "{} backends in commit loops: all gone {} ms after the stop began",
            clients.len(),
            proof.took_ms
        );
        end(clients);
        assert_eq!(proof.cause, Cause::LeaseOver);
        client.start(pg.start(2, None)).await.unwrap();
        pg.ready().await;
        let last = format!(
            "select count(*) from t where at > to_timestamp({}.0 / 1000)",
            proof.at_ms
        );
        assert_eq!(pg.query(&last).as_deref(), Some("0"), "committed after the proof");
    }
}

/// Measured on PostgreSQL 15: such a backend acknowledges commits for seconds after its postmaster's death.
#[tokio::test]
async fn a_backend_that_outlives_its_postmaster_is_ended_before_the_proof() {
    let pg = Postgres::new(false);
    let client = pg.rig.client().await;
    let status = client.start(pg.start(1, None)).await.unwrap();
    pg.ready().await;
    let clients = pg.commit_loops(3).await;
    send(pid(&status), Signal::SIGKILL);
    let proof = pg.proved(&client, 1).await;
    println!(
        "postmaster killed: all gone {} ms after its death was seen",
        proof.took_ms
    );
    end(clients);
    assert_eq!((proof.cause, proof.exit.unwrap().signal), (Cause::Died, Some(9)));
    client.start(pg.start(2, None)).await.unwrap();
    pg.ready().await;
    let last = format!(
        "select count(*) from t where at > to_timestamp({}.0 / 1000)",
        proof.at_ms
    );
    assert_eq!(pg.query(&last).as_deref(), Some("0"), "committed after the proof");
}

#[tokio::test]
async fn a_killed_guard_takes_it_along_and_the_next_one_proves_it() {
    let pg = Postgres::new(false);
    let client = pg.rig.client().await;
    let status = client.start(pg.start(1, None)).await.unwrap();
    pg.ready().await;
    let clients = pg.commit_loops(3).await;
    send(guard_pid(&status), Signal::SIGKILL);
    let proof = pg.proved(&client, 1).await;
    end(clients);
    assert_eq!(proof.cause, Cause::LeftOver);
    assert!(read(&pg.rig.work().join("log")).contains("received immediate shutdown request"));
    // With the postmaster gone as well, only the lock tells who is left.
    let status = client.start(pg.start(2, None)).await.unwrap();
    pg.ready().await;
    let clients = pg.commit_loops(3).await;
    send(guard_pid(&status), Signal::SIGSTOP);
    send(pid(&status), Signal::SIGKILL);
    send(guard_pid(&status), Signal::SIGKILL);
    let proof = pg.proved(&client, 2).await;
    end(clients);
    assert_eq!(proof.cause, Cause::LeftOver);
    client.start(pg.start(3, None)).await.unwrap();
    pg.ready().await;
}

#[tokio::test]
async fn sigterm_to_the_guard_shuts_it_down() {
    let pg = Postgres::new(true);
    let client = pg.rig.client().await;
    let status = client
        .start(pg.start(1, Some(now() + Duration::from_secs(100))))
        .await
        .unwrap();
    pg.ready().await;
    let clients = pg.commit_loops(2).await;
    send(guard_pid(&status), Signal::SIGTERM);
    drop(client);
    pg.rig.until("the guard ends", || pg.rig.guards().is_empty()).await;
    pg.rig.assert_stopped();
    end(clients);
    let log = read(&pg.rig.work().join("log"));
    assert!(
        log.contains("received fast shutdown request") && log.contains("database system is shut down"),
        "{log}"
    );
}
