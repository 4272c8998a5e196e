//! Resolves host names on a thread, so that the event loop does not wait for a name server.
//!
//! ```text
//!   loop:   ask(id, host, port) ──> [ questions ] ──> thread: resolve, wake the loop
//!           try_answer <─────────── [ answers ] <────────┘
//! ```
//!
//! An IP address needs no look-up, and so no thread: [`super::connect::numeric`].
//!
//! **Limits:** there is one thread, so a host name whose name server does not respond delays the
//! host names after it; at most [`QUESTIONS_MAX`] host names wait. The thread ends when the
//! resolver is dropped and its present look-up has returned.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use crate::sys::tape;

/// The maximum number of host names that wait to be resolved.
const QUESTIONS_MAX: usize = 1024;

/// A function that finds the addresses of a host, each with the port. Blocks until the name server
/// has responded.
pub type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

struct Question {
    id: u64,
    host: String,
    port: u16,
}

/// The result of resolving a host name.
pub struct Answer {
    /// The `id` that was passed to [`Resolver::ask`].
    pub id: u64,
    pub found: io::Result<Vec<SocketAddr>>,
}

/// The thread that resolves host names, with a queue of questions and a queue of answers.
pub struct Resolver {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Resolver {
    /// Starts the thread that resolves host names, and calls `wake` after each answer.
    pub fn start(lookup: Lookup, wake: impl Fn() + Send + 'static) -> io::Result<Resolver> {
        let (questions, asked) = mpsc::sync_channel::<Question>(QUESTIONS_MAX);
        let (answer, answers) = mpsc::channel();
        thread::Builder::new()
            .name("resolver".into())
            .spawn(move || {
                while let Ok(Question { id, host, port }) = asked.recv() {
                    let found = lookup(&host, port);
                    if answer.send(Answer { id, found }).is_err() {
                        return;
                    }
                    wake();
                }
            })?;
        Ok(Resolver { questions, answers })
    }

    /// Requests the addresses of a host name, under an `id` for the answer. Returns an error if too
    /// many host names wait.
    pub fn ask(&self, id: u64, host: &str, port: u16) -> io::Result<()> {
        tape::not_recorded("a connection to another server");
        let host = host.to_string();
        self.questions
            .try_send(Question { id, host, port })
            .map_err(|_| io::Error::other("Too many names are being resolved"))
    }

    /// The next answer of the thread, if it has resolved a host name.
    pub fn try_answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_in_order_and_failures_too() {
        let lookup: Lookup = |host, port| match host {
            "known" => Ok(vec![([10, 0, 0, 1], port).into()]),
            _ => Err(io::Error::other("unknown")),
        };
        let (woken, wakes) = mpsc::channel();
        let resolver =
            Resolver::start(lookup, move || woken.send(()).expect("a test")).expect("a thread");
        resolver.ask(1, "known", 7).expect("room");
        resolver.ask(2, "other", 8).expect("room");
        let answers = [(); 2].map(|()| {
            wakes.recv().expect("woken");
            resolver.try_answer().expect("an answer")
        });
        assert_eq!((answers[0].id, answers[1].id), (1, 2));
        let address: SocketAddr = ([10, 0, 0, 1], 7).into();
        assert_eq!(answers[0].found.as_ref().expect("found"), &[address]);
        assert!(answers[1].found.is_err());
        assert!(resolver.try_answer().is_none());
    }

    #[test]
    fn questions_that_wait_are_bounded() {
        let never: Lookup = |_, _| loop {
            thread::park();
        };
        let resolver = Resolver::start(never, || {}).expect("a thread");
        let asked =
            (0..2 * QUESTIONS_MAX as u64).take_while(|&id| resolver.ask(id, "x", 1).is_ok());
        // The resolver's thread may have taken one question out of the queue already.
        assert!((QUESTIONS_MAX..=QUESTIONS_MAX + 1).contains(&asked.count()));
    }
}
