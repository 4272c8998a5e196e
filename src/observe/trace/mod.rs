//! The trace: what the loop did and when, as spans of time in a ring of fixed size. TRACE, the
//! flight recorder (`trace-recorder`) and `trace-out` read it.
//!
//! ```text
//!   ae's observer ── begin, end ──> phases: turn, poll, file, timer ──┐
//!   the server ── armed & TRACE? ── span ──> read, parse, command .. ──┴─> Ring of the session    TRACE START
//!                                                                      └─> Ring of the recorder   trace-recorder
//!   Ring ── Snapshot ── chrome ──> JSON for Perfetto and chrome://tracing
//! ```
//!
//! An event has a start, an end, a client, a number, a kind. An event is pushed to the ring when it
//! ends, so that an event comes before the events that contain it. Times are counts of the
//! processor's counter, which commands read anyway for their statistics: most spans begin at the
//! [`Trace::mark`], the end of the span before, and cost one reading of the counter; an event that
//! begins at the mark takes one word in the ring. Names of commands and steps are added when a
//! trace file is made; arguments of commands and keys are not recorded.
//!
//! A filter (`SLOWER-THAN`) drops short events. The events that are kept still form a tree, since
//! an event is at least as long as each event that it contains.
//!
//! **Invariant:** events of the loop nest: two events of the loop are disjoint, or one contains the
//! other (`tests/trace.rs`).
//! **Invariant:** a recording has whole turns: the end of a recording is the end of a turn, and a
//! turn in which the recording begins is recorded as beginning at that moment.
//! **Invariant:** while a recording runs, nothing is allocated (`Ring::new` allocates and touches
//! all memory).
//!
//! **Limits.** Phases (turns, polls, calls of handlers) that are nested deeper than [`DEPTH_MAX`]
//! are not recorded. An event's number (such as bytes) above 2^32 - 1 is shown as 2^32 - 1.

pub mod chrome;
pub mod event;
pub mod files;
mod ring;
#[cfg(test)]
mod tests;

use crate::armed;
use crate::clock;
use crate::command::table::CommandTable;
use crate::state::Server;
use crate::sys::tape;
use crate::sys::ticks::{self, Ticks};
use event::{Event, EventKind};
use files::TraceFiles;
use ring::{Ring, Short, TOOK_MAX};

/// The number of events that a ring holds if TRACE START has no argument EVENTS: up to 4 MB, or 1.2
/// MB if most events are commands of pipelines.
pub const EVENTS_DEFAULT: usize = 131_072;
/// The maximum for TRACE START's argument EVENTS: up to 32 MB of memory; a file with all these
/// events is six times as large.
pub const EVENTS_MAX: usize = 1_048_576;
/// The flight recorder drops events that are shorter than this, so that its ring covers seconds
/// under load.
const RECORDER_MIN_US: u64 = 10;
/// The maximum number of phases that are open at a time. Each turn within a turn opens two phases:
/// the call of a file's handler, and the nested turn.
const DEPTH_MAX: usize = 32;

/// The two recordings of the trace, from which a file can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The recording between TRACE START and TRACE STOP, or for `trace-out`.
    Session,
    /// The recording of the flight recorder (`trace-recorder`).
    Recorder,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The recording begins at the next `before_sleep` or turn.
    Waiting,
    Running,
    /// The recording ends with the present turn of the loop.
    Ending,
    Ended,
}

/// A recording of the trace: a ring of events, and the filter that drops short events.
pub struct Recording {
    pub ring: Ring,
    /// The filter of the recording, in microseconds: shorter events are dropped.
    pub slower_than_us: u64,
    min_ticks: u64,
    /// The least duration of an event that is kept, in ticks: `min_ticks` while the recording runs,
    /// otherwise `u64::MAX`, so that one comparison decides whether an event is kept.
    keeps_from: u64,
    state: State,
}

impl Recording {
    fn new(events: usize, slower_than_us: u64, clock: Ticks) -> Recording {
        Recording {
            ring: Ring::new(events),
            slower_than_us,
            min_ticks: clock.per_us(slower_than_us),
            keeps_from: u64::MAX,
            state: State::Waiting,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.keeps_from = match state {
            State::Running | State::Ending => self.min_ticks,
            State::Waiting | State::Ended => u64::MAX,
        };
    }

    /// Whether the recording runs or will begin with the next turn.
    pub fn is_on(&self) -> bool {
        matches!(self.state, State::Waiting | State::Running)
    }

    #[inline]
    fn push(&mut self, event: Event) {
        if event.end.wrapping_sub(event.start) >= self.keeps_from {
            self.ring.push(event);
        }
    }
}

/// A phase (a turn, a poll, a call of a handler) that has begun and not ended.
#[derive(Clone, Copy)]
struct Open {
    kind: EventKind,
    start: u64,
    client: u64,
    /// The number of commands that the server had run when the phase began.
    commands: u64,
}

/// The result of a turn that has ended.
pub struct EndedTurn {
    /// The duration of the turn without its poll, in ticks.
    pub busy: u64,
}

/// The trace: its two recordings, and the phases that are open now.
pub struct Trace {
    pub session: Option<Recording>,
    pub recorder: Option<Recording>,
    /// The start of the next span: the end of the latest span, or the beginning of the latest phase
    /// if that is later.
    pub mark: u64,
    /// The beginning of the innermost phase, step of `before_sleep` or cron job. The start of a
    /// command that runs when its client is unblocked is not known exactly; it can't be before
    /// `floor`.
    floor: u64,
    /// Whether the loop's observer must be set or removed, since a recording begins or has ended.
    pub follow: bool,
    /// The server's numbers of reads and of bytes read at the last `Read` event.
    pub reads_seen: (u64, u64),
    open: [Open; DEPTH_MAX],
    depth: usize,
    poll_ticks: u64,
    pub files: TraceFiles,
    steps: &'static [&'static str],
    jobs: Vec<&'static str>,
    /// Whether a tape (the recording of a run for replay, `sys::tape`) counts the events.
    taped: bool,
    /// The least duration, in ticks, of an event that at least one recording keeps.
    keeps_from: u64,
    /// The duration, in ticks, below which an event that is kept at all is kept by the session
    /// only.
    session_below: u64,
}

impl Trace {
    /// Creates a trace without recordings; `steps` and `jobs` are the names of before_sleep's steps
    /// and of the cron's jobs.
    pub fn new(steps: &'static [&'static str], jobs: Vec<&'static str>) -> Trace {
        Trace {
            session: None,
            recorder: None,
            mark: 0,
            floor: 0,
            follow: false,
            reads_seen: (0, 0),
            open: [Open {
                kind: EventKind::Turn,
                start: 0,
                client: 0,
                commands: 0,
            }; DEPTH_MAX],
            depth: 0,
            poll_ticks: 0,
            files: TraceFiles::default(),
            steps,
            jobs,
            taped: false,
            keeps_from: u64::MAX,
            session_below: 0,
        }
    }

    /// Computes `keeps_from` and `session_below` when a recording begins or ends, so that an event
    /// that is too short for the flight recorder costs one comparison.
    fn update_threshold(&mut self) {
        let from = |recording: &Option<Recording>| {
            let recording = recording.as_ref();
            recording.map_or(u64::MAX, |recording| recording.keeps_from)
        };
        let (session, recorder) = (from(&self.session), from(&self.recorder));
        (self.keeps_from, self.session_below) = match self.taped {
            true => (0, 0),
            false if session > recorder => (recorder, 0),
            false => (session, recorder.min(TOOK_MAX)),
        };
    }

    /// Stops counting events for the tape (the recording of a run for replay) if the tape has ended
    /// by itself.
    pub fn notice_end_of_tape(&mut self) {
        if self.taped && !tape::is_on() {
            self.follow_tape();
        }
    }

    /// Begins or stops counting events for the tape (the recording of a run for replay), as the
    /// tape is on or off.
    pub fn follow_tape(&mut self) {
        self.taped = tape::is_on();
        self.follow = true;
        self.update_threshold();
    }

    fn recordings(&mut self) -> impl Iterator<Item = &mut Recording> {
        [&mut self.session, &mut self.recorder]
            .into_iter()
            .flatten()
    }

    /// Whether the event loop needs an observer that reports turns and polls: a recording has not
    /// ended, or the tape is on.
    pub fn is_on(&self) -> bool {
        self.taped || self.has_recording()
    }

    fn has_recording(&self) -> bool {
        [&self.session, &self.recorder]
            .into_iter()
            .flatten()
            .any(|recording| recording.state != State::Ended)
    }

    /// Whether one of the two recordings ends with the present turn.
    pub fn is_ending(&self) -> bool {
        [&self.session, &self.recorder]
            .into_iter()
            .flatten()
            .any(|recording| recording.state == State::Ending)
    }

    /// The memory of the two recordings' rings, in bytes.
    pub fn memory(&self) -> usize {
        let recordings = [&self.session, &self.recorder].into_iter().flatten();
        recordings.map(|recording| recording.ring.memory()).sum()
    }

    /// TRACE START: begins a session with the next turn; an earlier session is dropped.
    pub fn start(&mut self, events: usize, slower_than_us: u64, clock: Ticks) {
        self.session = Some(Recording::new(events, slower_than_us, clock));
        self.follow = true;
        self.update_threshold();
    }

    /// TRACE STOP: ends the session with the present turn. Returns whether a session was on.
    pub fn stop(&mut self) -> bool {
        let Some(session) = self.session.as_mut().filter(|session| session.is_on()) else {
            return false;
        };
        session.enter(match session.state {
            State::Running => State::Ending,
            _ => State::Ended,
        });
        self.follow = true;
        self.update_threshold();
        true
    }

    /// Begins or ends the flight recorder, as `trace-recorder` says.
    pub fn set_recorder(&mut self, on: bool, clock: Ticks) {
        if on != self.recorder.is_some() {
            self.recorder = on.then(|| Recording::new(EVENTS_DEFAULT, RECORDER_MIN_US, clock));
            self.follow = true;
            self.update_threshold();
        }
    }

    /// Records a span from `start` to `end`; the next span can begin at `end`, the new mark.
    #[inline]
    pub fn span(&mut self, kind: EventKind, start: u64, end: u64, client: u64, number: u64) {
        if end.wrapping_sub(start) >= self.keeps_from {
            self.keep(kind, start, end, client, number);
        }
        self.mark = end;
    }

    #[inline(never)]
    fn keep(&mut self, kind: EventKind, start: u64, end: u64, client: u64, number: u64) {
        if !self.keep_short(kind, start, end, client, number) {
            self.keep_any(kind, start, end, client, number);
        }
    }

    /// Stores an event in one word of the session's ring. An event fits into one word, as most
    /// events do, if it begins where the last event ended, and only the session keeps it. Returns
    /// whether the event was stored.
    #[inline(always)]
    fn keep_short(
        &mut self,
        kind: EventKind,
        start: u64,
        end: u64,
        client: u64,
        number: u64,
    ) -> bool {
        let took = end.wrapping_sub(start);
        let (Some(session), Ok(number)) = (&mut self.session, u16::try_from(number)) else {
            return false;
        };
        took < self.session_below
            && session.ring.push_short(Short {
                kind,
                number,
                start,
                took,
                client,
            })
    }

    #[inline(never)]
    fn keep_any(&mut self, kind: EventKind, start: u64, end: u64, client: u64, number: u64) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if self.taped {
            note_on_tape(kind, client, number);
        }
        self.push(Event {
            start,
            end,
            client,
            number,
            kind,
        });
    }

    #[inline(always)]
    fn push(&mut self, event: Event) {
        if let Some(session) = &mut self.session {
            session.push(event);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.push(event);
        }
    }

    /// Records a span of another thread than the event loop's; such a span may overlap with any
    /// other span.
    pub fn elsewhere(&mut self, kind: EventKind, start: u64, end: u64, number: u64) {
        self.push(Event {
            start,
            end,
            client: 0,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            kind,
        });
    }

    /// Records a span from the mark, the end of the last span, to now.
    #[inline]
    pub fn since_mark(&mut self, kind: EventKind, client: u64, number: u64) {
        self.span(kind, self.mark, ticks::now(), client, number);
    }

    /// Records a command of a client. While a session of the trace records, `command` runs for each
    /// command of a client, so the code for the usual case is short.
    #[inline(always)]
    pub fn command(&mut self, id: u16, start: u64, end: u64, client: u64) {
        let (kind, number) = (EventKind::Command, id.into());
        if end.wrapping_sub(start) >= self.keeps_from
            && !self.keep_short(kind, start, end, client, number)
        {
            self.keep_any(kind, start.max(self.floor), end, client, number);
        }
        self.mark = end;
    }

    /// Begins a step of `before_sleep` or a job of the cron.
    pub fn begin_part(&mut self, start: u64) {
        self.mark = start;
        self.floor = start;
    }

    /// Begins a phase: a turn, a poll, a call of a handler.
    pub fn begin(&mut self, kind: EventKind, client: u64, commands: u64) {
        let start = ticks::now();
        self.begin_part(start);
        if let Some(open) = self.open.get_mut(self.depth) {
            *open = Open {
                kind,
                start,
                client,
                commands,
            };
        }
        self.depth += 1;
    }

    /// Ends the innermost open phase and records it. A phase whose beginning was not recorded is
    /// left out.
    pub fn end(&mut self, number: u64) {
        let Some(open) = self.close() else {
            return;
        };
        let now = ticks::now();
        self.span(open.kind, open.start, now, open.client, number);
        if open.kind == EventKind::Poll && self.depth == 1 {
            self.poll_ticks = now.wrapping_sub(open.start);
        }
    }

    fn close(&mut self) -> Option<Open> {
        self.depth = self.depth.checked_sub(1)?;
        let around = self.depth.checked_sub(1);
        let around = around.and_then(|at| self.open.get(at));
        self.floor = around.map_or(0, |open| open.start);
        self.open.get(self.depth).copied()
    }

    /// Begins the recordings that wait for the beginning of a turn.
    fn begin_waiting(&mut self) {
        for recording in self.recordings() {
            if recording.state == State::Waiting {
                recording.enter(State::Running);
            }
        }
        self.update_threshold();
    }

    /// Called in `before_sleep` when the loop's observer was set: waiting recordings begin, and
    /// record the rest of this turn. `read` has the server's numbers of reads and of bytes read.
    pub fn join_turn(&mut self, commands: u64, read: (u64, u64)) {
        if self.depth == 0 {
            self.reads_seen = read;
            self.begin(EventKind::Turn, 0, commands);
            self.begin(EventKind::BeforeSleep, 0, 0);
        }
        self.begin_waiting();
    }

    /// Begins a turn of the loop. With a turn that is not nested, waiting recordings begin.
    pub fn begin_turn(&mut self, commands: u64) {
        if self.depth == 0 {
            self.poll_ticks = 0;
            self.begin_waiting();
            return self.begin(EventKind::Turn, 0, commands);
        }
        self.begin(EventKind::NestedTurn, 0, commands);
    }

    /// Ends a turn of the loop. With a turn that is not nested, recordings that were stopped end.
    /// Returns `None` for a nested turn.
    pub fn end_turn(&mut self, commands: u64) -> Option<EndedTurn> {
        let open = self.close()?;
        let now = ticks::now();
        let ran = commands.wrapping_sub(open.commands);
        self.span(open.kind, open.start, now, 0, ran);
        if open.kind == EventKind::NestedTurn {
            return None;
        }
        for recording in self.recordings() {
            if recording.state == State::Ending {
                recording.enter(State::Ended);
            }
        }
        self.update_threshold();
        let busy = now.wrapping_sub(open.start).saturating_sub(self.poll_ticks);
        Some(EndedTurn { busy })
    }

    /// Drops the open phases, since their ends will not be reported: the loop's observer was
    /// removed.
    pub fn forget_open(&mut self) {
        self.depth = 0;
    }

    /// The phases that have not ended, as events that end now, since these phases contain events of
    /// the recording.
    fn open_phases(&self, recording: &Recording) -> impl Iterator<Item = Event> {
        let min_ticks = recording.min_ticks;
        let depth = match recording.state {
            State::Running | State::Ending => self.depth.min(DEPTH_MAX),
            State::Waiting | State::Ended => 0,
        };
        let end = ticks::now();
        let as_ended = move |open: &Open| Event {
            start: open.start,
            end,
            client: open.client,
            number: 0,
            kind: open.kind,
        };
        let events = self.open[..depth].iter().rev().map(as_ended);
        events.filter(move |event| event.end.wrapping_sub(event.start) >= min_ticks)
    }

    /// A copy of a recording with all data that a trace file needs. `None` if the recording does
    /// not exist.
    pub fn snapshot(
        &self,
        source: Source,
        commands: &CommandTable,
        clock: Ticks,
    ) -> Option<Snapshot> {
        let recording = match source {
            Source::Session => self.session.as_ref()?,
            Source::Recorder => self.recorder.as_ref()?,
        };
        let mut events = recording.ring.to_vec();
        events.extend(self.open_phases(recording));
        let entries = commands.entries.iter();
        let fullnames = entries.map(|entry| entry.fullname.to_uppercase().into_boxed_str());
        Some(Snapshot {
            events,
            lost: recording.ring.lost(),
            slower_than_us: recording.slower_than_us,
            names: Names {
                commands: fullnames.collect(),
                steps: self.steps,
                jobs: self.jobs.clone(),
            },
            clock,
            made_at: ticks::now(),
            made_unix_us: clock::unix_us(),
        })
    }
}

/// Adds an event to the tape's digest of all events, by which a replay is compared with the
/// recorded run.
#[cold]
#[inline(never)]
fn note_on_tape(kind: EventKind, client: u64, number: u32) {
    tape::note_event(kind as u8, client, number);
}

impl Server {
    /// Records a span from `start` to now, if a trace is on. Only for work that is rare or long,
    /// since it reads the processor's counter.
    #[inline]
    pub fn traced(&mut self, kind: EventKind, start: u64, number: u64) {
        if self.armed & armed::TRACE != 0 {
            self.trace.span(kind, start, ticks::now(), 0, number);
        }
    }
}

impl Server {
    /// Records a span of another thread than the event loop's, if a trace is on.
    pub fn traced_elsewhere(&mut self, kind: EventKind, (start, end): (u64, u64), number: u64) {
        if self.armed & armed::TRACE != 0 {
            self.trace.elsewhere(kind, start, end, number);
        }
    }
}

/// The names of commands, steps of `before_sleep` and cron jobs, by their numbers.
pub struct Names {
    commands: Vec<Box<str>>,
    steps: &'static [&'static str],
    jobs: Vec<&'static str>,
}

/// A copy of a recording's events, with the names that a trace file needs, which another thread
/// writes to the file.
pub struct Snapshot {
    pub events: Vec<Event>,
    lost: u64,
    slower_than_us: u64,
    names: Names,
    clock: Ticks,
    made_at: u64,
    made_unix_us: i64,
}
