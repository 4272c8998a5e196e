//! Listening sockets that the supervisor has opened (socket activation), matched by address.
//!
//! A socket of systemd stays open over a restart of the server, so that new connections wait in the
//! socket's backlog until the server listens again. A socket is used where the settings name its
//! address (`port` with `bind`, `tls-port`, `monitor-port`, `unixsocket`); an address that no
//! setting names is not served.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket};

/// The inherited listening sockets that no setting has named yet, and the addresses of those that
/// are in use.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    used: Vec<Address>,
}

/// The address of a listening socket.
#[derive(Clone, Copy)]
struct Address {
    address: SocketAddr,
    /// Whether a socket of IPv6 also accepts connections of IPv4.
    both: bool,
}

impl Address {
    fn of(socket: &Socket) -> Option<Address> {
        let address = socket.local_addr().ok()?.as_socket()?;
        let both = address.is_ipv6() && !socket.only_v6().unwrap_or(true);
        Some(Address { address, both })
    }

    /// Whether connections to the address `wanted` arrive at the socket with this address.
    fn serves(&self, wanted: SocketAddr) -> bool {
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.port()));
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, wanted.port()));
        self.address == wanted || self.both && self.address == any_v6 && wanted == any_v4
    }
}

/// The result of looking for an inherited socket with a given address.
pub enum Found {
    Socket(TcpListener),
    /// No socket is needed: an inherited socket that is in use already accepts connections to this
    /// address, too.
    Served,
    Nothing,
}

impl Inherited {
    /// The sockets that the supervisor has handed over.
    pub fn new(sockets: Vec<OwnedFd>) -> Inherited {
        let sockets = sockets.into_iter().map(Socket::from).collect();
        Inherited {
            sockets,
            used: Vec::new(),
        }
    }

    /// Takes the inherited socket that accepts connections to the address `wanted`.
    pub fn take_tcp(&mut self, wanted: SocketAddr) -> Found {
        if self.used.iter().any(|used| used.serves(wanted)) {
            return Found::Served;
        }
        let serves = |socket: &Socket| Address::of(socket).is_some_and(|a| a.serves(wanted));
        let Some(at) = self.sockets.iter().position(serves) else {
            return Found::Nothing;
        };
        let socket = self.sockets.remove(at);
        self.used.extend(Address::of(&socket));
        match socket.set_nonblocking(true) {
            Ok(()) => Found::Socket(socket.into()),
            Err(_) => Found::Nothing,
        }
    }

    /// Takes the inherited Unix socket at this path.
    pub fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let listens_at = |socket: &Socket| {
            let address = socket.local_addr().ok();
            address.is_some_and(|address| address.as_pathname() == Some(path))
        };
        let at = self.sockets.iter().position(listens_at)?;
        let socket = self.sockets.remove(at);
        socket.set_nonblocking(true).ok()?;
        Some(UnixListener::from(OwnedFd::from(socket)))
    }

    /// The addresses of the sockets that no setting names, for the log.
    pub fn unused(&self) -> Vec<String> {
        let name = |address: SockAddr| match address.domain() {
            Domain::UNIX => {
                let path = address.as_pathname().map(|path| path.display().to_string());
                path.unwrap_or_default()
            }
            _ => address
                .as_socket()
                .map(|a| a.to_string())
                .unwrap_or_default(),
        };
        let all = self.sockets.iter().map(|socket| socket.local_addr());
        all.map(|address| address.map(name).unwrap_or_default())
            .collect()
    }
}
