//! A test in a process of its own, because it must know the fd number of the next socket.

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use ae::{Class, EventLoop, Events, Io, Mask, Token};

struct World {
    ours: Vec<UnixStream>,
    tokens: Vec<Token>,
    fresh: Option<(Token, RawFd)>,
    served: Vec<Token>,
}

/// Handler of two files that are due in the same turn: it removes and closes the other file, and
/// opens a new one, which gets the same fd number.
fn replace_the_other(el: &mut EventLoop<World>, w: &mut World, t: Token, _: Mask) -> Io {
    w.served.push(t);
    if w.fresh.is_none() {
        let other = w.tokens.iter().position(|&token| token != t).unwrap();
        assert!(el.remove_file(w.tokens[other]));
        drop(w.ours.remove(other));
        let (ours, _peer_closes) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let token = el.add_file(ours.as_raw_fd(), Class::Normal, 0).unwrap();
        el.set_handler(token, Mask::READABLE, replace_the_other);
        w.fresh = Some((token, ours.as_raw_fd()));
        w.ours.push(ours);
    }
    Io::Drained
}

#[test]
fn stale_event_calls_no_handler() {
    let mut el = EventLoop::new(8).unwrap();
    let (first, mut first_peer) = UnixStream::pair().unwrap();
    let (second, mut second_peer) = UnixStream::pair().unwrap();
    let mut w = World {
        ours: vec![first, second],
        tokens: Vec::new(),
        fresh: None,
        served: Vec::new(),
    };
    for stream in &w.ours {
        stream.set_nonblocking(true).unwrap();
        let token = el.add_file(stream.as_raw_fd(), Class::Normal, 0).unwrap();
        el.set_handler(token, Mask::READABLE, replace_the_other);
        w.tokens.push(token);
    }
    let second_fd = w.ours[1].as_raw_fd();
    first_peer.write_all(b"x").unwrap();
    second_peer.write_all(b"x").unwrap();

    assert_eq!(el.process_events(&mut w, Events::ALL).unwrap(), 1);
    let (fresh, fresh_fd) = w.fresh.unwrap();
    assert_eq!(
        fresh_fd, second_fd,
        "the kernel gives out the lowest number"
    );
    assert_ne!(fresh, w.tokens[1]);
    assert_eq!(w.served, [w.tokens[0]]);

    assert_eq!(
        el.process_events(&mut w, Events::ALL).unwrap(),
        1,
        "its own event: the peer hung up"
    );
    assert_eq!(w.served, [w.tokens[0], fresh]);
}
