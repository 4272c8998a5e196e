//! Functions that lesson 01 contains in full, for the later lessons.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use ae::{Class, EventLoop, FileProc, Io, Mask, Token};

pub fn listen<S>(
    el: &mut EventLoop<S>,
    port: u16,
    class: Class,
    handler: FileProc<S>,
) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let token = el.add_file(listener.as_raw_fd(), class, 0)?;
    el.set_handler(token, Mask::READABLE, handler);
    Ok(listener)
}

/// Accepts one client in each call, so that new clients share the loop with existing ones. The
/// socket is nonblocking and added to the loop, with `handler` for reading. `Err` is what the
/// accept handler must return.
pub fn accept<S>(
    el: &mut EventLoop<S>,
    listener: &TcpListener,
    class: Class,
    handler: FileProc<S>,
) -> Result<(Token, TcpStream), Io> {
    let mut add = |stream: TcpStream| {
        stream.set_nonblocking(true)?;
        let token = el.add_file(stream.as_raw_fd(), class, 0)?;
        el.set_handler(token, Mask::READABLE, handler);
        Ok((token, stream))
    };
    let accepted = listener.accept().and_then(|(stream, _)| add(stream));
    accepted.map_err(|error| {
        if would_block(&error) {
            Io::Drained
        } else {
            Io::More
        }
    })
}

pub fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
