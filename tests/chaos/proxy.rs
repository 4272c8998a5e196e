//! A proxy on loopback between two servers, which can make their link fail.
//!
//! ```text
//!   client ──> accept ─┬─ pump: client to server ─┬─> server
//!                      └─ pump: server to client ─┘
//!   each pump, for each read: cut? held? delayed? throttled? ─> write
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The present failures of a proxy's link.
#[derive(Default)]
pub struct Faults {
    /// The number of times that the proxy has cut its connections; those from before the last cut
    /// are closed.
    generation: AtomicU64,
    /// Whether new connections are closed at once.
    refuse: AtomicBool,
    /// Whether no bytes are carried to the server (here) or to the client (the next field), while
    /// the connections stay open.
    hold_requests: AtomicBool,
    hold_replies: AtomicBool,
    /// The delay, in milliseconds, of the bytes of each read.
    delay_ms: AtomicU64,
    /// The maximum number of bytes that the proxy carries per millisecond; 0 is no limit.
    throttle: AtomicU64,
    ended: AtomicBool,
    /// The port of the server to which the proxy connects.
    server: AtomicU16,
}

/// A failure of the link between two servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// All connections through the proxy end.
    Cut,
    /// All connections through the proxy end, and new ones are refused.
    Refuse,
    /// The connections stay open and carry no bytes in either direction.
    HalfOpen,
    /// The proxy passes no byte of the client to the server.
    NoRequests,
    /// The proxy passes no byte of the server to the client.
    NoReplies,
    Delay(u64),
    /// The maximum number of bytes that the proxy carries per millisecond.
    Throttle(u64),
}

pub struct Proxy {
    pub port: u16,
    faults: Arc<Faults>,
}

const PATIENCE: Duration = Duration::from_millis(20);
/// A proxy reads at most this number of bytes at a time, so that a delay or a limit applies to each
/// read.
const PIECE: usize = 16 * 1024;

impl Proxy {
    /// Starts a proxy that has no server yet.
    pub fn new() -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        thread::spawn(move || accept(&listener, &shared));
        Proxy { port, faults }
    }

    pub fn lead_to(&self, server: u16) {
        self.faults.server.store(server, Ordering::SeqCst);
    }

    pub fn fail(&self, fault: Fault) {
        let faults = &self.faults;
        match fault {
            Fault::Cut => {}
            Fault::Refuse => faults.refuse.store(true, Ordering::SeqCst),
            Fault::HalfOpen => {
                faults.hold_requests.store(true, Ordering::SeqCst);
                faults.hold_replies.store(true, Ordering::SeqCst);
            }
            Fault::NoRequests => faults.hold_requests.store(true, Ordering::SeqCst),
            Fault::NoReplies => faults.hold_replies.store(true, Ordering::SeqCst),
            Fault::Delay(ms) => faults.delay_ms.store(ms, Ordering::SeqCst),
            Fault::Throttle(rate) => faults.throttle.store(rate, Ordering::SeqCst),
        }
        if matches!(fault, Fault::Cut | Fault::Refuse) {
            faults.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Ends all failures of the link. Bytes that were held back are then carried.
    pub fn heal(&self) {
        let faults = &self.faults;
        for held in [&faults.refuse, &faults.hold_requests, &faults.hold_replies] {
            held.store(false, Ordering::SeqCst);
        }
        faults.delay_ms.store(0, Ordering::SeqCst);
        faults.throttle.store(0, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.faults.ended.store(true, Ordering::SeqCst);
        self.fail(Fault::Refuse);
        // A connection wakes the proxy's thread, which waits in `accept` and then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, faults: &Arc<Faults>) {
    for client in listener.incoming() {
        if faults.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else {
            continue;
        };
        if faults.refuse.load(Ordering::SeqCst) {
            continue;
        }
        // If the server has ended, the client's connection is closed.
        let server = faults.server.load(Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
            continue;
        };
        let generation = faults.generation.load(Ordering::SeqCst);
        let ends = (client.try_clone(), server.try_clone());
        let (Ok(client_2), Ok(server_2)) = ends else {
            continue;
        };
        let (up, down) = (Arc::clone(faults), Arc::clone(faults));
        thread::spawn(move || pump(client, server, true, generation, &up));
        thread::spawn(move || pump(server_2, client_2, false, generation, &down));
    }
}

/// Carries bytes in one direction until one side closes or the proxy cuts the connection.
fn pump(mut from: TcpStream, mut to: TcpStream, requests: bool, generation: u64, faults: &Faults) {
    let is_cut = || faults.generation.load(Ordering::SeqCst) != generation;
    let held = match requests {
        true => &faults.hold_requests,
        false => &faults.hold_replies,
    };
    let _ = from.set_read_timeout(Some(PATIENCE));
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; PIECE];
    'link: while !is_cut() {
        if held.load(Ordering::SeqCst) {
            thread::sleep(PATIENCE);
            continue;
        }
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        thread::sleep(Duration::from_millis(
            faults.delay_ms.load(Ordering::SeqCst),
        ));
        let rate = faults.throttle.load(Ordering::SeqCst) as usize;
        let piece = if rate == 0 { n } else { rate };
        for bytes in buffer[..n].chunks(piece) {
            while held.load(Ordering::SeqCst) && !is_cut() {
                thread::sleep(PATIENCE);
            }
            if is_cut() || to.write_all(bytes).is_err() {
                break 'link;
            }
            if rate > 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
