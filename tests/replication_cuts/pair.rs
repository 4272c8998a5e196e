//! The state machines of a primary and a replica, joined by a pipe in memory that is cut.
//!
//! ```text
//!   replica: Link (handshake) ─> Header, Body (snapshot) ─> resp::parse, units (stream)
//!       │ ^
//!       v │   a pipe for each direction; one of them ends after a number of bytes
//!   primary: resp::parse ─> psync::decide ─> a snapshot, or the backlog by a cursor
//! ```
//!
//! In this model, the data of a server are the bytes of the replication stream up to its offset, so
//! servers with equal bytes have equal data.

use std::io::IoSlice;

use aeris::client::resp::{Limits, Open, ParseTable, Status, parse};
use aeris::link::{Action, Errors, Event, Expect, Link, Plan, Reply, Step, Unasked};
use aeris::propagate::stream::Stream;
use aeris::replication::bulk::{Body, Header};
use aeris::replication::psync::{self, Answer, History};

const LIMITS: Limits = Limits {
    max_bulk_len: 1 << 29,
    unauthenticated: false,
    max_commands: usize::MAX,
};

/// Parses a stream of commands that arrives in pieces.
#[derive(Default)]
pub struct Commands {
    buffer: Vec<u8>,
    open: Option<Box<Open>>,
}

impl Commands {
    /// Parses bytes. Calls `run` with the arguments and the bytes of each complete command; bytes
    /// between two commands belong to the second command.
    pub fn take(&mut self, bytes: &[u8], mut run: impl FnMut(&[&[u8]], &[u8])) {
        self.buffer.extend_from_slice(bytes);
        let (mut table, mut pos) = (ParseTable::default(), 0);
        let status = parse(&self.buffer, &mut pos, LIMITS, &mut table, &mut self.open);
        assert!(matches!(status, Status::Partial), "{status:?}");
        let mut from = 0;
        for command in &table.commands {
            let args = &table.args[command.first..command.first + command.argc];
            let argv: Vec<&[u8]> = args.iter().map(|&a| table.slice(&self.buffer, a)).collect();
            run(&argv, &self.buffer[from..command.end]);
            from = command.end;
        }
        // Empty lines behind the last command are passed on without arguments: they are a part of
        // the stream.
        if pos > from {
            run(&[], &self.buffer[from..pos]);
        }
        self.buffer.drain(..pos);
    }
}

/// A model of a primary: its whole history, and the backlog with the end of the history.
pub struct Primary {
    pub id: String,
    pub second_id: String,
    pub second_offset: i64,
    pub stream: Stream,
    pub log: Vec<u8>,
    /// Whether snapshots end with a mark (`$EOF:`) instead of having a length.
    pub marks: bool,
    /// The offset of snapshots; the history continues after it.
    pub snapshot_at: usize,
    pub full_syncs: usize,
}

pub const ID: &str = "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd";
const MARK: &str = "0123456789012345678901234567890123456789";
const NO_ID: &str = "0000000000000000000000000000000000000000";

impl Primary {
    pub fn new(log: &[u8], backlog: u64, marks: bool) -> Primary {
        let mut stream = Stream::default();
        stream.open(backlog);
        let mut primary = Primary {
            id: ID.into(),
            second_id: NO_ID.into(),
            second_offset: -1,
            stream,
            log: Vec::new(),
            marks,
            snapshot_at: 0,
            full_syncs: 0,
        };
        primary.write(log);
        primary
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.log.extend_from_slice(bytes);
        self.stream.append(bytes);
    }

    /// The reply to PSYNC, and everything behind it up to the end of the stream. Each element is
    /// sent when the one before it has arrived: behind a snapshot with a mark, the stream waits for
    /// an acknowledgement.
    fn psync(&mut self, id: &[u8], offset: &[u8]) -> Vec<Vec<u8>> {
        let offset = std::str::from_utf8(offset).ok();
        let history = History {
            id: &self.id,
            second_id: &self.second_id,
            second_offset: self.second_offset,
            first_byte: self.stream.first_byte_offset(),
            end: self.stream.end(),
        };
        let offset = offset.and_then(|text| text.parse().ok());
        let offset = offset.expect("a number");
        match psync::decide(history, id, offset) {
            Answer::Continue { offset } => {
                let mut out = format!("+CONTINUE {}\r\n", self.id).into_bytes();
                self.read_stream(offset, &mut out);
                vec![out]
            }
            Answer::Full(_) => {
                self.full_syncs += 1;
                let at = self.snapshot_at;
                let mut out = format!("+FULLRESYNC {} {at}\r\n\n\n", self.id).into_bytes();
                match self.marks {
                    true => out.extend_from_slice(format!("$EOF:{MARK}\r\n").as_bytes()),
                    false => out.extend_from_slice(format!("${at}\r\n").as_bytes()),
                }
                out.extend_from_slice(&self.log[..at]);
                let mut behind = Vec::new();
                self.read_stream(at as u64, &mut behind);
                if self.marks {
                    out.extend_from_slice(MARK.as_bytes());
                    return vec![out, behind];
                }
                out.append(&mut behind);
                vec![out]
            }
        }
    }

    /// Reads the replication stream from `offset` to its end in pieces of up to 1000 bytes, as a
    /// socket would take it.
    pub fn read_stream(&mut self, offset: u64, out: &mut Vec<u8>) {
        let mut cursor = self.stream.attach(offset).expect("it is held");
        loop {
            let mut pieces = [IoSlice::new(&[]); 2];
            let n = self.stream.io_slices(&cursor, 1000, &mut pieces);
            let read: usize = pieces[..n].iter().map(|piece| piece.len()).sum();
            pieces[..n]
                .iter()
                .for_each(|piece| out.extend_from_slice(piece));
            if read == 0 {
                break;
            }
            self.stream.advance(&mut cursor, read);
        }
        self.stream.detach(cursor);
    }

    /// Another primary that has the history of this one up to `offset`, and continues it with other
    /// bytes.
    pub fn sibling(&self, offset: usize, bytes: &[u8]) -> Primary {
        let mut sibling = Primary::new(&self.log[..offset], 1 << 20, self.marks);
        sibling.snapshot_at = self.snapshot_at.min(offset);
        sibling.second_id = std::mem::replace(&mut sibling.id, "e".repeat(40));
        sibling.second_offset = offset as i64 + 1;
        sibling.write(bytes);
        sibling
    }
}

/// A model of a replica: its data, and the id of the history to which the data belong.
#[derive(Default)]
pub struct Replica {
    id: Option<String>,
    pub data: Vec<u8>,
}

/// The stage of a replica after the handshake.
enum Stage {
    Reply,
    Snapshot {
        id: String,
        offset: usize,
        header: Header,
        body: Option<Body>,
        data: Vec<u8>,
    },
    Stream {
        commands: Commands,
        unit: Vec<u8>,
        in_transaction: bool,
    },
}

/// The direction of a connection that ends, and the number of bytes after which it ends.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Never,
    /// The requests of the replica end after this number of bytes.
    Requests(usize),
    /// The bytes that the primary sends end after this number of bytes.
    Replies(usize),
}

/// One direction of a connection, which ends after a number of bytes.
struct Pipe {
    left: usize,
}

impl Pipe {
    /// Returns the bytes that arrive, and whether the pipe has ended.
    fn carry<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], bool) {
        let n = bytes.len().min(self.left);
        self.left -= n;
        (&bytes[..n], self.left == 0)
    }
}

const PSYNC: u32 = 9;

fn plan() -> Plan {
    let tolerated = |argv: &[&str]| Step::new(1, argv).errors(Errors::Tolerated);
    let script = vec![
        Step::new(0, &["PING"]).wait(),
        tolerated(&["REPLCONF", "listening-port", "6380"]),
        tolerated(&["REPLCONF", "capa", "eof", "capa", "psync2"]),
        tolerated(&["REPLCONF", "version", "9.0.0"]),
    ];
    Plan::new(script, Unasked::Keep, 1000)
}

/// The numbers of bytes that both sides have sent on one connection.
#[derive(Default)]
pub struct Sent {
    pub requests: usize,
    pub replies: usize,
}

/// Runs one connection of the two state machines, from the first byte to its end. Bytes arrive in
/// pieces of up to `piece` bytes.
pub fn connect(primary: &mut Primary, replica: &mut Replica, cut: Cut, piece: usize) -> Sent {
    let pipe = |limit: Option<usize>| Pipe {
        left: limit.unwrap_or(usize::MAX),
    };
    let (mut up, mut down) = match cut {
        Cut::Never => (pipe(None), pipe(None)),
        Cut::Requests(n) => (pipe(Some(n)), pipe(None)),
        Cut::Replies(n) => (pipe(None), pipe(Some(n))),
    };
    let mut link = Link::new(0, plan());
    let (mut actions, mut sent) = (Vec::new(), Sent::default());
    let (mut requests, mut stage) = (Commands::default(), Stage::Reply);
    link.step(0, Event::Connected, &mut actions);
    loop {
        if actions.contains(&Action::Ready) {
            link.push(0, replica.psync());
            actions.clear();
        }
        let output = link.output().to_vec();
        if output.is_empty() {
            return sent; // both sides are silent
        }
        let (arrived, ended) = up.carry(&output);
        sent.requests += arrived.len();
        let mut replies: Vec<Vec<u8>> = Vec::new();
        requests.take(arrived, |argv, _| match argv {
            [b"PING"] => replies.push(b"+PONG\r\n".to_vec()),
            [b"REPLCONF", ..] => replies.push(b"+OK\r\n".to_vec()),
            [b"PSYNC", id, offset] => replies.extend(primary.psync(id, offset)),
            other => panic!("{other:?}"),
        });
        if ended {
            return sent;
        }
        link.step(0, Event::Sent(output.len()), &mut actions);
        for bytes in replies.iter().flat_map(|reply| reply.chunks(piece)) {
            let (arrived, ended) = down.carry(bytes);
            sent.replies += arrived.len();
            replica.receive(&mut link, &mut stage, arrived, &mut actions);
            if ended {
                return sent;
            }
        }
    }
}

impl Replica {
    fn psync(&self) -> Step {
        let (id, next) = match &self.id {
            Some(id) => (id.as_str(), (self.data.len() + 1).to_string()),
            None => ("?", "-1".to_string()),
        };
        let step = Step::new(PSYNC, &["PSYNC", id, &next]);
        step.errors(Errors::Tolerated).expect(Expect::Line)
    }

    /// Processes bytes from the primary: replies to the handshake, a snapshot, the stream.
    fn receive(
        &mut self,
        link: &mut Link,
        stage: &mut Stage,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) {
        let mut rest = bytes.to_vec();
        if let Stage::Reply = stage {
            link.step(0, Event::Received(bytes), actions);
            let reply = actions.iter().find_map(|action| match action {
                Action::Reply { tag: PSYNC, reply } => Some(reply.clone()),
                Action::Failed(failure) => panic!("{failure}"),
                _ => None,
            });
            let Some(reply) = reply else {
                return;
            };
            *stage = self.replied(&reply);
            rest = link.take_rest().received;
        }
        if let Some(next) = self.take(stage, &mut rest) {
            *stage = next;
            self.take(stage, &mut rest);
        }
    }

    fn replied(&mut self, reply: &Reply) -> Stage {
        let Reply::Status(text) = reply else {
            panic!("{reply}");
        };
        let text = String::from_utf8_lossy(text);
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["FULLRESYNC", id, offset] => Stage::Snapshot {
                id: id.into(),
                offset: offset.parse().expect("an offset"),
                header: Header::default(),
                body: None,
                data: Vec::new(),
            },
            ["CONTINUE", id] => {
                self.id = Some(id.into());
                new_stream()
            }
            _ => panic!("{text}"),
        }
    }

    /// Processes the bytes of one stage of the replica. Returns the next stage when this stage is
    /// complete.
    fn take(&mut self, stage: &mut Stage, rest: &mut Vec<u8>) -> Option<Stage> {
        let received = std::mem::take(rest);
        let mut input = &received[..];
        match stage {
            Stage::Reply => None,
            Stage::Snapshot {
                id,
                offset,
                header,
                body,
                data,
            } => {
                if body.is_none() {
                    *body = header.read(&mut input).expect("a header").map(Body::new);
                }
                if !body.as_mut()?.read(&mut input, data) {
                    return None;
                }
                assert_eq!(data.len(), *offset);
                self.data = std::mem::take(data);
                self.id = Some(std::mem::take(id));
                *rest = input.to_vec();
                Some(new_stream())
            }
            Stage::Stream {
                commands,
                unit,
                in_transaction,
            } => {
                commands.take(input, |argv, bytes| {
                    unit.extend_from_slice(bytes);
                    match argv {
                        [b"MULTI"] => *in_transaction = true,
                        [b"EXEC"] => *in_transaction = false,
                        _ => {}
                    }
                    if !*in_transaction {
                        self.data.append(unit);
                    }
                });
                None
            }
        }
    }
}

fn new_stream() -> Stage {
    Stage::Stream {
        commands: Commands::default(),
        unit: Vec::new(),
        in_transaction: false,
    }
}
