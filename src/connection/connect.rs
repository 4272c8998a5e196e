//! Outgoing connections: connect without waiting.
//!
//! ```text
//!   resolve(host, port) ─> connect(address, source) ─> Connecting
//!                              the socket is writable ─> finish_connect ─> Open, or the error
//! ```
//!
//! **Limit:** [`resolve`] asks the system's resolver and waits for it; an address in figures does
//! not wait. So hosts of links should be addresses.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::{Connection, State, Transport};

/// The first address of `host`, a name or an address, at `port`.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let unknown = || io::Error::other("Name or service not known");
    (host, port).to_socket_addrs()?.next().ok_or_else(unknown)
}

/// Begin to connect to `address`. `source` is the local address to connect from
/// (`bind-source-addr`); `None` leaves the choice to the kernel.
pub fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Connection> {
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
    /// The socket is writable: see whether it is connected. Returns `Connecting` if it was reported
    /// too early, and the error if the peer can't be reached.
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
