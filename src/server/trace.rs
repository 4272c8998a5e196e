//! The event loop's side of the trace: the loop's observer, slow turns, and the files that are
//! written.
//!
//! ```text
//!   process_events ── Begin, End ──> observe ──> Trace      the end of a turn: was it slow?
//!                                                   └─ yes: a copy of the recorder's ring ──> the disk's thread ──> file
//! ```
//!
//! The loop's observer is set while events are recorded, and removed by [`follow`] after the
//! recording has ended.

use ae::{EventLoop, Mask, Moment, Phase, Token};

use crate::client::reply;
use crate::observe::trace::chrome::to_json;
use crate::observe::trace::event::EventKind;
use crate::observe::trace::{EVENTS_MAX, Snapshot, Source};
use crate::persist::aof::disk::Job;
use crate::state::Server;
use crate::sys;
use crate::sys::tape;

/// The name of the file that has the flight recorder's events after a crash.
const CRASH_NAME: &str = "trace-crash.json";

/// Called before the loop sleeps, when a recording has begun or ended or a file is requested: sets
/// or removes the loop's observer and the trace's bit of `armed`, and has the requested file
/// written.
pub fn follow(el: &mut EventLoop<Server>, server: &mut Server) {
    if let Some((name, snapshot)) = server.trace.files.wished.take() {
        write_in_background(server, name.into(), snapshot, "TRACE DUMP".into());
    }
    let (trace, stats) = (&mut server.trace, &server.stats);
    // A session of the trace that ends with this turn is checked again after the turn.
    trace.follow = trace.is_ending();
    if trace.is_on() {
        let read = (stats.reads_processed, stats.net_input_bytes);
        trace.join_turn(stats.commands_processed, read);
    } else {
        trace.forget_open();
    }
    set_observer(el, server);
}

/// Sets the loop's observer if events are recorded, and removes it otherwise.
pub fn set_observer(el: &mut EventLoop<Server>, server: &mut Server) {
    let on = server.trace.is_on();
    el.set_observer(on.then_some(observe));
    server.lazyfree.set_traced(on);
    reply::set_traced(on);
    server.update_armed();
}

fn observe(el: &EventLoop<Server>, server: &mut Server, phase: Phase, moment: Moment) {
    let commands = server.stats.commands_processed;
    match (phase, moment) {
        (Phase::Turn, Moment::Begin) => server.trace.begin_turn(commands),
        (Phase::Turn, Moment::End) => end_turn(server, commands),
        (_, Moment::Begin) => {
            let (kind, client) = kind_of(el, server, phase);
            if client != 0 && tape::replays() {
                tape::note_client(client);
            }
            server.trace.begin(kind, client, 0);
        }
        (Phase::Poll(files), Moment::End) => server.trace.end(files as u64),
        (_, Moment::End) => server.trace.end(0),
    }
}

fn end_turn(server: &mut Server, commands: u64) {
    let Server {
        trace, lazyfree, ..
    } = server;
    lazyfree.take_spans(|(start, end, objects)| {
        trace.elsewhere(EventKind::LazyFree, start, end, objects as u64);
    });
    let ended = trace.end_turn(commands);
    let slow_us = server.config.trace_slow_turn_us;
    if let Some(turn) = ended
        && slow_us > 0
        && server.trace.recorder.is_some()
        && server.clock.us(turn.busy) >= slow_us
    {
        slow_turn(server, server.clock.us(turn.busy));
    }
}

/// After a slow turn: writes the flight recorder's last seconds of events to a file, unless a file
/// was written a moment ago.
#[cold]
fn slow_turn(server: &mut Server, turn_us: u64) {
    let now_ms = server.clock.now_ms;
    let Some(name) = server.trace.files.slow_turn(turn_us, now_ms) else {
        return;
    };
    log::warn!("A turn of the event loop took {turn_us} us. Its trace will be in {name}");
    server
        .commandlog
        .push_slow_turn(turn_us, &name, server.clock.now_s());
    if let Some(snapshot) = snapshot(server, Source::Recorder) {
        let reason = format!("a turn of {turn_us} us");
        write_in_background(server, name, snapshot, reason);
    }
}

fn snapshot(server: &Server, source: Source) -> Option<Snapshot> {
    let clock = server.clock.ticks();
    server.trace.snapshot(source, &server.commands, clock)
}

/// Lets a thread make the JSON text of a trace and write it into the working directory.
fn write_in_background(server: &mut Server, name: String, snapshot: Snapshot, reason: String) {
    if tape::replays() {
        return;
    }
    // The path is made absolute, since `dir` may change before the thread writes.
    let path = std::path::absolute(&name).unwrap_or_else(|_| name.into());
    let make = Box::new(move || to_json(&snapshot, &reason));
    server.aof.flush.in_background(Job::Text { path, make });
}

/// Called at the end of the server: writes the whole recorded session to the file that `trace-out`
/// names.
pub fn write_session(server: &Server) {
    if server.config.trace_out.is_empty() {
        return;
    }
    if let Some(snapshot) = snapshot(server, Source::Session) {
        write_now(
            &server.config.trace_out.to_str_lossy(),
            &snapshot,
            "trace-out",
        );
    }
}

/// Called in a crash report: writes the flight recorder's last seconds of events to a file.
pub fn write_at_crash(server: &Server) {
    if let Some(snapshot) = snapshot(server, Source::Recorder) {
        write_now(CRASH_NAME, &snapshot, "a crash");
    }
}

fn write_now(name: &str, snapshot: &Snapshot, reason: &str) {
    match std::fs::write(name, to_json(snapshot, reason)) {
        Ok(()) => log::info!("Trace written to {name}"),
        Err(e) => log::warn!("Can't write the trace to {name}: {}", sys::error_text(&e)),
    }
}

/// The kind of trace event for a phase of the loop, and the id of the client whose socket the phase
/// serves.
fn kind_of(el: &EventLoop<Server>, server: &Server, phase: Phase) -> (EventKind, u64) {
    let kind = match phase {
        Phase::Turn => EventKind::Turn,
        Phase::BeforeSleep => EventKind::BeforeSleep,
        Phase::Poll(_) => EventKind::Poll,
        Phase::AfterSleep => EventKind::AfterSleep,
        Phase::Timer(_) => EventKind::Timer,
        Phase::File(token, direction) => {
            let kind = match direction {
                Mask::WRITABLE => EventKind::Writable,
                _ => EventKind::Readable,
            };
            return (kind, client_of(el, server, token));
        }
    };
    (kind, 0)
}

/// The id of the client with this socket; 0 for listeners, links and pipes.
fn client_of(el: &EventLoop<Server>, server: &Server, token: Token) -> u64 {
    let slot = el.data(token).and_then(|data| u32::try_from(data).ok());
    slot.and_then(|slot| server.net.clients.get(slot))
        .filter(|c| c.token == Some(token))
        .map_or(0, |c| c.id)
}

impl Server {
    /// `trace-out`: begins to record a session of the trace, which ends when the server stops.
    pub fn start_trace_out(&mut self) {
        if !self.config.trace_out.is_empty() {
            self.trace.start(EVENTS_MAX, 0, self.clock.ticks());
        }
    }

    /// Begins or ends the flight recorder, as `trace-recorder` says.
    pub fn follow_trace_settings(&mut self) {
        let clock = self.clock.ticks();
        self.trace.set_recorder(self.config.trace_recorder, clock);
    }
}
