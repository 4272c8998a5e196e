//! The monitor port: serves figures of the server over HTTP, in the main event loop.
//!
//! ```text
//!   accept_handler ─> accept ─> Visit { input, output }
//!   read_handler ─> input ─> request::parse ─> route ─┬─ /metrics ─> metrics::render
//!                                                     ├─ /healthz ─> health::report
//!                                                     └─ /, /live.json, /events ─> live
//!   output ─> flush ─> socket;  full: write_handler goes on
//!   timer_handler, twice a second: a snapshot for each reader of /events,
//!                                  closes connections that have been idle for too long
//! ```
//!
//! Connections of the monitor port are not clients: they run no commands, have no user and are not
//! in CLIENT LIST. The monitor port is served in `Class::First`, so that a server under load can be
//! watched; requests come every few seconds, and a reply takes about as long as INFO.
//!
//! The port is off by default, and listens on loopback addresses unless `monitor-bind` has others:
//! requests are not authenticated.
//!
//! **Invariant:** a connection of the monitor port has at most one unsent reply and gets at most
//! one reply in a turn; its next request is parsed when the reply has been sent. So a client that
//! does not read costs the memory of one reply, and a client that sends many requests at once does
//! not block the event loop. A reader of /events gets no further snapshot until its socket has
//! accepted the last one; the next snapshot then has all turns since the last one. After its last
//! reply a connection of the monitor port is not closed at once: with unread bytes in the socket,
//! the client would get a TCP reset, perhaps before it has read the reply. So the client's bytes
//! are read and dropped until the client closes the connection.
//!
//! **Limits:** the monitor port has at most [`VISITS`] connections. A further connection takes the
//! place of the connection that has been idle for the longest time, so that open pages, half
//! requests and unused connections do not keep a load balancer from /healthz. If all connections
//! have an unsent reply, the further connection is closed at once. Idle connections are closed
//! after [`IDLE_MS`], connections that were sent their last reply after [`LINGER_MS`] or
//! [`LINGER_BYTES`].

mod exposition;
mod fields;
mod health;
mod live;
mod metrics;
mod protobuf;
mod request;

use ae::{EventLoop, Io, Mask, TimerId, Token};
use std::io;
use std::time::Duration;

use crate::connection::Connection;
use crate::connection::listener::Accepted;
use crate::networking::http::fields::Fields;
use crate::networking::http::request::{MAX_HEAD, Request, Status};
use crate::observe::type_memory::TypeMemory;
use crate::state::Server;

/// The maximum number of connections of the monitor port.
pub const VISITS: usize = 32;
/// The time after which a connection without traffic is closed, in milliseconds.
const IDLE_MS: i64 = 60_000;
/// The time for which a connection is still read after its last reply, in milliseconds.
const LINGER_MS: i64 = 5_000;
/// The maximum number of bytes that are read and dropped after the last reply of a connection.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// The maximum number of bytes of one read after the last reply, which are dropped.
const LINGER_READ: usize = 64 * 1024;
/// The interval of snapshots for /events, and of the check for idle connections.
const TICK: Duration = Duration::from_millis(500);
/// The maximum number of bytes of one read of requests.
const READ_BYTES: usize = 4096;

/// A connection of the monitor port.
struct Visit {
    conn: Connection,
    token: Token,
    /// The number of connections that were accepted up to this one.
    number: u64,
    /// Whether the client of the connection runs on the server's machine.
    from_here: bool,
    /// Bytes of requests that have no reply yet.
    input: Vec<u8>,
    output: Vec<u8>,
    /// The number of bytes of `output` that have been sent.
    sent: usize,
    close_after_reply: bool,
    /// Whether the client has ended its direction of the connection, so that no further request can
    /// come.
    input_ended: bool,
    /// After the last reply of the connection: the number of bytes that may still be read and
    /// dropped.
    lingers: Option<usize>,
    /// For a reader of /events: the time (Unix microseconds) up to which the reader has got the
    /// turns of the event loop.
    events: Option<i64>,
    /// Whether the socket must be read again, since `input` had no room for more bytes.
    unread: bool,
    /// The Unix time in milliseconds of the last read or write.
    active_ms: i64,
}

/// All connections of the monitor port.
#[derive(Default)]
pub struct Visits {
    slots: Vec<Option<Box<Visit>>>,
    /// The number of connections that were accepted.
    accepted: u64,
    timer: bool,
    /// The estimate of memory by type; `None` while no live page is open.
    pub type_memory: Option<TypeMemory>,
}

impl Visits {
    /// Whether a live page is open.
    pub fn has_reader(&self) -> bool {
        let mut visits = self.slots.iter().flatten();
        visits.any(|visit| visit.events.is_some())
    }

    fn free_slot(&mut self) -> Option<usize> {
        if let Some(free) = self.slots.iter().position(Option::is_none) {
            return Some(free);
        }
        if self.slots.len() == VISITS {
            return None;
        }
        self.slots.push(None);
        Some(self.slots.len() - 1)
    }

    /// Closes the connection that has been idle for the longest time and has no unsent reply other
    /// than a snapshot, and returns its slot.
    fn free_oldest(&mut self, el: &mut EventLoop<Server>) -> Option<usize> {
        let visits = self.slots.iter().enumerate();
        let may_go = visits.filter_map(|(slot, visit)| Some((slot, visit.as_ref()?)));
        let may_go = may_go.filter(|(_, v)| v.output.is_empty() || v.events.is_some());
        let (slot, _) = may_go.min_by_key(|(_, visit)| (visit.active_ms, visit.number))?;
        let visit = self.slots[slot].take()?;
        el.remove_file(visit.token);
        Some(slot)
    }
}

/// Takes over a connection that the listener of the monitor port has accepted, or closes the
/// connection if there are too many.
pub fn accept(el: &mut EventLoop<Server>, server: &mut Server, accepted: Accepted) {
    let visits = &mut server.visits;
    let Some(slot) = visits.free_slot().or_else(|| visits.free_oldest(el)) else {
        return;
    };
    visits.accepted += 1;
    let number = visits.accepted;
    let Accepted { conn, remote, .. } = accepted;
    let token = match el.add_file(conn.raw_fd(), ae::Class::First, slot as u64) {
        Ok(token) => token,
        Err(e) => {
            log::warn!("Error registering fd event for the monitor port: {e}");
            return;
        }
    };
    el.set_handler(token, Mask::READABLE, read_handler);
    server.visits.slots[slot] = Some(Box::new(Visit {
        conn,
        token,
        number,
        from_here: !remote,
        input: Vec::new(),
        output: Vec::new(),
        sent: 0,
        close_after_reply: false,
        input_ended: false,
        lingers: None,
        events: None,
        unread: false,
        active_ms: server.clock.now_ms,
    }));
    if !std::mem::replace(&mut server.visits.timer, true) {
        el.add_timer(TICK, 0, timer_handler);
    }
}

fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    with_visit(el, server, token, |server, visit| {
        if let Some(left) = visit.lingers {
            return drop_input(visit, left);
        }
        let room = MAX_HEAD.saturating_sub(visit.input.len());
        let mut io = Io::Drained;
        if room == 0 {
            // The input is full of complete requests: the socket is read again after these requests
            // got their replies.
            visit.unread = true;
        } else if !visit.input_ended {
            io = read(visit, room.min(READ_BYTES))?;
            visit.active_ms = server.clock.now_ms;
        }
        serve(server, visit)?;
        Ok(io)
    })
}

/// Reads requests of a connection. The end of the client's bytes is no error while requests may
/// have no reply yet; for a reader of /events, which waits for no reply, this end is an error,
/// which closes the connection.
fn read(visit: &mut Visit, max: usize) -> io::Result<Io> {
    match visit.conn.read_into(&mut visit.input, max) {
        Ok(read) => Ok(read.io),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && visit.events.is_none() => {
            visit.input_ended = true;
            Ok(Io::Drained)
        }
        Err(e) => Err(e),
    }
}

/// Drops bytes that a client sends after its last reply, up to `left` bytes. If an error is
/// returned, the caller closes the connection.
fn drop_input(visit: &mut Visit, left: usize) -> io::Result<Io> {
    let mut dropped = Vec::new();
    let read = visit.conn.read_into(&mut dropped, LINGER_READ)?;
    let left = left.checked_sub(read.bytes);
    visit.lingers = Some(left.ok_or(io::ErrorKind::ConnectionAborted)?);
    Ok(read.io)
}

fn write_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    with_visit(el, server, token, |server, visit| {
        visit.active_ms = server.clock.now_ms;
        serve(server, visit)?;
        Ok(Io::Drained)
    })
}

/// Runs `work` on the connection of `token`, which is taken out of `Visits::slots` meanwhile. If
/// `work` returns an error, the connection is closed. If a part of the reply is unsent, the event
/// loop watches for room in the socket.
fn with_visit(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    token: Token,
    work: impl FnOnce(&mut Server, &mut Visit) -> io::Result<Io>,
) -> Io {
    let slot = el.data(token).map(|slot| slot as usize);
    let Some((slot, mut visit)) =
        slot.and_then(|at| Some((at, server.visits.slots.get_mut(at)?.take()?)))
    else {
        return Io::Drained;
    };
    let Ok(io) = work(server, &mut visit) else {
        el.remove_file(token);
        return Io::Drained;
    };
    let waits = visit.sent < visit.output.len();
    if !waits && std::mem::take(&mut visit.unread) {
        el.mark_ready(token, Mask::READABLE);
    }
    match waits {
        true => el.set_handler(token, Mask::WRITABLE, write_handler),
        false => el.clear_handler(token, Mask::WRITABLE),
    }
    server.visits.slots[slot] = Some(visit);
    io
}

/// Sends the unsent part of the reply, then handles one request, if a complete request has arrived.
/// The next request is handled in the next turn. If an error is returned, the caller closes the
/// connection.
fn serve(server: &mut Server, visit: &mut Visit) -> io::Result<()> {
    if !flush(visit)? {
        return Ok(());
    }
    if visit.events.is_some() {
        // Bytes that a reader of /events sends are ignored; the timer sends the next snapshot.
        visit.input.clear();
        return match visit.input_ended {
            true => linger(visit),
            false => Ok(()),
        };
    }
    if visit.close_after_reply {
        return linger(visit);
    }
    match request::parse(&visit.input, visit.from_here) {
        Ok(None) if visit.input_ended => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(None) => return Ok(()),
        Ok(Some((request, length))) => {
            visit.input.drain(..length);
            answer(server, visit, &request);
        }
        Err(status) => {
            visit.close_after_reply = true;
            let (status, content_type, body) = plain(status);
            visit.output = response(status, content_type, &body, false, false);
        }
    }
    if flush(visit)? {
        if visit.close_after_reply || visit.events.is_some() && visit.input_ended {
            return linger(visit);
        }
        // The socket is marked as unread, so that the next turn parses the next request, or notices
        // the end of the input.
        visit.unread |= !visit.input.is_empty() || visit.input_ended;
    }
    Ok(())
}

/// Ends the server's direction of the connection, so that bytes which the client still sends are
/// dropped. Returns an error, which closes the connection, if the client has ended its direction,
/// too.
fn linger(visit: &mut Visit) -> io::Result<()> {
    if visit.input_ended {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if visit.lingers.is_none() {
        visit.conn.end_output()?;
        visit.input = Vec::new();
        visit.lingers = Some(LINGER_BYTES);
        visit.unread = true;
    }
    Ok(())
}

/// Puts the reply to a request into the output of the connection.
fn answer(server: &mut Server, visit: &mut Visit, request: &Request) {
    if request.path == "/events" {
        let mut reply = events_head(request.keep_alive).into_bytes();
        if request.head_only {
            visit.close_after_reply = !request.keep_alive;
        } else {
            visit.events = Some(server.clock.now_us);
            reply.extend(event(&live::snapshot(server, 0)));
        }
        visit.output = reply;
    } else {
        visit.close_after_reply = !request.keep_alive;
        visit.output = reply_to(server, request);
    }
}

/// Sends as many bytes of the reply as the socket accepts. Returns whether the whole reply was
/// sent.
fn flush(visit: &mut Visit) -> io::Result<bool> {
    while visit.sent < visit.output.len() {
        let written = visit.conn.write(&visit.output[visit.sent..])?;
        visit.sent += written.bytes;
        if written.io == Io::Drained {
            return Ok(false);
        }
    }
    visit.output = Vec::new();
    visit.sent = 0;
    Ok(true)
}

/// The bytes of the HTTP reply to a request.
fn reply_to(server: &mut Server, request: &Request) -> Vec<u8> {
    let (status, content_type, body) = match request.path.as_str() {
        "/metrics" => {
            let metrics = metrics::render(server, request.format);
            (Status::Ok, request.format.content_type(), metrics)
        }
        "/healthz" => {
            let fields = Fields::take(server);
            let (status, body) = health::report(&fields, server);
            (status, "application/json", body.into_bytes())
        }
        "/" => {
            let text = live::page(&Fields::take(server));
            (Status::Ok, "text/html; charset=utf-8", text.into_bytes())
        }
        "/live.json" => {
            let text = live::snapshot(server, 0);
            (Status::Ok, "application/json", text.into_bytes())
        }
        _ => plain(Status::NotFound),
    };
    response(
        status,
        content_type,
        &body,
        request.head_only,
        request.keep_alive,
    )
}

/// An HTTP reply whose body is the text of its status.
fn plain(status: Status) -> (Status, &'static str, Vec<u8>) {
    let text = format!("{}\n", status.line());
    (status, "text/plain", text.into_bytes())
}

fn response(
    status: Status,
    content_type: &str,
    body: &[u8],
    head_only: bool,
    keep_alive: bool,
) -> Vec<u8> {
    let connection = connection(keep_alive);
    let allow = match status {
        Status::NotAllowed => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let mut out = format!(
        "HTTP/1.1 {}\r\n{allow}Content-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: {connection}\r\n\r\n",
        status.line(),
        body.len()
    )
    .into_bytes();
    if !head_only {
        out.extend_from_slice(body);
    }
    out
}

/// The value of the header Connection.
fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "keep-alive" } else { "close" }
}

/// The HTTP head of a stream of server-sent events.
fn events_head(keep_alive: bool) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: {}\r\n\r\n",
        connection(keep_alive)
    )
}

/// A snapshot for the live page as a server-sent event.
fn event(snapshot: &str) -> Vec<u8> {
    format!("data: {snapshot}\n\n").into_bytes()
}

/// Sends snapshots to the readers of /events, and closes the connections that have been idle for
/// too long. The timer ends with the last connection of the monitor port.
fn timer_handler(el: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    let now_ms = server.clock.now_ms;
    for slot in &mut server.visits.slots {
        let idle = |visit: &mut Box<Visit>| {
            let limit_ms = visit.lingers.map_or(IDLE_MS, |_| LINGER_MS);
            now_ms.saturating_sub(visit.active_ms) > limit_ms
        };
        if let Some(visit) = slot.take_if(idle) {
            el.remove_file(visit.token);
        }
    }
    send_snapshots(el, server);
    server.visits.timer = server.visits.slots.iter().any(Option::is_some);
    server.visits.timer.then_some(TICK)
}

/// Sends a snapshot to each reader of /events whose socket has accepted the last snapshot. Readers
/// that have got the same turns share a snapshot.
fn send_snapshots(el: &mut EventLoop<Server>, server: &mut Server) {
    let visits = server.visits.slots.iter().flatten();
    let ready = visits.filter(|visit| visit.output.is_empty());
    let ready: Vec<(Token, i64)> = ready.filter_map(|v| Some((v.token, v.events?))).collect();
    let now_us = server.clock.now_us;
    let mut last: Option<(i64, String)> = None;
    for (token, seen_us) in ready {
        let text = match last.take() {
            Some((seen, text)) if seen == seen_us => text,
            _ => live::snapshot(server, seen_us),
        };
        with_visit(el, server, token, |server, visit| {
            visit.output = event(&text);
            visit.events = Some(now_us);
            if flush(visit)? {
                visit.active_ms = server.clock.now_ms;
            }
            Ok(Io::Drained)
        });
        last = Some((seen_us, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::listener::ListenerKind;
    use crate::testing::server_with;
    use ae::Events;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A server, its event loop, and the client's end of a connection to the server's monitor port.
    fn visited() -> (Server, EventLoop<Server>, UnixStream) {
        let mut server = server_with(0);
        server.turns = Some(Default::default());
        let mut el = EventLoop::new(64).expect("a loop");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("non-blocking");
        let accepted = Accepted {
            kind: ListenerKind::Monitor,
            peer_uid: None,
            conn: Connection::unix(ours),
            peer: String::new(),
            local: String::new(),
            remote: false,
        };
        accept(&mut el, &mut server, accepted);
        (server, el, theirs)
    }

    #[test]
    fn pipelined_requests_take_a_turn_each() {
        let (mut server, mut el, mut theirs) = visited();
        let count = 300;
        let requests = "GET /healthz HTTP/1.1\r\n\r\n".repeat(count);
        theirs.write_all(requests.as_bytes()).expect("sent");
        theirs.set_nonblocking(true).expect("non-blocking");
        let mut received = Vec::new();
        for turn in 1..=count {
            let what = Events::FILES | Events::DONT_WAIT;
            el.process_events(&mut server, what).expect("a turn");
            // When all bytes that have arrived are read, a non-blocking socket reports WouldBlock.
            let _ = theirs.read_to_end(&mut received);
            let text = String::from_utf8_lossy(&received);
            assert_eq!(text.matches("HTTP/1.1 ").count(), turn);
        }
    }

    /// A client of /events that does not read costs the memory of one snapshot beyond the bytes in
    /// its socket, and gets the turns that it missed when it reads again.
    #[test]
    fn events_do_not_pile_up() {
        let (mut server, mut el, mut theirs) = visited();
        let request = b"GET /events HTTP/1.1\r\n\r\n";
        theirs.write_all(request).expect("sent");
        let turn = |server: &mut Server, el: &mut EventLoop<Server>| {
            let what = Events::FILES | Events::DONT_WAIT;
            el.process_events(server, what).expect("a turn");
            send_snapshots(el, server);
        };
        let one = live::snapshot(&mut server, 0).len();
        for _ in 0..1000 {
            turn(&mut server, &mut el);
        }
        let waiting = server.visits.slots[0].as_ref().expect("open").output.len();
        assert!(waiting > 0, "the socket is full");
        assert!(waiting < 2 * one, "{waiting} bytes for snapshots of {one}");
        theirs.set_nonblocking(true).expect("non-blocking");
        let mut received = Vec::new();
        for _ in 0..3 {
            // When all bytes that have arrived are read, a non-blocking socket reports WouldBlock.
            let _ = theirs.read_to_end(&mut received);
            turn(&mut server, &mut el);
        }
        let text = String::from_utf8(received).expect("text");
        let events = text.matches("data: ").count();
        assert!(events > 1 && text.ends_with("\n\n"), "{events} events");
    }
}
