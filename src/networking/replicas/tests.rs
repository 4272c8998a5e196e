use std::io::Read;
use std::os::unix::net::UnixStream;

use ae::Events;

use super::*;
use crate::connection::Connection;
use crate::networking::close;
use crate::replication;
use crate::testing::{say, server_with};

/// A server with an ordinary client in slot 0 of the client table and a replica in slot 1, and the
/// replica's end of its socket.
struct Pair {
    el: EventLoop<Server>,
    server: Server,
    peer: UnixStream,
}

impl Pair {
    fn new() -> Pair {
        let mut server = server_with(1);
        let mut el = EventLoop::new(64).expect("a loop");
        let (ours, peer) = UnixStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("non-blocking");
        peer.set_nonblocking(true).expect("non-blocking");
        let id = server.net.clients.next_id();
        let mut c = Box::new(Client::detached(id, 0));
        c.set(flag::EVER_AUTHENTICATED);
        c.conn = Some(Connection::unix(ours));
        let fd = c.conn.as_ref().map(Connection::raw_fd).expect("a socket");
        c.token = Some(el.add_file(fd, Class::Normal, 1).expect("watched"));
        server.net.clients.insert(c);
        replication::ensure_backlog(&mut server);
        let mut pair = Pair { el, server, peer };
        assert!(pair.with_replica(|server, c| attach(server, c, 0)));
        pair
    }

    fn with_replica<R>(&mut self, f: impl FnOnce(&mut Server, &mut Client) -> R) -> R {
        let mut c = self.server.net.clients.take(1).expect("the replica");
        let result = f(&mut self.server, &mut c);
        self.server.net.clients.put(c);
        result
    }

    fn lag(&mut self) -> u64 {
        self.with_replica(|server, c| server.replication.lag(c.reference()))
    }

    fn is_closing(&mut self) -> bool {
        self.with_replica(|_, c| c.has(flag::CLOSE_ASAP))
    }

    fn before_sleep(&mut self) {
        write_to_replicas(&mut self.el, &mut self.server);
    }

    fn handle_events(&mut self) {
        let what = Events::FILES | Events::DONT_WAIT;
        self.el
            .process_events(&mut self.server, what)
            .expect("a turn");
    }

    /// The bytes that the replica has received.
    fn received(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4 << 20];
        let n = self.peer.read(&mut bytes).unwrap_or(0);
        bytes.truncate(n);
        bytes
    }

    fn received_text(&mut self) -> String {
        let bytes = self.received();
        String::from_utf8_lossy(&bytes).replace("\r\n", " ")
    }

    /// Appends `len` bytes to the replication stream and returns them.
    fn append(&mut self, len: usize) -> Vec<u8> {
        let from = self.server.replication.stream.end();
        let bytes: Vec<u8> = (from..from + len as u64)
            .map(|at| (at % 251) as u8)
            .collect();
        self.server.replication.stream.append(&bytes);
        bytes
    }
}

/// Makes a client a replica that receives the stream from `offset` on.
fn attach(server: &mut Server, c: &mut Client, offset: u64) -> bool {
    c.set(flag::REPLICA);
    server.replication.add(Replica {
        state: State::Online,
        ..Replica::new(c.reference(), Default::default(), "", 0)
    });
    server.replication.attach(c.reference(), offset)
}

#[test]
fn a_replica_is_sent_the_writes_of_a_turn() {
    let mut pair = Pair::new();
    say(
        &mut pair.server,
        0,
        &["SET k v", "GET k", "SELECT 3", "INCR n"],
    );
    assert_eq!(pair.received(), b"", "not before the turn's end");
    pair.before_sleep();
    assert_eq!(
        pair.received_text(),
        "*2 $6 SELECT $1 0 *3 $3 SET $1 k $1 v *2 $6 SELECT $1 3 *2 $4 INCR $1 n "
    );
    say(
        &mut pair.server,
        0,
        &["MULTI", "INCR n", "APPEND n x", "EXEC"],
    );
    pair.before_sleep();
    assert_eq!(
        pair.received_text(),
        "*1 $5 MULTI *2 $4 INCR $1 n *3 $6 APPEND $1 n $1 x *1 $4 EXEC "
    );
    assert_eq!(pair.lag(), 0);
    let sent = pair.server.replication.stream.end();
    assert_eq!(pair.server.stats.net_repl_output_bytes, sent);
}

#[test]
fn replies_of_the_handshake_come_first_and_none_later() {
    let mut pair = Pair::new();
    say(&mut pair.server, 0, &["SET k v"]);
    pair.with_replica(|_, c| c.reply.status("CONTINUE"));
    pair.before_sleep();
    let text = pair.received_text();
    assert!(text.starts_with("+CONTINUE *2 $6 SELECT"), "{text}");
    assert!(!pair.is_closing());
    pair.with_replica(|_, c| c.reply.ok());
    pair.before_sleep();
    assert!(pair.is_closing());
    assert_eq!(pair.received(), b"");
}

#[test]
fn what_a_full_socket_does_not_take_is_sent_when_it_is_writable() {
    let mut pair = Pair::new();
    let sent = pair.append(5 << 20);
    pair.before_sleep();
    let left = pair.lag();
    assert!(left > 0, "a socket buffer of 5 MB");
    pair.before_sleep();
    assert_eq!(
        pair.lag(),
        left,
        "the loop has to say that the socket is writable"
    );
    let mut got = Vec::new();
    for _ in 0..100_000 {
        got.extend(pair.received());
        if got.len() == sent.len() {
            break;
        }
        pair.handle_events();
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert!(pair.with_replica(|_, c| !c.has(flag::WAITS_TO_WRITE)));
    // After the socket has accepted all bytes, the next turn sends at its end again, without an
    // event of the socket.
    let more = pair.append(100);
    pair.before_sleep();
    assert_eq!(pair.received(), more);
}

#[test]
fn one_turn_sends_a_bounded_share() {
    let mut pair = Pair::new();
    let socket = pair.peer.try_clone().expect("the peer");
    let reader = std::thread::spawn(move || {
        socket.set_nonblocking(false).expect("blocking");
        let mut total = 0;
        let mut bytes = vec![0; 1 << 20];
        while let Ok(n @ 1..) = (&socket).read(&mut bytes) {
            total += n;
        }
        total
    });
    pair.append(3 * BYTES_PER_TURN);
    let mut before = pair.lag();
    while before > 0 {
        pair.before_sleep();
        pair.handle_events();
        let now = pair.lag();
        assert!(before - now <= 2 * BYTES_PER_TURN as u64);
        before = now;
    }
    drop(pair);
    assert_eq!(reader.join().expect("read"), 3 * BYTES_PER_TURN);
}

#[test]
fn a_replica_that_does_not_read_is_closed_over_its_limit() {
    let mut pair = Pair::new();
    let limit = 2 << 20;
    pair.server.config.client_output_buffer_limit[1].hard = limit;
    pair.server.config.client_output_buffer_limit[1].soft = 0;
    pair.append(1 << 20);
    pair.before_sleep();
    pair.append(1 << 20);
    pair.before_sleep();
    assert!(!pair.is_closing());
    pair.append(2 << 20);
    pair.before_sleep();
    assert!(pair.is_closing());
    assert!(pair.server.replication.stream.histlen() > limit);
}

#[test]
fn a_limit_below_the_backlog_is_raised_to_it() {
    let mut pair = Pair::new();
    pair.server.config.client_output_buffer_limit[1].hard = 1000;
    pair.server.config.client_output_buffer_limit[1].soft = 0;
    pair.server.config.repl_backlog_size = 4 << 20;
    pair.append(2 << 20);
    pair.before_sleep();
    assert!(pair.lag() > 1000 && !pair.is_closing());
}

#[test]
fn a_restart_of_the_stream_closes_its_replicas() {
    let mut pair = Pair::new();
    assert_eq!(pair.server.replication.stream.restart_at(1000), Ok(()));
    pair.before_sleep();
    assert!(pair.is_closing());
}

#[test]
fn a_closed_replica_holds_nothing() {
    let mut pair = Pair::new();
    pair.append(5 << 20);
    pair.before_sleep();
    pair.with_replica(|server, c| Net::close_asap(&mut server.net.close_asap, c));
    close::free_clients_in_async_queue(&mut pair.el, &mut pair.server);
    assert!(pair.server.replication.replicas.is_empty());
    for _ in 0..10 {
        pair.before_sleep();
    }
    let stream = &pair.server.replication.stream;
    assert!(stream.histlen() < stream.backlog_size() + (64 << 10));
}
