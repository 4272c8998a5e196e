//! The connections over which slots move, and the child that sends their keys.
//!
//! ```text
//!   source   Connect ─> link: AUTH, ESTABLISH ─> taken out of the link ─> a client with SLOT_EXPORT
//!                       its output: ACK │ the child's bytes │ collected changes, PAUSED, ...
//!                       its input: CLUSTER SYNCSLOTS, and nothing else
//!   target   CLUSTER SYNCSLOTS ESTABLISH makes a client one with SLOT_IMPORT; its commands are executed
//! ```
//!
//! The state machine `cluster::transfer` decides how a move of slots proceeds; this module executes
//! its actions (connect, send, fork) at the end of each turn that is not nested. While the child
//! writes the keys to the target's socket, this process only collects the changes of these keys,
//! and does not write to the socket.
//!
//! **Invariant:** a job (one move of slots) has at most one connection, and the connection of a job
//! that has ended is closed.
//! **Limits:** the changes that are collected while the child runs, and those that wait for a slow
//! target, are limited by `client-output-buffer-limit replica`. The connections of slot moves do
//! not use TLS.

use std::collections::HashMap;

use ae::EventLoop;

use super::link::{self, LinkId, Taken, Target};
use super::primary::handshake;
use super::{accept, write};
use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::clients::output_limit;
use crate::cluster::name::Name;
use crate::cluster::transfer::request::{Establish, Word};
use crate::cluster::transfer::{Action, Job, Side, State};
use crate::connection::connect::source_address;
use crate::ds::bulk::push_command;
use crate::link::{Action as LinkAction, Expect, Failure, Plan, Step, Unasked};
use crate::member::transfer;
use crate::persist::child::{self, ChildKind, Outcome, SlotHooks, Wish};
use crate::persist::slots as snapshot;
use crate::propagate::sink;
use crate::state::Server;
use crate::sys;

/// The functions that `persist`, a lower layer, calls to start the child that sends keys to another
/// node, and after this child has ended.
pub const HOOKS: SlotHooks = SlotHooks {
    start: start_snapshot,
    ended: snapshot_ended,
};

const AUTH: u32 = 0;
const ESTABLISH: u32 = 1;

/// The connections of slot moves, and the move for which a child runs.
#[derive(Default)]
pub struct SlotLinks {
    /// The links to target nodes that have not accepted their slot move yet, each with the name of
    /// the move.
    opening: HashMap<LinkId, Name>,
    /// The name of the slot move whose keys a child sends now.
    snapshot: Option<Name>,
    /// For each slot move, the number of bytes that its connection had received by the last turn.
    seen: HashMap<Name, u64>,
}

/// Called at the end of a turn: does the periodic work of the slot moves, and executes the actions
/// that they request.
pub fn turn(el: &mut EventLoop<Server>, server: &mut Server) {
    let busy = |server: &Server| {
        let member = server.cluster.as_ref();
        member.is_some_and(|member| member.transfers.is_busy() || member.transfers.has_actions())
    };
    if server.is_nested() || !busy(server) {
        return;
    }
    tick(server);
    loop {
        let actions = match &mut server.cluster {
            Some(member) => member.transfers.take_actions(),
            None => return,
        };
        if actions.is_empty() {
            break;
        }
        for action in actions {
            match action {
                Action::Connect(name) => connect(el, server, &name),
                Action::Disconnect(name) => disconnect(el, server, &name),
                Action::Snapshot(_) => server.forks.wishes.add(Wish::Slots),
                Action::Send(name, word) => send(server, &name, word),
                other => transfer::execute(server, other),
            }
        }
    }
    pass_changes_on(server);
    child::start_next(server);
}

fn tick(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let links: Vec<(Name, u64)> = member
        .transfers
        .jobs()
        .filter(|job| job.is_active())
        .filter_map(|job| Some((job.name, job.link?)))
        .collect();
    let mut unsent = HashMap::new();
    let mut heard = Vec::new();
    for (name, id) in links {
        unsent.insert(name, bytes_unsent(server, &name, id));
        let received = client_of(server, id).map_or(0, |c| c.net_in);
        if server.slot_links.seen.insert(name, received) != Some(received) {
            heard.push(id);
        }
    }
    let limits = server
        .cluster
        .as_ref()
        .map(|member| transfer::limits(server, member));
    let (Some(member), Some(limits)) = (&mut server.cluster, limits) else {
        return;
    };
    let now = member.now();
    member.transfers.limits = limits;
    for id in heard {
        member.transfers.heard_bytes(now, id);
    }
    let unsent = |job: &Job| unsent.get(&job.name).copied().unwrap_or(0);
    member.transfers.tick(now, &member.machine, unsent);
}

fn client_of(server: &mut Server, id: u64) -> Option<&mut Client> {
    let r = server.net.clients.reference_of(id)?;
    server.net.clients.resolve(r)
}

/// The number of bytes that wait to be sent to the target node of a slot move.
pub fn bytes_unsent(server: &mut Server, job: &Name, client: u64) -> u64 {
    let collected = server.propagation.exports.len(job) as u64;
    let queued = client_of(server, client).map_or(0, |c| c.reply.bytes());
    collected + queued as u64
}

fn job_of<'a>(server: &'a Server, name: &Name) -> Option<&'a Job> {
    server.cluster.as_ref()?.transfers.job(name)
}

/// Opens a link to the target node of a slot move.
fn connect(el: &mut EventLoop<Server>, server: &mut Server, name: &Name) {
    let Some(member) = &server.cluster else {
        return;
    };
    let job = member.transfers.job(name).filter(|job| job.is_active());
    let Some((job, target)) = job.and_then(|job| Some((job, job.target?))) else {
        return;
    };
    let request = Establish {
        source: member.machine.myself().name,
        name: *name,
        ranges: job.ranges.clone(),
    };
    let Some(address) = member.machine.address_of_node(&target) else {
        return refused(server, name, "The target node is not known any more");
    };
    let mut script = handshake::auth(&server.config, AUTH);
    script.push(Step::new(ESTABLISH, &request.command()).expect(Expect::Status("OK")));
    let plan = Plan::new(script, Unasked::Keep, handshake::timeout_ms(server));
    let to = Target {
        host: address.ip.as_str(),
        port: address.tcp_port,
        source: source_address(&server.config),
        tls: false,
    };
    let id = link::open(el, server, &to, plan, on_action);
    server.slot_links.opening.insert(id, *name);
}

fn refused(server: &mut Server, name: &Name, message: &str) {
    if let Some(member) = &mut server.cluster {
        let now = member.now();
        member.transfers.refused(now, name, message);
    }
}

fn on_action(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, action: LinkAction) {
    match action {
        LinkAction::Ready => {
            let peer = server.links.address(id);
            let peer = peer.map_or_else(String::new, |address| address.to_string());
            if let Some(name) = server.slot_links.opening.remove(&id)
                && let Some(taken) = link::take(el, server, id)
            {
                adopt(el, server, &name, &peer, taken);
            }
        }
        LinkAction::Failed(failure) => {
            if let Some(name) = server.slot_links.opening.remove(&id) {
                refused(server, &name, &text_of(&failure));
            }
        }
        LinkAction::Reply { .. } | LinkAction::Message(_) | LinkAction::Closed => {}
    }
}

fn text_of(failure: &Failure) -> String {
    match failure {
        Failure::Refused { tag: AUTH, .. } => format!("Failed to AUTH to target node: {failure}"),
        Failure::Refused { error, .. } => {
            let text = String::from_utf8_lossy(error);
            let text = text.strip_prefix("ERR ").unwrap_or(&text);
            format!("Target node refused the slots: {text}")
        }
        _ => format!("Failed to connect to target node: {failure}"),
    }
}

/// Makes the connection to a target node that has accepted a slot move a client with the flag
/// SLOT_EXPORT.
fn adopt(el: &mut EventLoop<Server>, server: &mut Server, name: &Name, peer: &str, taken: Taken) {
    let created =
        accept::create_linked_client(el, server, taken.conn, peer.into(), flag::SLOT_EXPORT);
    let r = match created {
        Ok(r) => r,
        Err(e) => {
            return refused(
                server,
                name,
                &format!("The connection can't be watched: {e}"),
            );
        }
    };
    if let Some(member) = &mut server.cluster {
        let now = member.now();
        member.transfers.connected(now, name, r.id);
    }
    accept::feed_linked_client(el, server, r, &taken.received);
}

/// Closes the connection of a slot move, and kills the child that sends the keys of this move.
fn disconnect(el: &mut EventLoop<Server>, server: &mut Server, name: &Name) {
    server.propagation.exports.remove(name);
    follow_sink(server);
    server.slot_links.seen.remove(name);
    if server.slot_links.snapshot == Some(*name) {
        child::kill(server, ChildKind::Slots);
    }
    let opening = server.slot_links.opening.iter();
    let found = opening
        .filter(|(_, job)| *job == name)
        .map(|(id, _)| *id)
        .next();
    if let Some(id) = found {
        server.slot_links.opening.remove(&id);
        link::close(el, server, id);
    }
    let client = job_of(server, name).and_then(|job| job.link);
    if let Some(id) = client
        && let Some(r) = server.net.clients.reference_of(id)
        && let Some(c) = server.net.clients.resolve(r)
    {
        Net::close_asap(&mut server.net.close_asap, c);
    }
}

fn follow_sink(server: &mut Server) {
    let on = !server.propagation.exports.is_empty();
    server.propagation.set_sink(sink::EXPORTS, on);
    server.update_armed();
}

/// Sends CLUSTER SYNCSLOTS with `word` to the target of a slot move, after all changes that were
/// collected for it.
fn send(server: &mut Server, name: &Name, word: Word) {
    let Some(id) = job_of(server, name).and_then(|job| job.link) else {
        return;
    };
    let changes = server.propagation.exports.take(name);
    let Some(r) = server.net.clients.reference_of(id) else {
        return;
    };
    let Some(c) = server.net.clients.resolve(r) else {
        return;
    };
    let mut text = Vec::new();
    push_command(&mut text, &["CLUSTER", "SYNCSLOTS", word.text()]);
    if !changes.is_empty() {
        c.reply.raw(&changes);
    }
    c.reply.raw(&text);
    Net::mark_pending(&mut server.net.pending_write, c);
}

/// Queues the collected changes of each slot move for its connection, unless the child still writes
/// to this connection.
fn pass_changes_on(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let jobs: Vec<(Name, State, u64)> = member
        .transfers
        .active(Side::Export)
        .filter_map(|job| Some((job.name, job.state, job.link?)))
        .collect();
    for (name, state, id) in jobs {
        let Some(r) = server.net.clients.reference_of(id) else {
            continue;
        };
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        if state == State::Snapshotting {
            let collected = server.propagation.exports.len(&name) as u64;
            if output_limit::exceeds_replica_limit(server, collected) {
                log::warn!(
                    "Too many changes of slots were made while they were sent: the move has failed."
                );
                Net::close_asap(&mut server.net.close_asap, &mut c);
            }
        } else {
            let changes = server.propagation.exports.take(&name);
            if !changes.is_empty() {
                c.reply.raw(&changes);
                Net::mark_pending(&mut server.net.pending_write, &mut c);
                output_limit::check_output_limit(server, &mut c);
            }
        }
        server.net.clients.put(c);
    }
}

/// Forks the child for the next move of slots; called when [`Wish::Slots`] is pending and no other
/// child runs. Returns whether no slot move waits for a child any more.
fn start_snapshot(server: &mut Server) -> bool {
    let member = server.cluster.as_ref();
    let job = member.and_then(|member| member.transfers.waits_for_snapshot());
    let Some((name, slots, id)) =
        job.and_then(|job| Some((job.name, job.slots.clone(), job.link?)))
    else {
        return true;
    };
    let Some(r) = server.net.clients.reference_of(id) else {
        return false;
    };
    let Some(mut c) = server.net.clients.take_ref(r) else {
        return false;
    };
    // Earlier messages to the target must be in the socket before the child writes to the socket.
    write::write_to_client(server, &mut c);
    let is_sent = c.reply.is_empty();
    let socket = c.conn.as_ref().map(|conn| conn.duplicate());
    server.net.clients.put(c);
    let Some(Ok(socket)) = socket.filter(|_| is_sent) else {
        return false;
    };
    // A group of changes that are propagated together must not be split by the fork, so it ends
    // before: the child sends it with the keys, and only later changes are collected.
    server.end_unit();
    let list: Vec<u16> = slots.iter().collect();
    match snapshot::start(server, socket, &list) {
        Ok(pid) => {
            log::info!("Sending slots to another node by pid {pid}");
            server.propagation.exports.add(name, slots);
            follow_sink(server);
            server.slot_links.snapshot = Some(name);
            if let Some(member) = &mut server.cluster {
                let now = member.now();
                member.transfers.snapshot_begun(now, &name);
            }
        }
        Err(e) => {
            log::warn!("Can't send slots: fork: {}", sys::error_text(&e));
            refused(server, &name, "Can't fork");
        }
    }
    let member = server.cluster.as_ref();
    member.is_none_or(|member| member.transfers.waits_for_snapshot().is_none())
}

fn snapshot_ended(server: &mut Server, outcome: &Outcome) {
    let name = server.slot_links.snapshot.take();
    let (Some(name), Some(member)) = (name, &mut server.cluster) else {
        return;
    };
    let now = member.now();
    let (succeeded, cow) = (outcome.succeeded(), outcome.cow_bytes);
    member.transfers.snapshot_ended(now, &name, succeeded, cow);
}
