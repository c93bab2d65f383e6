//! The agent with everything it has: hooks with real commands, the report stream to a master on loopback.

use std::net::SocketAddr;
use std::path::Path;

use ha_core::{Holder, MasterRecord, change_name, encode};
use ha_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use ha_proto::v1::master_message::Body;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

use super::*;
use crate::coordination::{Connector as _, Coordinator, CreateMode, MemoryConnector, MemoryServer};
use crate::platform::SystemClock;
use crate::shared::{Me, SharedTx};

/// Long enough for any machine, and only waited for when a test fails.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn me() -> Me {
    Me {
        node: "n1".into(),
        cluster: "prod".into(),
        cluster_id: "id".into(),
        address: "10.0.0.1:7400".into(),
        http_address: "10.0.0.1:7401".into(),
        boot_id: "boot".into(),
        token: "token".into(),
        run: "run".into(),
        started_ms: 1,
    }
}

/// What happens on the master's side.
#[derive(Debug)]
enum Seen {
    Opened(mpsc::Sender<Result<v1::MasterMessage, tonic::Status>>),
    Report(Box<v1::AgentReport>),
    Closed,
}

/// A master that only records.
struct Master(mpsc::UnboundedSender<Seen>);

#[async_trait]
impl AgentService for Master {
    type ReportStream = ReceiverStream<Result<v1::MasterMessage, tonic::Status>>;

    async fn report(
        &self,
        request: tonic::Request<tonic::Streaming<v1::AgentReport>>,
    ) -> Result<tonic::Response<Self::ReportStream>, tonic::Status> {
        let (messages, rx) = mpsc::channel(16);
        let seen = self.0.clone();
        let _ = seen.send(Seen::Opened(messages));
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                let _ = seen.send(Seen::Report(Box::new(report)));
            }
            let _ = seen.send(Seen::Closed);
        });
        Ok(tonic::Response::new(ReceiverStream::new(rx)))
    }
}

struct Plain;

#[async_trait]
impl Dial for Plain {
    async fn dial(&self, _: &str, address: &str) -> Result<Channel, ApiError> {
        let uri = format!("http://{address}").parse().unwrap();
        Ok(Channel::builder(uri).connect_lazy())
    }
}

struct Rig {
    shared: Shared,
    tx: SharedTx,
    coordinator: Arc<dyn Coordinator>,
    denied: mpsc::Sender<v1::Denied>,
    hooks: watch::Sender<Vec<Hook>>,
    agent: Agent,
    life: JoinHandle<()>,
    seen: mpsc::UnboundedReceiver<Seen>,
    master: SocketAddr,
}

impl Rig {
    /// A node whose master is served, but not known yet.
    async fn new(dir: &Path, hooks: Vec<Hook>) -> Rig {
        let server = MemoryServer::new();
        let clock = Arc::new(SystemClock);
        let coordinator = MemoryConnector::new(&server, "n1", clock.clone(), Duration::from_secs(4))
            .connect()
            .await
            .unwrap();
        for path in ["", "/changes"] {
            coordinator.create(path, b"", CreateMode::Persistent).await.unwrap();
        }
        let (shared, tx) = Shared::new(me(), clock);
        tx.coordinator.send_replace(Some(coordinator.clone()));
        let (seen_tx, seen) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let master = listener.local_addr().unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AgentServiceServer::new(Master(seen_tx)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let (denied, denied_rx) = mpsc::channel(64);
        let (hooks, hooks_rx) = watch::channel(hooks);
        let options = Options {
            hooks: hooks_rx,
            interval: Duration::from_millis(50),
            disk: dir.to_owned(),
            local_address: "127.0.0.1:9".into(),
            certificate_expires: Arc::new(|| 42),
            proxies: Arc::new(|_| Vec::new()),
            os: "os".into(),
            databases: database::Databases::default(),
        };
        let state = StateDir::open(dir).unwrap();
        let (agent, life) = new(shared.clone(), denied_rx, Arc::new(Plain), state, options);
        let life = tokio::spawn(life);
        Rig {
            shared,
            tx,
            coordinator,
            denied,
            hooks,
            agent,
            life,
            seen,
            master,
        }
    }

    fn elect(&self, term: u64, node: &str) {
        let address = self.master.to_string();
        let holder = Holder {
            node: node.into(),
            candidate: format!("c-{node}"),
            address,
            since_ms: 0,
        };
        self.tx.master.send_replace(MasterRecord {
            term,
            holder: Some(holder),
            ..MasterRecord::default()
        });
    }

    async fn event(&mut self) -> Seen {
        tokio::time::timeout(LIMIT, self.seen.recv())
            .await
            .expect("in time")
            .unwrap()
    }

    /// The next stream: what is sent on it, and its first report.
    async fn opened(&mut self) -> (mpsc::Sender<Result<v1::MasterMessage, tonic::Status>>, v1::AgentReport) {
        let mut open = None;
        loop {
            match self.event().await {
                Seen::Opened(messages) => open = Some(messages),
                Seen::Report(report) if report.first => return (open.unwrap(), *report),
                Seen::Report(_) | Seen::Closed => {}
            }
        }
    }

    /// The first report of which this is true.
    async fn report(&mut self, wanted: impl Fn(&v1::AgentReport) -> bool) -> v1::AgentReport {
        loop {
            if let Seen::Report(report) = self.event().await
                && wanted(&report)
            {
                return *report;
            }
        }
    }

    /// Adds an entry to the log, and streams it.
    async fn change(&self, to: &mpsc::Sender<Result<v1::MasterMessage, tonic::Status>>, seq: u64, kind: &str) {
        let mut change = ha_core::Change {
            text: format!("it is {seq}\u{1b}[2J"),
            kind: kind.into(),
            ..crate::watch::tests::change(seq)
        };
        change.before = serde_json::json!({"a": seq});
        let path = format!("/changes/{}", change_name(seq));
        self.coordinator
            .create(&path, &encode(&change), CreateMode::Persistent)
            .await
            .unwrap();
        let wire = v1::Change {
            seq,
            kind: kind.into(),
            subject: change.subject.clone(),
            severity: v1::Severity::Warning.into(),
            text: change.text.clone(),
            before: change.before.to_string(),
            ..v1::Change::default()
        };
        let changes = v1::Changes { changes: vec![wire] };
        say(to, Body::Changes(changes)).await;
    }

    async fn stop(self) {
        self.shared.stop.cancel();
        tokio::time::timeout(LIMIT, self.life).await.expect("in time").unwrap();
    }
}

async fn say(to: &mpsc::Sender<Result<v1::MasterMessage, tonic::Status>>, body: Body) {
    to.send(Ok(v1::MasterMessage {
        term: 1,
        server_unix_ms: 0,
        body: Some(body),
    }))
    .await
    .unwrap();
}

async fn welcome(to: &mpsc::Sender<Result<v1::MasterMessage, tonic::Status>>, tail_seq: u64) {
    say(to, Body::Welcome(v1::Welcome { tail_seq })).await;
}

#[tokio::test]
async fn reports_and_the_last_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), Vec::new()).await;
    rig.elect(1, "n2");
    let (to, first) = rig.opened().await;
    assert_eq!(
        (first.node.as_str(), first.boot_id.as_str(), first.cursor),
        ("n1", "boot", 0)
    );
    assert_eq!((first.certificate_expires_unix_ms, first.os.as_str()), (42, "os"));
    welcome(&to, 5).await;
    rig.report(|r| {
        r.usage
            .is_some_and(|u| u.memory_used_bytes > 0 && u.capacity.unwrap().disk_bytes > 0)
    })
    .await;

    rig.agent.conditions.set("x", "something is wrong");
    let report = rig.report(|r| !r.conditions.is_empty()).await;
    assert_eq!(
        (report.conditions, report.first),
        (vec!["something is wrong".to_owned()], false)
    );
    for i in 0..40 {
        rig.denied
            .send(v1::Denied {
                actor: format!("user/{i}"),
                ..v1::Denied::default()
            })
            .await
            .unwrap();
    }
    let mut actors = Vec::new();
    while actors.len() < 40 {
        let report = rig.report(|r| !r.denied.is_empty()).await;
        assert!(report.denied.len() <= 16);
        actors.extend(report.denied.into_iter().map(|d| d.actor));
    }
    assert_eq!(
        actors,
        (0..40).map(|i| format!("user/{i}")).collect::<Vec<_>>(),
        "none lost, none twice"
    );

    rig.shared.stop.cancel();
    rig.report(|r| r.restarting).await;
    assert!(
        matches!(rig.event().await, Seen::Closed),
        "the stream is ended, not cut"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_new_master_and_a_broken_stream() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), Vec::new()).await;
    rig.elect(1, "n2");
    let (to, _) = rig.opened().await;
    welcome(&to, 3).await;
    rig.change(&to, 4, "node.online").await;
    rig.agent.feed.moved(None).await;
    while rig.agent.feed.cursor() != Some(4) {
        rig.agent.feed.moved(rig.agent.feed.cursor()).await;
    }
    // The stream breaks while the master stays.
    drop(to);
    let (to, first) = rig.opened().await;
    assert_eq!(first.cursor, 4);
    // Another master, and entries that nobody streamed.
    for seq in 5..=7 {
        let path = format!("/changes/{}", change_name(seq));
        let entry = encode(&crate::watch::tests::change(seq));
        rig.coordinator
            .create(&path, &entry, CreateMode::Persistent)
            .await
            .unwrap();
    }
    rig.elect(2, "n3");
    let (new, _) = rig.opened().await;
    // The old one is let go.
    tokio::time::timeout(LIMIT, to.closed()).await.unwrap();
    let mut all = rig.agent.feed.subscribe_after(3);
    welcome(&new, 7).await;
    for seq in 4..=7 {
        assert_eq!(tokio::time::timeout(LIMIT, all.next()).await.unwrap().seq, seq);
    }
    rig.stop().await;
}

#[tokio::test]
async fn silence_is_not_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), Vec::new()).await;
    rig.elect(1, "n2");
    let (to, _) = rig.opened().await;
    welcome(&to, 0).await;
    // Not a word more, though the stream is open.
    let (_again, _) = rig.opened().await;
    drop(to);
    rig.stop().await;
}

#[cfg(unix)]
mod hooks {
    use super::*;

    fn hook(name: &str, script: &str, kinds: &[&str], retries: u32) -> Hook {
        Hook {
            name: name.into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            kinds: kinds.iter().map(|&k| k.to_owned()).collect(),
            timeout: Duration::from_secs(20),
            retries,
            environment: Default::default(),
        }
    }

    /// Waits until the file has so many lines.
    async fn lines(path: &Path, count: usize) -> Vec<String> {
        let begun = std::time::Instant::now();
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count && text.ends_with('\n') {
                return lines;
            }
            assert!(begun.elapsed() < LIMIT, "{count} lines are wanted: {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn in_order_with_everything_known_of_the_change() {
        let dir = tempfile::tempdir().unwrap();
        let (env, json) = (dir.path().join("env"), dir.path().join("json"));
        let script = format!(
            "echo \"$HA_SEQ|$HA_KIND|$HA_SUBJECT|$HA_SEVERITY|$HA_TEXT|$HA_NODE|$HA_CLUSTER|$HA_TIME\" >> {}; cat >> {}",
            env.display(),
            json.display()
        );
        let mut rig = Rig::new(dir.path(), vec![hook("all", &script, &["node.", "x"], 0)]).await;
        rig.elect(1, "n2");
        let (to, _) = rig.opened().await;
        welcome(&to, 6).await;
        for (seq, kind) in [(7, "node.online"), (8, "master.elected"), (9, "node.offline")] {
            rig.change(&to, seq, kind).await;
        }
        let got = lines(&env, 2).await;
        assert_eq!(
            got[0],
            "7|node.online|cluster|warning|it is 7 [2J|n1|prod|1970-01-01T00:00:00Z"
        );
        assert!(got[1].starts_with("9|node.offline|"), "{got:?}");
        let got = lines(&json, 2).await;
        let entry: serde_json::Value = serde_json::from_str(&got[0]).unwrap();
        assert_eq!(entry["seq"], 7);
        assert_eq!(entry["before"], serde_json::json!({"a": 7}));
        assert_eq!(entry["cluster"], "prod");
        rig.stop().await;
    }

    #[tokio::test]
    async fn a_slow_hook_holds_up_nobody_and_is_resumed_by_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (slow, quick) = (dir.path().join("slow"), dir.path().join("quick"));
        let gate = dir.path().join("gate");
        let stuck = format!(
            "echo $HA_SEQ >> {}; while [ $HA_SEQ = 2 ] && [ ! -e {} ]; do sleep 0.02; done",
            slow.display(),
            gate.display()
        );
        let hooks = vec![
            hook("slow", &stuck, &[], 0),
            hook("quick", &format!("echo $HA_SEQ >> {}", quick.display()), &[], 0),
        ];
        let mut rig = Rig::new(dir.path(), hooks.clone()).await;
        rig.elect(1, "n2");
        let (to, _) = rig.opened().await;
        welcome(&to, 0).await;
        for seq in 1..=5 {
            rig.change(&to, seq, "node.online").await;
        }
        assert_eq!(lines(&quick, 5).await, ["1", "2", "3", "4", "5"]);
        assert_eq!(lines(&slow, 2).await, ["1", "2"]);
        // The daemon ends in the middle of it; the run is killed, and repeated by the next one.
        let coordinator = rig.coordinator.clone();
        rig.stop().await;
        std::fs::write(&gate, "").unwrap();
        let mut rig = Rig::new(dir.path(), hooks).await;
        rig.tx.coordinator.send_replace(Some(coordinator));
        rig.elect(2, "n2");
        let (to, first) = rig.opened().await;
        assert_eq!(first.cursor, 5);
        welcome(&to, 5).await;
        assert_eq!(lines(&slow, 6).await, ["1", "2", "2", "3", "4", "5"]);
        assert_eq!(lines(&quick, 5).await.len(), 5, "what was done is not done again");
        rig.stop().await;
    }

    #[tokio::test]
    async fn what_fails_is_repeated_then_skipped_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!(
            "echo $HA_SEQ >> {}; [ $HA_SEQ != 2 ] || {{ echo bad luck >&2; exit 1; }}",
            out.display()
        );
        let mut rig = Rig::new(dir.path(), vec![hook("mail", &script, &[], 1)]).await;
        rig.elect(1, "n2");
        let (to, _) = rig.opened().await;
        welcome(&to, 1).await;
        rig.change(&to, 2, "node.online").await;
        let report = rig.report(|r| !r.conditions.is_empty()).await;
        assert_eq!(
            report.conditions,
            ["hook mail failed at change 2 (node.online): exit status 1: bad luck"]
        );
        rig.change(&to, 3, "node.online").await;
        assert_eq!(lines(&out, 3).await, ["2", "2", "3"]);
        rig.report(|r| r.conditions.is_empty()).await;
        rig.stop().await;
    }

    #[tokio::test]
    async fn replaced_hooks_begin_with_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let echo = |name: &str, to: &Path| hook(name, &format!("echo $HA_SEQ >> {}", to.display()), &[], 0);
        let mut rig = Rig::new(dir.path(), vec![echo("a", &a)]).await;
        rig.elect(1, "n2");
        let (to, _) = rig.opened().await;
        welcome(&to, 0).await;
        rig.change(&to, 1, "node.online").await;
        lines(&a, 1).await;
        rig.hooks.send_replace(vec![echo("a", &a), echo("b", &b)]);
        let known = || {
            std::fs::read_to_string(dir.path().join("changes.json"))
                .unwrap_or_default()
                .contains("\"b\":1")
        };
        let begun = std::time::Instant::now();
        while !known() {
            assert!(begun.elapsed() < LIMIT, "the new hook has no place in the log");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        rig.change(&to, 2, "node.online").await;
        assert_eq!(lines(&b, 1).await, ["2"]);
        assert_eq!(lines(&a, 2).await, ["1", "2"]);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_node_without_a_master_waits_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), Vec::new()).await;
    rig.stop().await;
}
