//! The moves of slots, as far as they are about keys, clients' commands and the cluster's machine.
//! `networking::slots` has their connections.

use super::{Member, act, perform};
use crate::cluster::name::Name;
use crate::cluster::transfer::{Action, Limits};
use crate::state::Server;

/// FLUSHALL, FLUSHDB or CLUSTER FLUSHSLOT has removed keys; `None`: those of all slots.
pub fn flushed(server: &mut Server, slot: Option<u16>) {
    if let Some(member) = &mut server.cluster {
        let now = member.now();
        member.transfers.flushed(now, slot);
    }
}

/// The snapshot of the primary is about to replace the data set: it names the slots that arrive
/// there, and those that are moved by hand.
pub fn begin_load(server: &mut Server) {
    if let Some(member) = &mut server.cluster {
        member.transfers.forget_primary_imports();
        act(server, |machine, now, out| {
            machine.forget_open_slots(now, out)
        });
    }
}

/// The settings of the moves.
pub fn limits(server: &Server, member: &Member) -> Limits {
    let config = &server.config;
    Limits {
        silence_ms: u64::from(config.repl_timeout) * 1000,
        pause_ms: 2 * member.machine.settings().manual_timeout_ms,
        grant_ms: member.machine.settings().node_timeout_ms / 2,
        log_max: usize::try_from(config.cluster_slot_migration_log_max_len).unwrap_or(usize::MAX),
        unsent_max: u64::try_from(config.slot_migration_max_failover_repl_bytes).ok(),
        ..member.transfers.limits
    }
}

/// Executes an action that needs no connection. Called at the top level only.
pub fn execute(server: &mut Server, action: Action) {
    match action {
        Action::HoldWriters => hold_writers(server),
        Action::Hide => hide(server),
        Action::Claim(name) => claim(server, &name),
        Action::Drop(name) => drop_keys(server, &name),
        Action::Propagate(argv) => {
            server.propagation.also(0, &argv);
            server.end_unit();
        }
        Action::Log(level, text) => log::log!(level, "{text}"),
        Action::Connect(_) | Action::Disconnect(_) | Action::Snapshot(_) | Action::Send(..) => {}
    }
}

fn hold_writers(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let (waiting, refused) = member.transfers.held(member.now());
    server.pause_slots(waiting, refused);
}

/// Shows and hides keys of slots.
pub fn hide(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let hidden = member.transfers.hidden();
    for db in &mut server.data.dbs {
        db.keys.hide(hidden.iter());
    }
    server.update_armed();
}

fn claim(server: &mut Server, name: &Name) {
    let member = server.cluster.as_ref();
    let job = member.and_then(|member| member.transfers.job(name));
    if let Some(slots) = job.map(|job| job.slots.clone()) {
        act(server, |machine, now, out| {
            machine.claim_slots(now, &slots, out);
        });
    }
}

/// Removes what has arrived of a move that has failed. Slots that are this node's now stay.
fn drop_keys(server: &mut Server, name: &Name) {
    let Some(member) = &server.cluster else {
        return;
    };
    let Some(job) = member.transfers.job(name) else {
        return;
    };
    let me = member.machine.myself().name;
    let is_mine = |slot: &u16| member.machine.owner_name(*slot) == Some(me);
    let foreign: Vec<u16> = job.ranges.slots().filter(|slot| !is_mine(slot)).collect();
    perform::delete_slots(server, foreign);
}
