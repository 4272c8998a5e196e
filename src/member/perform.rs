//! Executes the actions of the cluster's state machine.

use super::slots;
use crate::cluster::event::{Action, Address, Event};
use crate::cluster::packet::Publish;
use crate::config::ClusterConfigSaveBehavior;
use crate::execute::charge;
use crate::execute::pause::PausePurpose;
use crate::pubsub;
use crate::state::Server;
use crate::sync::role;
use crate::sys::error_text;
use crate::sys::process;

/// Executes actions of the cluster's state machine in order.
pub fn perform(server: &mut Server, actions: Vec<Action>) {
    for action in actions {
        let Some(member) = &mut server.cluster else {
            return;
        };
        match action {
            Action::Wire(wire) => member.wire.push(wire),
            Action::Save { token, durable } => save(server, token, durable),
            Action::Log(level, text) => log::log!(level, "{text}"),
            Action::Publish(publish) => deliver(server, &publish),
            Action::Pause { until_ms } => {
                let now = member.now();
                let until_ms = now.wall_ms + until_ms.saturating_sub(now.ms);
                server.pause_clients(PausePurpose::Failover, until_ms as i64, false);
            }
            Action::Resume => server.unpause_clients(PausePurpose::Failover),
            Action::TopologyChanged | Action::State { .. } => slots::topology_changed(server),
            Action::Follow { .. } | Action::Promote | Action::Flush | Action::DeleteKeys(_) => {
                member.waiting.push(action);
                perform_waiting(server);
            }
        }
    }
}

/// Executes the queued actions that replace the data set or change the role, unless the present
/// turn is a nested one. While a command from the primary's link runs, the link can't be closed, so
/// these actions stay queued until the end of the turn.
pub fn perform_waiting(server: &mut Server) {
    if server.is_nested() || primary_is_served(server) {
        return;
    }
    let waiting = server
        .cluster
        .as_mut()
        .map(|member| std::mem::take(&mut member.waiting));
    for action in waiting.unwrap_or_default() {
        match action {
            Action::Follow {
                address,
                keeps_data,
                ..
            } => follow(server, &address, keeps_data),
            Action::Promote => role::promote(server),
            Action::Flush => {
                if let Ok(top) = server.top_level() {
                    server.flush(&top, None, None, false);
                }
            }
            Action::DeleteKeys(slots) => slots::delete_keys(server, &slots),
            _ => {}
        }
    }
}

/// Whether a command from the primary's link is running: the client of the link is then not in the
/// table of clients.
fn primary_is_served(server: &Server) -> bool {
    let upstream = server.replication.upstream.as_ref();
    let link = upstream.and_then(|upstream| upstream.client);
    link.is_some_and(|link| server.net.clients.get(link.slot).is_none())
}

/// Deletes the keys of slots at once or, in a nested turn, at the end of the turn.
pub fn delete_slots(server: &mut Server, slots: Vec<u16>) {
    if let Some(member) = &mut server.cluster {
        member.waiting.push(Action::DeleteKeys(slots));
        perform_waiting(server);
    }
}

fn follow(server: &mut Server, address: &Address, keeps_data: bool) {
    let port = match server.config.tls_replication {
        true => address.tls_port,
        false => address.tcp_port,
    };
    role::follow(server, address.ip.as_str(), port);
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.has_foreign_data |= !keeps_data;
    }
}

fn deliver(server: &mut Server, publish: &Publish) {
    let offset = server.aof.offset();
    let (channel, text) = (&publish.channel, &publish.message);
    match publish.sharded {
        true => {
            let receivers = pubsub::publish_shard(server, channel, text, offset);
            charge::shard_message(server, channel, text, receivers);
        }
        false => _ = pubsub::publish(server, channel, text, offset),
    }
}

fn save(server: &mut Server, token: u64, durable: bool) {
    let wake = server.aof.flush.wake.clone();
    let Some(member) = &mut server.cluster else {
        return;
    };
    let text = member.machine.conf(member.now()).render();
    match member.disk.write((token, durable), text, wake) {
        Ok(true) => {}
        Ok(false) => super::step(server, Event::Saved(token)),
        Err(e) => {
            note_failure(server, &error_text(&e));
            super::step(server, Event::Saved(token));
        }
    }
}

/// Passes the results of the thread that writes nodes.conf to the cluster's state machine.
pub fn take_saves(server: &mut Server) {
    while let Some((token, result)) = server
        .cluster
        .as_mut()
        .and_then(|member| member.disk.try_done())
    {
        if let Err(e) = result {
            note_failure(server, &error_text(&e));
        }
        super::step(server, Event::Saved(token));
    }
}

/// Logs that nodes.conf could not be written, and exits if `cluster-config-save-behavior` is sync.
fn note_failure(server: &mut Server, reason: &str) {
    let name = server.config.cluster_config_file.to_str_lossy();
    log::warn!("Can't write {name}: {reason}");
    match server.config.cluster_config_save_behavior {
        ClusterConfigSaveBehavior::BestEffort => log::warn!(
            "Cluster config updated even though writing the cluster config file to disk failed"
        ),
        ClusterConfigSaveBehavior::Sync => {
            log::warn!("Fatal: can't update cluster config file.");
            process::exit(1);
        }
    }
}
