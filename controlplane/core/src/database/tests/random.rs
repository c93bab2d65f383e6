//! Random faults on the same instances: the invariants hold at every step, and once the faults stop the group is whole.

use std::time::Duration;

use proptest::prelude::*;

use super::world::World;
use crate::database::lineage::Lsn;
use crate::database::observed::Wanted;
use crate::database::spec::Durability;

#[derive(Debug, Clone)]
enum Fault {
    Kill(usize),
    Down(usize),
    Up(usize),
    Uncoordinated(usize),
    Coordinated(usize),
    Cut(usize, usize),
    Mend,
    Tail(usize),
    Switch(usize),
    Forget,
    Reinit(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    let n = 0usize..5;
    prop_oneof![
        3 => n.clone().prop_map(Fault::Kill),
        2 => n.clone().prop_map(Fault::Down),
        3 => n.clone().prop_map(Fault::Up),
        1 => n.clone().prop_map(Fault::Uncoordinated),
        2 => n.clone().prop_map(Fault::Coordinated),
        1 => (n.clone(), n.clone()).prop_map(|(a, b)| Fault::Cut(a, b)),
        1 => Just(Fault::Mend),
        1 => n.clone().prop_map(Fault::Tail),
        1 => n.clone().prop_map(Fault::Switch),
        1 => Just(Fault::Forget),
        1 => n.prop_map(Fault::Reinit),
    ]
}

fn apply(w: &mut World, fault: &Fault, step: usize) {
    let names: Vec<String> = w.nodes.keys().cloned().collect();
    let name = |i: &usize| names[*i % names.len()].clone();
    match fault {
        Fault::Kill(i) => w.kill(&name(i)),
        Fault::Down(i) => w.down(&name(i)),
        Fault::Up(i) => w.up(&name(i)),
        Fault::Uncoordinated(i) => w.nodes.get_mut(&name(i)).unwrap().coordinated = false,
        Fault::Coordinated(i) => w.nodes.get_mut(&name(i)).unwrap().coordinated = true,
        Fault::Cut(a, b) => {
            let (a, b) = (name(a), name(b));
            w.nodes.get_mut(&a).unwrap().cut.insert(b);
        }
        Fault::Mend => w.nodes.values_mut().for_each(|n| n.cut.clear()),
        Fault::Tail(i) => {
            // A primary writes what nobody else receives before it dies.
            let local = w.local(&name(i));
            if local.is_primary() {
                local.log = local.log.map(|l| Lsn(l.0 + 500));
            }
            w.down(&name(i));
        }
        Fault::Switch(i) => w.ask(
            &format!("op{step}"),
            Wanted::Switchover {
                to: Some(name(i)),
                at_ms: None,
            },
        ),
        // A new master remembers nothing and heard nobody.
        Fault::Forget => {
            w.memory = Default::default();
            w.observed.instances.clear();
            w.observed.settled_at = w.observed.now + Duration::from_secs(2);
        }
        Fault::Reinit(i) => w.ask(&format!("op{step}"), Wanted::Reinit { node: name(i) }),
    }
}

fn story(n: usize, durability: Durability, faults: &[(Fault, u64)]) {
    let mut w = World::of(n);
    w.spec.durability = durability;
    w.until("open", |w| w.open().is_some());
    for (step, (fault, wait)) in faults.iter().enumerate() {
        apply(&mut w, fault, step);
        w.run(Duration::from_millis(*wait));
    }
    w.observed.requests.clear();
    let names: Vec<String> = w.nodes.keys().cloned().collect();
    for name in names {
        w.up(&name);
        let node = w.nodes.get_mut(&name).unwrap();
        node.coordinated = true;
        node.cut.clear();
    }
    if durability == Durability::Async {
        w.until("open", |w| w.open().is_some());
    } else {
        w.until("whole", World::whole);
    }
    for (epoch, primaries) in &w.opened {
        assert_eq!(primaries.len(), 1, "epoch {epoch}: {primaries:?}");
    }
}

/// Without a quorum commits may be lost, but never do two instances acknowledge at once, and the group comes back.
#[test]
fn an_async_group_never_has_two_primaries() {
    let config = ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let faults = proptest::collection::vec((fault(), 50u64..9000), 1..20);
    let ran = proptest::test_runner::TestRunner::new(config).run(&(2usize..5, faults), |(n, faults)| {
        story(n, Durability::Async, &faults);
        Ok(())
    });
    ran.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quorum_loses_nothing_and_comes_back(
        n in 1usize..6, strict: bool, faults in proptest::collection::vec((fault(), 50u64..6000), 1..25)
    ) {
        let durability = if strict && n > 1 { Durability::QuorumStrict } else { Durability::Quorum };
        story(n, durability, &faults);
    }
}
