//! Sends to replicas: first a snapshot, if they need one, then the replication stream, by `writev`,
//! straight from the blocks in which the stream is kept.
//!
//! ```text
//!   before_sleep ─> write_to_replicas ─┐   each replica: replies first, then by its state
//!   socket was full ─> write_handler ──┴─> send ─┬─ Receiving ─> transfer::write_file
//!                                                └─ Online ────> write_stream ─> writev(blocks)
//!   a child's pipe ─> broadcast: one chunk to all replicas that receive it
//! ```
//!
//! Sockets of replicas are in `Class::First`: replicas are served before other clients are read. At
//! most [`BYTES_PER_TURN`] are sent to a replica in one turn, so that many replicas can't starve
//! the clients.
//!
//! If a replica reads too slowly, the part of the stream that it lacks counts for the output limits
//! of its class (`clients::output_limit`), and the replica is closed when this part exceeds them.

pub mod broadcast;
mod throttle;
mod transfer;

use std::io::IoSlice;

use ae::{Class, EventLoop, Io, Mask, Token};

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::clients::describe;
use crate::clients::output_limit::check_output_limit;
use crate::networking::write;
use crate::persist::child::{self, Wish};
use crate::propagate::gate;
use crate::replication::replicas::{Replica, State};
use crate::state::Server;
use crate::sync::{channels, snapshot};

/// The maximum number of bytes that are sent to one replica in one turn of the loop.
const BYTES_PER_TURN: usize = 1024 * 1024;
/// The maximum number of blocks of the replication stream in one `writev`.
const PIECES: usize = 64;

/// Before the loop sleeps: sends replicas what the turn's commands added to the replication stream,
/// and frees blocks of the stream that are not needed any more.
pub fn write_to_replicas(el: &mut EventLoop<Server>, server: &mut Server) {
    if !server.replication.stream.is_open() && server.replication.replicas.is_empty() {
        return;
    }
    start_snapshot(server);
    snapshot::end_useless_child(server);
    broadcast::follow(el, server);
    channels::follow(server);
    ask_for_acks(server);
    let mut at = 0;
    while let Some(r) = server.replication.replicas.client(at) {
        at += 1;
        if let Some(mut c) = server.net.clients.take_ref(r) {
            if !c.has(flag::WAITS_TO_WRITE) {
                send(el, server, &mut c);
            }
            check_output_limit(server, &mut c);
            server.net.clients.put(c);
        }
    }
    server.replication.stream.trim();
    throttle::update(el, server);
}

/// Starts a snapshot for a replica that requested a full sync in this turn, without waiting for the
/// cron, if no child runs.
fn start_snapshot(server: &mut Server) {
    let wished = server.forks.wishes.has(Wish::Sync);
    if wished && server.nesting == 0 {
        child::start_next(server);
    }
}

/// Sends GETACK to the replicas if a client waits for acknowledgements, once in a turn.
fn ask_for_acks(server: &mut Server) {
    let replication = &mut server.replication;
    // During a failover the stream must not grow; the failover has requested the acknowledgements
    // itself.
    let stands = server.pause.stops_replication(server.clock.now_ms);
    if replication.wants_acks && !stands {
        replication.request_acks();
    }
}

/// The write handler of a replica's socket that was full.
fn write_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(slot) = el.data(token) else {
        return Io::Drained;
    };
    let Some(mut c) = server.net.clients.take(slot as u32) else {
        return Io::Drained;
    };
    let io = send(el, server, &mut c);
    server.net.clients.put(c);
    io
}

/// Sends a replica as many bytes as its socket accepts, at most [`BYTES_PER_TURN`]. Bytes that the
/// socket does not accept are sent when the socket is writable.
fn send(el: &mut EventLoop<Server>, server: &mut Server, c: &mut Client) -> Io {
    let Some(token) = c.token else {
        return Io::Drained;
    };
    if c.has(flag::CLOSE_ASAP) || close_if_broken(server, c) {
        return Io::Drained;
    }
    if gate::holds(server, c) && !c.reply.is_empty() {
        return Io::Drained; // the reply must be sent first, and waits for the AOF
    }
    let mut io = Io::Drained;
    if !c.reply.is_empty() {
        io = write::write_to_client(server, c);
    }
    if c.reply.is_empty() && !c.has(flag::CLOSE_ASAP) {
        el.set_class(token, Class::First);
        io = send_by_state(server, c);
    }
    if has_unsent(server, c) && !c.has(flag::CLOSE_ASAP) {
        c.set(flag::WAITS_TO_WRITE);
        el.set_handler(token, Mask::WRITABLE, write_handler);
    } else if c.has(flag::WAITS_TO_WRITE) {
        c.clear(flag::WAITS_TO_WRITE);
        el.clear_handler(token, Mask::WRITABLE);
    }
    io
}

/// Sends the next bytes of the snapshot's file or of the replication stream, according to the
/// replica's state.
fn send_by_state(server: &mut Server, c: &mut Client) -> Io {
    let replica = server.replication.replicas.get(c.reference());
    match replica.map(|replica| &replica.state) {
        Some(State::Receiving(_)) => transfer::write_file(server, c),
        Some(State::Online | State::Loading) => write_stream(server, c),
        _ => Io::Drained,
    }
}

/// Whether a replica has unsent bytes: replies, the snapshot's file, or the replication stream.
fn has_unsent(server: &Server, c: &Client) -> bool {
    let r = c.reference();
    let by_state = server.replication.replicas.get(r).is_some_and(|replica| {
        matches!(replica.state, State::Receiving(_))
            || replica.is_streaming() && gate::sendable(server, server.replication.lag(r)) > 0
    });
    by_state || !c.reply.is_empty()
}

/// Closes a replica whose stream is broken, and returns whether it is: the stream was restarted, or
/// a reply would be sent between bytes of the stream.
fn close_if_broken(server: &mut Server, c: &mut Client) -> bool {
    let r = c.reference();
    let replica = server.replication.replicas.get(r);
    let mixed = !c.reply.is_empty() && replica.is_some_and(|replica| replica.began);
    let lost = server.replication.is_lost(r);
    if mixed || lost {
        let reason = match (mixed, c.shown_cmd) {
            (true, Some(id)) => {
                let name = &server.commands.entry(id).fullname;
                format!("Replica generated a reply to command '{name}'")
            }
            (true, None) => "Replica generated a reply to command '<unknown>'".into(),
            (false, _) => "The replication stream was restarted".into(),
        };
        let what = describe::describe(server, c);
        log::warn!("{reason}, disconnecting it: {what}");
        Net::close_asap(&mut server.net.close_asap, c);
    }
    mixed || lost
}

fn write_stream(server: &mut Server, c: &mut Client) -> Io {
    let r = c.reference();
    let mut total = 0;
    let mut io = Io::Drained;
    let streams = |replica: &Replica| replica.is_streaming();
    let streams = server.replication.replicas.get(r).is_some_and(streams);
    let sendable = gate::sendable(server, server.replication.lag(r));
    let sendable = usize::try_from(sendable).unwrap_or(usize::MAX);
    let Some(conn) = c.conn.as_mut().filter(|_| streams) else {
        return io;
    };
    loop {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let limit = BYTES_PER_TURN.min(sendable) - total;
        let n = server.replication.io_slices(r, limit, &mut pieces);
        if n == 0 {
            if total == BYTES_PER_TURN {
                io = Io::More;
            }
            break;
        }
        match conn.write_vectored(&pieces[..n]) {
            Ok(sent) => {
                server.replication.advance(r, sent.bytes);
                total += sent.bytes;
                if sent.io == Io::Drained {
                    break;
                }
            }
            Err(e) => {
                log::debug!("Error writing to replica: {e}");
                Net::close_asap(&mut server.net.close_asap, c);
                break;
            }
        }
    }
    c.net_out += total as u64;
    server.stats.net_output_bytes += total as u64;
    server.stats.net_repl_output_bytes += total as u64;
    server.stats.writes_processed += u64::from(total > 0);
    io
}

#[cfg(test)]
mod tests;
