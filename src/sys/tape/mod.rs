//! The tape: all inputs of the loop's thread, recorded into a file (`trace-record`, TRACE RECORD),
//! or taken from the file again (`--replay`).
//!
//! ```text
//!                                       off        recording                     replaying
//!   clocks, counter, poll      ─┐
//!   accept, read, write         ├──>  the caller   the caller + a block ─┐       the caller <── the file
//!   seed, memory, threads,      │                                        v       what it writes is compared
//!   signals, children          ─┘                        a thread ─> the file
//! ```
//!
//! One thread runs all commands, so their order follows from these inputs. A replay makes the same
//! calls, gets the same answers from the file, and so makes the same turns of the loop: it asks no
//! socket, no thread and no clock. Each entry of the file has its kind; the entry of a write also
//! has the hash of the bytes that were sent, the entry of a poll the hash of the trace's events so
//! far. So a difference is noticed where it happens, and the replay ends with a report of the turn,
//! the client, the recorded entry and what the server did instead.
//!
//! **Of children and files** only what the loop sees is recorded: the pid, the reports and the end
//! of a child (BGSAVE), the result of SAVE. A replay forks no child and writes no file.
//!
//! **Not recorded** are the AOF, replicas, links to a primary or other nodes, TLS, the debugger of
//! scripts, other listening sockets, active defragmentation, CONFIG REWRITE, ACL LOAD, DEBUG
//! RELOAD. When a feature that is not recorded begins, the recording ends, with a log line that
//! names the feature ([`not_recorded`]).
//!
//! **Not equal** in a replay is what depends on addresses or on the seed of the script engine,
//! which are no inputs of the loop: the order of `pairs` in a script, `tostring` of a table. If a
//! reply contains such a value, the replay reports a difference.
//!
//! **The recording never waits for the disk.** Blocks are passed to a thread by a queue of
//! [`QUEUE`] blocks. If the queue is full, or the file has its greatest size, the recording ends
//! with a line in the log. A killed server loses the entries that were not passed to the thread:
//! those of at most a tenth of a second.
//!
//! **While the tape is off**, a reading of an input costs one predictable branch. A reading of the
//! counter costs no further branch, since `sys::ticks` has one branch for all its sources.

pub mod format;
mod player;
mod recorder;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

pub use self::format::Input;
use self::format::{Fault, Outcome, TapeEntry, Write};
use self::player::{Player, State};
use self::recorder::Recorder;
use crate::sys::ticks;
use crate::util::fnv;

/// The number of bytes of a write that are kept, to show them if a replay differs.
const HEAD: usize = 64;
/// The maximum number of blocks that wait for the disk.
const QUEUE: usize = 256;

const OFF: u8 = 0;
const RECORDS: u8 = 1;
const REPLAYS: u8 = 2;

/// Whether the loop's thread records its inputs or replays them. Other threads read this variable
/// as well, but they have no tape.
static MODE: AtomicU8 = AtomicU8::new(OFF);

enum Tape {
    Records(Recorder),
    Replays(Player),
}

thread_local! {
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// Whether inputs are recorded or replayed.
#[inline]
pub fn is_on() -> bool {
    MODE.load(Ordering::Relaxed) != OFF
}

/// Whether inputs come from a file: then there are no sockets, and nothing outside of the process
/// may be changed.
#[inline]
pub fn replays() -> bool {
    MODE.load(Ordering::Relaxed) == REPLAYS
}

/// Whether inputs are recorded.
pub fn records() -> bool {
    MODE.load(Ordering::Relaxed) == RECORDS
}

fn set_mode(mode: u8) {
    MODE.store(mode, Ordering::Relaxed);
    ticks::choose_source(mode != OFF);
}

/// Begins to record the inputs of this thread into a new file of at most `max_bytes`.
pub fn record(path: &Path, max_bytes: u64) -> io::Result<()> {
    let recorder = Recorder::create(path, max_bytes)?;
    TAPE.set(Some(Tape::Records(recorder)));
    set_mode(RECORDS);
    Ok(())
}

/// Whether a recording could be written to this file, which is made if it does not exist.
pub fn check_file(path: &Path) -> io::Result<()> {
    recorder::open(path).map(drop)
}

/// Takes the inputs of this thread from a file from now on.
pub fn replay(path: &Path) -> Result<(), Fault> {
    let player = Player::open(path)?;
    TAPE.set(Some(Tape::Replays(player)));
    set_mode(REPLAYS);
    Ok(())
}

/// Called in a forked child: stops the recording in the child, since the tape is the parent's.
pub fn leave() {
    if is_on() {
        set_mode(OFF);
        // The recorder's thread does not exist in the child, so the recorder is not dropped.
        std::mem::forget(TAPE.take());
    }
}

/// Ends the recording, or the replay, which must have come to the end of the recording.
pub fn stop(reason: &str) {
    let taken = TAPE.take();
    match taken {
        Some(Tape::Records(recorder)) => {
            set_mode(OFF);
            recorder.end(reason);
        }
        Some(Tape::Replays(mut player)) => {
            player.expect_end(reason);
        }
        None => {}
    }
}

/// Ends the recording, since the feature `what`, which is not recorded, begins.
#[inline]
pub fn not_recorded(what: &str) {
    if is_on() {
        stop(&format!("{what} is not recorded"));
    }
}

/// Called at the end of the process: waits until the file of the recording is complete.
pub fn finish() {
    stop("the server has stopped");
    recorder::wait_for_writer();
}

/// Called when the loop begins: from now on the recording does not wait for the disk.
pub fn loop_begins() {
    with(|tape| {
        if let Tape::Records(recorder) = tape {
            recorder.patient = false;
        }
    });
}

/// Passes the entries recorded so far to the thread that writes the file. The server's cron calls
/// this function.
pub fn flush() {
    if records() {
        with_recorder(Recorder::flush);
    }
}

/// The bytes and the turns of the recording so far; `None` if there is none.
pub fn progress() -> Option<(u64, u64)> {
    if !is_on() {
        return None;
    }
    let mut progress = (0, 0);
    with_recorder(|recorder| progress = recorder.progress());
    Some((
        number(Input::Fact, || progress.0),
        number(Input::Fact, || progress.1),
    ))
}

fn with<T>(then: impl FnOnce(&mut Tape) -> T) -> Option<T> {
    TAPE.with_borrow_mut(|tape| tape.as_mut().map(then))
}

/// Passes the recorder to `then`, and removes the recorder if it has stopped by itself.
fn with_recorder(then: impl FnOnce(&mut Recorder)) {
    let stopped = with(|tape| match tape {
        Tape::Records(recorder) => {
            then(recorder);
            recorder.has_stopped()
        }
        Tape::Replays(_) => false,
    });
    if stopped == Some(true) {
        set_mode(OFF);
        TAPE.set(None);
    }
}

/// Returns an input of the process: the result of `live`, which is recorded, or in a replay the
/// next entry of the file.
fn pass<T>(
    what: &str,
    live: impl FnOnce() -> T,
    record: impl FnOnce(&mut Recorder, &T),
    play: impl FnOnce(&mut State, &TapeEntry) -> Option<T>,
) -> T {
    let played = with(|tape| match tape {
        Tape::Records(_) => None,
        Tape::Replays(player) => Some(player.take(what, play)),
    });
    match played {
        Some(Some(value)) => value,
        Some(None) => {
            let value = live();
            with_recorder(|recorder| record(recorder, &value));
            value
        }
        None => live(), // another thread, which has no tape
    }
}

/// Records a number that comes from outside of the process, or takes it from the file in a replay.
#[inline]
pub fn number(input: Input, live: impl FnOnce() -> u64) -> u64 {
    if !is_on() {
        return live();
    }
    pass_number(input, live)
}

#[cold]
fn pass_number(input: Input, live: impl FnOnce() -> u64) -> u64 {
    pass(
        input.name(),
        live,
        |recorder, number| recorder.append(&TapeEntry::Number(input, *number)),
        |_, entry| match entry {
            TapeEntry::Number(found, number) if *found == input => Some(*number),
            _ => None,
        },
    )
}

/// Records bytes that come from outside of the process, or takes them from the file in a replay.
pub fn text(live: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    if !is_on() {
        return live();
    }
    pass(
        "a text",
        live,
        |recorder, text| recorder.append(&TapeEntry::Text(text)),
        |_, entry| match entry {
            TapeEntry::Text(text) => Some(text.to_vec()),
            _ => None,
        },
    )
}

/// Records the result of an action that changes something outside of the process, or takes the
/// result from the file in a replay. A replay does not run the action, so the inputs that the
/// action reads are not recorded.
pub fn outcome(live: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if !is_on() {
        return live();
    }
    let untaped = || {
        let tape = TAPE.take();
        let result = live();
        TAPE.set(tape);
        result
    };
    pass(
        "a result",
        untaped,
        |recorder, result| recorder.append(&TapeEntry::Outcome(to_outcome(result, |()| 0))),
        |_, entry| match entry {
            TapeEntry::Outcome(outcome) => Some(to_result(*outcome).map(drop)),
            _ => None,
        },
    )
}

/// Records a read from a socket, which appends to `into`, or appends the recorded bytes in a
/// replay.
#[cold]
pub fn read(
    fd: u64,
    into: &mut Vec<u8>,
    live: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
) -> io::Result<usize> {
    let before = into.len();
    let played = pass(
        "a read",
        || (live(into), into[before..].to_vec()),
        |recorder, (result, bytes)| {
            let outcome = to_outcome(result, |n| *n as u64);
            recorder.append(&TapeEntry::Read { fd, outcome, bytes });
        },
        |_, entry| match entry {
            TapeEntry::Read {
                fd: found,
                outcome,
                bytes,
            } if *found == fd && outcome.unwrap_or(0) == bytes.len() as u64 => {
                Some((to_result(*outcome).map(|n| n as usize), bytes.to_vec()))
            }
            _ => None,
        },
    );
    let (result, bytes) = played;
    if replays() {
        into.extend_from_slice(&bytes);
    }
    result
}

/// Records the result and the hash of a write to a socket, or takes the result from the file in a
/// replay. A replay compares the write with the recorded write.
#[cold]
pub fn write(
    fd: u64,
    pieces: &[IoSlice],
    live: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    pass(
        "a write",
        live,
        |recorder, result| {
            let (hash, head) = summary(pieces, *result.as_ref().unwrap_or(&0));
            recorder.append_write(&Write {
                fd,
                offered: len(pieces),
                outcome: to_outcome(result, |n| *n as u64),
                hash,
                head: &head,
            });
        },
        |state, entry| match entry {
            TapeEntry::Write(expected) if expected.outcome.unwrap_or(0) <= len(pieces) => {
                let (hash, head) = summary(pieces, expected.outcome.unwrap_or(0) as usize);
                let found = Write {
                    fd,
                    offered: len(pieces),
                    outcome: expected.outcome,
                    hash,
                    head: &head,
                };
                state.compare_write(expected, &found);
                Some(to_result(expected.outcome).map(|n| n as usize))
            }
            _ => None,
        },
    )
}

fn len(pieces: &[IoSlice]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// The hash of the first `sent` bytes of a write, and the first [`HEAD`] of these bytes.
fn summary(pieces: &[IoSlice], sent: usize) -> (u64, Vec<u8>) {
    let (mut left, mut hash, mut head) = (sent, 0, Vec::new());
    for piece in pieces {
        let part = &piece[..piece.len().min(left)];
        hash = fnv::hash(hash, part);
        head.extend_from_slice(&part[..part.len().min(HEAD - head.len())]);
        left -= part.len();
    }
    (hash, head)
}

/// Records a poll of the event loop, or takes it from the file in a replay; a change is a token and
/// the directions that are ready, as numbers.
pub fn poll(live: impl FnOnce() -> io::Result<Vec<(u64, u8)>>) -> io::Result<Vec<(u64, u8)>> {
    pass(
        "a poll",
        live,
        |recorder, result| {
            let outcome = to_outcome(result, |_| 0);
            recorder.append_poll(outcome, result.as_ref().map_or(&[], Vec::as_slice));
        },
        |state, entry| match entry {
            TapeEntry::Poll {
                outcome,
                event_count,
                events,
                changes,
            } => {
                state.begin_turn((*event_count, *events));
                Some(to_result(*outcome).map(|_| changes.clone()))
            }
            _ => None,
        },
    )
}

/// Counts an event of the loop's trace, without its times, so that a replay can compare the events.
pub fn note_event(kind: u8, client: u64, number: u32) {
    let mut bytes = [0; 13];
    bytes[0] = kind;
    bytes[1..9].copy_from_slice(&client.to_le_bytes());
    bytes[9..].copy_from_slice(&number.to_le_bytes());
    with(|tape| match tape {
        Tape::Records(recorder) => recorder.totals.add_event(&bytes),
        Tape::Replays(player) => player.state.totals.add_event(&bytes),
    });
}

/// Notes the client whose socket is served now, for the report of a replay that differs from its
/// recording.
pub fn note_client(id: u64) {
    with(|tape| {
        if let Tape::Replays(player) = tape {
            player.state.client = id;
        }
    });
}

/// Ends a replay that can't go on, because this server can't use the entry that the file has at
/// this point.
pub fn unusable(what: &str) -> ! {
    with(|tape| {
        if let Tape::Replays(player) = tape {
            player.state.unusable(what);
        }
    });
    unreachable!("only a replay takes its inputs from a file")
}

/// Encodes the result of a system call. An error that has no number becomes EIO.
fn to_outcome<T>(result: &io::Result<T>, number: impl FnOnce(&T) -> u64) -> Outcome {
    match result {
        Ok(value) => Ok(number(value)),
        Err(e) => Err(e.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn to_result(outcome: Outcome) -> io::Result<u64> {
    outcome.map_err(io::Error::from_raw_os_error)
}
