//! Connected and listening sockets, without the client or the link that uses them.
//!
//! ```text
//!   listener.rs   Listener::accept ──┐              (tcp.rs, unix.rs: options of each)
//!                                    ├─> Connection { transport, state } ─> read_into, write
//!   connect.rs    connect ───────────┘        Connecting ─> Handshake ─> Open
//!   resolver.rs   names become addresses, on a thread
//! ```
//!
//! All sockets are non-blocking; the event loop reports when one is ready.
//!
//! **Invariant:** this module decides whether a socket is drained, not the caller. The byte count
//! alone does not tell: a transport that decrypts may have buffered more than was read, or return
//! less than is there. So each call returns its byte count together with an [`Io`], which the
//! caller passes on to the loop.
//!
//! **Limits:** an accepted connection is open at once. An outgoing one is `Connecting` until
//! [`Connection::finish_connect`] has seen the result. No transport negotiates yet, so none of them
//! stops at `Handshake`.

pub mod connect;
pub mod listener;
pub mod resolver;
mod tcp;
mod unix;

use ae::Io;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The progress of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The kernel is connecting; the socket becomes writable when the result is known.
    Connecting,
    /// The transport negotiates and carries no bytes of ours yet.
    Handshake,
    /// Bytes can be sent and received.
    Open,
}

enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The result of one read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes read or written, 0 if the call would have blocked or was interrupted.
    pub bytes: usize,
    /// `Drained`: the loop reports when the socket is ready again. `More`: call again.
    pub io: Io,
}

/// A socket with a peer: TCP or unix.
pub struct Connection {
    transport: Transport,
    state: State,
}

impl Connection {
    /// A connected TCP socket.
    pub fn tcp(socket: TcpStream) -> Connection {
        Connection {
            transport: Transport::Tcp(socket),
            state: State::Open,
        }
    }

    /// A connected unix socket.
    pub fn unix(socket: UnixStream) -> Connection {
        Connection {
            transport: Transport::Unix(socket),
            state: State::Open,
        }
    }

    /// The progress of the connection.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.transport, Transport::Unix(_))
    }

    /// Whether the peer runs on this machine.
    pub fn is_local(&self) -> bool {
        match &self.transport {
            Transport::Unix(_) => true,
            Transport::Tcp(socket) => socket
                .peer_addr()
                .is_ok_and(|peer| peer.ip().to_canonical().is_loopback()),
        }
    }

    /// This end's address, `ip:port`; empty if the socket is a unix socket or is gone.
    pub fn local_address(&self) -> String {
        match &self.transport {
            Transport::Unix(_) => String::new(),
            Transport::Tcp(socket) => socket.local_addr().map_or_else(
                |_| String::new(),
                |address| SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
            ),
        }
    }

    /// The file descriptor, which the event loop watches.
    pub fn raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.transport {
            Transport::Tcp(socket) => socket.as_fd(),
            Transport::Unix(socket) => socket.as_fd(),
        }
    }

    /// Whether small writes are sent at once (TCP_NODELAY); otherwise the kernel may collect them.
    /// It has no effect on a unix socket.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match &self.transport {
            Transport::Tcp(socket) => socket.set_nodelay(on),
            Transport::Unix(_) => Ok(()),
        }
    }

    /// A second descriptor of the same socket.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Appends at most `max` bytes to `into`. Fails with `UnexpectedEof` if the peer has closed the
    /// connection.
    pub fn read_into(&mut self, into: &mut Vec<u8>, max: usize) -> io::Result<Transfer> {
        match crate::sys::read_into(self.as_fd(), into, max) {
            Ok(0) if max > 0 => Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                // A read from a stream socket returns everything that is there, so a short read has
                // emptied it.
                let io = if bytes == max { Io::More } else { Io::Drained };
                Ok(Transfer { bytes, io })
            }
            Err(e) => not_now(e),
        }
    }

    /// Sends a prefix of `bytes`, as much as the socket accepts.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Transfer> {
        written(match &mut self.transport {
            Transport::Tcp(socket) => socket.write(bytes),
            Transport::Unix(socket) => socket.write(bytes),
        })
    }

    /// Sends a prefix of `pieces`, as much as the socket accepts.
    pub fn write_vectored(&mut self, pieces: &[IoSlice]) -> io::Result<Transfer> {
        written(match &mut self.transport {
            Transport::Tcp(socket) => socket.write_vectored(pieces),
            Transport::Unix(socket) => socket.write_vectored(pieces),
        })
    }
}

/// A short write does not prove that the socket is full: only a call that would block does.
fn written(result: io::Result<usize>) -> io::Result<Transfer> {
    match result {
        Ok(bytes) => Ok(Transfer {
            bytes,
            io: Io::More,
        }),
        Err(e) => not_now(e),
    }
}

/// The result of a call that did not succeed: would block is drained, interrupted is call again,
/// everything else is an error.
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
