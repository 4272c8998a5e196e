//! The replaying side of the tape. A replay is a process of its own; functions of this file end the
//! process, with the digest of the replay, or with its difference from the recording.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::format::{Fault, Reader, TapeEntry, Totals, Write};
use crate::sys::print::{print_error, print_line};

/// The exit code of a replay that differs from its recording.
const DIFFERS: i32 = 1;
/// The exit code of a replay whose file can't be used.
const UNUSABLE: i32 = 2;
/// The exit code of a replay that is as its recording, which has no end.
const CUT: i32 = 3;

/// A replay in progress.
pub struct Player {
    reader: Reader<BufReader<File>>,
    pub state: State,
}

/// The progress of a replay.
pub struct State {
    path: PathBuf,
    pub totals: Totals,
    turns: u64,
    /// The id of the client whose socket is served now.
    pub client: u64,
}

impl Player {
    /// Opens the file of a recording.
    pub fn open(path: &Path) -> Result<Player, Fault> {
        let reader = Reader::new(BufReader::new(File::open(path)?))?;
        let state = State {
            path: path.into(),
            totals: Totals::default(),
            turns: 0,
            client: 0,
        };
        Ok(Player { reader, state })
    }

    /// Takes the next entry of the recording. `play` returns the value of the entry if the entry is
    /// the input that the server reads now.
    pub fn take<T>(
        &mut self,
        what: &str,
        play: impl FnOnce(&mut State, &TapeEntry) -> Option<T>,
    ) -> T {
        let state = &mut self.state;
        match self.reader.next_entry() {
            Ok(Some(TapeEntry::End { reason, totals })) => {
                let reason = text(reason);
                match self.reader.bytes_left() {
                    Ok(0) => state.end(&reason, totals),
                    Ok(bytes) => state.fails(&Fault::BehindEnd(bytes)),
                    Err(fault) => state.fails(&fault),
                }
            }
            Ok(Some(entry)) => {
                play(state, &entry).unwrap_or_else(|| state.differs(&describe(&entry), what))
            }
            Ok(None) => state.cut(),
            Err(fault) => state.fails(&fault),
        }
    }

    /// Ends the replay at the point at which the recorded server ended the recording.
    pub fn expect_end(&mut self, reason: &str) -> ! {
        let found = format!("the end: {reason}");
        self.take(&found, |_, _| None)
    }
}

impl State {
    /// Called when a poll begins a turn: compares the trace's events until here with those of the
    /// recording.
    pub fn begin_turn(&mut self, expected: (u64, u64)) {
        let found = (self.totals.event_count, self.totals.events);
        if expected != found {
            let show = |(count, hash)| format!("{count} events of the trace, hash {hash:016x}");
            self.differs(&show(expected), &show(found));
        }
        self.turns += 1;
        self.client = 0;
    }

    /// Compares a write with the write in the recording, and counts it.
    pub fn compare_write(&mut self, expected: &Write, found: &Write) {
        if expected != found {
            self.differs(&describe_write(expected), &describe_write(found));
        }
        self.totals.add_write(found);
    }

    fn end(&self, reason: &str, expected: Totals) -> ! {
        if expected != self.totals {
            self.differs(&format!("{expected:?}"), &format!("{:?}", self.totals));
        }
        self.print(&format!("It ends as the recording does: {reason}."));
        std::process::exit(0)
    }

    /// Ends the replay of a recording without an end: its server was killed.
    fn cut(&self) -> ! {
        if self.turns == 0 {
            let path = self.path.display();
            print_error(format_args!(
                "{path} ends before the first turn: nothing is replayed."
            ));
            std::process::exit(UNUSABLE);
        }
        self.print(
            "The recording has no end: the server was killed, or the file is cut. What came after \
             these turns is unknown.",
        );
        std::process::exit(CUT)
    }

    fn print(&self, ends: &str) {
        let (path, turns, totals) = (self.path.display(), self.turns, &self.totals);
        let (replies, events) = (totals.reply_bytes, totals.event_count);
        print_line(format_args!(
            "{path}: {turns} turns, {replies} bytes of replies, {events} events of the trace, all as recorded."
        ));
        print_line(ends);
        print_line(format_args!(
            "digest {:016x}-{:016x}",
            totals.replies, totals.events
        ));
    }

    fn differs(&self, expected: &str, found: &str) -> ! {
        let (turn, client) = (self.turns, self.client);
        print_error(format_args!(
            "{}: the replay differs in turn {turn}, client {client}.\nexpected: {expected}\nfound:    {found}",
            self.path.display()
        ));
        std::process::exit(DIFFERS)
    }

    fn fails(&self, fault: &Fault) -> ! {
        let (path, turn) = (self.path.display(), self.turns);
        print_error(format_args!("{path} {fault} (turn {turn})."));
        std::process::exit(UNUSABLE)
    }

    /// Ends the replay: an entry is whole, but the server can't use it.
    pub fn unusable(&self, what: &str) -> ! {
        let (path, turn) = (self.path.display(), self.turns);
        print_error(format_args!(
            "{path} can't be replayed: {what} (turn {turn})."
        ));
        std::process::exit(UNUSABLE)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn describe(entry: &TapeEntry) -> String {
    match entry {
        TapeEntry::Number(input, number) => format!("{}: {number}", input.name()),
        TapeEntry::Text(bytes) => format!("a text of {} bytes", bytes.len()),
        TapeEntry::Outcome(outcome) => format!("a result: {outcome:?}"),
        TapeEntry::Read { fd, bytes, .. } => {
            let head = &bytes[..bytes.len().min(super::HEAD)];
            format!("a read from fd {fd}: \"{}\"", head.escape_ascii())
        }
        TapeEntry::Write(write) => describe_write(write),
        TapeEntry::Poll { changes, .. } => format!("a poll with {} changes", changes.len()),
        TapeEntry::End { reason, .. } => format!("the end: {}", text(reason)),
    }
}

fn describe_write(write: &Write) -> String {
    let Write { fd, offered, .. } = write;
    let sent = match write.outcome {
        Ok(sent) => format!("{sent} sent, hash {:016x}", write.hash),
        Err(code) => format!("error {code}"),
    };
    let head = write.head.escape_ascii();
    format!("a write of {offered} bytes to fd {fd}, {sent}: \"{head}\"")
}
