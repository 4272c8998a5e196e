//! Connected and listening sockets, without the client or the link that uses them.
//!
//! ```text
//!   listener.rs   Listener::accept ──┐              (tcp.rs, unix.rs: options of each)
//!                                    ├─> Connection { transport, state } ─> read_into, write
//!   connect.rs    connect ───────────┘        Connecting ─> Handshake ─> Open
//!   tls/          a session in the socket's place, which passes through Handshake
//!   resolver.rs   names become addresses, on a thread
//!   taped.rs      accepts on the tape (`sys::tape`), through which reads and writes pass, too
//! ```
//!
//! All sockets are non-blocking; the event loop reports when a socket is ready.
//!
//! **Invariant:** this module decides whether a socket is drained, not the caller. The number of
//! bytes that were read does not show it: a TLS session may have buffered more bytes than were
//! read, or return fewer bytes than have arrived. So each call returns its byte count together with
//! an [`Io`], which the caller passes on to the loop.
//!
//! An accepted connection is open at once, an outgoing connection is `Connecting` until
//! [`Connection::finish_connect`] has seen the result. A connection with TLS is in `Handshake`
//! until [`Connection::handshake`], called whenever the socket is ready, has returned `Open`.

pub mod connect;
pub mod inherited;
pub mod listener;
pub mod resolver;
pub mod taped;
mod tcp;
pub mod tls;
mod unix;

use ae::Io;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::connection::taped::TapedSocket;
use crate::sys;
use crate::sys::tape;

/// The progress of a connection from connecting to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The kernel is connecting the socket, which becomes writable when the result is known.
    Connecting,
    /// TLS is being negotiated; no data can be sent or received yet.
    Handshake,
    /// The connection is open: bytes can be sent and received.
    Open,
}

enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<tls::Session>),
    /// The socket of a TLS session that a child uses, see [`Connection::lend`].
    Lent(TcpStream),
    /// A socket in the replay of a recording.
    Taped(TapedSocket),
}

/// The result of one read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// The number of bytes that were read or written, 0 if the call would have blocked or was
    /// interrupted.
    pub bytes: usize,
    /// `Drained`: the event loop reports when the socket is ready again. `More`: the socket may
    /// still be ready, so the caller reads or writes again, or returns `More` to the loop, which
    /// then calls it again.
    pub io: Io,
}

/// A connected socket: TCP, with or without TLS, or Unix.
pub struct Connection {
    transport: Transport,
    state: State,
}

impl Connection {
    /// A connection over a connected TCP socket.
    pub fn tcp(socket: TcpStream) -> Connection {
        Connection {
            transport: Transport::Tcp(socket),
            state: State::Open,
        }
    }

    /// A connection over a connected Unix socket.
    pub fn unix(socket: UnixStream) -> Connection {
        Connection {
            transport: Transport::Unix(socket),
            state: State::Open,
        }
    }

    /// A connection whose bytes come from a recording (`--replay`).
    pub fn taped(socket: TapedSocket) -> Connection {
        Connection {
            transport: Transport::Taped(socket),
            state: State::Open,
        }
    }

    /// A connection over a TCP socket with a TLS session, whose handshake begins.
    fn tls(session: tls::Session) -> Connection {
        Connection {
            transport: Transport::Tls(Box::new(session)),
            state: State::Handshake,
        }
    }

    /// Turns an accepted TCP connection into one with TLS.
    pub fn accept_tls(self, materials: &tls::Materials) -> io::Result<Connection> {
        match self.transport {
            Transport::Tcp(socket) => Ok(Connection::tls(materials.accept(socket)?)),
            _ => Err(io::Error::other("TLS needs a TCP connection")),
        }
    }

    /// Turns a connected TCP connection into one with TLS, as the client of the server at
    /// `address`.
    pub fn secure(self, materials: &tls::Materials, address: SocketAddr) -> io::Result<Connection> {
        match self.transport {
            Transport::Tcp(socket) => Ok(Connection::tls(materials.connect(socket, address)?)),
            _ => Err(io::Error::other("TLS needs a TCP connection")),
        }
    }

    /// Called when the socket is ready: continues the TLS handshake as far as possible. After an
    /// error the connection is of no use.
    pub fn handshake(&mut self) -> io::Result<State> {
        if self.state == State::Handshake
            && let Transport::Tls(session) = &mut self.transport
        {
            self.state = session.handshake()?;
        }
        Ok(self.state)
    }

    /// The TLS session of the connection, if it has one.
    pub fn session(&self) -> Option<&tls::Session> {
        match &self.transport {
            Transport::Tls(session) => Some(session),
            _ => None,
        }
    }

    /// Whether the TLS session has bytes of its handshake to send, and so waits until the socket
    /// has room.
    pub fn wants_write(&self) -> bool {
        self.session().is_some_and(tls::Session::wants_write)
    }

    /// Notifies the peer of a TLS session that no more bytes follow (close_notify), if the socket
    /// has room for this message.
    pub fn goodbye(&mut self) {
        if self.state == State::Open
            && let Transport::Tls(session) = &mut self.transport
        {
            session.close_notify();
        }
    }

    /// Ends both directions of the connection: the peer sees the end now, not only when the socket
    /// is closed.
    pub fn shut_down(&mut self) {
        self.goodbye();
        // An error means that the peer has closed the connection already.
        let _ = match &self.transport {
            Transport::Unix(socket) => socket.shutdown(Shutdown::Both),
            Transport::Tcp(socket) | Transport::Lent(socket) => socket.shutdown(Shutdown::Both),
            Transport::Tls(session) => session.socket().shutdown(Shutdown::Both),
            Transport::Taped(_) => Ok(()),
        };
    }

    /// Ends the direction to the peer, which sees the end after the bytes that were sent; bytes
    /// from the peer can still be read.
    pub fn end_output(&mut self) -> io::Result<()> {
        self.goodbye();
        match &self.transport {
            Transport::Unix(socket) => socket.shutdown(Shutdown::Write),
            Transport::Tcp(socket) | Transport::Lent(socket) => socket.shutdown(Shutdown::Write),
            Transport::Tls(session) => session.socket().shutdown(Shutdown::Write),
            Transport::Taped(_) => Ok(()),
        }
    }

    /// The progress of the connection: connecting, handshake or open.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the connection is a TLS session.
    pub fn is_tls(&self) -> bool {
        self.session().is_some()
    }

    /// Whether the connection is a unix socket.
    pub fn is_unix(&self) -> bool {
        match &self.transport {
            Transport::Unix(_) => true,
            Transport::Taped(socket) => socket.is_unix,
            _ => false,
        }
    }

    /// The TCP socket of the connection; with TLS, the socket below the session.
    fn socket(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Tcp(socket) | Transport::Lent(socket) => Some(socket),
            Transport::Tls(session) => Some(session.socket()),
            Transport::Unix(_) | Transport::Taped(_) => None,
        }
    }

    /// Whether the peer runs on this machine: its address is a loopback address, or the socket is a
    /// Unix socket.
    pub fn is_local(&self) -> bool {
        if let Transport::Taped(socket) = &self.transport {
            return socket.is_local;
        }
        self.socket().is_none_or(|socket| {
            let peer = socket.peer_addr();
            peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
        })
    }

    /// This server's address of the connection, `ip:port`; empty for a Unix socket, and if the
    /// address is unknown.
    pub fn local_address(&self) -> String {
        if let Transport::Taped(socket) = &self.transport {
            return socket.local.clone();
        }
        let address = self.socket().and_then(|socket| socket.local_addr().ok());
        address.map_or_else(String::new, |address| {
            SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
        })
    }

    /// The file descriptor of the connection, which the event loop watches.
    pub fn raw_fd(&self) -> RawFd {
        match &self.transport {
            Transport::Taped(socket) => socket.fd,
            _ => self.as_fd().map_or(-1, |fd| fd.as_raw_fd()),
        }
    }

    /// The file descriptor, which stays open as long as the connection exists; `None` in a replay.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(match &self.transport {
            Transport::Tcp(socket) | Transport::Lent(socket) => socket.as_fd(),
            Transport::Unix(socket) => socket.as_fd(),
            Transport::Tls(session) => session.socket().as_fd(),
            Transport::Taped(_) => return None,
        })
    }

    /// Sets whether small writes are sent at once (TCP_NODELAY); otherwise the kernel may collect
    /// them. Has no effect on a unix socket.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket()
            .map_or(Ok(()), |socket| socket.set_nodelay(on))
    }

    /// A second file descriptor of the connection's socket.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match self.as_fd() {
            Some(fd) => fd.try_clone_to_owned(),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Returns a second connection over the same socket, for a child that is about to be forked.
    /// From then on only the child may send, since two processes can't share the keys of a TLS
    /// session. With TLS this process keeps the socket only to watch and close it: it can't send,
    /// and drops the bytes that arrive.
    pub fn lend(&mut self) -> io::Result<Connection> {
        let second = self.duplicate()?;
        let transport = match &mut self.transport {
            Transport::Tls(session) => {
                // The TLS session gets the second descriptor, as the event loop watches the first
                // one.
                let first = session.replace_socket(second.into());
                std::mem::replace(&mut self.transport, Transport::Lent(first))
            }
            Transport::Unix(_) => Transport::Unix(second.into()),
            _ => Transport::Tcp(second.into()),
        };
        Ok(Connection {
            transport,
            state: self.state,
        })
    }

    /// Reads at most `max` bytes and appends them to `into`. Fails with `UnexpectedEof` if the peer
    /// has closed the connection.
    pub fn read_into(&mut self, into: &mut Vec<u8>, max: usize) -> io::Result<Transfer> {
        if let Transport::Tls(session) = &mut self.transport {
            return session.read_into(into, max);
        }
        let before = into.len();
        let read = match tape::is_on() {
            false => self.read_now(into, max),
            true => tape::read(self.raw_fd() as u64, into, |into| self.read_now(into, max)),
        };
        if let Transport::Lent(_) = self.transport {
            // The TLS records that arrived belong to the child's session, and are dropped.
            into.truncate(before);
        }
        match read {
            Ok(0) if max > 0 => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                // A read from a stream socket returns all bytes that have arrived, so a read of
                // fewer than `max` bytes has emptied the socket.
                let io = if read == max { Io::More } else { Io::Drained };
                let bytes = into.len() - before;
                Ok(Transfer { bytes, io })
            }
            Err(e) => not_now(e),
        }
    }

    fn read_now(&self, into: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        match self.as_fd() {
            Some(fd) => sys::read_into(fd, into, max),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends a prefix of `bytes`, as much as the socket accepts.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Transfer> {
        if tape::is_on() {
            return self.write_taped(&[IoSlice::new(bytes)]);
        }
        written(match &mut self.transport {
            Transport::Tcp(socket) => socket.write(bytes),
            Transport::Unix(socket) => socket.write(bytes),
            Transport::Tls(session) => return session.write_vectored(&[IoSlice::new(bytes)]),
            Transport::Lent(_) | Transport::Taped(_) => Err(ErrorKind::BrokenPipe.into()),
        })
    }

    /// Sends as many of `bytes` as the socket has room for, and drops the rest: for keep-alives of
    /// one byte, which need no second attempt.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.transport {
            Transport::Tls(session) => session.write_now(bytes),
            _ => self.write(bytes).map(drop),
        }
    }

    /// Sends a prefix of `pieces`, as much as the socket accepts.
    pub fn write_vectored(&mut self, pieces: &[IoSlice]) -> io::Result<Transfer> {
        match tape::is_on() {
            true => self.write_taped(pieces),
            false => self.write_pieces(pieces),
        }
    }

    fn write_pieces(&mut self, pieces: &[IoSlice]) -> io::Result<Transfer> {
        written(match &mut self.transport {
            Transport::Tls(session) => return session.write_vectored(pieces),
            _ => self.send(pieces),
        })
    }

    /// Writes while inputs are recorded or replayed (`sys::tape`). While inputs are recorded or
    /// replayed, there are no TLS sessions.
    #[cold]
    fn write_taped(&mut self, pieces: &[IoSlice]) -> io::Result<Transfer> {
        let fd = self.raw_fd() as u64;
        written(tape::write(fd, pieces, || self.send(pieces)))
    }

    fn send(&mut self, pieces: &[IoSlice]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Tcp(socket) => socket.write_vectored(pieces),
            Transport::Unix(socket) => socket.write_vectored(pieces),
            _ => Err(ErrorKind::BrokenPipe.into()),
        }
    }
}

/// The result of a write. A write of fewer bytes than given does not prove that the socket is full,
/// only a write that would block does.
fn written(result: io::Result<usize>) -> io::Result<Transfer> {
    match result {
        Ok(bytes) => Ok(Transfer {
            bytes,
            io: Io::More,
        }),
        Err(e) => not_now(e),
    }
}

/// The result of a read or write that failed: `WouldBlock` becomes `Drained`, `Interrupted` becomes
/// `More`, and everything else is an error.
#[cold]
fn not_now(e: io::Error) -> io::Result<Transfer> {
    let io = match e.kind() {
        ErrorKind::WouldBlock => Io::Drained,
        ErrorKind::Interrupted => Io::More,
        _ => return Err(e),
    };
    Ok(Transfer { bytes: 0, io })
}

#[cfg(test)]
mod tests;
