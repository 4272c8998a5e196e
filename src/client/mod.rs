//! A client: everything the server knows of one connection, or of one that has no socket (scripts,
//! the AOF being loaded, the link to a primary). Data and small questions; the verbs are in the
//! files beside.

pub mod announced;
pub mod blocked;
pub mod reply;
pub mod resp;
pub mod subscriptions;
pub mod table;
pub mod transaction;

use std::rc::Rc;

use ae::Token;

use crate::client::announced::Announced;
use crate::client::reply::{Mark, ReplyBuf};
use crate::client::resp::Open;
use crate::connection::Connection;

/// What a client is or does, as bits of [`Client::flags`].
pub mod flag {
    /// In the list of clients with something to write.
    pub const PENDING_WRITE: u64 = 1 << 0;
    /// Close once the reply has been sent; nothing more is read.
    pub const CLOSE_AFTER_REPLY: u64 = 1 << 1;
    /// Close at the end of this turn, whatever is unsent.
    pub const CLOSE_ASAP: u64 = 1 << 2;
    /// In MULTI.
    pub const MULTI: u64 = 1 << 3;
    /// A watched key was touched: EXEC answers null.
    pub const DIRTY_CAS: u64 = 1 << 4;
    /// A command could not be queued: EXEC aborts.
    pub const DIRTY_EXEC: u64 = 1 << 5;
    /// Waiting in a blocking command.
    pub const BLOCKED: u64 = 1 << 6;
    /// A blocked client that can go on; its buffered requests run before the loop sleeps.
    pub const UNBLOCKED: u64 = 1 << 7;
    /// MONITOR.
    pub const MONITOR: u64 = 1 << 8;
    /// A replica of ours.
    pub const REPLICA: u64 = 1 << 9;
    /// The link to our primary.
    pub const PRIMARY: u64 = 1 << 10;
    /// CLIENT REPLY OFF.
    pub const REPLY_OFF: u64 = 1 << 11;
    /// CLIENT REPLY SKIP was the last command: skip the next one's reply.
    pub const REPLY_SKIP_NEXT: u64 = 1 << 12;
    /// This command's reply is skipped.
    pub const REPLY_SKIP: u64 = 1 << 13;
    /// CLIENT NO-EVICT on.
    pub const NO_EVICT: u64 = 1 << 14;
    /// CLIENT NO-TOUCH on.
    pub const NO_TOUCH: u64 = 1 << 15;
    /// A script's client.
    pub const SCRIPT: u64 = 1 << 16;
    /// In subscribe mode (RESP2 allows few commands then).
    pub const PUBSUB: u64 = 1 << 17;
    /// Connected through the unix socket.
    pub const UNIX_SOCKET: u64 = 1 << 18;
    /// The commands come from the AOF, from a primary, or from EXEC: they must not block.
    pub const DENY_BLOCKING: u64 = 1 << 19;
    /// CLIENT TRACKING on.
    pub const TRACKING: u64 = 1 << 20;
    pub const TRACKING_BROKEN_REDIR: u64 = 1 << 21;
    pub const TRACKING_BCAST: u64 = 1 << 22;
    pub const TRACKING_OPTIN: u64 = 1 << 23;
    pub const TRACKING_OPTOUT: u64 = 1 << 24;
    pub const TRACKING_CACHING: u64 = 1 << 25;
    pub const TRACKING_NOLOOP: u64 = 1 << 26;
    /// The command must be run by `process_command` again when the client is unblocked.
    pub const REEXECUTE: u64 = 1 << 27;
    /// READONLY was said (cluster).
    pub const READONLY: u64 = 1 << 28;
    /// ASKING was said (cluster).
    pub const ASKING: u64 = 1 << 29;
    /// The command in flight must not reach replicas or the AOF.
    pub const PREVENT_PROPAGATION: u64 = 1 << 30;
    /// Replays the AOF at start.
    pub const AOF_LOADER: u64 = 1 << 31;
    /// Commands run by EXEC.
    pub const IN_EXEC: u64 = 1 << 32;
    /// Over a soft output limit; the time it began is in `soft_limit_since`.
    pub const OVER_SOFT_LIMIT: u64 = 1 << 33;
    /// IMPORT-SOURCE client (Valkey).
    pub const IMPORT_SOURCE: u64 = 1 << 34;
    /// It subscribed to invalidation messages as another client's redirection.
    pub const REDIRECT_TARGET: u64 = 1 << 35;
    /// CLIENT CAPA redirect
    pub const CAPA_REDIRECT: u64 = 1 << 36;
    /// The loop calls the write handler when the socket takes bytes again.
    pub const WAITS_TO_WRITE: u64 = 1 << 37;
    /// It was authenticated at some time, maybe not any more: it is no stranger whose replies are
    /// kept short.
    pub const EVER_AUTHENTICATED: u64 = 1 << 38;
    /// SCRIPT DEBUG: its next EVAL is a session of the debugger; SYNC, without a fork.
    pub const SCRIPT_DEBUG: u64 = 1 << 39;
    pub const SCRIPT_DEBUG_SYNC: u64 = 1 << 40;
}

/// The user that a client acts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserRef(pub u32);

impl UserRef {
    /// `default`: what a connection is at first.
    pub const DEFAULT: UserRef = UserRef(0);
    /// The server itself: may everything.
    pub const SERVER: UserRef = UserRef(u32::MAX);
}

/// Which output buffer limit applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Normal = 0,
    Replica = 1,
    Pubsub = 2,
}

/// An argument vector that outlives the buffer it came from: queued by MULTI, kept by a blocked
/// client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedArgv {
    bytes: Box<[u8]>,
    ends: Box<[usize]>,
}

impl OwnedArgv {
    pub fn new<A: AsRef<[u8]>>(argv: &[A]) -> OwnedArgv {
        let mut bytes = Vec::with_capacity(argv.iter().map(|a| a.as_ref().len()).sum());
        let mut ends = Vec::with_capacity(argv.len());
        for arg in argv {
            bytes.extend_from_slice(arg.as_ref());
            ends.push(bytes.len());
        }
        OwnedArgv {
            bytes: bytes.into(),
            ends: ends.into(),
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn slices(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let mut out = Vec::with_capacity(self.ends.len());
        for &end in &self.ends {
            out.push(&self.bytes[start..end]);
            start = end;
        }
        out
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }
}

pub struct Client {
    /// Unique, growing, never reused: what CLIENT ID says.
    pub id: u64,
    /// Its place in `Clients`; `u32::MAX` for one without a socket.
    pub slot: u32,
    pub flags: u64,
    pub db: u32,
    /// `None`: a client that is not a connection.
    pub conn: Option<Connection>,
    pub token: Option<Token>,

    /// Bytes of an incomplete request, or of requests that wait until a blocked client goes on.
    pub querybuf: Vec<u8>,
    pub open: Option<Box<Open>>,
    pub reply: ReplyBuf,

    /// The row of the last command: the next one is usually the same.
    pub last_cmd: Option<u16>,
    /// The last command that was looked at, its subcommand resolved: CLIENT LIST's `cmd`.
    pub shown_cmd: Option<u16>,
    /// The default user, or who AUTH said; the server itself if there is no connection.
    pub user: UserRef,
    pub authenticated: bool,
    /// Seldom used state, allocated when a client first needs it.
    /// Shared with the client that runs this one's scripts, and so are the address and its kin.
    pub name: Option<Rc<[u8]>>,
    pub lib_name: Option<Box<[u8]>>,
    pub lib_ver: Option<Box<[u8]>>,
    pub multi: Option<Box<transaction::MultiState>>,
    pub blocked: Option<Box<blocked::Blocked>>,
    pub pubsub: Option<Box<subscriptions::Subscriptions>>,
    pub watched: Vec<transaction::WatchedKey>,

    pub peer: Rc<str>,
    pub local: Box<str>,
    /// Unix times in seconds and in milliseconds of the server's clock.
    pub created_ms: i64,
    pub last_interaction_ms: i64,
    pub soft_limit_since_ms: i64,
    /// The end in the AOF of this client's last write and, under `always`, of the last write that
    /// it has seen: its replies wait until the AOF is safe up to there (`gate::safe_offset`), and
    /// WAITAOF until it is on the disk.
    pub aof_offset: u64,
    /// The end in the replication stream of this client's last write: what WAIT waits for.
    pub repl_offset: u64,
    /// What a replica said of itself, see REPLCONF.
    pub announced: Option<Box<Announced>>,
    /// Totals for CLIENT LIST.
    pub net_in: u64,
    pub net_out: u64,
    pub commands: u64,
    /// Largest query buffer of late, for `qbuf` accounting and client eviction.
    pub querybuf_peak: usize,
    /// The reply buffer's size class, see `networking::write::resize_reply_buffer`.
    pub reply_class: ReplyClass,
    /// What this client was last counted for in `Net::memory`.
    pub counted: Counted,
}

/// A client's share in the sums of `ClientMemory`.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    pub bytes: usize,
    pub class: usize,
    pub evictable: bool,
}

/// How large a reply buffer a client gets while it is busy: grows at once with its replies, shrinks
/// when its peaks have been smaller for a while.
#[derive(Clone, Copy)]
pub struct ReplyClass {
    pub size: u32,
    pub peak: u32,
    pub peak_reset_ms: i64,
}

pub const REPLY_CLASS_MIN: u32 = 1024;
pub const REPLY_CLASS_MAX: u32 = 16 * 1024;

impl Client {
    /// A client without a socket.
    pub fn detached(id: u64, now_ms: i64) -> Client {
        Client {
            id,
            slot: u32::MAX,
            flags: 0,
            db: 0,
            conn: None,
            token: None,
            querybuf: Vec::new(),
            open: None,
            reply: ReplyBuf::default(),
            last_cmd: None,
            shown_cmd: None,
            user: UserRef::SERVER,
            authenticated: true,
            name: None,
            lib_name: None,
            lib_ver: None,
            multi: None,
            blocked: None,
            pubsub: None,
            watched: Vec::new(),
            peer: Rc::from(""),
            local: Box::default(),
            created_ms: now_ms,
            last_interaction_ms: now_ms,
            soft_limit_since_ms: 0,
            aof_offset: 0,
            repl_offset: 0,
            announced: None,
            net_in: 0,
            net_out: 0,
            commands: 0,
            querybuf_peak: 0,
            reply_class: ReplyClass {
                size: REPLY_CLASS_MAX,
                peak: REPLY_CLASS_MAX,
                peak_reset_ms: now_ms,
            },
            counted: Counted::default(),
        }
    }

    #[inline]
    pub fn has(&self, flags: u64) -> bool {
        self.flags & flags != 0
    }

    #[inline]
    pub fn set(&mut self, flags: u64) {
        self.flags |= flags;
    }

    #[inline]
    pub fn clear(&mut self, flags: u64) {
        self.flags &= !flags;
    }

    /// Drops what was written after `from` if CLIENT REPLY is OFF, or SKIP for this command.
    #[inline]
    pub fn drop_unwanted_reply(&mut self, from: Mark) {
        if self.has(flag::REPLY_OFF | flag::REPLY_SKIP) {
            self.reply.truncate(from);
        }
    }

    pub fn class(&self) -> Class {
        if self.has(flag::REPLICA) && !self.has(flag::MONITOR) {
            Class::Replica
        } else if self.has(flag::PUBSUB) {
            Class::Pubsub
        } else {
            Class::Normal
        }
    }

    /// Whether its commands are executed whatever stands against them here (memory, disk, ACL,
    /// times that have passed): they come from our primary or from our own AOF, where they were
    /// executed already.
    #[inline]
    pub fn must_obey(&self) -> bool {
        self.has(flag::PRIMARY | flag::AOF_LOADER)
    }

    /// What finds this client again in a later turn.
    pub fn reference(&self) -> ClientRef {
        ClientRef {
            slot: self.slot,
            id: self.id,
        }
    }

    /// Connected from this machine.
    pub fn is_local(&self) -> bool {
        self.conn.as_ref().is_none_or(Connection::is_local)
    }

    /// There is no connection: replies are not sent.
    pub fn is_detached(&self) -> bool {
        self.conn.is_none()
    }

    /// Bytes received and not yet run: those of a big argument if one is being received.
    pub fn querybuf_len(&self) -> usize {
        let big = self.open.as_ref().and_then(|open| open.big.as_ref());
        big.map_or(self.querybuf.len(), |big| big.bytes.len())
    }

    /// Bytes reserved for more.
    pub fn querybuf_free(&self) -> usize {
        let big = self.open.as_ref().and_then(|open| open.big.as_ref());
        let buffer = big.map_or(&self.querybuf, |big| &big.bytes);
        buffer.capacity() - buffer.len()
    }

    /// Bytes of arguments of an incomplete command.
    pub fn argv_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.argv_len())
    }

    /// Heap bytes that this client holds, its own structure included. Unsent replies count as the
    /// output limits count them, so that CLIENT LIST's `omem` is a part of its `tot-mem`.
    pub fn memory(&self) -> usize {
        size_of::<Client>()
            + self.querybuf.capacity()
            + self.open.as_ref().map_or(0, |o| o.memory())
            + self.reply.memory().max(self.reply.queued_memory())
            + self.peer.len()
            + self.local.len()
            + self.name.as_ref().map_or(0, |n| n.len())
            + [&self.lib_name, &self.lib_ver]
                .iter()
                .map(|n| n.as_ref().map_or(0, |n| n.len()))
                .sum::<usize>()
            + self.multi.as_ref().map_or(0, |m| m.memory())
            + self
                .watched
                .iter()
                .map(|w| w.key.len() + WATCH_OVERHEAD)
                .sum::<usize>()
            + self.pubsub.as_ref().map_or(0, |p| p.memory())
    }
}

/// A watched key beside its bytes: here, and in the database's table of watched keys.
const WATCH_OVERHEAD: usize = size_of::<transaction::WatchedKey>() + 64;

/// Identifies a client across turns: the slot finds it, the id proves that it is still the same
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ClientRef {
    pub slot: u32,
    pub id: u64,
}
