//! Accepting a client, as the lessons from the third on do it.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};

/// The next client, whose socket does not block; `None` if no client waits now. A client that was
/// lost between the kernel and this call is skipped.
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
