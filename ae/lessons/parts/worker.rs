//! The code of lesson 11: work on another thread, whose results wake the loop.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ae::{Token, Waker};

/// The loop thread's ends of the two channels between it and the worker thread.
pub struct Worker {
    pub requests: Sender<(Token, u64)>,
    pub results: Receiver<(Token, u64)>,
}

impl Worker {
    pub fn start(waker: Waker) -> Worker {
        let (requests, to_do) = channel();
        let (done, results) = channel();
        thread::spawn(move || {
            for (client, limit) in to_do {
                if done.send((client, primes(limit))).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        });
        Worker { requests, results }
    }
}

/// Counts the primes below `limit` by trial division, which is slow on purpose.
fn primes(limit: u64) -> u64 {
    let is_prime = |n: &u64| {
        (2..*n)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    (2..limit).filter(is_prime).count() as u64
}
