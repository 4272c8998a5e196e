//! What other servers send in replication: the requests of a replica, and a primary's snapshot.

use aeris::client::Client;
use aeris::config::Config;
use aeris::ds::bulk::push_command;
use aeris::networking::query;
use aeris::replication::bulk::{Body, Header, Malformed};
use aeris::state::Server;

use super::files;

/// Runs requests of a replica, one in a line: the first byte selects the command, and words
/// separated by spaces are its arguments.
pub fn dialogue(bytes: &[u8]) {
    let mut server = Server::new(Config::default(), Vec::new());
    let id = server.net.clients.next_id();
    let slot = server
        .net
        .clients
        .insert(Box::new(Client::detached(id, 1000)));
    for line in bytes.split(|&byte| byte == b'\n').take(50) {
        let Some((&kind, rest)) = line.split_first() else {
            continue;
        };
        let mut argv: Vec<&[u8]> = match kind {
            b'p' => vec![b"PSYNC"],
            b's' => vec![b"SYNC"],
            b'a' => vec![b"REPLCONF", b"ACK"],
            b'w' => vec![b"SET", b"k"],
            _ => vec![b"REPLCONF"],
        };
        argv.extend(
            rest.split(|&byte| byte == b' ')
                .filter(|word| !word.is_empty()),
        );
        let mut request = Vec::new();
        push_command(&mut request, &argv);
        let mut c = server.net.clients.take(slot).expect("a client");
        query::feed(&mut server, &mut c, &request);
        let reply = c.reply.take_bytes();
        server.net.clients.put(c);
        assert!(reply.is_empty() || matches!(reply[0], b'+' | b'-') && reply.ends_with(b"\r\n"));
        let end = server.replication.stream.end();
        for replica in server.replication.replicas.iter() {
            assert!(replica.acked <= end && replica.acked_aof <= end);
        }
        assert!(server.replication.replicas.len() <= 1);
    }
}

/// The bytes of the snapshot, whether it is complete, and the number of bytes left for the stream;
/// `None` without a header.
type Received = Result<Option<(Vec<u8>, bool, usize)>, Malformed>;

fn receive(pieces: &[&[u8]]) -> Received {
    let (mut header, mut body) = (Header::default(), None);
    let (mut out, mut rest, mut done) = (Vec::new(), 0, false);
    for piece in pieces {
        let mut input = *piece;
        if body.is_none() {
            body = header.read(&mut input)?.map(Body::new);
        }
        if let Some(body) = &mut body
            && !done
        {
            done = body.read(&mut input, &mut out);
            assert_eq!(body.delivered(), out.len() as u64);
        }
        rest += input.len();
    }
    Ok(body.map(|_| (out, done, rest)))
}

/// Receives a snapshot with its header (`$length` or `$EOF:mark`). The result does not depend on
/// where the input is split, except where bytes follow a mark, which no primary sends. A snapshot
/// that was received to its end is also loaded.
pub fn snapshot(bytes: &[u8]) {
    let whole = receive(&[bytes]);
    let marked = bytes.windows(5).any(|five| five == b"$EOF:");
    if !marked {
        for at in 0..bytes.len().min(100) {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(receive(&[head, tail]), whole, "split at {at}");
        }
    }
    if let Ok(Some((loaded, true, _))) = whole {
        files::rdb(&loaded);
    }
}
