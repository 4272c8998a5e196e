//! Accepts clients with sockets that do not block, for the lessons from the third on.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};

/// Accepts the next client and makes its socket non-blocking; `None` if no client waits. A client
/// that disconnected before it was accepted is skipped.
pub fn accept(listener: &TcpListener) -> Option<TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => return Some(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

pub fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
