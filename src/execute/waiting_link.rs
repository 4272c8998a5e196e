//! A blocking link to another server: the thread waits for the replies of the other server, and
//! nothing else runs meanwhile. A blocking link is used by MIGRATE where no other client's commands
//! may run, such as within a transaction.
//!
//! ```text
//!   open ─> connect ─> exchange: Link::output ─> socket
//!              │            ^    Link::step  <─ socket ─> on_reply(tag, reply)
//!              └── poll ────┘    at most until the link's deadline
//! ```
//!
//! **Limits:** each reply has its own timeout, so a slow peer can block the server for one timeout
//! for each request. A host name is looked up by the system's resolver, which has its own timeout.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ae::Io;

use crate::connection::connect::{connect, resolve};
use crate::connection::tls::Materials;
use crate::connection::{Connection, State};
use crate::link::{Action, Event, Failure, Link, Plan, Reply, Step};
use crate::sys::{error_text, wait_ready};

/// The maximum number of bytes of one read from the socket.
const READ_BYTES: usize = 16 * 1024;

/// The server to which a blocking link connects.
pub struct Peer<'a> {
    pub host: &'a str,
    pub port: u16,
    /// The local address of the connection; `None`: the kernel chooses the address.
    pub source: Option<IpAddr>,
    /// The key material of TLS sessions; `None`: the connection uses no TLS.
    pub tls: Option<&'a Materials>,
}

/// A link to another server that blocks the thread instead of using the event loop.
pub struct WaitingLink {
    link: Link,
    conn: Connection,
    began: Instant,
}

impl WaitingLink {
    /// Connects to the first address of the host that accepts the connection.
    pub fn open(peer: &Peer, plan: impl Fn() -> Plan) -> Result<WaitingLink, Failure> {
        let addresses = resolve(peer.host, peer.port);
        let addresses = addresses.map_err(|e| Failure::Resolve(error_text(&e)))?;
        let mut last = Failure::ConnectTimeout;
        for address in addresses {
            let conn = match connect(address, peer.source) {
                Err(_) if peer.source.is_some() => connect(address, None),
                result => result,
            };
            let opened = conn.map(|conn| WaitingLink {
                link: Link::new(0, plan()),
                conn,
                began: Instant::now(),
            });
            let opened = opened.map_err(|e| Failure::Connect(error_text(&e)));
            match opened.and_then(|link| link.connected(address, peer.tls)) {
                Ok(link) => return Ok(link),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// Adds a request after all earlier ones, for the next [`WaitingLink::exchange`].
    pub fn push(&mut self, step: Step) {
        self.link.push(self.now_ms(), step);
    }

    /// Sends all added requests, and waits for their replies; fails if the connection ends or a
    /// reply is not in time.
    pub fn exchange(&mut self, mut on_reply: impl FnMut(u32, Reply)) -> Result<(), Failure> {
        if self.link.is_connecting() {
            self.step(Event::Connected, &mut on_reply)?;
        }
        let mut bytes = Vec::new();
        while !self.link.is_idle() {
            let writes = !self.link.output().is_empty();
            let io = if writes {
                let sent = self.conn.write(self.link.output()).map_err(broken)?;
                self.step(Event::Sent(sent.bytes), &mut on_reply)?;
                sent.io
            } else {
                bytes.clear();
                let read = self.conn.read_into(&mut bytes, READ_BYTES);
                let read = read.map_err(broken)?;
                self.step(Event::Received(&bytes), &mut on_reply)?;
                read.io
            };
            if io == Io::Drained && !self.link.is_idle() {
                self.wait(!self.link.output().is_empty())?;
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Waits until the connection, and its TLS session if there is one, is established.
    fn connected(
        mut self,
        address: SocketAddr,
        tls: Option<&Materials>,
    ) -> Result<WaitingLink, Failure> {
        let failed = |e: std::io::Error| Failure::Connect(error_text(&e));
        loop {
            let state = self.conn.finish_connect().map_err(failed)?;
            if let (State::Open, Some(materials), None) = (state, tls, self.conn.session()) {
                self.conn = self.conn.secure(materials, address).map_err(failed)?;
            }
            match self.conn.handshake().map_err(failed)? {
                State::Open => return Ok(self),
                State::Connecting => self.wait(true)?,
                State::Handshake => self.wait(self.conn.wants_write())?,
            }
        }
    }

    /// Waits until the socket is ready to be read or written, at most until the link's deadline.
    fn wait(&mut self, to_write: bool) -> Result<(), Failure> {
        let deadline = self.link.deadline().unwrap_or(0);
        let rest = Duration::from_millis(deadline.saturating_sub(self.now_ms()));
        match wait_ready(self.conn.raw_fd(), to_write, rest) {
            Ok(true) => Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Ok(false) => self.step(Event::Tick, &mut |_, _| {}),
            Err(e) => Err(broken(e)),
        }
    }

    /// Passes an event to the state machine of the link, and replies of the other server to
    /// `on_reply`.
    fn step(&mut self, event: Event, on_reply: &mut impl FnMut(u32, Reply)) -> Result<(), Failure> {
        let mut actions = Vec::new();
        self.link.step(self.now_ms(), event, &mut actions);
        for action in actions {
            match action {
                Action::Failed(failure) => return Err(failure),
                Action::Reply { tag, reply } => on_reply(tag, reply),
                Action::Ready | Action::Message(_) | Action::Closed => {}
            }
        }
        Ok(())
    }
}

fn broken(e: std::io::Error) -> Failure {
    match e.kind() {
        ErrorKind::UnexpectedEof => Failure::Closed,
        _ => Failure::Broken(error_text(&e)),
    }
}
