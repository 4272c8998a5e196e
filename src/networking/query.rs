//! Reads the requests of a client's socket and runs them.
//!
//! ```text
//!   read -> parse all complete commands -> look up, hash keys, prefetch -> run in order -> keep the rest
//! ```
//!
//! All complete commands are parsed before the first one runs, so that the memory of their keys is
//! requested together: first all buckets, then all entries (`prefetch`). The look-up of a key in
//! its command reuses the hash (`Server::hashes`).
//!
//! **Invariant:** commands of one connection run in the order in which they were sent. After a
//! command that blocks or closes the client, the remaining bytes stay in `client.querybuf`.

use ae::{EventLoop, FileProc, Io, Mask, Token};
use std::io::ErrorKind;

use crate::armed;
use crate::client::resp;
use crate::client::resp::{Limits, ParseTable, Parsed, Status};
use crate::client::table::Net;
use crate::client::{Client, NO_SLOT, flag};
use crate::clients::describe;
use crate::clients::memory;
use crate::clients::output_limit;
use crate::config::Teach;
use crate::connection::Transfer;
use crate::error::Error;
use crate::execute::blocked;
use crate::execute::dispatch::process_command;
use crate::networking::prefetch;
use crate::networking::primary::apply;
use crate::observe::trace::event::EventKind;
use crate::propagate::gate;
use crate::state::Server;
use crate::sys::ticks;
use crate::util::quote;
use crate::util::quote::printable;

/// The longest argument that a primary's stream may have, in bytes, unless `proto-max-bulk-len` is
/// higher: 64 GB, longer than any value that a primary can have stored.
const STORED_BULK_MAX: u64 = 1 << 36;
/// The maximum number of bytes of one read of a client's socket.
const READ_MAX: usize = 64 * 1024;
/// The minimum capacity of a client's own query buffer.
const OWN_BUFFER: usize = 16 * 1024;
/// The maximum number of a client's commands that are parsed before the first of them runs.
const AHEAD_MAX: usize = 128;
/// For a batch with fewer commands than this, `run_batch` uses a shorter array of command ids.
const FEW: usize = 8;

/// The read handler of a client's socket: runs the client's requests, up to the loop's budget.
pub fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(slot) = el.data(token) else {
        return Io::Drained;
    };
    if server.is_nested() && is_stream(server, slot as u32) {
        return Io::More; // the primary's commands must not run in the middle of another command
    }
    if server.aof.flush.crowded && waits_for_aof(server, slot as u32) {
        el.clear_handler(token, Mask::READABLE);
        server.net.unread.push(slot as u32);
        return Io::More;
    }
    let (mut budget, mut io) = (el.budget(), Io::More);
    let mut at_end = AtEnd::Close;
    server.event_loop.lent.clone().lend(el, || {
        while budget > 0 && io == Io::More {
            let read = read_query_from_client(server, slot as u32, at_end);
            io = read.io;
            if read.bytes == 0 {
                break;
            }
            budget = budget.saturating_sub(read.bytes);
            at_end = AtEnd::ReadAgain;
        }
    });
    io
}

/// What a read does at the end of the peer's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// Closes the client.
    Close,
    /// Leaves the end to the next turn of the loop: requests were read in this turn, and their
    /// replies are sent at its end.
    ReadAgain,
}

/// The read handler of new clients: [`read_handler`], unless the setting `teach` selects a handler
/// with a fault, for demonstration.
pub fn handler_for(teach: Teach) -> FileProc<Server> {
    match teach {
        Teach::NoDrain => read_once_handler,
        Teach::Level => level_handler,
        _ => read_handler,
    }
}

/// `teach no-drain`: reads once and reports that the socket is empty. The kernel reports the socket
/// again only when more bytes arrive, so the bytes that are left are not read until then.
fn read_once_handler(el: &mut EventLoop<Server>, server: &mut Server, t: Token, _: Mask) -> Io {
    if let Some(slot) = el.data(t) {
        let lent = server.event_loop.lent.clone();
        lent.lend(el, || {
            read_query_from_client(server, slot as u32, AtEnd::Close)
        });
    }
    Io::Drained
}

/// `teach level`: reports after each call that there are more bytes, as a level-triggered poll does
/// for a socket whose bytes are not read. With `teach level`, the event loop does not sleep any
/// more from a client's first request until the client disconnects.
fn level_handler(el: &mut EventLoop<Server>, server: &mut Server, t: Token, mask: Mask) -> Io {
    read_handler(el, server, t, mask);
    Io::More
}

/// Whether the client is the primary or the other end of a slot move, which sends a stream of
/// changes.
fn is_stream(server: &Server, slot: u32) -> bool {
    let c = server.net.clients.get(slot);
    c.is_some_and(|c| c.has(flag::PRIMARY | flag::SLOT_LINK))
}

/// Whether the client has replies that wait for the AOF.
fn waits_for_aof(server: &Server, slot: u32) -> bool {
    let c = server.net.clients.get(slot);
    c.is_some_and(|c| gate::holds(server, c))
}

/// When the disk has caught up, reads again from the clients whose requests had to wait for the
/// AOF.
pub fn read_again(el: &mut EventLoop<Server>, server: &mut Server) {
    if server.net.unread.is_empty() || server.aof.flush.crowded {
        return;
    }
    for slot in std::mem::take(&mut server.net.unread) {
        // The slot of the client table may belong to another client by now; setting that client's
        // read handler again is harmless.
        if let Some(token) = server.net.clients.get(slot).and_then(|c| c.token) {
            el.set_handler(token, Mask::READABLE, read_handler);
        }
    }
}

/// Reads once from a client's socket and runs the complete commands.
fn read_query_from_client(server: &mut Server, slot: u32, at_end: AtEnd) -> Transfer {
    let Some(mut c) = server.net.clients.take(slot) else {
        return NOTHING;
    };
    if c.has(flag::CLOSE_ASAP | flag::CLOSE_AFTER_REPLY) {
        server.net.clients.put(c);
        return NOTHING;
    }
    let read = read_and_process(server, &mut c, at_end);
    server.net.clients.put(c);
    read
}

const NOTHING: Transfer = Transfer {
    bytes: 0,
    io: Io::Drained,
};

fn read_and_process(server: &mut Server, c: &mut Client, at_end: AtEnd) -> Transfer {
    if let Some(big) = c.open.as_mut().and_then(|open| open.big.as_mut()) {
        // A big argument is read straight into the buffer that becomes the value.
        let want = big.missing().min(4 * 1024 * 1024);
        if want == 0 {
            return NOTHING; // the complete command that a pause delays runs first
        }
        let result = c
            .conn
            .as_mut()
            .map(|conn| conn.read_into(&mut big.bytes, want));
        let done = big.missing() == 0;
        let read = note_read(server, c, result, at_end);
        if server.armed & armed::TRACE != 0 {
            server.clock.last = ticks::now();
            trace_batch(server, c, 0);
        }
        check_query_limit(server, c);
        if done && !c.has(flag::CLOSE_ASAP) {
            let buffer = std::mem::take(&mut c.querybuf);
            process_input_buffer(server, c, buffer, false);
        } else {
            memory::note_turn(server, c);
        }
        return read;
    }
    let shared = c.querybuf.is_empty();
    let mut buffer = std::mem::take(if shared {
        &mut server.net.read_buffer
    } else {
        &mut c.querybuf
    });
    let want = if shared { READ_MAX } else { room_in(&buffer) };
    let result = c
        .conn
        .as_mut()
        .map(|conn| conn.read_into(&mut buffer, want));
    let read = note_read(server, c, result, at_end);
    process_input_buffer(server, c, buffer, shared);
    read
}

/// The number of bytes to read into a client's own buffer: its spare capacity, or its length if
/// there is none.
fn room_in(buffer: &Vec<u8>) -> usize {
    match buffer.capacity() - buffer.len() {
        0 => buffer.len().min(READ_MAX),
        room => room.min(READ_MAX),
    }
}

/// Adds a read of the client's socket to the statistics; closes the client if the read failed.
fn note_read(
    server: &mut Server,
    c: &mut Client,
    result: Option<std::io::Result<Transfer>>,
    at_end: AtEnd,
) -> Transfer {
    match result {
        Some(Ok(read)) if read.bytes == 0 => read,
        Some(Ok(read)) => {
            c.net_in += read.bytes as u64;
            c.last_interaction_ms = server.clock.now_ms;
            server.stats.net_input_bytes += read.bytes as u64;
            server.stats.reads_processed += 1;
            read
        }
        Some(Err(e)) if e.kind() != ErrorKind::UnexpectedEof => {
            log::debug!("Reading from client: {e}");
            Net::close_asap(&mut server.net.close_asap, c);
            NOTHING
        }
        Some(Err(_)) if at_end == AtEnd::ReadAgain => Transfer {
            bytes: 0,
            io: Io::More,
        },
        _ => {
            log::debug!("Client closed connection {}", describe::describe(server, c));
            Net::close_asap(&mut server.net.close_asap, c);
            NOTHING
        }
    }
}

/// Runs the complete commands of `buffer`, and keeps the rest for later. If `shared`, `buffer` is
/// the read buffer that all clients share, otherwise the client's own query buffer.
fn process_input_buffer(server: &mut Server, c: &mut Client, mut buffer: Vec<u8>, shared: bool) {
    let mut table = std::mem::take(&mut server.net.parsed);
    let mut pos = 0;
    server.clock.last = ticks::now();
    c.reply.lend(&mut server.net.spare_replies);
    c.reply.limit = server.config.client_output_buffer_limit[c.class() as usize].hard as usize;
    while can_go_on(c) {
        table.clear();
        let mut open = c.open.take();
        let limits = limits_of(server, c);
        let began = pos;
        let status = resp::parse(&buffer, &mut pos, limits, &mut table, &mut open);
        c.open = open;
        let stopped = if c.has(flag::PRIMARY) {
            run_primary_batch(server, c, &buffer, began..pos, &table)
        } else {
            run_batch(server, c, &buffer, &table, |_, _, _, _| {})
        };
        if let Some(at) = stopped {
            pos = at;
            c.open = None;
            break;
        }
        match status {
            Status::Full => {}
            Status::Partial => break,
            // A client that may not run commands now gets the protocol error later: when it may,
            // the bytes are parsed again.
            Status::Invalid(_) if !can_go_on(c) => {
                c.open = None;
                break;
            }
            Status::Invalid(text) => {
                protocol_error(server, c, &text, &buffer[pos..]);
                pos = buffer.len();
                break;
            }
        }
    }
    table.finish();
    server.net.parsed_memory = table.memory();
    server.net.parsed = table;
    keep_rest(server, c, &mut buffer, pos, shared);
    if shared {
        buffer.clear();
        server.net.read_buffer = buffer;
    }
    if c.has(flag::PRIMARY) {
        apply::read_applied(server, c);
    }
    finish(server, c);
}

/// Runs requests that were read from the client's socket earlier, or that come from no socket. The
/// replies are appended to `c.reply`.
pub fn feed(server: &mut Server, c: &mut Client, mut bytes: &[u8]) {
    if let Some(big) = c.open.as_mut().and_then(|open| open.big.as_mut()) {
        let (part, rest) = bytes.split_at(big.missing().min(bytes.len()));
        big.bytes.extend_from_slice(part);
        if big.missing() > 0 {
            return;
        }
        bytes = rest;
    }
    let mut buffer = std::mem::take(&mut c.querybuf);
    buffer.extend_from_slice(bytes);
    process_input_buffer(server, c, buffer, false);
}

/// Stores the bytes of requests that did not run in the client's query buffer: a partial command,
/// or commands that must wait.
fn keep_rest(server: &mut Server, c: &mut Client, buffer: &mut Vec<u8>, pos: usize, shared: bool) {
    if let Some(kept) = c.open.as_ref().and_then(|open| open.kept()) {
        buffer.truncate(pos + kept);
    }
    let rest = buffer.len().saturating_sub(pos);
    if !shared {
        // An empty query buffer keeps its memory, since a client that sent one request in pieces
        // will probably send others in pieces. The cron frees an empty query buffer when the client
        // is idle.
        buffer.drain(..pos.min(buffer.len()));
        c.querybuf = std::mem::take(buffer);
    } else if rest > 0 {
        if c.querybuf.capacity() < rest {
            c.querybuf = Vec::with_capacity(rest.next_power_of_two().max(OWN_BUFFER));
        }
        c.querybuf.extend_from_slice(&buffer[pos..]);
    }
    if rest > 0 {
        check_query_limit(server, c);
    }
}

/// Closes the client if its requests that have not run, MULTI's queue included, have more bytes
/// than `client-query-buffer-limit`.
fn check_query_limit(server: &mut Server, c: &mut Client) {
    let held = c.querybuf_len();
    c.querybuf_peak = c.querybuf_peak.max(held);
    let queued = c.multi.as_ref().map_or(0, |multi| multi.argv_len());
    let limit = server.config.client_query_buffer_limit;
    if (held + queued) as u64 <= limit || c.has(flag::PRIMARY) {
        return;
    }
    log::warn!(
        "Closing client that reached max query buffer length: {} (qbuf initial bytes: {})",
        describe::describe(server, c),
        quote::repr(&c.querybuf[..c.querybuf.len().min(64)]),
    );
    server.stats.query_buffer_limit_disconnections += 1;
    Net::close_asap(&mut server.net.close_asap, c);
}

/// Adds a client with replies to the list of clients to which `before_sleep` sends.
fn finish(server: &mut Server, c: &mut Client) {
    if !c.reply.is_empty() || c.reply.overflowed() {
        Net::mark_pending(&mut server.net.pending_write, c);
        output_limit::check_output_limit(server, c);
    } else if c.has(flag::CLOSE_AFTER_REPLY) {
        Net::close_asap(&mut server.net.close_asap, c);
    }
    memory::note_turn(server, c);
}

fn can_go_on(c: &Client) -> bool {
    const STOPS: u64 =
        flag::BLOCKED | flag::UNBLOCKED | flag::HELD | flag::CLOSE_ASAP | flag::CLOSE_AFTER_REPLY;
    !c.has(STOPS)
}

fn limits_of(server: &Server, c: &Client) -> Limits {
    let unauthenticated = !c.authenticated && server.acl.auth_required();
    // A value that the primary has stored must not be refused, but a length that no server can hold
    // means a broken stream. An announced length takes no memory before its bytes have arrived.
    let max_bulk_len = match c.must_obey() {
        true => server.config.proto_max_bulk_len.max(STORED_BULK_MAX),
        false => server.config.proto_max_bulk_len,
    };
    Limits {
        max_bulk_len,
        unauthenticated,
        max_commands: if unauthenticated { 1 } else { AHEAD_MAX },
    }
}

/// Runs the parsed commands in `table`, in order, and calls `has_run` after each of them. Returns
/// the position in `buffer` of the first command that did not run; `None` if all ran.
fn run_batch(
    server: &mut Server,
    c: &mut Client,
    buffer: &[u8],
    table: &ParseTable,
    mut has_run: impl FnMut(&mut Server, &Client, &Parsed, &[&[u8]]),
) -> Option<usize> {
    let mut argvs: Vec<&[u8]> = Vec::with_capacity(table.args.len());
    argvs.extend(table.args.iter().map(|&range| table.slice(buffer, range)));
    // Most clients send no pipelines, so a short batch uses a short array, which costs less to
    // clear.
    let (mut few, mut many);
    let ids = match table.commands.len() {
        n @ ..FEW => {
            few = [None; FEW];
            &mut few[..n]
        }
        n => {
            many = [None; AHEAD_MAX];
            &mut many[..n]
        }
    };
    let is_routed = prefetch::look_up_and_prefetch(server, c, table, &argvs, ids);
    if is_routed {
        server.armed &= !armed::ROUTE;
        c.hash_slot = NO_SLOT;
    }
    if server.armed & armed::TRACE != 0 {
        trace_batch(server, c, table.commands.len());
    }
    let mut stopped = None;
    for (command, &id) in table.commands.iter().zip(ids.iter()) {
        if !can_go_on(c) {
            stopped = Some(command.start);
            break;
        }
        let argv = &argvs[command.first..command.first + command.argc];
        c.last_cmd = id.or(c.last_cmd);
        process_command(server, c, argv, id, table.sent(buffer, command));
        has_run(server, c, command, argv);
    }
    server.hashes.clear();
    if is_routed {
        server.armed |= armed::ROUTE;
    }
    stopped
}

/// Records spans for the trace: the read of the bytes, if it was not recorded yet, and the parsing.
#[cold]
fn trace_batch(server: &mut Server, c: &Client, requests: usize) {
    let (trace, stats) = (&mut server.trace, &server.stats);
    let parsing_since = server.clock.last;
    let (reads, bytes) = (stats.reads_processed, stats.net_input_bytes);
    if reads != trace.reads_seen.0 {
        let read = bytes.wrapping_sub(trace.reads_seen.1);
        trace.reads_seen = (reads, bytes);
        trace.span(EventKind::Read, trace.mark, parsing_since, c.id, read);
    }
    if requests > 0 {
        let now = ticks::now();
        trace.span(EventKind::Parse, parsing_since, now, c.id, requests as u64);
        server.clock.last = now;
    }
}

/// Runs the commands in `table`, which were parsed from the primary's stream and occupy `range` of
/// the buffer. Returns the position in the buffer of the first command that did not run; `None` if
/// all ran.
fn run_primary_batch(
    server: &mut Server,
    c: &mut Client,
    buffer: &[u8],
    range: std::ops::Range<usize>,
    table: &ParseTable,
) -> Option<usize> {
    let mut applied = range.start;
    server.replication.applying = true;
    let stopped = run_batch(server, c, buffer, table, |server, c, command, argv| {
        if table.bigs.is_empty() {
            apply::command_applied(server, c, &buffer[applied..command.end], argv);
        } else {
            apply::gap_applied(server, c, &buffer[applied..command.start]);
            apply::command_applied(server, c, &[], argv);
        }
        applied = command.end;
    });
    server.replication.applying = false;
    if stopped.is_none() {
        apply::gap_applied(server, c, &buffer[applied..range.end]);
    }
    stopped
}

fn protocol_error(server: &mut Server, c: &mut Client, text: &str, rest: &[u8]) {
    let rest = if server.config.hide_user_data_from_log {
        &b"*redacted*"[..]
    } else {
        rest
    };
    // A primary's stream that can't be parsed costs a full resync, so that is a warning.
    let level = match c.has(flag::PRIMARY) {
        true => log::Level::Warn,
        false => log::Level::Debug,
    };
    log::log!(
        level,
        "Protocol error ({text}) from client: {}. Query buffer: '{}'",
        describe::describe(server, c),
        printable_excerpt(rest),
    );
    if c.has(flag::REPLY_SKIP_NEXT) {
        c.set(flag::REPLY_SKIP);
    }
    let reply_from = c.reply.mark();
    c.reply
        .error(&Error::new(format!("ERR Protocol error: {text}")));
    c.drop_unwanted_reply(reply_from);
    server.stats.count_error("ERR");
    c.set(flag::CLOSE_AFTER_REPLY);
    c.open = None;
}

/// The beginning and the end of a request that could not be parsed, for the log.
fn printable_excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 128;
    let printable = |bytes| printable(bytes, SHOWN);
    if bytes.len() < SHOWN {
        return printable(bytes);
    }
    let (head, tail) = (&bytes[..SHOWN / 2], &bytes[bytes.len() - SHOWN / 2..]);
    format!(
        "{} (... more {} bytes ...) {}",
        printable(head),
        bytes.len() - SHOWN,
        printable(tail)
    )
}

/// Runs the buffered requests of clients that were unblocked.
pub fn process_unblocked_clients(server: &mut Server) {
    while let Some(r) = server.blocked.unblocked.pop_front() {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        c.clear(flag::UNBLOCKED);
        blocked::run_postponed(server, &mut c);
        if can_go_on(&c) && !c.querybuf.is_empty() {
            let buffer = std::mem::take(&mut c.querybuf);
            process_input_buffer(server, &mut c, buffer, false);
        } else {
            finish(server, &mut c);
        }
        server.net.clients.put(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networking::accept;
    use crate::testing::server_with;
    use ae::Events;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// The bytes that the loop grants a client in one turn. This budget is checked between two
    /// reads, so a client exceeds it by less than one read.
    const BUDGET: usize = 3 * READ_MAX / 2;

    #[test]
    fn a_client_that_sends_without_end_has_one_budget_in_a_turn() {
        let path = std::env::temp_dir().join(format!("aeris-budget-{}", std::process::id()));
        let mut server = server_with(0);
        server.config.port = 0;
        server.config.unixsocket = path.to_str().expect("a path of text").into();
        let mut el = EventLoop::new(64).expect("a loop");
        el.set_budget(BUDGET);
        accept::listen(&mut server, Default::default()).expect("a socket");
        accept::watch_listeners(&mut el, &mut server).expect("watched");
        let mut client = UnixStream::connect(&path).expect("connected");
        std::fs::remove_file(&path).expect("the socket's file");
        client.set_nonblocking(true).expect("a flag");
        let mut read = || {
            // The test's client sends more bytes than the server reads and the socket's buffer
            // holds.
            let _ = client.write(&b"PING\r\n".repeat(READ_MAX));
            let turn = el.process_events(&mut server, Events::FILES | Events::DONT_WAIT);
            turn.expect("a turn");
            let bytes = server.net.clients.iter().map(|c| c.net_in).sum::<u64>();
            bytes as usize
        };
        assert_eq!(read(), 0, "accepted");
        let mut before = 0;
        for _ in 0..3 {
            let all = read();
            let moved = all - before;
            assert!((BUDGET..BUDGET + READ_MAX).contains(&moved), "{moved}");
            before = all;
        }
    }
}
