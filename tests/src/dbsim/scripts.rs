//! Runs that go where a rule matters: for each rule a story whose times are drawn. Chance alone would take far more seeds
//! to come by them.

use ha_core::database::Durability;
use rand::Rng as _;
use rand::rngs::SmallRng;

use super::Scene;
use super::faults::{Aim, Planned, What};
use super::world::{MS, SECOND, Time};

/// A step of a story: how long after the step before (from, to), how long it lasts (from, to), what.
type Line = ((Time, Time), (Time, Time), What);

const P: Aim = Aim::Primary;
const S0: Aim = Aim::Standby(0);
const S1: Aim = Aim::Standby(1);

fn tell(rng: &mut SmallRng, story: &[Line]) -> Vec<Planned> {
    let mut at = 5 * SECOND;
    let mut plan = Vec::with_capacity(story.len());
    for ((after, most), (lasts, longest), what) in story {
        at += rng.random_range(*after..=*most) * MS;
        plan.push(Planned {
            at,
            until: at + rng.random_range(*lasts..=*longest) * MS,
            what: *what,
        });
    }
    plan
}

/// Makes a scene one in which leaving out this rule is likely to show.
pub fn bend(rng: &mut SmallRng, scene: &mut Scene, bias: &str) {
    scene.nodes = 3;
    scene.profile = super::faults::Profile::Mixed;
    scene.durability = Durability::Quorum;
    // How many of the nodes carry an instance.
    let mut members = usize::MAX;
    let story: Vec<Line> = match bias {
        // A standby that lags is all that is left of the new primary's rule.
        "no_flush" | "joint_forgotten" | "no_durability" => vec![
            ((0, 1000), (3000, 5000), What::Pair(P, S1)),
            ((0, 300), (1200, 3500), What::Pair(S0, S1)),
            ((100, 600), (6000, 8000), What::Power(P)),
            ((500, 3000), (3000, 5000), What::Power(P)),
        ],
        // A receiver that a reload does not end, and a primary that does not hear of its successor.
        "no_receiver_end" => vec![
            ((0, 1000), (6000, 8000), What::StuckReplay(S1)),
            ((100, 400), (3000, 5000), What::FreezeDaemon(P)),
            ((50, 400), (100, 100), What::Failover(None)),
        ],
        // A promotion that ends late, while the old primary goes on and fails again.
        "no_truncation" => {
            scene.traits.slow_promotion = 1.0;
            vec![
                ((0, 500), (1200, 2500), What::Processes(P)),
                ((150, 600), (5500, 8000), What::Freeze(P)),
                ((0, 150), (2500, 4000), What::Power(S0)),
                ((4500, 7000), (4000, 6000), What::Power(P)),
            ]
        }
        // An old primary comes back with more log than it shares with anybody.
        "no_lineage_rank" => {
            scene.traits.clients = 100;
            scene.traits.client_every = 20 * MS;
            vec![
                ((0, 500), (2500, 5000), What::Isolate(P)),
                ((2400, 5100), (4000, 6000), What::Power(P)),
            ]
        }
        // A daemon that comes back reads of a rule that is not in force any more.
        "stale_reads" => {
            scene.traits.zk_lag = 3 * SECOND;
            scene.traits.lazy_fresh = 1.0;
            scene.spec.limits.degrade_after_ms = 300;
            scene.nodes = 2;
            vec![
                ((0, 500), (900, 2500), What::Power(S0)),
                ((1500, 3000), (20, 300), What::Daemon(P)),
                ((0, 500), (3000, 5000), What::Pair(P, S0)),
                ((50, 1200), (4000, 6000), What::Power(P)),
            ]
        }
        // A daemon that fails while it registers anew, out of everybody's sight.
        "absence_is_over" => {
            scene.durability = Durability::Async;
            vec![
                ((0, 500), (4000, 6000), What::Mute(P)),
                ((300, 1500), (10, 60), What::Daemon(P)),
                ((30, 100), (3000, 5000), What::Daemon(P)),
            ]
        }
        // Children of a dead postmaster.
        "postmaster_is_proof" => {
            scene.durability = Durability::Async;
            scene.traits.lingering = 1.0;
            vec![((0, 2000), (100, 3000), What::Postmaster(P))]
        }
        // The primary lives by what two standbys have granted, and is then cut off from them too.
        "grant_no_seal_wait" | "grant_no_promotion_wait" => {
            scene.durability = Durability::Async;
            vec![
                ((0, 500), (9000, 9500), What::ZooKeeper(P)),
                ((2000, 6500), (4000, 5000), What::Mute(P)),
            ]
        }
        "grant_from_receipt" => {
            scene.durability = Durability::Async;
            scene.traits.delayed = 0.5;
            scene.drift = 0;
            vec![
                ((0, 500), (9000, 9500), What::ZooKeeper(P)),
                ((2000, 6500), (4000, 5000), What::Mute(P)),
            ]
        }
        // The givers start again and do not remember.
        "grant_forgotten" => {
            scene.durability = Durability::Async;
            members = 2;
            vec![
                ((0, 100), (10, 10), What::Unseat),
                ((200, 500), (9000, 9500), What::ZooKeeper(P)),
                ((3500, 7000), (4000, 5000), What::Mute(P)),
                ((0, 100), (5, 30), What::Daemon(S0)),
            ]
        }
        // The primary and one giver are an island, of which the record has left out the giver.
        "grant_of_one" | "grant_unrecorded" => {
            scene.durability = Durability::Async;
            vec![
                ((0, 500), (9000, 9500), What::Island(S0, P)),
                ((300, 1500), (8000, 9000), What::Island(P, S0)),
            ]
        }
        // Voters come and go faster than rules are settled.
        "joint_one_step" => {
            scene.spec.limits.degrade_after_ms = rng.random_range(200..600);
            vec![
                ((0, 500), (1500, 3500), What::Power(S1)),
                ((1500, 3500), (1200, 3500), What::Pair(P, S0)),
                ((200, 3000), (300, 2500), What::Pair(P, S1)),
                ((0, 2500), (2500, 5000), What::ZooKeeper(P)),
                ((200, 2500), (300, 1500), What::Pair(P, S0)),
                ((100, 1500), (3000, 5000), What::Power(P)),
            ]
        }
        "rebuild_in_joint" => vec![
            ((0, 1000), (1500, 4500), What::Isolate(P)),
            ((1500, 4500), (10, 10), What::Reinit(S1)),
            ((0, 800), (2000, 5000), What::Power(P)),
            ((100, 1500), (3000, 5000), What::Power(P)),
        ],
        _ => return,
    };
    if scene.durability == Durability::Async {
        // Leases assume clocks that run alike.
        scene.drift = scene.drift.min(300);
    }
    scene.plan = tell(rng, &story);
    scene.until = scene.plan.iter().map(|p| p.until).max().unwrap_or(scene.until);
    scene.spec.durability = scene.durability;
    scene.names.truncate(scene.nodes);
    for n in scene.names.len()..scene.nodes {
        scene.names.push(format!("n{}", n + 1));
    }
    let limits = scene.spec.limits.clone();
    scene.spec = ha_core::database::GroupSpec::on(scene.names.iter().map(String::as_str).take(members));
    scene.spec.durability = scene.durability;
    scene.spec.limits = limits;
}
