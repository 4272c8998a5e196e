//! Listening sockets, of all kinds in one list (`Net::listeners`).
//!
//! ```text
//!   open ─> Listener { token: None } ─ watched ─> token: Some ─> accept, accept, ...
//!                                                    │ replaced by CONFIG SET port or bind
//!                                                    └─> retired ─ no longer watched ─> closed
//! ```
//!
//! **Invariant:** a socket that the event loop watches is not closed. So a replaced listener stays
//! in the list as `retired` until the loop has stopped watching it.
//!
//! The kind of a listener determines what an accepted connection becomes, and in which class the
//! event loop serves the listener: connections of cluster nodes and of administration come before
//! those of clients.

use ae::{Class, Token};
use socket2::SockRef;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use super::inherited::{Found, Inherited};
use super::{Connection, taped, tcp, unix};
use crate::config::Config;
use crate::sys;
use crate::sys::tape;

/// The kind of a listener: the purpose of the connections that it accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerKind {
    /// Connections of clients over plain TCP.
    Plain,
    /// Connections of clients over TLS.
    Tls,
    /// Connections of clients on this machine over a Unix socket.
    Unix,
    /// Connections of administrators on this machine over a Unix socket of their own.
    Admin,
    /// Connections of other nodes of the cluster to the cluster bus.
    Bus,
    /// Connections of monitoring over HTTP, which read figures.
    Monitor,
}

impl ListenerKind {
    /// The class in which the event loop serves listeners of this kind.
    pub fn class(self) -> Class {
        match self {
            ListenerKind::Plain | ListenerKind::Tls | ListenerKind::Unix => Class::Normal,
            ListenerKind::Admin | ListenerKind::Bus | ListenerKind::Monitor => Class::First,
        }
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// A listener in the replay of a recording: it has no socket, only the number of the recorded
    /// descriptor.
    Taped(RawFd),
}

/// One listening socket, and its registration in the event loop.
pub struct Listener {
    pub kind: ListenerKind,
    pub class: Class,
    /// The registration in the event loop; `None` if the socket is not watched yet.
    pub token: Option<Token>,
    /// Whether the listening socket was replaced (CONFIG SET port); a replaced socket is closed
    /// when the event loop no longer watches it.
    pub retired: bool,
    /// Whether a socket unit of the supervisor has opened the socket; the file of a unix socket is
    /// then the supervisor's, too. shutdown(2) would also stop the supervisor's socket.
    pub of_unit: bool,
    socket: Socket,
}

/// A connection that a listener has accepted.
pub struct Accepted {
    pub kind: ListenerKind,
    pub conn: Connection,
    /// The peer's address as CLIENT LIST shows it.
    pub peer: String,
    /// The server's address as CLIENT LIST shows it.
    pub local: String,
    /// Whether the peer runs on another machine.
    pub remote: bool,
    /// The id of the system's user that runs the peer; known only on a Unix socket, and only looked
    /// up if `unixsocket-users` is set.
    pub peer_uid: Option<u32>,
}

impl Listener {
    fn new(kind: ListenerKind, socket: Socket) -> Listener {
        Listener {
            kind,
            class: kind.class(),
            token: None,
            retired: false,
            of_unit: false,
            socket,
        }
    }

    /// A listener in the replay of a recording, with the number of the recorded descriptor.
    pub fn taped(kind: ListenerKind, fd: RawFd) -> Listener {
        Listener::new(kind, Socket::Taped(fd))
    }

    /// The file descriptor of the listening socket, which the event loop watches.
    pub fn raw_fd(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket) => socket.as_raw_fd(),
            Socket::Taped(fd) => *fd,
        }
    }

    /// The listening TCP socket and its port; `None` for a Unix socket and in a replay.
    pub fn tcp(&self) -> Option<(BorrowedFd<'_>, u16)> {
        match &self.socket {
            Socket::Tcp(socket) => Some((socket.as_fd(), socket.local_addr().ok()?.port())),
            Socket::Unix(_) | Socket::Taped(_) => None,
        }
    }

    /// A second descriptor of a TCP socket that a socket unit has opened; `None` for other sockets,
    /// and if there is no free descriptor.
    pub fn copy_of_unit(&self) -> Option<(ListenerKind, OwnedFd)> {
        let (socket, _) = self.tcp().filter(|_| self.of_unit)?;
        Some((self.kind, socket.try_clone_to_owned().ok()?))
    }

    /// Accepts one connection and sets the options of its socket. `Ok(None)` means that the
    /// connection was closed before it could be accepted; other connections may wait.
    pub fn accept(&self, config: &Config) -> io::Result<Option<Accepted>> {
        match tape::is_on() {
            true => taped::accept(self.kind, config, |config| self.accept_now(config)),
            false => self.accept_now(config),
        }
    }

    fn accept_now(&self, config: &Config) -> io::Result<Option<Accepted>> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                let local = stream.local_addr();
                let local = local.map(|a| a.to_string()).unwrap_or_default();
                if tcp::set_up(&stream, config.tcp_keepalive).is_err() {
                    return Ok(None);
                }
                Ok(Some(Accepted {
                    kind: self.kind,
                    conn: Connection::tcp(stream),
                    peer: address.to_string(),
                    local,
                    remote: !address.ip().to_canonical().is_loopback(),
                    peer_uid: None,
                }))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                if stream.set_nonblocking(true).is_err() {
                    return Ok(None);
                }
                let path = match self.kind {
                    ListenerKind::Admin => &config.admin_unixsocket,
                    _ => &config.unixsocket,
                };
                let name = format!("{path}:0");
                let by_user = !config.unixsocket_users.is_empty();
                Ok(Some(Accepted {
                    kind: self.kind,
                    peer_uid: by_user.then(|| unix::peer_uid(&stream)).flatten(),
                    conn: Connection::unix(stream),
                    peer: name.clone(),
                    local: name,
                    remote: false,
                }))
            }
            Socket::Taped(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Stops listening without closing the socket, so that another socket can bind the address. A
    /// socket of a socket unit goes on listening.
    pub fn pause(&self) {
        if self.of_unit {
            return;
        }
        // An error is ignored: if this socket can't stop listening, the new socket fails to bind,
        // and the new socket's error is reported.
        let _ = match &self.socket {
            Socket::Tcp(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
            Socket::Unix(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
            Socket::Taped(_) => Ok(()),
        };
    }

    /// Listens again after [`Listener::pause`].
    pub fn resume(&self, config: &Config) -> io::Result<()> {
        let backlog = config.tcp_backlog as i32;
        match &self.socket {
            Socket::Tcp(socket) => SockRef::from(socket).listen(backlog),
            Socket::Unix(socket) => SockRef::from(socket).listen(backlog),
            Socket::Taped(_) => Ok(()),
        }
    }
}

/// The reason why the server can't listen. The error's text is the last line of the server's log
/// before the server exits.
#[derive(Debug)]
pub enum ListenError {
    Tcp { port: u16 },
    Unix { reason: io::Error },
    UnixPathTooLong { len: usize },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Tcp { port } => {
                write!(f, "Failed listening on port {port} (tcp), aborting.")
            }
            ListenError::Unix { reason } => {
                let reason = sys::error_text(reason);
                write!(f, "Failed opening Unix socket: bind: {reason}")
            }
            ListenError::UnixPathTooLong { len } => write!(
                f,
                "Failed opening Unix socket: unix socket path too long ({len}), must be under {}",
                unix::PATH_MAX
            ),
        }
    }
}

/// Listens for clients on `port`, or on `tls-port` for the kind `Tls`, at each address of `bind`.
/// An address with a leading `-` may be unavailable. Returns an empty list if the port is 0.
pub fn open_tcp(
    config: &Config,
    kind: ListenerKind,
    inherited: &mut Inherited,
) -> Result<Vec<Listener>, ListenError> {
    let port = match kind {
        ListenerKind::Tls => config.tls_port,
        _ => config.port,
    };
    let addresses = match port {
        0 => &[][..],
        _ => &config.bind[..],
    };
    open_all(kind, addresses, port, config, inherited)
}

/// Opens a listener of this kind on `port` at each of the addresses.
fn open_all(
    kind: ListenerKind,
    addresses: &[String],
    port: u16,
    config: &Config,
    inherited: &mut Inherited,
) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let (name, optional) = match address.strip_prefix('-') {
            Some(name) => (name, true),
            None => (address.as_str(), false),
        };
        let found = tcp::resolve(name, port).map(|wanted| inherited.take_tcp(wanted));
        match found {
            Ok(Found::Socket { socket, of_unit }) => {
                let listener = Listener::new(kind, Socket::Tcp(socket));
                listeners.push(Listener {
                    of_unit,
                    ..listener
                });
                continue;
            }
            Ok(Found::Served) => continue,
            Ok(Found::Nothing) | Err(_) => {}
        }
        match tcp::listen_on(name, port, config) {
            Ok(socket) => listeners.push(Listener::new(kind, Socket::Tcp(socket))),
            Err((call, e)) => {
                log::warn!(
                    "Warning: Could not create server TCP listening socket {name}:{port}: {call}{}",
                    sys::error_text(&e)
                );
                if !is_absent(&e, optional) {
                    return Err(ListenError::Tcp { port });
                }
            }
        }
    }
    Ok(listeners)
}

/// The TCP addresses at which the settings make the server listen, without names that can't be
/// resolved.
pub fn addresses(config: &Config, bus_port: Option<u16>) -> Vec<SocketAddr> {
    let ports = [config.port, config.tls_port].into_iter().chain(bus_port);
    let clients = ports.flat_map(|port| config.bind.iter().map(move |name| (name, port)));
    let names = config.monitor_bind.iter();
    let monitor = names.map(|name| (name, config.monitor_port));
    let all = clients.chain(monitor).filter(|(_, port)| *port != 0);
    let resolved = all.map(|(name, port)| tcp::resolve(name.trim_start_matches('-'), port));
    resolved.flatten().collect()
}

/// Listens for readers of figures on `monitor-port` at each address of `monitor-bind`. Returns an
/// empty list if `monitor-port` is 0.
pub fn open_monitor(
    config: &Config,
    inherited: &mut Inherited,
) -> Result<Vec<Listener>, ListenError> {
    let addresses = match config.monitor_port {
        0 => &[][..],
        _ => &config.monitor_bind[..],
    };
    open_all(
        ListenerKind::Monitor,
        addresses,
        config.monitor_port,
        config,
        inherited,
    )
}

/// Listens for other nodes of the cluster on `port`, the port of the cluster bus, at each address
/// of `bind`.
pub fn open_bus(
    config: &Config,
    port: u16,
    inherited: &mut Inherited,
) -> Result<Vec<Listener>, ListenError> {
    open_all(ListenerKind::Bus, &config.bind, port, config, inherited)
}

/// Listens for clients at the path `unixsocket`, or for administrators at `admin-unixsocket`.
/// `None` if the path is empty.
pub fn open_unix(
    config: &Config,
    kind: ListenerKind,
    inherited: &mut Inherited,
) -> Result<Option<Listener>, ListenError> {
    let place = unix::Place::of(config, kind == ListenerKind::Admin);
    if place.path.is_empty() {
        return Ok(None);
    }
    if let Some(socket) = inherited.take_unix(place.path.as_path()) {
        let listener = Listener::new(kind, Socket::Unix(socket));
        return Ok(Some(Listener {
            of_unit: true,
            ..listener
        }));
    }
    let len = place.path.as_bytes().len();
    if len >= unix::PATH_MAX {
        return Err(ListenError::UnixPathTooLong { len });
    }
    let socket = unix::listen(&place).map_err(|reason| ListenError::Unix { reason })?;
    Ok(Some(Listener::new(kind, Socket::Unix(socket))))
}

/// Whether the error means that an address of `bind`, or its whole protocol, does not exist on this
/// machine; the server then listens on the other addresses.
fn is_absent(e: &io::Error, optional: bool) -> bool {
    match e.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => optional,
        Some(libc::ENOPROTOOPT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => true,
        Some(libc::EPFNOSUPPORT | libc::EAFNOSUPPORT) => true,
        _ => false,
    }
}
