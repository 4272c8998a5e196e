//! Sends the replies of clients. All replies of a turn are sent at its end, one `writev` for each
//! client; the rest is sent when the loop reports that the socket is writable.

use ae::{EventLoop, Io, Mask, Token};
use std::io::IoSlice;

use crate::armed;
use crate::client::table::Net;
use crate::client::{Client, REPLY_CLASS_MAX, REPLY_CLASS_MIN, flag};
use crate::clients::memory;
use crate::networking::close;
use crate::observe::trace::event::EventKind;
use crate::propagate::gate::{self, safe_offset};
use crate::state::Server;

/// The maximum number of bytes for one client in one turn, so that no client occupies the loop. The
/// unsent part of a larger reply counts when `maxmemory-clients` is checked at the end of the turn,
/// even if the socket would have accepted the whole reply.
const WRITE_PER_TURN: usize = 256 * 1024;
/// The maximum number of pieces of a client's replies in one `writev`.
const PIECES: usize = 64;

/// Before the loop sleeps: sends the replies of the turn's commands.
pub fn handle_clients_with_pending_writes(el: &mut EventLoop<Server>, server: &mut Server) {
    // Close the killed clients first, so that their connections are closed when the reply to CLIENT
    // KILL arrives.
    close::free_clients_in_async_queue(el, server);
    let safe = safe_offset(server);
    let mut pending = std::mem::take(&mut server.net.pending_write);
    for slot in pending.drain(..) {
        let Some(mut c) = server.net.clients.take(slot) else {
            continue;
        };
        if c.aof_offset > safe && !c.has(flag::CLOSE_ASAP) {
            server.gate.hold(slot, safe);
            server.net.clients.put(c);
            continue;
        }
        c.clear(flag::PENDING_WRITE);
        if !c.has(flag::CLOSE_ASAP) {
            let io = write_to_client(server, &mut c);
            if !c.reply.is_empty()
                && let Some(token) = c.token
            {
                c.reply.seal_unsent();
                c.set(flag::WAITS_TO_WRITE);
                el.set_handler(token, Mask::WRITABLE, write_handler);
                // The socket may accept more bytes, but the loop would not report it again: the
                // write handler of a client whose replies wait for the AOF returns `Drained`
                // without a write.
                if io == Io::More {
                    el.mark_ready(token, Mask::WRITABLE);
                }
            }
            memory::note_turn(server, &mut c);
        }
        server.net.clients.put(c);
    }
    // Writing produces no new replies, so the memory of the list of clients with replies can be
    // reused.
    server.net.pending_write = pending;
}

/// The write handler of a client's socket that was full.
fn write_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(slot) = el.data(token) else {
        return Io::Drained;
    };
    let Some(mut c) = server.net.clients.take(slot as u32) else {
        return Io::Drained;
    };
    let held = c.has(flag::PENDING_WRITE) && gate::holds(server, &c);
    let io = if held {
        Io::Drained
    } else {
        write_to_client(server, &mut c)
    };
    if c.reply.is_empty() {
        el.clear_handler(token, Mask::WRITABLE);
        c.clear(flag::WAITS_TO_WRITE);
    }
    memory::note_turn(server, &mut c);
    server.net.clients.put(c);
    io
}

/// Sends as many bytes of the client's replies as its socket accepts, at most [`WRITE_PER_TURN`].
pub fn write_to_client(server: &mut Server, c: &mut Client) -> Io {
    let mut total = 0;
    let mut io = Io::Drained;
    server.stats.reply_buffer_expands += note_peak(c) as u64;
    let Client {
        conn: Some(conn),
        reply,
        ..
    } = c
    else {
        return Io::Drained;
    };
    while !reply.is_empty() {
        let limit = WRITE_PER_TURN - total;
        if limit == 0 {
            io = Io::More;
            break;
        }
        let result = match reply.single_piece() {
            Some(bytes) => conn.write(&bytes[..bytes.len().min(limit)]),
            None => {
                let mut pieces = [IoSlice::new(&[]); PIECES];
                let n = reply.io_slices(limit, &mut pieces);
                conn.write_vectored(&pieces[..n])
            }
        };
        match result {
            Ok(sent) => {
                reply.advance(sent.bytes);
                total += sent.bytes;
                if sent.io == Io::Drained {
                    break;
                }
            }
            Err(e) => {
                log::debug!("Error writing to client: {e}");
                Net::close_asap(&mut server.net.close_asap, c);
                return Io::Drained;
            }
        }
    }
    c.net_out += total as u64;
    server.stats.net_output_bytes += total as u64;
    server.stats.writes_processed += 1;
    if server.armed & armed::TRACE != 0 {
        server
            .trace
            .since_mark(EventKind::Write, c.id, total as u64);
    }
    if total > 0 && !c.has(flag::PRIMARY) {
        c.last_interaction_ms = server.clock.now_ms;
    }
    if c.reply.is_empty() {
        c.reply.give_back(&mut server.net.spare_replies);
        c.clear(flag::OVER_SOFT_LIMIT);
        if c.has(flag::CLOSE_AFTER_REPLY) {
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
    io
}

/// Doubles the size of a client's reply buffer until the unsent replies fit, up to REPLY_CLASS_MAX.
/// Returns whether the size grew.
fn note_peak(c: &mut Client) -> bool {
    let bytes = c.reply.bytes().min(REPLY_CLASS_MAX as usize) as u32;
    let class = &mut c.reply_class;
    class.peak = class.peak.max(bytes);
    let before = class.size;
    while class.size < bytes && class.size < REPLY_CLASS_MAX {
        class.size *= 2;
    }
    class.size != before
}

/// Shrinks a client's reply buffer of which less than half was used since the peak was last reset;
/// the cron calls this function for each client. Returns whether the size of the buffer changed.
pub fn resize_reply_buffer(c: &mut Client, now_ms: i64, peak_reset_ms: i64) -> bool {
    let class = &mut c.reply_class;
    let before = class.size;
    if class.size >= 2 * REPLY_CLASS_MIN && class.peak < class.size / 2 {
        class.size = (class.peak + 1).max(REPLY_CLASS_MIN);
    }
    if peak_reset_ms >= 0 && now_ms - class.peak_reset_ms > peak_reset_ms {
        class.peak = c.reply.bytes() as u32;
        class.peak_reset_ms = now_ms;
    }
    class.size != before
}
