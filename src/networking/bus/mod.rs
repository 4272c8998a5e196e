//! The cluster bus: its sockets, and the timer of the cluster's state machine.
//!
//! ```text
//!   accept ── Accepted ─────────┐
//!   read_handler ── Packet ─────┼─> member::step ─> Member::wire ─> execute ─┬─ connect
//!   write_handler ── Connected ─┤                                            ├─ queue ─> send
//!   timer_handler ── Tick ──────┘                                            └─ close
//! ```
//!
//! The actions of each step of the cluster's state machine are executed before the next step. A
//! message that goes to many nodes is encoded once, and its bytes are shared. The fds of the bus
//! are in `Class::First`, so packets are read before the requests of clients, and are read in
//! nested turns too ([`serve`]).
//!
//! **Invariant:** a link of the bus is in `links` from the action `Connect` or the accept until the
//! action `Close`, or until the state machine got the event `Closed`; the fd of a link is removed
//! from the event loop before it is closed.
//! **Limits:** a link of the bus whose output exceeds `cluster-link-sendbuf-limit` is closed. A
//! change of `tls-cluster` affects only links that are opened later.

mod node;
mod timer;

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use ae::{Class, EventLoop, Io, Mask, Token};

use crate::cluster::event::{Event, LinkId, Wire};
use crate::cluster::name::Ip;
use crate::cluster::packet::{Message, Purpose, frame_len};
use crate::connection::connect::{connect, numeric, source_address};
use crate::connection::listener::Accepted;
use crate::connection::{Connection, State};
use crate::member;
use crate::observe::trace::event::EventKind;
use crate::state::Server;
use crate::sys::{error_text, ticks};

pub use self::timer::{serve, turn};

/// The maximum number of bytes of one read from a link of the bus.
const READ_BYTES: usize = 64 * 1024;

/// One connection of the cluster bus.
pub struct BusLink {
    /// `None` if the TLS session could not begin, so that the link is about to be removed.
    conn: Option<Connection>,
    /// The address to which this link connects with TLS; `None` for accepted links and without TLS.
    secure: Option<SocketAddr>,
    token: Token,
    input: Vec<u8>,
    output: VecDeque<Rc<[u8]>>,
    /// The number of bytes of the first element of `output` that were sent.
    sent: usize,
    /// The number of bytes in `output` that were not sent yet.
    pub queued: usize,
    /// The IP addresses of the peer (`peer`) and of this end (`local`), which is empty until the
    /// link is connected.
    peer: Ip,
    local: Ip,
    /// The Unix time in milliseconds at which the link was opened or accepted.
    pub created_ms: i64,
}

/// The bytes of bus messages for one purpose, such as Pub/Sub, since the start.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

/// All connections of the cluster bus.
#[derive(Default)]
pub struct Bus {
    pub links: HashMap<LinkId, BusLink>,
    /// Links with new output, for which [`send`] was not called yet.
    unsent: Vec<LinkId>,
    /// The number of links that were closed because their output exceeded
    /// `cluster-link-sendbuf-limit`, for CLUSTER INFO.
    pub limit_exceeded: u64,
    /// Bytes sent to other nodes since the start.
    pub bytes_sent: u64,
    /// Bytes received from other nodes since the start.
    pub bytes_received: u64,
    /// The bytes of messages that carry PUBLISH and SPUBLISH.
    pub published: Traffic,
    /// The bytes of messages that carry data of modules.
    pub modules: Traffic,
    timer: timer::Alarm,
}

impl Bus {
    /// The counter to which bus messages with this purpose are added; `None` for messages of the
    /// cluster itself.
    fn traffic(&mut self, purpose: Purpose) -> Option<&mut Traffic> {
        match purpose {
            Purpose::Published => Some(&mut self.published),
            Purpose::Module => Some(&mut self.modules),
            Purpose::Cluster => None,
        }
    }

    /// The memory of all links with their buffers, in bytes.
    pub fn memory(&self) -> usize {
        let of = |link: &BusLink| link.queued + link.input.capacity() + size_of::<BusLink>();
        self.links.values().map(of).sum()
    }
}

/// Takes over a connection that the listener of the cluster bus has accepted.
pub fn accept(el: &mut EventLoop<Server>, server: &mut Server, accepted: Accepted) {
    let Some(member) = &mut server.cluster else {
        return;
    };
    let link = member.machine.new_link();
    let [peer, local] = [&accepted.peer, &accepted.local].map(|address| ip_of(address));
    let materials = server.config.tls_cluster.then(|| server.tls.needed());
    let conn = match materials.transpose() {
        Ok(None) => Ok(accepted.conn),
        Ok(Some(materials)) => accepted.conn.accept_tls(materials),
        Err(e) => Err(e),
    };
    let conn = match conn {
        Ok(conn) => conn,
        Err(e) => {
            log::warn!(
                "Error accepting cluster node connection: {}",
                error_text(&e)
            );
            return;
        }
    };
    if add(el, server, link, conn, (None, [peer, local])) {
        member::step(server, Event::Accepted(link));
        execute(el, server);
    }
}

fn ip_of(address: &str) -> Ip {
    let address = address.parse::<SocketAddr>().ok();
    let ip = address.map(|address| address.ip().to_canonical().to_string());
    ip.and_then(|ip| Ip::parse(ip.as_bytes()))
        .unwrap_or_default()
}

fn add(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    link: LinkId,
    conn: Connection,
    (secure, [peer, local]): (Option<SocketAddr>, [Ip; 2]),
) -> bool {
    let token = match el.add_file(conn.raw_fd(), Class::First, link.0) {
        Ok(token) => token,
        Err(e) => {
            log::warn!("Error registering fd event for the cluster bus: {e}");
            return false;
        }
    };
    el.set_handler(token, Mask::READABLE, read_handler);
    el.set_handler(token, Mask::WRITABLE, write_handler);
    let added = BusLink {
        conn: Some(conn),
        secure,
        token,
        input: Vec::new(),
        output: VecDeque::new(),
        sent: 0,
        queued: 0,
        peer,
        local,
        created_ms: server.clock.now_ms,
    };
    server.bus.links.insert(link, added);
    true
}

/// Executes the queued actions of the cluster's state machine, and sends the output of the links.
fn execute(el: &mut EventLoop<Server>, server: &mut Server) {
    loop {
        let Some(member) = &mut server.cluster else {
            return;
        };
        let actions = std::mem::take(&mut member.wire);
        if actions.is_empty() && server.bus.unsent.is_empty() {
            return;
        }
        let mut encoded: Option<(Rc<Message>, Rc<[u8]>)> = None;
        for action in actions {
            match action {
                Wire::Connect { link, ip, port } => begin(el, server, link, ip, port),
                Wire::Close(link) => remove(el, server, link),
                Wire::Send { link, message } => {
                    let bytes = match &encoded {
                        Some((same, bytes)) if Rc::ptr_eq(same, &message) => Rc::clone(bytes),
                        _ => encode(&message),
                    };
                    if let Some(traffic) = server.bus.traffic(message.purpose()) {
                        traffic.sent += bytes.len() as u64;
                    }
                    queue(server, link, Rc::clone(&bytes));
                    encoded = Some((message, bytes));
                }
            }
        }
        for link in std::mem::take(&mut server.bus.unsent) {
            send(el, server, link);
        }
    }
}

fn encode(message: &Message) -> Rc<[u8]> {
    let mut bytes = Vec::with_capacity(message.encoded_len());
    message.encode(&mut bytes);
    bytes.into()
}

fn begin(el: &mut EventLoop<Server>, server: &mut Server, link: LinkId, ip: Ip, port: u16) {
    let source = source_address(&server.config);
    let Some(address) = numeric(ip.as_str(), port) else {
        return member::step(server, Event::Closed(link));
    };
    let connected = match connect(address, source) {
        Err(_) if source.is_some() => connect(address, None),
        result => result,
    };
    let made = match connected {
        Ok(conn) => {
            let secure = server.config.tls_cluster.then_some(address);
            add(el, server, link, conn, (secure, [ip, Ip::default()]))
        }
        Err(e) => {
            log::debug!(
                "Unable to connect to Cluster Node [{}]:{port} -> {}",
                ip.as_str(),
                error_text(&e)
            );
            false
        }
    };
    if !made {
        member::step(server, Event::Closed(link));
    }
}

fn queue(server: &mut Server, id: LinkId, bytes: Rc<[u8]>) {
    let bus = &mut server.bus;
    if let Some(link) = bus.links.get_mut(&id) {
        link.queued += bytes.len();
        link.output.push_back(bytes);
        bus.unsent.push(id);
    }
}

fn remove(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    if let Some(link) = server.bus.links.remove(&id) {
        el.remove_file(link.token);
    }
}

/// Removes a link whose connection has failed, and reports its end to the cluster's state machine.
fn lost(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    remove(el, server, id);
    member::step(server, Event::Closed(id));
}

/// Sends the output of a link, as many bytes as the socket accepts.
fn send(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    let (began, before) = (ticks::now(), server.bus.bytes_sent);
    write_output(el, server, id);
    let bytes = server.bus.bytes_sent - before;
    if bytes > 0 {
        server.traced(EventKind::BusWrite, began, bytes);
    }
}

fn write_output(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    let bus = &mut server.bus;
    let Some(link) = bus.links.get_mut(&id) else {
        return;
    };
    let Some(conn) = link
        .conn
        .as_mut()
        .filter(|conn| conn.state() == State::Open)
    else {
        return;
    };
    while let Some(piece) = link.output.front() {
        let written = match conn.write(&piece[link.sent..]) {
            Ok(written) => written,
            Err(e) => {
                log::debug!("I/O error writing to node link: {}", error_text(&e));
                lost(el, server, id);
                return;
            }
        };
        link.sent += written.bytes;
        link.queued -= written.bytes;
        bus.bytes_sent += written.bytes as u64;
        if link.sent == piece.len() {
            link.sent = 0;
            link.output.pop_front();
        }
        if written.io == Io::Drained {
            check_limit(el, server, id);
            return;
        }
    }
}

/// Closes a link whose unsent output exceeds `cluster-link-sendbuf-limit`.
fn check_limit(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    let limit = server.config.cluster_link_sendbuf_limit;
    let queued = server.bus.links.get(&id).map_or(0, |link| link.queued);
    if limit != 0 && queued as u64 > limit {
        log::warn!(
            "Freeing cluster link, exceeding the send buffer memory limit of {limit} bytes: {queued}"
        );
        server.bus.limit_exceeded += 1;
        lost(el, server, id);
    }
}

fn write_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(id) = el.data(token).map(LinkId) else {
        return Io::Drained;
    };
    if !establish(el, server, id) {
        return Io::Drained;
    }
    send(el, server, id);
    execute(el, server);
    // The handler returns `Drained`, so that the event loop does not call it again in each turn:
    // `execute` sends new output at once, and the poller reports when a full socket has room again.
    Io::Drained
}

/// Continues the connecting or the TLS handshake of a link. Returns whether the link is open;
/// closes a link that can't be connected.
fn establish(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) -> bool {
    let Server { bus, tls, .. } = server;
    let Some(link) = bus.links.get_mut(&id) else {
        return false;
    };
    let is_open = |conn: &Connection| conn.state() == State::Open;
    if link.conn.as_ref().is_some_and(is_open) && !link.local.is_empty() {
        return true;
    }
    match tls.advance(&mut link.conn, link.secure) {
        Ok(State::Open) => opened(el, server, id),
        Ok(_) => false,
        Err(e) => {
            if e.kind() == ErrorKind::InvalidData {
                log::warn!("TLS connection error on the cluster bus: {e}");
            }
            lost(el, server, id);
            execute(el, server);
            false
        }
    }
}

/// Reports to the cluster's state machine that a link can carry packets now. Returns whether the
/// link still exists afterwards.
fn opened(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) -> bool {
    let Some(link) = server.bus.links.get_mut(&id) else {
        return false;
    };
    let Some(conn) = &link.conn else {
        return false;
    };
    // The TLS session may have decrypted a packet already, which the poller does not report.
    if conn.is_tls() {
        el.mark_ready(link.token, Mask::READABLE);
    }
    if link.local.is_empty() {
        link.local = ip_of(&conn.local_address());
        member::step(server, Event::Connected(id));
        execute(el, server);
    }
    server.bus.links.contains_key(&id)
}

fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(id) = el.data(token).map(LinkId) else {
        return Io::Drained;
    };
    if !establish(el, server, id) {
        return Io::Drained;
    }
    let (began, before) = (ticks::now(), server.bus.bytes_received);
    let io = read_packets(el, server, id);
    let bytes = server.bus.bytes_received - before;
    server.traced(EventKind::BusRead, began, bytes);
    io
}

/// Reads and handles packets until the socket is empty, or the event loop's budget for one handler
/// is spent.
fn read_packets(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) -> Io {
    let mut budget = el.budget();
    while budget > 0
        && let Some(link) = server.bus.links.get_mut(&id)
    {
        let Some(conn) = &mut link.conn else {
            return Io::Drained;
        };
        let read = match conn.read_into(&mut link.input, READ_BYTES.min(budget)) {
            Ok(read) => read,
            Err(e) => {
                if e.kind() != ErrorKind::UnexpectedEof {
                    log::debug!("I/O error reading from node link: {}", error_text(&e));
                }
                lost(el, server, id);
                execute(el, server);
                return Io::Drained;
            }
        };
        budget -= read.bytes;
        server.bus.bytes_received += read.bytes as u64;
        take_packets(el, server, id);
        if read.io == Io::Drained {
            return Io::Drained;
        }
    }
    Io::More
}

/// Passes the complete packets in a link's input to the cluster's state machine.
fn take_packets(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    let Some(link) = server.bus.links.get_mut(&id) else {
        return;
    };
    let (peer, local) = (link.peer, link.local);
    let input = std::mem::take(&mut link.input);
    let mut used = 0;
    loop {
        let rest = &input[used..];
        let message = match frame_len(rest) {
            Ok(Some(len)) if rest.len() >= len => {
                used += len;
                let message = Message::parse(&rest[..len]);
                let purpose = message.as_ref().ok().map(Message::purpose);
                if let Some(traffic) = purpose.and_then(|purpose| server.bus.traffic(purpose)) {
                    traffic.received += len as u64;
                }
                message
            }
            Ok(_) => break,
            Err(e) => Err(e),
        };
        let message = match message {
            Ok(message) => message,
            Err(problem) => {
                log::warn!(
                    "Bad message received from [{}] through the cluster bus: {problem}",
                    peer.as_str()
                );
                lost(el, server, id);
                return execute(el, server);
            }
        };
        if let Some(kind) = server.debug.dropped_packets
            && (kind == -2 || kind == message.kind_index() as i64)
        {
            member::act(server, |machine, _, _| machine.count_received(&message));
            if !server.debug.close_link_at_drop {
                continue;
            }
            lost(el, server, id);
            return execute(el, server);
        }
        member::step(
            server,
            Event::Packet {
                link: id,
                peer,
                local,
                message: &message,
            },
        );
        execute(el, server);
        if !server.bus.links.contains_key(&id) {
            return;
        }
    }
    if let Some(link) = server.bus.links.get_mut(&id) {
        link.input = without_start(input, used);
    }
}

/// Removes the first `used` bytes from a link's input. If `used` is 0, nothing is copied: an
/// incomplete long packet arrives in thousands of reads, and must not be copied after each read.
fn without_start(mut input: Vec<u8>, used: usize) -> Vec<u8> {
    input.drain(..used);
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_packet_is_not_copied() {
        let input = vec![1; 1000];
        let place = input.as_ptr();
        let input = without_start(input, 0);
        assert_eq!((input.as_ptr(), input.len()), (place, 1000));
        assert_eq!(without_start(input, 990), [1; 10]);
    }
}
