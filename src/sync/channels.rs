//! Full syncs over two connections, on the primary: the child writes the snapshot to one of them,
//! while the other one receives the stream already.
//!
//! ```text
//!              Valkey's dialect                           Redis's dialect
//!   main       PSYNC ? -1 -> +DUALCHANNELSYNC             PSYNC ? -1 -> +RDBCHANNELSYNC <its id>
//!   snapshot   REPLCONF rdb-channel 1                     REPLCONF main-ch-client-id <its id>
//!              SYNC -> $ENDOFF:<offset> <history> ..      PSYNC ? -1 -> +FULLRESYNC <history> <offset>
//!              a pin in the stream, the child starts      main: the stream from here, the child starts
//!   main       REPLCONF set-rdb-client-id
//!              PSYNC <history> <offset + 1> -> +CONTINUE
//!   main       the first REPLCONF ACK: the snapshot is loaded, it is online
//! ```
//!
//! A pin holds the stream for a replica whose main connection has not come. It is dropped when the
//! child has failed for its connection, when the stream behind it exceeds the replica's output
//! limit, and some time (the grace period) after the snapshot has been sent.
//!
//! A snapshot's connection may be closed by the replica before the end of the child is seen, since
//! the replica has everything then. So only the child's result tells whether it was complete.
//!
//! **Invariant:** from the fork on, nothing but the child writes to a snapshot's connection.

use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::client::table::Net;
use crate::client::{Client, ClientRef};
use crate::clients::output_limit;
use crate::persist::child::{self, Kind, Outcome};
use crate::persist::rdb::save::SaveOptions;
use crate::persist::rdb::transfer::{self, SOCKETS_MAX};
use crate::replication::psync::{self, Dialect, Offered};
use crate::replication::replicas::{Channel, Replica, State};
use crate::replication::snapshot::{Sockets, Target, Way};
use crate::state::Server;

/// The grace period, unless DEBUG sets another one.
const GRACE_S: i64 = 60;
/// The time after which a child without connections is ended. If it is about to succeed, as its
/// replicas closed the connections because they have everything, it needs less.
const USELESS_MS: i64 = 1000;

/// The dialect in which a replica that needs a snapshot gets it over a second connection; `None`:
/// over this one.
pub fn dialect(server: &Server, replica: &Replica) -> Option<Dialect> {
    let config = &server.config;
    let offered = Offered {
        valkey: config.dual_channel_replication_enabled,
        redis: config.repl_rdb_channel,
        diskless: config.repl_diskless_sync,
    };
    let dialect = psync::two_channels(&replica.announced, offered);
    if offered.valkey && replica.announced.dual_channel && !offered.diskless {
        log::info!("Dual channel capability ignored: repl-diskless-sync disabled");
    }
    match dialect {
        Some(Dialect::Valkey) => log::info!(
            "Dual channel replication: Replica {} is capable of dual channel synchronization, and partial sync isn't \
             possible. Full sync will continue with dedicated RDB channel.",
            replica.name()
        ),
        Some(Dialect::Redis) => log::info!(
            "Replica {} is capable of rdb channel synchronization, and partial sync isn't possible. Full sync will \
             continue with dedicated rdb channel.",
            replica.name()
        ),
        None => {}
    }
    dialect
}

/// The connections of these replicas to which the child writes: each was sent the offset at which
/// the snapshot ends, and the stream behind it is held. The others are closed.
fn prepare(server: &mut Server, receivers: &[ClientRef], offset: u64) -> Vec<(Target, OwnedFd)> {
    let mut prepared = Vec::new();
    for &r in receivers.iter().take(SOCKETS_MAX) {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        let sockets = announce(server, &mut c, offset).then(|| duplicates(&c));
        match sockets.flatten() {
            Some((socket, for_child)) => prepared.push((
                Target {
                    client: r,
                    socket: Some(socket),
                },
                for_child,
            )),
            None => Net::close_asap(&mut server.net.close_asap, &mut c),
        }
        server.net.clients.put(c);
    }
    prepared
}

fn duplicates(c: &Client) -> Option<(TcpStream, OwnedFd)> {
    let conn = c.conn.as_ref()?;
    let first = conn.duplicate().ok()?;
    let second = conn.duplicate().ok()?;
    // Of any kind: `shutdown` is all that is called.
    Some((TcpStream::from(first), second))
}

/// Sends a replica the offset at which its snapshot ends, and holds the stream behind it.
fn announce(server: &mut Server, c: &mut Client, offset: u64) -> bool {
    let replication = &mut server.replication;
    let Some(replica) = replication.replicas.get_mut(c.reference()) else {
        return false;
    };
    replica.state = State::SnapshotRunning;
    let name = replica.name();
    let line = match replica.announced.main_client {
        Some(main) => {
            if !begin_stream(server, main, c.id, offset) {
                log::warn!(
                    "Starting to deliver RDB to replica {name} but it has no associated main channel"
                );
                return false;
            }
            format!("+FULLRESYNC {} {offset}\r\n", server.replication.id)
        }
        None => {
            log_pin(server, c.id, &name, offset);
            if !server.replication.stream.pin(c.id, offset, i64::MAX) {
                return false;
            }
            let db = server.replication.stream.selected_db().unwrap_or(0);
            let id = &server.replication.id;
            format!("$ENDOFF:{offset} {id} {db} {}\r\n", c.id)
        }
    };
    c.reply.raw(line.as_bytes());
    send_now(c)
}

fn log_pin(server: &Server, id: u64, name: &str, offset: u64) {
    let stream = &server.replication.stream;
    let held = match stream.histlen() {
        0 => "no repl-backlog to track",
        _ => "tracking repl-backlog tail",
    };
    log::info!(
        "Dual channel replication: Sending to replica {name} RDB end offset {offset} and client-id {id}"
    );
    log::debug!(
        "Dual channel replication: Add rdb replica {name} to waiting psync, with cid {id}, {held} "
    );
    if stream.histlen() == 0 {
        log::debug!("Dual channel replication: Attach replica rdb client {id} to repl buf block");
    }
}

/// Redis's dialect: the main connection of a replica receives the stream from this offset on.
fn begin_stream(server: &mut Server, main: u64, snapshot: u64, offset: u64) -> bool {
    let replicas = &mut server.replication.replicas;
    let Some(r) = replicas.of_id(main).map(|replica| replica.client) else {
        return false;
    };
    match replicas.get_mut(r) {
        Some(replica) if matches!(replica.state, State::WaitsForChannel { .. }) => {
            replica.state = State::Loading;
            replica.channel = Channel::Main {
                snapshot: Some(snapshot),
                dialect: Dialect::Redis,
            };
        }
        _ => return false,
    }
    server.replication.attach(r, offset)
}

/// Sends the replies of a client without the loop: its socket is about to be the child's. They are
/// short, so a socket that does not take them is not one that a replica reads.
fn send_now(c: &mut Client) -> bool {
    let Client {
        conn: Some(conn),
        reply,
        ..
    } = c
    else {
        return false;
    };
    while let Some(bytes) = reply.single_piece() {
        match conn.write(bytes) {
            Ok(sent) if sent.bytes > 0 => reply.advance(sent.bytes),
            _ => break,
        }
    }
    reply.is_empty()
}

/// Forks a child that writes to the connections of these replicas.
pub fn start(
    server: &mut Server,
    receivers: &[ClientRef],
    offset: u64,
    options: &SaveOptions,
) -> std::io::Result<Way> {
    let prepared = prepare(server, receivers, offset);
    let (targets, sockets): (Vec<Target>, Vec<OwnedFd>) = prepared.into_iter().unzip();
    if targets.is_empty() {
        return Err(std::io::ErrorKind::NotConnected.into());
    }
    let timeout = Duration::from_secs(server.config.repl_timeout.into());
    if let Err(e) = transfer::to_sockets(server, sockets, timeout, options) {
        targets
            .iter()
            .for_each(|target| give_up(server, target.client));
        return Err(e);
    }
    Ok(Way::Sockets(Sockets {
        targets,
        useless_since_ms: None,
    }))
}

/// The snapshot of this client can't be completed: closes both connections of its replica.
fn give_up(server: &mut Server, snapshot: ClientRef) {
    server.replication.stream.unpin(snapshot.id);
    let main = server.replication.replicas.main_of(snapshot.id);
    for r in [Some(snapshot), main].into_iter().flatten() {
        if let Some(c) = server.net.clients.resolve(r) {
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
}

/// The child has ended: its replicas have their snapshots, or must begin again.
pub fn ended(server: &mut Server, targets: &[Target], outcome: &Outcome) {
    for (at, target) in targets.iter().enumerate() {
        let failed = outcome.failed_sockets & 1 << at != 0;
        match outcome.succeeded() && !failed {
            true => delivered(server, target.client),
            false => give_up(server, target.client),
        }
    }
}

/// All bytes of a snapshot have been sent. Its connection is left open, since closing it could
/// discard bytes that the replica has not read yet. The replica closes it.
fn delivered(server: &mut Server, r: ClientRef) {
    let now_ms = server.clock.now_ms;
    let grace_ms = grace_s(server) * 1000;
    let replication = &mut server.replication;
    replication.stream.keep_pin(r.id, now_ms + grace_ms);
    if let Some(replica) = replication.replicas.get_mut(r) {
        replica.state = State::Delivered;
        log::info!(
            "Streamed RDB transfer with replica {} succeeded (socket). Its main channel goes on.",
            replica.name()
        );
    } else if replication.stream.pin_lag(r.id).is_some() {
        log::debug!(
            "Dual channel replication: Postpone RDB client id={} free for {} seconds",
            r.id,
            grace_ms / 1000
        );
    }
}

fn grace_s(server: &Server) -> i64 {
    server.debug.rdb_client_grace_s.unwrap_or(GRACE_S)
}

/// Valkey's dialect: the main connection of a replica has requested what follows its snapshot, and
/// is attached to the stream.
pub fn main_attached(server: &mut Server, r: ClientRef) {
    let replication = &mut server.replication;
    let Some(replica) = replication.replicas.get_mut(r) else {
        return;
    };
    let Some(snapshot) = replica.announced.rdb_client else {
        return;
    };
    let name = replica.name();
    // Without a pin, the snapshot was given up, and this is an ordinary partial resync.
    if replication.stream.unpin(snapshot) {
        replica.state = State::Loading;
        replica.channel = Channel::Main {
            snapshot: Some(snapshot),
            dialect: Dialect::Valkey,
        };
        log::debug!(
            "Dual channel replication: Remove psync waiting replica {name} with cid {snapshot} from the pins"
        );
    }
}

/// Before the loop sleeps: shuts down connections whose clients are gone, and drops pins behind
/// which too much of the stream has collected.
pub fn follow(server: &mut Server) {
    if let Some(snapshot) = &mut server.replication.snapshot
        && let Way::Sockets(sockets) = &mut snapshot.way
    {
        let replicas = &server.replication.replicas;
        for target in &mut sockets.targets {
            if replicas.get(target.client).is_none()
                && let Some(socket) = target.socket.take()
            {
                // It may be closed by the other side already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        let all_gone = sockets.targets.iter().all(|t| t.socket.is_none());
        if all_gone && sockets.useless_since_ms.is_none() {
            sockets.useless_since_ms = Some(server.clock.now_ms);
        }
    }
    drop_long_pins(server);
}

fn drop_long_pins(server: &mut Server) {
    if server.replication.stream.pins() == 0 {
        return;
    }
    for id in server.replication.stream.pin_ids() {
        let lag = server.replication.stream.pin_lag(id).unwrap_or(0);
        if !output_limit::exceeds_replica_limit(server, lag) {
            continue;
        }
        log::warn!(
            "Client id={id} (rdb channel) scheduled to be closed ASAP for overcoming of output buffer limits."
        );
        server.stats.output_buffer_limit_disconnections += 1;
        drop_pin(server, id);
    }
}

/// Drops a pin, and closes the connection for which it was kept.
fn drop_pin(server: &mut Server, id: u64) {
    server.replication.stream.unpin(id);
    let client = server.net.clients.reference_of(id);
    if let Some(c) = client.and_then(|r| server.net.clients.resolve(r)) {
        Net::close_asap(&mut server.net.close_asap, c);
    }
}

/// The cron's step: ends the grace periods, the waits for a second connection, and a child that no
/// replica reads.
pub fn cron(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    for id in server.replication.stream.expire_pins(now_ms) {
        log::info!(
            "Dual channel replication: Replica main channel failed to establish PSYNC within the grace period ({} \
             seconds). Freeing RDB client {id}.",
            grace_s(server)
        );
        drop_pin(server, id);
    }
    end_useless_child(server);
}

fn end_useless_child(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    let Some(snapshot) = &mut server.replication.snapshot else {
        return;
    };
    let Way::Sockets(sockets) = &mut snapshot.way else {
        return;
    };
    let useless = |since_ms: i64| now_ms - since_ms >= USELESS_MS;
    if sockets.useless_since_ms.is_some_and(useless) {
        sockets.useless_since_ms = Some(i64::MAX); // once
        log::warn!("Background RDB transfer error: no replica is left, its child is ended");
        child::kill(server, Kind::Rdb);
    }
}
