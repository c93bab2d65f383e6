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
        // A reload is dropped, and the primary goes on by the rule that was left: with the voter that the new one leaves out.
        // Those two are lost, and the one that is left has enough by the new rule.
        "no_show" => {
            scene.spec.limits.degrade_after_ms = rng.random_range(200..600);
            vec![
                ((0, 500), (1300, 1900), What::Processes(S1)),
                ((50, 200), (5000, 6000), What::BadLine(P)),
                ((800, 1200), (1800, 3000), What::FreezeDaemon(P)),
                ((100, 400), (3000, 5000), What::Pair(P, S0)),
                ((500, 1200), (4000, 6000), What::Power(S1)),
                ((0, 300), (3000, 5000), What::Power(P)),
            ]
        }
        // A receiver that a reload does not end, and a primary that does not hear of its successor.
        "no_receiver_end" => vec![
            ((0, 1000), (6000, 8000), What::StuckReplay(S1)),
            ((100, 400), (3000, 5000), What::FreezeDaemon(P)),
            ((50, 400), (100, 100), What::Failover(None)),
        ],
        // The chosen standby's promotion ends late and unseen; the old primary, the only other one that is there, is
        // started again in place, goes on with the third, and dies as the late one comes back with its newer timeline.
        "no_truncation" => {
            scene.traits.slow_promotion = 1.0;
            scene.spec.limits.degrade_after_ms = 60_000;
            vec![
                ((0, 500), (3000, 4500), What::Power(S1)),
                ((100, 500), (100, 300), What::Postmaster(P)),
                ((60, 250), (8000, 8000), What::Daemon(P)),
                ((6000, 7800), (4000, 6000), What::Power(P)),
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
                ((0, 500), (900, 1800), What::Processes(S0)),
                ((1500, 2800), (20, 150), What::Daemon(P)),
                ((0, 250), (4000, 6000), What::Pair(P, S0)),
                ((150, 900), (4000, 6000), What::Power(P)),
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
        // A primary whose stop was told starts again by itself, out of the master's sight, beside a standby that has not
        // heard of the election.
        "restart_unasked" => vec![
            ((0, 300), (3000, 5000), What::ZooKeeper(P)),
            ((0, 200), (2000, 3500), What::FreezeDaemon(S1)),
            ((20, 300), (100, 100), What::Postmaster(P)),
            ((20, 120), (3000, 5000), What::Pair(P, S0)),
        ],
        // The primary lives by what two standbys have granted, and is then cut off from them too.
        "grant_no_seal_wait" | "grant_no_promotion_wait" => {
            scene.durability = Durability::Async;
            if bias == "grant_no_promotion_wait" {
                // The one that gives is the one that is chosen.
                members = 2;
            }
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
        // The primary does not read of its new rule and goes on by the old one, with the voter that the new one leaves
        // out; those two are lost, and the one that is left has enough by the new rule alone.
        "joint_one_step" => {
            scene.spec.limits.degrade_after_ms = rng.random_range(200..600);
            vec![
                ((0, 500), (400, 900), What::Processes(S1)),
                ((200, 500), (1800, 3000), What::FreezeDaemon(P)),
                ((300, 700), (3000, 5000), What::Pair(P, S0)),
                ((400, 1000), (4000, 6000), What::Power(S1)),
                ((0, 300), (3000, 5000), What::Power(P)),
            ]
        }
        // The old primary is rewound while its own rule is still in force, and its successor dies in the midst of that. What
        // a joint that cannot be left allows in the end is kept out, so that the ban on rebuilds is all there is.
        "rebuild_in_joint" | "torn_answers" => {
            if bias == "rebuild_in_joint" {
                scene.spec.limits.degrade_after_ms = 60_000;
            } else {
                scene.spec.limits.degrade_after_ms = rng.random_range(200..600);
            }
            scene.traits.clients = 100;
            scene.traits.client_every = 20 * MS;
            vec![
                ((0, 500), (2500, 4000), What::Power(S1)),
                ((200, 700), (300, 600), What::Processes(P)),
                ((700, 1800), (4000, 6000), What::Power(P)),
            ]
        }
        // A standby that stopped starts again, and confirms more, out of the master's sight.
        "standby_stop_answers" => vec![
            ((0, 500), (12_000, 12_000), What::Pair(Aim::Master, P)),
            ((100, 600), (100, 100), What::Postmaster(S0)),
            ((15, 80), (12_000, 12_000), What::Pair(Aim::Master, S0)),
            ((1000, 2500), (8000, 9000), What::Power(P)),
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
