//! Full syncs over two connections, on the primary: the child writes the snapshot to one
//! connection, while the other connection already receives the stream.
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
//! A pin keeps the part of the stream that follows a snapshot, for a replica whose main connection
//! has not requested it yet. A pin is dropped when the child can't write to the snapshot's
//! connection, when the kept part exceeds the replica's output limit, and when the grace period
//! after the end of the snapshot is over.
//!
//! A replica closes the snapshot's connection when it has the whole snapshot, which may be before
//! this server notices the end of the child. So only the child's result says whether the snapshot
//! was complete.
//!
//! **Invariant:** from the fork on, nothing but the child writes to a snapshot's connection.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::client::table::Net;
use crate::client::{Client, ClientRef};
use crate::clients::output_limit;
use crate::connection::Connection;
use crate::persist::child::{self, ChildKind, Outcome};
use crate::persist::rdb::save::SaveOptions;
use crate::persist::rdb::transfer::{self, SOCKETS_MAX};
use crate::replication::psync::{self, Dialect, Offered};
use crate::replication::replicas::{Channel, Replica, State};
use crate::replication::snapshot::{Sockets, Target, Way};
use crate::state::Server;

/// The grace period after the end of a snapshot in seconds, unless DEBUG sets another one.
pub const GRACE_S: i64 = 60;
/// The time in milliseconds after which a child whose connections are all closed is killed. A child
/// whose replicas have closed their connections because they have the whole snapshot ends earlier
/// by itself.
const USELESS_MS: i64 = 1000;

/// The dialect for a replica that gets its snapshot over a second connection; `None` if the
/// snapshot is sent over the same connection.
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

/// Prepares the connections to which the child writes: each replica is sent the offset at which the
/// snapshot ends, and the stream from there on is kept. Connections that fail are closed.
fn prepare(server: &mut Server, receivers: &[ClientRef], offset: u64) -> Vec<(Target, Connection)> {
    let mut prepared = Vec::new();
    for &r in receivers.iter().take(SOCKETS_MAX) {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        let sockets = announce(server, &mut c, offset).then(|| lend(&mut c));
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

fn lend(c: &mut Client) -> Option<(TcpStream, Connection)> {
    let conn = c.conn.as_mut()?;
    // The type TcpStream is used for any kind of socket: only `shutdown` is called.
    let socket = TcpStream::from(conn.duplicate().ok()?);
    Some((socket, conn.lend().ok()?))
}

/// Sends a replica the offset at which its snapshot ends, and keeps the stream from there on.
fn announce(server: &mut Server, c: &mut Client, offset: u64) -> bool {
    let now_ms = server.clock.now_ms;
    let replication = &mut server.replication;
    let Some(replica) = replication.replicas.get_mut(c.reference()) else {
        return false;
    };
    replica.state = State::SnapshotRunning;
    replica.sync_began_ms = now_ms;
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

/// Sends the main connection of a replica the stream from this offset on (Redis's dialect).
fn begin_stream(server: &mut Server, main: u64, snapshot: u64, offset: u64) -> bool {
    let replicas = &mut server.replication.replicas;
    let Some(r) = replicas.of_id(main).map(|replica| replica.client) else {
        return false;
    };
    match replicas.get_mut(r) {
        Some(replica) if matches!(replica.state, State::WaitsForChannel { .. }) => {
            replica.state = State::Loading;
            replica.sync_began_ms = server.clock.now_ms;
            replica.channel = Channel::Main {
                snapshot: Some(snapshot),
                dialect: Dialect::Redis,
            };
        }
        _ => return false,
    }
    server.replication.attach(r, offset)
}

/// Sends the replies of a client at once, since the child is about to use its socket. The replies
/// are short: if the socket does not accept them, the replica has stopped reading.
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
    let (targets, sockets): (Vec<Target>, Vec<Connection>) = prepared.into_iter().unzip();
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

/// Gives up a snapshot that can't be completed: closes both connections of the replica.
fn give_up(server: &mut Server, snapshot: ClientRef) {
    server.replication.stream.unpin(snapshot.id);
    let main = server.replication.replicas.main_of(snapshot.id);
    for r in [Some(snapshot), main].into_iter().flatten() {
        if let Some(c) = server.net.clients.resolve(r) {
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
}

/// Handles the end of the child: its replicas have their snapshots, or their syncs have failed.
pub fn ended(server: &mut Server, targets: &[Target], outcome: &Outcome) {
    for (at, target) in targets.iter().enumerate() {
        let failed = outcome.failed_sockets & 1 << at != 0;
        match outcome.succeeded() && !failed {
            true => delivered(server, target.client),
            false => give_up(server, target.client),
        }
    }
}

/// Handles a snapshot of which all bytes have been sent. The snapshot's connection is left open,
/// since closing it could discard bytes that the replica has not read yet. The replica closes the
/// connection.
fn delivered(server: &mut Server, r: ClientRef) {
    let now_ms = server.clock.now_ms;
    let grace_ms = grace_s(server) * 1000;
    let replication = &mut server.replication;
    replication.stream.keep_pin(r.id, now_ms + grace_ms);
    if let Some(replica) = replication.replicas.get_mut(r) {
        replica.state = State::Delivered;
        replica.ack_ms = now_ms;
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

/// Notes that the main connection of a replica has requested the stream that follows its snapshot
/// (Valkey's dialect). The main connection gets the stream from now on.
pub fn main_attached(server: &mut Server, r: ClientRef) {
    let replication = &mut server.replication;
    let announced = replication.replicas.get(r).map(|main| &main.announced);
    let Some(snapshot) = announced.and_then(|announced| announced.rdb_client) else {
        return;
    };
    let began_ms = replication.replicas.of_id(snapshot);
    let began_ms = began_ms.map_or(0, |channel| channel.sync_began_ms);
    let Some(replica) = replication.replicas.get_mut(r) else {
        return;
    };
    let name = replica.name();
    // If there is no pin, the snapshot was given up, and this is an ordinary partial resync.
    if replication.stream.unpin(snapshot) {
        replica.state = State::Loading;
        replica.sync_began_ms = began_ms;
        replica.channel = Channel::Main {
            snapshot: Some(snapshot),
            dialect: Dialect::Valkey,
        };
        log::debug!(
            "Dual channel replication: Remove psync waiting replica {name} with cid {snapshot} from the pins"
        );
    }
}

/// Before the loop sleeps: shuts down connections of closed clients, and drops pins that keep more
/// of the stream than the output limit allows.
pub fn follow(server: &mut Server) {
    if let Some(snapshot) = &mut server.replication.snapshot
        && let Way::Sockets(sockets) = &mut snapshot.way
    {
        let replicas = &server.replication.replicas;
        for target in &mut sockets.targets {
            if replicas.get(target.client).is_none()
                && let Some(socket) = target.socket.take()
            {
                // The peer may have closed the connection already, so an error is ignored.
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
        if let Some(r) = server.net.clients.reference_of(id) {
            server.replica_overran(r);
        }
        drop_pin(server, id);
    }
}

/// Drops a pin of the stream, and closes the snapshot's connection for which the pin was kept.
fn drop_pin(server: &mut Server, id: u64) {
    server.replication.stream.unpin(id);
    let client = server.net.clients.reference_of(id);
    if let Some(c) = client.and_then(|r| server.net.clients.resolve(r)) {
        Net::close_asap(&mut server.net.close_asap, c);
    }
}

/// Once a second: drops pins of the stream whose grace period is over, and kills a child that no
/// replica reads.
pub fn cron(server: &mut Server) {
    let now_ms = server.clock.now_ms;
    for id in server.replication.stream.expire_pins(now_ms) {
        log::info!(
            "Dual channel replication: Replica main channel failed to establish PSYNC within the grace period ({} \
             seconds). Freeing RDB client {id}.",
            grace_s(server)
        );
        server.stats.sync_pins_expired += 1;
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
        sockets.useless_since_ms = Some(i64::MAX); // so that the child is killed only once
        log::warn!("Background RDB transfer error: no replica is left, its child is ended");
        child::kill(server, ChildKind::Rdb);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::client::flag;
    use crate::connection::Connection;
    use crate::execute::disconnect;
    use crate::sync::snapshot;
    use crate::testing::{say, server_with};

    const MAIN: u32 = 0;
    const SNAPSHOT: u32 = 1;
    const WRITER: u32 = 2;

    /// A primary with two clients, each with a socket pair; the test has the other end of each
    /// pair.
    fn primary() -> (Server, UnixStream, UnixStream) {
        let mut server = server_with(3);
        server.config.dual_channel_replication_enabled = true;
        server.config.repl_diskless_sync_delay = 0;
        server.config.save.clear();
        server.forks.replication = Some(snapshot::HOOKS);
        let ends = [MAIN, SNAPSHOT].map(|slot| {
            let (socket, end) = UnixStream::pair().expect("sockets");
            socket.set_nonblocking(true).expect("a flag");
            let c = server.net.clients.get_mut(slot).expect("a client");
            c.conn = Some(Connection::unix(socket));
            end
        });
        let [main, snapshot] = ends;
        (server, main, snapshot)
    }

    /// The replies to lines that a client sends one after the other.
    fn dialogue(server: &mut Server, slot: u32, lines: &[&str]) -> String {
        let replies = lines.iter().map(|line| say(server, slot, &[line]));
        replies.collect()
    }

    /// Sends the requests of a full sync in Valkey's dialect, up to the fork of the child.
    fn begin(server: &mut Server) {
        let lines = [
            "REPLCONF capa eof capa psync2 capa dual-channel",
            "PSYNC ? -1",
        ];
        assert_eq!(
            dialogue(server, MAIN, &lines),
            "+OK\r\n+DUALCHANNELSYNC\r\n"
        );
        let lines = ["REPLCONF capa eof rdb-only 1 rdb-channel 1", "SYNC"];
        assert_eq!(dialogue(server, SNAPSHOT, &lines), "+OK\r\n");
        child::start_next(server);
        assert!(server.child.is_some());
    }

    /// Sends the commands that the main connection of a replica sends after the fork. Returns the
    /// reply to PSYNC.
    fn attach(server: &mut Server) -> String {
        let id = id_of(server, SNAPSHOT);
        let line = format!("REPLCONF set-rdb-client-id {id}");
        assert_eq!(say(server, MAIN, &[&line]), "+OK\r\n");
        let line = format!("PSYNC {} 1", server.replication.id);
        say(server, MAIN, &[&line])
    }

    fn id_of(server: &Server, slot: u32) -> u64 {
        server.net.clients.get(slot).expect("a client").id
    }

    /// The next bytes that a replica receives.
    fn received(end: &mut UnixStream, len: usize) -> String {
        let mut bytes = vec![0; len];
        end.read_exact(&mut bytes).expect("bytes");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn end_child(server: &mut Server) {
        while server.child.is_some() {
            child::reap(server);
            std::thread::yield_now();
        }
    }

    fn states(server: &Server) -> Vec<(&'static str, &'static str)> {
        let replicas = server.replication.replicas.iter();
        replicas.map(|r| (r.type_name(), r.state_name())).collect()
    }

    fn is_closing(server: &Server, slot: u32) -> bool {
        let c = server.net.clients.get(slot).expect("a client");
        c.has(flag::CLOSE_ASAP)
    }

    #[test]
    fn the_main_connection_claims_what_follows_the_snapshot() {
        let (mut server, _main, mut snapshot) = primary();
        begin(&mut server);
        assert_eq!(server.replication.stream.pins(), 1);
        assert_eq!(
            (server.stats.sync_full, server.stats.sync_partial_err),
            (1, 0)
        );
        say(&mut server, WRITER, &["SET k v"]);
        assert_eq!(states(&server), [("rdb-channel", "wait_bgsave")]);
        let id = server.replication.id.clone();
        assert_eq!(attach(&mut server), format!("+CONTINUE {id}\r\n"));
        assert_eq!(server.replication.stream.pins(), 0);
        assert_eq!(server.stats.sync_partial_ok, 1);
        end_child(&mut server);
        let expected = [
            ("rdb-channel", "rdb_transmitted"),
            ("main-channel", "bg_transfer"),
        ];
        assert_eq!(states(&server), expected);
        let line = format!("$ENDOFF:0 {id} 0 {}\r\n$EOF:", id_of(&server, SNAPSHOT));
        assert_eq!(received(&mut snapshot, line.len()), line);
        let replica = server.net.clients.get(MAIN).expect("a client").reference();
        assert!(server.replication.lag(replica) > 0);
        say(&mut server, MAIN, &["REPLCONF ACK 0"]);
        assert_eq!(states(&server)[1], ("replica", "online"));
        // Commands set the server's clock to the real time, so the test takes the time from the
        // acknowledgements.
        let acknowledged = server.replication.replicas.iter().map(|r| r.ack_ms);
        server.clock.now_ms = acknowledged.min().expect("two replicas");
        crate::sync::cron::cron(&mut server);
        assert!(!is_closing(&server, SNAPSHOT), "the replica may still read");
        server.clock.now_ms += GRACE_S * 1000 + 1;
        crate::sync::cron::cron(&mut server);
        assert!(is_closing(&server, SNAPSHOT));
    }

    #[test]
    fn a_pin_ends_with_the_grace_period() {
        let (mut server, _main, _snapshot) = primary();
        server.debug.rdb_client_grace_s = Some(2);
        begin(&mut server);
        server.clock.now_ms += 100_000;
        cron(&mut server);
        assert_eq!(server.replication.stream.pins(), 1, "the child runs");
        end_child(&mut server);
        server.clock.now_ms += 1999;
        cron(&mut server);
        assert_eq!(server.replication.stream.pins(), 1);
        server.clock.now_ms += 1;
        cron(&mut server);
        assert_eq!(server.replication.stream.pins(), 0);
        assert_eq!(server.stats.sync_pins_expired, 1);
        assert!(is_closing(&server, SNAPSHOT));
        let line = format!("REPLCONF set-rdb-client-id {}", id_of(&server, SNAPSHOT));
        let reply = say(&mut server, MAIN, &[&line]);
        assert!(
            reply.starts_with("-ERR Unrecognized RDB client id"),
            "{reply}"
        );
    }

    #[test]
    fn a_pin_ends_when_too_much_of_the_stream_is_behind_it() {
        let (mut server, _main, _snapshot) = primary();
        server.config.repl_backlog_size = 16 * 1024;
        let class = crate::config::ClientClass::Replica as usize;
        server.config.client_output_buffer_limit[class].hard = 20_000;
        begin(&mut server);
        follow(&mut server);
        let line = format!("SET k {}", "v".repeat(19_000));
        say(&mut server, WRITER, &[&line]);
        follow(&mut server);
        assert_eq!(server.replication.stream.pins(), 1);
        say(&mut server, WRITER, &[&line]);
        follow(&mut server);
        assert_eq!(server.replication.stream.pins(), 0);
        assert_eq!(server.stats.output_buffer_limit_disconnections, 1);
        assert!(is_closing(&server, SNAPSHOT));
        child::kill_and_wait(&mut server, ChildKind::Rdb);
    }

    /// CLIENT KILL closes the snapshot's connection: the sync fails.
    #[test]
    fn a_snapshot_that_fails_ends_both_connections() {
        let (mut server, _main, _snapshot) = primary();
        server.config.rdb_key_save_delay = 60_000_000;
        say(&mut server, WRITER, &["SET k v"]);
        begin(&mut server);
        attach(&mut server);
        let mut c = server.net.clients.take(SNAPSHOT).expect("a client");
        disconnect::unlink(&mut server, &mut c);
        drop(c);
        follow(&mut server);
        assert!(!is_closing(&server, MAIN), "the snapshot may be complete");
        server.clock.now_ms += USELESS_MS;
        cron(&mut server);
        end_child(&mut server);
        assert!(is_closing(&server, MAIN) && server.replication.snapshot.is_none());
    }

    #[test]
    fn the_loss_of_the_main_connection_ends_the_other() {
        let (mut server, _main, _snapshot) = primary();
        begin(&mut server);
        attach(&mut server);
        let mut c = server.net.clients.take(MAIN).expect("a client");
        disconnect::unlink(&mut server, &mut c);
        drop(c);
        assert!(is_closing(&server, SNAPSHOT));
        end_child(&mut server);
    }

    #[test]
    fn in_redis_s_dialect_the_stream_begins_by_itself() {
        let (mut server, _main, mut snapshot) = primary();
        let id = id_of(&server, MAIN);
        let lines = ["REPLCONF capa eof capa rdb-channel-repl", "PSYNC ? -1"];
        let reply = dialogue(&mut server, MAIN, &lines);
        assert_eq!(reply, format!("+OK\r\n+RDBCHANNELSYNC {id}\r\n"));
        assert_eq!(states(&server), [("main-channel", "wait_bgsave")]);
        let line = format!("REPLCONF capa eof rdb-only 1 rdb-channel 1 main-ch-client-id {id}");
        assert_eq!(
            dialogue(&mut server, SNAPSHOT, &[&line, "PSYNC ? -1"]),
            "+OK\r\n"
        );
        assert_eq!(server.stats.sync_full, 1);
        child::start_next(&mut server);
        assert_eq!(states(&server)[0], ("main-channel", "send_bulk_and_stream"));
        say(&mut server, WRITER, &["SET k v"]);
        let main = server.net.clients.get(MAIN).expect("a client").reference();
        assert!(server.replication.lag(main) > 0);
        end_child(&mut server);
        let line = format!("+FULLRESYNC {} 0\r\n$EOF:", server.replication.id);
        assert_eq!(received(&mut snapshot, line.len()), line);
        say(&mut server, MAIN, &["REPLCONF ACK 0"]);
        assert_eq!(states(&server)[0], ("replica", "online"));
    }
}
