//! An event of the trace: a span of time, what the loop did in it, for which client, and a number.

/// What an event is. The order is that of the numbers in the ring only, which has 7 bits for them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// One iteration of the loop. The event's number: commands that were run.
    Turn,
    /// An iteration within a long command or a load. The event's number: commands.
    NestedTurn,
    BeforeSleep,
    /// A step of `before_sleep`. The event's number: its place in the drawing, from 0.
    Step,
    /// The poll with its sleep. The event's number: files that changed.
    Poll,
    AfterSleep,
    /// A call of a file's read handler.
    Readable,
    /// A call of a file's write handler.
    Writable,
    /// A call of a timer.
    Timer,
    /// A job of the cron. The event's number: its place in the table.
    Job,
    /// Reading from a client's socket. The event's number: bytes.
    Read,
    /// Parsing requests, looking up their commands and prefetching keys. The event's number:
    /// requests.
    Parse,
    /// A command. The event's number: its id in the table.
    Command,
    /// Writing replies to a client's socket. The event's number: bytes.
    Write,
    /// Writing the AOF in the loop, or passing it to its thread. The event's number: bytes to
    /// write.
    AofFlush,
    /// The AOF's thread: a write. The event's number: bytes.
    AofWrite,
    /// The AOF's threads: an fsync.
    Fsync,
    /// An fsync for which the loop waits.
    BlockingFsync,
    /// A cycle of active expiry with due keys. The event's number: keys and fields that were
    /// removed.
    Expire,
    /// Moving buckets of a table that is being resized. The event's number: the database.
    Rehash,
    /// Eviction. The event's number: keys.
    Evict,
    /// A fork. The event's number: the child's pid.
    Fork,
    /// A child has ended and its result is taken in. The event's number: its pid.
    ChildEnd,
    /// The thread that frees: one value or data set. The event's number: objects.
    LazyFree,
    /// A step of the TLS handshake of a connection that is no client yet.
    Handshake,
    /// Reading packets from another node of the cluster and taking them in. The event's number:
    /// bytes.
    BusRead,
    /// Sending packets to another node. The event's number: bytes.
    BusWrite,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 27] = [
        Kind::Turn,
        Kind::NestedTurn,
        Kind::BeforeSleep,
        Kind::Step,
        Kind::Poll,
        Kind::AfterSleep,
        Kind::Readable,
        Kind::Writable,
        Kind::Timer,
        Kind::Job,
        Kind::Read,
        Kind::Parse,
        Kind::Command,
        Kind::Write,
        Kind::AofFlush,
        Kind::AofWrite,
        Kind::Fsync,
        Kind::BlockingFsync,
        Kind::Expire,
        Kind::Rehash,
        Kind::Evict,
        Kind::Fork,
        Kind::ChildEnd,
        Kind::LazyFree,
        Kind::Handshake,
        Kind::BusRead,
        Kind::BusWrite,
    ];

    /// The category in the file, which is also the name of events that have no other.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Turn => "turn",
            Kind::NestedTurn => "nested turn",
            Kind::BeforeSleep => "before_sleep",
            Kind::Step => "step",
            Kind::Poll => "poll",
            Kind::AfterSleep => "after_sleep",
            Kind::Readable => "readable",
            Kind::Writable => "writable",
            Kind::Timer => "timer",
            Kind::Job => "job",
            Kind::Read => "read",
            Kind::Parse => "parse",
            Kind::Command => "command",
            Kind::Write => "write",
            Kind::AofFlush => "aof flush",
            Kind::AofWrite => "aof write",
            Kind::Fsync => "fsync",
            Kind::BlockingFsync => "blocking fsync",
            Kind::Expire => "expire",
            Kind::Rehash => "rehash",
            Kind::Evict => "evict",
            Kind::Fork => "fork",
            Kind::ChildEnd => "child end",
            Kind::LazyFree => "lazy free",
            Kind::Handshake => "handshake",
            Kind::BusRead => "bus read",
            Kind::BusWrite => "bus write",
        }
    }

    /// What the number is, if it has a meaning of its own.
    pub fn argument(self) -> Option<&'static str> {
        Some(match self {
            Kind::Turn | Kind::NestedTurn => "commands",
            Kind::Poll => "files",
            Kind::Read | Kind::Write | Kind::BusRead | Kind::BusWrite => "bytes",
            Kind::AofFlush | Kind::AofWrite => "bytes",
            Kind::Parse => "requests",
            Kind::Expire | Kind::Evict => "keys",
            Kind::Rehash => "db",
            Kind::Fork | Kind::ChildEnd => "pid",
            Kind::LazyFree => "objects",
            _ => return None,
        })
    }
}

/// A span of time. The times are counts of `sys::ticks`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// The beginning, in ticks of the processor's counter.
    pub start: u64,
    /// The end, in ticks of the processor's counter.
    pub end: u64,
    /// The client's id; 0 without one.
    pub client: u64,
    /// See [`Kind`]; a number that is too large is the largest that fits.
    pub number: u32,
    pub kind: Kind,
}
