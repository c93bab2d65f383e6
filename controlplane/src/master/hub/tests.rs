//! What goes out when, and to whom.

use super::*;
use crate::coordination::{Connector as _, MemoryConnector, MemoryServer};
use crate::platform::SystemClock;

async fn hub() -> Hub {
    let clock = Arc::new(SystemClock);
    let server = MemoryServer::default();
    let connector = MemoryConnector::new(&server, "hub", clock.clone(), Duration::from_secs(4));
    let start = Start {
        state: v1::ClusterState::default(),
        changes: Vec::new(),
        tail: 0,
        oldest: 1,
    };
    Hub::new(start, connector.connect().await.unwrap(), clock, Lines::default())
}

fn node(i: usize) -> Box<v1::Node> {
    Box::new(v1::Node {
        name: format!("n{i:04}"),
        ..v1::Node::default()
    })
}

fn names(rx: &mut mpsc::Receiver<Result<v1::WatchFrame, ApiError>>) -> Vec<String> {
    match rx.try_recv().unwrap().unwrap().body {
        Some(v1::watch_frame::Body::Delta(delta)) => delta.nodes.into_iter().map(|n| n.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_change_goes_alone_and_measurements_take_turns() {
    let mut hub = hub().await;
    let mut watchers: Vec<_> = (0..500).map(|_| hub.watch(&v1::WatchRequest::default())).collect();
    let rx = &mut watchers[0];
    assert!(matches!(
        rx.try_recv().unwrap().unwrap().body,
        Some(v1::watch_frame::Body::Snapshot(_))
    ));
    for i in 0..250 {
        hub.apply(Update::Node(node(i), false));
    }
    assert!(!hub.urgent);
    hub.apply(Update::Node(node(7), true));
    assert!(hub.urgent);
    hub.flush();
    assert_eq!(names(rx), ["n0007"]);
    // One that is gone gets no turn.
    hub.apply(Update::NodeGone("n0003".into()));
    hub.flush();
    assert!(names(rx).is_empty());
    let mut seen = BTreeSet::new();
    for turn in [100, 100, 50] {
        assert!(hub.take_measured());
        hub.flush();
        let told = names(rx);
        assert!(told.len() <= turn && told.len() >= turn - 1, "{}", told.len());
        seen.extend(told);
    }
    assert!(!hub.take_measured());
    assert_eq!(seen.len(), 249);
}
