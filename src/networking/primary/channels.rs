//! A full sync over two connections, on the replica: the snapshot comes over the second connection,
//! while the bytes of the replication stream that arrive on the main connection are collected.
//!
//! ```text
//!   +DUALCHANNELSYNC (Valkey)                          +RDBCHANNELSYNC <id> (Redis)
//!     │ second: AUTH, REPLCONF, SYNC                     │ main: collects from now on
//!     v   $ENDOFF:<offset> <history> ..                  │ second: AUTH, REPLCONF, PSYNC ? -1
//!   second: receive.rs                                   v   +FULLRESYNC <history> <offset>
//!   main: REPLCONF set-rdb-client-id, PSYNC            second: receive.rs
//!     v   +CONTINUE
//!   main: collects
//!                the snapshot is loaded: the second connection is closed
//!                the main one becomes the client that applies the stream, and
//!                what was collected is applied, a piece in each turn
//! ```
//!
//! The handlers of the two connections also run in nested turns, while a snapshot is loaded. So
//! these handlers only store the bytes that arrive and record which connection has ended; the
//! stored bytes are applied after the load, outside of nested turns.
//!
//! **Invariant:** the bytes of the replication stream are applied in their order: while collected
//! bytes are left, nothing is read from the main connection.
//! **Limit:** at most `replica-full-sync-buffer-limit` bytes of the stream are collected; after
//! that the main connection is not read, and further bytes wait at the primary.

use ae::{Class, EventLoop, Io, Mask, Token};

use super::{fail, handshake, receive, stream_from};
use crate::client::{ClientRef, flag};
use crate::connection::Connection;
use crate::connection::connect::source_address;
use crate::link::{Action, Errors, Expect, Failure, Plan, Reply, Step, Unasked};
use crate::networking::link::{self, LinkId, Taken, Target};
use crate::networking::query;
use crate::persist::rdb;
use crate::replication::psync::Dialect;
use crate::replication::two_channels::{End, Sync};
use crate::replication::upstream::Phase;
use crate::state::Server;
use crate::sys::{self, process};
use crate::texts::Words;
use crate::util::quote::printable;

// The tags of the requests on the second connection, by which their replies are identified.
const AUTH: u32 = 0;
const ANNOUNCE: u32 = 1;
const VERSION: u32 = 2;
const REQUEST: u32 = 3;

/// The maximum number of bytes of one read from the main connection.
const READ_BYTES: usize = 16 * 1024;
/// The maximum number of bytes of a primary's reply that are logged.
const SHOWN_MAX: usize = 256;

/// The main connection to the primary while the bytes of the replication stream are collected.
pub struct Main {
    conn: Connection,
    token: Token,
    /// Whether `collect_handler` has stopped reading because the limit of collected bytes was
    /// reached.
    stopped: bool,
}

/// The connections of a full sync over two connections.
#[derive(Default)]
pub struct Channels {
    /// The state of the sync; `None` if there is no sync, or a sync over one connection.
    sync: Option<Sync>,
    /// The link on the second connection, up to the beginning of the snapshot.
    pub second: Option<LinkId>,
    main: Option<Box<Main>>,
}

impl Channels {
    /// Closes the main connection, and returns the link of the second one, which the caller must
    /// close. The bytes of the stream that were collected are dropped by the next sync.
    pub fn close(&mut self, el: &mut EventLoop<Server>) -> Option<LinkId> {
        if let Some(main) = self.main.take() {
            el.remove_file(main.token);
        }
        self.sync = None;
        self.second.take()
    }
}

/// Opens the second connection after a reply to PSYNC that demands a sync over two connections. In
/// Redis's dialect, `main` is the id that the primary has given to the main connection.
pub fn begin(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    id: LinkId,
    dialect: Dialect,
    main: &str,
) {
    log::info!(
        "{}PSYNC is not possible, initialize RDB channel.",
        prefix(dialect)
    );
    let Some(upstream) = &mut server.replication.upstream else {
        return;
    };
    upstream.collected.clear();
    let (host, port) = (upstream.host.clone(), upstream.port);
    server.primary_link.channels.sync = Some(Sync {
        dialect,
        loaded: false,
        lost: false,
    });
    if dialect == Dialect::Redis {
        server.primary_link.link = None;
        match link::take(el, server, id) {
            Some(taken) => collect_from(el, server, taken),
            None => return fail(el, server),
        }
    }
    if server.debug.stops_before_rdb_channel() {
        process::stop();
    }
    let plan = plan(server, dialect, main);
    let target = Target {
        host: &host,
        port,
        source: source_address(&server.config),
        tls: server.config.tls_replication,
    };
    let second = link::open(el, server, &target, plan, on_second);
    server.primary_link.channels.second = Some(second);
}

fn prefix(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Valkey => "Dual channel replication: ",
        Dialect::Redis => "",
    }
}

/// The steps of the handshake on the second connection, up to the line before the snapshot.
fn plan(server: &Server, dialect: Dialect, main: &str) -> Plan {
    let config = &server.config;
    let mut script = handshake::auth(config, AUTH);
    let (port, rdb) = (
        handshake::listening_port(config),
        format!("rdb{}", rdb::VERSION_REDIS_MAX),
    );
    let mut argv = vec!["REPLCONF", "capa", "eof", "capa", &rdb];
    argv.extend(["rdb-only", "1", "rdb-channel", "1"]);
    if dialect == Dialect::Redis {
        argv.extend(["main-ch-client-id", main]);
    }
    argv.extend(["listening-port", &port]);
    let ip = config.replica_announce_ip.to_str_lossy();
    if !ip.is_empty() {
        argv.extend(["ip-address", &ip]);
    }
    script.push(Step::new(ANNOUNCE, &argv).wait());
    let request = match dialect {
        Dialect::Valkey => {
            let argv = ["REPLCONF", "version", crate::VALKEY_VERSION];
            // An error reply to REPLCONF version is tolerated, since Valkey 8.0 expects this
            // command on the main connection only.
            let version = Step::new(VERSION, &argv).errors(Errors::Tolerated);
            script.push(version.wait());
            Step::new(REQUEST, &["SYNC"])
        }
        Dialect::Redis => Step::new(REQUEST, &["PSYNC", "?", "-1"]),
    };
    script.push(request.expect(Expect::Line));
    Plan::new(script, Unasked::Keep, handshake::timeout_ms(server))
}

/// Handles an action of the link on the second connection.
fn on_second(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, action: Action) {
    match action {
        Action::Reply {
            tag: REQUEST,
            reply,
        } => {
            let text = match reply {
                Reply::Status(text) | Reply::Line(text) => text,
                other => other.to_string().into_bytes(),
            };
            snapshot_follows(el, server, id, &text);
        }
        Action::Failed(failure) => {
            server.primary_link.channels.second = None;
            let reason = match &failure {
                Failure::Refused { error, .. } => format!("-{}", printable(error, SHOWN_MAX)),
                failure => failure.to_string(),
            };
            log::warn!("Dual channel sync failed with error {reason}");
            fail(el, server);
        }
        _ => {}
    }
}

/// Handles the line before the snapshot, which has the replication id and the offset of the
/// snapshot.
fn snapshot_follows(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, text: &[u8]) {
    let Some(sync) = server.primary_link.channels.sync else {
        return;
    };
    let begins = match sync.dialect {
        Dialect::Valkey => End::parse(text),
        Dialect::Redis => handshake::full_resync_reply(text).map(|(id, offset)| End {
            offset,
            id,
            client: 0,
        }),
    };
    let Some(end) = begins else {
        log::warn!(
            "Dual channel replication: Received unexpected $ENDOFF response: {}",
            printable(text, SHOWN_MAX)
        );
        return fail(el, server);
    };
    if server.debug.pause_after_fork {
        process::stop();
    }
    log::info!(
        "{}",
        server.config.words().line(
            "Full resync from master over a second connection: {}:{}",
            &[&end.id, &end.offset]
        )
    );
    if sync.dialect == Dialect::Valkey {
        request_stream(el, server, &end);
    }
    server.primary_link.channels.second = None;
    match link::take(el, server, id) {
        Some(taken) => receive::begin(el, server, taken, end.id, end.offset),
        None => fail(el, server),
    }
}

/// Requests, on the main connection, the replication stream that follows the snapshot (Valkey's
/// dialect).
fn request_stream(el: &mut EventLoop<Server>, server: &mut Server, end: &End) {
    let Some(main) = server.primary_link.link else {
        return;
    };
    let (client, next) = (end.client.to_string(), (end.offset + 1).to_string());
    log::info!(
        "Dual channel replication: Trying a partial resynchronization using main channel (request {}:{next}).",
        end.id
    );
    let identify = ["REPLCONF", "set-rdb-client-id", &client];
    let identify = Step::new(handshake::SET_RDB_CLIENT, &identify);
    // An error reply to set-rdb-client-id is tolerated: if the primary has given up the sync, its
    // reply to the following PSYNC says so.
    let identify = identify.errors(Errors::Tolerated).wait();
    let psync = Step::new(handshake::MAIN_PSYNC, &["PSYNC", &end.id, &next]);
    let psync = psync.errors(Errors::Tolerated).expect(Expect::Line);
    link::request(el, server, main, identify);
    link::request(el, server, main, psync);
}

/// Handles the reply to the second PSYNC on the main connection (Valkey's dialect).
pub fn main_replied(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, text: &[u8]) {
    if !text.starts_with(b"CONTINUE") {
        log::warn!(
            "Dual channel replication: Aborting dual channel sync. Main channel psync result {}",
            printable(text, SHOWN_MAX)
        );
        return fail(el, server);
    }
    let words = server.config.words();
    let line = words.line(
        "Dual channel replication: MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.",
        &[],
    );
    log::info!("{line}");
    server.primary_link.link = None;
    match link::take(el, server, id) {
        Some(taken) => collect_from(el, server, taken),
        None => return fail(el, server),
    }
    let Some(sync) = server.primary_link.channels.sync else {
        return;
    };
    if sync.lost {
        fail(el, server);
    } else if sync.loaded {
        log::info!("Dual channel replication: Psync established after rdb load");
    }
}

/// Before the loop sleeps, outside of nested turns: begins to apply the collected stream if the
/// snapshot is loaded and the primary has accepted the main connection's PSYNC.
pub fn follow(el: &mut EventLoop<Server>, server: &mut Server) {
    let channels = &server.primary_link.channels;
    if channels.main.is_some() && channels.sync.is_some_and(|sync| sync.loaded) {
        go_on(el, server);
    }
}

/// Begins to collect the bytes of the replication stream that arrive on the main connection.
fn collect_from(el: &mut EventLoop<Server>, server: &mut Server, taken: Taken) {
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.collected.push(taken.received);
    }
    match el.add_file(taken.conn.raw_fd(), Class::First, 0) {
        Ok(token) => {
            el.set_handler(token, Mask::READABLE, collect_handler);
            // A TLS session may have decrypted bytes already, which the poller does not report.
            el.mark_ready(token, Mask::READABLE);
            server.primary_link.channels.main = Some(Box::new(Main {
                conn: taken.conn,
                token,
                stopped: false,
            }));
        }
        Err(e) => log::warn!(
            "The link to the primary can't be watched: {}",
            sys::error_text(&e)
        ),
    }
}

/// The maximum number of bytes of the stream that are collected during a sync; 0 means no limit.
fn limit(server: &Server) -> u64 {
    use crate::config::ClientClass;
    match server.config.replica_full_sync_buffer_limit {
        0 => server.config.client_output_buffer_limit[ClientClass::Replica as usize].hard,
        limit => limit,
    }
}

/// The read handler of the main connection while the snapshot is received or loaded.
fn collect_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let (mut budget, limit) = (el.budget(), limit(server));
    while budget > 0 {
        let channels = &mut server.primary_link.channels;
        let (Some(main), Some(upstream)) = (&mut channels.main, &mut server.replication.upstream)
        else {
            return Io::Drained;
        };
        let room = upstream.collected.room(limit, READ_BYTES.min(budget));
        if room == 0 {
            if !std::mem::replace(&mut main.stopped, true) {
                log_limit(channels.sync, limit, server.config.words());
            }
            el.clear_handler(token, Mask::READABLE);
            return Io::More;
        }
        let mut piece = Vec::new();
        match main.conn.read_into(&mut piece, room) {
            Ok(read) => {
                budget -= read.bytes;
                server.stats.net_input_bytes += read.bytes as u64;
                server.stats.net_repl_input_bytes += read.bytes as u64;
                upstream.collected.push(piece);
                if read.io == Io::Drained {
                    return Io::Drained;
                }
            }
            Err(e) => {
                let words = server.config.words();
                let reason = sys::error_text(&e);
                let line = words.line(
                    "Main channel error while reading from master: {}",
                    &[&reason],
                );
                log::warn!("{line}");
                main_lost(el, server);
                return Io::Drained;
            }
        }
    }
    Io::More
}

fn log_limit(sync: Option<Sync>, limit: u64, words: Words) {
    match sync.map(|sync| sync.dialect) {
        Some(Dialect::Redis) => log::info!(
            "{}",
            words.line(
                "Replication buffer limit has been reached ({} bytes), stopped buffering replication stream. Further \
                 accumulation may occur on master side. ",
                &[&limit]
            )
        ),
        _ => log::info!(
            "Dual channel replication: Replication buffer limit reached, stopping buffering. Further accumulation will \
             occur on primary side ({limit} bytes)."
        ),
    }
}

/// Closes the main connection after an error. While the snapshot is being loaded, the sync goes on:
/// after the load a new connection can request the replication stream that follows the snapshot.
fn main_lost(el: &mut EventLoop<Server>, server: &mut Server) {
    if let Some(main) = server.primary_link.channels.main.take() {
        el.remove_file(main.token);
    }
    if !server.is_nested() {
        fail(el, server);
    }
}

/// Ends the sync, because the connection of the snapshot is lost. If a PSYNC was sent on the main
/// connection, the reply to this PSYNC is read first: if the primary has ended the sync, the reply
/// has the reason.
pub fn snapshot_lost(el: &mut EventLoop<Server>, server: &mut Server) {
    let link = &mut server.primary_link;
    match &mut link.channels.sync {
        Some(sync) if link.link.is_some() => {
            sync.lost = true;
            if let Some(receive) = link.receive.take() {
                receive.close(el);
            }
        }
        _ => fail(el, server),
    }
}

/// Continues a sync after the snapshot was loaded from `conn`. In a sync over one connection, the
/// replication stream follows on `conn`.
pub fn loaded(el: &mut EventLoop<Server>, server: &mut Server, conn: Connection, received: &[u8]) {
    let Some(upstream) = &mut server.replication.upstream else {
        return;
    };
    let failed_meanwhile = upstream.phase != Phase::Transfer;
    let sync = &mut server.primary_link.channels.sync;
    if sync.is_none() && !failed_meanwhile {
        return stream_from(el, server, conn, received);
    }
    drop(conn);
    // If the main connection is lost, a new connection can request the replication stream from the
    // snapshot's offset on.
    upstream.can_continue = true;
    upstream.received.last_io_ms = server.clock.now_ms;
    let Some(sync) = sync else {
        return;
    };
    sync.loaded = true;
    if server.primary_link.channels.main.is_none() && server.primary_link.link.is_none() {
        log::warn!("Dual channel replication: the main channel was lost during the load");
        fail(el, server);
    }
}

/// Begins to apply the collected bytes of the replication stream, and then the bytes that arrive on
/// the main connection.
fn go_on(el: &mut EventLoop<Server>, server: &mut Server) {
    let channels = &mut server.primary_link.channels;
    let (Some(main), Some(sync)) = (channels.main.take(), channels.sync.take()) else {
        return;
    };
    el.remove_file(main.token);
    let collected = server.replication.upstream.as_ref();
    let bytes = collected.map_or(0, |upstream| upstream.collected.bytes());
    if sync.dialect == Dialect::Redis {
        let words = server.config.words();
        let line = words.line(
            "MASTER <-> REPLICA sync: Starting to stream replication buffer into the db ({} bytes).",
            &[&bytes],
        );
        log::info!("{line}");
    }
    if server.debug.stops_before_collected() {
        process::stop();
    }
    stream_from(el, server, main.conn, b"");
    let client = server
        .replication
        .upstream
        .as_ref()
        .and_then(|up| up.client);
    let c = client.and_then(|r| server.net.clients.resolve(r));
    if let Some(token) = c.and_then(|c| c.token) {
        el.set_handler(token, Mask::READABLE, apply_handler);
        el.mark_ready(token, Mask::READABLE);
    }
}

/// The read handler of the client that applies the replication stream, as long as collected bytes
/// are left.
fn apply_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    if server.is_nested() {
        return Io::More; // a nested turn runs in the middle of a command
    }
    let mut budget = el.budget();
    while budget > 0 {
        let Some(upstream) = &mut server.replication.upstream else {
            return Io::Drained;
        };
        let (client, piece) = (upstream.client, upstream.collected.pop());
        match (client, piece) {
            (Some(r), Some(piece)) => {
                budget = budget.saturating_sub(piece.len());
                let lent = server.event_loop.lent.clone();
                lent.lend(el, || apply(server, r, &piece));
            }
            (_, None) => {
                log_applied(server, upstream_peak(server));
                el.set_handler(token, Mask::READABLE, query::read_handler);
                return Io::More;
            }
            (None, Some(_)) => return Io::Drained,
        }
    }
    Io::More
}

fn upstream_peak(server: &Server) -> u64 {
    let upstream = server.replication.upstream.as_ref();
    upstream.map_or(0, |upstream| upstream.collected.peak())
}

fn log_applied(server: &Server, bytes: u64) {
    let words = server.config.words();
    let line = words.line(
        "MASTER <-> REPLICA sync: Successfully streamed replication buffer into the db ({} bytes in total)",
        &[&bytes],
    );
    log::info!("{line}");
    log::info!("Dual channel replication: Successfully streamed replication data into memory");
}

fn apply(server: &mut Server, r: ClientRef, piece: &[u8]) {
    if let Some(mut c) = server.net.clients.take_ref(r) {
        if !c.has(flag::CLOSE_ASAP) {
            c.net_in += piece.len() as u64;
            c.last_interaction_ms = server.clock.now_ms;
            query::feed(server, &mut c, piece);
        }
        server.net.clients.put(c);
    }
}
