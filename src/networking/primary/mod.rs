//! The link to this server's primary: connect, handshake, snapshot, stream.
//!
//! ```text
//!   follow (before_sleep) ─> link::open ─> PING, AUTH, REPLCONF ..., PSYNC       handshake.rs
//!        │                                   ├─ +CONTINUE ────────────────┐
//!        │ another upstream, or none         ├─ +FULLRESYNC ─> receive.rs ┤
//!        │                                   └─ two connections: channels.rs
//!        └─> everything of the old one is closed                          v
//!                                                        a client with the flag PRIMARY, whose
//!                                                        commands are applied            apply.rs
//! ```
//!
//! `replication::upstream` keeps the state of the link as data (which primary, which stage, when to
//! try again); this module owns the sockets. The connection has one owner at any time: the link
//! during the handshake, `receive` or the loader during the snapshot, and then the client with the
//! flag PRIMARY.
//!
//! **Invariant:** all sockets of [`PrimaryLink`] go to one primary, whose `Upstream` has the number
//! `number`. If the server has another primary now, or none, the sockets to the former primary are
//! closed before the loop sleeps.
//! **Limits:** one primary; after a failed attempt the next attempt begins a second later.

pub mod apply;
mod channels;
pub mod handshake;
mod install;
mod receive;

use ae::{EventLoop, Mask};

use crate::client::{Client, flag};
use crate::connection::Connection;
use crate::connection::connect::source_address;
use crate::networking::accept;
use crate::networking::link::{self, LinkId, Target};
use crate::networking::query;
use crate::replication;
use crate::replication::upstream::{Phase, RETRY_MS, Upstream};
use crate::state::Server;
use channels::Channels;
use install::Way;
use receive::Receive;

/// The sockets between this replica and its primary.
#[derive(Default)]
pub struct PrimaryLink {
    /// The number of the `replication::Upstream`, which describes a primary, to which these sockets
    /// belong.
    number: u64,
    /// The connection during the handshake with the primary; `None` after the reply to PSYNC.
    link: Option<LinkId>,
    /// The value of `repl-timeout`, in seconds, that the links to the primary use.
    timeout_s: u32,
    /// The snapshot that is being received from the primary; `None` at other times.
    receive: Option<Box<Receive>>,
    channels: Channels,
    /// How the snapshot that is being loaded replaces the data set.
    way: Way,
    /// The connection to the primary while the file of a received snapshot is loaded.
    kept_alive: Option<Connection>,
}

/// Before the loop sleeps: closes sockets that don't belong to the present role, and connects to
/// the primary if an attempt is due.
pub fn follow(el: &mut EventLoop<Server>, server: &mut Server) {
    let number = server
        .replication
        .upstream
        .as_ref()
        .map_or(0, |up| up.number);
    if server.primary_link.number != number {
        close(el, server);
        server.primary_link.number = number;
    }
    if server.primary_link.timeout_s != server.config.repl_timeout {
        server.primary_link.timeout_s = server.config.repl_timeout;
        let links = [
            server.primary_link.link,
            server.primary_link.channels.second,
        ];
        for id in links.into_iter().flatten() {
            link::set_timeout(el, server, id, handshake::timeout_ms(server));
        }
    }
    let now_ms = server.clock.now_ms;
    let due = |up: &&mut Upstream| up.phase == Phase::Connect && up.connect_at_ms <= now_ms;
    if server.is_loading() || server.is_nested() {
        return;
    }
    resume_held(el, server);
    if std::mem::take(&mut server.replication.owes_ack) {
        send_ack(server);
    }
    receive::follow(el, server);
    channels::follow(el, server);
    if let Some(upstream) = server.replication.upstream.as_mut().filter(due) {
        let text = match upstream.reconnects() {
            true => "Reconnecting to MASTER {}:{}",
            false => "Connecting to MASTER {}:{}",
        };
        upstream.attempt();
        let (host, port) = (upstream.host.clone(), upstream.port);
        let words = server.config.words();
        log::info!("{}", words.line(text, &[&host, &port]));
        connect(el, server, &host, port);
    }
}

fn connect(el: &mut EventLoop<Server>, server: &mut Server, host: &str, port: u16) {
    let words = server.config.words();
    let target = Target {
        host,
        port,
        source: source_address(&server.config),
        tls: server.config.tls_replication,
    };
    let plan = handshake::plan(server);
    let id = link::open(el, server, &target, plan, handshake::on_action);
    server.primary_link.link = Some(id);
    log::info!("{}", words.line("MASTER <-> REPLICA sync started", &[]));
}

/// Closes all connections to the primary.
fn close(el: &mut EventLoop<Server>, server: &mut Server) {
    if let Some(id) = server.primary_link.link.take() {
        link::close(el, server, id);
    }
    if let Some(receive) = server.primary_link.receive.take() {
        receive.close(el);
    }
    if let Some(id) = server.primary_link.channels.close(el) {
        link::close(el, server, id);
    }
}

/// Closes all sockets to the primary after a failed attempt to sync; the next attempt begins in a
/// second.
fn fail(el: &mut EventLoop<Server>, server: &mut Server) {
    let retry_at_ms = server.clock.now_ms + RETRY_MS;
    fail_until(el, server, retry_at_ms);
}

/// Closes all sockets to the primary after a failed attempt to sync; the next attempt begins at
/// `retry_at_ms`.
fn fail_until(el: &mut EventLoop<Server>, server: &mut Server, retry_at_ms: i64) {
    close(el, server);
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.phase = Phase::Connect;
        upstream.connect_at_ms = retry_at_ms;
    }
}

/// Makes the connection to the primary a client with the flag PRIMARY, so that the replication
/// stream that arrives on it is applied. `received` are the bytes that were already read from the
/// connection.
fn stream_from(el: &mut EventLoop<Server>, server: &mut Server, conn: Connection, received: &[u8]) {
    let Some(upstream) = server.replication.upstream.as_ref() else {
        return;
    };
    let peer = format!("{}:{}", upstream.host, upstream.port);
    let db = upstream.db;
    let r = match accept::create_linked_client(el, server, conn, peer, flag::PRIMARY) {
        Ok(r) => r,
        Err(e) => {
            log::warn!("The link to the primary can't be watched: {e}");
            return fail(el, server);
        }
    };
    if let Some(c) = server.net.clients.resolve(r) {
        c.db = db;
        c.net_in = received.len() as u64;
    }
    replication::ensure_backlog(server);
    let now_s = server.clock.now_s();
    let replication = &mut server.replication;
    let end = replication.stream.end();
    if let Some(upstream) = &mut replication.upstream {
        replication.disconnected_s += upstream.down_s(now_s);
        upstream.phase = Phase::Connected;
        upstream.client = Some(r);
        upstream.attached_at = end;
        upstream.counted = 0;
        upstream.can_continue = true;
        upstream.has_foreign_data = false;
        upstream.is_new = false;
        upstream.refused_empty = false;
        (upstream.down_since_s, upstream.up_since_s) = (0, now_s);
    }
    server.hold_primary();
    send_ack(server);
    accept::feed_linked_client(el, server, r, received);
}

/// Applies the part of the primary's stream that was received during a pause (CLIENT PAUSE), when
/// the pause is over.
fn resume_held(el: &mut EventLoop<Server>, server: &mut Server) {
    let upstream = server.replication.upstream.as_ref();
    let Some(r) = upstream.and_then(|up| up.client) else {
        return;
    };
    let held = |c: &Client| c.has(flag::HELD);
    if server.pause.is_set() || !server.net.clients.resolve(r).is_some_and(|c| held(c)) {
        return;
    }
    if let Some(mut c) = server.net.clients.take_ref(r) {
        c.clear(flag::HELD);
        let lent = server.event_loop.lent.clone();
        lent.lend(el, || query::feed(server, &mut c, &[]));
        // A large argument is read alone, so the bytes that follow it may still be in the socket.
        if let Some(token) = c.token {
            el.mark_ready(token, Mask::READABLE);
        }
        server.net.clients.put(c);
    }
}

/// Sends REPLCONF ACK to the primary: the offset up to which its stream is applied and, as FACK,
/// the offset up to which its stream is in the AOF on disk. A primary that knows only SYNC gets no
/// ACK.
fn send_ack(server: &mut Server) {
    use crate::client::table::Net;
    use crate::ds::bulk::push_command;
    let offset = server.replication.stream.end().to_string();
    let aof_offset = server
        .replication
        .aof_synced
        .map(|offset| offset.to_string());
    let upstream = server.replication.upstream.as_ref();
    let client = upstream
        .filter(|up| up.speaks_psync)
        .and_then(|up| up.client);
    let Some(c) = client.and_then(|r| server.net.clients.resolve(r)) else {
        return;
    };
    let mut request = Vec::new();
    match &aof_offset {
        Some(aof) => push_command(&mut request, &["REPLCONF", "ACK", &offset, "FACK", aof]),
        None => push_command(&mut request, &["REPLCONF", "ACK", &offset]),
    }
    c.reply.raw(&request);
    Net::mark_pending(&mut server.net.pending_write, c);
}

/// The cron's step, once a second: sends an acknowledgement, and closes the link to a silent
/// primary.
pub fn cron(server: &mut Server) {
    use crate::client::table::Net;
    if let Some(conn) = &mut server.primary_link.kept_alive {
        // An error is ignored, since the next read of the connection reports it as well.
        let _ = conn.write_now(b"\n");
    }
    receive::keep_alive(server);
    let words = server.config.words();
    let silent_since_ms = server.clock.now_ms - i64::from(server.config.repl_timeout) * 1000;
    let Some(upstream) = server.replication.upstream.as_mut() else {
        return;
    };
    if let Some(r) = upstream.client {
        let Some(c) = server.net.clients.resolve(r) else {
            return;
        };
        if c.last_interaction_ms < silent_since_ms {
            log::warn!(
                "{}",
                words.line("MASTER timeout: no data nor PING received...", &[])
            );
            return Net::close_asap(&mut server.net.close_asap, c);
        }
        return send_ack(server);
    }
    let receives = server.primary_link.receive.is_some();
    if receives && upstream.received.last_io_ms < silent_since_ms {
        log::warn!(
            "{}",
            words.line(
                "Timeout receiving bulk data from MASTER... If the problem persists try to set the 'repl-timeout' \
                 parameter in redis.conf to a larger value.",
                &[]
            )
        );
        server.primary_link.number = 0; // no upstream's number, so `follow` closes the sockets
        upstream.phase = Phase::Connect;
    }
}
