//! Sends a snapshot through a pipe: from the child that creates it to the sockets of all replicas
//! that wait for it, one chunk at a time.
//!
//! ```text
//!   pipe is readable ─> read_handler: a chunk ─> send_chunk to each ─┬─ all have it: the next chunk
//!                                                                    └─ else: the pipe waits for
//!   a socket takes bytes again ─> write_handler ─> send_chunk ──────────  the slowest
//!   the pipe's end, and that of the child ─> finish ─> sync::snapshot::broadcast_done
//! ```
//!
//! **Invariant:** the pipe is watched exactly while all replicas have been sent the last chunk.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;

use ae::{Class, EventLoop, Io, Mask, Token};

use crate::client::table::Net;
use crate::client::{Client, ClientRef, flag};
use crate::connection::Connection;
use crate::networking::write;
use crate::persist::child::{self, ChildKind};
use crate::persist::rdb::transfer::PIPE_BYTES;
use crate::replication::snapshot::{Broadcast, Way};
use crate::state::Server;
use crate::sync::snapshot;
use crate::sys;

fn broadcast(server: &mut Server) -> Option<&mut Broadcast> {
    match &mut server.replication.snapshot.as_mut()?.way {
        Way::Pipe(broadcast) => Some(broadcast),
        _ => None,
    }
}

/// Before the loop sleeps: watches the pipe of a new child, removes replicas that disconnected, and
/// finishes a transfer that is complete.
pub fn follow(el: &mut EventLoop<Server>, server: &mut Server) {
    if broadcast(server).is_none() {
        return;
    }
    forget_closed_receivers(server);
    let Some(broadcast) = broadcast(server) else {
        return;
    };
    if broadcast.token.is_none() && !broadcast.ended {
        match el.add_file(broadcast.pipe.as_raw_fd(), Class::First, 0) {
            Ok(token) => broadcast.token = Some(token),
            Err(e) => {
                log::warn!("Can't watch the pipe of a child: {}", sys::error_text(&e));
                broadcast.receivers.clear();
                broadcast.ended = true;
            }
        }
    }
    watch_sockets(el, server);
    watch_pipe(el, server);
    finish_if_over(el, server);
}

/// Makes the loop call `write_handler` for each replica that has not been sent the whole chunk: a
/// reply to the replica may have set another write handler.
fn watch_sockets(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(broadcast) = broadcast(server) else {
        return;
    };
    let len = broadcast.chunk.len();
    let behind = broadcast.receivers.iter().filter(|r| r.sent < len);
    for r in behind.map(|r| r.client).collect::<Vec<_>>() {
        if let Some(c) = server.net.clients.resolve(r)
            && !c.has(flag::WAITS_TO_WRITE)
        {
            wait_for_socket(el, c);
        }
    }
}

/// Removes replicas that have disconnected from the transfer. When no replica is left, the child
/// that creates the snapshot is killed.
fn forget_closed_receivers(server: &mut Server) {
    let replicas = std::mem::take(&mut server.replication.replicas);
    let Some(broadcast) = broadcast(server) else {
        server.replication.replicas = replicas;
        return;
    };
    let had = broadcast.receivers.len();
    let stays = |client: ClientRef| replicas.get(client).is_some();
    broadcast.receivers.retain(|r| stays(r.client));
    let all_left = had > 0 && broadcast.receivers.is_empty();
    let child_runs = broadcast.succeeded.is_none();
    if all_left {
        broadcast.ended = true;
    }
    server.replication.replicas = replicas;
    if all_left && child_runs {
        log::info!("Diskless rdb transfer, last replica dropped, killing fork child.");
        child::kill(server, ChildKind::Rdb);
    }
}

/// Watches the child's pipe if all replicas have been sent the last chunk, and otherwise stops
/// watching the pipe.
fn watch_pipe(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(broadcast) = broadcast(server) else {
        return;
    };
    let Some(token) = broadcast.token else {
        return;
    };
    if broadcast.is_sent() && !broadcast.ended {
        el.set_handler(token, Mask::READABLE, read_handler);
    } else {
        el.clear_handler(token, Mask::READABLE);
    }
}

/// The read handler of the child's pipe: reads the next chunk of the snapshot and sends it to all
/// replicas.
fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, _: Token, _: Mask) -> Io {
    let Some(broadcast) = broadcast(server) else {
        return Io::Drained;
    };
    broadcast.next_chunk().resize(PIPE_BYTES, 0);
    let read = broadcast.pipe.read(&mut broadcast.chunk);
    let n = *read.as_ref().unwrap_or(&0);
    broadcast.chunk.truncate(n);
    match read {
        Ok(0) => {
            broadcast.ended = true;
            let up = broadcast.receivers.len();
            log::info!("Diskless rdb transfer, done reading from pipe, {up} replicas still up.");
            watch_pipe(el, server);
            return Io::Drained;
        }
        Ok(_) => broadcast.goes_on(),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            return Io::Drained;
        }
        Err(e) => {
            log::warn!(
                "Diskless rdb transfer, read error sending DB to replicas: {}",
                sys::error_text(&e)
            );
            broadcast.ended = true;
            return Io::Drained;
        }
    }
    let clients: Vec<ClientRef> = broadcast.receivers.iter().map(|r| r.client).collect();
    for r in clients {
        if let Some(mut c) = server.net.clients.take_ref(r) {
            send_chunk(el, server, &mut c);
            server.net.clients.put(c);
        }
    }
    watch_pipe(el, server);
    Io::More
}

/// Sends a replica the rest of the snapshot's present chunk; the replica's socket is watched if it
/// does not accept all bytes.
fn send_chunk(el: &mut EventLoop<Server>, server: &mut Server, c: &mut Client) {
    // The reply to the replica's PSYNC is sent before the snapshot.
    if !c.reply.is_empty() {
        write::write_to_client(server, c);
    }
    let (Some(token), true) = (c.token, c.reply.is_empty()) else {
        return wait_for_socket(el, c);
    };
    let r = c.reference();
    let (Some(broadcast), Some(conn)) = (broadcast(server), &mut c.conn) else {
        return;
    };
    let Some(at) = broadcast.receivers.iter().position(|x| x.client == r) else {
        return;
    };
    let rest = &broadcast.chunk[broadcast.receivers[at].sent..];
    match write_all_it_takes(conn, rest) {
        Ok(sent) => {
            let complete = sent == rest.len();
            broadcast.receivers[at].sent += sent;
            note_sent(server, c, sent, complete);
            match complete {
                true => el.clear_handler(token, Mask::WRITABLE),
                false => wait_for_socket(el, c),
            }
        }
        Err(e) => {
            log::warn!(
                "Diskless rdb transfer, write error sending DB to replica: {}",
                sys::error_text(&e)
            );
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
}

/// Writes `bytes` until all are written or the socket is full. Returns the number of written bytes.
fn write_all_it_takes(conn: &mut Connection, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        let transfer = conn.write(&bytes[sent..])?;
        sent += transfer.bytes;
        if transfer.io == Io::Drained {
            break;
        }
    }
    Ok(sent)
}

/// Adds the `bytes` that a replica was sent to the statistics. `complete`: the replica has been
/// sent the whole chunk, so this replica does not delay the others.
fn note_sent(server: &mut Server, c: &mut Client, bytes: usize, complete: bool) {
    c.net_out += bytes as u64;
    server.stats.net_output_bytes += bytes as u64;
    server.stats.net_repl_output_bytes += bytes as u64;
    let now_ms = server.clock.now_ms;
    let replica = server.replication.replicas.get_mut(c.reference());
    if let Some(replica) = replica {
        replica.wrote_ms = match replica.wrote_ms {
            _ if complete => 0,
            since_ms if bytes == 0 && since_ms > 0 => since_ms,
            _ => now_ms,
        };
    }
}

fn wait_for_socket(el: &mut EventLoop<Server>, c: &Client) {
    if let Some(token) = c.token {
        el.set_handler(token, Mask::WRITABLE, write_handler);
    }
}

/// The write handler of a replica's socket that was full.
fn write_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let slot = el.data(token);
    let Some(mut c) = slot.and_then(|slot| server.net.clients.take(slot as u32)) else {
        return Io::Drained;
    };
    send_chunk(el, server, &mut c);
    server.net.clients.put(c);
    watch_pipe(el, server);
    Io::Drained
}

/// Finishes the transfer when the pipe and its child have ended, and all replicas have been sent
/// all bytes.
fn finish_if_over(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(broadcast) = broadcast(server) else {
        return;
    };
    let (Some(succeeded), true) = (broadcast.succeeded, broadcast.ended) else {
        return;
    };
    if !broadcast.is_sent() {
        return;
    }
    if let Some(token) = broadcast.token.take() {
        el.remove_file(token);
    }
    let receivers = std::mem::take(&mut broadcast.receivers);
    snapshot::broadcast_done(server, receivers, succeeded);
}
