//! Connected and listening sockets: what a socket is, before there is a client or a link behind it.
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
//! **Invariant:** whether a socket is drained is decided here, not by the caller. A read that fills
//! the whole wish says nothing: a transport that decrypts may hold more, and one that took a record
//! apart may give less than there is. So each call returns its byte count together with an [`Io`],
//! and the caller passes that on to the loop.
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
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The kernel is connecting; the socket becomes writable when the result is known.
    Connecting,
    /// The transport negotiates, and carries no bytes of ours yet.
    Handshake,
    /// Bytes can be sent and received.
    Open,
}

enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What one read or write did.
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

    /// How far the connection is.
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

    /// Append at most `max` bytes to `into`. A peer that closed is an error of the kind
    /// `UnexpectedEof`.
    pub fn read_into(&mut self, into: &mut Vec<u8>, max: usize) -> io::Result<Transfer> {
        match crate::sys::read_into(self.as_fd(), into, max) {
            Ok(0) if max > 0 => Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                // A stream socket gives all that it has, so a short read has emptied it.
                let io = if bytes == max { Io::More } else { Io::Drained };
                Ok(Transfer { bytes, io })
            }
            Err(e) => not_now(e),
        }
    }

    /// Send the beginning of `bytes`, as much as the socket takes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Transfer> {
        written(match &mut self.transport {
            Transport::Tcp(socket) => socket.write(bytes),
            Transport::Unix(socket) => socket.write(bytes),
        })
    }

    /// Send the beginning of `pieces`, as much as the socket takes.
    pub fn write_vectored(&mut self, pieces: &[IoSlice]) -> io::Result<Transfer> {
        written(match &mut self.transport {
            Transport::Tcp(socket) => socket.write_vectored(pieces),
            Transport::Unix(socket) => socket.write_vectored(pieces),
        })
    }
}

/// A short write does not prove that the socket is full: only the call that would block does.
fn written(result: io::Result<usize>) -> io::Result<Transfer> {
    match result {
        Ok(bytes) => Ok(Transfer {
            bytes,
            io: Io::More,
        }),
        Err(e) => not_now(e),
    }
}

/// Would block: drained. Interrupted: call again. Everything else is an error.
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
