//! A counter of bytes that no client can monopolise.
//!
//! What 03 lacked: it reads until the socket is empty, and the socket of a fast peer never is, so
//! one client can occupy the loop. Here a handler moves `el.budget()` bytes, returns `More`, and is
//! called again after every other client was served. The operator's port is in `Class::First`, so
//! its requests are served before those of all other clients.
//!
//!     cargo run --release --example 04_fairness &
//!     nc 127.0.0.1 7004 < /dev/zero &  (several)   then   nc 127.0.0.1 7104, and press return

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use ae::{Class, EventLoop, Io, Mask, Token};

mod net;
use net::{accept, listen, would_block};

struct Server {
    crowd: TcpListener,
    admin: TcpListener,
    clients: HashMap<Token, TcpStream>,
    buffer: Vec<u8>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    turns: u64,
    calls: u64,
    bytes: u64,
}

type Loop = EventLoop<Server>;

fn main() -> io::Result<()> {
    let mut el = EventLoop::new(1024)?;
    let crowd = listen(&mut el, 7004, Class::Normal, accept_crowd_handler)?;
    let admin = listen(&mut el, 7104, Class::First, accept_admin_handler)?;
    el.set_before_sleep(Some(|_, s: &mut Server| s.figures.turns += 1));
    let (clients, buffer, figures) = (HashMap::new(), vec![0; 16 * 1024], Figures::default());
    el.run(&mut Server {
        crowd,
        admin,
        clients,
        buffer,
        figures,
    })
}

fn accept_crowd_handler(el: &mut Loop, s: &mut Server, _: Token, _: Mask) -> Io {
    match accept(el, &s.crowd, Class::Normal, count_handler) {
        Ok((token, stream)) => drop(s.clients.insert(token, stream)),
        Err(io) => return io,
    }
    Io::More
}

fn accept_admin_handler(el: &mut Loop, s: &mut Server, _: Token, _: Mask) -> Io {
    match accept(el, &s.admin, Class::First, report_handler) {
        Ok((token, stream)) => drop(s.clients.insert(token, stream)),
        Err(io) => return io,
    }
    Io::More
}

/// Without the budget this would be a `loop`, which hardly ever returns for a peer that sends
/// /dev/zero.
fn count_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(stream) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    s.figures.calls += 1;
    let mut moved = 0;
    while moved < el.budget() {
        match stream.read(&mut s.buffer) {
            Ok(n) if n > 0 => {
                moved += n;
                s.figures.bytes += n as u64;
            }
            Err(error) if would_block(&error) => return Io::Drained,
            _ => return close_client(el, s, t),
        }
    }
    Io::More
}

/// Any input requests the figures. A peer that never reads them fills its socket, and is then
/// closed.
fn report_handler(el: &mut Loop, s: &mut Server, t: Token, _: Mask) -> Io {
    let Some(stream) = s.clients.get_mut(&t) else {
        return Io::Drained;
    };
    match stream.read(&mut s.buffer) {
        Ok(n) if n > 0 => {}
        Err(error) if would_block(&error) => return Io::Drained,
        _ => return close_client(el, s, t),
    }
    match stream.write_all(format!("{:?}\n", s.figures).as_bytes()) {
        Ok(()) => Io::More,
        Err(_) => close_client(el, s, t),
    }
}

fn close_client(el: &mut Loop, s: &mut Server, t: Token) -> Io {
    el.remove_file(t);
    s.clients.remove(&t);
    Io::Drained
}
