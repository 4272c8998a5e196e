//! A connected socket: TCP or unix. Non-blocking; the event loop says when to try again.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

pub enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    pub fn raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Tcp(socket) => socket.as_fd(),
            Connection::Unix(socket) => socket.as_fd(),
        }
    }

    /// Append at most `max` bytes to `into`. `Ok(0)`: the peer closed.
    pub fn read_into(&self, into: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        crate::sys::read_into(self.as_fd(), into, max)
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(socket) => socket.write(bytes),
            Connection::Unix(socket) => socket.write(bytes),
        }
    }

    pub fn write_vectored(&mut self, pieces: &[IoSlice]) -> io::Result<usize> {
        match self {
            Connection::Tcp(socket) => socket.write_vectored(pieces),
            Connection::Unix(socket) => socket.write_vectored(pieces),
        }
    }
}
