//! Whom the guard hears, and that nothing anybody says can shake it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use controlplane::guard::State;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Rig, STUBBORN, TOKEN, busy, now};

/// A connection of somebody, maybe not a daemon.
struct Somebody {
    lines: BufReader<UnixStream>,
}

impl Somebody {
    fn new(rig: &Rig) -> Somebody {
        let stream = UnixStream::connect(rig.guard_dir().join("control")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Somebody {
            lines: BufReader::new(stream),
        }
    }

    fn say(&mut self, text: &[u8]) {
        // Whoever was cut off cannot speak any more.
        let _ = self.lines.get_mut().write_all(text);
    }

    /// One request and its answer; none if the connection is closed instead.
    fn ask(&mut self, ask: &Value) -> Option<Value> {
        self.say(format!("{}\n", json!({"id": 1, "ask": ask})).as_bytes());
        self.hear()
    }

    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).ok().filter(|n| *n > 0)?;
        serde_json::from_str(&line).ok()
    }

    fn is_cut_off(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.lines.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn hello(token: &str, run: u64) -> Value {
    json!({"hello": {"version": 1, "token": token, "run": run}})
}

fn code(answer: Option<Value>) -> String {
    answer.map_or_else(
        || "closed".into(),
        |a| a["refused"]["code"].as_str().unwrap_or("done").to_owned(),
    )
}

async fn guarded() -> (Rig, controlplane::guard::Client) {
    let rig = Rig::new(true);
    let client = rig.client_of(5).await;
    let until = now() + Duration::from_secs(100);
    client.start(rig.script(1, STUBBORN, Some(until))).await.unwrap();
    busy(&rig).await;
    (rig, client)
}

async fn assert_unshaken(rig: &Rig, client: &controlplane::guard::Client) {
    busy(rig).await;
    client.attached(PATIENCE).await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!((status.state, status.incarnation), (State::Running, 1));
}

#[tokio::test]
async fn another_token_is_refused() {
    let (rig, client) = guarded().await;
    for wrong in ["", "x", "7a0dd3a2-9d44-4e05-9a0e-000000000002"] {
        let mut other = Somebody::new(&rig);
        assert_eq!(code(other.ask(&hello(wrong, 99))), "not_yours");
        assert!(other.is_cut_off());
    }
    // Nothing else is answered before hello.
    for ask in [
        json!("status"),
        json!({"stop": {"incarnation": 1, "quit_ms": 0}}),
        json!({"deadline": {"incarnation": 1, "until": u64::MAX}}),
        json!("quit"),
    ] {
        let mut other = Somebody::new(&rig);
        let answer = other.ask(&ask);
        assert!(
            answer.as_ref().is_some_and(|a| a["refused"]["status"].is_null()),
            "{answer:?}"
        );
        assert_eq!(code(answer), "no_hello");
        assert!(other.is_cut_off());
    }
    assert_unshaken(&rig, &client).await;
}

#[tokio::test]
async fn the_newest_run_of_the_daemon_is_heard() {
    let (rig, client) = guarded().await;
    // One that was frozen and wakes up late.
    let mut late = Somebody::new(&rig);
    assert_eq!(code(late.ask(&hello(TOKEN, 4))), "not_yours");
    drop(client);
    let mut newer = Somebody::new(&rig);
    assert_eq!(code(newer.ask(&hello(TOKEN, 6))), "done");
    assert_eq!(
        code(newer.ask(&json!({"deadline": {"incarnation": 2, "until": 1}}))),
        "stale"
    );
    assert_eq!(
        code(newer.ask(&json!({"deadline": {"incarnation": 1, "until": 1}}))),
        "done"
    );
    // The same run again: its earlier connection is given up.
    let mut again = Somebody::new(&rig);
    assert_eq!(code(again.ask(&hello(TOKEN, 6))), "done");
    assert!(newer.is_cut_off());
    let status = again.ask(&json!("status")).unwrap();
    assert_eq!(status["done"]["status"]["state"], "running");
    // What it does not know is no reason to be cut off.
    assert_eq!(code(again.ask(&json!({"sing": {"loud": true}}))), "garbage");
    assert_eq!(code(again.ask(&json!("status"))), "done");
    let furthest = u64::try_from((now() + Duration::from_secs(100_000)).as_nanos()).unwrap();
    assert_eq!(
        code(again.ask(&json!({"deadline": {"incarnation": 1, "until": furthest}}))),
        "lease"
    );
}

#[tokio::test]
async fn garbage_shakes_nothing() {
    let (rig, client) = guarded().await;
    let long = vec![b'x'; 300 << 10];
    let deep = [b"[".repeat(100_000), b"\n".to_vec()].concat();
    let texts: [&[u8]; 8] = [
        b"\n",
        b"\0\0\0\0\n",
        b"{}\n{}\n{}\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\xfd\n",
        b"{\"id\":18446744073709551616,\"ask\":\"status\"}\n",
        &long,
        &deep,
    ];
    for text in texts {
        let mut somebody = Somebody::new(&rig);
        somebody.say(text);
        assert!(somebody.is_cut_off(), "{:?}", &text[..text.len().min(20)]);
    }
    // Half a line, and no end of it; and many who say nothing at all.
    let mut half = Somebody::new(&rig);
    half.say(b"{\"id\":1,");
    let silent: Vec<Somebody> = (0..40).map(|_| Somebody::new(&rig)).collect();
    assert_unshaken(&rig, &client).await;
    drop(silent);
}

/// A daemon that was frozen while it was told things.
#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let (rig, client) = guarded().await;
    drop(client);
    let mut deaf = Somebody::new(&rig);
    assert_eq!(code(deaf.ask(&hello(TOKEN, 6))), "done");
    deaf.lines
        .get_mut()
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    for _ in 0..20_000 {
        let line = format!("{}\n", json!({"id": 1, "ask": "status"}));
        if deaf.lines.get_mut().write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    assert!(deaf.is_cut_off());
    let client = rig.client_of(7).await;
    assert_unshaken(&rig, &client).await;
}
