//! An event of the trace: a span of time, what the loop did in it, for which client, and a number.

/// What happened in an event's span. The ring stores a kind as its number, in 7 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// One iteration of the loop. The event's number: commands that were run.
    Turn,
    /// An iteration within a long command or a load. The event's number: commands.
    NestedTurn,
    BeforeSleep,
    /// A step of `before_sleep`. The event's number: the step's place in the drawing of
    /// `before_sleep`, from 0.
    Step,
    /// The poll of the event loop, its sleep included. The event's number: how many fds the poll
    /// reported.
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
    /// A write by the AOF's thread. The event's number: bytes.
    AofWrite,
    /// An fsync by one of the AOF's threads.
    Fsync,
    /// An fsync for which the loop waits.
    BlockingFsync,
    /// A cycle of active expiry with due keys. The event's number: keys and fields that were
    /// removed.
    Expire,
    /// Moving buckets of a table that is being resized. The event's number: the database.
    Rehash,
    /// Eviction of keys. The event's number: keys.
    Evict,
    /// A fork. The event's number: the child's pid.
    Fork,
    /// A child has ended, and its result is processed. The event's number: the child's pid.
    ChildEnd,
    /// The background thread that frees memory: the freeing of one value or data set. The event's
    /// number: objects.
    LazyFree,
    /// A step of the TLS handshake of a connection that is no client yet.
    Handshake,
    /// Reading packets from another node of the cluster and processing them. The event's number:
    /// bytes.
    BusRead,
    /// Sending packets to another node. The event's number: bytes.
    BusWrite,
    /// Building a long reply, or one whose length is known only at its end, from its header to the
    /// end of its command. Shorter replies have no event: their commands contain them. The event's
    /// number: bytes of the reply.
    ReplyBuild,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 28] = [
        EventKind::Turn,
        EventKind::NestedTurn,
        EventKind::BeforeSleep,
        EventKind::Step,
        EventKind::Poll,
        EventKind::AfterSleep,
        EventKind::Readable,
        EventKind::Writable,
        EventKind::Timer,
        EventKind::Job,
        EventKind::Read,
        EventKind::Parse,
        EventKind::Command,
        EventKind::Write,
        EventKind::AofFlush,
        EventKind::AofWrite,
        EventKind::Fsync,
        EventKind::BlockingFsync,
        EventKind::Expire,
        EventKind::Rehash,
        EventKind::Evict,
        EventKind::Fork,
        EventKind::ChildEnd,
        EventKind::LazyFree,
        EventKind::Handshake,
        EventKind::BusRead,
        EventKind::BusWrite,
        EventKind::ReplyBuild,
    ];

    /// The category in the file, which is also the name of events that have no other.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Turn => "turn",
            EventKind::NestedTurn => "nested turn",
            EventKind::BeforeSleep => "before_sleep",
            EventKind::Step => "step",
            EventKind::Poll => "poll",
            EventKind::AfterSleep => "after_sleep",
            EventKind::Readable => "readable",
            EventKind::Writable => "writable",
            EventKind::Timer => "timer",
            EventKind::Job => "job",
            EventKind::Read => "read",
            EventKind::Parse => "parse",
            EventKind::Command => "command",
            EventKind::Write => "write",
            EventKind::AofFlush => "aof flush",
            EventKind::AofWrite => "aof write",
            EventKind::Fsync => "fsync",
            EventKind::BlockingFsync => "blocking fsync",
            EventKind::Expire => "expire",
            EventKind::Rehash => "rehash",
            EventKind::Evict => "evict",
            EventKind::Fork => "fork",
            EventKind::ChildEnd => "child end",
            EventKind::LazyFree => "lazy free",
            EventKind::Handshake => "handshake",
            EventKind::BusRead => "bus read",
            EventKind::BusWrite => "bus write",
            EventKind::ReplyBuild => "reply build",
        }
    }

    /// The meaning of the event's number, if it is shown with the event.
    pub fn argument(self) -> Option<&'static str> {
        Some(match self {
            EventKind::Turn | EventKind::NestedTurn => "commands",
            EventKind::Poll => "files",
            EventKind::Read | EventKind::Write | EventKind::BusRead | EventKind::BusWrite => {
                "bytes"
            }
            EventKind::AofFlush | EventKind::AofWrite | EventKind::ReplyBuild => "bytes",
            EventKind::Parse => "requests",
            EventKind::Expire | EventKind::Evict => "keys",
            EventKind::Rehash => "db",
            EventKind::Fork | EventKind::ChildEnd => "pid",
            EventKind::LazyFree => "objects",
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
    /// The number whose meaning [`EventKind`] states; larger numbers are stored as `u32::MAX`.
    pub number: u32,
    pub kind: EventKind,
}
