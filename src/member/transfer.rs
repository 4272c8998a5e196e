//! Executes the actions of slot moves that concern keys, paused clients and the cluster's state
//! machine. `networking::slots` executes the actions that concern connections.

use super::{Member, act, perform};
use crate::cluster::name::Name;
use crate::cluster::transfer::{Action, Limits};
use crate::state::Server;

/// Notes that FLUSHALL, FLUSHDB or CLUSTER FLUSHSLOT has removed the keys of a slot, or of all
/// slots (`None`).
pub fn flushed(server: &mut Server, slot: Option<u16>) {
    if let Some(member) = &mut server.cluster {
        let now = member.now();
        member.transfers.flushed(now, slot);
    }
}

/// Forgets the slot moves of the primary, because the primary's snapshot is about to replace the
/// data set and has a list of the moves.
pub fn begin_load(server: &mut Server) {
    if let Some(member) = &mut server.cluster {
        member.transfers.forget_primary_imports();
        act(server, |machine, now, out| {
            machine.forget_open_slots(now, out)
        });
    }
}

/// The limits of slot moves, from the settings.
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

/// Executes an action of a slot move that needs no connection. Not called in nested turns.
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

/// Hides the keys of slots that are being imported, so that SCAN, KEYS and RANDOMKEY leave them
/// out, and shows the keys of all other slots.
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

/// Removes the keys that have arrived in a slot move that has failed, except those of slots that
/// this node owns now.
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
