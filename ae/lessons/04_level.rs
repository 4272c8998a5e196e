//! Lesson 4: the kernel keeps the list of sockets.
//!
//! Lesson 3 passed the list of all sockets to the kernel in each turn. `epoll` gets each socket
//! once and then reports only the ready ones: a turn of the loop costs what its ready sockets cost,
//! however many are idle. The reports of epoll are *levels*: a socket with unread bytes is reported
//! in every turn until it is empty. So to stop reading for a while, a server must deregister the
//! socket, and register it again later: two system calls.
//!
//!     cargo run -p ae --example 04_level &    then    python3 ae/lessons/try.py 4

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

mod parts;
use parts::{net, port};

/// The number in epoll's events of the listener; a client's events have the number of its fd.
const LISTENER: u64 = u64::MAX;
const INTEREST: EpollFlags = EpollFlags::EPOLLIN;

fn main() -> io::Result<()> {
    let listener = port::listen(4)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut clients: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue, // after Ctrl-Z and fg, the wait is repeated
            ready => ready?,
        };
        for number in events[..ready].iter().map(EpollEvent::data) {
            if number != LISTENER {
                if clients.get_mut(&number).is_some_and(|c| echo(c).is_err()) {
                    clients.remove(&number);
                }
            } else if let Some(client) = net::accept(&listener) {
                let number = client.as_raw_fd() as u64;
                epoll.add(&client, EpollEvent::new(INTEREST, number))?;
                clients.insert(number, client);
            }
        }
    }
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
