//! Tests of outgoing links to a scripted peer, which runs on a thread.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use ae::Events;

use super::*;
use crate::link::{Backoff, Errors, Expect, Malformed, Reply, Unasked};
use crate::sys;
use crate::testing::server_with;
use crate::util::random::Random;

/// A timeout that no test reaches with a correct peer, even on a slow machine.
const LONG_MS: u64 = 60_000;

thread_local! {
    /// The actions with which the handler of the links of a test was called.
    static HEARD: RefCell<Vec<Action>> = const { RefCell::new(Vec::new()) };
}

fn hear(_: &mut EventLoop<Server>, _: &mut Server, _: LinkId, action: Action) {
    HEARD.with_borrow_mut(|heard| heard.push(action));
}

fn heard() -> Vec<Action> {
    HEARD.take()
}

/// A server and its event loop.
struct Rig {
    el: EventLoop<Server>,
    server: Server,
}

impl Rig {
    fn new() -> Rig {
        // Actions that an earlier test on the same thread has left in the list are dropped.
        heard();
        Rig {
            el: EventLoop::new(64).expect("a loop"),
            server: server_with(0),
        }
    }

    fn open(&mut self, host: &str, port: u16, plan: Plan) -> LinkId {
        let target = Target {
            host,
            port,
            source: None,
            tls: false,
        };
        open(&mut self.el, &mut self.server, &target, plan, hear)
    }

    fn request(&mut self, id: LinkId, step: Step) {
        assert!(request(&mut self.el, &mut self.server, id, step));
    }

    fn turn(&mut self) {
        connect_resolved(&mut self.el, &mut self.server);
        let turn = self.el.process_events(&mut self.server, Events::ALL);
        turn.expect("a turn");
    }

    /// Runs turns of the event loop until `done` returns true for the list of actions.
    fn until(&mut self, done: impl Fn(&[Action]) -> bool) {
        while !HEARD.with_borrow(|heard| done(heard)) {
            self.turn();
        }
    }

    fn until_ready(&mut self) {
        self.until(|heard| heard.contains(&Action::Ready) || is_over(heard));
    }

    fn until_over(&mut self) -> Vec<Action> {
        self.until(is_over);
        heard()
    }

    fn take(&mut self, id: LinkId) -> Taken {
        take(&mut self.el, &mut self.server, id).expect("a connection")
    }

    fn is_empty(&self) -> bool {
        self.server.links.is_empty() && self.el.len() == 0
    }
}

fn is_over(heard: &[Action]) -> bool {
    matches!(heard.last(), Some(Action::Failed(_) | Action::Closed))
}

/// The side of the scripted peer of one connection.
struct Peer {
    reader: BufReader<TcpStream>,
}

impl Peer {
    /// Accepts one connection on a port of the loopback interface, and runs `script` on a thread.
    fn run(script: impl FnOnce(&mut Peer) + Send + 'static) -> (u16, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let thread = thread::spawn(move || script(&mut Peer::accept(&listener)));
        (port, thread)
    }

    fn accept(listener: &TcpListener) -> Peer {
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nodelay(true).expect("an option");
        let reader = BufReader::new(socket);
        Peer { reader }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        line.trim_end().to_string()
    }

    /// Reads one request, and returns it as words; empty at the end of the connection.
    fn request(&mut self) -> String {
        let header = self.line();
        let argc = header.strip_prefix('*').and_then(|n| n.parse().ok());
        let words: Vec<String> = (0..argc.unwrap_or(0))
            .map(|_| {
                let len = self.line();
                let len = len.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
                let word = self.line();
                assert_eq!(Some(word.len()), len);
                word
            })
            .collect();
        words.join(" ")
    }

    fn expect(&mut self, request: &str) {
        assert_eq!(self.request(), request);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("sent");
    }

    /// Sends each byte in a packet of its own.
    fn send_slowly(&mut self, bytes: &[u8]) {
        for byte in bytes.chunks(1) {
            self.send(byte);
            thread::yield_now();
        }
    }

    /// Waits until the link closes its side of the connection.
    fn until_closed(&mut self) {
        let mut rest = Vec::new();
        // An error of the read (a reset) also means that the link has closed the connection.
        let _ = self.reader.read_to_end(&mut rest);
    }
}

/// A port at which no server listens.
fn dead_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("the peer's script");
}

/// The shortest possible handshake of a replica: PING and PSYNC.
fn replica_plan() -> Plan {
    let script = vec![
        Step::new(1, &["PING"])
            .expect(Expect::Status("PONG"))
            .wait(),
        Step::auth(2, None, "secret"),
        Step::new(3, &["REPLCONF", "capa", "psync2"])
            .errors(Errors::Tolerated)
            .wait(),
        Step::new(4, &["PSYNC", "?", "-1"]).expect(Expect::Line),
    ];
    Plan::new(script, Unasked::Keep, LONG_MS)
}

const REPLIES: &[u8] = b"+PONG\r\n+OK\r\n-ERR unknown\r\n\n\n+FULLRESYNC abc 0\r\n";

fn replica_heard() -> Vec<Action> {
    let reply = |tag, reply| Action::Reply { tag, reply };
    vec![
        reply(1, Reply::Status("PONG".into())),
        reply(2, Reply::Status("OK".into())),
        reply(3, Reply::Error("ERR unknown".into())),
        reply(4, Reply::Status("FULLRESYNC abc 0".into())),
        Action::Ready,
    ]
}

/// A peer that completes a replica's handshake and then sends bytes that are not a reply.
fn primary(send: fn(&mut Peer, &[u8])) -> (u16, JoinHandle<()>) {
    Peer::run(move |peer| {
        peer.expect("PING");
        send(peer, b"+PONG\r\n");
        peer.expect("AUTH secret");
        peer.expect("REPLCONF capa psync2");
        send(peer, b"+OK\r\n-ERR unknown\r\n");
        peer.expect("PSYNC ? -1");
        send(peer, b"\n\n+FULLRESYNC abc 0\r\n$5\r\nREDIS");
        peer.expect("REPLCONF ACK 0");
        peer.send(b"SET");
    })
}

#[test]
fn a_replica_takes_its_connection_after_the_handshake() {
    for send in [Peer::send, Peer::send_slowly] {
        let (port, peer) = primary(send);
        let mut rig = Rig::new();
        let id = rig.open("127.0.0.1", port, replica_plan());
        rig.until_ready();
        assert_eq!(heard(), replica_heard());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(rig.server.links.address(id), Some(address));
        let mut taken = rig.take(id);
        assert!(rig.is_empty() && taken.unsent.is_empty());
        let mut conn = taken.conn;
        conn.write(b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n0\r\n")
            .expect("sent");
        while !taken.received.ends_with(b"SET") {
            sys::wait_for(conn.raw_fd(), false).expect("a wait");
            conn.read_into(&mut taken.received, 100).expect("open");
        }
        assert_eq!(taken.received, b"$5\r\nREDISSET");
        join(peer);
    }
}

#[test]
fn a_peer_that_closes_anywhere_in_the_handshake_is_a_failure() {
    for upto in 0..REPLIES.len() {
        let (port, peer) = Peer::run(move |peer| {
            peer.expect("PING");
            peer.send(&REPLIES[..upto]);
            // The peer reads all requests that the link sends, since closing the connection earlier
            // would be a reset.
            let requests = match upto {
                0..7 => 0,
                7..26 => 2,
                _ => 3,
            };
            (0..requests).for_each(|_| _ = peer.request());
        });
        let mut rig = Rig::new();
        rig.open("127.0.0.1", port, replica_plan());
        let heard = rig.until_over();
        let last = heard.last().expect("an end");
        assert!(
            matches!(last, Action::Failed(Failure::Closed)),
            "after {upto} bytes: {last:?}"
        );
        assert!(rig.is_empty());
        join(peer);
    }
}

/// The failure with which a link ends whose peer replies `reply` to PING.
fn fails_with(reply: &'static [u8], timeout_ms: u64) -> Failure {
    let (port, peer) = Peer::run(move |peer| {
        peer.expect("PING");
        peer.send(reply);
        peer.until_closed();
    });
    let mut rig = Rig::new();
    let plan = Plan {
        connect_ms: LONG_MS,
        reply_ms: timeout_ms,
        ..replica_plan()
    };
    rig.open("127.0.0.1", port, plan);
    let heard = rig.until_over();
    join(peer);
    assert!(rig.is_empty());
    match heard.into_iter().next() {
        Some(Action::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_garbage_and_silence_end_a_link() {
    let error = b"LOADING".to_vec();
    assert_eq!(
        fails_with(b"-LOADING\r\n", LONG_MS),
        Failure::Refused { tag: 1, error }
    );
    assert_eq!(
        fails_with(b"SSH-2.0\r\n", LONG_MS),
        Failure::Malformed(Malformed::Kind(b'S'))
    );
    let reply = Reply::Bulk(b"x".to_vec());
    assert_eq!(
        fails_with(b"$1\r\nx\r\n", LONG_MS),
        Failure::Unexpected { tag: 1, reply }
    );
    assert_eq!(fails_with(b"+PO", 20), Failure::ReplyTimeout { tag: 1 });
}

#[test]
fn a_line_without_end_is_refused() {
    let (port, peer) = Peer::run(|peer| {
        // The link closes the connection before the whole line is sent.
        let _ = peer.reader.get_mut().write_all(&vec![b'+'; 1 << 20]);
        peer.until_closed();
    });
    let mut rig = Rig::new();
    rig.open("127.0.0.1", port, replica_plan());
    let failure = Failure::Malformed(Malformed::LineTooLong);
    assert_eq!(rig.until_over(), [Action::Failed(failure)]);
    join(peer);
}

#[test]
fn a_port_where_nothing_listens_is_a_failure_that_comes_later() {
    let mut rig = Rig::new();
    rig.open("127.0.0.1", dead_port(), replica_plan());
    assert_eq!(heard(), []);
    let refused = Failure::Connect("Connection refused".into());
    assert_eq!(rig.until_over(), [Action::Failed(refused)]);
    assert!(rig.is_empty());
}

/// Connecting times out, because the kernel ignores connections while the peer's backlog is full.
#[test]
fn a_peer_that_does_not_accept_runs_into_the_time_for_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket2::SockRef::from(&listener)
        .listen(0)
        .expect("no backlog");
    let address = listener.local_addr().expect("an address");
    let full: Vec<_> = (0..4).map(|_| connect(address, None)).collect();
    assert!(full.iter().all(Result::is_ok));
    let mut rig = Rig::new();
    let plan = Plan {
        connect_ms: 20,
        ..replica_plan()
    };
    rig.open("127.0.0.1", address.port(), plan);
    assert_eq!(rig.until_over(), [Action::Failed(Failure::ConnectTimeout)]);
    assert!(rig.is_empty());
}

#[test]
fn a_source_address_is_used_if_it_can_be() {
    for (source, seen) in [("127.0.0.9", "127.0.0.9"), ("192.0.2.1", "127.0.0.1")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut rig = Rig::new();
        let target = Target {
            host: "127.0.0.1",
            port,
            source: source.parse().ok(),
            tls: false,
        };
        let plan = Plan::new(Vec::new(), Unasked::Keep, LONG_MS);
        open(&mut rig.el, &mut rig.server, &target, plan, hear);
        rig.until_ready();
        assert_eq!(heard(), [Action::Ready]);
        let (_socket, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip().to_string(), seen);
    }
}

/// A pipeline of thousands of requests, each with a large reply: the buffers of both directions of
/// the connection fill up.
#[test]
fn a_pipeline_larger_than_all_buffers_is_replied_to_in_order() {
    const REQUESTS: u32 = 3000;
    let (port, peer) = Peer::run(|peer| {
        for n in 0..REQUESTS {
            let request = peer.request();
            assert!(request.starts_with(&format!("ECHO {n} ")));
            peer.send(format!("${}\r\n{request}\r\n", request.len()).as_bytes());
        }
        peer.until_closed();
    });
    let mut rig = Rig::new();
    let plan = Plan::new(Vec::new(), Unasked::Refuse, LONG_MS);
    let id = rig.open("127.0.0.1", port, plan);
    let text = "x".repeat(4000);
    for n in 0..REQUESTS {
        rig.request(id, Step::new(n, &["ECHO", &n.to_string(), &text]));
    }
    finish(&mut rig.el, &mut rig.server, id);
    let heard = rig.until_over();
    assert_eq!(heard.len(), REQUESTS as usize + 2);
    assert_eq!(heard.first(), Some(&Action::Ready));
    for (n, action) in heard[1..].iter().take(REQUESTS as usize).enumerate() {
        let reply = Reply::Bulk(format!("ECHO {n} {text}").into_bytes());
        let tag = n as u32;
        assert!(*action == Action::Reply { tag, reply }, "reply {n}");
    }
    assert_eq!(heard.last(), Some(&Action::Closed));
    assert!(rig.is_empty());
    join(peer);
}

#[test]
fn messages_of_a_subscription_are_delivered() {
    let (port, peer) = Peer::run(|peer| {
        peer.expect("SUBSCRIBE c");
        peer.send(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+one\r\n");
        peer.send(b"+two\r\n");
    });
    let mut rig = Rig::new();
    let plan = Plan::new(
        vec![Step::new(1, &["SUBSCRIBE", "c"])],
        Unasked::Deliver,
        LONG_MS,
    );
    rig.open("127.0.0.1", port, plan);
    let heard = rig.until_over();
    let message = |text: &str| Action::Message(Reply::Status(text.into()));
    let end = Action::Failed(Failure::Closed);
    assert_eq!(
        heard[1..],
        [Action::Ready, message("one"), message("two"), end]
    );
    join(peer);
}

#[test]
fn a_closed_link_leaves_nothing() {
    let (port, peer) = Peer::run(|peer| {
        peer.expect("PING");
        peer.until_closed();
    });
    let mut rig = Rig::new();
    let ids = [
        rig.open("127.0.0.1", port, replica_plan()),
        rig.open("no address", 1, replica_plan()),
    ];
    while rig.server.stats.net_output_bytes == 0 {
        rig.turn();
    }
    for id in ids {
        close(&mut rig.el, &mut rig.server, id);
        assert!(rig.server.links.get(id).is_none());
        assert!(!request(
            &mut rig.el,
            &mut rig.server,
            id,
            Step::new(1, &["PING"])
        ));
        assert!(take(&mut rig.el, &mut rig.server, id).is_none());
    }
    assert!(rig.is_empty());
    join(peer);
    // A link in a slot that is used again has another id, and no timer of the earlier link is left.
    let next = rig.open("127.0.0.1", port, replica_plan());
    assert!(!ids.contains(&next));
    let refused = Failure::Connect("Connection refused".into());
    assert_eq!(rig.until_over(), [Action::Failed(refused)]);
}

/// The addresses of [`two_addresses`]: no server listens at the first port.
static PORTS: [AtomicU16; 2] = [const { AtomicU16::new(0) }; 2];
/// A lock that a test holds while its name server does not respond.
static NAME_SERVER: Mutex<()> = Mutex::new(());

fn two_addresses(host: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
    let _responds = NAME_SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    match host {
        "known" => {
            let port = |port: &AtomicU16| port.load(Ordering::SeqCst);
            Ok(PORTS
                .iter()
                .map(|p| ([127, 0, 0, 1], port(p)).into())
                .collect())
        }
        "empty" => Ok(Vec::new()),
        _ => Err(std::io::Error::other("Name or service not known")),
    }
}

#[test]
fn a_name_is_resolved_while_the_loop_runs_and_each_of_its_addresses_is_tried() {
    let (port, peer) = Peer::run(Peer::until_closed);
    PORTS[0].store(dead_port(), Ordering::SeqCst);
    PORTS[1].store(port, Ordering::SeqCst);
    let mut rig = Rig::new();
    rig.server.links.lookup = two_addresses;
    let plan = |connect_ms| Plan {
        connect_ms,
        ..Plan::new(Vec::new(), Unasked::Keep, LONG_MS)
    };
    let silent = NAME_SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let id = rig.open("known", 0, plan(LONG_MS));
    // While the name server does not respond, a link with a short timeout fails.
    rig.open("late", 0, plan(20));
    assert_eq!(rig.until_over(), [Action::Failed(Failure::ConnectTimeout)]);
    assert_eq!(rig.server.links.address(id), None);
    drop(silent);
    rig.until_ready();
    assert_eq!(heard(), [Action::Ready]);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(rig.server.links.address(id), Some(address));
    for host in ["unknown", "empty"] {
        rig.open(host, 0, plan(LONG_MS));
        let unknown = Failure::Resolve("Name or service not known".into());
        assert_eq!(rig.until_over(), [Action::Failed(unknown)]);
    }
    close(&mut rig.el, &mut rig.server, id);
    join(peer);
}

/// The port to which [`reconnect`] connects.
static AGAIN: AtomicU16 = AtomicU16::new(0);

/// A handler that opens another link after each failure, as a replica does.
fn reconnect(el: &mut EventLoop<Server>, _: &mut Server, _: LinkId, action: Action) {
    if matches!(action, Action::Failed(_)) {
        let after = Backoff::default().next_ms(4, 4, &mut Random::from_seed(1));
        el.add_timer(Duration::from_millis(after), 0, |el, server, _| {
            open_again(el, server);
            None
        });
    }
    HEARD.with_borrow_mut(|heard| heard.push(action));
}

fn open_again(el: &mut EventLoop<Server>, server: &mut Server) {
    let target = Target {
        host: "127.0.0.1",
        port: AGAIN.load(Ordering::SeqCst),
        source: None,
        tls: false,
    };
    open(el, server, &target, replica_plan(), reconnect);
}

#[test]
fn an_owner_opens_another_link_after_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    AGAIN.store(port, Ordering::SeqCst);
    let peer = thread::spawn(move || {
        for reply in ["-LOADING\r\n", "", "?\r\n"] {
            let mut peer = Peer::accept(&listener);
            peer.expect("PING");
            peer.send(reply.as_bytes());
        }
        let mut peer = Peer::accept(&listener);
        peer.expect("PING");
        peer.send(REPLIES);
        peer.until_closed();
    });
    let mut rig = Rig::new();
    open_again(&mut rig.el, &mut rig.server);
    rig.until(|heard| heard.contains(&Action::Ready));
    let heard = heard();
    let failures = heard.iter().filter(|a| matches!(a, Action::Failed(_)));
    assert_eq!(failures.count(), 3);
    assert_eq!(heard[3..], replica_heard());
    assert_eq!(rig.server.links.len(), 1);
    drop(rig);
    join(peer);
}

/// A handler that sends SYNC on the same link when PSYNC is refused.
fn sync_instead(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, action: Action) {
    if action == Action::Ready {
        let step = Step::new(9, &["SYNC"]).expect(Expect::Nothing);
        assert!(request(el, server, id, step));
    }
    hear(el, server, id, action);
}

#[test]
fn a_handler_adds_requests_to_its_own_link() {
    let (port, peer) = Peer::run(|peer| {
        peer.expect("PSYNC ? -1");
        peer.send(b"-ERR unknown command\r\n");
        peer.expect("SYNC");
        peer.send(b"$4\r\nRDB!");
        peer.until_closed();
    });
    let mut rig = Rig::new();
    let psync = Step::new(1, &["PSYNC", "?", "-1"])
        .expect(Expect::Line)
        .errors(Errors::Tolerated);
    let plan = Plan::new(vec![psync], Unasked::Keep, LONG_MS);
    let target = Target {
        host: "127.0.0.1",
        port,
        source: None,
        tls: false,
    };
    let id = open(&mut rig.el, &mut rig.server, &target, plan, sync_instead);
    rig.until_ready();
    while !rig.server.links.get(id).is_some_and(Link::is_idle) {
        rig.turn();
    }
    let mut taken = rig.take(id);
    while !taken.received.ends_with(b"!") {
        sys::wait_for(taken.conn.raw_fd(), false).expect("a wait");
        let read = taken.conn.read_into(&mut taken.received, 100);
        read.expect("open");
    }
    assert_eq!(taken.received, b"$4\r\nRDB!");
    heard();
    drop(taken);
    join(peer);
}
