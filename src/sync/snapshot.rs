//! Snapshots for replicas: decides which replicas share a snapshot and when a child is forked, and
//! uses the child's result.
//!
//! ```text
//!   enqueue ─┬─ a child writes the same form to the disk ─> joins it: its cursor stands where theirs stand
//!            ├─ no child, and no delay is set ──────────────> start
//!            └─ else: waits ─ cron: due? ─> Wish::Sync ─────> start
//!
//!   start ─> fork ─> +FULLRESYNC to each replica of the form, its cursor at the offset of the fork
//!            child ended ─┬─ disk: each replica is sent the file     (networking::replicas::transfer)
//!                         ├─ pipe: they have it already              (networking::replicas::broadcast)
//!                         └─ their second connections                (channels)
//! ```
//!
//! **Invariant:** at the fork, a primary resets the selected database of its stream, so that the
//! commands after a snapshot begin with SELECT. A replica must not change its stream, so its
//! snapshots contain the selected database.

use std::fs::File;

use crate::client::announced::Announced;
use crate::client::table::Net;
use crate::client::{Client, ClientRef, flag};
use crate::error::Error;
use crate::persist::child::{self, ChildKind, Outcome, ReplicationHooks, Target, Wish};
use crate::persist::rdb::save::{Contents, SaveOptions};
use crate::persist::rdb::transfer;
use crate::persist::rdb::{self, background};
use crate::replication;
use crate::replication::replicas::{Replica, State, Transfer};
use crate::replication::snapshot::{Broadcast, Form, Receiver, Snapshot, Way};
use crate::state::Server;
use crate::sync::{channels, primary};
use crate::sys;

/// The functions that `persist`, a lower layer, calls to start a child for replicas and after the
/// child has ended.
pub const HOOKS: ReplicationHooks = ReplicationHooks { start, ended };

/// The RDB version for a replica that does not announce one: that of Redis 7.0.
const VERSION_OF_STRANGERS: u32 = rdb::VERSION_REDIS_MIN;
/// The RDB version for a Valkey server before 9.0.
const VERSION_FOR_VALKEY_8: u32 = 11;
/// The first version of Valkey that reads Valkey's own RDB versions; it does not read RDB version
/// 12.
const VALKEY_9: u32 = 0x09_0000;

/// Gives a replica the snapshot of the running child, or lets the replica wait for the next
/// snapshot.
pub fn enqueue(server: &mut Server, c: &mut Client) {
    let running = server
        .child
        .as_ref()
        .filter(|child| child.kind == ChildKind::Rdb);
    let target = running.map(|child| child.target);
    let Some(replica) = server.replication.replicas.get(c.reference()) else {
        return;
    };
    let diskless = server.config.repl_diskless_sync && replica.announced.eof;
    match target {
        Some(Target::Disk) => {
            if !join(server, c) {
                log::info!(
                    "Can't attach the replica to the current BGSAVE. Waiting for next BGSAVE for SYNC"
                );
            }
        }
        Some(Target::Replicas) => {
            log::info!("Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC");
        }
        None if diskless && server.config.repl_diskless_sync_delay > 0 => {
            log::info!("Delay next BGSAVE for diskless SYNC");
        }
        None if server.child.is_some() => log::info!(
            "No BGSAVE in progress, but another BG operation is active. BGSAVE for replication delayed"
        ),
        // The child is forked before the loop sleeps, when no command runs.
        None => server.forks.wishes.add(Wish::Sync),
    }
}

/// Lets a replica share the running child's snapshot, if its content and RDB version suit the
/// replica.
fn join(server: &mut Server, c: &mut Client) -> bool {
    let r = c.reference();
    let replicas = &server.replication.replicas;
    let Some(wanted) = replicas.get(r).map(|replica| form_of(&replica.announced)) else {
        return false;
    };
    let offset = match &server.replication.snapshot {
        Some(snapshot)
            if snapshot.form == wanted && matches!(snapshot.way, Way::Disk { useless: false }) =>
        {
            snapshot.offset
        }
        _ => return false,
    };
    if !begin(server, c, offset) {
        return false;
    }
    log::info!("Waiting for end of BGSAVE for SYNC");
    true
}

/// The form of the snapshot for a replica: the content that it requests and the RDB version that it
/// can read.
fn form_of(announced: &Announced) -> Form {
    let valkey = |server| match server >= VALKEY_9 {
        true => rdb::VERSION_VALKEY,
        false => VERSION_FOR_VALKEY_8,
    };
    let version = announced.rdb_version;
    let version = version.or(announced.version.map(valkey));
    Form {
        contents: announced.contents,
        version: version.unwrap_or(VERSION_OF_STRANGERS),
        channel: announced.rdb_channel,
    }
}

/// Whether the running snapshot is sent to replicas while it is created.
pub fn is_being_sent(server: &Server) -> bool {
    let snapshot = server.replication.snapshot.as_ref();
    snapshot.is_some_and(|snapshot| !matches!(snapshot.way, Way::Disk { .. }))
}

/// Once a second: starts a snapshot for replicas if one is due. `repl-diskless-sync-delay` delays
/// the snapshot for further replicas that may share it.
pub fn start_if_due(server: &mut Server) {
    if is_due(server) {
        server.forks.wishes.add(Wish::Sync);
    }
}

fn is_due(server: &Server) -> bool {
    let Some(form) = next_form(server) else {
        return false;
    };
    let config = &server.config;
    let (mut count, mut longest_ms) = (0, 0);
    for (_, since_ms) in waiting(server, form) {
        count += 1;
        longest_ms = longest_ms.max(server.clock.now_ms - since_ms);
    }
    let max = config.repl_diskless_sync_max_replicas;
    let delay_ms = i64::from(config.repl_diskless_sync_delay) * 1000;
    !config.repl_diskless_sync || max > 0 && count >= max || longest_ms >= delay_ms
}

/// The form of the next snapshot: that for the replica that has waited longest.
fn next_form(server: &Server) -> Option<Form> {
    let waits = |replica: &&Replica| matches!(replica.state, State::WaitsForSnapshot { .. });
    let first = server.replication.replicas.iter().find(waits)?;
    Some(form_of(&first.announced))
}

/// The replicas that wait for a snapshot of this form, each with the Unix time in milliseconds
/// since which it waits.
fn waiting(server: &Server, form: Form) -> impl Iterator<Item = (&Replica, i64)> {
    let replicas = server.replication.replicas.iter();
    replicas.filter_map(move |replica| match replica.state {
        State::WaitsForSnapshot { since_ms } if form_of(&replica.announced) == form => {
            Some((replica, since_ms))
        }
        _ => None,
    })
}

/// Forks the child for the next snapshot, when [`Wish::Sync`] is granted. Returns whether a child
/// was started, or none is needed any more.
pub fn start(server: &mut Server) -> bool {
    let Some(form) = next_form(server) else {
        return true;
    };
    if server.replication.snapshot.is_some() {
        return false; // the last bytes of a snapshot are still being sent
    }
    let all_read_marks = waiting(server, form).all(|(replica, _)| replica.announced.eof);
    let wanted = server.config.repl_diskless_sync || form.contents.is_filtered() || form.channel;
    let diskless = wanted && all_read_marks;
    let receivers: Vec<ClientRef> = waiting(server, form).map(|(r, _)| r.client).collect();
    let target = match (diskless, form.channel) {
        (false, _) => "disk",
        (true, false) => "replicas sockets",
        (true, true) => "replicas sockets (rdb-channel)",
    };
    // A snapshot in a file may stay on the disk, so it has a checksum. A snapshot without a file
    // has no checksum, and any snapshot no compression, only if all waiting replicas ask for that.
    // Each replica can also read a snapshot with checksum and compression, so replicas with
    // different requests share a snapshot.
    let unchecked = diskless && waiting(server, form).all(|(r, _)| r.announced.no_checksum);
    let plain = waiting(server, form).all(|(r, _)| r.announced.no_compression);
    let suffix = match unchecked {
        true => " while skipping RDB checksum for this transfer",
        false => "",
    };
    log::info!("Starting BGSAVE for SYNC with target: {target}{suffix}");
    // The fork and the offset of the snapshot must belong to the same moment, so pending changes
    // are propagated first.
    server.end_unit();
    if !server.replication.is_replica() {
        server.replication.stream.forget_db();
    }
    forecast(server, form.channel);
    let offset = server.replication.stream.end();
    let mut options = options_of(server, form);
    options.checksum &= !unchecked;
    options.compress &= !plain;
    let started = match (diskless, form.channel) {
        (true, true) => channels::start(server, &receivers, offset, &options),
        (true, false) => transfer::through_pipe(server, &options)
            .map(|pipe| Way::Pipe(Broadcast::new(pipe, receivers.clone()))),
        (false, _) => {
            background::start_with(server, options).map(|()| Way::Disk { useless: false })
        }
    };
    match started {
        Ok(way) => {
            let announced = matches!(way, Way::Sockets(_));
            server.replication.snapshot = Some(Snapshot { form, offset, way });
            for r in receivers.into_iter().filter(|_| !announced) {
                with_client(server, r, |server, c| {
                    begin(server, c, offset);
                });
            }
        }
        Err(_) if form.channel => {} // the connections of its replicas are closed already
        Err(_) => {
            log::warn!("BGSAVE for replication failed");
            receivers.into_iter().for_each(|r| refuse(server, r));
        }
    }
    true
}

/// Logs, before a snapshot is started, if its replicas will probably lag beyond their limit. With
/// two connections, each replica itself holds up to the hard limit of bytes.
fn forecast(server: &mut Server, two_connections: bool) {
    let limits = replication::limits(server);
    let held = match (two_connections, limits.hard) {
        (false, _) => 0,
        (true, 0) => u64::MAX,
        (true, hard) => hard,
    };
    let rate = server.stats.stream_rate.average();
    let forecast = &mut server.replication.forecast;
    forecast.update(rate, limits, held);
    if forecast.overruns {
        log::warn!(
            "This synchronization will probably fail: the last one took {} ms, in which about {} bytes are written at \
             the present rate, more than client-output-buffer-limit allows for replicas. Raise that limit, or set \
             repl-throttling-enabled.",
            forecast.sync_ms,
            forecast.bytes
        );
    }
}

/// The options for saving a snapshot with this content and RDB version.
fn options_of(server: &Server, form: Form) -> SaveOptions {
    SaveOptions {
        version: form.version,
        contents: Contents {
            keys: !form.contents.without_keys,
            functions: !form.contents.without_functions,
        },
        ..SaveOptions::of(server)
    }
}

/// Calls a closure with a replica's client, if it still exists.
fn with_client(server: &mut Server, r: ClientRef, f: impl FnOnce(&mut Server, &mut Client)) {
    if let Some(mut c) = server.net.clients.take_ref(r) {
        f(server, &mut c);
        server.net.clients.put(c);
    }
}

/// Sends a replica `+FULLRESYNC` with the offset of its snapshot. Returns false if the stream does
/// not have the bytes from the offset on.
fn begin(server: &mut Server, c: &mut Client, offset: u64) -> bool {
    let r = c.reference();
    if !server.replication.attach(r, offset) {
        return false;
    }
    let Some(replica) = server.replication.replicas.get_mut(r) else {
        return false;
    };
    replica.state = State::SnapshotRunning;
    replica.sync_began_ms = server.clock.now_ms;
    if !replica.is_old {
        let text = format!("FULLRESYNC {} {offset}", server.replication.id);
        c.reply.status(&text);
        Net::mark_pending(&mut server.net.pending_write, c);
    }
    true
}

/// Refuses the sync of a replica, because no child could be started.
fn refuse(server: &mut Server, r: ClientRef) {
    with_client(server, r, |server, c| {
        server.replication.remove(r);
        c.clear(flag::REPLICA);
        let error = Error::of("ERR BGSAVE failed, replication can't continue");
        c.reply.error(&error);
        c.set(flag::CLOSE_AFTER_REPLY);
        Net::mark_pending(&mut server.net.pending_write, c);
    });
}

/// Handles the end of a child that saved: replicas may wait for its file, or have received its
/// bytes.
pub fn ended(server: &mut Server, outcome: &Outcome) {
    let way = server.replication.snapshot.as_mut().map(|s| &mut s.way);
    match (way, outcome.target) {
        (Some(Way::Pipe(broadcast)), Target::Replicas) => {
            broadcast.succeeded = Some(outcome.succeeded());
        }
        (Some(Way::Sockets(sockets)), Target::Replicas) => {
            let targets = std::mem::take(&mut sockets.targets);
            server.replication.snapshot = None;
            channels::ended(server, &targets, outcome);
        }
        (Some(Way::Disk { .. }), Target::Disk) => send_files(server, outcome.succeeded()),
        _ => {}
    }
    start_if_due(server);
}

/// Ends a child whose file is for replicas only, when no replica waits for it any more.
pub fn end_useless_child(server: &mut Server) {
    let replication = &mut server.replication;
    let Some(snapshot) = &mut replication.snapshot else {
        return;
    };
    let Way::Disk { useless } = &mut snapshot.way else {
        return;
    };
    let waits = |replica: &Replica| matches!(replica.state, State::SnapshotRunning);
    let wanted = !server.config.save.is_empty() || replication.replicas.iter().any(waits);
    if !wanted && !*useless {
        *useless = true;
        child::kill(server, ChildKind::Rdb);
    }
}

/// Sends the snapshot's file to each replica that waits for it.
fn send_files(server: &mut Server, succeeded: bool) {
    server.replication.snapshot = None;
    server.replication.made_file |= succeeded;
    for r in server.replication.replicas.clients() {
        with_client(server, r, |server, c| send_file(server, c, succeeded));
    }
}

fn send_file(server: &mut Server, c: &mut Client, succeeded: bool) {
    let path = server.config.dbfilename.as_path().to_path_buf();
    let Some(replica) = server.replication.replicas.get_mut(c.reference()) else {
        return;
    };
    if !matches!(replica.state, State::SnapshotRunning) {
        return;
    }
    if !succeeded {
        log::warn!("SYNC failed. BGSAVE child returned an error");
        return Net::close_asap(&mut server.net.close_asap, c);
    }
    let opened = File::open(path).and_then(|file| {
        let size = file.metadata()?.len();
        Ok((file, size))
    });
    match opened {
        Ok((file, size)) => {
            replica.state = State::Receiving(Box::new(Transfer::new(file, size)));
        }
        Err(e) => {
            log::warn!(
                "SYNC failed. Can't open/stat DB after BGSAVE: {}",
                sys::error_text(&e)
            );
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
}

/// Called when all bytes of a pipe have been sent and its child has ended. Each replica gets the
/// stream when it reports that it has loaded the snapshot; some replicas may have reported this
/// already.
pub fn broadcast_done(server: &mut Server, receivers: Vec<Receiver>, succeeded: bool) {
    server.replication.snapshot = None;
    for r in receivers {
        with_client(server, r.client, |server, c| {
            let Some(replica) = server.replication.replicas.get_mut(r.client) else {
                return;
            };
            if !succeeded {
                log::warn!("SYNC failed. BGSAVE child returned an error");
                return Net::close_asap(&mut server.net.close_asap, c);
            }
            replica.waits_for_ack = !r.loaded;
            log::info!(
                "Streamed RDB transfer with replica {} succeeded (socket). Waiting for REPLCONF ACK from replica to enable \
                 streaming",
                replica.name()
            );
            if !primary::put_online(server, c) {
                Net::close_asap(&mut server.net.close_asap, c);
            }
        });
    }
    start_if_due(server);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server_with;

    /// A replica may load a small snapshot, and acknowledge it, before the child that writes the
    /// snapshot has ended. Such an early acknowledgement must count, since the next one would come
    /// a second later; but it must not count if more bytes of the snapshot were sent after it.
    #[test]
    fn an_acknowledgement_of_all_bytes_counts_before_the_child_has_ended() {
        for last_bytes in [false, true] {
            let mut server = server_with(1);
            crate::replication::ensure_backlog(&mut server);
            let c = server.net.clients.get_mut(0).expect("a client");
            let r = c.reference();
            let mut replica = Replica::new(r, Announced::default(), "", 0);
            replica.state = State::SnapshotRunning;
            server.replication.add(replica);
            let (pipe, _) = std::io::pipe().expect("a pipe");
            server.replication.snapshot = Some(Snapshot {
                form: form_of(&Announced::default()),
                offset: 0,
                way: Way::Pipe(Broadcast::new(pipe, vec![r])),
            });
            assert!(primary::acknowledged(&mut server, r, 0, None));
            let Some(Snapshot {
                way: Way::Pipe(broadcast),
                ..
            }) = &mut server.replication.snapshot
            else {
                panic!("it runs");
            };
            if last_bytes {
                broadcast.goes_on();
            }
            let receivers = std::mem::take(&mut broadcast.receivers);
            broadcast_done(&mut server, receivers, true);
            let replica = server.replication.replicas.get(r).expect("a replica");
            assert_eq!(replica.is_streaming(), !last_bytes);
        }
    }
}
