//! Outgoing links to other servers, as a state machine without socket and clock: connection,
//! handshake, requests and their replies.
//!
//! ```text
//!            Connected           the last reply of the script         finish, all replies here
//!   Connecting ───────> Handshake ──────────> Open ─────────────────────> Ended
//!        │                 │                   │                            ^
//!        └─ Failed ────────┴─ a refusal, a ────┴─ Closed, a time-out ───────┘
//!                             time-out, Closed
//!
//!   queue: steps to send ──> output ──> the socket          Event::Sent
//!             │ sent
//!             v
//!   pending: a reply is due <── Reader <── input <── the socket        Event::Received
//!             │
//!             └──> Action::Reply { tag, reply }
//! ```
//!
//! The owner of a link creates a [`Plan`]: the *script* of the handshake (a list of [`Step`]s,
//! requests with their expected replies), the timeouts and the limits. The owner passes events to
//! [`Link::step`] and executes the resulting actions. The bytes to send are in [`Link::output`],
//! the time of the next [`Event::Tick`] is [`Link::deadline`]. `networking::link` is an owner of
//! links with sockets; simulations are owners without sockets.
//!
//! Requests after the handshake are steps, too ([`Link::push`]). The steps of a link are sent in
//! order and pipelined. The steps after a step with [`Step::wait`] are sent only after the reply to
//! this step has arrived. Replies arrive in the order of the steps, and each reply is identified by
//! the tag of its step.
//!
//! **The end of a handshake.** The bytes after the last reply of a handshake need not be replies: a
//! snapshot may follow `+FULLRESYNC` in the same read. So with [`Unasked::Keep`], bytes are parsed
//! only while a reply is due, and [`Link::take_rest`] returns the bytes that were read beyond the
//! last reply.
//!
//! **Keep-alives.** A line feed between two replies is skipped and restarts the timeout of the
//! reply: a primary sends line feeds while it prepares a snapshot.
//!
//! **Time** is a number of milliseconds that never decreases; its origin does not matter. The
//! timeout of a reply starts when the reply's request has been sent and the previous reply has
//! arrived. So a large request that the peer reads slowly does not time out.
//!
//! **Invariant:** each link ends once, with `Failed` or `Closed` as its last action; later events
//! have no effect.
//! **Invariant:** the actions of a link do not depend on how the received bytes are split between
//! reads (`tests::a_handshake_cut_anywhere_is_the_same`).
//! **Limits:** a line has at most [`LINE_MAX`] bytes, a reply [`Plan::reply_max`], and arrays are
//! nested at most [`DEPTH_MAX`] deep. Replies are those of RESP2; a link never sends HELLO 3. The
//! script of a handshake is fixed when the link begins: steps that depend on a reply are pushed by
//! the owner after this reply.

mod backoff;
mod reply;
mod step;

use std::collections::VecDeque;
use std::fmt;

pub use self::backoff::Backoff;
use self::reply::{Buffer, Reader};
pub use self::reply::{DEPTH_MAX, LINE_MAX, Malformed, Reply};
pub use self::step::{Errors, Expect, Step};

/// What happens to bytes that arrive while no reply is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unasked {
    /// Bytes that arrive while no reply is due are not parsed: the owner takes the connection over
    /// when the link is ready.
    Keep,
    /// Bytes that arrive while no reply is due are messages, such as those of a subscription:
    /// [`Action::Message`]. A message that arrives while a reply is due is taken for the reply, so
    /// SUBSCRIBE must be the last request.
    Deliver,
    /// Bytes that arrive while no reply is due are an error of the peer: the link fails.
    Refuse,
}

/// The parameters of a link.
pub struct Plan {
    /// The steps of the handshake. A link without steps is ready as soon as it is connected.
    pub script: Vec<Step>,
    pub unasked: Unasked,
    /// The timeout for resolving the host name and connecting, in milliseconds.
    pub connect_ms: u64,
    /// The timeout in milliseconds of the reply to each step that has no timeout of its own.
    pub reply_ms: u64,
    /// The maximum size of a reply in bytes.
    pub reply_max: usize,
}

/// The maximum number of line feeds that keep a link alive in place of one reply. A primary sends
/// one line feed each second, so this number is reached after more than a day.
const KEEP_ALIVES_MAX: u32 = 100_000;

/// The maximum size of a reply in bytes, unless the plan of the link has another maximum.
const REPLY_MAX: usize = 1024 * 1024;

impl Plan {
    /// A plan with `timeout_ms` for the connection and for each reply.
    pub fn new(script: Vec<Step>, unasked: Unasked, timeout_ms: u64) -> Plan {
        Plan {
            script,
            unasked,
            connect_ms: timeout_ms,
            reply_ms: timeout_ms,
            reply_max: REPLY_MAX,
        }
    }
}

/// An event of a link's connection or of the clock.
pub enum Event<'a> {
    /// The connection is open.
    Connected,
    /// Bytes were received from the peer.
    Received(&'a [u8]),
    /// The socket has accepted this number of bytes of the link's output.
    Sent(usize),
    /// The peer closed the connection.
    Closed,
    /// The owner knows a reason why the link can't continue.
    Failed(Failure),
    /// The time of [`Link::deadline`] has come, or the owner has called [`Link::finish`].
    Tick,
}

/// What the owner of the link must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The reply to the request with the tag `tag`. The reply is an error only if the request
    /// tolerates errors; the link fails at any other error.
    Reply { tag: u32, reply: Reply },
    /// A message that is not a reply to a request, see [`Unasked::Deliver`].
    Message(Reply),
    /// The handshake is complete.
    Ready,
    /// The link ended after [`Link::finish`]. `Closed` is the last action of a link.
    Closed,
    /// The link ended because of a failure. `Failed` is the last action of a link.
    Failed(Failure),
}

/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The host name has no address.
    Resolve(String),
    /// The connection could not be established.
    Connect(String),
    /// The connection was not established in time.
    ConnectTimeout,
    /// An established connection broke.
    Broken(String),
    /// The peer closed the connection.
    Closed,
    /// The reply to the step with this tag did not arrive in time.
    ReplyTimeout { tag: u32 },
    /// The peer has accepted no bytes of the requests during the timeout of a reply.
    SendTimeout,
    /// The reply to the step with this tag was an error that the step does not tolerate.
    Refused { tag: u32, error: Vec<u8> },
    /// The reply to the step with this tag was not the one that the step expects.
    Unexpected { tag: u32, reply: Reply },
    /// The peer sent bytes while no reply was due.
    Unasked,
    /// The peer sent bytes that are not a reply.
    Malformed(Malformed),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Resolve(reason) | Failure::Connect(reason) | Failure::Broken(reason) => {
                f.write_str(reason)
            }
            Failure::ConnectTimeout => f.write_str("Connection timed out"),
            Failure::Closed => f.write_str("Connection closed by the peer"),
            Failure::ReplyTimeout { .. } => f.write_str("Timeout waiting for a reply"),
            Failure::SendTimeout => f.write_str("Timeout sending a request"),
            Failure::Refused { error, .. } => write!(f, "-{}", String::from_utf8_lossy(error)),
            Failure::Unexpected { reply, .. } => write!(f, "Unexpected reply: {reply}"),
            Failure::Unasked => f.write_str("A reply without a request"),
            Failure::Malformed(reason) => write!(f, "Protocol error: {reason}"),
        }
    }
}

impl From<Malformed> for Failure {
    fn from(reason: Malformed) -> Failure {
        Failure::Malformed(reason)
    }
}

/// The bytes that remain of a link when its owner takes the connection over.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Rest {
    /// Bytes that were received after the last reply of the link.
    pub received: Vec<u8>,
    /// Bytes of requests that the socket has not accepted yet.
    pub unsent: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting,
    Handshake,
    Open,
    Ended,
}

/// A request that was sent and whose reply is due.
struct Pending {
    step: Step,
    /// The time in milliseconds at which the last bytes of the request were sent, or were ready to
    /// be sent.
    since: u64,
    /// The number of bytes that the link will have sent at the end of the request.
    end: u64,
}

/// The state machine of a link.
pub struct Link {
    state: State,
    unasked: Unasked,
    reply_ms: u64,
    reply_max: usize,
    /// The time in milliseconds at which the link began to connect.
    began: u64,
    connect_ms: u64,
    /// Requests that are not in the output yet.
    queue: VecDeque<Step>,
    /// Requests whose replies are due, in order.
    pending: VecDeque<Pending>,
    /// The number of requests of the handshake whose replies have not arrived.
    script_left: usize,
    /// Whether the owner has called [`Link::finish`]: the link ends when all requests have their
    /// replies.
    finishing: bool,
    output: Buffer,
    /// The number of bytes that the socket has accepted since the link began.
    sent: u64,
    /// The time at which the socket last accepted bytes, or output was created.
    moved_at: u64,
    input: Buffer,
    reader: Reader,
    /// The time of the last reply or keep-alive line feed.
    heard_at: u64,
    /// The number of keep-alive line feeds since the last reply.
    keep_alives: u32,
}

impl Link {
    /// A link whose connection is being established from `now` on.
    pub fn new(now: u64, plan: Plan) -> Link {
        Link {
            state: State::Connecting,
            unasked: plan.unasked,
            reply_ms: plan.reply_ms,
            reply_max: plan.reply_max,
            began: now,
            connect_ms: plan.connect_ms,
            script_left: plan.script.len(),
            queue: plan.script.into(),
            pending: VecDeque::new(),
            finishing: false,
            output: Buffer::default(),
            sent: 0,
            moved_at: now,
            input: Buffer::default(),
            reader: Reader::default(),
            heard_at: now,
            keep_alives: 0,
        }
    }

    /// Whether there is no connection yet and the link has not ended.
    pub fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// Whether the handshake is complete and the link has not ended.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether no step is queued, no reply is due and no output is unsent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.pending.is_empty() && self.output.is_empty()
    }

    /// Adds a request behind all earlier requests of the link. Returns false if the link is ending.
    pub fn push(&mut self, now: u64, step: Step) -> bool {
        let takes = self.state != State::Ended && !self.finishing;
        if takes {
            self.queue.push_back(step);
            self.send(now);
        }
        takes
    }

    /// Changes the timeouts of the connection and of replies, also of those that are due already.
    pub fn set_timeout(&mut self, timeout_ms: u64) {
        self.connect_ms = timeout_ms;
        self.reply_ms = timeout_ms;
    }

    /// Ends the link when the handshake is complete and all requests have been replied to. The end
    /// takes effect at the next [`Link::step`].
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// The bytes that the owner must send next. [`Event::Sent`] reports the bytes that the socket
    /// has accepted.
    pub fn output(&self) -> &[u8] {
        self.output.as_slice()
    }

    /// Whether the owner may read from the socket now. Bytes stay in the socket while `wants_input`
    /// is false.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Connecting | State::Ended => false,
            State::Handshake | State::Open => {
                self.unasked != Unasked::Keep || !self.pending.is_empty()
            }
        }
    }

    /// The time at which the owner must pass [`Event::Tick`], in milliseconds; `None` if no timeout
    /// runs.
    pub fn deadline(&self) -> Option<u64> {
        match (self.state, self.pending.front()) {
            (State::Ended, _) => None,
            (State::Connecting, _) => Some(self.began.saturating_add(self.connect_ms)),
            (_, Some(first)) => {
                let since = first.since.max(self.heard_at);
                Some(since.saturating_add(first.step.timeout_ms.unwrap_or(self.reply_ms)))
            }
            (_, None) => {
                let sending = !self.output.is_empty();
                sending.then(|| self.moved_at.saturating_add(self.reply_ms))
            }
        }
    }

    /// Ends the link without an action, when the owner takes the connection over. Returns the bytes
    /// that were received after the last reply, and those that are unsent.
    pub fn take_rest(&mut self) -> Rest {
        self.state = State::Ended;
        Rest {
            received: self.input.take(),
            unsent: self.output.take(),
        }
    }

    /// Handles an event at the time `now` (milliseconds). Appends the actions that the owner must
    /// execute to `actions`.
    pub fn step(&mut self, now: u64, event: Event, actions: &mut Vec<Action>) {
        if self.state == State::Ended {
            return;
        }
        let happened = match event {
            Event::Connected => {
                if self.state == State::Connecting {
                    self.state = State::Handshake;
                }
                Ok(())
            }
            Event::Received(bytes) => {
                self.input.push(bytes);
                Ok(())
            }
            Event::Sent(n) => {
                self.note_sent(now, n);
                Ok(())
            }
            Event::Closed if self.finishing && self.is_idle() => Ok(()),
            Event::Closed => Err(Failure::Closed),
            Event::Failed(failure) => Err(failure),
            Event::Tick => self.check_deadline(now),
        };
        if let Err(failure) = happened.and_then(|()| self.go_on(now, actions)) {
            self.end(actions, Action::Failed(failure));
        }
    }

    fn note_sent(&mut self, now: u64, n: usize) {
        let n = self.output.consume(n);
        for pending in self.pending.iter_mut().rev() {
            if pending.end <= self.sent {
                break;
            }
            pending.since = now;
        }
        self.sent += n as u64;
        self.moved_at = now;
    }

    fn check_deadline(&self, now: u64) -> Result<(), Failure> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        Err(match (self.state, self.pending.front()) {
            (State::Connecting, _) => Failure::ConnectTimeout,
            (_, Some(first)) => Failure::ReplyTimeout {
                tag: first.step.tag,
            },
            (_, None) => Failure::SendTimeout,
        })
    }

    fn go_on(&mut self, now: u64, actions: &mut Vec<Action>) -> Result<(), Failure> {
        if self.state != State::Connecting {
            loop {
                self.send(now);
                if self.state == State::Handshake && self.script_left == 0 {
                    self.state = State::Open;
                    actions.push(Action::Ready);
                }
                if !self.receive(now, actions)? {
                    break;
                }
            }
        }
        if self.finishing && self.state == State::Open && self.is_idle() {
            self.end(actions, Action::Closed);
        }
        Ok(())
    }

    /// Moves queued requests to the output, up to a request whose reply must be awaited.
    fn send(&mut self, now: u64) {
        while self.state != State::Connecting
            && !self.pending.back().is_some_and(|last| last.step.waits)
            && let Some(mut step) = self.queue.pop_front()
        {
            if self.output.is_empty() {
                self.moved_at = now;
            }
            self.output.push(&step.request);
            step.request = Vec::new();
            if step.expect == Expect::Nothing {
                self.step_over();
                continue;
            }
            self.pending.push_back(Pending {
                step,
                since: now,
                end: self.sent + self.output.len() as u64,
            });
        }
    }

    fn step_over(&mut self) {
        self.script_left = self.script_left.saturating_sub(1);
    }

    /// Takes one reply out of the received bytes. Returns whether there was a complete reply.
    fn receive(&mut self, now: u64, actions: &mut Vec<Action>) -> Result<bool, Failure> {
        if self.pending.is_empty() && self.unasked == Unasked::Keep {
            return Ok(false);
        }
        while self.reader.is_idle() && self.input.as_slice().first() == Some(&b'\n') {
            self.input.consume(1);
            self.heard_at = now;
            self.keep_alives += 1;
            if self.keep_alives > KEEP_ALIVES_MAX {
                return Err(Malformed::KeepAlives.into());
            }
        }
        let first = self.pending.front().map(|first| &first.step);
        if first.is_none() && self.unasked == Unasked::Refuse {
            return match self.input.is_empty() {
                true => Ok(false),
                false => Err(Failure::Unasked),
            };
        }
        let line_only = first.is_some_and(|step| step.expect == Expect::Line);
        let Some(reply) = self
            .reader
            .next(&mut self.input, line_only, self.reply_max)?
        else {
            return Ok(false);
        };
        self.heard_at = now;
        self.keep_alives = 0;
        let Some(Pending { step, .. }) = self.pending.pop_front() else {
            actions.push(Action::Message(reply));
            return Ok(true);
        };
        let reply = step.check(reply)?;
        let tag = step.tag;
        actions.push(Action::Reply { tag, reply });
        self.step_over();
        Ok(true)
    }

    fn end(&mut self, actions: &mut Vec<Action>, last: Action) {
        self.state = State::Ended;
        self.queue.clear();
        self.pending.clear();
        self.output.take();
        self.input.take();
        actions.push(last);
    }
}

#[cfg(test)]
mod tests;
