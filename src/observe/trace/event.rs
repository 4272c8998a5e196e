//! An event of the trace: a span of time, what the loop did in it, for which client, and a number.

/// What happened in an event's span of time. The ring stores the kind of an event as a number of 7
/// bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// One iteration of the loop. The event's number is the number of commands that ran in the
    /// iteration.
    Turn,
    /// An iteration of the loop within a long command or a load. The event's number is the number
    /// of commands that ran.
    NestedTurn,
    BeforeSleep,
    /// The execution of a step of `before_sleep`. The event's number is the position of the step in
    /// the drawing of `before_sleep`, from 0.
    Step,
    /// The poll of the event loop, its sleep included. The event's number is the number of fds that
    /// the poll reported.
    Poll,
    AfterSleep,
    /// A call of the read handler of a file of the event loop.
    Readable,
    /// A call of the write handler of a file of the event loop.
    Writable,
    /// A call of a timer's handler.
    Timer,
    /// A job of the cron. The event's number is the index of the job in the table of jobs.
    Job,
    /// Reading from a client's socket. The event's number is the number of bytes read.
    Read,
    /// Parsing requests, looking up their commands and prefetching keys. The event's number is the
    /// number of requests.
    Parse,
    /// The execution of a command. The event's number is the id of the command in the command
    /// table.
    Command,
    /// Writing replies to a client's socket. The event's number is the number of bytes written.
    Write,
    /// Writing to the AOF in the loop, or passing the bytes to the AOF's thread. The event's number
    /// is the number of bytes to write.
    AofFlush,
    /// A write by the AOF's thread. The event's number is the number of bytes written.
    AofWrite,
    /// An fsync by one of the AOF's threads.
    Fsync,
    /// An fsync of the AOF for which the event loop waits.
    BlockingFsync,
    /// A cycle of active expiry that found due keys. The event's number is the number of keys and
    /// hash fields that were removed.
    Expire,
    /// Moving buckets of a hash table that is being resized. The event's number is the number of
    /// the database.
    Rehash,
    /// The eviction of keys to keep within `maxmemory`. The event's number is the number of evicted
    /// keys.
    Evict,
    /// A fork of the server's process. The event's number is the pid of the child.
    Fork,
    /// A child has ended, and its result is processed. The event's number is the pid of the child.
    ChildEnd,
    /// The freeing of one value or data set by the background thread that frees memory. The event's
    /// number is the number of freed objects.
    LazyFree,
    /// A step of the TLS handshake of a connection that is no client yet.
    Handshake,
    /// Reading packets from another node of the cluster and processing them. The event's number is
    /// the number of bytes read.
    BusRead,
    /// Sending packets to another node of the cluster. The event's number is the number of bytes
    /// sent.
    BusWrite,
    /// The building of a long reply, or of a reply whose length is known only at its end: from the
    /// reply's header to the end of the command. Shorter replies have no event: their time is only
    /// a part of the command's event. The event's number is the number of bytes of the reply.
    ReplyBuild,
}

impl EventKind {
    /// All kinds of events, in the order of their numbers.
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

    /// The category of the event in the trace's file, and its name if it has no name of its own (as
    /// commands, steps and jobs have).
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

    /// The name under which the event's number is shown; `None` if the number is not shown.
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

/// An event of the trace: a span of time. The times of events are counts of the processor's counter
/// (`sys::ticks`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// The beginning of the event, in ticks of the processor's counter.
    pub start: u64,
    /// The end of the event, in ticks of the processor's counter.
    pub end: u64,
    /// The id of the client for which the loop worked; 0 if it worked for no client.
    pub client: u64,
    /// The event's number, whose meaning [`EventKind`] states; numbers that need more than 32 bits
    /// are stored as `u32::MAX`.
    pub number: u32,
    pub kind: EventKind,
}
