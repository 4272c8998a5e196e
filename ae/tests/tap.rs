//! Tests that the inputs of the loop pass through a tap, and that the same inputs give the same
//! calls of handlers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ae::{Change, Class, EventLoop, Events, Io, Mask, Tap, TimerId, Token};

enum Input {
    Clock(u64),
    Poll(Vec<Change>),
}

thread_local! {
    static NOTED: RefCell<VecDeque<Input>> = const { RefCell::new(VecDeque::new()) };
}

/// Records each input of the event loop: each time of the clock and each report of the kernel.
struct Notes;

impl Tap for Notes {
    fn clock(&self, live: &dyn Fn() -> u64) -> u64 {
        let now = live();
        NOTED.with_borrow_mut(|noted| noted.push_back(Input::Clock(now)));
        now
    }

    fn poll(&self, live: &mut dyn FnMut() -> io::Result<Vec<Change>>) -> io::Result<Vec<Change>> {
        let changes = live()?;
        NOTED.with_borrow_mut(|noted| noted.push_back(Input::Poll(changes.clone())));
        Ok(changes)
    }

    fn has_files(&self) -> bool {
        true
    }
}

/// Gives the event loop the recorded times and reports instead of those of the clock and the
/// kernel.
struct Plays;

impl Tap for Plays {
    fn clock(&self, _: &dyn Fn() -> u64) -> u64 {
        match NOTED.with_borrow_mut(VecDeque::pop_front) {
            Some(Input::Clock(now)) => now,
            _ => panic!("the loop asks for another input"),
        }
    }

    fn poll(&self, _: &mut dyn FnMut() -> io::Result<Vec<Change>>) -> io::Result<Vec<Change>> {
        match NOTED.with_borrow_mut(VecDeque::pop_front) {
            Some(Input::Poll(changes)) => Ok(changes
                .into_iter()
                .map(|change| Change::from_raw(change.to_raw()))
                .collect()),
            _ => panic!("the loop asks for another input"),
        }
    }

    fn has_files(&self) -> bool {
        false
    }
}

#[derive(Default)]
struct Calls {
    stream: Option<UnixStream>,
    calls: Vec<String>,
}

fn reads(el: &mut EventLoop<Calls>, s: &mut Calls, t: Token, mask: Mask) -> Io {
    s.calls.push(format!("{:?} {mask:?}", el.data(t)));
    if let Some(stream) = &mut s.stream {
        let _ = stream.read(&mut [0; 100]);
    }
    Io::Drained
}

fn ticks(_: &mut EventLoop<Calls>, s: &mut Calls, _: TimerId) -> Option<Duration> {
    s.calls.push("timer".into());
    Some(Duration::from_micros(300))
}

fn turns(tap: &'static dyn Tap, fd: i32, s: &mut Calls, mut before: impl FnMut(usize)) {
    let mut el = EventLoop::new(16).expect("a loop");
    el.set_tap(Some(tap));
    let token = el.add_file(fd, Class::Normal, 77).expect("a file");
    el.set_handler(token, Mask::READABLE, reads);
    el.add_timer(Duration::from_micros(100), 0, ticks);
    for turn in 0..20 {
        before(turn);
        el.process_events(s, Events::ALL).expect("a turn");
    }
    assert!(el.remove_file(token));
}

#[test]
fn a_turn_depends_on_its_inputs_only() {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    theirs.set_nonblocking(true).expect("a flag");
    let fd = theirs.as_raw_fd();
    let mut live = Calls {
        stream: Some(theirs),
        ..Calls::default()
    };
    turns(&Notes, fd, &mut live, |turn| {
        if turn % 3 == 0 {
            ours.write_all(b"x").expect("room");
        }
    });
    let files = live.calls.iter().filter(|call| call.contains("77")).count();
    assert!((1..=7).contains(&files) && files < live.calls.len());
    // In the replay, fd 9999 is no open file, and the kernel does not watch it.
    let mut again = Calls::default();
    turns(&Plays, 9999, &mut again, |_| ());
    assert_eq!(again.calls, live.calls);
    assert!(NOTED.with_borrow(VecDeque::is_empty));
}
