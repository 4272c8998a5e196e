//! A client: the state of one connection, or of a client without a socket (scripts, the AOF being
//! loaded, the link to a primary). `src/client/` has the data of a client and simple queries; the
//! operations on clients are in other modules.

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
use crate::config::ClientClass;
use crate::connection::Connection;
use crate::ds::thin_buffer::{heap_bytes, size_class, vec_bytes};

/// The state of a client, as bits of [`Client::flags`].
pub mod flag {
    /// The client is in the list of clients with unsent replies.
    pub const PENDING_WRITE: u64 = 1 << 0;
    /// The client is closed when its reply has been sent; no further request of it is read.
    pub const CLOSE_AFTER_REPLY: u64 = 1 << 1;
    /// The client is closed at the end of the present turn of the event loop, even if replies are
    /// unsent.
    pub const CLOSE_ASAP: u64 = 1 << 2;
    /// The client is between MULTI and EXEC: commands are queued.
    pub const MULTI: u64 = 1 << 3;
    /// A watched key was changed: EXEC replies with null.
    pub const DIRTY_CAS: u64 = 1 << 4;
    /// A command could not be queued: EXEC aborts.
    pub const DIRTY_EXEC: u64 = 1 << 5;
    /// The client waits in a blocking command.
    pub const BLOCKED: u64 = 1 << 6;
    /// The client has just been unblocked; its buffered requests run before the loop sleeps.
    pub const UNBLOCKED: u64 = 1 << 7;
    /// The client runs MONITOR.
    pub const MONITOR: u64 = 1 << 8;
    /// The client is a replica of this server.
    pub const REPLICA: u64 = 1 << 9;
    /// The client is the link to this server's primary.
    pub const PRIMARY: u64 = 1 << 10;
    /// CLIENT REPLY OFF was called: no replies are sent.
    pub const REPLY_OFF: u64 = 1 << 11;
    /// CLIENT REPLY SKIP was the last command: the reply of the next command is skipped.
    pub const REPLY_SKIP_NEXT: u64 = 1 << 12;
    /// CLIENT REPLY SKIP applies to the command that runs: its reply is dropped.
    pub const REPLY_SKIP: u64 = 1 << 13;
    /// CLIENT NO-EVICT is on: the client is not closed to save memory.
    pub const NO_EVICT: u64 = 1 << 14;
    /// CLIENT NO-TOUCH is on: commands do not change when keys were last used.
    pub const NO_TOUCH: u64 = 1 << 15;
    /// The client without a socket that runs the commands of a script.
    pub const SCRIPT: u64 = 1 << 16;
    /// The client has subscriptions (a RESP2 client may then send few commands).
    pub const PUBSUB: u64 = 1 << 17;
    /// The client is connected through the unix socket.
    pub const UNIX_SOCKET: u64 = 1 << 18;
    /// The client's commands come from the AOF, from a primary, or from EXEC, so they must not
    /// block.
    pub const DENY_BLOCKING: u64 = 1 << 19;
    /// CLIENT TRACKING is on: the client gets invalidations.
    pub const TRACKING: u64 = 1 << 20;
    /// The client to which this client's invalidations are redirected is gone.
    pub const TRACKING_BROKEN_REDIR: u64 = 1 << 21;
    /// CLIENT TRACKING with BCAST: the client gets invalidations of all keys with certain prefixes.
    pub const TRACKING_BCAST: u64 = 1 << 22;
    /// CLIENT TRACKING with OPTIN: the keys of a command are remembered only after CLIENT CACHING
    /// YES.
    pub const TRACKING_OPTIN: u64 = 1 << 23;
    /// CLIENT TRACKING with OPTOUT: the keys of a command are remembered, except after CLIENT
    /// CACHING NO.
    pub const TRACKING_OPTOUT: u64 = 1 << 24;
    /// CLIENT CACHING YES (OPTIN) or NO (OPTOUT) applies to the next command.
    pub const TRACKING_CACHING: u64 = 1 << 25;
    /// CLIENT TRACKING with NOLOOP: the client gets no invalidations for its own changes.
    pub const TRACKING_NOLOOP: u64 = 1 << 26;
    /// The client's command must be run by `process_command` again when the client is unblocked.
    pub const REEXECUTE: u64 = 1 << 27;
    /// The client has called READONLY: a replica of a cluster answers its reads.
    pub const READONLY: u64 = 1 << 28;
    /// The client has called ASKING: its next command may use a slot that this node imports.
    pub const ASKING: u64 = 1 << 29;
    /// The command that runs must not be propagated to replicas or the AOF.
    pub const PREVENT_PROPAGATION: u64 = 1 << 30;
    /// The client without a socket that runs the commands of the AOF at start.
    pub const AOF_LOADER: u64 = 1 << 31;
    /// EXEC runs the client's queued commands.
    pub const IN_EXEC: u64 = 1 << 32;
    /// The client's output has exceeded its soft limit since `soft_limit_since_ms`.
    pub const OVER_SOFT_LIMIT: u64 = 1 << 33;
    /// CLIENT IMPORT-SOURCE is on: the client imports a data set (Valkey).
    pub const IMPORT_SOURCE: u64 = 1 << 34;
    /// CLIENT CAPA redirect was called: the client understands the error REDIRECT.
    pub const CAPA_REDIRECT: u64 = 1 << 36;
    /// The client's socket is full; the loop calls the write handler when the socket takes bytes
    /// again.
    pub const WAITS_TO_WRITE: u64 = 1 << 37;
    /// The client has authenticated at some time, even if it is not authenticated any more: the
    /// small output limit for unauthenticated clients does not apply.
    pub const EVER_AUTHENTICATED: u64 = 1 << 38;
    /// SCRIPT DEBUG: the next EVAL is a session of the debugger, in a fork.
    pub const SCRIPT_DEBUG: u64 = 1 << 39;
    /// SCRIPT DEBUG SYNC: the debugger's session runs in the server's process, not in a fork.
    pub const SCRIPT_DEBUG_SYNC: u64 = 1 << 40;
    /// DEBUG MARK-INTERNAL-CLIENT was called: the client counts as a part of the server.
    pub const INTERNAL: u64 = 1 << 41;
    /// The primary's stream is received but not applied, as clients are paused.
    pub const HELD: u64 = 1 << 42;
    /// The client is a connection over which this node, the source of a CLUSTER MIGRATESLOTS, gives
    /// slots away.
    pub const SLOT_EXPORT: u64 = 1 << 43;
    /// The client is a connection over which slots of another node arrive by CLUSTER MIGRATESLOTS.
    pub const SLOT_IMPORT: u64 = 1 << 44;
    /// The flags of connections that move slots to or from this node.
    pub const SLOT_LINK: u64 = SLOT_EXPORT | SLOT_IMPORT;
}

/// The value of [`Client::hash_slot`] for a command without keys.
pub const NO_SLOT: u16 = u16::MAX;

/// The ACL user as which a client acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserRef(pub u32);

impl UserRef {
    /// The user `default`, which every new connection has.
    pub const DEFAULT: UserRef = UserRef(0);
    /// The server itself, which is allowed everything.
    pub const SERVER: UserRef = UserRef(u32::MAX);
}

/// A copy of a command's arguments that does not depend on the request buffer: commands queued by
/// MULTI, and those of blocked clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedArgv {
    bytes: Box<[u8]>,
    ends: Box<[usize]>,
}

impl OwnedArgv {
    /// Copies the arguments `argv` into one block of memory.
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

    /// The heap bytes of the copied arguments.
    pub fn memory(&self) -> usize {
        heap_bytes(self.bytes.len()) + heap_bytes(size_of_val(&*self.ends))
    }

    /// The arguments of the copied command.
    pub fn slices(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let mut out = Vec::with_capacity(self.ends.len());
        for &end in &self.ends {
            out.push(&self.bytes[start..end]);
            start = end;
        }
        out
    }
}

/// The state of one client.
pub struct Client {
    /// The number that CLIENT ID returns: ascending and never used again.
    pub id: u64,
    /// The client's index in the table of clients; `u32::MAX` for a client without a socket.
    pub slot: u32,
    /// The client's state, as bits of [`flag`].
    pub flags: u64,
    /// The number of the selected database.
    pub db: u32,
    /// The client's connection; `None` for a client without a socket.
    pub conn: Option<Connection>,
    pub token: Option<Token>,

    /// Bytes of an incomplete request, or the requests that wait until a client is unblocked.
    pub querybuf: Vec<u8>,
    pub open: Option<Box<Open>>,
    pub reply: ReplyBuf,

    /// On a cluster node: the slot of the command that runs, or [`NO_SLOT`].
    pub hash_slot: u16,
    /// The id of the client's last command, which is tried first, as the next command is usually
    /// the same.
    pub last_cmd: Option<u16>,
    /// The client's last command or subcommand, for `cmd` of CLIENT LIST.
    pub shown_cmd: Option<u16>,
    /// The user that the client acts as: `default`, the user of AUTH, or the server itself for a
    /// client without a connection.
    pub user: UserRef,
    pub authenticated: bool,
    /// The name set by CLIENT SETNAME. The client of a script shares its name and `peer` with the
    /// client that called the script.
    pub name: Option<Rc<[u8]>>,
    pub lib_name: Option<Box<[u8]>>,
    pub lib_ver: Option<Box<[u8]>>,
    pub multi: Option<Box<transaction::MultiState>>,
    pub blocked: Option<Box<blocked::Blocked>>,
    pub pubsub: Option<Box<subscriptions::Subscriptions>>,
    pub watched: Vec<transaction::WatchedKey>,

    pub peer: Rc<str>,
    pub local: Box<str>,
    /// The Unix time in milliseconds at which the client was made.
    pub created_ms: i64,
    pub last_interaction_ms: i64,
    pub soft_limit_since_ms: i64,
    /// The AOF offset after this client's last write and, under `appendfsync always`, after the
    /// last write that the client has seen. The client's replies wait until the AOF is safe up to
    /// `aof_offset` (`gate::safe_offset`); WAITAOF waits until the AOF is on the disk up to
    /// `aof_offset`.
    pub aof_offset: u64,
    /// The offset of the replication stream after the client's last write, which WAIT compares.
    pub repl_offset: u64,
    /// The options that a replica has announced with REPLCONF.
    pub announced: Option<Box<Announced>>,
    /// The bytes received from the client, for CLIENT LIST.
    pub net_in: u64,
    /// The bytes sent to the client, for CLIENT LIST.
    pub net_out: u64,
    /// The number of commands that the client has run, for CLIENT LIST.
    pub commands: u64,
    /// The largest recent size of the query buffer, for `qbuf` and client eviction.
    pub querybuf_peak: usize,
    /// The size of the client's reply buffer, which `networking::write::resize_reply_buffer`
    /// adapts.
    pub reply_class: ReplyClass,
    /// The client's last counted memory, which is included in the sums of `Net::memory`.
    pub counted: Counted,
}

/// The memory of a client as it was last counted in the sums of `ClientMemory`.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// The client's memory in bytes when it was last counted.
    pub bytes: usize,
    /// The client's class (normal, replica, pubsub) when its memory was last counted, as an index.
    pub class: usize,
    pub evictable: bool,
}

/// The size of the reply buffer that a busy client gets: the size grows at once with the replies,
/// and shrinks when the replies have been smaller for a while.
#[derive(Clone, Copy)]
pub struct ReplyClass {
    /// The capacity of the client's reply buffer in bytes, as INFO and CLIENT LIST show it.
    pub size: u32,
    /// The largest reply since the last reset of the peak, in bytes.
    pub peak: u32,
    pub peak_reset_ms: i64,
}

/// The smallest size of a reply buffer, in bytes.
pub const REPLY_CLASS_MIN: u32 = 1024;
/// The largest size of a reply buffer, in bytes.
pub const REPLY_CLASS_MAX: u32 = 16 * 1024;

impl Client {
    /// Makes a client without a socket, such as that of a script or of the AOF.
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
            hash_slot: NO_SLOT,
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

    /// Whether the client has at least one of the flags `flags`.
    #[inline]
    pub fn has(&self, flags: u64) -> bool {
        self.flags & flags != 0
    }

    /// Sets the flags `flags` of the client.
    #[inline]
    pub fn set(&mut self, flags: u64) {
        self.flags |= flags;
    }

    /// Clears the flags `flags` of the client.
    #[inline]
    pub fn clear(&mut self, flags: u64) {
        self.flags &= !flags;
    }

    /// Removes the reply bytes written after `from` if CLIENT REPLY is OFF, or if SKIP applies to
    /// the command that runs.
    #[inline]
    pub fn drop_unwanted_reply(&mut self, from: Mark) {
        if self.has(flag::REPLY_OFF | flag::REPLY_SKIP) {
            self.reply.truncate(from);
        }
    }

    /// The client's class, which selects its output buffer limit.
    pub fn class(&self) -> ClientClass {
        if self.has(flag::REPLICA | flag::SLOT_EXPORT) && !self.has(flag::MONITOR) {
            ClientClass::Replica
        } else if self.has(flag::PUBSUB) {
            ClientClass::Pubsub
        } else {
            ClientClass::Normal
        }
    }

    /// Whether the client's commands come from the primary or from the AOF: such commands were
    /// executed before, with all checks.
    #[inline]
    pub fn replays(&self) -> bool {
        self.has(flag::PRIMARY | flag::AOF_LOADER)
    }

    /// Whether the client's commands are executed without the checks for disk, role and expired
    /// keys: clients that replay ([`Client::replays`]), and the connection over which slots of
    /// another node arrive. For the connection of slots, rights, memory, payloads and slots are
    /// checked.
    #[inline]
    pub fn must_obey(&self) -> bool {
        self.has(flag::PRIMARY | flag::AOF_LOADER | flag::SLOT_IMPORT)
    }

    /// A reference by which later turns find the client, unless it was closed.
    pub fn reference(&self) -> ClientRef {
        ClientRef {
            slot: self.slot,
            id: self.id,
        }
    }

    /// Whether the client is connected from this machine.
    pub fn is_local(&self) -> bool {
        self.conn.as_ref().is_none_or(Connection::is_local)
    }

    /// Whether the client has no connection, so that its replies are not sent.
    pub fn is_detached(&self) -> bool {
        self.conn.is_none()
    }

    /// The bytes of requests that were received and have not run yet; while a big argument is
    /// received, the bytes of that argument.
    pub fn querybuf_len(&self) -> usize {
        let big = self.open.as_ref().and_then(|open| open.big.as_ref());
        big.map_or(self.querybuf.len(), |big| big.bytes.len())
    }

    /// The unused bytes of the query buffer's capacity.
    pub fn querybuf_free(&self) -> usize {
        let big = self.open.as_ref().and_then(|open| open.big.as_ref());
        let buffer = big.map_or(&self.querybuf, |big| &big.bytes);
        buffer.capacity() - buffer.len()
    }

    /// The bytes of the arguments that were received of an incomplete command.
    pub fn argv_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.argv_len())
    }

    /// The heap bytes of the client, the structure `Client` included. Unsent replies count as the
    /// output limits count them, so that CLIENT LIST's `omem` is a part of its `tot-mem`.
    pub fn memory(&self) -> usize {
        let text = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |t| heap_bytes(t.len()));
        let keys = self.watched.iter().map(|w| heap_bytes(w.key.len()));
        size_class(size_of::<Client>())
            + vec_bytes(&self.querybuf)
            + self.open.as_ref().map_or(0, |o| o.memory())
            + self.reply.memory().max(self.reply.queued_memory())
            + size_class(RC_COUNTS + self.peer.len())
            + heap_bytes(self.local.len())
            + self
                .name
                .as_ref()
                .map_or(0, |n| size_class(RC_COUNTS + n.len()))
            + text(&self.lib_name)
            + text(&self.lib_ver)
            + self.multi.as_ref().map_or(0, |m| m.memory())
            + vec_bytes(&self.watched)
            + keys.sum::<usize>()
            + self.pubsub.as_ref().map_or(0, |p| p.memory())
            + self.blocked.as_ref().map_or(0, |b| b.memory())
    }
}

/// The bytes of the two reference counts that an `Rc` stores before its content.
const RC_COUNTS: usize = 2 * size_of::<usize>();

/// Identifies a client in later turns: the slot finds the client, and the id proves that the slot
/// has not been given to another client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ClientRef {
    /// The client's index in the table of clients.
    pub slot: u32,
    /// The id of the client, which no other client ever gets.
    pub id: u64,
}
