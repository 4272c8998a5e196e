//! Tests of turns of the event loop that serve fds.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use ae::{Class, EventLoop, Events, Io, Mask, Token};

/// A set of connected socket pairs; the `data` of a token is the index of its pair. The loop
/// watches the sockets in `ours`, the test writes to those in `peer`.
#[derive(Default)]
struct World {
    ours: Vec<Option<UnixStream>>,
    peer: Vec<UnixStream>,
    tokens: Vec<Token>,
    log: Vec<(&'static str, u64)>,
}

type Loop = EventLoop<World>;
const TURN: Events = Events::ALL.union(Events::DONT_WAIT);

impl World {
    fn connect(&mut self, el: &mut Loop, class: Class) -> io::Result<Token> {
        let (ours, peer) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let token = el.add_file(ours.as_raw_fd(), class, self.ours.len() as u64)?;
        self.ours.push(Some(ours));
        self.peer.push(peer);
        self.tokens.push(token);
        Ok(token)
    }

    fn read(&mut self, index: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.ours[index as usize].as_mut().unwrap().read(buffer)
    }

    fn take_log(&mut self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.log)
    }

    fn turn(&mut self, el: &mut Loop) -> Vec<(&'static str, u64)> {
        el.process_events(self, TURN).unwrap();
        self.take_log()
    }
}

/// Makes a loop with `n` files without handlers, whose first edge (writable) was reported.
fn setup(n: usize) -> (Loop, World) {
    let mut el = EventLoop::new(64).unwrap();
    let mut w = World::default();
    for _ in 0..n {
        w.connect(&mut el, Class::Normal).unwrap();
    }
    assert_eq!(w.turn(&mut el), []);
    (el, w)
}

fn on_readable(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
    let index = el.data(t).unwrap();
    w.log.push(("read", index));
    match w.read(index, &mut [0; 4096]) {
        Ok(0) => w.log.push(("eof", index)),
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
    }
    Io::Drained
}

fn on_writable(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
    w.log.push(("write", el.data(t).unwrap()));
    Io::Drained
}

#[test]
fn readable_before_writable() {
    let (mut el, mut w) = setup(1);
    w.peer[0].write_all(b"x").unwrap();
    el.set_handler(w.tokens[0], Mask::WRITABLE, on_writable);
    el.set_handler(w.tokens[0], Mask::READABLE, on_readable);
    assert_eq!(w.turn(&mut el), [("read", 0), ("write", 0)]);
    assert_eq!(w.turn(&mut el), []);
}

#[test]
fn barrier_inverts() {
    let (mut el, mut w) = setup(1);
    w.peer[0].write_all(b"x").unwrap();
    el.set_handler(w.tokens[0], Mask::READABLE, on_readable);
    el.set_handler(w.tokens[0], Mask::WRITABLE | Mask::BARRIER, on_writable);
    assert_eq!(w.turn(&mut el), [("write", 0), ("read", 0)]);
    el.clear_handler(w.tokens[0], Mask::WRITABLE);
    assert_eq!(el.mask(w.tokens[0]), Mask::READABLE);
}

#[test]
fn handler_gets_one_direction() {
    fn both(el: &mut Loop, w: &mut World, t: Token, mask: Mask) -> Io {
        if mask == Mask::READABLE {
            on_readable(el, w, t, mask)
        } else {
            on_writable(el, w, t, mask)
        }
    }
    let (mut el, mut w) = setup(1);
    w.peer[0].write_all(b"x").unwrap();
    el.set_handler(w.tokens[0], Mask::READABLE | Mask::WRITABLE, both);
    assert_eq!(w.turn(&mut el), [("read", 0), ("write", 0)]);
}

#[test]
fn handler_installed_on_a_ready_fd_fires_next_turn() {
    fn read_then_want_to_write(el: &mut Loop, w: &mut World, t: Token, mask: Mask) -> Io {
        el.set_handler(t, Mask::WRITABLE, on_writable);
        on_readable(el, w, t, mask)
    }
    let (mut el, mut w) = setup(1);
    w.peer[0].write_all(b"x").unwrap();
    assert_eq!(
        w.turn(&mut el),
        [],
        "the edge is seen, no handler is interested"
    );
    el.set_handler(w.tokens[0], Mask::READABLE, read_then_want_to_write);
    assert_eq!(w.turn(&mut el), [("read", 0)]);
    assert_eq!(w.turn(&mut el), [("write", 0)]);
    assert_eq!(w.turn(&mut el), []);
}

#[test]
fn cleared_handler_does_not_fire() {
    let (mut el, mut w) = setup(1);
    el.set_handler(w.tokens[0], Mask::WRITABLE, on_writable);
    el.clear_handler(w.tokens[0], Mask::WRITABLE);
    assert_eq!(w.turn(&mut el), []);
    el.set_handler(w.tokens[0], Mask::WRITABLE, on_writable);
    assert_eq!(w.turn(&mut el), [("write", 0)]);
}

#[test]
fn handler_cleared_by_the_other_direction_does_not_fire() {
    fn read_and_stop_writing(el: &mut Loop, w: &mut World, t: Token, mask: Mask) -> Io {
        el.clear_handler(t, Mask::WRITABLE);
        on_readable(el, w, t, mask)
    }
    let (mut el, mut w) = setup(1);
    w.peer[0].write_all(b"x").unwrap();
    el.set_handler(w.tokens[0], Mask::READABLE, read_and_stop_writing);
    el.set_handler(w.tokens[0], Mask::WRITABLE, on_writable);
    assert_eq!(w.turn(&mut el), [("read", 0)]);
    assert_eq!(w.turn(&mut el), []);
}

#[test]
fn more_keeps_firing_without_new_edges() {
    fn one_byte(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
        let index = el.data(t).unwrap();
        match w.read(index, &mut [0]) {
            Ok(_) => w.log.push(("byte", index)),
            Err(_) => return Io::Drained,
        }
        Io::More
    }
    let (mut el, mut w) = setup(1);
    el.set_handler(w.tokens[0], Mask::READABLE, one_byte);
    w.peer[0].write_all(b"abc").unwrap();
    // The turn has no DONT_WAIT, because the poll does not sleep while a file is due.
    for _ in 0..3 {
        el.process_events(&mut w, Events::ALL).unwrap();
        assert_eq!(w.take_log(), [("byte", 0)]);
    }
    assert_eq!(
        el.process_events(&mut w, Events::ALL).unwrap(),
        1,
        "WouldBlock, Drained"
    );
    assert_eq!(el.process_events(&mut w, TURN).unwrap(), 0);
}

#[test]
fn more_is_kept_while_the_handler_is_away() {
    fn stop_halfway(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
        let index = el.data(t).unwrap();
        w.read(index, &mut [0]).unwrap();
        el.clear_handler(t, Mask::READABLE);
        Io::More
    }
    let (mut el, mut w) = setup(1);
    el.set_handler(w.tokens[0], Mask::READABLE, stop_halfway);
    w.peer[0].write_all(b"abc").unwrap();
    assert_eq!(el.process_events(&mut w, TURN).unwrap(), 1);
    assert_eq!(el.process_events(&mut w, TURN).unwrap(), 0);
    el.set_handler(w.tokens[0], Mask::READABLE, on_readable);
    assert_eq!(w.turn(&mut el), [("read", 0)]);
}

/// A client that sends much and a client that sends little: both clients are served in every turn,
/// and no handler call moves more than the budget.
#[test]
fn budget_is_shared_out_turn_by_turn() {
    fn within_budget(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
        let index = el.data(t).unwrap();
        let mut buffer = vec![0; el.budget()];
        w.log.push(("read", index));
        match w.read(index, &mut buffer) {
            Ok(n) if n == buffer.len() => Io::More,
            _ => Io::Drained,
        }
    }
    let (mut el, mut w) = setup(2);
    el.set_budget(1000);
    for token in w.tokens.clone() {
        el.set_handler(token, Mask::READABLE, within_budget);
    }
    w.peer[0].write_all(&[b'x'; 2500]).unwrap();
    w.peer[1].write_all(b"y").unwrap();
    assert_eq!(w.turn(&mut el), [("read", 0), ("read", 1)]);
    w.peer[1].write_all(b"y").unwrap();
    assert_eq!(w.turn(&mut el), [("read", 0), ("read", 1)]);
    assert_eq!(w.turn(&mut el), [("read", 0)]);
    assert_eq!(w.turn(&mut el), []);
}

#[test]
fn first_class_is_served_before_the_others() {
    let (mut el, mut w) = setup(2);
    w.connect(&mut el, Class::First).unwrap();
    for token in w.tokens.clone() {
        el.set_handler(token, Mask::READABLE, on_readable);
    }
    for peer in &mut w.peer {
        peer.write_all(b"x").unwrap();
    }
    assert_eq!(w.turn(&mut el), [("read", 2), ("read", 0), ("read", 1)]);
    el.set_class(w.tokens[1], Class::First);
    el.set_class(w.tokens[2], Class::Normal);
    for peer in &mut w.peer {
        peer.write_all(b"x").unwrap();
    }
    assert_eq!(w.turn(&mut el), [("read", 1), ("read", 0), ("read", 2)]);
}

/// Bytes and a FIN that arrive together are one edge. The handler returns `Drained` after a short
/// read, and is still called for the end of file.
#[test]
fn end_of_file_behind_a_short_read_is_seen() {
    let (mut el, mut w) = setup(1);
    el.set_handler(w.tokens[0], Mask::READABLE, on_readable);
    w.peer[0].write_all(b"last words").unwrap();
    w.peer.clear();
    assert_eq!(w.turn(&mut el), [("read", 0)]);
    assert_eq!(w.turn(&mut el), [("read", 0), ("eof", 0)]);
    assert_eq!(
        w.turn(&mut el),
        [],
        "an end of file that is ignored does not spin"
    );
}

#[test]
fn marked_ready_fires_without_the_kernel() {
    let (mut el, mut w) = setup(1);
    el.set_handler(w.tokens[0], Mask::READABLE, on_readable);
    el.mark_ready(w.tokens[0], Mask::READABLE);
    assert_eq!(w.turn(&mut el), [("read", 0)]);
    assert_eq!(w.turn(&mut el), []);
}

/// Each of two handlers removes both files, so only the first handler is called.
#[test]
fn handler_removes_itself_and_a_file_that_is_due() {
    fn remove_all(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
        w.log.push(("removed by", el.data(t).unwrap()));
        for token in w.tokens.clone() {
            assert!(el.remove_file(token));
            assert!(!el.remove_file(token));
        }
        w.ours.clear();
        Io::More
    }
    let (mut el, mut w) = setup(2);
    for token in w.tokens.clone() {
        el.set_handler(token, Mask::READABLE | Mask::WRITABLE, remove_all);
    }
    for peer in &mut w.peer {
        peer.write_all(b"x").unwrap();
    }
    assert_eq!(w.turn(&mut el).len(), 1);
    assert_eq!(w.turn(&mut el), []);
    assert_eq!(el.len(), 0);
}

#[test]
fn handler_removes_a_file_that_has_already_fired() {
    fn remove_the_first(el: &mut Loop, w: &mut World, t: Token, mask: Mask) -> Io {
        assert!(el.remove_file(w.tokens[0]));
        w.ours[0] = None;
        on_readable(el, w, t, mask)
    }
    fn never_done(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
        w.log.push(("more", el.data(t).unwrap()));
        Io::More
    }
    let (mut el, mut w) = setup(2);
    el.set_handler(w.tokens[0], Mask::READABLE, never_done);
    el.set_handler(w.tokens[1], Mask::READABLE, remove_the_first);
    for peer in &mut w.peer {
        peer.write_all(b"x").unwrap();
    }
    assert_eq!(w.turn(&mut el), [("more", 0), ("read", 1)]);
    assert_eq!(w.turn(&mut el), []);
}

#[test]
fn gone_token_names_nothing() {
    let (mut el, mut w) = setup(1);
    let gone = w.tokens[0];
    assert_eq!(Token::from_raw(gone.to_raw()), gone);
    assert_eq!(el.data(gone), Some(0));
    assert!(el.remove_file(gone));
    let fresh = w.connect(&mut el, Class::Normal).unwrap();
    assert_ne!(gone, fresh);
    el.set_handler(gone, Mask::WRITABLE, on_writable);
    el.set_data(gone, 77);
    assert_eq!(
        (el.data(gone), el.fd(gone), el.mask(gone)),
        (None, None, Mask::NONE)
    );
    assert_eq!((el.data(fresh), el.mask(fresh)), (Some(1), Mask::NONE));
    assert!(!el.remove_file(Token::from_raw(u64::MAX)));
    assert_eq!(w.turn(&mut el), []);
}

#[test]
fn setsize_is_the_limit() {
    let mut el = EventLoop::new(2).unwrap();
    let mut w = World::default();
    w.connect(&mut el, Class::Normal).unwrap();
    w.connect(&mut el, Class::Normal).unwrap();
    let full = w.connect(&mut el, Class::Normal).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded);
    assert!(el.resize(1).is_err());
    el.resize(3).unwrap();
    assert_eq!((el.len(), el.setsize()), (2, 3));
    w.connect(&mut el, Class::Normal).unwrap();
    assert!(w.connect(&mut el, Class::Normal).is_err());
    el.remove_file(w.tokens[0]);
    el.resize(2).unwrap();
    assert!(el.resize(usize::MAX).is_err());
}

#[test]
fn bad_fd_takes_no_slot() {
    let (mut el, _) = setup(0);
    assert!(el.add_file(-1, Class::Normal, 0).is_err());
    assert_eq!(el.len(), 0);
}
