//! Outgoing links to other servers: the sockets and timers of the state machines in `crate::link`.
//!
//! ```text
//!   open ─┬─ an address ───────────────────────────> connect_next ─> write_handler: connected
//!         └─ a name ─> resolver ─> connect_resolved ──────^   │           │
//!                                                  refused ───┘           v
//!   request ─> Link::push ─> output ─> write_handler ─> socket       feed(event)
//!                                       read_handler <─ socket          │ Link::step
//!                                        timer_handler                  v
//!                                                             the owner's LinkHandler(id, action)
//! ```
//!
//! An owner opens a link and gets a [`LinkId`]. The owner's handler is called with each [`Action`]
//! of the link; the last action is `Failed` or `Closed`, unless the owner closes the link or takes
//! its connection. A link's handler may do anything, also open links and close any link. The
//! handler of a link is never called from within `open`, `request`, `finish`, `close` or `take`.
//!
//! The fds of outgoing links are in `Class::First`, so that links between servers are served before
//! clients.
//!
//! With TLS, a link's connection is followed by the TLS handshake, within the timeout for
//! connecting. The link's state machine gets `Connected` after the TLS handshake.
//!
//! If a host name has several addresses, the link tries them in the resolver's order, within the
//! plan's timeout for connecting. A local address (`source`) that can't be used is ignored, as in
//! Redis.
//!
//! **Invariant:** the fd of a link is removed from the event loop before it is closed; a removed
//! link has neither fd nor timer, and its handler is not called any more
//! (`tests::a_closed_link_leaves_nothing`).
//! **Limits:** a link does not reconnect: the owner opens another one after `crate::link::Backoff`.
//! Links are served in nested turns, too, so a link's handler must not replace the data set; it
//! leaves the replacement to code that does not run in nested turns. The links whose host names
//! have been resolved connect outside of nested turns only.

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::connection::connect::{connect, numeric, resolve};
use crate::connection::resolver::{Lookup, Resolver};
use crate::connection::{Connection, State};
use crate::link::{Action, Event, Failure, Link, Plan, Step};
use crate::state::Server;
use crate::sys::error_text;

/// The maximum number of bytes of one read from a link.
const READ_BYTES: usize = 16 * 1024;

/// The id of an outgoing link, which is valid until the link ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId {
    slot: u32,
    generation: u32,
}

impl LinkId {
    fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    fn from_raw(raw: u64) -> LinkId {
        LinkId {
            slot: raw as u32,
            generation: (raw >> 32) as u32,
        }
    }
}

/// A function of a link's owner that is called for each action of the link. When the handler gets
/// `Failed` or `Closed`, the link no longer exists.
pub type LinkHandler = fn(&mut EventLoop<Server>, &mut Server, LinkId, Action);

/// The destination of a link.
pub struct Target<'a> {
    /// A host name or an address.
    pub host: &'a str,
    pub port: u16,
    /// The local address of the connection (`bind-source-addr`), which is ignored if it can't be
    /// used.
    pub source: Option<IpAddr>,
    /// Whether the connection uses TLS.
    pub tls: bool,
}

/// A connection that the owner has taken out of its link.
pub struct Taken {
    pub conn: Connection,
    /// Bytes that were read from the connection after the last reply.
    pub received: Vec<u8>,
    /// Bytes of requests that the socket has not accepted.
    pub unsent: Vec<u8>,
}

/// A link with its connection and timer.
struct Outgoing {
    machine: Link,
    handler: LinkHandler,
    source: Option<IpAddr>,
    tls: bool,
    /// The addresses of the host that have not been tried.
    addresses: VecDeque<SocketAddr>,
    /// The address to which the link is being connected, or is connected.
    address: Option<SocketAddr>,
    conn: Option<Connection>,
    token: Option<Token>,
    timer: Option<Alarm>,
    /// The reason why the link can't connect, which the timer reports to the owner's handler.
    doomed: Option<Failure>,
}

/// The timer of a link, and the time for which the timer is set.
struct Alarm {
    id: TimerId,
    due_ms: u64,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    link: Option<Box<Outgoing>>,
}

/// All outgoing links.
pub struct Links {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The resolver of host names, which is started when the first name must be resolved.
    resolver: Option<Resolver>,
    /// The function that the resolver's thread calls to resolve a host name.
    lookup: Lookup,
    /// The time from which the state machines of all links count milliseconds.
    began: Instant,
}

impl Default for Links {
    fn default() -> Links {
        Links {
            slots: Vec::new(),
            free: Vec::new(),
            resolver: None,
            lookup: resolve,
            began: Instant::now(),
        }
    }
}

impl Links {
    /// The state machine of a link that has not ended.
    pub fn get(&self, id: LinkId) -> Option<&Link> {
        self.outgoing(id).map(|link| &link.machine)
    }

    /// The address to which a link is being connected, or is connected; `None` while the host name
    /// is being resolved.
    pub fn address(&self, id: LinkId) -> Option<SocketAddr> {
        self.outgoing(id)?.address
    }

    /// The number of links that have not ended.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are no links.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn outgoing(&self, id: LinkId) -> Option<&Outgoing> {
        let slot = self.slots.get(id.slot as usize)?;
        let link = slot.link.as_deref();
        link.filter(|_| slot.generation == id.generation)
    }

    fn outgoing_mut(&mut self, id: LinkId) -> Option<&mut Outgoing> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let link = slot.link.as_deref_mut();
        link.filter(|_| slot.generation == id.generation)
    }

    fn insert(&mut self, link: Outgoing) -> LinkId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.link = Some(Box::new(link));
        LinkId {
            slot,
            generation: place.generation,
        }
    }

    /// Removes a link with its timer; the event loop no longer watches the link's connection.
    fn remove(&mut self, el: &mut EventLoop<Server>, id: LinkId) -> Option<Box<Outgoing>> {
        self.outgoing(id)?;
        let place = &mut self.slots[id.slot as usize];
        let mut link = place.link.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.slot);
        if let Some(alarm) = link.timer.take() {
            el.delete_timer(alarm.id);
        }
        if let Some(token) = link.token.take() {
            el.remove_file(token);
        }
        Some(link)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// Opens a link: connects to `target`, and then begins the handshake of `plan`.
pub fn open(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    target: &Target,
    plan: Plan,
    handler: LinkHandler,
) -> LinkId {
    let links = &mut server.links;
    let now_ms = links.now_ms();
    let address = numeric(target.host, target.port);
    let id = links.insert(Outgoing {
        machine: Link::new(now_ms, plan),
        handler,
        source: target.source,
        tls: target.tls,
        addresses: address.into_iter().collect(),
        address: None,
        conn: None,
        token: None,
        timer: None,
        doomed: None,
    });
    if address.is_some() {
        connect_next(el, links, id, no_address());
    } else if let Err(e) = ask_resolver(el, links, id, target) {
        doom(el, links, id, Failure::Resolve(error_text(&e)));
    } else {
        follow(el, links, id);
    }
    id
}

/// Sends a request on the link, after all earlier requests. Returns false if the link has ended or
/// is ending.
pub fn request(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, step: Step) -> bool {
    let now_ms = server.links.now_ms();
    let Some(link) = server.links.outgoing_mut(id) else {
        return false;
    };
    let taken = link.machine.push(now_ms, step);
    follow(el, &mut server.links, id);
    taken
}

/// Changes the timeouts of the link for connecting and for replies, also for a reply that is due
/// already.
pub fn set_timeout(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, timeout_ms: u64) {
    if let Some(link) = server.links.outgoing_mut(id) {
        link.machine.set_timeout(timeout_ms);
        follow(el, &mut server.links, id);
    }
}

/// Closes the link after the replies to all its requests; the link's handler then gets `Closed`.
pub fn finish(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    let links = &mut server.links;
    let now_ms = links.now_ms();
    if let Some(link) = links.outgoing_mut(id) {
        link.machine.finish();
        set_alarm(el, link, id, now_ms, now_ms);
    }
}

/// Closes the link at once. The link's handler is not called any more.
pub fn close(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    server.links.remove(el, id);
}

/// Takes the connection out of a link that is connected, with the bytes that were read beyond the
/// last reply. The link's handler is not called any more, and the loop does not watch the
/// connection.
pub fn take(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) -> Option<Taken> {
    if server.links.get(id)?.is_connecting() {
        return None;
    }
    let mut link = server.links.remove(el, id)?;
    let rest = link.machine.take_rest();
    Some(Taken {
        conn: link.conn.take()?,
        received: rest.received,
        unsent: rest.unsent,
    })
}

fn ask_resolver(
    el: &EventLoop<Server>,
    links: &mut Links,
    id: LinkId,
    target: &Target,
) -> std::io::Result<()> {
    let resolver = match &links.resolver {
        Some(resolver) => resolver,
        None => {
            let waker = el.waker();
            let wake = move || {
                // If the event loop can't be woken, the resolver's results are taken at the next
                // tick of the cron.
                let _ = waker.wake();
            };
            links.resolver.insert(Resolver::start(links.lookup, wake)?)
        }
    };
    resolver.ask(id.to_raw(), target.host, target.port)
}

/// Connects the links whose host names have been resolved.
pub fn connect_resolved(el: &mut EventLoop<Server>, server: &mut Server) {
    let links = &mut server.links;
    while let Some(answer) = links.resolver.as_ref().and_then(Resolver::try_answer) {
        let id = LinkId::from_raw(answer.id);
        let Some(link) = links.outgoing_mut(id) else {
            continue;
        };
        match answer.found {
            Ok(addresses) => {
                link.addresses = addresses.into();
                connect_next(el, links, id, no_address());
            }
            Err(e) => doom(el, links, id, Failure::Resolve(error_text(&e))),
        }
    }
}

fn no_address() -> Failure {
    Failure::Resolve("Name or service not known".into())
}

/// Connects a link to the next address of its host. If there is no next address, the link fails
/// with the error of the last address, or with `reason` if no address was tried.
fn connect_next(el: &mut EventLoop<Server>, links: &mut Links, id: LinkId, mut reason: Failure) {
    let Some(link) = links.outgoing_mut(id) else {
        return;
    };
    while let Some(address) = link.addresses.pop_front() {
        link.address = Some(address);
        match begin(el, address, link.source, id) {
            Ok((conn, token)) => {
                link.conn = Some(conn);
                link.token = Some(token);
                return follow(el, links, id);
            }
            Err(e) => reason = Failure::Connect(error_text(&e)),
        }
    }
    doom(el, links, id, reason);
}

fn begin(
    el: &mut EventLoop<Server>,
    address: SocketAddr,
    source: Option<IpAddr>,
    id: LinkId,
) -> std::io::Result<(Connection, Token)> {
    let conn = match connect(address, source) {
        Err(_) if source.is_some() => connect(address, None)?,
        result => result?,
    };
    let token = el.add_file(conn.raw_fd(), Class::First, id.to_raw())?;
    Ok((conn, token))
}

/// Sets the link's timer to report a failure, so that the link's handler is not called from within
/// `open`.
fn doom(el: &mut EventLoop<Server>, links: &mut Links, id: LinkId, reason: Failure) {
    let now_ms = links.now_ms();
    if let Some(link) = links.outgoing_mut(id) {
        link.doomed = Some(reason);
        set_alarm(el, link, id, now_ms, now_ms);
    }
}

/// Passes an event to the state machine of a link, and the resulting actions to the owner's
/// handler.
fn feed(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, event: Event) {
    let links = &mut server.links;
    let now_ms = links.now_ms();
    let Some(link) = links.outgoing_mut(id) else {
        return;
    };
    let mut actions = Vec::new();
    link.machine.step(now_ms, event, &mut actions);
    follow(el, links, id);
    for action in actions {
        // The owner may have closed the link, or taken its connection, during the last action.
        let Some(handler) = server.links.outgoing(id).map(|link| link.handler) else {
            return;
        };
        if matches!(action, Action::Failed(_) | Action::Closed) {
            server.links.remove(el, id);
        }
        handler(el, server, id, action);
    }
}

/// Sets the handlers of a link's socket and the link's timer for the events for which the state
/// machine waits.
fn follow(el: &mut EventLoop<Server>, links: &mut Links, id: LinkId) {
    let now_ms = links.now_ms();
    let Some(link) = links.outgoing_mut(id) else {
        return;
    };
    let machine = &link.machine;
    if let Some(token) = link.token {
        let handshake = link.conn.as_ref().filter(|c| c.state() == State::Handshake);
        let (reads, writes) = match handshake {
            Some(conn) => (true, conn.wants_write()),
            None => (
                machine.wants_input(),
                machine.is_connecting() || !machine.output().is_empty(),
            ),
        };
        watch(el, token, Mask::WRITABLE, writes);
        watch(el, token, Mask::READABLE, reads);
    }
    if let Some(deadline) = machine.deadline() {
        set_alarm(el, link, id, now_ms, deadline);
    }
}

fn watch(el: &mut EventLoop<Server>, token: Token, direction: Mask, wanted: bool) {
    if el.mask(token).contains(direction) == wanted {
        return;
    }
    match wanted {
        true if direction == Mask::READABLE => el.set_handler(token, direction, read_handler),
        true => el.set_handler(token, direction, write_handler),
        false => el.clear_handler(token, direction),
    }
}

/// Lets a link's timer fire at `due_ms` at the latest. A timer that fires too early is set again,
/// so that a deadline that moves with each reply needs no new timer.
fn set_alarm(
    el: &mut EventLoop<Server>,
    link: &mut Outgoing,
    id: LinkId,
    now_ms: u64,
    due_ms: u64,
) {
    if let Some(alarm) = &link.timer {
        if alarm.due_ms <= due_ms {
            return;
        }
        el.delete_timer(alarm.id);
    }
    let after = Duration::from_millis(due_ms.saturating_sub(now_ms));
    link.timer = Some(Alarm {
        id: el.add_timer(after, id.to_raw(), timer_handler),
        due_ms,
    });
}

fn timer_handler(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    timer: TimerId,
) -> Option<Duration> {
    let id = LinkId::from_raw(el.timer_data(timer)?);
    let link = server.links.outgoing_mut(id)?;
    link.timer = None;
    let event = link.doomed.take().map_or(Event::Tick, Event::Failed);
    feed(el, server, id, event);
    None
}

fn write_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(id) = el.data(token).map(LinkId::from_raw) else {
        return Io::Drained;
    };
    if is_connecting(server, id) && establish(el, server, id, token) != State::Open {
        return Io::Drained;
    }
    send(el, server, id)
}

fn is_connecting(server: &Server, id: LinkId) -> bool {
    server.links.get(id).is_some_and(Link::is_connecting)
}

/// Continues to connect a link, and then its TLS handshake, when its socket is ready. Returns
/// `Open` when the connection is complete, and the state machine has got `Connected`. After a
/// failure the next address of the host is tried.
fn establish(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, token: Token) -> State {
    match advance(server, id) {
        Ok(State::Open) => {
            feed(el, server, id, Event::Connected);
            // The TLS session may have decrypted bytes already, which the poller does not report.
            el.mark_ready(token, Mask::READABLE);
            return State::Open;
        }
        Ok(state) => {
            follow(el, &mut server.links, id);
            return state;
        }
        Err(e) => {
            let reason = Failure::Connect(match e.get_ref() {
                Some(reason) => reason.to_string(),
                None => error_text(&e),
            });
            if let Some(link) = server.links.outgoing_mut(id) {
                el.remove_file(token);
                (link.token, link.conn) = (None, None);
                connect_next(el, &mut server.links, id, reason);
            }
        }
    }
    State::Connecting
}

fn advance(server: &mut Server, id: LinkId) -> std::io::Result<State> {
    let Server { links, tls, .. } = server;
    let Some(link) = links.outgoing_mut(id) else {
        return Ok(State::Connecting);
    };
    let secure = link.address.filter(|_| link.tls);
    tls.advance(&mut link.conn, secure)
}

/// Sends the output of a link. Returns `More` unless the socket is full, so that the event loop
/// still counts the socket as writable at the next request.
fn send(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) -> Io {
    let mut budget = el.budget();
    while budget > 0
        && let Some(link) = server.links.outgoing_mut(id)
        && let Some(conn) = &mut link.conn
        && !link.machine.output().is_empty()
    {
        let output = link.machine.output();
        let sent = match conn.write(&output[..output.len().min(budget)]) {
            Ok(sent) => sent,
            Err(e) => {
                let reason = Failure::Broken(error_text(&e));
                feed(el, server, id, Event::Failed(reason));
                return Io::Drained;
            }
        };
        budget -= sent.bytes;
        if sent.bytes > 0 {
            server.stats.net_output_bytes += sent.bytes as u64;
            feed(el, server, id, Event::Sent(sent.bytes));
        }
        if sent.io == Io::Drained {
            return Io::Drained;
        }
    }
    Io::More
}

fn read_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let Some(id) = el.data(token).map(LinkId::from_raw) else {
        return Io::Drained;
    };
    if is_connecting(server, id) && establish(el, server, id, token) != State::Open {
        return Io::Drained;
    }
    let mut bytes = Vec::new();
    let mut budget = el.budget();
    while budget > 0
        && let Some(link) = server.links.outgoing_mut(id)
        && let Some(conn) = &mut link.conn
        && link.machine.wants_input()
    {
        bytes.clear();
        let read = match conn.read_into(&mut bytes, READ_BYTES.min(budget)) {
            Ok(read) => read,
            Err(e) => {
                let event = match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => Event::Closed,
                    _ => Event::Failed(Failure::Broken(error_text(&e))),
                };
                feed(el, server, id, event);
                return Io::Drained;
            }
        };
        budget -= read.bytes;
        if read.bytes > 0 {
            server.stats.net_input_bytes += read.bytes as u64;
            feed(el, server, id, Event::Received(&bytes));
        }
        if read.io == Io::Drained {
            return Io::Drained;
        }
    }
    Io::More
}

#[cfg(test)]
mod tests;
