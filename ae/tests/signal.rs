//! A test in a process of its own, because the test stops and continues the process.

use std::process::Command;
use std::time::Duration;

use ae::{EventLoop, Events};

/// On Linux, `epoll_wait` of a process that is stopped and continued is interrupted, even without a
/// signal handler.
#[test]
fn interrupted_poll_is_not_an_error() {
    let pid = std::process::id();
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8; do kill -STOP {pid}; kill -CONT {pid}; sleep 0.01; done"
    );
    let mut el = EventLoop::new(8).unwrap();
    el.add_timer(Duration::ZERO, 0, |_, _, _| Some(Duration::from_millis(3)));
    let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    while shell.try_wait().unwrap().is_none() {
        el.process_events(&mut (), Events::ALL).unwrap();
    }
}
