//! Listening sockets that the supervisor has opened (socket activation), matched by address.
//!
//! A socket of systemd stays open over a restart of the server, so that new connections wait in the
//! socket's backlog until the server listens again. A socket is used where the settings name its
//! address (`port` with `bind`, `tls-port`, `monitor-port`, `unixsocket`); an address that no
//! setting names is not served, and its socket is closed before other sockets are opened.
//!
//! **Invariant:** shutdown(2) is not called on a socket of a socket unit, since the unit shares it
//! with the next process. A stored socket belongs to the server alone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::Socket;

use super::unix;
use crate::sys;
use crate::sys::supervisor::Handed;

/// The inherited listening sockets that no setting has named yet, and the addresses of those that
/// are in use.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
    used: Vec<Address>,
    /// The backlog of a socket that must be made to listen (`tcp-backlog`).
    backlog: i32,
}

struct InheritedSocket {
    socket: Socket,
    /// Whether a socket unit has opened the socket; otherwise an earlier process of this server has
    /// opened it, and the supervisor has stored it.
    of_unit: bool,
}

impl InheritedSocket {
    fn serves(&self, wanted: SocketAddr) -> bool {
        Address::of(&self.socket).is_some_and(|address| address.serves(wanted))
    }

    fn is_at(&self, path: &Path) -> bool {
        let address = self.socket.local_addr().ok();
        address.is_some_and(|address| address.as_pathname() == Some(path))
    }

    /// The address for the log.
    fn name(&self) -> String {
        let Ok(address) = self.socket.local_addr() else {
            return String::new();
        };
        match (address.as_pathname(), address.as_socket()) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Makes the socket ready for the event loop. A socket that does not listen, for example after
    /// shutdown(2) by another process, is made to listen.
    fn prepare(&self, backlog: i32) -> io::Result<()> {
        if !self.socket.is_listener()? {
            self.socket.listen(backlog)?;
            log::info!("The supervisor's socket {} did not listen", self.name());
        }
        self.socket.set_nonblocking(true)
    }
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
    Socket {
        socket: TcpListener,
        of_unit: bool,
    },
    /// No socket is needed: an inherited socket that is in use already accepts connections to this
    /// address, too.
    Served,
    Nothing,
}

impl Inherited {
    /// The sockets that the supervisor has handed over.
    pub fn new(handed: Handed, backlog: u32) -> Inherited {
        let of = |of_unit| {
            move |fd| InheritedSocket {
                socket: Socket::from(fd),
                of_unit,
            }
        };
        let units = handed.of_unit.into_iter().map(of(true));
        let stored = handed.stored.into_iter().map(of(false));
        Inherited {
            sockets: units.chain(stored).collect(),
            used: Vec::new(),
            backlog: backlog as i32,
        }
    }

    /// Sockets of a socket unit, which are used again.
    pub fn again(of_unit: Vec<OwnedFd>, backlog: u32) -> Inherited {
        let stored = Vec::new();
        Inherited::new(Handed { of_unit, stored }, backlog)
    }

    /// Whether no socket is left that a setting could name.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Closes the sockets whose addresses and paths are not among these, with a line in the log, so
    /// that sockets whose addresses overlap with theirs can be opened.
    pub fn close_others(&mut self, addresses: &[SocketAddr], paths: &[&Path]) {
        let is_other = |inherited: &mut InheritedSocket| {
            let named = addresses.iter().any(|wanted| inherited.serves(*wanted));
            !named && !paths.iter().any(|path| inherited.is_at(path))
        };
        for other in self.sockets.extract_if(.., is_other) {
            log::warn!(
                "The socket {} of the supervisor is closed: no setting (port, bind, tls-port, unixsocket) names it",
                other.name()
            );
            if !other.of_unit {
                // The supervisor may still hold a stored socket, which then listens until the
                // supervisor closes it. An error is ignored: if the socket goes on listening, the
                // error of the socket that can't be opened is reported.
                let _ = other.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Takes the inherited socket that accepts connections to the address `wanted`.
    pub fn take_tcp(&mut self, wanted: SocketAddr) -> Found {
        if self.used.iter().any(|used| used.serves(wanted)) {
            return Found::Served;
        }
        let serves = |inherited: &InheritedSocket| inherited.serves(wanted);
        let Some(inherited) = self.take(serves) else {
            return Found::Nothing;
        };
        self.used.extend(Address::of(&inherited.socket));
        Found::Socket {
            of_unit: inherited.of_unit,
            socket: inherited.socket.into(),
        }
    }

    /// Takes the inherited Unix socket at this path. A socket whose file was removed, with the
    /// directory of the service for example, is closed: no client can reach it.
    pub fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let inherited = self.take(|inherited| inherited.is_at(path))?;
        if !unix::is_bound(path) {
            log::warn!(
                "The file of the supervisor's socket {} was removed: the server makes a socket of its own there. \
                 To use the supervisor's again, restart the socket unit.",
                path.display()
            );
            return None;
        }
        Some(UnixListener::from(OwnedFd::from(inherited.socket)))
    }

    /// Takes the first socket with this property that can be used.
    fn take(&mut self, property: impl Fn(&InheritedSocket) -> bool) -> Option<InheritedSocket> {
        let at = self.sockets.iter().position(property)?;
        let inherited = self.sockets.remove(at);
        if let Err(e) = inherited.prepare(self.backlog) {
            let (name, reason) = (inherited.name(), sys::error_text(&e));
            log::warn!("Can't use the supervisor's socket {name}: {reason}");
            return None;
        }
        Some(inherited)
    }
}
