//! Outgoing connections: a non-blocking connect.
//!
//! ```text
//!   numeric(host, port), or resolve on the resolver's thread
//!     └─> connect(address, source) ─> Connecting
//!              the socket is writable ─> finish_connect ─> Open, or the error
//! ```
//!
//! **Limit:** [`resolve`] waits for the system's resolver, so only the thread of `resolver.rs`
//! calls this function, never the event loop.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::{Connection, State, Transport};
use crate::config::Config;
use crate::sys::tape;

/// The local address for connections to other servers: `bind-source-addr`.
pub fn source_address(config: &Config) -> Option<IpAddr> {
    config.bind_source_addr.to_str_lossy().parse().ok()
}

/// The address of a host that is given as an IPv4 or IPv6 address.
pub fn numeric(host: &str, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

/// All addresses of `host`, a host name or an IP address, each with `port`. Blocks until the
/// system's resolver has answered; its error is returned.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    match found.is_empty() {
        true => Err(io::Error::other("Name or service not known")),
        false => Ok(found),
    }
}

/// Begins to connect to `address`. `source` is the local address (`bind-source-addr`); with `None`
/// the kernel chooses it. Fails if the kernel refuses at once; later errors come from
/// [`Connection::finish_connect`].
pub fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Connection> {
    tape::not_recorded("a connection to another server");
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(ip) = source {
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(SocketAddr::new(ip, 0)))?;
    }
    let state = match socket.connect(&SockAddr::from(address)) {
        Ok(()) => State::Open,
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => State::Connecting,
        Err(e) => return Err(e),
    };
    Ok(Connection {
        transport: Transport::Tcp(socket.into()),
        state,
    })
}

impl Connection {
    /// Called when the socket of an outgoing connection is writable: checks whether the connect has
    /// succeeded. Returns `Connecting` if the result is not known yet, and an error if the peer
    /// can't be reached.
    pub fn finish_connect(&mut self) -> io::Result<State> {
        if self.state == State::Connecting
            && let Transport::Tcp(socket) = &self.transport
        {
            if let Some(e) = socket.take_error()? {
                return Err(e);
            }
            match socket.peer_addr() {
                Ok(_) => self.state = State::Open,
                Err(e) if e.kind() == ErrorKind::NotConnected => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.state)
    }
}
