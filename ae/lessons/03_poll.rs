//! Lesson 3: one thread that asks about every client.
//!
//! Lesson 2 used a thread for each client. Here one thread waits for all clients: `poll` gets the
//! list of all sockets and marks those that can be read, so no `read` waits. The price is the list:
//! in each call the kernel and then the program walk all of it, even if one client of ten thousand
//! has sent a byte. (`select` of 1983 also gets such a list, of at most 1,024 sockets.)
//!
//!     cargo run -p ae --example 03_poll &    then    python3 ae/lessons/try.py 3

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

mod parts;
use parts::{net, port};

fn main() -> io::Result<()> {
    let listener = port::listen(3)?;
    let mut clients: Vec<TcpStream> = Vec::new();
    loop {
        // From the last client to the first: a removal then moves only clients that were served.
        for index in readable(&listener, &clients)?.into_iter().rev() {
            if index == 0 {
                clients.extend(net::accept(&listener));
            } else if echo(&mut clients[index - 1]).is_err() {
                clients.swap_remove(index - 1);
            }
        }
    }
}

/// The indexes of the sockets that can be read without waiting: 0 is the listener, 1 the first
/// client.
fn readable(listener: &TcpListener, clients: &[TcpStream]) -> io::Result<Vec<usize>> {
    let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    fds.extend(
        clients
            .iter()
            .map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)),
    );
    poll(&mut fds, PollTimeout::NONE)?;
    let is_ready = |fd: &PollFd| fd.any().unwrap_or(true);
    Ok((0..fds.len()).filter(|&i| is_ready(&fds[i])).collect())
}

/// Echoes what one `read` returns; an error means that the client is to be closed.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        n => lose_the_rest(stream.write_all(&buffer[..n])),
    }
}

/// Ignores that a socket is full: the bytes that did not fit are lost until lesson 7 keeps them.
fn lose_the_rest(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if net::would_block(&error) => Ok(()),
        other => other,
    }
}
