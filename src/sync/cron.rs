//! The tasks of replication once a second.
//!
//! ```text
//!   PING into the stream       otherwise a replica can't distinguish a quiet primary from a dead one
//!   newlines                   to replicas whose snapshot is not ready yet, for the same reason
//!   timeouts                  replicas that acknowledge nothing, or take no bytes of a snapshot
//!   the backlog                is released when no replica has been there for `repl-backlog-ttl`
//!   the snapshot's file        is removed, if `rdb-del-sync-files` says so and no replica needs it
//!   a child that is due        replicas that wait for a snapshot
//! ```

use crate::client::ClientRef;
use crate::client::table::Net;
use crate::ds::bulk::push_command;
use crate::replication::replicas::{Replica, State};
use crate::replication::{self};
use crate::state::Server;
use crate::sync::{channels, snapshot};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// The name of the command PING, for a PING with an argument.
const PING_NAME: &[u8] = b"PING";

/// A job of the cron: runs all tasks of replication that are done once a second.
pub fn cron(server: &mut Server) {
    let (end, now_ms) = (server.replication.stream.end(), server.clock.now_ms);
    let ms = now_ms.max(0) as u64;
    server.stats.stream_rate.sample(end, ms, 1000);
    ping_replicas(server);
    keep_waiting_replicas_alive(server);
    close_timed_out_replicas(server);
    release_unused_backlog(server);
    remove_unused_file(server);
    channels::cron(server);
    snapshot::start_if_due(server);
}

/// Feeds PING to the stream, every `repl-ping-replica-period` seconds.
fn ping_replicas(server: &mut Server) {
    let now_s = server.clock.now_s();
    let replication = &mut server.replication;
    let period_s = i64::from(server.config.repl_ping_replica_period);
    if now_s - replication.pinged_s < period_s {
        return;
    }
    if replication.is_replica() || replication.replicas.is_empty() {
        // The present time counts as that of the last PING, so the first replica gets its first
        // PING at most a period after it has connected.
        replication.pinged_s = now_s;
        return;
    }
    // A failover waits until a replica has all of the stream, so the stream must not grow.
    if server.pause.stops_replication(server.clock.now_ms) {
        return;
    }
    replication.pinged_s = now_s;
    if server.config.repl_ping_timestamps {
        let stamp = server.clock.now_ms.to_string();
        let mut ping = Vec::new();
        push_command(&mut ping, &[PING_NAME, stamp.as_bytes()]);
        return replication.stream.append(&ping);
    }
    replication.stream.append(PING);
}

/// Sends a newline to each replica that waits for its snapshot, except those that receive the
/// snapshot while it is created: the newline would become a part of the snapshot.
fn keep_waiting_replicas_alive(server: &mut Server) {
    let is_being_sent = snapshot::is_being_sent(server);
    let waits = |replica: &&Replica| match replica.state {
        State::WaitsForSnapshot { .. } => true,
        State::SnapshotRunning => !is_being_sent,
        _ => false,
    };
    let waiting = server.replication.replicas.iter().filter(waits);
    let waiting: Vec<ClientRef> = waiting.map(|replica| replica.client).collect();
    for r in waiting {
        if let Some(c) = server.net.clients.resolve(r) {
            c.reply.raw(b"\n");
            Net::mark_pending(&mut server.net.pending_write, c);
        }
    }
}

fn close_timed_out_replicas(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    let timeout_ms = i64::from(server.config.repl_timeout) * 1000;
    let phase = |replica: &Replica| match replica.state {
        State::WaitsForChannel { since_ms } if now_ms - since_ms > timeout_ms => {
            Some("rdb channel")
        }
        // The replica has received the whole snapshot, but has not closed the snapshot's
        // connection.
        State::Delivered if now_ms - replica.ack_ms > timeout_ms.max(channels::GRACE_S * 1000) => {
            Some("rdb channel")
        }
        State::Online if replica.is_old => None,
        State::Online if now_ms - replica.ack_ms > timeout_ms => Some("streaming sync"),
        // A slow replica delays all other replicas if the snapshot comes through a pipe, and keeps
        // the stream from being freed if the snapshot comes from a file.
        State::SnapshotRunning | State::Receiving(_)
            if replica.wrote_ms > 0 && now_ms - replica.wrote_ms > timeout_ms =>
        {
            Some("full sync")
        }
        _ => None,
    };
    let late = server.replication.replicas.iter();
    let late = late.filter_map(|r| Some((r.client, r.name(), phase(r)?)));
    for (r, name, phase) in late.collect::<Vec<_>>() {
        log::warn!("Disconnecting timedout replica ({phase}): {name}");
        if let Some(c) = server.net.clients.resolve(r) {
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
}

/// `rdb-del-sync-files`: removes the file that was sent to replicas, when no replica needs it any
/// more.
fn remove_unused_file(server: &mut Server) {
    if !server.config.removes_sync_files() {
        server.replication.made_file = false;
        return;
    }
    let online = |replica: &Replica| matches!(replica.state, State::Online);
    let needed =
        server.replication.snapshot.is_some() || !server.replication.replicas.iter().all(online);
    if server.replication.made_file && !needed {
        server.replication.made_file = false;
        log::info!("Removing the RDB file used to feed replicas in a persistence-less instance");
        // An error is ignored, as the file may have been removed already.
        let _ = std::fs::remove_file(server.config.dbfilename.as_path());
    }
}

fn release_unused_backlog(server: &mut Server) {
    let replication = &server.replication;
    let ttl_s = server.config.repl_backlog_ttl as i64;
    let unused = replication.replicas.is_empty() && replication.stream.is_open();
    if !unused || ttl_s == 0 || replication.is_replica() {
        return;
    }
    if server.clock.now_s() - replication.no_replicas_since_s > ttl_s {
        // Without a backlog, a replica that reconnects can't be sent what it lacks. So the history
        // continues under a new id, and a replica that reconnects gets a full sync.
        let id = server.rng.hex(40);
        server.replication.begin_history(id);
        replication::release_backlog(server);
        log::info!("Replication backlog freed after {ttl_s} seconds without connected replicas.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;

    #[test]
    fn the_first_ping_is_not_sent_at_once() {
        let mut server = server_with(0);
        server.config.repl_ping_replica_period = 10;
        replication::ensure_backlog(&mut server);
        let end_at = |server: &mut Server, now_s: i64| {
            server.clock.now_ms = now_s * 1000;
            ping_replicas(server);
            server.replication.stream.end()
        };
        assert_eq!(end_at(&mut server, 1000), 0, "no replica");
        let client = ClientRef { slot: 9, id: 9 };
        let replica = Replica::new(client, Default::default(), "", 0);
        server.replication.add(replica);
        assert_eq!(end_at(&mut server, 1001), 0);
        assert_eq!(end_at(&mut server, 1009), 0);
        assert_eq!(end_at(&mut server, 1010), PING.len() as u64);
        assert_eq!(end_at(&mut server, 1019), PING.len() as u64);
        assert_eq!(end_at(&mut server, 1020), 2 * PING.len() as u64);
    }
}
