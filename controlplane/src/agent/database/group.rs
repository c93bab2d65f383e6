//! One group as this node follows it: its record, where its clients belong, and its instance here while there is one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::records::{Follower, Known};
use super::{Env, lock, open, routes};
use crate::postgres::instance::Instance;

/// How long stopping an instance may take when the node leaves the cluster.
pub(super) const LEAVING: Duration = Duration::from_millis(1500);
/// Between attempts to open an instance that cannot be opened.
const AGAIN: Duration = Duration::from_secs(1);
/// Between attempts to delete data.
const DELETE_AGAIN: Duration = Duration::from_secs(10);

/// What goes with a group's place in the lists of others.
struct Listed(Arc<Env>, String);

impl Drop for Listed {
    fn drop(&mut self) {
        let (env, group) = (&self.0, &self.1);
        lock(&env.board.0.hints).remove(group);
        env.board
            .0
            .standbys
            .send_if_modified(|all| Arc::make_mut(all).remove(group).is_some());
        lock(&env.board.0.inputs).remove(group);
        routes::publish(&env.routes, group, None);
        env.remove_local(group);
    }
}

/// Follows a group until it is dropped, or `end`, which stops its instance.
pub(super) async fn follow(env: Arc<Env>, group: String, end: CancellationToken) {
    let (hints, hinted) = watch::channel(0);
    lock(&env.board.0.hints).insert(group.clone(), hints);
    let _listed = Listed(env.clone(), group.clone());
    let (known_tx, known) = watch::channel(Known::default());
    let follower = Follower {
        group: group.clone(),
        node: env.shared.me.node.clone(),
        coordinator: env.shared.coordinator.clone(),
        known: known_tx,
        hinted,
    };
    tokio::select! {
        () = Box::pin(follower.run()) => {}
        () = lead_clients(&env, &group, known.clone()) => {}
        () = Box::pin(run_instance(&env, &group, known, &end)) => {}
    }
}

/// Keeps the routes as the records have them.
async fn lead_clients(env: &Arc<Env>, group: &str, mut known: watch::Receiver<Known>) {
    let (mut nodes, mut instances) = (env.nodes.clone(), env.instances.subscribe());
    let mut standbys = env.board.0.standbys.subscribe();
    loop {
        {
            let (known, nodes) = (known.borrow_and_update(), nodes.borrow_and_update());
            let own = instances.borrow_and_update();
            let seen = standbys.borrow_and_update();
            let more: Vec<_> = routes::nodes_of(&known).cloned().collect();
            env.wanted.send_if_modified(|wanted| {
                let before = wanted.len();
                wanted.extend(more);
                wanted.len() != before
            });
            let me = (env.shared.me.node.as_str(), &**own);
            let table = routes::table(group, &known, &nodes, me, seen.get(group), env.clock.wall_ms());
            routes::publish(&env.routes, group, table);
        }
        tokio::select! {
            changed = known.changed() => if changed.is_err() { return },
            changed = nodes.changed() => if changed.is_err() { return },
            changed = instances.changed() => if changed.is_err() { return },
            changed = standbys.changed() => if changed.is_err() { return },
        }
    }
}

/// Runs the instance while there is one, or is to be one, or something of one is left.
async fn run_instance(env: &Arc<Env>, group: &str, mut known: watch::Receiver<Known>, end: &CancellationToken) {
    let mut left = open::traces(env, group);
    loop {
        let wanted = {
            let known = known.borrow_and_update();
            known.concerns(&env.shared.me.node) || (left && known.read.is_some())
        };
        if !wanted {
            tokio::select! {
                changed = known.changed() => if changed.is_err() { return },
                () = end.cancelled() => return,
            }
            continue;
        }
        let opened = tokio::select! {
            opened = open::driver(env, group, known.clone()) => opened,
            () = end.cancelled() => return,
        };
        let mut driver = match opened {
            Ok(driver) => driver,
            Err(why) => {
                open::told(env, group, &known.borrow(), &why);
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = end.cancelled() => return,
                }
                continue;
            }
        };
        tracing::info!(group, "an instance of the group is run here");
        tokio::select! {
            () = Box::pin(driver.run()) => {}
            () = end.cancelled() => {
                driver.leave(LEAVING).await;
                return;
            }
        }
        let instance = driver.instance.clone();
        drop(driver);
        left = false;
        let deleted = tokio::select! {
            deleted = delete(env, group, &instance, &mut known) => deleted,
            () = end.cancelled() => return,
        };
        lock(&env.board.0.inputs).remove(group);
        env.board.remove(group);
        env.remove_local(group);
        let data = if deleted { "deleted" } else { "left" };
        tracing::info!(
            group,
            "no instance of the group is wanted here any more; its data are {data}"
        );
        // Its guard ends by itself when nobody needs it.
    }
}

/// Deletes the data of an instance that is wanted no more, if that was asked for, and until it is done or is not asked for any
/// more.
async fn delete(env: &Arc<Env>, group: &str, instance: &Instance, known: &mut watch::Receiver<Known>) -> bool {
    loop {
        let system_id = {
            let known = known.borrow_and_update();
            let asked = known.deletes(&env.shared.me.node);
            known.state().and_then(|s| s.system_id).filter(|_| asked)
        };
        let Some(system_id) = system_id else { return false };
        match instance.erase(system_id).await {
            Ok(there) => return there,
            Err(why) => {
                let why = format!("its data are not deleted: {why}");
                open::told(env, group, &known.borrow(), &why);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(DELETE_AGAIN) => {}
            changed = known.changed() => if changed.is_err() { return false },
        }
    }
}
