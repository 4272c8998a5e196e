//! Tests of handlers that run a nested turn of the loop, as a long-running command does to serve
//! other clients.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use ae::{Class, EventLoop, Events, Io, Mask, Moment, Phase, Token};

struct World {
    ours: Vec<UnixStream>,
    peer: Vec<UnixStream>,
    tokens: Vec<Token>,
    log: Vec<(&'static str, u64)>,
}

type Loop = EventLoop<World>;
const NESTED: Events = Events::FILES.union(Events::DONT_WAIT);

fn setup(n: u64) -> (Loop, World) {
    let mut el = EventLoop::new(16).unwrap();
    let mut w = World {
        ours: vec![],
        peer: vec![],
        tokens: vec![],
        log: vec![],
    };
    for index in 0..n {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        w.tokens
            .push(el.add_file(ours.as_raw_fd(), Class::Normal, index).unwrap());
        w.ours.push(ours);
        w.peer.push(peer);
    }
    (el, w)
}

fn turn(el: &mut Loop, w: &mut World) -> Vec<(&'static str, u64)> {
    el.process_events(w, Events::ALL | Events::DONT_WAIT)
        .unwrap();
    std::mem::take(&mut w.log)
}

fn read(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
    let index = el.data(t).unwrap();
    let n = w.ours[index as usize].read(&mut [0; 64]).unwrap_or(0);
    w.log.push((if n > 0 { "read" } else { "nothing" }, index));
    Io::Drained
}

/// A handler that reads, then runs a nested turn, before which its own fd gets more bytes, then
/// returns `Drained`.
fn read_and_nest(el: &mut Loop, w: &mut World, t: Token, mask: Mask) -> Io {
    let io = read(el, w, t, mask);
    let index = el.data(t).unwrap();
    w.peer[index as usize].write_all(b"more").unwrap();
    w.log.push(("nest", index));
    el.process_events(w, NESTED).unwrap();
    w.log.push(("back", index));
    el.set_handler(t, Mask::READABLE, read);
    io
}

#[test]
fn nested_turn_does_not_reenter_a_handler() {
    let (mut el, mut w) = setup(3);
    el.set_handler(w.tokens[0], Mask::READABLE, read_and_nest);
    el.set_handler(w.tokens[1], Mask::READABLE, read);
    el.set_handler(w.tokens[2], Mask::READABLE, read);
    for peer in &mut w.peer {
        peer.write_all(b"x").unwrap();
    }
    // The nested turn serves fds 1 and 2, and the outer turn does not serve them again.
    let first = [
        ("read", 0),
        ("nest", 0),
        ("read", 1),
        ("read", 2),
        ("back", 0),
    ];
    assert_eq!(turn(&mut el, &mut w), first);
    // The edge that the nested poll reported for fd 0 is not lost when the handler of fd 0 then
    // returns `Drained`.
    assert_eq!(turn(&mut el, &mut w), [("read", 0)]);
    assert_eq!(turn(&mut el, &mut w), []);
}

#[test]
fn nested_turn_removes_the_file_that_nests() {
    fn nest(el: &mut Loop, w: &mut World, t: Token, _: Mask) -> Io {
        w.log.push(("nest", 0));
        el.process_events(w, NESTED).unwrap();
        assert_eq!(el.data(t), None);
        Io::More
    }
    fn remove_the_first(el: &mut Loop, w: &mut World, t: Token, mask: Mask) -> Io {
        assert!(el.remove_file(w.tokens[0]));
        read(el, w, t, mask)
    }
    let (mut el, mut w) = setup(2);
    el.set_handler(w.tokens[0], Mask::READABLE | Mask::WRITABLE, nest);
    el.set_handler(w.tokens[1], Mask::READABLE, remove_the_first);
    for peer in &mut w.peer {
        peer.write_all(b"x").unwrap();
    }
    assert_eq!(turn(&mut el, &mut w), [("nest", 0), ("read", 1)]);
    assert_eq!(turn(&mut el, &mut w), []);
}

/// The observer's calls nest like brackets: an end closes the latest phase that is open.
#[test]
fn the_observer_can_distinguish_a_nested_turn_from_the_turn_around_it() {
    thread_local!(static SEEN: RefCell<Vec<(Phase, Moment)>> = RefCell::default());
    fn observe(_: &Loop, _: &mut World, phase: Phase, moment: Moment) {
        SEEN.with_borrow_mut(|seen| seen.push((phase, moment)));
    }
    let (mut el, mut w) = setup(2);
    el.set_handler(w.tokens[0], Mask::READABLE, read_and_nest);
    el.set_handler(w.tokens[1], Mask::READABLE, read);
    el.set_handler(w.tokens[1], Mask::WRITABLE, |_, _, _, _| Io::Drained);
    w.peer[0].write_all(b"x").unwrap();
    w.peer[1].write_all(b"y").unwrap();
    el.set_observer(Some(observe));
    turn(&mut el, &mut w);
    let (mut open, mut around) = (Vec::new(), Vec::new());
    for (phase, moment) in SEEN.take() {
        if moment == Moment::Begin {
            around.push((phase, open.clone()));
            open.push(phase);
            continue;
        }
        match (open.pop(), phase) {
            (Some(Phase::Poll(0)), Phase::Poll(_)) => {}
            (begun, ended) => assert_eq!(begun, Some(ended)),
        }
    }
    assert_eq!(open, [], "all phases have ended");
    let outer = Phase::File(w.tokens[0], Mask::READABLE);
    for direction in [Mask::READABLE, Mask::WRITABLE] {
        let inner = Phase::File(w.tokens[1], direction);
        let (_, path) = around.iter().find(|(phase, _)| *phase == inner).unwrap();
        assert_eq!(path, &[Phase::Turn, outer, Phase::Turn]);
    }
}
